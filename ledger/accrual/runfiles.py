"""Sorted runs and their files: written once, mapped into memory, searched in place, merged block by block.

A run is a table of a few columns, of which the first holds 64-bit keys in ascending order; its `Shape` names the
columns and says how rows of one key are combined. A file also names the rows of the database that it was made from,
each by its id and by its mark, a random number that no other row has. So a file is recognised that belongs to another
database, or to one that was restored since. The head of the file has a checksum of its columns. It is compared when the
file is opened, and before another file is made from it. Files are copies of these rows and can be made again. Knows no
viewer, no money and no SQL.
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
from ledger.accrual.groups import Flags, changes, order_of

log = logging.getLogger(__name__)

Keys = NDArray[np.uint64]
Rows = NDArray[np.int64]  # (rows of the database, 2): id and mark of each, by ascending id
Columns = tuple[NDArray[Any], ...]  # each (rows of the run,), the keys first
Keep = Callable[[Columns], Flags]  # flags the rows that are still needed

# Magic, rows of the database, rows of the run, CRC-32 of these, the ids and marks, and CRC-32 of all columns. An earlier
# release leaves the last four bytes 0 and does not read them.
HEAD = struct.Struct("<8sQQII")
BLOCK_ROWS = 2_000_000  # rows that are merged at once: 100 to 300 MB of memory
PIECE_BYTES = 1 << 22
SAMPLES = 1_000  # keys of a file whose order is checked when it is opened


class Damaged(Temporary):
    """The content of a file has changed since it was written.

    The file is removed. A store that is loaded again reads the rows from the database.
    """


@dataclass(frozen=True)
class Shape:
    """The columns of one kind of runs, and how rows of one key are combined."""

    name: str  # the ending of its files
    magic: bytes  # their first eight bytes
    columns: tuple[str, ...]  # numpy's types of the columns after the key, the widest first
    combine: Callable[[Columns], Columns]  # takes and returns columns by ascending key

    @property
    def types(self) -> tuple[str, ...]:
        """Numpy's types of all columns, the key first."""
        return "<u8", *self.columns

    @property
    def row_bytes(self) -> int:
        """The bytes of a row in a file."""
        return sum(np.dtype(each).itemsize for each in self.types)

    @property
    def ending(self) -> str:
        """How the names of its files end."""
        return f".{self.name}"

    def empty(self) -> Columns:
        """Return the columns without any row."""
        return tuple(np.zeros(0, each) for each in self.types)


@dataclass(frozen=True)
class Run:
    """Columns by ascending key, and the rows of the database that they were made from."""

    rows: Rows
    columns: Columns
    path: Path | None = None  # of its file; None while it is in memory only
    is_sorted: bool = True  # if not, `ordered` sorts it

    @property
    def keys(self) -> Keys:
        """The first column."""
        return self.columns[0]

    @property
    def last_id(self) -> int:
        """The id of the newest row of the database that it was made from."""
        return int(self.rows[-1, 0])

    def __len__(self) -> int:
        return len(self.columns[0])


def rows_of(*rows: tuple[int, int]) -> Rows:
    """Return pairs of id and mark as an array."""
    return np.array(rows, np.int64).reshape(-1, 2)


def ordered(shape: Shape, run: Run) -> Run:
    """Return the run sorted and combined, or the run itself if it is sorted."""
    return run if run.is_sorted else Run(run.rows, combined(shape, run.columns), run.path)


def combined(shape: Shape, columns: Columns) -> Columns:
    """Sort columns by key and combine rows of one key, as the shape says."""
    if not len(columns[0]):
        return columns
    order = order_of(columns[0])
    return shape.combine(tuple(each[order] for each in columns))


def joined(shape: Shape, parts: Sequence[Columns]) -> Columns:
    """Concatenate columns."""
    if not parts:
        return shape.empty()
    return tuple(np.concatenate([part[n] for part in parts]) for n in range(len(shape.types)))


def merged(shape: Shape, runs: Sequence[Run], keep: Keep | None = None) -> Iterator[Columns]:
    """Merge sorted runs; yield combined columns block by block, by ascending key.

    All rows of a key are in one block. Rows that `keep` does not flag are left out; without it all are kept.
    """
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
            needed = keep(columns)
            columns = tuple(each[needed] for each in columns)
        yield combined(shape, columns)


