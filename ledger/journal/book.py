"""The journal: entries and their postings, written once and never changed.

The database itself enforces the rules (see ledger/schema): entries sum to zero in each asset, continue a hash chain, and are
written only by the holder of the current epoch; balances follow the postings. This module writes entries in the form that
the database accepts, and turns its errors into named refusals. Knows nothing of appearances or of Solana.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg import Connection

from cluster.errors import PixrError, Rejected
from ledger import money

EPOCH_OF_TIME = datetime(1970, 1, 1, tzinfo=UTC)
FENCED, CHANGED, BROKEN, UNBALANCED, ENDED = "PX001", "PX002", "PX003", "PX004", "PX005"  # SQLSTATEs of ledger/schema

STEP_MAX = 10**9  # of an epoch that cannot follow the clock; `ledger.guard_fence` allows no more

COPIED_LINES_MIN = 100  # fewer are inserted by one statement, which takes one round trip
COPY_POSTINGS = "COPY ledger.postings (entry_id, line, account_id, amount) FROM STDIN (FORMAT binary)"
COPY_HEAD, COPY_END = b"PGCOPY\n\xff\r\n\0" + bytes(8), b"\xff\xff"
POSTING = np.dtype([
    ("fields", ">i2"), ("entry_size", ">i4"), ("entry", ">i8"), ("line_size", ">i4"), ("line", ">i4"),
    ("account_size", ">i4"), ("account", ">i8"), ("amount_size", ">i4"), ("amount", ">i8"),
])  # fmt: skip


class Fenced(PixrError):
    """Another writer has taken over the ledger: this process must write nothing more."""


@dataclass(frozen=True)
class Entry:
    """An entry to write. It checks its lines when it is made; the database checks that they sum to zero in each asset."""

    kind: str
    key: str  # unique in the journal: the same key again writes nothing
    lines: Sequence[tuple[int, int]] | NDArray[np.int64]  # (lines, 2): account and amount; sums to zero in each asset
    document: Mapping[str, Any] = field(default_factory=dict)  # facts about the entry, hashed with it
    reverses: int | None = None  # the id of the entry that this one reverses

    def __post_init__(self) -> None:
        if len(self.lines) < 2:
            raise Rejected(f"entry {self.key} needs two postings or more", code="entry-too-short")
        for line_amount in self._amounts():
            if line_amount == 0:
                raise Rejected(f"entry {self.key} has a posting of nothing", code="posting-empty")
            money.amount(abs(line_amount))

    def _amounts(self) -> Iterable[int]:
        """Return the amounts to check: all of them; of an integer array only a zero, if it has one, or the extremes."""
        if not isinstance(self.lines, np.ndarray):
            return (line_amount for _, line_amount in self.lines)
        amounts = self.lines[:, 1]
        return [0] if not amounts.all() else [int(amounts.min()), int(amounts.max())]

    @property
    def text(self) -> str:
        """The document as it is hashed and stored: JSON with sorted keys."""
        return json.dumps(self.document, sort_keys=True, separators=(",", ":"), default=str)

    @property
    def postings(self) -> bytes:
        """The lines as they are hashed: account and amount, big-endian int64 each."""
        return np.array(self.lines, dtype=">i8").tobytes()

    @property
    def content(self) -> bytes:
        """The hash of all that the caller asked for.

        A second entry with the same key and another hash is a mistake, not a repetition.
        """
        return content_hash(self.kind, self.text, self.postings, self.reverses)


@dataclass(frozen=True)
class Written:
    """An entry in the journal; `new` is False if an entry with this key and content was already there."""

    id: int
    new: bool


# ── Who writes ─────────────────────────────────────────────────────────────────────────────────────────────────────


def take_epoch(connection: Connection, owner: str) -> int:
    """Take a new epoch for `owner`, let the session hold it, and commit; earlier holders can write nothing after that.

    Returns the epoch. It is at least the clock's microseconds since 1970. So a restored database never gives out an
    epoch that it has forgotten and that another process may still hold. If the clock is behind the last epoch, because
    it was ahead then or has been set back, the epoch grows by a random step instead, so that no other process takes the
    same one.
    """
    row = connection.execute(
        "UPDATE ledger.fence SET epoch = CASE WHEN epoch < c.micros THEN c.micros"
        "                                     ELSE epoch + 1 + floor(random() * %s)::bigint END,"
        "   owner = %s, taken_at = now(), seen_at = now()"
        " FROM (SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS micros) c RETURNING epoch",
        (STEP_MAX - 1, owner),
    ).fetchone()
    assert row is not None
    connection.commit()
    hold_epoch(connection, row[0])
    return int(row[0])


def hold_epoch(connection: Connection, epoch: int) -> None:
    """Let this session write under an epoch that was taken elsewhere."""
    connection.execute("SELECT set_config('ledger.epoch', %s, false)", (str(epoch),))
    connection.commit()


@contextmanager
def refusals() -> Iterator[None]:
    """Turn errors of the database inside this context into named refusals.

    Raises:
        Fenced: another writer holds the ledger.
        Rejected: a balance would go below zero or above 2^63 - 1, an account is unknown, or the entry breaks a rule.
    """
    try:
        yield
    except psycopg.errors.CheckViolation as error:
        if error.diag.constraint_name == "balance_not_negative":
            raise Rejected("the account does not hold that much", status=409, code="balance-too-low") from error
        raise
    except psycopg.errors.ForeignKeyViolation as error:
        raise Rejected(f"unknown account or entry: {error.diag.message_detail}", code="account-unknown") from error
    except psycopg.errors.NumericValueOutOfRange as error:
        raise Rejected("the balance would exceed 2^63 - 1", code="amount-too-large") from error
    except psycopg.DatabaseError as error:
        if error.sqlstate == FENCED:
            raise Fenced(str(error).splitlines()[0]) from error
        if error.sqlstate in (CHANGED, BROKEN, UNBALANCED, ENDED):
            raise Rejected(str(error).splitlines()[0], status=409, code="journal-refused") from error
        raise


# ── Accounts ───────────────────────────────────────────────────────────────────────────────────────────────────────


def clock_s(connection: Connection) -> int:
    """Return the time of the database, in whole seconds since 1970. No other clock decides what is recent or has ended."""
    row = connection.execute("SELECT extract(epoch FROM now())::bigint").fetchone()
    assert row is not None
    return int(row[0])


def account(connection: Connection, kind: str, asset: str = "PIX") -> int:
    """Return the id of one of the ledger's own accounts.

    Raises:
        Rejected: no such account.
    """
    row = connection.execute(
        "SELECT id FROM ledger.accounts WHERE kind = %s AND asset = %s AND party = ''", (kind, asset)
    ).fetchone()
    if row is None:
        raise Rejected(f"there is no account {kind} in {asset}", code="account-unknown")
    return int(row[0])


def accounts_of(connection: Connection, kind: str, party: str, owners: Sequence[int]) -> dict[int, int]:
    """Look up the accounts of many owners, in PIX; open those that are missing.

    Args:
        connection: in the caller's transaction.
        kind: "maturing" or "payable".
        party: "creator" or "investor".
        owners: their ids.

    Returns:
        The id of the account of each owner.
    """
    owners = [int(owner) for owner in owners]
    connection.execute(
        "INSERT INTO ledger.accounts (kind, party, owner) SELECT %s, %s, o.id FROM unnest(%s::bigint[]) AS o (id)"
        " WHERE NOT EXISTS (SELECT FROM ledger.accounts a"
        "                   WHERE (a.kind, a.party, a.owner, a.asset) = (%s, %s, o.id, 'PIX'))"
        " ON CONFLICT DO NOTHING",
        (kind, party, owners, kind, party),
    )
    rows = connection.execute(
        "SELECT owner, id FROM ledger.accounts WHERE kind = %s AND party = %s AND asset = 'PIX' AND owner = ANY(%s)",
        (kind, party, owners),
    )
    return {int(owner): int(number) for owner, number in rows}


def balance(connection: Connection, account_id: int, at: datetime | None = None) -> int:
    """Return an account's balance in base units of its asset: now, or without the postings after the time `at`.

    Raises:
        Rejected: no such account, or postings after that time are archived.
    """
    row = connection.execute("SELECT balance FROM ledger.accounts WHERE id = %s", (account_id,)).fetchone()
    if row is None:
        raise Rejected(f"there is no account {account_id}", code="account-unknown")
    if at is None:
        return int(row[0])
    later = connection.execute(
        "SELECT coalesce(sum(p.amount), 0)::bigint, (SELECT occurred_at > %(at)s FROM ledger.entries"
        "   WHERE id = (SELECT max(upto) FROM ledger.forgotten WHERE kind IN ('journal', 'rest')))"
        " FROM ledger.postings p JOIN ledger.entries e ON e.id = p.entry_id"
        " WHERE p.account_id = %(account)s AND e.occurred_at > %(at)s",
        {"account": account_id, "at": at},
    ).fetchone()
    assert later is not None  # of an aggregate
    if later[1]:
        raise Rejected("postings of after that instant are archived", code="balance-archived")
    return int(row[0]) - int(later[0])


# ── Entries ────────────────────────────────────────────────────────────────────────────────────────────────────────


def post(connection: Connection, entry: Entry) -> Written:
    """Write an entry inside the caller's transaction; if its key is there already, write nothing and return that entry.

    Raises:
        Rejected: the key was used with other content; the accounts or balances do not allow it.
        Fenced: this session no longer holds the ledger.
    """
    with refusals():
        found = connection.execute("SELECT id, content FROM ledger.entries WHERE key = %s", (entry.key,)).fetchone()
        if found is not None:
            if bytes(found[1]) != entry.content:
                raise Rejected(f"key {entry.key} was used with other content", status=409, code="key-reused")
            return Written(found[0], new=False)
        head = connection.execute(
            "SELECT h.entry_id, h.hash, clock_timestamp(), f.epoch"
            " FROM ledger.chain_head h, ledger.fence f FOR UPDATE OF h"
        ).fetchone()
        assert head is not None
        number, occurred_at = head[0] + 1, head[2]
        hashed = entry_hash(bytes(head[1]), number, micros(occurred_at), len(entry.lines), entry.kind, entry.key,
                            entry.text, entry.postings)  # fmt: skip
        connection.execute(
            "INSERT INTO ledger.entries"
            " (id, kind, key, content, document, lines, reverses, epoch, occurred_at, prev_hash, hash)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
            (number, entry.kind, entry.key, entry.content, entry.text, len(entry.lines), entry.reverses, head[3],
             occurred_at, head[1], hashed),
        )  # fmt: skip
        _add_postings(connection, number, entry)
        return Written(number, new=True)


def hold_end(connection: Connection) -> None:
    """Lock the end of the journal until the transaction ends, for callers that read balances before they write."""
    connection.execute("SELECT FROM ledger.chain_head FOR UPDATE")


def _add_postings(connection: Connection, number: int, entry: Entry) -> None:
    if len(entry.lines) >= COPIED_LINES_MIN:
        with connection.cursor().copy(COPY_POSTINGS) as copy:
            copy.write(_copied(number, np.asarray(entry.lines, np.int64)))
        return
    accounts, amounts = zip(*entry.lines, strict=True)
    connection.execute(
        "INSERT INTO ledger.postings (entry_id, line, account_id, amount)"
        " SELECT %s, line, account_id, amount"
        " FROM unnest(%s::bigint[], %s::bigint[]) WITH ORDINALITY AS t (account_id, amount, line)",
        (number, [int(each) for each in accounts], [int(each) for each in amounts]),
    )


def _copied(number: int, lines: NDArray[np.int64]) -> bytes:
    """Encode lines, (lines, 2), in PostgreSQL's binary COPY format: four fields per posting, each preceded by its length."""
    rows = np.zeros(len(lines), POSTING)
    rows["fields"], rows["entry_size"], rows["line_size"], rows["account_size"], rows["amount_size"] = 4, 8, 4, 8, 8
    rows["entry"], rows["line"] = number, np.arange(1, len(lines) + 1)
    rows["account"], rows["amount"] = lines[:, 0], lines[:, 1]
    return COPY_HEAD + rows.tobytes() + COPY_END


