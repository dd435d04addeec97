"""Rewrites the Python files of a tree: imports, uses of what moved, strings. Run once for symbols, once for modules."""

from __future__ import annotations

import ast
import re
import tokenize
from collections.abc import Iterable
from pathlib import Path

from names import DOTTED, Names
from source import Alias, Source, Statement

SETTERS = ("setattr", "delattr", "getattr", "hasattr", "object", "patched")
DUNDER_FILE = re.compile(r"Path\(__file__\)((?:\.resolve\(\))?)(\.parents\[\d+\]|(?:\.parent)+(?!s))")


def is_class(name: str) -> bool:
    """Classes and type aliases are imported by name, functions and constants are used through their module."""
    return name[:1].isupper() and not name.isupper()


class Rewriter:
    """`names`: what changed. `old_of`: the file's module as it was; `deeper`: how many folders deeper its file lies."""

    def __init__(self, names: Names, notes: list[str], keep: Iterable[str] = ()) -> None:
        self.names, self.notes, self.keep = names, notes, set(keep)

    # ── The first look: which local names change ───────────────────────────────────────────────────────────────────

    def plan_renames(self, sources: dict[str, Source]) -> None:
        """Find out, file by file, which import aliases can follow their module's new name."""
        for module, source in sources.items():
            renames = self._renames(source)
            if renames:
                self.names.renames[module] = renames

    def _renames(self, source: Source) -> dict[str, str]:
        wanted: dict[str, set[str]] = {}
        refused: set[str] = set()
        bound: dict[str, set[str]] = {}
        for statement in source.imports():
            for alias in statement.aliases:
                bound.setdefault(alias.local, set()).add(alias.full)
                if alias.full in self.keep:
                    continue
                if alias.module and alias.full in self.names.modules and alias.asname is None:
                    base = self.names.modules[alias.full].rpartition(".")[2]
                    if base != alias.name:
                        wanted.setdefault(alias.name, set()).add(base)
        found: dict[str, str] = {}
        for old, news in wanted.items():
            new = next(iter(news))
            if len(news) > 1 or len(bound[old]) > 1 or source.bindings(old):
                refused.add(old)
            elif new in bound or source.bindings(new) or source.loads(new) or new in found.values():
                refused.add(old)
            else:
                found[old] = new
        for old in refused:
            self.notes.append(
                f"alias kept: {source.path}: `{old}` stays as the local name of {sorted(bound[old])} "
                f"({'bound otherwise too' if source.bindings(old) else 'the new name is taken there'})"
            )
        # a new name that another refused old one still holds
        return {old: new for old, new in found.items() if new not in refused}

    # ── One file ───────────────────────────────────────────────────────────────────────────────────────────────────

    def file(self, source: Source, module: str, deeper: int = 0) -> str:
        renames = self.names.renames.get(module, {})
        statements = source.imports()
        holds = self._modules_held(statements)
        added: dict[str, set[tuple[str, str]]] = {}  # by local alias, the imports to stand beside its own
        self._uses(source, holds, renames, added)
        for statement in statements:
            self._statement(source, statement, renames, added)
        self._strings(source)
        if deeper:
            self._own_file(source, deeper)
        return source.result()

    def _modules_held(self, statements: Iterable[Statement]) -> dict[str, str]:
        """Local alias → old module, where an import binds a module of ours."""
        known = set(self.names.modules) | {module for module, _ in self.names.symbols} | set(self.names.renames)
        return {
            alias.local: alias.full
            for statement in statements
            for alias in statement.aliases
            if alias.full in known and (alias.module or alias.asname)
        }

    def _uses(self, source: Source, holds: dict[str, str], renames: dict[str, str], added: dict[str, set[tuple[str, str]]]) -> None:
        in_attribute: set[int] = set()
        for node in ast.walk(source.tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in holds:
                local, module = node.value.id, holds[node.value.id]
                target = self.names.symbols.get((module, node.attr))
                if target is not None:
                    in_attribute.add(id(node.value))
                    self._moved_use(source, node, local, target, added)
                elif node.attr in self.names.renames.get(module, {}):
                    start, end = source.span(node)
                    if source.text[start:end].endswith(node.attr):
                        source.replace(end - len(node.attr), end, self.names.renames[module][node.attr])
            elif isinstance(node, ast.Call) and len(node.args) >= 2 and _called(node) in SETTERS:
                self._setter(source, node, holds, added, in_attribute)
        for node in ast.walk(source.tree):
            if isinstance(node, ast.Name) and node.id in renames and id(node) not in in_attribute:
                self._name(source, node, renames[node.id])

    def _moved_use(self, source: Source, node: ast.Attribute, local: str, target: str, added: dict[str, set[tuple[str, str]]]) -> None:
        start, end = source.span(node)
        if source.text[start:end] != f"{local}.{node.attr}":
            self.notes.append(f"{source.path}:{node.lineno}: {local}.{node.attr} could not be placed")
            return
        parent, _, base = target.rpartition(".")
        by_name = is_class(node.attr) or self._is_taken(source, parent, base)
        if by_name and not source.bindings(node.attr):
            source.replace(start, end, node.attr)
            added.setdefault(local, set()).add((target, node.attr))
            return
        source.replace(start, start + len(local), base)
        added.setdefault(local, set()).add((parent, base))

    def _is_taken(self, source: Source, parent: str, base: str) -> bool:
        """Whether a module's name means something else in this file."""
        imported = any(alias.local == base and alias.full != f"{parent}.{base}" for s in source.imports() for alias in s.aliases)
        return imported or bool(source.bindings(base))

    def _setter(self, source: Source, node: ast.Call, holds: dict[str, str], added: dict[str, set[tuple[str, str]]], done: set[int]) -> None:
        holder, name = node.args[0], node.args[1]
        if not (isinstance(holder, ast.Name) and holder.id in holds and isinstance(name, ast.Constant)):
            return
        module = holds[holder.id]
        target = self.names.symbols.get((module, str(name.value)))
        if target is not None:
            parent, _, base = target.rpartition(".")
            start, end = source.span(holder)
            source.replace(start, end, base)
            done.add(id(holder))
            added.setdefault(holder.id, set()).add((parent, base))
        elif str(name.value) in self.names.renames.get(module, {}):
            start, end = source.span(name)
            source.replace(start, end, f'"{self.names.renames[module][str(name.value)]}"')

    def _name(self, source: Source, node: ast.Name, new: str) -> None:
        start, end = source.span(node)
        if source.text[start:end] != node.id:
            self.notes.append(f"{source.path}:{node.lineno}: a use of `{node.id}` could not be placed (f-string?)")
            return
        source.replace(start, end, new)

    def _statement(self, source: Source, statement: Statement, renames: dict[str, str], added: dict[str, set[tuple[str, str]]]) -> None:
        result: list[Alias] = []
        changed = False
        for alias in statement.aliases:
            new = self._alias(alias, renames)
            if new is not None:
                result.append(new)
            changed = changed or new is None or (new.module, new.name, new.asname) != (alias.module, alias.name, alias.asname)
            for module, name in sorted(added.get(alias.local, ())):
                result.append(Alias(module, name, None))
                changed = True
        if changed:
            unique = {(each.module, each.name, each.asname): each for each in result}
            source.rewrite(statement, list(unique.values()), self.notes)

    def _alias(self, alias: Alias, renames: dict[str, str]) -> Alias | None:
        if not alias.module:
            new = self.names.modules.get(alias.name, alias.name)
            if new != alias.name and alias.asname is None:
                self.notes.append(f"import {alias.name} without a name of its own: its uses were not followed")
            return Alias("", new, alias.asname)
        module, base = self.names.imported(alias.module, alias.name)
        if base == alias.name:
            return Alias(module, base, alias.asname)
        if alias.asname is not None:
            return Alias(module, base, None if alias.asname == base else alias.asname)
        return Alias(module, base, None if renames.get(alias.name) == base else alias.name)

    # ── Strings and comments ───────────────────────────────────────────────────────────────────────────────────────

    def _strings(self, source: Source) -> None:
        inside = [source.span(statement.node) for statement in source.imports()]
        before = ""
        middle = getattr(tokenize, "FSTRING_MIDDLE", -1)
        for token, start, end in source.tokens():
            text = source.text[start:end]
            if token.type in (tokenize.STRING, tokenize.COMMENT, middle):
                if not any(a <= start < b for a, b in inside) and not self._is_edited(source, start, end):
                    new = self.names.text(text, before)
                    if new != text:
                        source.replace(start, end, new)
            if token.type not in (tokenize.NL, tokenize.NEWLINE, tokenize.COMMENT, tokenize.INDENT, tokenize.DEDENT):
                before = (before + text + (" " if token.type == tokenize.OP and text == "," else ""))[-40:]

    def _is_edited(self, source: Source, start: int, end: int) -> bool:
        return any(a < end and start < b for a, b, _ in source.edits)

    def _own_file(self, source: Source, deeper: int) -> None:
        for match in DUNDER_FILE.finditer(source.text):
            up = match[2]
            count = up.count(".parent") - 1 if "[" not in up else int(re.findall(r"\d+", up)[0])
            source.replace(*match.span(2), f".parents[{count + deeper}]")
        rest = DUNDER_FILE.sub("", source.text)
        for number, line in enumerate(rest.split("\n"), 1):
            if "__file__" in line:
                self.notes.append(f"{source.path}:{number}: __file__ in a file that moved: {line.strip()[:90]}")


def _called(node: ast.Call) -> str:
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def mentions(text: str) -> Iterable[str]:
    return (match[0] for match in DOTTED.finditer(text))


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
