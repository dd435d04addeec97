"""Keeping: how long each table keeps what it holds, and the part of the ledger that archives or deletes what is older.

Each round takes one step of each kind, bounded in what it touches; nothing is deleted that was not read back from the object
store by this process. While a restore is not over nothing is archived: what the tables hold may have to be compared with.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, LiteralString

from psycopg import Connection

from cluster.errors import Rejected, Temporary
from cluster.resilience import backoff_s
from cluster.settings import Settings
from ledger import adoption, book, stops
from ledger.archive import folds, history, journal, parts, payments
from ledger.archive.parts import CHAIN, FOLDS, JOURNAL, PAYMENTS, Part
from ledger.archive.shelf import Shelf
from ledger.rounds import Epoch
from ledger.rounds import Part as Work
from ledger.settings import LedgerSettings

log = logging.getLogger(__name__)

Conn = Connection[Any]

DELETED_MAX = 10_000  # rows a step
PAUSE_MAX_S = 300.0  # after what went wrong

# What is deleted and not archived: the oldest rows from `since` on and before `before`; how many, and the newest of them.
IDEMPOTENCY: LiteralString = """
    WITH old AS (SELECT key FROM ledger.idempotency WHERE created_at >= %(since)s AND created_at < %(before)s
                 ORDER BY created_at LIMIT %(most)s),
    gone AS (DELETE FROM ledger.idempotency i USING old WHERE i.key = old.key RETURNING i.created_at)
    SELECT count(*), max(created_at) FROM gone"""
# Those that agreed; the last one stays. What did not agree is kept as long as what was paid.
RECONCILIATIONS: LiteralString = """
    WITH old AS (SELECT id FROM ledger.reconciliations
                 WHERE id < (SELECT max(id) FROM ledger.reconciliations WHERE ok) AND at >= %(since)s
                   AND at < CASE WHEN ok THEN %(before)s ELSE %(paid_before)s END
                 ORDER BY id LIMIT %(most)s),
    gone AS (DELETE FROM ledger.reconciliations r USING old WHERE r.id = old.id RETURNING r.at, r.ok)
    SELECT count(*), NULL::timestamptz FROM gone"""
# Not of who is held for one.
SUSPICIONS: LiteralString = """
    WITH old AS (SELECT day, creator_id FROM ledger.suspicions s WHERE day < (%(before)s AT TIME ZONE 'utc')::date
                 AND NOT EXISTS (SELECT FROM ledger.holds h WHERE h.creator_id = s.creator_id AND h.released_at IS NULL)
                 ORDER BY day, creator_id LIMIT %(most)s),
    gone AS (DELETE FROM ledger.suspicions s USING old WHERE (s.day, s.creator_id) = (old.day, old.creator_id) RETURNING s.day)
    SELECT count(*), NULL::timestamptz FROM gone"""

# By name: the setting that says for how many days rows stay, and when the oldest of them is of.
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
}


@dataclass(frozen=True)
class Retention:
    """How long rows of a kind are kept, since when there are some, and what of it lies in the archive (bytes of content)."""

    name: str
    keep_d: int
    oldest_at: datetime | None
    parts: int
    bytes: int


class Keeping(Work):
    """What is old is archived, and then leaves the tables."""

    name = "archive"

    def __init__(self, settings: Settings, epoch: Epoch, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(settings, epoch)
        self._clock, self._again_at, self._failures = clock, 0.0, 0
        self._made: Shelf | None = None
        self._proved: set[int] = set()  # parts that this process has read to their end
        self._since: dict[str, datetime] = {}  # of what is deleted: everything before has been looked at

    @property
    def shelf(self) -> Shelf:
        if self._made is None:
            self._made = Shelf.of(self.settings)
        return self._made

    def begin(self, connection: Conn) -> None:
        super().begin(connection)
        connection.execute("SET TIME ZONE 'UTC'")
        connection.commit()

    def work(self, connection: Conn) -> bool:
        if self._clock() < self._again_at:
            return False
        try:
            more = self.step(connection)
            if not more:
                note(connection, measure(connection, self.own))
        except (Temporary, Rejected) as error:
            connection.rollback()
            self._failures += 1
            self._again_at = self._clock() + max(1.0, backoff_s(min(self._failures, 10), 1.0, PAUSE_MAX_S))
            self.trouble = f"nothing is archived: {error}"
            log.error("%s", self.trouble)
            return False
        self._failures, self.trouble = 0, ""
        if not more:
            self._again_at = self._clock() + self.own.keep_interval_s
        return more

    def step(self, connection: Conn) -> bool:
        """One step of each kind; whether any of them did something.

        Raises:
            Temporary: the object store is away.
            Rejected: what is to be archived is not right, or what was is not what it was.
        """
        if stops.is_frozen_for(connection, adoption.RESTORED):
            connection.commit()
            return False
        steps = (self._forget_folds, self._archive_folds, self._forget_journal, self._archive_journal,
                 self._archive_payments, self._archive_history, self._forget_rest, self._delete)  # fmt: skip
        done = [step(connection) for step in steps]  # each of them, also where an earlier one did something
        return any(done)

    def before(self, connection: Conn, keep_d: int) -> datetime | None:
        """What is of before this instant is kept no longer: a midnight, by the database's clock. None: all is kept."""
        if not keep_d:
            return None
        row = connection.execute(
            "SELECT date_trunc('day', now() AT TIME ZONE 'utc' - make_interval(days => %s)) AT TIME ZONE 'utc'",
            (keep_d,),
        ).fetchone()
        assert row is not None
        found: datetime = row[0]
        return found

    # ── Steps ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def _archive_folds(self, connection: Conn) -> bool:
        before = self.before(connection, self.own.folds_keep_d)
        numbers = folds.due(connection, before) if before else None
        if numbers is not None:
            folds.archive(connection, self.shelf, numbers)
        return numbers is not None

    def _archive_journal(self, connection: Conn) -> bool:
        before = self.before(connection, self.own.journal_keep_d)
        numbers = journal.due(connection, before) if before else None
        if numbers is not None:
            journal.archive(connection, self.shelf, numbers)
        return numbers is not None

    def _archive_payments(self, connection: Conn) -> bool:
        before = self.before(connection, self.own.payments_keep_d)
        rows = payments.due(connection, before) if before else []
        return bool(rows) and payments.archive(connection, self.shelf, rows)

    def _archive_history(self, connection: Conn) -> bool:
        before = self.before(connection, self.own.payments_keep_d)
        rows = history.due(connection, before) if before else []
        return bool(rows) and history.archive(connection, self.shelf, rows)

    def _forget_folds(self, connection: Conn) -> bool:
        part = self._proven(connection, FOLDS)
        if part is None:
            return False
        return folds.forget(connection, part.last)

    def _forget_journal(self, connection: Conn) -> bool:
        part = self._proven(connection, JOURNAL)
        return part is not None and journal.forget(connection, JOURNAL, part.last) > 0

    def _forget_rest(self, connection: Conn) -> bool:
        before = self.before(connection, self.own.payments_keep_d)
        until = journal.rest_until(connection, before) if before else 0
        if until <= parts.forgotten(connection, "rest"):
            return False
        return journal.forget(connection, "rest", until) > 0

    def _proven(self, connection: Conn, kind: str) -> Part | None:
        """The part whose rows are to leave the tables next, read to its end before the first of them does."""
        part = parts.after(connection, kind, parts.forgotten(connection, kind))
        connection.commit()
        if part is not None and part.id not in self._proved:
            self.shelf.check(part.written)
            self._proved.add(part.id)
        return part

    def _delete(self, connection: Conn) -> bool:
        own = self.own
        paid_before = self.before(connection, own.payments_keep_d)
        done = [
            self._deleted(connection, "idempotency", IDEMPOTENCY, own.idempotency_keep_d, paid_before),
            self._deleted(connection, "reconciliations", RECONCILIATIONS, own.reconciliations_keep_d, paid_before),
            self._deleted(connection, "suspicions", SUSPICIONS, own.payments_keep_d, paid_before),
        ]
        connection.commit()
        return any(done)

    def _deleted(
        self, connection: Conn, name: str, query: LiteralString, keep_d: int, paid_before: datetime | None
    ) -> bool:
        """Delete some rows that are kept no longer; whether there may be more."""
        before = self.before(connection, keep_d)
        if before is None:
            return False
        since = self._since.get(name, book.EPOCH_OF_TIME)
        given = {"before": before, "since": since, "most": DELETED_MAX,
                 "paid_before": paid_before or book.EPOCH_OF_TIME}  # fmt: skip
        row = connection.execute(query, given).fetchone()
        assert row is not None  # of a count
        if row[1] is not None:
            self._since[name] = row[1]
        return int(row[0]) >= DELETED_MAX


def measure(connection: Conn, settings: LedgerSettings) -> list[Retention]:
    """How things stand. Ends no transaction."""
    lying = {kind: (count, size) for kind, count, size in connection.execute(
        "SELECT kind, count(*), sum(bytes)::bigint FROM ledger.archives GROUP BY kind")}  # fmt: skip
    found = []
    for name, (setting, query) in KEPT.items():
        row = connection.execute(query).fetchone()
        count, size = lying.get(name, (0, 0))
        found.append(Retention(name, getattr(settings, setting), row[0] if row else None, count, size))
    return found


def note(connection: Conn, found: Sequence[Retention]) -> None:
    """Keep what was found, for who shows it; commits."""
    for each in found:
        connection.execute(
            "INSERT INTO ledger.retention (name, keep_d, oldest_at, parts, bytes) VALUES (%s, %s, %s, %s, %s)"
            " ON CONFLICT (name) DO UPDATE SET keep_d = excluded.keep_d, oldest_at = excluded.oldest_at,"
            "   parts = excluded.parts, bytes = excluded.bytes, looked_at = now()",
            (each.name, each.keep_d, each.oldest_at, each.parts, each.bytes),
        )
    book.commit(connection)
