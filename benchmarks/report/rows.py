"""LOG.md as values: one row a figure. Knows how a row is written, not what it measures."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields

from cluster.errors import Rejected

RULE = re.compile(r"\|(-+\|)+")  # the line under the table's head; rows follow
NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?")


@dataclass(frozen=True)
class Row:
    """The cells of a row as they are written, and the number of its line in LOG.md.

    Raises:
        ValueError: the date is not a valid date, or a required cell is empty.
    """

    line: int
    date: str
    commit: str
    command: str
    machine: str
    figure: str  # `name: value`
    baseline: str  # may be empty
    ratio: str  # may be empty, or say more than one number

    def __post_init__(self) -> None:
        dt.date.fromisoformat(self.date)
        for name in ("commit", "command", "machine", "figure"):
            if not getattr(self, name):
                raise ValueError(f"no {name}")


CELLS = len(fields(Row)) - 1


def read(log: str) -> list[Row]:
    """Parse the text of LOG.md.

    Returns:
        All rows, oldest first.

    Raises:
        Rejected: some line below the head of the table is not a row; each is named with its reason.
    """
    lines = log.splitlines()
    first = next((number for number, line in enumerate(lines) if RULE.fullmatch(line)), len(lines)) + 1
    rows, malformed = [], []
    for number, line in enumerate(lines[first:], first + 1):
        try:
            rows.append(_row(number, line))
        except ValueError as error:
            malformed.append(f"line {number}: {error}")
    if malformed:
        raise Rejected(f"malformed rows in benchmarks/LOG.md: {'; '.join(malformed)}")
    return rows


def _row(number: int, line: str) -> Row:
    cells = [cell.strip() for cell in line.split("|")]
    if len(cells) != CELLS + 2 or cells[0] or cells[-1]:
        raise ValueError(f"{max(0, len(cells) - 2)} cells between `|` where {CELLS} belong")
    return Row(number, *cells[1:-1])


def number(text: str, row: Row) -> float:
    """Return the first number in the text of a cell.

    Raises:
        Rejected: the text has no number; the message names the line of `row`.
    """
    found = NUMBER.search(text)
    if found is None:
        raise Rejected(f"malformed row in benchmarks/LOG.md: line {row.line}: no number in {text!r}")
    return float(found[0].replace(",", ""))


Match = tuple[Row, re.Match[str]]


def matching(rows: Sequence[Row], commands: tuple[str, ...], figure: str) -> list[Match]:
    """Select the rows whose command begins with one of `commands` and whose whole figure cell matches a regular expression.

    The order of the rows stays: oldest first.
    """
    pattern = re.compile(figure)
    found = ((row, pattern.fullmatch(row.figure)) for row in rows if row.command.startswith(commands))
    return [(row, match) for row, match in found if match]


def newest_run(matches: Sequence[Match]) -> list[Match]:
    """Keep the matches with the commit and the command of the newest one, so that a curve shows one state of the code."""
    if not matches:
        return []
    newest, _ = matches[-1]
    return [each for each in matches if (each[0].commit, each[0].command) == (newest.commit, newest.command)]
