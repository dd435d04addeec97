"""Moves top-level names from one module to another, with the imports they need. The first step: modules stay where they are."""

from __future__ import annotations

import ast
from dataclasses import dataclass, field
from pathlib import Path

from source import Alias, Source


@dataclass
class Move:
    source: str
    target: str
    names: list[str]
    copy: list[str] = field(default_factory=list)  # statements that both keep, such as `log`
    doc: str = ""  # of a module that is new
    why: str = ""


def path_of(root: Path, module: str) -> Path:
    return root / (module.replace(".", "/") + ".py")


def targets_of(node: ast.stmt) -> list[str]:
    """The names that a top-level statement defines."""
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return [node.name]
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        return [node.target.id]
    if isinstance(node, ast.Assign):
        found: list[str] = []
        for target in node.targets:
            parts = target.elts if isinstance(target, ast.Tuple) else [target]
            found += [part.id for part in parts if isinstance(part, ast.Name)]
        return found
    return []


def used_in(nodes: list[ast.stmt]) -> set[str]:
    found: set[str] = set()
    for top in nodes:
        for node in ast.walk(top):
            if isinstance(node, ast.Name):
                found.add(node.id)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.isidentifier():
                found.add(node.value)  # an annotation in quotes
    return found


def move(root: Path, each: Move, notes: list[str]) -> bool:
    """Do one move on the text of both files; imports elsewhere follow in a second step. Whether there was something to do."""
    source_path, target_path = path_of(root, each.source), path_of(root, each.target)
    if not source_path.exists():
        notes.append(f"move: {each.source} does not exist on this tree; {', '.join(each.names)} stay")
        return False
    source = Source.read(source_path)
    defined = {name: node for node in source.tree.body for name in targets_of(node)}
    here = [name for name in each.names if name in defined]
    lacking = [name for name in each.names if name not in defined]
    if lacking:
        notes.append(f"move: {each.source} has no {', '.join(lacking)} (moved or renamed since the plan was made)")
    if not here:
        return False
    nodes = list(dict.fromkeys(defined[name] for name in here))
    for node in nodes:
        others = set(targets_of(node)) - set(here)
        if others:
            raise SystemExit(f"{each.source}: {', '.join(others)} stand in one statement with {here}; name them too")
    nodes.sort(key=lambda node: node.lineno)
    copies = [defined[name] for name in each.copy if name in defined]
    used = used_in([*nodes, *copies])
    remaining = [node for node in source.tree.body if node not in nodes]
    stay = {name for name in defined if name not in here}
    back = sorted(used & stay - set(each.copy))
    segments = [_segment(source, node) for node in nodes]
    imports = _needed(source, used)
    for name in back:
        imports.append((Alias(each.source, name, None), False))
    _write_target(target_path, each, segments, nodes, [_segment(source, node)[2] for node in copies], imports)
    for start, end, _ in segments:
        source.replace(start, end, "")
    needed_back = sorted(used_in(remaining) & set(here))
    text = source.result()
    if needed_back:
        text = _with_imports(text, [(Alias(each.target, name, None), False) for name in needed_back])
    if back:
        notes.append(f"move: {each.target} takes {', '.join(back)} of {each.source}" + (
            f", which takes {', '.join(needed_back)} back: a circle" if needed_back else ""))
    source_path.write_text(text, encoding="utf-8")
    return True


def _segment(source: Source, node: ast.stmt) -> tuple[int, int, str]:
    """A statement with its decorators and the comment lines right above it: where it stands, and its text."""
    first = min([node.lineno, *(each.lineno for each in getattr(node, "decorator_list", []))])
    while first > 1 and source.line(first - 1).startswith("#"):
        first -= 1
    start, end = source.line_span(first, node.end_lineno or node.lineno)
    return start, end, source.text[start:end]


def _needed(source: Source, used: set[str]) -> list[tuple[Alias, bool]]:
    """The source's own top-level imports that the moved text uses, each with whether it is for types alone."""
    return [
        (alias, statement.types)
        for statement in source.imports()
        if statement.depth == 0
        for alias in statement.aliases
        if alias.local in used
    ]


