"""The spool: a file to which a replica appends each search's appearances before it answers.

What `write` has taken survives the death of the process, because the page cache is the kernel's. The owner holds a
lock on the file; a file whose lock is free belongs to the dead and may be adopted by anyone on the machine. This
module also owns the bytes of a search in the spool and of a batch in the database: format 2, which names the origin of
anonymous viewers, and format 1 without it, which a version before has left. A file's ending says which it has.
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
SEARCHES = {  # by format: what `unpack` reads
    1: np.dtype([("viewer", "V16"), ("key", "V16"), ("request", "V8"), ("at_ms", "<i8"), ("count", "<u2")]),
    2: SEARCH,
}
FORMATS = tuple(SEARCHES)
SHOWN = np.dtype([
    ("segment_id", "<i8"), ("creator_id", "<i8"), ("best_frame_ms", "<i4"), ("relevance_ppm", "<i4"),
    ("amount_pix", "<i4"),
])  # fmt: skip
FRAME = struct.Struct("<II")  # length and CRC-32 of a search
HEAD = struct.Struct("<II")  # searches and appearances of a batch
SUFFIX = ".spool2"
FORMAT_OF = {".spool": 1, SUFFIX: FORMAT}  # by ending
SET_ASIDE = ".damaged"  # after the ending of a spool that nobody reads any more
RECORD_BYTES_MAX = 1 << 20  # far above any search
UNKNOWN = "format-unknown"  # the code of a refusal: a newer version may know it
NO_KEY = bytes(16)
NO_ORIGIN = bytes(16)  # of a viewer with a key, and of format 1


@dataclass(frozen=True)
class AppearanceBatch:
    """Some searches on their way to the database."""

    searches: int
    appearances: int
    payload: bytes
    format: int = FORMAT


def pack(records: Sequence[bytes], number: int = FORMAT) -> AppearanceBatch:
    """One batch of searches as they stand in a spool of format `number`."""
    size = SEARCHES[number].itemsize
    heads = [record[:size] for record in records]
    bodies = [record[size:] for record in records]
    appearances = sum(len(body) for body in bodies) // SHOWN.itemsize
    payload = HEAD.pack(len(records), appearances) + b"".join(heads) + b"".join(bodies)
    return AppearanceBatch(len(records), appearances, payload, number)


def unpack(payload: bytes, number: int) -> tuple[NDArray[np.void], NDArray[np.void]]:
    """Searches and appearances of a batch of any known format, as arrays of the current one.

    Raises:
        Rejected: the format is not known, or the counts do not fit the bytes.
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
    """The same searches in the current format; what an older one does not have is zero."""
    if heads.dtype == SEARCH:
        return heads
    found = np.zeros(len(heads), SEARCH)
    for name in heads.dtype.names or ():
        found[name] = heads[name]
    return found


class Spool:
    """One incarnation's file, open for appending and locked."""

    def __init__(self, folder: Path, incarnation: UUID) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"{incarnation}{SUFFIX}"
        draft = self.path.with_suffix(".new")  # takes its name once it is locked, so that nobody adopts it before
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
        """One search, in one write.

        Raises:
            OSError: it could not be written; nothing of it stays in the file.
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
        """Cut off a half record, beyond which nobody could read on."""
        os.ftruncate(self._descriptor, self.size)
        self._is_torn = False

    def records(self) -> list[bytes]:
        """Every search that has been appended so far."""
        with self.path.open("rb") as file:
            return parsed(file.read(self.size))

    def sync(self) -> None:
        os.fdatasync(self._descriptor)

    def remove(self) -> None:
        """The file is not needed any more: everything in it is in the database."""
        self.path.unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        """Let go of the file: from here on it is an heir's. May be called again."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1


