"""Files with the same name and content in several folders are one video; this decides which copy, and which row, counts.

Knows local files and the rows that match them, not where they are uploaded.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines.sources.remarks import LEFT_OUT, ROW_REFUSED, Remarks
from pipelines.sources.selection import MatchedRow, Selection

NAME_MAX = 120
FIRST = "the same file is there twice; the first one counts"
SPOKEN_OF = "the same file is there twice; the one that a row speaks of counts"
KEPT_OUT = "the same file is there twice, and the other one is left out"
TORN = "the same file is there twice, and two rows give it to different creators"


@dataclass(frozen=True)
class _Copy:
    """A local file with the row that matches it; `is_kept_out` if a manifest's refused row excludes it."""

    file: str
    said: MatchedRow | None
    is_kept_out: bool


def name_of(file: str) -> str:
    """Return the name that a local file is stored under."""
    return re.sub(r"[^\w.-]+", "_", file)[-NAME_MAX:]


def digest_of(file: Path) -> str:
    """Return the SHA-256 of a file's content in hexadecimal digits."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def without_copies(top: Path, selection: Selection, remarks: Remarks) -> list[tuple[str, MatchedRow | None]]:
    """Return the selected files below `top` with their rows, without superfluous copies.

    Only files with equal names and sizes are read here. An unreadable file stays in the list; the upload reports it.
    """
    every = [_Copy(file, said, False) for file, said in selection.chosen]
    every += [_Copy(file, None, True) for file in selection.kept_out]
    excluded = set[str]()
    for candidates in _by_name_and_size(top, every):
        for copies in _by_content(top, candidates):
            excluded |= {copy.file for copy in copies} - _counting(copies, remarks)
    return [(file, said) for file, said in selection.chosen if file not in excluded]


def _by_name_and_size(top: Path, every: Iterable[_Copy]) -> list[list[_Copy]]:
    """Group files that may be copies: equal stored names and sizes, and at least one of them not kept out."""
    groups: dict[tuple[str, int], list[_Copy]] = {}
    for copy in every:
        try:
            key = (name_of(Path(copy.file).name), (top / copy.file).stat().st_size)
        except OSError:
            continue
        groups.setdefault(key, []).append(copy)
    return [copies for copies in groups.values() if len(copies) > 1 and not all(copy.is_kept_out for copy in copies)]


def _by_content(top: Path, candidates: Iterable[_Copy]) -> list[list[_Copy]]:
    """Group files of equal content."""
    groups: dict[str, list[_Copy]] = {}
    for copy in candidates:
        try:
            digest = digest_of(top / copy.file)
        except OSError:
            continue
        groups.setdefault(digest, []).append(copy)
    return [copies for copies in groups.values() if len(copies) > 1]


def _counting(copies: Sequence[_Copy], remarks: Remarks) -> set[str]:
    """Return the file that counts among copies, or nothing, and remark on the others.

    The first copy with a row counts, else the first copy. None does if two rows name different creators, or if no copy
    has a row and a manifest keeps one out.
    """
    allowed = [copy for copy in copies if not copy.is_kept_out]
    rows = [(copy.file, copy.said) for copy in allowed if copy.said]
    if not rows and len(allowed) < len(copies):
        kept_out_file = next(copy.file for copy in copies if copy.is_kept_out)
        for copy in allowed:
            remarks.add(LEFT_OUT, KEPT_OUT, f"{copy.file} is {kept_out_file}")
        return set()
    if not allowed:
        return set()
    file, row = rows[0] if rows else (allowed[0].file, None)
    is_disputed = row is not None and len({said.entry.creator for _, said in rows}) > 1
    for _, said in rows[1:]:
        if row and not said.is_same(row):
            remarks.add(ROW_REFUSED, f"another row speaks of the same file: {row.where}", said.where)
    for copy in allowed:
        if is_disputed:
            remarks.add(LEFT_OUT, TORN, f"{copy.file} ({copy.said.where})" if copy.said else copy.file)
        elif copy.file != file:
            remarks.add(LEFT_OUT, FIRST if file == allowed[0].file else SPOKEN_OF, f"{copy.file} is {file}")
    return set() if is_disputed else {file}
