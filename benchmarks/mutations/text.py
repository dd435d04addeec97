"""A module's source text: the positions of its syntax nodes in bytes, and the text between two positions."""

from __future__ import annotations

import ast
import itertools
import re


class Text:
    """Source text in which a position is a number of bytes from the start; the syntax tree counts bytes within a line."""

    def __init__(self, source: str) -> None:
        self._raw = source.encode()
        self._starts = [0, *itertools.accumulate(len(line) for line in self._raw.splitlines(keepends=True))]

    def start(self, node: ast.AST) -> int:
        return self._starts[node.lineno - 1] + node.col_offset  # type: ignore[attr-defined, no-any-return]

    def end(self, node: ast.AST) -> int:
        return self._starts[node.end_lineno - 1] + node.end_col_offset  # type: ignore[attr-defined, no-any-return]

    def between(self, start: int, end: int) -> str:
        return self._raw[start:end].decode()

    def line(self, place: int) -> int:
        """Return the number, from 1, of the line that contains the byte at `place`."""
        return self._raw.count(b"\n", 0, place) + 1

    def lines(self, first: int, last: int) -> str:
        """Return lines by number, both ends included, joined by spaces and without other white space."""
        return " ".join(self._raw[self._starts[first - 1] : self._starts[last]].decode().split())

    def word(self, word: str, start: int, end: int) -> tuple[int, int] | None:
        """Return where the operator `word` starts and ends between two positions; None if it is not there.

        Comments are not searched.
        """
        edge = r"\b" if word[0].isalpha() else ""
        pattern = edge + r"\s+".join(map(re.escape, word.split())) + edge
        found = re.search(pattern, re.sub(r"#[^\n]*", lambda hit: " " * len(hit[0]), self.between(start, end)))
        return None if found is None else (start + found.start(), start + found.end())
