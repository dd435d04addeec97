"""The proof of the archive: archived rows are unchanged, and the sums that the database keeps of them are right.

Reads every part to its end. It computes again: the journal's hash chain from its first entry, each fold's money from
its appearances, and the sums by account and by creator that the database keeps in place of deleted rows. They are
compared with the caller's snapshot of the database. Only reads.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray
from psycopg import Connection

from cluster.errors import Rejected
from ledger.archive import accounts, folds, history, journal, parts, payments
from ledger.archive.accounts import Kept
from ledger.archive.journal import ArchivedEntry
from ledger.archive.parts import FOLDS, JOURNAL, KINDS, ArchivePart
from ledger.archive.shelf import Row, Shelf
from ledger.journal import book

Conn = Connection[Any]
Numbers = NDArray[np.int64]

FETCHED_ROWS = 5_000
PROBLEMS_MAX = 100  # of each kind; then the search for more ends
WAITING_MAX = 2_000_000  # rows that are added up at once


class Sums:
    """Sums of a few int64 columns by key, with few rows in memory at once."""

    def __init__(self, columns: int) -> None:
        self._columns, self._waiting = columns, 0
        self._parts: list[tuple[Numbers, Numbers]] = []

    def add(self, keys: Numbers, values: Numbers) -> None:
        """Add rows: `keys` is (rows,) and may repeat, `values` is (rows, columns)."""
        self._parts.append((keys, values))
        self._waiting += len(keys)
        if self._waiting > WAITING_MAX:
            self._parts, self._waiting = [self._summed()], 0

    def _summed(self) -> tuple[Numbers, Numbers]:
        """Return each key once, ascending, and its sums, (keys, columns)."""
        keys = np.concatenate([np.zeros(0, np.int64), *(keys for keys, _ in self._parts)])
        values = np.concatenate([np.zeros((0, self._columns), np.int64), *(values for _, values in self._parts)])
        unique, place = np.unique(keys, return_inverse=True)
        sums = np.zeros((len(unique), self._columns), np.int64)
        np.add.at(sums, place.reshape(-1), values)
        return unique, sums

    def differing(self, rows: Iterable[Sequence[int]]) -> list[int]:
        """Return the keys whose sums differ from `rows`; each row is a key and its expected sums."""
        known = np.array(list(rows), np.int64).reshape(-1, 1 + self._columns)
        self.add(known[:, 0], -known[:, 1:])
        keys, sums = self._summed()
        return [int(key) for key in keys[sums.any(axis=1)]]


def check(connection: Conn, shelf: Shelf) -> tuple[list[str], str]:
    """Check the archive. Return what is wrong with it, one sentence each, and a summary of what was checked.

    Raises:
        Temporary: the object store does not answer.
    """
    wrong, counted = [*_gaps(connection)], Counter[str]()
    try:
        for questions in (_journal, _folds, _payments, _history):
            wrong += islice(questions(connection, shelf, counted), PROBLEMS_MAX)
        unnamed = _unnamed_objects(connection, shelf)
    except Rejected as refusal:  # a part is missing or damaged: nothing after it can be proven
        return [*wrong, str(refusal)], ""
    checked = ", ".join(f"{counted[name]} {name}" for name in ("entries", "folds", "payments", "transactions"))
    more = f"; {unnamed} objects of earlier tries or of before a restore" if unnamed else ""
    return wrong, f"{checked}{more}"


# ── The journal ────────────────────────────────────────────────────────────────────────────────────────────────────


def _journal(connection: Conn, shelf: Shelf, counted: Counter[str]) -> Iterator[str]:
    """Yield what is wrong with archived entries: hashes, content, sums, and their rows in the tables."""
    lamports, head, sums = accounts.of_lamports(connection), journal.NOTHING, Sums(3)
    for part in parts.listed(connection, JOURNAL):
        index, number = accounts.Index(), part.first
        with closing(_spine(connection, part)) as spine:
            for row in shelf.rows(part.written):
                entry = ArchivedEntry.of_row(row)
                name = f"entry {entry.id} ({entry.key}) of the archive"
                if entry.id != number or not entry.follows(head):
                    yield f"{name} breaks the hash chain"
                if not entry.is_as_asked:
                    yield f"{name} is not what was asked for under its key"
                if not journal.sums_to_zero(entry, lamports):
                    yield f"{name} does not sum to zero"
                if next(spine, None) != _link(entry):
                    yield f"{name} is another one in the journal"
                sums.add(*_moved(entry))
                index.add(entry.id, entry.postings)
                head, number = entry.hash, number + 1
                counted["entries"] += 1
        if head != part.head or number != part.last + 1:
            yield f"part {part.written.name} of the archive does not end with its head"
        yield from _by_account(connection, shelf, part, index)
    yield from _carried(connection, sums)


def _moved(entry: ArchivedEntry) -> tuple[Numbers, Numbers]:
    """Return what an entry's postings add to the sums by account.

    Returns:
        The account of each posting, int64 (lines,); and int64 (lines, 3): its amount, its amount again if the entry is
        an accrual (else 0), and 1 to count it.
    """
    lines = entry.amounts
    amounts = lines["amount"].astype(np.int64)
    earned = amounts if entry.kind == "accrual" else np.zeros_like(amounts)
    return lines["account"].astype(np.int64), np.stack([amounts, earned, np.ones_like(amounts)], axis=1)


def _spine(connection: Conn, part: ArchivePart) -> Generator[tuple[Any, ...], None, None]:
    """Yield a part's entries as they stand in the tables, without postings, in the form of `_link`."""
    with connection.cursor(name="spine") as cursor:
        cursor.itersize = FETCHED_ROWS
        cursor.execute(
            "SELECT id, kind, key, content, document, lines, reverses, epoch, occurred_at, prev_hash, hash"
            " FROM ledger.entries WHERE id BETWEEN %s AND %s ORDER BY id",
            (part.first, part.last),
        )
        for number, kind, key, content, document, lines, reverses, epoch, occurred_at, prev_hash, hashed in cursor:
            yield (number, kind, key, bytes(content), document, lines, reverses, epoch, book.micros(occurred_at),
                   bytes(prev_hash), bytes(hashed))  # fmt: skip


