"""Keeping: the part of the ledger that archives what is old, and lets it leave the tables (see `retention`).

Each round takes one step of each kind, bounded in what it touches; nothing is deleted that was not read back from the object
store by this process. While a restore is not over nothing is archived: what the tables hold may have to be compared with.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

from psycopg import Connection

from cluster.errors import Rejected, Temporary
from cluster.resilience import backoff_s
from cluster.settings import Settings
from ledger import adoption, stops
from ledger.archive import accounts, folds, history, journal, parts, payments, retention
from ledger.archive.parts import FOLDS, JOURNAL, Part
from ledger.archive.retention import before_of
from ledger.archive.shelf import Shelf
from ledger.rounds import Epoch
from ledger.rounds import Part as Work

log = logging.getLogger(__name__)

Conn = Connection[Any]

PAUSE_MAX_S = 300.0  # after what went wrong


class Keeping(Work):
    """What is old is archived, and then leaves the tables."""

    name = "archive"

    def __init__(self, settings: Settings, epoch: Epoch, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(settings, epoch)
        self._clock, self._again_at, self._failures = clock, 0.0, 0
        self._made: Shelf | None = None
        self._proved: set[int] = set()  # parts that this process has read to their end
        self._since: dict[str, datetime] = {}  # of what is deleted: everything before has been looked at
        self._refused: dict[str, tuple[str, float]] = {}  # steps that are not right: why, and until when they rest

    @property
    def shelf(self) -> Shelf:
        if self._made is None:
            self._made = Shelf.of(self.settings)
            self._made.tidy()
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
                retention.note(connection, retention.measure(connection, self.own))
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
        """One step of each kind; whether any of them did something. One that is refused keeps no other one waiting.

        Raises:
            Temporary: the object store is away.
        """
        if stops.is_frozen_for(connection, adoption.RESTORED):
            connection.commit()
            return False
        steps = (self._forget_folds, self._archive_folds, self._forget_journal, self._archive_journal,
                 self._archive_payments, self._archive_history, self._forget_rest, self._delete)  # fmt: skip
        done = [
            self._taken(connection, step) for step in steps
        ]  # each of them, also where an earlier one did something
        return any(done)

    def _taken(self, connection: Conn, step: Callable[[Conn], bool]) -> bool:
        """Take a step, unless it was refused a while ago: what is wrong is a person's to explain."""
        name = step.__name__
        if self._clock() < self._refused.get(name, ("", 0.0))[1]:
            return False
        self._refused.pop(name, None)
        try:
            return step(connection)
        except Rejected as refusal:
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
        rows = payments.due(connection, before) if before else []
        return bool(rows) and payments.archive(connection, self.shelf, rows)

    def _archive_history(self, connection: Conn) -> bool:
        before = before_of(connection, self.own.payments_keep_d)
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
        before = before_of(connection, self.own.payments_keep_d)
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
            if kind == JOURNAL:
                accounts.check(connection, self.shelf, part.id)
            connection.commit()
            self._proved.add(part.id)
        return part

    def _delete(self, connection: Conn) -> bool:
        return retention.delete(connection, self.own, self._since)
