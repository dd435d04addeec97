"""Keeping: the part of the ledger's work that archives old rows and then deletes them from the tables (see `retention`).

Each round takes one step of bounded size for each kind of rows. No archived row is deleted before this process has read
its part back from the object store. Until a restore is complete no row is archived, since the restore compares with the
tables. Knows when to take a step; what a step does is in `archive`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

import psycopg
from psycopg import Connection

from cluster.errors import Rejected, Temporary
from cluster.resilience import backoff_s
from cluster.settings import Settings
from ledger.archive import accounts, folds, history, journal, parts, payments, retention
from ledger.archive.parts import FOLDS, JOURNAL, ArchivePart
from ledger.archive.payments import BEGIN
from ledger.archive.retention import before_of
from ledger.archive.shelf import Shelf
from ledger.journal import book
from ledger.payouts import adoption
from ledger.risk import stops
from ledger.rounds import Epoch, Part

log = logging.getLogger(__name__)

Conn = Connection[Any]

PAUSE_MAX_S = 300.0  # after an error
LOOK_AGAIN_S = 3600.0  # before payments that had to stay are examined again
CLOCKS_APART_MAX_S = 3600.0  # between this machine's clock and the database's: beyond that one of them is wrong
CHANGED_MAX = 10  # times in a row that rows may change while they are written
# Errors of one step that a person has to look at; they must not end the process, which also pays.
REFUSED = (Rejected, psycopg.Error, ValueError, KeyError, AssertionError)


class Keeping(Part):
    """The part that archives old rows and deletes them, step by step. Times are of the given monotonic clock."""

    name = "archive"

    def __init__(self, settings: Settings, epoch: Epoch, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(settings, epoch)
        self._clock, self._again_at, self._failures = clock, 0.0, 0
        self._made: Shelf | None = None
        self._proved: set[int] = set()  # ids of parts that this process has read to their end
        self._since: dict[str, datetime] = {}  # by table without an archive: rows before have been examined
        self._refused: dict[str, tuple[str, float]] = {}  # by step: why it was refused, and when it is tried again
        self._behind = BEGIN  # payments up to this one are archived or have to stay
        self._begin_at = clock() + LOOK_AGAIN_S  # when payments are examined from the beginning again
        self._delete_at = clock()  # when tables without an archive are examined again
        self._changed = 0  # times in a row that rows have changed while they were written
        self._archived = retention.Archived()

    @property
    def shelf(self) -> Shelf:
        """The shelf of the deployment; made at the first use."""
        if self._made is None:
            self._made = Shelf.of(self.settings)
            self._made.tidy()
        return self._made

    def begin(self, connection: Conn) -> None:
        super().begin(connection)
        connection.execute("SET TIME ZONE 'UTC'")
        connection.commit()
        self._archived = retention.Archived()  # the database may be another one, or restored

    def work(self, connection: Conn) -> bool:
        if self._clock() < self._again_at:
            return False
        try:
            more = self.step(connection)
            if not more:
                retention.note(connection, retention.measure(connection, self.own, self._archived))
        except Temporary as error:
            connection.rollback()
            self._failures += 1
            self._again_at = self._clock() + max(1.0, backoff_s(min(self._failures, 10), 1.0, PAUSE_MAX_S))
            self.trouble = f"nothing is archived: {error}"
            log.warning("%s", self.trouble)
            return False
        self._failures = 0
        self.trouble = next(iter(self._refused.values()), ("", 0.0))[0]
        if not more:
            self._again_at = self._clock() + self.own.keep_interval_s
        return more

    def step(self, connection: Conn) -> bool:
        """Take one step of each kind, even if a step of another kind is refused; return whether any step changed anything.

        Raises:
            Temporary: the object store does not answer, or the clocks of the database and this machine are too far apart.
        """
        if abs(book.clock_s(connection) - time.time()) > CLOCKS_APART_MAX_S:
            connection.commit()
            raise Temporary("the database's clock is not this machine's")
        if stops.is_frozen_for(connection, adoption.RESTORED):
            connection.commit()
            return False
        steps = (self._delete, self._forget_folds, self._archive_folds, self._forget_journal, self._archive_journal,
                 self._archive_payments, self._archive_history, self._forget_rest)  # fmt: skip
        done = [self._taken(connection, step) for step in steps]  # a list: `any` alone would stop at the first True
        return any(done)

    def _taken(self, connection: Conn, step: Callable[[Conn], bool]) -> bool:
        """Take a step, unless it was refused less than `PAUSE_MAX_S` ago; return whether it changed anything.

        A refusal is logged, since a person has to look at it.
        """
        name = step.__name__
        if self._clock() < self._refused.get(name, ("", 0.0))[1]:
            return False
        self._refused.pop(name, None)
        try:
            return step(connection)
        except (psycopg.OperationalError, book.Fenced):
            raise
        except REFUSED as refusal:
            connection.rollback()
            self._refused[name] = f"something is not archived: {refusal}", self._clock() + PAUSE_MAX_S
            log.error("%s", self._refused[name][0])
            return False

    # ── Steps ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def _archive_folds(self, connection: Conn) -> bool:
        before = before_of(connection, self.own.folds_keep_d)
        numbers = folds.due(connection, before) if before else None
        if numbers is not None:
            folds.archive(connection, self.shelf, numbers)
        return numbers is not None

    def _archive_journal(self, connection: Conn) -> bool:
        before = before_of(connection, self.own.journal_keep_d)
        numbers = journal.due(connection, before) if before else None
        if numbers is not None:
            journal.archive(connection, self.shelf, numbers)
        return numbers is not None

    def _archive_payments(self, connection: Conn) -> bool:
        before = before_of(connection, self.own.payments_keep_d)
        if before is None:
            return False
        if self._clock() >= self._begin_at:
            self._behind, self._begin_at = BEGIN, self._clock() + LOOK_AGAIN_S
        rows, self._behind, is_more = payments.looked(connection, before, self._behind)
        if not rows:
            connection.commit()
            return is_more
        return self._exchanged(payments.archive(connection, self.shelf, rows))

    def _archive_history(self, connection: Conn) -> bool:
        before = before_of(connection, self.own.payments_keep_d)
        rows = history.due(connection, before) if before else []
        return bool(rows) and self._exchanged(history.archive(connection, self.shelf, rows))

    def _exchanged(self, is_done: bool) -> bool:
        """Return True, so that the next step follows at once; count how often the rows have changed meanwhile.

        Raises:
            Rejected: the rows have changed `CHANGED_MAX` times in a row.
        """
        self._changed = 0 if is_done else self._changed + 1
        if self._changed >= CHANGED_MAX:
            self._changed = 0
            raise Rejected(f"rows have changed {CHANGED_MAX} times while they were written")
        return True

    def _forget_folds(self, connection: Conn) -> bool:
        part = self._proven(connection, FOLDS, parts.forgotten(connection, FOLDS))
        return part is not None and folds.forget(connection, part.last)

    def _forget_journal(self, connection: Conn) -> bool:
        part = self._proven(connection, JOURNAL, parts.forgotten(connection, JOURNAL))
        return part is not None and journal.forget(connection, JOURNAL, part.last) > 0

    def _forget_rest(self, connection: Conn) -> bool:
        before = before_of(connection, self.own.payments_keep_d)
        until, since = journal.rest_until(connection, before) if before else 0, parts.forgotten(connection, "rest")
        if until <= since:
            return False
        part = self._proven(connection, JOURNAL, since)
        return part is not None and journal.forget(connection, "rest", min(until, part.last)) > 0

    def _proven(self, connection: Conn, kind: str, number: int) -> ArchivePart | None:
        """Return the part that holds the number after `number`, else the next part; read each part to its end once.

        To be called before rows of the part are deleted.
        """
        part = parts.after(connection, kind, number)
        connection.commit()
        if part is not None and part.id not in self._proved:
            self.shelf.check(part.written)
            if kind == JOURNAL:
                accounts.check(connection, self.shelf, part.id)
            connection.commit()
            self._proved.add(part.id)
        return part

    def _delete(self, connection: Conn) -> bool:
        if self._clock() < self._delete_at:
            return False
        is_more = retention.delete(connection, self.own, self._since)
        if not is_more:
            self._delete_at = self._clock() + self.own.keep_interval_s
        return is_more
