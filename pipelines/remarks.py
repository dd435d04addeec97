"""What people should know of a source: what was left out and why, rows that fit no file, files that no row speaks of.

Bounded whatever a folder holds: remarks of one kind and reason are counted together, and only the first names are kept.
Knows neither files nor manifests.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

NAMES_MAX = 20  # of one reason
NAME_LENGTH_MAX = 300  # characters
REASONS_MAX = 200
TOLD_MAX = 20  # reasons, on one line
MORE = "and more, for other reasons"

LEFT_OUT = "left out"  # a file that is not ingested
MANIFEST_EMPTY = "manifest empty"  # no row stands in it
ROW_REFUSED = "row refused"  # of a manifest
ROW_WITHOUT_FILE = "row without file"
FILE_WITHOUT_ROW = "file without row"  # ingested, by its name and the job's creator
CREATOR_KEPT = "creator kept"  # the row names another one than the video has had
CREATOR_CHANGED = "creator changed"
CREATOR_ALIKE = "creator alike"  # another one whose handle differs in case or way of writing alone
WALLET_KEPT = "wallet kept"  # the row names another one than the creator has, or one for nobody
WALLET_REFUSED = "wallet refused"  # by the ledger: it cannot be paid
WORDS_CHANGED = "words changed"  # of a video that was there: the manifest says something else than it did
WORDS_KEPT = "words kept"  # though the manifest says others
TAKEN_DOWN = "taken down"  # before
REPOST = "repost"  # another creator's public video had the same content before

STAYS = "it stays so"  # of what was taken down

Remark = dict[str, Any]  # {"kind", "reason", "count", "names"}: as the job's answer has it


@dataclass
class Remarks:
    """Remarks as they are collected."""

    _found: dict[tuple[str, str], Remark] = field(default_factory=dict)

    def add(self, kind: str, reason: str, name: str = "", count: int = 1) -> None:
        """Note one more `name` to which `reason` applies; without a name it is counted alone."""
        if (kind, reason) not in self._found and len(self._found) >= REASONS_MAX:
            reason = MORE
        found = self._found.setdefault((kind, reason), {"kind": kind, "reason": reason, "count": 0, "names": []})
        found["count"] += count
        if name and len(found["names"]) < NAMES_MAX:
            found["names"].append(shown(name)[:NAME_LENGTH_MAX])

    def extend(self, rows: Iterable[Remark]) -> None:
        """Take over what was collected elsewhere."""
        for row in rows:
            names = row["names"] or [""]
            for number, name in enumerate(names):
                self.add(row["kind"], row["reason"], name, 1 if number else row["count"] - len(names) + 1)

    def extend_counted(self, rows: Iterable[Remark], reason: str) -> None:
        """Take over how many there are of each kind, and neither names nor reasons: they may speak of other people's."""
        for row in rows:
            self.add(row["kind"], reason, count=row["count"])

    def rows(self) -> list[Remark]:
        """All of them, in the order in which their reasons came up."""
        return list(self._found.values())

    def told(self) -> str:
        """The first of them on one line; empty when there is none."""
        more = f"; {MORE}" if len(self._found) > TOLD_MAX else ""
        return "; ".join(line(row) for row in list(self._found.values())[:TOLD_MAX]) + more

    def has(self, kind: str) -> bool:
        """Whether there is one of this kind."""
        return any(row["kind"] == kind for row in self._found.values())


def line(row: Remark) -> str:
    """A remark for people: `left out: 9 files: … (a.wmv, b.wmv, …)`."""
    more = ", …" if row["count"] > len(row["names"]) else ""
    count = f" ({row['count']})" if row["count"] > 1 else ""
    names = f"{', '.join(row['names'])}{more}: " if row["names"] else ""
    return f"{row['kind']}{count}: {names}{row['reason']}"


def shown(name: str) -> str:
    """A name that can be printed and kept: what is no text, and control characters, stand there as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in name)
