"""Sorted runs of keys on disk: written once, mapped into memory, searched where they lie, merged block by block.

A file holds 64-bit keys in ascending order, each with a second, and says which rows of the database they are from: a row is
its id and a mark that no other row has, so that a file of another database, or of one that was restored since, is told
apart. Files are a copy that can be made again from the rows. Knows no viewer and no SQL.
"""

from __future__ import annotations

import logging
import os
import secrets
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ledger.groups import changes, order_of

log = logging.getLogger(__name__)

Keys = NDArray[np.uint64]
Seconds = NDArray[np.uint32]
Rows = NDArray[np.int64]  # of two columns: the id and the mark of each row, by ascending id

SUFFIX = ".keys"
MAGIC = b"pixrkey1"
HEAD = struct.Struct("<8sQQI4x")  # magic, rows, keys, CRC of this head so far and the rows
BLOCK_KEYS = 2_000_000  # merged at once: about 100 MB while they are
SAMPLES = 1_000  # places at which a file is looked at when it is opened


@dataclass(frozen=True)
class Run:
    """Keys in ascending order, each with the second it was last seen, and the rows they are from. `path`: on disk."""

    rows: Rows
    keys: Keys
    seconds: Seconds
    path: Path | None = None

    @property
    def last_id(self) -> int:
        """Of the newest row."""
        return int(self.rows[-1, 0])


def rows_of(*rows: tuple[int, int]) -> Rows:
    return np.array(rows, np.int64).reshape(-1, 2)


def newest(runs: Iterable[Run], keys: Keys) -> NDArray[np.int64]:
    """The newest second of each of these keys, which ascend, in any of the runs; 0 where there is none."""
    last = np.zeros(len(keys), np.int64)
    for run in runs:
        if len(run.keys):
            place = np.minimum(np.searchsorted(run.keys, keys), len(run.keys) - 1)
            found = np.flatnonzero(run.keys[place] == keys)  # of the others no second is read from disk
            last[found] = np.maximum(last[found], run.seconds[place[found]])
    return last


def merged(runs: Sequence[Run], since_s: int) -> Iterator[tuple[Keys, Seconds]]:
    """Each key once with its newest second, block by block in ascending order, without those of `since_s` or before."""
    largest = max(runs, key=lambda run: len(run.keys))
    step = max(1, BLOCK_KEYS * len(largest.keys) // max(1, sum(len(run.keys) for run in runs)))
    bounds = [np.searchsorted(run.keys, np.array(largest.keys[step::step])) for run in runs]
    for block in range(len(bounds[0]) + 1):
        parts = []
        for run, at in zip(runs, bounds, strict=True):
            first = int(at[block - 1]) if block else 0
            last = int(at[block]) if block < len(at) else len(run.keys)
            parts.append((run.keys[first:last], run.seconds[first:last]))
        keys, seconds = (np.concatenate([part[n] for part in parts]) for n in (0, 1))
        young = seconds.astype(np.int64) > since_s
        keys, seconds = keys[young], seconds[young]
        order = order_of(keys)
        keys, seconds = keys[order], seconds[order]
        starts = np.flatnonzero(changes(keys)) if len(keys) else np.zeros(0, np.int64)
        yield keys[starts], np.maximum.reduceat(seconds, starts) if len(starts) else seconds


def write(folder: Path, rows: Rows, blocks: Iterable[tuple[Any, Any]]) -> Run:
    """Make a file of these blocks, which ascend; it is whole and on disk when this returns."""
    name = f"{rows[0, 0]:020d}-{rows[-1, 0]:020d}-{secrets.token_hex(4)}{SUFFIX}"
    unfinished, beside = folder / f"{name}.part", folder / f"{name}.seconds"
    count = 0
    try:
        with open(unfinished, "wb") as file, open(beside, "w+b") as seconds_file:
            file.write(bytes(HEAD.size) + rows.astype("<i8").tobytes())
            for keys, seconds in blocks:
                file.write(np.ascontiguousarray(keys, "<u8").data)
                seconds_file.write(np.ascontiguousarray(seconds, "<u4").data)
                count += len(keys)
            seconds_file.seek(0)
            while piece := seconds_file.read(1 << 22):
                file.write(piece)
            file.seek(0)
            file.write(_head(rows, count))
            file.flush()
            os.fsync(file.fileno())
        unfinished.rename(folder / name)
    finally:
        unfinished.unlink(missing_ok=True)
        beside.unlink(missing_ok=True)
    opened = read(folder / name)
    assert opened is not None
    return opened


def read(path: Path) -> Run | None:
    """A file as it lies on disk; None where it is damaged, or no file of ours."""
    try:
        size = path.stat().st_size
        with open(path, "rb") as file:
            magic, row_count, count, check = HEAD.unpack(file.read(HEAD.size))
            at = HEAD.size + 16 * row_count
            if magic != MAGIC or not row_count or size != at + 12 * count:
                return None
            rows = np.frombuffer(file.read(16 * row_count), "<i8").reshape(-1, 2)
        if _head(rows, count) != HEAD.pack(magic, row_count, count, check):
            return None
        if not count:
            return Run(rows, np.zeros(0, np.uint64), np.zeros(0, np.uint32), path)
        whole = np.memmap(path, np.uint8, "r")
        keys, seconds = whole[at : at + 8 * count].view("<u8"), whole[at + 8 * count :].view("<u4")
    except (OSError, struct.error, ValueError):
        return None
    some = keys[np.linspace(0, count - 1, min(count, SAMPLES)).astype(np.int64)]
    return Run(rows, keys, seconds, path) if bool((some[1:] > some[:-1]).all()) else None


def _head(rows: Rows, count: int) -> bytes:
    head = HEAD.pack(MAGIC, len(rows), count, 0)
    return HEAD.pack(MAGIC, len(rows), count, zlib.crc32(rows.astype("<i8").tobytes(), zlib.crc32(head)))


def listed(folder: Path, known: Rows) -> list[Run]:
    """The files that are true of these rows of the database, by ascending id; any other one is removed.

    True is one whose rows are there as it says, but for those that were forgotten since, which are older than all that are
    there; and that leaves none out which lie between its own. Of files that overlap the larger one has replaced the others.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for left in (*folder.glob("*.part"), *folder.glob("*.seconds")):  # of a process that was killed
        left.unlink(missing_ok=True)
    found: list[Run] = []
    for path in sorted(folder.glob(f"*{SUFFIX}"), key=_range_of):
        run = read(path)
        taken = found[-1].last_id if found else -1
        if run is not None and int(run.rows[0, 0]) > taken and _is_true(run.rows, known):
            found.append(run)
        else:
            log.warning("a file of keys is not of this database, or damaged, and is removed: %s", path.name)
            path.unlink(missing_ok=True)
    return found


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
