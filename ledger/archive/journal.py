"""The journal in the archive: entries with their postings, in the order of the hash chain, which continues from part to part.

A part holds entries of one UTC day. The folds of these entries are archived first, since their archiving compares each
fold's money with its entry. Before a part is written, every entry's hash is computed again. Afterwards only postings
are deleted. Entries stay in the table: they are the links of the hash chain, and keep their keys from being used twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray
from psycopg import Connection

from cluster.errors import Rejected
from ledger.archive import accounts, parts
from ledger.archive.parts import JOURNAL
from ledger.archive.shelf import Row, Shelf, bytes_of
from ledger.journal import book

Conn = Connection[Any]

LINES_MAX = 1_000_000  # postings of a part
FORGOTTEN_MAX = 50_000  # postings that one call of `forget` deletes
FETCHED_ROWS = 200
POSTING = np.dtype([("account", ">i8"), ("amount", ">i8")])
UNPROVEN = "archive-unproven"  # the code of a refusal: what is to be archived is not right
NOTHING = bytes(32)  # the hash before the first entry

ENTRIES = """
    SELECT e.id, e.kind, e.key, e.content, e.document, e.lines, e.reverses, e.epoch, e.occurred_at, e.recorded_at,
           e.prev_hash, e.hash,
           (SELECT string_agg(int8send(account_id) || int8send(amount), ''::bytea ORDER BY line)
            FROM ledger.postings WHERE entry_id = e.id)
    FROM ledger.entries e WHERE e.id BETWEEN %s AND %s ORDER BY e.id"""

# Up to the first entry that is of the next day, or whose fold is not archived yet.
DUE = """
    SELECT max(id) FROM (
        SELECT id, sum(lines) OVER (ORDER BY id) - lines AS before FROM ledger.entries
        WHERE id >= %(first)s AND id < least(
            (SELECT id FROM ledger.entries WHERE occurred_at >= %(until)s AND id >= %(first)s ORDER BY occurred_at, id LIMIT 1),
            (SELECT entry_id FROM ledger.folds WHERE entry_id IS NOT NULL ORDER BY id LIMIT 1),
            (SELECT entry_id + 1 FROM ledger.chain_head))
        ORDER BY id) counted
    WHERE before < %(most)s"""


@dataclass(frozen=True)
class ArchivedEntry:
    """An entry with its postings, as the archive and the audit read it."""

    id: int
    kind: str
    key: str
    content: bytes
    document: str
    lines: int
    reverses: int | None
    epoch: int
    occurred: int  # microseconds since 1970
    recorded: int  # microseconds since 1970
    prev_hash: bytes
    hash: bytes
    postings: bytes  # account and amount of each line in order, big-endian int64 each, as they are hashed

    @property
    def amounts(self) -> NDArray[np.void]:
        """Account and amount of each line: dtype POSTING, shape (lines,)."""
        return np.frombuffer(self.postings, POSTING)

    def follows(self, previous: bytes) -> bool:
        """Return whether the entry's hash follows from its content and `previous`, the hash of the entry before."""
        computed = book.entry_hash(
            previous, self.id, self.occurred, self.lines, self.kind, self.key, self.document, self.postings
        )
        return self.prev_hash == previous and self.hash == computed

    @property
    def is_as_asked(self) -> bool:
        """Whether what the entry's caller asked for still has the hash `content`, stored when the entry was written."""
        return book.content_hash(self.kind, self.document, self.postings, self.reverses) == self.content

    def row(self) -> Row:
        """Return the entry as a row of the archive."""
        return vars(self)

    @classmethod
    def of_row(cls, row: Mapping[str, Any]) -> ArchivedEntry:
        """Make an entry from a row of the archive: the inverse of `row`."""
        raw = {name: bytes_of(row[name]) for name in ("content", "prev_hash", "hash", "postings")}
        return cls(**{**row, **raw})


def due(connection: Conn, before: datetime) -> tuple[int, int] | None:
    """Return the first and last entry of the next part, all from before `before`; None if no entry is due."""
    first = parts.last(connection, JOURNAL) + 1
    row = connection.execute("SELECT occurred_at FROM ledger.entries WHERE id = %s", (first,)).fetchone()
    if row is None or row[0] >= before:
        return None
    until = min(before, datetime.combine(row[0].astimezone(UTC).date() + timedelta(days=1), datetime.min.time(), UTC))
    last = connection.execute(DUE, {"first": first, "until": until, "most": LINES_MAX}).fetchone()
    return (first, int(last[0])) if last is not None and last[0] is not None else None