def rows_with(shape: Shape, runs: Sequence[Run], keys: Keys) -> Columns:
    """Look up every row of some keys in sorted runs.

    Args:
        shape: the shape of the runs.
        runs: sorted runs.
        keys: uint64, shape (keys,), ascending, each once.

    Returns:
        The columns of all rows with any of these keys, run by run; not combined.
    """
    parts = []
    for run in runs:
        first = np.searchsorted(run.keys, keys)
        sizes = np.searchsorted(run.keys, keys, "right") - first
        within = np.arange(int(sizes.sum())) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        places = np.repeat(first, sizes) + within
        parts.append(tuple(np.asarray(each[places]) for each in run.columns))
    return joined(shape, parts)


def summed(columns: Columns, values: int, starts: Flags) -> Columns:
    """Sum columns over groups of consecutive rows.

    Args:
        columns: each of shape (rows,), the keys first.
        values: how many columns after the key to sum; of the others, and of the key, each group keeps its first row's value.
        starts: bool, shape (rows,). True where a group begins.

    Returns:
        The columns, each of shape (groups,).
    """
    if not len(columns[0]):
        return columns
    firsts = np.flatnonzero(starts)
    sums = (np.add.reduceat(each, firsts) for each in columns[1 : 1 + values])
    return columns[0][firsts], *sums, *(each[firsts] for each in columns[1 + values :])


def keep_all(columns: Columns) -> Flags:
    """Flag every row as needed.

    Args:
        columns: each of shape (rows,).

    Returns:
        bool, shape (rows,).
    """
    return np.ones(len(columns[0]), np.bool_)


def key_starts(columns: Columns) -> Flags:
    """Flag the rows at which another key begins.

    Args:
        columns: each of shape (rows,), with equal keys side by side.

    Returns:
        bool, shape (rows,).
    """
    return changes(columns[0])


# ── Files ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def write(shape: Shape, folder: Path, rows: Rows, blocks: Iterable[Columns]) -> Run:
    """Write blocks of columns to a new file, sync it to disk, and open it.

    Args:
        shape: of the blocks; it names the ending of the file.
        folder: where the file is made; it exists.
        rows: int64, shape (rows of the database, 2), by ascending id. What the blocks were made from.
        blocks: columns by ascending key, from block to block, too.

    Returns:
        The run, mapped from the file.

    Raises:
        OSError: the disk is full or cannot be written; no part of the file is left.
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
    """Map a file into memory; return None if it is damaged or of another kind."""
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
    """Whether a file's columns are what was written, by the checksum in its head; reads the whole file."""
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
    """Check the files of runs before another file is made from them. Runs in memory pass.

    Raises:
        Damaged: the file of one of these runs is damaged; that file is removed.
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
    """Open the files of a folder that match the rows of the database, by ascending id; remove the others of this shape.

    If files overlap, the one with the most rows is kept, since it has replaced the others.

    Args:
        shape: of the files to open.
        folder: made if it is missing.
        known: int64, shape (rows of the database, 2). Id and mark of every row that the table holds, by ascending id.

    Returns:
        The runs of these files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for ending in (".part*", ".seconds"):  # drafts of a process that was killed; the latter of an earlier release
        for draft in folder.glob(f"*{shape.ending}{ending}"):
            draft.unlink(missing_ok=True)
    matching: list[Run] = []
    for path in sorted(folder.glob(f"*{shape.ending}"), key=_id_range):
        run = read(shape, path)
        taken = matching[-1].last_id if matching else -1
        if run is not None and int(run.rows[0, 0]) > taken and _matches(run.rows, known) and is_whole(path):
            matching.append(run)
        else:
            log.warning("a file of runs is not of this database, or damaged, and is removed: %s", path.name)
            path.unlink(missing_ok=True)
    return matching


def _id_range(path: Path) -> tuple[int, int]:
    """Return a sort key from the ids in a file's name: the first id ascending, then the last id descending."""
    first, _, remainder = path.name.partition("-")
    last = remainder.partition("-")[0]
    return (int(first), -int(last)) if first.isdecimal() and last.isdecimal() else (0, 0)


def _matches(rows: Rows, known: Rows) -> bool:
    """Whether a file was made from exactly the rows that the table holds between the file's first and last id.

    Rows of the file that are older than all rows of the table are ignored: they were deleted after the file was made.
    """
    if not len(known):
        return False
    still_there = rows[rows[:, 0] >= known[0, 0]]
    between = known[(known[:, 0] >= rows[0, 0]) & (known[:, 0] <= rows[-1, 0])]
    return bool(len(still_there)) and np.array_equal(still_there, between)
