"""Sorted runs on disk: written once, mapped into memory, searched where they lie, merged block by block.

A run holds rows of a few columns, of which the first are 64-bit keys in ascending order; its shape says which columns, and
how rows of one key are brought together. A file also says which rows of the database it is made of: such a row is its id and
a mark that no other has, so that a file of another database, or of one that was restored since, is told apart. What it holds
is summed up in its head, and compared with that when it is opened and before another file is made of it. Files are a copy that
can be made again. Knows no viewer, no money and no SQL.
"""

from __future__ import annotations

import logging
import os
import secrets
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cluster.errors import Temporary
from ledger.groups import Flags, changes, order_of

log = logging.getLogger(__name__)

Keys = NDArray[np.uint64]
Rows = NDArray[np.int64]  # of two columns: the id and the mark of each row of the database, by ascending id
Columns = tuple[NDArray[Any], ...]  # of equal length, the keys first
Keep = Callable[[Columns], Flags]  # which rows are still of use

# Magic, rows of the database, rows of the run, CRC of this head so far and the former, and of all columns (0: an earlier
# release, which has left these four bytes empty and does not look at them, has made the file).
HEAD = struct.Struct("<8sQQII")
KEY_BYTES = 8
BLOCK_ROWS = 2_000_000  # merged at once: 100 to 300 MB while they are
PIECE_BYTES = 1 << 22
SAMPLES = 1_000  # places at which a file is looked at when it is opened


class Damaged(Temporary):
    """A file is no longer what was written. It is removed; what it held is read from the database by who begins anew."""


@dataclass(frozen=True)
class Shape:
    """What a kind of runs holds.

    `combine` takes rows by ascending key and gives the rows that stand for them, by ascending key.
    """

    name: str  # the ending of its files
    magic: bytes  # their first eight bytes
    columns: tuple[str, ...]  # numpy's types of what stands beside each key, the widest first
    combine: Callable[[Columns], Columns]

    @property
    def types(self) -> tuple[str, ...]:
        return "<u8", *self.columns

    @property
    def row_bytes(self) -> int:
        return sum(np.dtype(each).itemsize for each in self.types)

    @property
    def ending(self) -> str:
        return f".{self.name}"

    def empty(self) -> Columns:
        return tuple(np.zeros(0, each) for each in self.types)


@dataclass(frozen=True)
class Run:
    """Rows by ascending key, and the rows of the database they are from. `path`: on disk.

    One that is not sorted yet is brought into order by `ordered`.
    """

    rows: Rows
    columns: Columns
    path: Path | None = None
    is_sorted: bool = True

    @property
    def keys(self) -> Keys:
        return self.columns[0]

    @property
    def last_id(self) -> int:
        """Of the newest row of the database."""
        return int(self.rows[-1, 0])

    def __len__(self) -> int:
        return len(self.columns[0])


def rows_of(*rows: tuple[int, int]) -> Rows:
    return np.array(rows, np.int64).reshape(-1, 2)


def ordered(shape: Shape, run: Run) -> Run:
    """The run with its rows in order and brought together."""
    return run if run.is_sorted else Run(run.rows, combined(shape, run.columns), run.path)


def combined(shape: Shape, columns: Columns) -> Columns:
    """Rows that came in any order, brought together."""
    if not len(columns[0]):
        return columns
    order = order_of(columns[0])
    return shape.combine(tuple(each[order] for each in columns))


def joined(shape: Shape, parts: Sequence[Columns]) -> Columns:
    """Parts one after the other."""
    if not parts:
        return shape.empty()
    return tuple(np.concatenate([part[n] for part in parts]) for n in range(len(shape.types)))


