"""The spool: a file to which a replica appends each search's appearances before it answers.

What `write` has accepted survives the death of the process, since it is in the kernel's page cache. The replica holds a
lock on its file; a file that is not locked belongs to a dead replica, and any process of the machine may adopt it. This
module also defines the bytes of a search in the spool and of a batch in the database. Format 2 stores the network of
anonymous viewers (the origin); format 1, of an earlier release, does not. The ending of a file says which format it
has.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct
import zlib
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from cluster.errors import Rejected

FORMAT = 2
SEARCH = np.dtype([
    ("viewer", "V16"), ("key", "V16"), ("request", "V8"), ("origin", "V16"), ("at_ms", "<i8"), ("count", "<u2"),
])  # fmt: skip
SEARCHES = {  # by format
    1: np.dtype([("viewer", "V16"), ("key", "V16"), ("request", "V8"), ("at_ms", "<i8"), ("count", "<u2")]),
    2: SEARCH,
}
SHOWN = np.dtype([
    ("segment_id", "<i8"), ("creator_id", "<i8"), ("best_frame_ms", "<i4"), ("relevance_ppm", "<i4"),
    ("amount_pix", "<i4"),
])  # fmt: skip
FRAME = struct.Struct("<II")  # length and CRC-32 of a search
HEAD = struct.Struct("<II")  # searches and appearances of a batch
SUFFIX = ".spool2"
FORMAT_OF = {".spool": 1, SUFFIX: FORMAT}  # by ending
SET_ASIDE = ".damaged"  # appended to the name of a spool that is set aside
RECORD_BYTES_MAX = 1 << 20  # far above any search
UNKNOWN = "format-unknown"  # the code of the refusal of a format; a newer version may know it
NO_KEY = bytes(16)
NO_ORIGIN = bytes(16)  # of a viewer with a key, and of format 1


@dataclass(frozen=True)
class AppearanceBatch:
    """Some searches with their appearances, encoded for the database."""

    searches: int  # how many
    appearances: int  # how many
    payload: bytes  # HEAD, then all `SEARCH` records, then all `SHOWN` records
    format: int = FORMAT


def pack(records: Sequence[bytes], number: int = FORMAT) -> AppearanceBatch:
    """Make a batch of searches that are encoded as in a spool of format `number`."""
    size = SEARCHES[number].itemsize
    heads = [record[:size] for record in records]
    bodies = [record[size:] for record in records]
    appearances = sum(len(body) for body in bodies) // SHOWN.itemsize
    payload = HEAD.pack(len(records), appearances) + b"".join(heads) + b"".join(bodies)
    return AppearanceBatch(len(records), appearances, payload, number)


def unpack(payload: bytes, number: int) -> tuple[NDArray[np.void], NDArray[np.void]]:
    """Decode a batch.

    Args:
        payload: the bytes of the batch.
        number: its format.

    Returns:
        The searches, dtype SEARCH, shape (searches,), whatever the format of the batch; and their appearances, dtype SHOWN,
        shape (appearances,), those of the first search first.

    Raises:
        Rejected: the format is unknown (code UNKNOWN), or the batch is damaged.
    """
    if number not in SEARCHES:
        raise Rejected(f"batch format {number} is not known", code=UNKNOWN)
    kind = SEARCHES[number]
    searches, appearances = HEAD.unpack_from(payload) if len(payload) >= HEAD.size else (0, 0)
    if len(payload) != HEAD.size + searches * kind.itemsize + appearances * SHOWN.itemsize:
        raise Rejected("a batch is not as long as it says", code="batch-damaged")
    heads = np.frombuffer(payload, kind, searches, HEAD.size)
    bodies = np.frombuffer(payload, SHOWN, appearances, HEAD.size + searches * kind.itemsize)
    if int(heads["count"].sum()) != appearances:
        raise Rejected("a batch does not hold what its searches say", code="batch-damaged")
    if (bodies["amount_pix"] < 0).any():
        raise Rejected("an appearance of a batch earns less than nothing", code="batch-damaged")
    return _current(heads), bodies


def _current(heads: NDArray[np.void]) -> NDArray[np.void]:
    """Convert searches to the current format; fields that an older format lacks are zero."""
    if heads.dtype == SEARCH:
        return heads
    converted = np.zeros(len(heads), SEARCH)
    for name in heads.dtype.names or ():
        converted[name] = heads[name]
    return converted


class Spool:
    """One incarnation's file, open for appending and locked by this process."""

    def __init__(self, folder: Path, incarnation: UUID) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"{incarnation}{SUFFIX}"
        draft = self.path.with_suffix(".new")  # gets its name once it is locked, so that it is not adopted before
        self._descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            draft.rename(self.path)
        except OSError:
            self.close()
            draft.unlink(missing_ok=True)
            raise
        self.size = 0
        self._is_torn = False

    def append(self, record: bytes) -> None:
        """Append one search with a single write.

        Raises:
            OSError: it could not be written; no part of it stays in the file.
        """
        if self._is_torn:
            self._mend()
        framed = FRAME.pack(len(record), zlib.crc32(record)) + record
        written = os.write(self._descriptor, framed)
        if written != len(framed):
            self._is_torn = True
            self._mend()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
        self.size += written

    def _mend(self) -> None:
        """Cut off a record that was written in part; what follows it could not be read."""
        os.ftruncate(self._descriptor, self.size)
        self._is_torn = False

    def records(self) -> list[bytes]:
        """Return every search that has been appended so far."""
        with self.path.open("rb") as file:
            return parsed(file.read(self.size))

    def sync(self) -> None:
        """Force the file to disk."""
        os.fdatasync(self._descriptor)

    def remove(self) -> None:
        """Delete the file and close it. All its searches must be in the database."""
        self.path.unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        """Close the file and release its lock; from then on another process may adopt it. A second call does nothing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1


class Orphan:
    """The spool of a dead incarnation, locked by this process."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path, self._descriptor = path, descriptor
        self.is_damaged = False  # set by `records`

    @property
    def incarnation(self) -> UUID:
        """The incarnation that wrote it.

        Raises:
            ValueError: the name of the file does not begin with an id.
        """
        return UUID(self.path.stem)

    @property
    def format(self) -> int:
        """The format of its searches."""
        return FORMAT_OF[self.path.suffix]

    def records(self) -> list[bytes]:
        """Return the searches up to the end or to the first damage, and set `is_damaged`.

        A last record that was written in part does not count as damage: its search was never answered.
        """
        with open(self._descriptor, "rb", closefd=False) as file:
            file.seek(0)
            data = file.read()
        records = parsed(data)
        self.is_damaged = not _is_torn(data[sum(FRAME.size + len(record) for record in records) :])
        return records

    def age_s(self, records: Sequence[bytes], now_s: float) -> float:
        """Return how many seconds ago the first search was made, from differences of this machine's clock alone."""
        written_s, lasted_s = os.fstat(self._descriptor).st_mtime, 0.0
        if records:
            kind = SEARCHES[self.format]
            first, last = (np.frombuffer(each, kind, 1)["at_ms"][0] for each in (records[0], records[-1]))
            lasted_s = float(last - first) / 1000
        return max(0.0, now_s - written_s) + max(0.0, lasted_s)

    def set_aside(self) -> Path:
        """Rename the file so that a person can look at it, and close it; return the new path."""
        aside = set_aside(self.path)
        self.close()
        return aside

    def remove(self) -> None:
        """Delete the file and close it. All its searches must be in the database."""
        self.path.unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        """Release the lock. A second call does nothing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1


def parsed(data: bytes) -> list[bytes]:
    """Return the searches in a spool's bytes, up to the first that is incomplete or damaged."""
    records, start = [], 0
    while start + FRAME.size <= len(data):
        length, checksum = FRAME.unpack_from(data, start)
        record = data[start + FRAME.size : start + FRAME.size + length]
        if len(record) != length or zlib.crc32(record) != checksum:
            break
        records.append(record)
        start += FRAME.size + length
    return records


