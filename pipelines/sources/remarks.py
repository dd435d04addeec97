"""Remarks on a source for people: files left out and why, rows that match no file, files without a row.

Bounded in size whatever a folder holds: remarks of one kind and reason are counted together, and only the first names
are kept. Knows neither files nor manifests.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

NAMES_MAX = 20  # names kept for one reason
NAME_LENGTH_MAX = 300  # characters
REASONS_MAX = 200
TOLD_MAX = 20  # reasons that an error message holds
MORE = "and more, for other reasons"

LEFT_OUT = "left out"  # a file that is not ingested
MANIFEST_EMPTY = "manifest empty"  # it has no rows
ROW_REFUSED = "row refused"  # a row of a manifest that cannot be used
ROW_WITHOUT_FILE = "row without file"
FILE_WITHOUT_ROW = "file without row"  # ingested with a title from its name, for the job's creator
CREATOR_KEPT = "creator kept"  # the row names another creator than the video has, and may not move it
CREATOR_CHANGED = "creator changed"
CREATOR_ALIKE = "creator alike"  # another creator's handle differs in case or Unicode form alone
WALLET_KEPT = "wallet kept"  # the row claims another wallet than the creator has, or names no creator for it
WORDS_CHANGED = "words changed"  # of an existing video, because the manifest has changed
WORDS_KEPT = "words kept"  # of an existing video, although the manifest has others
TAKEN_DOWN = "taken down"  # a listed video that was taken down before
REPOST = "repost"  # another creator's public video had the same file before

STAYS = "it stays so"  # the reason given with TAKEN_DOWN

Remark = dict[str, Any]  # {"kind", "reason", "count", "names"}, as the JSON of a job shows it


@dataclass
class Remarks:
    """Collector of the remarks on a source while the source is listed."""

    _found: dict[tuple[str, str], Remark] = field(default_factory=dict)

    def add(self, kind: str, reason: str, name: str = "", count: int = 1) -> None:
        """Add a remark, or raise the count of the one with this kind and reason.

        Args:
            kind: One of the kinds of this module.
            reason: Why, in words for people.
            name: The file or row that it applies to; without a name it is only counted.
            count: How many files or rows it applies to.
        """
        if (kind, reason) not in self._found and len(self._found) >= REASONS_MAX:
            reason = MORE
        remark = self._found.setdefault((kind, reason), {"kind": kind, "reason": reason, "count": 0, "names": []})
        remark["count"] += count
        if name and len(remark["names"]) < NAMES_MAX:
            remark["names"].append(shown(name)[:NAME_LENGTH_MAX])

    def extend(self, rows: Iterable[Remark]) -> None:
        """Add remarks that were collected elsewhere."""
        for row in rows:
            names = row["names"] or [""]
            for number, name in enumerate(names):
                self.add(row["kind"], row["reason"], name, 1 if number else row["count"] - len(names) + 1)

    def extend_counted(self, rows: Iterable[Remark], reason: str) -> None:
        """Add the counts of remarks under one reason, without names and reasons, which may reveal other people's files."""
        for row in rows:
            self.add(row["kind"], reason, count=row["count"])

    def rows(self) -> list[Remark]:
        """Return all remarks in the order in which they were first added."""
        return list(self._found.values())

    def summary(self) -> str:
        """Return the first remarks on one line; empty if there are none."""
        ending = f"; {MORE}" if len(self._found) > TOLD_MAX else ""
        return "; ".join(line(row) for row in list(self._found.values())[:TOLD_MAX]) + ending

    def has(self, kind: str) -> bool:
        """Whether a remark of this kind was added."""
        return any(row["kind"] == kind for row in self._found.values())


def line(row: Remark) -> str:
    """Return a remark as text for people: `left out (9): a.wmv, b.wmv, …: <reason>`."""
    ending = ", …" if row["count"] > len(row["names"]) else ""
    count = f" ({row['count']})" if row["count"] > 1 else ""
    names = f"{', '.join(row['names'])}{ending}: " if row["names"] else ""
    return f"{row['kind']}{count}: {names}{row['reason']}"


def shown(name: str) -> str:
    """Return a name with unprintable characters and lone surrogates escaped, so that it can be printed and stored."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in name)
