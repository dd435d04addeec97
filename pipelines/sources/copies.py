"""Files of one content and one name in several folders: they are one video, and the copy that a row speaks of counts.

Knows local files and what rows say of them, not where they are sent.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines.sources.remarks import LEFT_OUT, ROW_REFUSED, Remarks
from pipelines.sources.selection import Said, Selection

NAME_MAX = 120
FIRST = "the same file is there twice; the first one counts"
SPOKEN_OF = "the same file is there twice; the one that a row speaks of counts"
KEPT_OUT = "the same file is there twice, and the other one is left out"
TORN = "the same file is there twice, and two rows give it to different creators"


@dataclass(frozen=True)
class _Copy:
    file: str
    said: Said | None
    is_kept_out: bool


def name_of(file: str) -> str:
    """The name under which a local file of this name is kept."""
    return re.sub(r"[^\w.-]+", "_", file)[-NAME_MAX:]


def digest_of(file: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal digits."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def once(top: Path, found: Selection, remarks: Remarks) -> list[tuple[str, Said | None]]:
    """The videos of a selection of files below `top`, in their order; of copies the one that counts.

    Only files of one name and size are read here. One that cannot be read stays: whoever sends it says why.
    """
    every = [_Copy(file, said, False) for file, said in found.chosen]
    every += [_Copy(file, None, True) for file in found.kept_out]
    out = set[str]()
    for alike in _by_name_and_size(top, every):
        for copies in _by_content(top, alike):
            out |= {copy.file for copy in copies} - _counting(copies, remarks)
    return [(file, said) for file, said in found.chosen if file not in out]


def _by_name_and_size(top: Path, every: Iterable[_Copy]) -> list[list[_Copy]]:
    alike: dict[tuple[str, int], list[_Copy]] = {}
    for copy in every:
        try:
            key = (name_of(Path(copy.file).name), (top / copy.file).stat().st_size)
        except OSError:
            continue
        alike.setdefault(key, []).append(copy)
    return [copies for copies in alike.values() if len(copies) > 1 and not all(copy.is_kept_out for copy in copies)]


def _by_content(top: Path, alike: Iterable[_Copy]) -> list[list[_Copy]]:
    same: dict[str, list[_Copy]] = {}
    for copy in alike:
        try:
            digest = digest_of(top / copy.file)
        except OSError:
            continue
        same.setdefault(digest, []).append(copy)
    return [copies for copies in same.values() if len(copies) > 1]


def _counting(copies: Sequence[_Copy], remarks: Remarks) -> set[str]:
    """The file that counts among copies, if one does; what becomes of the others is said."""
    free = [copy for copy in copies if not copy.is_kept_out]
    rows = [(copy.file, copy.said) for copy in free if copy.said]
    if not rows and len(free) < len(copies):
        other = next(copy.file for copy in copies if copy.is_kept_out)
        for copy in free:
            remarks.add(LEFT_OUT, KEPT_OUT, f"{copy.file} is {other}")
        return set()
    if not free:
        return set()
    file, row = rows[0] if rows else (free[0].file, None)
    is_torn = row is not None and len({said.entry.creator for _, said in rows}) > 1
    for _, said in rows[1:]:
        if row and not said.is_same(row):
            remarks.add(ROW_REFUSED, f"another row speaks of the same file: {row.where}", said.where)
    for copy in free:
        if is_torn:
            remarks.add(LEFT_OUT, TORN, f"{copy.file} ({copy.said.where})" if copy.said else copy.file)
        elif copy.file != file:
            remarks.add(LEFT_OUT, FIRST if file == free[0].file else SPOKEN_OF, f"{copy.file} is {file}")
    return set() if is_torn else {file}