def _is_torn(remainder: bytes) -> bool:
    """Return whether the bytes after the last whole search are empty, or one search that was written in part.

    A search whose length is damaged also looks incomplete, but then whole searches follow it.
    """
    if len(remainder) < FRAME.size:
        return True
    length, _ = FRAME.unpack_from(remainder)
    reaches_further = length <= RECORD_BYTES_MAX and len(remainder) < FRAME.size + length
    return bool(reaches_further) and not any(_is_whole(remainder, start) for start in range(1, len(remainder)))


def _is_whole(data: bytes, start: int) -> bool:
    """Return whether a whole search of any format begins at `start`.

    Its checksum is computed only if its length is possible.
    """
    begins = start + FRAME.size
    if begins > len(data):
        return False
    length, checksum = FRAME.unpack_from(data, start)
    shown_bytes = [length - kind.itemsize for kind in SEARCHES.values()]
    if begins + length > len(data) or not any(size >= 0 and size % SHOWN.itemsize == 0 for size in shown_bytes):
        return False
    return bool(zlib.crc32(data[begins : begins + length]) == checksum)


def set_aside(path: Path) -> Path:
    """Rename a damaged spool, so that no other process adopts or removes it; return the new path."""
    aside = path.with_name(path.name + SET_ASIDE)
    with contextlib.suppress(FileNotFoundError):  # another process has removed it
        path.rename(aside)
    return aside


def count_set_aside(folder: Path) -> int:
    """Return how many damaged spools wait for a person."""
    return sum(1 for _ in folder.glob(f"*{SET_ASIDE}"))


def orphans(folder: Path) -> Generator[Orphan]:
    """Yield the spools of dead replicas one after the other; each stays locked until the next one is requested.

    A caller that may stop early wraps this in `contextlib.closing`.
    """
    for path in sorted(each for suffix in FORMAT_OF for each in folder.glob(f"*{suffix}")):
        orphan = _locked(path)
        if orphan is not None:
            try:
                yield orphan
            finally:
                orphan.close()


def _locked(path: Path) -> Orphan | None:
    """Lock a spool to adopt it; return None if its owner or another process has locked it, or has removed it meanwhile."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    orphan = Orphan(path, descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        orphan.close()
        return None
    if not os.fstat(descriptor).st_nlink:  # an heir has removed it between our two calls
        orphan.close()
        return None
    return orphan