class Orphan:
    """The spool of a dead incarnation, locked by us."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path, self._descriptor = path, descriptor
        self.is_damaged = False  # as `records` found

    @property
    def incarnation(self) -> UUID:
        """Whose it is.

        Raises:
            ValueError: the file has another kind of name.
        """
        return UUID(self.path.stem)

    @property
    def format(self) -> int:
        return FORMAT_OF[self.path.suffix]

    def records(self) -> list[bytes]:
        """Every whole search in the file, up to a torn last one, which was never answered for, or to any damage."""
        with open(self._descriptor, "rb", closefd=False) as file:
            file.seek(0)
            data = file.read()
        found = parsed(data)
        self.is_damaged = not _is_torn(data[sum(FRAME.size + len(record) for record in found) :])
        return found

    def age_s(self, records: Sequence[bytes], now_s: float) -> float:
        """For how long there has been the first of its searches, by differences of this machine's clock alone."""
        written_s, lasted_s = os.fstat(self._descriptor).st_mtime, 0.0
        if records:
            kind = SEARCHES[self.format]
            first, last = (np.frombuffer(each, kind, 1)["at_ms"][0] for each in (records[0], records[-1]))
            lasted_s = float(last - first) / 1000
        return max(0.0, now_s - written_s) + max(0.0, lasted_s)

    def set_aside(self) -> Path:
        """Leave the file to a person, under another name, and let go of it."""
        aside = set_aside(self.path)
        self.close()
        return aside

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        """Let go of the lock. May be called again."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1


def parsed(data: bytes) -> list[bytes]:
    """The searches in a spool's bytes, up to the first that is not whole."""
    found, at = [], 0
    while at + FRAME.size <= len(data):
        length, checksum = FRAME.unpack_from(data, at)
        record = data[at + FRAME.size : at + FRAME.size + length]
        if len(record) != length or zlib.crc32(record) != checksum:
            break
        found.append(record)
        at += FRAME.size + length
    return found


def _is_torn(rest: bytes) -> bool:
    """Is what follows on the last whole search the beginning of another, whose writer died, or nothing?

    A length that was damaged looks like that too: but then whole searches stand behind it.
    """
    if len(rest) < FRAME.size:
        return True
    length, _ = FRAME.unpack_from(rest)
    reaches_further = length <= RECORD_BYTES_MAX and len(rest) < FRAME.size + length
    return bool(reaches_further) and not any(_is_whole(rest, at) for at in range(1, len(rest)))


def _is_whole(data: bytes, at: int) -> bool:
    """Does a whole search of any format stand there? Only where its length can be one are its bytes summed up."""
    begins = at + FRAME.size
    if begins > len(data):
        return False
    length, checksum = FRAME.unpack_from(data, at)
    shown = [length - kind.itemsize for kind in SEARCHES.values()]  # bytes of what it shows
    if begins + length > len(data) or not any(each >= 0 and each % SHOWN.itemsize == 0 for each in shown):
        return False
    return bool(zlib.crc32(data[begins : begins + length]) == checksum)


def set_aside(path: Path) -> Path:
    """Rename a spool that cannot be read to its end, so that no heir tries it or removes it; the new path."""
    aside = path.with_name(path.name + SET_ASIDE)
    with contextlib.suppress(FileNotFoundError):  # someone has removed it, and it is not there to be kept
        path.rename(aside)
    return aside


def count_set_aside(folder: Path) -> int:
    """How many damaged spools wait for a person."""
    return sum(1 for _ in folder.glob(f"*{SET_ASIDE}"))


def orphans(folder: Path) -> Generator[Orphan]:
    """The spools whose owners are dead, one after the other; each is locked by us until the next one is asked for.

    A caller that may leave in the midst wraps this in `contextlib.closing`.
    """
    for path in sorted(each for suffix in FORMAT_OF for each in folder.glob(f"*{suffix}")):
        orphan = _locked(path)
        if orphan is not None:
            try:
                yield orphan
            finally:
                orphan.close()


def _locked(path: Path) -> Orphan | None:
    """The spool if it can be locked; None if its owner or another heir has it, or had it a moment ago."""
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