def _write_target(path: Path, each: Move, segments: list[tuple[int, int, str]], nodes: list[ast.stmt],
                  copies: list[str], imports: list[tuple[Alias, bool]]) -> None:  # fmt: skip
    imports = [(alias, types) for alias, types in imports if alias.module != each.target]
    if not path.exists():
        if not each.doc:
            raise SystemExit(f"{each.target} does not exist and has no doc in the plan")
        doc = each.doc.strip()
        closing = "\n" if "\n" in doc else ""
        head = f'"""{doc}{closing}"""\n\nfrom __future__ import annotations\n'
        body = "".join(f"{text}\n" for text in copies)
        last: ast.stmt | None = None
        for node, (_, _, text) in zip(nodes, segments, strict=True):
            body += ("" if last is not None and _is_constant(last) and _is_constant(node) else "\n\n") + text
            last = node
        path.write_text(_with_imports(head + "\n" + body, imports), encoding="utf-8")
        return
    text = path.read_text(encoding="utf-8")
    text = _without(text, each.source, set(each.names))
    target = Source(path, text)
    early = [text for (_, _, text), node in zip(segments, nodes, strict=True) if not _is_function(node)]
    late = [text for (_, _, text), node in zip(segments, nodes, strict=True) if _is_function(node)]
    last_import = max(
        (node.end_lineno or 0 for node in target.tree.body if isinstance(node, (ast.Import, ast.ImportFrom)) or _is_checking(node)),
        default=1,
    )
    first_definition = next((min([n.lineno, *(d.lineno for d in n.decorator_list)]) for n in target.tree.body
                             if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))), None)  # fmt: skip
    constants = [text for text, node in zip(early, [n for n in nodes if not _is_function(n)], strict=True) if not isinstance(node, ast.ClassDef)]
    classes = [text for text in early if text not in constants]
    own = {name for node in target.tree.body for name in targets_of(node)}
    if constants:
        where, gap = target.line_span(last_import, last_import)[1], "\n"
        first = next((n for n in target.tree.body if n.lineno > last_import and _is_constant(n) and targets_of(n) != ["log"]), None)
        if first is not None and (first_definition is None or first.lineno < first_definition):
            where, gap = _segment(target, first)[0], ""
        target.replace(where, where, gap + "".join(constants))
    if classes:
        place = target.line_span(first_definition, first_definition)[0] if first_definition else len(text)
        target.replace(place, place, "\n\n".join(classes) + "\n\n")
    if late:
        main = next((n for n in target.tree.body if isinstance(n, ast.If) and "__main__" in ast.dump(n.test)), None)
        place = target.line_span(main.lineno, main.lineno)[0] if main else len(text)
        target.replace(place, place, "\n\n" + "\n\n".join(late) + "\n\n")
    imports = [(alias, types) for alias, types in imports if alias.local not in own]
    path.write_text(_with_imports(target.result(), imports), encoding="utf-8")


def _is_function(node: ast.stmt) -> bool:
    return isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))


def _is_constant(node: ast.stmt) -> bool:
    return isinstance(node, (ast.Assign, ast.AnnAssign))


def _is_checking(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)


def _without(text: str, module: str, names: set[str]) -> str:
    """A module's text without its own imports of names that come to it."""
    source = Source(Path("-"), text)
    for statement in source.imports():
        kept = [alias for alias in statement.aliases if not (alias.module == module and alias.name in names)]
        if len(kept) != len(statement.aliases):
            source.rewrite(statement, kept, [])
    return source.result()


def _with_imports(text: str, imports: list[tuple[Alias, bool]]) -> str:
    """A text with these imports behind its own; what it has already is not written twice (ruff sorts and merges)."""
    source = Source(Path("-"), text)
    has = {(a.full, a.local) for s in source.imports() if s.depth == 0 for a in s.aliases}
    plain = [alias.text() for alias, types in imports if not types and (alias.full, alias.local) not in has]
    for_types = [alias.text() for alias, types in imports if types and (alias.full, alias.local) not in has]
    block = "".join(f"{line}\n" for line in dict.fromkeys(plain) if line != "from __future__ import annotations")
    if for_types:
        block += "from typing import TYPE_CHECKING\n"
    top = [n for n in source.tree.body if isinstance(n, (ast.Import, ast.ImportFrom))]
    last = top[-1].end_lineno if top else source.tree.body[0].end_lineno
    place = source.line_span(last or 1, last or 1)[1]
    checking = next((n for n in source.tree.body if _is_checking(n)), None)
    if for_types and checking is not None:
        at = source.line_span(checking.end_lineno or 1, checking.end_lineno or 1)[1]
        source.replace(at, at, "".join(f"    {line}\n" for line in dict.fromkeys(for_types)))
    elif for_types:
        block += "\nif TYPE_CHECKING:\n" + "".join(f"    {line}\n" for line in dict.fromkeys(for_types))
    source.replace(place, place, block)
    return source.result()
