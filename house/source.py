"""A Python file as text with a syntax tree over it: offsets, bindings, import statements, edits. Knows no plan."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path


_trees: dict[str, ast.Module] = {}


def parse(text: str) -> ast.Module:
    """The tree of a text, which is only read: parsed once a process."""
    if text not in _trees:
        _trees[text] = ast.parse(text)
    return _trees[text]


@dataclass
class Alias:
    """One imported name of an import statement. `module` is "" for `import x`, whose `name` is the whole path."""

    module: str
    name: str
    asname: str | None

    @property
    def local(self) -> str:
        return self.asname or (self.name if self.module else self.name.partition(".")[0])

    @property
    def full(self) -> str:
        return f"{self.module}.{self.name}" if self.module else self.name

    def text(self) -> str:
        shown = self.name if self.asname in (None, self.name) else f"{self.name} as {self.asname}"
        return f"from {self.module} import {shown}" if self.module else f"import {shown}"


@dataclass
class Statement:
    """An import statement of ours, where it stands."""

    node: ast.Import | ast.ImportFrom
    aliases: list[Alias]
    depth: int  # of functions around it
    types: bool


@dataclass
class Source:
    path: Path
    text: str
    tree: ast.Module = field(init=False)
    edits: list[tuple[int, int, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.tree = parse(self.text)
        self._lines = [f"{line}\n" for line in self.text.split("\n")]  # only newlines end a line of Python
        self._starts = [0]
        for line in self._lines:
            self._starts.append(self._starts[-1] + len(line))

    @classmethod
    def read(cls, path: Path) -> Source:
        return cls(path, path.read_text(encoding="utf-8"))

    # ── Places ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def offset(self, line: int, column_bytes: int) -> int:
        """Of a place as the tree gives it: a line from 1, a column in bytes."""
        return self._starts[line - 1] + len(self._lines[line - 1].encode()[:column_bytes].decode())

    def span(self, node: ast.AST) -> tuple[int, int]:
        return (
            self.offset(node.lineno, node.col_offset),  # type: ignore[attr-defined]
            self.offset(node.end_lineno, node.end_col_offset),  # type: ignore[attr-defined]
        )

    def line_span(self, first: int, last: int) -> tuple[int, int]:
        """Whole lines, both counted from 1 and included."""
        return self._starts[first - 1], self._starts[min(last, len(self._starts) - 1)]

    def line(self, number: int) -> str:
        return self._lines[number - 1]

    def replace(self, start: int, end: int, new: str) -> None:
        self.edits.append((start, end, new))

    def result(self) -> str:
        text = self.text
        last = len(text) + 1
        for start, end, new in sorted(set(self.edits), reverse=True):
            if end > last:
                raise ValueError(f"{self.path}: two edits meet at {text[start:end]!r}")
            text = text[:start] + new + text[end:]
            last = start
        return text

    # ── Tokens ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def tokens(self) -> Iterator[tuple[tokenize.TokenInfo, int, int]]:
        """Each token with its offsets."""
        for token in tokenize.generate_tokens(io.StringIO(self.text).readline):
            start = self._starts[token.start[0] - 1] + token.start[1] if token.start[0] <= len(self._lines) else len(self.text)
            end = self._starts[token.end[0] - 1] + token.end[1] if token.end[0] <= len(self._lines) else len(self.text)
            yield token, start, end

    # ── Imports ────────────────────────────────────────────────────────────────────────────────────────────────────

    def imports(self) -> list[Statement]:
        found: list[Statement] = []

        def walk(node: ast.AST, depth: int, types: bool) -> None:
            for child in ast.iter_child_nodes(node):
                if isinstance(child, ast.Import):
                    found.append(Statement(child, [Alias("", a.name, a.asname) for a in child.names], depth, types))
                elif isinstance(child, ast.ImportFrom):
                    if child.level == 0 and child.module:
                        aliases = [Alias(child.module, a.name, a.asname) for a in child.names]
                        found.append(Statement(child, aliases, depth, types))
                else:
                    deeper = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
                    checking = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test)
                    walk(child, depth + deeper, types or checking)

        walk(self.tree, 0, False)
        return found

    def rewrite(self, statement: Statement, aliases: list[Alias], notes: list[str]) -> None:
        """Put other imports in a statement's place; its trailing comment stays with the first."""
        node = statement.node
        start, end = self.span(node)
        first_line_start = self._starts[node.lineno - 1]
        indent = self.text[first_line_start:start]
        if indent.strip():
            notes.append(f"{self.path}:{node.lineno}: an import after a semicolon, not touched")
            return
        tail_end = self._starts[node.end_lineno]
        tail = self.text[end:tail_end].rstrip("\n")
        inner = self.text[start:end]
        if re.search(r"#", inner):
            notes.append(f"{self.path}:{node.lineno}: a comment inside an import is lost: {inner!r}")
        grouped: dict[str, list[Alias]] = {}
        for alias in aliases:
            grouped.setdefault(alias.module, []).append(alias)
        lines: list[str] = []
        for module, members in grouped.items():
            if not module:
                lines += [each.text() for each in members]
                continue
            shown = sorted({each.text().partition(" import ")[2] for each in members})
            lines.append(f"from {module} import {', '.join(shown)}")
        if not lines:
            self.replace(first_line_start, tail_end, "")
            return
        every = "noqa" in tail
        text = f"\n{indent}".join(line + (tail if every or number == 0 else "") for number, line in enumerate(lines))
        self.replace(start, end + len(tail), text)

    # ── Names ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def bindings(self, name: str) -> list[ast.AST]:
        """Nodes that bind a name in any scope, imports aside."""
        found: list[ast.AST] = []
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Name) and node.id == name and isinstance(node.ctx, (ast.Store, ast.Del)):
                found.append(node)
            elif isinstance(node, ast.arg) and node.arg == name:
                found.append(node)
            elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) and node.name == name:
                if not _is_member(self.tree, node):
                    found.append(node)
            elif isinstance(node, ast.ExceptHandler) and node.name == name:
                found.append(node)
            elif isinstance(node, (ast.Global, ast.Nonlocal)) and name in node.names:
                found.append(node)
            elif isinstance(node, (ast.MatchAs, ast.MatchStar)) and node.name == name:
                found.append(node)
        return found

    def loads(self, name: str) -> int:
        return sum(isinstance(node, ast.Name) and node.id == name for node in ast.walk(self.tree))


def _is_member(tree: ast.Module, node: ast.AST) -> bool:
    """Whether a function is a method: its name binds nothing around it."""
    return any(isinstance(each, ast.ClassDef) and node in each.body for each in ast.walk(tree))


def fields_of(text: str) -> Iterator[tuple[int, int]]:
    """The replacement fields of an f-string's text (prefix and quotes included): from behind `{` to before its `}`."""
    quote = re.match(r"[A-Za-z]*(\"\"\"|'''|\"|')", text)
    if not quote:
        return
    position, stop = quote.end(), len(text) - len(quote.group(1))
    while position < stop:
        if text[position] == "{":
            if text[position + 1 : position + 2] == "{":
                position += 2
                continue
            depth, begin = 1, position + 1
            position += 1
            while position < stop and depth:
                depth += {"{": 1, "[": 1, "(": 1, "}": -1, "]": -1, ")": -1}.get(text[position], 0)
                position += 1
            yield begin, position - 1
        else:
            position += 1
