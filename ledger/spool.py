"""The spool: a file to which a replica appends each search's appearances before it answers.

What `write` has taken survives the death of the process, because the page cache is the kernel's. The owner holds a
lock on the file; a file whose lock is free belongs to the dead and may be adopted by anyone on the machine. This
module also owns the bytes: format 1 of a search in the spool and of a batch in the database.
"""

from __future__ import annotations

import fcntl
import os
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from cluster.errors import Rejected

FORMAT = 1
FORMATS = (1,)  # what `unpack` reads: the current one and the one before it
SEARCH = np.dtype([("viewer", "V16"), ("key", "V16"), ("request", "V8"), ("at_ms", "<i8"), ("count", "<u2")])
SHOWN = np.dtype([
    ("segment_id", "<i8"), ("creator_id", "<i8"), ("best_frame_ms", "<i4"), ("relevance_ppm", "<i4"),
    ("amount_pix", "<i4"),
])  # fmt: skip
FRAME = struct.Struct("<II")  # length and CRC-32 of a search
HEAD = struct.Struct("<II")  # searches and appearances of a batch
SUFFIX = ".spool"
NO_KEY = bytes(16)


@dataclass(frozen=True)
class Batch:
    """Some searches on their way to the database."""

    searches: int
    appearances: int
    payload: bytes


def pack(records: Sequence[bytes]) -> Batch:
    """One batch of searches as they stand in the spool."""
    heads = [record[: SEARCH.itemsize] for record in records]
    bodies = [record[SEARCH.itemsize :] for record in records]
    appearances = sum(len(body) for body in bodies) // SHOWN.itemsize
    payload = HEAD.pack(len(records), appearances) + b"".join(heads) + b"".join(bodies)
    return Batch(len(records), appearances, payload)


def unpack(payload: bytes, number: int) -> tuple[NDArray[np.void], NDArray[np.void]]:
    """Searches and appearances of a batch, as arrays over its bytes.

    Raises:
        Rejected: the format is not known, or the counts do not fit the bytes.
    """
    if number not in FORMATS:
        raise Rejected(f"batch format {number} is not known", code="format-unknown")
    searches, appearances = HEAD.unpack_from(payload) if len(payload) >= HEAD.size else (0, 0)
    if len(payload) != HEAD.size + searches * SEARCH.itemsize + appearances * SHOWN.itemsize:
        raise Rejected("a batch is not as long as it says", code="batch-damaged")
    heads = np.frombuffer(payload, SEARCH, searches, HEAD.size)
    bodies = np.frombuffer(payload, SHOWN, appearances, HEAD.size + searches * SEARCH.itemsize)
    if int(heads["count"].sum()) != appearances:
        raise Rejected("a batch does not hold what its searches say", code="batch-damaged")
    return heads, bodies


class Spool:
    """One incarnation's file, open for appending and locked."""

    def __init__(self, folder: Path, incarnation: UUID) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"{incarnation}{SUFFIX}"
        draft = self.path.with_suffix(".new")  # takes its name once it is locked, so that nobody adopts it before
        self._descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        draft.rename(self.path)
        self.size = 0

    def append(self, record: bytes) -> None:
        """One search, in one write."""
        framed = FRAME.pack(len(record), zlib.crc32(record)) + record
        written = os.write(self._descriptor, framed)
        if written != len(framed):
            os.ftruncate(self._descriptor, self.size)  # a full disk: leave no half record behind
            raise OSError(28, f"no space left for {self.path}")
        self.size += written

    def sync(self) -> None:
        os.fdatasync(self._descriptor)

    def remove(self) -> None:
        """The file is not needed any more: everything in it is in the database."""
        self.path.unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1


class Orphan:
    """The spool of a dead incarnation, locked by whoever adopts it."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path, self._descriptor = path, descriptor

    @property
    def incarnation(self) -> UUID:
        return UUID(self.path.stem)

    def records(self) -> list[bytes]:
        """Every whole search in the file; a torn last one was never answered for."""
        data = self.path.read_bytes()
        found, at = [], 0
        while at + FRAME.size <= len(data):
            length, checksum = FRAME.unpack_from(data, at)
            record = data[at + FRAME.size : at + FRAME.size + length]
            if len(record) != length or zlib.crc32(record) != checksum:
                break
            found.append(record)
            at += FRAME.size + length
        return found

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        os.close(self._descriptor)


def orphans(folder: Path) -> list[Orphan]:
    """The spools whose owners are dead, each now locked by us."""
    found = []
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            continue
        found.append(Orphan(path, descriptor))
    return found
