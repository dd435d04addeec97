"""Changes to SQL inside Python string literals: comparisons, conditions, states, numbers, and ON CONFLICT DO NOTHING.

SQL and the words to change are found by patterns, not by a grammar, so that keywords must be upper case. A change that
PostgreSQL refuses is killed by the first test that runs it, and proves nothing.
"""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Iterator

SQL = re.compile(r"\b(SELECT|INSERT INTO|UPDATE|DELETE FROM|WHERE|JOIN)\b")
SETS, ASKS = ("SET", "VALUES", "INTO"), ("WHERE", "ON", "AND", "OR", "WHEN", "HAVING", "NOT", "CASE", "SELECT")
CLAUSE = re.compile(rf"\b({'|'.join((*SETS, *ASKS))})\b")
PAIRS = (
    (r"(?<![<>=!-])<=", ("<", ">")),
    (r"(?<![<>=!-])>=", (">", "<")),
    (r"<>", ("=",)),
    (r"(?<![<>=!-])<(?![=>])", ("<=", ">=")),
    (r"(?<![<>=!-])>(?![=>])", (">=", "<=")),
    (r"(?<![<>=!])=(?![=>])", ("<>",)),
    (r"\bAND\b", ("OR",)),
    (r"\bOR\b", ("AND",)),
    (r"\bIS NULL\b", ("IS NOT NULL",)),
    (r"\bIS NOT NULL\b", ("IS NULL",)),
    (r"\bIS DISTINCT FROM\b", ("IS NOT DISTINCT FROM",)),
    (r"\bNOT EXISTS\b", ("EXISTS",)),
    (r"(?<!NOT )(?<!IF )\bEXISTS\b", ("NOT EXISTS",)),
    (r"\bNOT (?!EXISTS|IN|NULL|DISTINCT)", ("",)),
    (r"\bNOT IN\b", ("IN",)),
    (r"(?<!NOT )(?<!position\(w\.wallet )\bIN \(", ("NOT IN (",)),
    (r"\bDESC\b", ("ASC",)),
    (r"\bleast\b", ("greatest",)),
    (r"\bgreatest\b", ("least",)),
    (r"\bmax\(", ("min(",)),
    (r"\bmin\(", ("max(",)),
    (r"(?<=\s)\+(?=\s)", ("-",)),
    (r"(?<=\s)-(?=\s)", ("+",)),
    (r"\bON CONFLICT DO NOTHING\b", ("",)),
    (r"'[a-z_]+', (?=')", ("",)),
    (r"(?<='), '[a-z_]+'(?=\))", ("",)),
    (r"\btrue\b", ("false",)),
    (r"\bfalse\b", ("true",)),
)
NUMBER = re.compile(r"(?<=[ (])\d+(?=[ ,)\"'\n]|::)")


def changes(segment: str) -> Iterator[tuple[int, int, str]]:
    """Yield start, end (bytes of the segment) and new text of every change, if the literal is SQL; nothing otherwise."""
    masked = _literal(segment)
    if not SQL.search(masked):
        return
    for pattern, others in PAIRS:
        for hit in re.finditer(pattern, masked):
            if hit[0] == "=" and _clause(masked, hit.start()) in SETS:
                continue
            for after in others:
                yield *_bytes(segment, hit.start(), hit.end()), after
    for hit in NUMBER.finditer(masked):
        yield *_bytes(segment, hit.start(), hit.end()), str(int(hit[0]) + 1)


def _literal(segment: str) -> str:
    """Return the literal with spaces in place of all that is not SQL.

    That is its quotes, the text between its parts, and `{…}` of f-strings.
    """
    masked = [" "] * len(segment)
    lines = segment.splitlines(keepends=True)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))
    for token in tokenize.generate_tokens(io.StringIO(f"({segment}\n)").readline):
        if token.type == tokenize.STRING:
            start = starts[token.start[0] - 1] + token.start[1] - (token.start[0] == 1)
            end = starts[token.end[0] - 1] + token.end[1] - (token.end[0] == 1)
            head = re.match(r"[A-Za-z]*(\"\"\"|'''|\"|')", segment[start:end])
            assert head is not None
            inside = slice(start + head.end(), end - len(head[1]))
            masked[inside] = re.sub(r"\{[^{}]*\}", lambda hit: " " * len(hit[0]), segment[inside])
    return "".join(masked)


def _clause(masked: str, place: int) -> str:
    """Return the last keyword before the position `place` that begins a clause; empty if there is none."""
    found = CLAUSE.findall(masked[:place])
    return found[-1] if found else ""


def _bytes(segment: str, start: int, end: int) -> tuple[int, int]:
    return len(segment[:start].encode()), len(segment[:end].encode())