def _link(entry: ArchivedEntry) -> tuple[Any, ...]:
    """Return the fields of an archived entry to compare with the tables: all but its postings and when it was recorded."""
    return (entry.id, entry.kind, entry.key, entry.content, entry.document, entry.lines, entry.reverses, entry.epoch,
            entry.occurred, entry.prev_hash, entry.hash)  # fmt: skip


def _by_account(connection: Conn, shelf: Shelf, part: ArchivePart, index: accounts.Index) -> Iterator[str]:
    """Yield a sentence if the object of a part's postings by account differs from the postings of its entries."""
    row = connection.execute(
        "SELECT name, bytes, places FROM ledger.archived_accounts WHERE archive_id = %s", (part.id,)
    ).fetchone()
    if row is None or not index.is_kept(shelf, Kept(row[0], row[1], bytes(row[2]))):
        yield f"postings of part {part.written.name} of the archive are others by account"


def _carried(connection: Conn, sums: Sums) -> Iterator[str]:
    """Yield each account for which the sums of the archive differ from those of the database.

    The database's sums are the carried ones and those of archived postings that are still in the tables.
    """
    rows = connection.execute(
        "SELECT account_id, sum(amount)::bigint, sum(earned)::bigint, sum(postings)::bigint FROM ("
        "   SELECT account_id, amount, earned, postings FROM ledger.carried UNION ALL"
        "   SELECT p.account_id, p.amount, CASE WHEN e.kind = 'accrual' THEN p.amount ELSE 0 END, 1"
        "   FROM ledger.postings p JOIN ledger.entries e ON e.id = p.entry_id WHERE p.entry_id <= ledger.archived('journal')"
        " ) both_of GROUP BY account_id"
    ).fetchall()
    for account in sums.differing(rows):
        yield f"what is carried forward of account {account} is not what the archive holds"


# ── What was shown ─────────────────────────────────────────────────────────────────────────────────────────────────


def _folds(connection: Conn, shelf: Shelf, counted: Counter[str]) -> Iterator[str]:
    """Yield each archived fold whose appearances earn another amount than the fold states or its entry booked."""
    booked = _booked(connection, shelf)
    ahead = next(booked, None)
    for fold, batches in folds.archived(connection, shelf):
        earned = sum(folds.earned_by(batch) for batch in batches)
        while ahead is not None and fold["entry_id"] is not None and ahead[0] < fold["entry_id"]:
            ahead = next(booked, None)
        taken = ahead[1] if ahead is not None and ahead[0] == fold["entry_id"] else 0
        if not earned == fold["amount_pix"] == taken or len(batches) != fold["batches"]:
            yield f"fold {fold['fold']} booked {taken}, says {fold['amount_pix']}, its appearances earn {earned}"
        counted["folds"] += 1


