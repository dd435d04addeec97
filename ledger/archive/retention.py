"""Retention: how many days each table keeps its rows, what is due to be archived, and what is deleted without an archive.

Days end at midnight UTC, by the database's clock. A setting of 0 days keeps rows for ever. Owns `ledger.retention`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, LiteralString

from psycopg import Connection

from ledger.archive import folds, history, journal, parts, payments
from ledger.archive.parts import CHAIN, FOLDS, JOURNAL, PAYMENTS
from ledger.journal import book
from ledger.settings import LedgerSettings

Conn = Connection[Any]

DELETED_MAX = 10_000  # rows of each table that one call of `delete` deletes
# Each query deletes the oldest rows of a table from before `before`, and returns how many there were. With `since`, which skips
# rows that an earlier call has examined, it may also return the time of the newest one.
IDEMPOTENCY: LiteralString = """
    WITH old AS (SELECT key FROM ledger.idempotency WHERE created_at >= %(since)s AND created_at < %(before)s
                 ORDER BY created_at LIMIT %(most)s),
    gone AS (DELETE FROM ledger.idempotency i USING old WHERE i.key = old.key RETURNING i.created_at)
    SELECT count(*), max(created_at) FROM gone"""
# Reconciliations that agreed; the last one stays. Those that did not agree are kept as long as payments.
RECONCILIATIONS: LiteralString = """
    WITH old AS (SELECT id FROM ledger.reconciliations
                 WHERE id < (SELECT max(id) FROM ledger.reconciliations WHERE ok) AND at >= %(since)s
                   AND at < CASE WHEN ok THEN %(before)s ELSE %(paid_before)s END
                 ORDER BY id LIMIT %(most)s),
    gone AS (DELETE FROM ledger.reconciliations r USING old WHERE r.id = old.id RETURNING r.at, r.ok)
    SELECT count(*), NULL::timestamptz FROM gone"""
# Suspicions and leaps, except those of creators with a hold in force.
SUSPICIONS: LiteralString = """
    WITH old AS (SELECT day, creator_id FROM ledger.suspicions s WHERE day < (%(before)s AT TIME ZONE 'utc')::date
                 AND NOT EXISTS (SELECT FROM ledger.holds h WHERE h.creator_id = s.creator_id AND h.released_at IS NULL)
                 ORDER BY day, creator_id LIMIT %(most)s),
    gone AS (DELETE FROM ledger.suspicions s USING old WHERE (s.day, s.creator_id) = (old.day, old.creator_id) RETURNING s.day)
    SELECT count(*), NULL::timestamptz FROM gone"""
LEAPS: LiteralString = """
    WITH old AS (SELECT day, creator_id FROM ledger.leaps l WHERE day < (%(before)s AT TIME ZONE 'utc')::date
                 AND NOT EXISTS (SELECT FROM ledger.holds h WHERE h.creator_id = l.creator_id AND h.released_at IS NULL)
                 ORDER BY day, creator_id LIMIT %(most)s),
    gone AS (DELETE FROM ledger.leaps l USING old WHERE (l.day, l.creator_id) = (old.day, old.creator_id) RETURNING l.day)
    SELECT count(*), NULL::timestamptz FROM gone"""

# In the same transaction: up to when something is gone for which nothing stands in its place (see `fold`).
FORGOTTEN: LiteralString = """
    INSERT INTO ledger.retention AS r (name, keep_d, parts, bytes, forgotten_until)
    VALUES (%(name)s, %(keep_d)s, 0, 0, %(until)s)
    ON CONFLICT (name) DO UPDATE SET forgotten_until = greatest(r.forgotten_until, excluded.forgotten_until)"""
DELETES = {"idempotency": IDEMPOTENCY, "reconciliations": RECONCILIATIONS, "suspicions": SUSPICIONS, "leaps": LEAPS}

# By name: the setting that says for how many days rows stay, and the query for the time of the oldest row.
KEPT: dict[str, tuple[str, LiteralString]] = {
    FOLDS: ("folds_keep_d", "SELECT folded_at FROM ledger.folds ORDER BY id LIMIT 1"),
    JOURNAL: (
        "journal_keep_d",
        (
            "SELECT occurred_at FROM ledger.entries WHERE id ="
            " coalesce((SELECT upto FROM ledger.forgotten WHERE kind = 'journal'), 0) + 1"
        ),
    ),
    PAYMENTS: (
        "payments_keep_d",
        "SELECT ended_at FROM ledger.batches WHERE ended_at IS NOT NULL ORDER BY ended_at LIMIT 1",
    ),
    CHAIN: (
        "payments_keep_d",
        (
            "SELECT seen_at FROM ledger.chain_transactions WHERE kind NOT IN ('unknown', 'attempt')"
            " ORDER BY seen_at LIMIT 1"
        ),
    ),
    "idempotency": (
        "idempotency_keep_d",
        "SELECT created_at FROM ledger.idempotency ORDER BY created_at LIMIT 1",
    ),
    "reconciliations": ("reconciliations_keep_d", "SELECT at FROM ledger.reconciliations ORDER BY id LIMIT 1"),
    "suspicions": ("payments_keep_d", "SELECT found_at FROM ledger.suspicions ORDER BY day LIMIT 1"),
    "leaps": ("payments_keep_d", "SELECT found_at FROM ledger.leaps ORDER BY day LIMIT 1"),
}


@dataclass(frozen=True)
class Retention:
    """How long rows of a kind stay in their table, how old the oldest one is, and what is in the archive."""

    name: str
    keep_d: int  # days; 0: for ever
    oldest_at: datetime | None  # the oldest row of the table
    parts: int  # in the archive
    bytes: int  # of these parts' content, before compression


@dataclass
class Archived:
    """How much is in the archive, by kind, counted up to part `last`: a later call of `look` reads the newer parts only.

    Parts are added by one writer at a time, in the order of their numbers, and never changed or removed.
    """

    last: int = 0
    parts: Counter[str] = field(default_factory=Counter)
    bytes: Counter[str] = field(default_factory=Counter)

    def look(self, connection: Conn) -> None:
        """Count the parts that were added since the last call. Leaves the transaction open."""
        rows = connection.execute(
            "SELECT kind, count(*), sum(bytes)::bigint, max(id) FROM ledger.archives WHERE id > %s GROUP BY kind",
            (self.last,),
        )
        for kind, count, size, newest in rows.fetchall():
            self.parts[kind] += count
            self.bytes[kind] += size
            self.last = max(self.last, newest)


def before_of(connection: Conn, keep_d: int) -> datetime | None:
    """Return the midnight UTC, by the database's clock, before which rows are archived or deleted; None if all are kept."""
    if not keep_d:
        return None
    row = connection.execute(
        "SELECT date_trunc('day', now() AT TIME ZONE 'utc' - make_interval(days => %s)) AT TIME ZONE 'utc'", (keep_d,)
    ).fetchone()
    assert row is not None
    midnight: datetime = row[0]
    return midnight


