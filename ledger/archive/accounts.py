"""Postings by account: a second object beside each part of the journal, from which a creator's statement is read.

The postings of the part are sorted by account and cut into blocks, each compressed on its own. The database stores the first
account, the offset and a hash of each block: so a statement fetches only the blocks that can hold an account, and accepts
no bytes but those that were written.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from psycopg import Connection

from cluster.errors import Rejected
from ledger.archive.shelf import DAMAGED, Shelf

Conn = Connection[Any]

BLOCK_ROWS = 4_096
COLUMNS = (("account", "<i8"), ("entry", "<i8"), ("amount", "<i8"), ("line", "<i4"))
# A block's first account, its offset in bytes, and the first half of its SHA-256. One more marks the end of the last block.
PLACE = np.dtype([("account", "<i8"), ("offset", "<i8"), ("digest", "V16")])
LAST = 2**63 - 1

Lines = dict[str, NDArray[Any]]  # by the names of COLUMNS; each (postings,)


@dataclass(frozen=True)
class Kept:
    """What the database stores about a part's object of postings by account: name, size, and where its blocks begin."""

    name: str
    size: int  # bytes
    places: bytes  # an array of PLACE, one more than there are blocks


class Found(NamedTuple):
    """One posting in the archive; the amount is in base units of its account's asset."""

    account: int
    entry: int
    amount: int
    line: int


class Index:
    """Collects the postings of one part of the journal's archive, sorts them by account, and writes or compares the object."""

    def __init__(self) -> None:
        self._postings: list[bytes] = []
        self._entries: list[int] = []

    def add(self, entry: int, postings: bytes) -> None:
        """Add an entry's postings in the order of its lines: account and amount, big-endian int64 each, as they are hashed."""
        self._entries.append(entry)
        self._postings.append(postings)

    def lines(self) -> Lines:
        """Return all postings by ascending account, those of one account in the order of entries and lines."""
        pairs = np.frombuffer(b"".join(self._postings), ">i8").reshape(-1, 2)  # (postings, 2): account, amount
        counts = np.array([len(each) // 16 for each in self._postings], np.int64)
        line = np.arange(len(pairs)) - np.repeat(np.cumsum(counts) - counts, counts) + 1
        columns = (pairs[:, 0], np.repeat(np.array(self._entries, np.int64), counts), pairs[:, 1], line)
        order = np.argsort(pairs[:, 0].astype(np.int64), kind="stable")
        return {name: column[order].astype(kind) for (name, kind), column in zip(COLUMNS, columns, strict=True)}

    def packed(self) -> tuple[bytes, bytes]:
        """Return the bytes of the object, and the places of its blocks (an array of PLACE)."""
        lines, blocks, places, offset = self.lines(), [], [], 0
        for start in range(0, len(lines["account"]), BLOCK_ROWS):
            block = zlib.compress(b"".join(lines[name][start : start + BLOCK_ROWS].tobytes() for name, _ in COLUMNS))
            places.append((lines["account"][start], offset, np.void(hashlib.sha256(block).digest()[:16])))
            blocks.append(block)
            offset += len(block)
        places.append((LAST, offset, np.void(bytes(16))))
        return b"".join(blocks), np.array(places, PLACE).tobytes()

    def is_kept(self, shelf: Shelf, kept: Kept) -> bool:
        """Return whether an object holds exactly these postings.

        Raises:
            Rejected: a block is missing or is not what was written.
        """
        places, first, expected = np.frombuffer(kept.places, PLACE), 0, self.lines()
        for number in range(len(places) - 1):
            block = _block(shelf, kept.name, places, number)
            count = len(block["account"])
            if any(not np.array_equal(block[name], expected[name][first : first + count]) for name, _ in COLUMNS):
                return False
            first += count
        return first == len(expected["account"])

    def keep(self, shelf: Shelf, kind: str, day: date, first: int, last: int) -> Kept:
        """Write the object to the shelf and read it back.

        Args:
            shelf: where the archive lies.
            kind: the kind of the part: "journal".
            day: the UTC day of the part.
            first: the part's first entry.
            last: the part's last entry.

        Returns:
            The object, to be noted in the database.

        Raises:
            Temporary: the object store does not answer.
            Rejected: what is read back differs from what was written.
        """
        content, places = self.packed()
        name = shelf.put(content, kind, day, first, last)
        if shelf.read(name, 0, len(content)) != content:
            raise Rejected(f"{name} of the archive is not what was written", code=DAMAGED)
        return Kept(name, len(content), places)


def note(connection: Conn, archive_id: int, kept: Kept) -> None:
    """Store name, size and blocks of a part's object in `ledger.archived_accounts`, in the caller's transaction."""
    connection.execute(
        "INSERT INTO ledger.archived_accounts (archive_id, name, bytes, places) VALUES (%s, %s, %s, %s)",
        (archive_id, kept.name, kept.size, kept.places),
    )


def check(connection: Conn, shelf: Shelf, archive_id: int) -> None:
    """Read every block of a part's postings by account, to see that they are intact.

    Raises:
        Rejected: a block is missing or is not what was written.
    """
    row = connection.execute(
        "SELECT name, places FROM ledger.archived_accounts WHERE archive_id = %s", (archive_id,)
    ).fetchone()
    if row is None:
        raise Rejected(f"part {archive_id} of the archive has no postings by account", code=DAMAGED)
    places = np.frombuffer(row[1], PLACE)
    for number in range(len(places) - 1):
        _block(shelf, row[0], places, number)


def of_lamports(connection: Conn) -> frozenset[int]:
    """Return the ledger's own accounts that are not in PIX; their amounts are lamports."""
    rows = connection.execute("SELECT id FROM ledger.accounts WHERE asset <> 'PIX' AND party = ''").fetchall()
    return frozenset(int(row[0]) for row in rows)


def read(shelf: Shelf, kept: Kept, wanted: Sequence[int]) -> list[Found]:
    """Read the postings of some accounts in one part.

    Raises:
        Temporary: the object store does not answer.
        Rejected: a block is missing or is not what was written.
    """
    places = np.frombuffer(kept.places, PLACE)
    found: list[Found] = []
    for account in wanted:
        begin = max(0, int(np.searchsorted(places["account"][:-1], account, "left")) - 1)
        end = int(np.searchsorted(places["account"][:-1], account, "right"))
        for block in range(begin, end):
            lines = _block(shelf, kept.name, places, block)
            rows = np.flatnonzero(lines["account"] == account)
            found += [Found(*(int(lines[name][row]) for name, _ in COLUMNS)) for row in rows]
    return found


def _block(shelf: Shelf, name: str, places: NDArray[np.void], number: int) -> Lines:
    """Read block `number` of an object, compare its hash, and return its columns."""
    start, end = int(places["offset"][number]), int(places["offset"][number + 1])
    data = shelf.read(name, start, end)
    if hashlib.sha256(data).digest()[:16] != bytes(places["digest"][number]):
        raise Rejected(f"{name} of the archive is not what was written, from byte {start}", code=DAMAGED)
    content = zlib.decompress(data)
    count, offset, lines = len(content) // sum(np.dtype(kind).itemsize for _, kind in COLUMNS), 0, Lines()
    for column, kind in COLUMNS:
        size = count * np.dtype(kind).itemsize
        lines[column] = np.frombuffer(content[offset : offset + size], kind)
        offset += size
    return lines