def commit(connection: Connection) -> None:
    """Commit the transaction; turn violations that the database finds only now into named refusals, too (see `refusals`)."""
    with refusals():
        connection.commit()


def reverse(connection: Connection, entry_id: int, reason: str) -> Written:
    """Write an entry that negates every amount of another one; a second call writes nothing.

    Raises:
        Rejected: no such entry, or its postings are archived.
    """
    lines = connection.execute(
        "SELECT account_id, -amount FROM ledger.postings WHERE entry_id = %s ORDER BY line", (entry_id,)
    ).fetchall()
    if not lines:
        raise Rejected(f"there is no entry {entry_id}, or it is archived", status=404, code="entry-unknown")
    return post(connection, Entry("reversal", f"reversal:{entry_id}", lines, {"reason": reason}, reverses=entry_id))


def content_hash(kind: str, document: str, postings: bytes, reverses: int | None) -> bytes:
    """Hash what a caller asked for; the entry's number and time are not part of it.

    Args:
        kind: the kind of the entry.
        document: its facts, as JSON text.
        postings: account and amount of each line, big-endian int64 each.
        reverses: the entry that it reverses, if any.

    Returns:
        32 bytes: SHA-256 over the SHA-256 of each part.
    """
    parts = (kind.encode(), document.encode(), postings, str(reverses).encode())
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).digest()


def entry_hash(
    prev: bytes, number: int, occurred_micros: int, lines: int, kind: str, key: str, document: str, postings: bytes
) -> bytes:
    """Hash an entry together with the hash of the entry before; the database computes the same hash (ledger/schema).

    Args:
        prev: the hash of the entry before, 32 bytes.
        number: the id of the entry.
        occurred_micros: when it occurred, in microseconds since 1970.
        lines: how many postings it has.
        kind: its kind.
        key: its key.
        document: its facts, as JSON text.
        postings: account and amount of each line, big-endian int64 each.

    Returns:
        32 bytes: a SHA-256.
    """
    integers = b"".join(value.to_bytes(8, "big") for value in (number, occurred_micros, lines))
    parts = (kind.encode(), key.encode(), document.encode(), postings)
    return hashlib.sha256(prev + integers + b"".join(hashlib.sha256(part).digest() for part in parts)).digest()


def micros(instant: datetime) -> int:
    """Return a time as whole microseconds since 1970, without rounding."""
    since = instant - EPOCH_OF_TIME
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