def merged(shape: Shape, runs: Sequence[Run], keep: Keep | None = None) -> Iterator[Columns]:
    """What sorted runs come to together, block by block in ascending order; all rows of a key are in one block."""
    if not runs:
        return
    largest = max(runs, key=len)
    step = max(1, BLOCK_ROWS * len(largest) // max(1, sum(len(run) for run in runs)))
    bounds = [np.searchsorted(run.keys, np.array(largest.keys[step::step])) for run in runs]
    for block in range(len(bounds[0]) + 1):
        parts = []
        for run, at in zip(runs, bounds, strict=True):
            first = int(at[block - 1]) if block else 0
            last = int(at[block]) if block < len(at) else len(run)
            parts.append(tuple(each[first:last] for each in run.columns))
        columns = joined(shape, parts)
        if keep is not None:
            of_use = keep(columns)
            columns = tuple(each[of_use] for each in columns)
        yield combined(shape, columns)


def found(shape: Shape, runs: Sequence[Run], keys: Keys) -> Columns:
    """Every row of these keys (ascending, each once) in sorted runs, run by run."""
    parts = []
    for run in runs:
        first = np.searchsorted(run.keys, keys)
        sizes = np.searchsorted(run.keys, keys, "right") - first
        within = np.arange(int(sizes.sum())) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        places = np.repeat(first, sizes) + within
        parts.append(tuple(np.asarray(each[places]) for each in run.columns))
    return joined(shape, parts)


def summed(columns: Columns, values: int, starts: Flags) -> Columns:
    """Rows in groups that begin at `starts`: each group once, its first `values` columns after the key as sums."""
    if not len(columns[0]):
        return columns
    at = np.flatnonzero(starts)
    sums = (np.add.reduceat(each, at) for each in columns[1 : 1 + values])
    return columns[0][at], *sums, *(each[at] for each in columns[1 + values :])


def everything(columns: Columns) -> Flags:
    """Every row is of use."""
    return np.ones(len(columns[0]), np.bool_)


def by_key(columns: Columns) -> Flags:
    """Where another key begins."""
    return changes(columns[0])


# ── Files ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def write(shape: Shape, folder: Path, rows: Rows, blocks: Iterable[Columns]) -> Run:
    """Make a file of these blocks, which ascend; it is whole and on disk when this returns.

    Raises:
        OSError: the disk is full, or away.
    """
    name = f"{rows[0, 0]:020d}-{rows[-1, 0]:020d}-{secrets.token_hex(4)}{shape.ending}"
    drafts = [folder / f"{name}.part", *(folder / f"{name}.part{number}" for number in range(1, len(shape.types)))]
    count, crc = 0, 0
    try:
        with ExitStack() as stack:
            file, *others = (stack.enter_context(open(draft, "w+b")) for draft in drafts)
            file.write(bytes(HEAD.size) + rows.astype("<i8").tobytes())
            for columns in blocks:
                for into, values, kind in zip((file, *others), columns, shape.types, strict=True):
                    content = np.ascontiguousarray(values, kind).data
                    into.write(content)
                    crc = zlib.crc32(content, crc) if into is file else crc
                count += len(columns[0])
            for other in others:
                other.seek(0)
                while piece := other.read(PIECE_BYTES):
                    file.write(piece)
                    crc = zlib.crc32(piece, crc)
            file.seek(0)
            file.write(_head(shape, rows, count, crc or 1))
            file.flush()
            os.fsync(file.fileno())
        drafts[0].rename(folder / name)
    finally:
        for draft in drafts:
            draft.unlink(missing_ok=True)
    opened = read(shape, folder / name)
    assert opened is not None
    return opened


def read(shape: Shape, path: Path) -> Run | None:
    """A file as it lies on disk; None where it is damaged, or no file of ours."""
    try:
        size = path.stat().st_size
        with open(path, "rb") as file:
            magic, row_count, count, check, crc = HEAD.unpack(file.read(HEAD.size))
            at = HEAD.size + 16 * row_count
            if magic != shape.magic or not row_count or size != at + shape.row_bytes * count:
                return None
            rows = np.frombuffer(file.read(16 * row_count), "<i8").reshape(-1, 2)
        if _head(shape, rows, count, crc) != HEAD.pack(magic, row_count, count, check, crc):
            return None
        if not count:
            return Run(rows, shape.empty(), path)
        columns = _columns(shape, np.memmap(path, np.uint8, "r"), at, count)
    except (OSError, struct.error, ValueError):
        return None
    some = columns[0][np.linspace(0, count - 1, min(count, SAMPLES)).astype(np.int64)]
    return Run(rows, columns, path) if bool((some[1:] >= some[:-1]).all()) else None


def is_whole(path: Path) -> bool:
    """Whether a file's columns are what was written, as far as its head says; all of it is read."""
    try:
        with open(path, "rb") as file:
            *_, row_count, _, _, crc = HEAD.unpack(file.read(HEAD.size))
            file.seek(HEAD.size + 16 * row_count)
            found = 0
            while crc and (piece := file.read(PIECE_BYTES)):
                found = zlib.crc32(piece, found)
    except (OSError, struct.error):
        return False
    return not crc or (found or 1) == crc


def require_whole(runs: Iterable[Run]) -> None:
    """Let nothing be made of a damaged file.

    Raises:
        Damaged: one of these runs is in one, which is removed.
    """
    for run in runs:
        if run.path is not None and not is_whole(run.path):
            run.path.unlink(missing_ok=True)
            raise Damaged(f"a file of runs was damaged on disk, and is made again: {run.path.name}")


def _columns(shape: Shape, whole: NDArray[np.uint8], at: int, count: int) -> Columns:
    columns = []
    for kind in shape.types:
        size = np.dtype(kind).itemsize * count
        columns.append(whole[at : at + size].view(kind))
        at += size
    return tuple(columns)


def _head(shape: Shape, rows: Rows, count: int, crc: int) -> bytes:
    check = zlib.crc32(rows.astype("<i8").tobytes(), zlib.crc32(HEAD.pack(shape.magic, len(rows), count, 0, 0)))
    return HEAD.pack(shape.magic, len(rows), count, check, crc)


def listed(shape: Shape, folder: Path, known: Rows) -> list[Run]:
    """The files that are true of these rows of the database, by ascending id; any other one of the shape is removed.

    True is one whose rows are there as it says, but for those that were forgotten since, which are older than all that are
    there; and that leaves none out which lie between its own. Of files that overlap the larger one has replaced the others.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for ending in (".part*", ".seconds"):  # of a process that was killed; the latter of an earlier release
        for left in folder.glob(f"*{shape.ending}{ending}"):
            left.unlink(missing_ok=True)
    true: list[Run] = []
    for path in sorted(folder.glob(f"*{shape.ending}"), key=_range_of):
        run = read(shape, path)
        taken = true[-1].last_id if true else -1
        if run is not None and int(run.rows[0, 0]) > taken and _is_true(run.rows, known) and is_whole(path):
            true.append(run)
        else:
            log.warning("a file of runs is not of this database, or damaged, and is removed: %s", path.name)
            path.unlink(missing_ok=True)
    return true


def _range_of(path: Path) -> tuple[int, int]:
    """Of the ids in a file's name: the one that begins first, and of those the largest, comes first."""
    first, _, rest = path.name.partition("-")
    last = rest.partition("-")[0]
    return (int(first), -int(last)) if first.isdecimal() and last.isdecimal() else (0, 0)


def _is_true(rows: Rows, known: Rows) -> bool:
    if not len(known):
        return False
    kept = rows[rows[:, 0] >= known[0, 0]]
    between = known[(known[:, 0] >= rows[0, 0]) & (known[:, 0] <= rows[-1, 0])]
    return bool(len(kept)) and np.array_equal(kept, between)