def waiting(connection: Conn, settings: LedgerSettings) -> list[str]:
    """Return the kinds that have rows to archive, or archived rows to delete. Leaves the transaction open."""
    questions: dict[str, tuple[int, Callable[[Conn, datetime], object]]] = {
        FOLDS: (settings.folds_keep_d, folds.due),
        JOURNAL: (settings.journal_keep_d, journal.due),
        PAYMENTS: (settings.payments_keep_d, payments.due),
        CHAIN: (settings.payments_keep_d, history.due),
    }
    due = []
    for kind, (keep_d, question) in questions.items():
        before = before_of(connection, keep_d)
        is_left = kind in (FOLDS, JOURNAL) and parts.forgotten(connection, kind) < parts.last(connection, kind)
        if is_left or (before is not None and question(connection, before)):
            due.append(kind)
    return due


def measure(connection: Conn, settings: LedgerSettings, archived: Archived | None = None) -> list[Retention]:
    """Measure every kind; `archived` is the count of earlier calls for this database. Leaves the transaction open."""
    archived = archived or Archived()
    archived.look(connection)
    found = []
    for name, (setting, query) in KEPT.items():
        row = connection.execute(query).fetchone()
        oldest_at = row[0] if row else None
        found.append(Retention(name, getattr(settings, setting), oldest_at, archived.parts[name], archived.bytes[name]))
    return found


# What `note` has kept, in rows (name, keep_s, oldest_s, parts, bytes): 0 for what is kept for ever, or is empty.
NOTED: LiteralString = """SELECT name, keep_d * 86400, coalesce(extract(epoch FROM now() - oldest_at), 0)::float, parts, bytes
    FROM ledger.retention ORDER BY name"""


def note(connection: Conn, found: Sequence[Retention]) -> None:
    """Write what was measured to `ledger.retention`, for `/metrics` to read, and commit."""
    for each in found:
        connection.execute(
            "INSERT INTO ledger.retention (name, keep_d, oldest_at, parts, bytes) VALUES (%s, %s, %s, %s, %s)"
            " ON CONFLICT (name) DO UPDATE SET keep_d = excluded.keep_d, oldest_at = excluded.oldest_at,"
            "   parts = excluded.parts, bytes = excluded.bytes, looked_at = now()",
            (each.name, each.keep_d, each.oldest_at, each.parts, each.bytes),
        )
    book.commit(connection)


# ── Deleting ───────────────────────────────────────────────────────────────────────────────────────────────────────


def delete(connection: Conn, settings: LedgerSettings, since: dict[str, datetime]) -> bool:
    """Delete rows that are too old from the tables that are not archived, at most `DELETED_MAX` of each. Commits.

    Args:
        connection: outside of a transaction.
        settings: for how many days each table keeps its rows.
        since: by table, the time up to which earlier calls have examined all rows; this call moves it forward.

    Returns:
        Whether there may be more to delete.
    """
    paid_before = before_of(connection, settings.payments_keep_d) or book.EPOCH_OF_TIME
    more = False
    for name, query in DELETES.items():
        before = before_of(connection, getattr(settings, KEPT[name][0]))
        if before is None:
            continue
        bounds = {"before": before, "paid_before": paid_before, "most": DELETED_MAX,
                  "since": since.get(name, book.EPOCH_OF_TIME)}  # fmt: skip
        row = connection.execute(query, bounds).fetchone()
        assert row is not None  # of a count
        more |= int(row[0]) >= DELETED_MAX
        if row[1] is not None:
            since[name] = row[1]
            connection.execute(FORGOTTEN, {"name": name, "keep_d": getattr(settings, KEPT[name][0]), "until": row[1]})
    connection.commit()
    return more