def _booked(connection: Conn, shelf: Shelf) -> Iterator[tuple[int, int]]:
    """Yield each accrual entry, archived or not, and what it took from the pool, by ascending entry."""
    pool = book.account(connection, "reward_pool")
    for entry in journal.archived(connection, shelf):
        if entry.kind == "accrual":
            lines = entry.amounts
            yield entry.id, -int(lines["amount"][lines["account"] == pool].astype(np.int64).sum())
    archived = parts.last(connection, JOURNAL)
    with connection.cursor(name="booked") as cursor:
        cursor.itersize = FETCHED_ROWS
        cursor.execute(
            "SELECT e.id, -coalesce((SELECT sum(amount) FROM ledger.postings WHERE entry_id = e.id AND account_id = %s), 0)"
            "::bigint FROM ledger.entries e WHERE e.kind = 'accrual' AND e.id > %s ORDER BY e.id",
            (pool, archived),
        )
        yield from cursor


# ── What was paid ──────────────────────────────────────────────────────────────────────────────────────────────────


def _payments(connection: Conn, shelf: Shelf, counted: Counter[str]) -> Iterator[str]:
    """Yield archived batches that differ from what the tables keep of them, and creators whose paid sums are wrong."""
    sums = Sums(4)
    for row in payments.archived(connection, shelf):
        batch, paid = row["batch"], row["payouts"] or []
        transfers = {each["id"]: each for each in row["transfers"] or []}
        landed = [each for each in row["attempts"] or [] if each["state"] == "landed"]
        known = connection.execute(
            "SELECT state, count, signature FROM ledger.past_batches WHERE id = %s", (batch["id"],)
        ).fetchone()
        signature = landed[0]["signature"] if landed else None
        if known != (batch["state"], batch["count"], signature) or (batch["state"] == "posted" and len(landed) != 1):
            yield f"batch {batch['id']} of the archive is not the one that has gone"
        for payout in paid:
            transfer = transfers.get(payout["transfer_id"])
            if transfer is None or not _is_settled(payout, transfer):
                yield f"payout {payout['id']} of the archive is not what its transfer says"
        columns = [_paid(payout, transfers.get(payout["transfer_id"], {})) for payout in paid]
        if columns:
            sums.add(np.array([payout["creator_id"] for payout in paid], np.int64), np.array(columns, np.int64))
        counted["payments"] += 1
    rows = connection.execute("SELECT creator_id, paid_pix, on_chain_pix, payouts, settled FROM ledger.paid_before")
    for creator in sums.differing(rows):
        yield f"what creator {creator} was paid before is not what the archive holds"


def _is_settled(payout: Row, transfer: Row) -> bool:
    """Return whether the transfer has ended with the payout's amount; a posted one must also be seen on chain."""
    on_chain = payout["on_chain_pix"]
    is_whole = transfer["state"] != "posted" or on_chain == payout["amount_pix"]
    return bool(transfer["amount_pix"] == payout["amount_pix"] and transfer["state"] != "pending" and is_whole)


def _paid(payout: Row, transfer: Row) -> tuple[int, int, int, int]:
    """Return what a payout adds to a row of `ledger.paid_before`: paid, seen on chain, payouts, settled payouts."""
    got, state = payout["on_chain_pix"] or 0, transfer.get("state")
    paid = transfer["amount_pix"] if state == "posted" else got if state == "voided" else 0
    return paid, got, 1, int(state == "posted")


def _history(connection: Conn, shelf: Shelf, counted: Counter[str]) -> Iterator[str]:
    """Yield archived transactions that were booked a second time."""
    for row in history.archived(connection, shelf):
        counted["transactions"] += 1
        again = connection.execute("SELECT FROM ledger.chain_transactions WHERE signature = %s", (row["signature"],))
        if again.fetchone() is not None:
            yield f"transaction {row['signature']} of the archive was booked again"


# ── Parts ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _gaps(connection: Conn) -> Iterator[str]:
    """Yield each part that does not continue the part before it; only the numbers of folds may have gaps."""
    for kind in KINDS:
        last = 0
        for part in parts.listed(connection, kind):
            is_whole = kind == FOLDS or (part.first == last + 1 and part.written.rows == part.last - part.first + 1)
            if part.first <= last or not is_whole:
                yield f"part {part.written.name} of the archive does not follow on {last}"
            last = part.last


def _unnamed_objects(connection: Conn, shelf: Shelf) -> int:
    """Count the objects that no row names: a killed process or a database from before a restore has written them."""
    rows = connection.execute("SELECT name FROM ledger.archives UNION ALL SELECT name FROM ledger.archived_accounts")
    known = {row[0] for row in rows}
    return sum(name not in known for name in shelf.names())