def archive(connection: Conn, shelf: Shelf, numbers: tuple[int, int]) -> None:
    """Write the entries from the first to the last of `numbers`, all of them due, to the archive as one part. Commits.

    Raises:
        Rejected: an entry does not continue the chain, is not what its caller asked for, or does not sum to zero. No
            part is written until a person has explained it.
    """
    head = _head_before(connection, numbers[0])
    lamports = accounts.of_lamports(connection)
    by_account = accounts.Index()
    first, newest = None, 0
    with shelf.draft(JOURNAL) as draft:
        for entry in live(connection, numbers):
            if not entry.follows(head):
                raise Rejected(f"entry {entry.id} ({entry.key}) breaks the hash chain", code=UNPROVEN)
            if not entry.is_as_asked:
                raise Rejected(f"entry {entry.id} ({entry.key}) is not what was asked for under its key", code=UNPROVEN)
            if not sums_to_zero(entry, lamports):
                raise Rejected(f"entry {entry.id} ({entry.key}) does not sum to zero", code=UNPROVEN)
            draft.add(entry.row())
            by_account.add(entry.id, entry.postings)
            head, newest = entry.hash, max(newest, entry.occurred)
            first = first or entry.occurred
        connection.commit()
        assert first is not None  # of entries that are due
        day = _instant(first).date()
        written = shelf.keep(draft, day, *numbers)
    kept = by_account.keep(shelf, JOURNAL, day, *numbers)
    number = parts.add(connection, JOURNAL, numbers, day, written, _instant(newest), head)
    accounts.note(connection, number, kept)
    book.commit(connection)


def forget(connection: Conn, which: str, final: int) -> int:
    """Delete some archived postings, up to those of entry `final`, and commit; return how many entries were processed.

    `which` is "journal" for the postings of accruals and maturities, "rest" for all others (see `rest_until`).
    """
    with book.refusals():
        row = connection.execute("SELECT ledger.forget_postings(%s, %s, %s)", (which, final, FORGOTTEN_MAX)).fetchone()
    book.commit(connection)
    assert row is not None
    return int(row[0])


def rest_until(connection: Conn, before: datetime) -> int:
    """Return the last entry up to which the postings of payments and deposits may be deleted.

    These postings must be older than `before`, and no row of a transfer or of a transaction on chain may refer to them.
    """
    row = connection.execute(  # without an entry that old none may go; `least` alone would ignore a NULL
        "SELECT least(coalesce((SELECT upto FROM ledger.forgotten WHERE kind = 'journal'), 0),"
        "   coalesce((SELECT id FROM ledger.entries WHERE occurred_at < %s ORDER BY occurred_at DESC, id DESC LIMIT 1), 0),"
        "   (SELECT min(pending_entry) - 1 FROM (SELECT pending_entry FROM ledger.transfers ORDER BY id LIMIT 1000) t),"
        "   (SELECT min(entry_id) - 1 FROM ledger.chain_transactions))",  # an order may book what was seen long ago
        (before,),
    ).fetchone()
    return int(row[0]) if row is not None and row[0] is not None else 0


# ── Reading ────────────────────────────────────────────────────────────────────────────────────────────────────────


def live(connection: Conn, numbers: tuple[int, int]) -> Iterator[ArchivedEntry]:
    """Yield the entries from the first to the last of `numbers`; all their postings must still be in the tables."""
    with connection.cursor(name="entries") as cursor:
        cursor.itersize = FETCHED_ROWS
        for row in cursor.execute(ENTRIES, numbers):
            *columns, occurred, recorded, prev_hash, hashed, postings = row
            number, kind, key, content, document, lines, reverses, epoch = columns
            yield ArchivedEntry(number, kind, key, bytes(content), document, lines, reverses, epoch, book.micros(occurred),
                        book.micros(recorded), bytes(prev_hash), bytes(hashed), bytes(postings or b""))  # fmt: skip


def archived(connection: Conn, shelf: Shelf) -> Iterator[ArchivedEntry]:
    """Yield every archived entry, in order.

    Raises:
        Rejected: a part is missing or damaged.
    """
    for part in parts.listed(connection, JOURNAL):
        for row in shelf.rows(part.written):
            yield ArchivedEntry.of_row(row)


def sums_to_zero(entry: ArchivedEntry, lamports: frozenset[int]) -> bool:
    """Return whether the postings sum to zero in each asset, and are as many as the entry says.

    `lamports` are the accounts in SOL (see `accounts.of_lamports`); all others are in PIX.
    """
    lines = entry.amounts
    in_lamports = np.isin(lines["account"].astype(np.int64), list(lamports))  # (lines,)
    amounts = lines["amount"].astype(np.int64)
    is_zero = int(amounts[in_lamports].sum()) == 0 and int(amounts[~in_lamports].sum()) == 0
    return is_zero and len(lines) == entry.lines


def _head_before(connection: Conn, first: int) -> bytes:
    row = connection.execute("SELECT hash FROM ledger.entries WHERE id = %s", (first - 1,)).fetchone()
    return bytes(row[0]) if row else NOTHING


def _instant(micros: int) -> datetime:
    return book.EPOCH_OF_TIME + timedelta(microseconds=micros)
