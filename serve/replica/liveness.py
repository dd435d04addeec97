"""Liveness: whether this replica should be replaced by another one. There are two reasons for it.

* Its connections are exhausted (lost, a limit on descriptors, a fault of ours). This is so if for `liveness_s` the
  database has answered none of its questions, but twice in a row answers a fresh connection.
* Its event loop is late all the time.

A database that does not answer anyone is not a reason: another replica would fare no better. `/healthz` reports the
result, and so does `check` to Serve, which then starts another replica.
"""

from __future__ import annotations

import asyncio
import logging
import time

import psycopg

from cluster.errors import Temporary
from cluster.tasks import Tasks
from pipelines.index.vectors import Connection
from serve.replica.readers import Readers

log = logging.getLogger(__name__)

TICK_S = 1.0
LATE_S = 1.0  # of a tick: later than that the loop is not busy but blocked
DIRECT_TIMEOUT_S = 3.0  # of a fresh connection
MEANS, LOOP = "the database answers others and not this replica", "the event loop is late all the time"


class Liveness:
    """The watch over one replica. `start` once the loop runs; `check` at any time."""

    def __init__(self, readers: Readers, liveness_s: float) -> None:
        self._readers, self._liveness_s = readers, liveness_s
        self._on_time_at = time.monotonic()
        self._reason = ""
        self.tasks = Tasks("liveness")

    def start(self) -> None:
        """Begin to watch the loop and the database."""
        self._on_time_at = time.monotonic()
        self.tasks.keep("the clock", self._tick)
        self.tasks.keep("the database", self._watch)

    async def close(self) -> None:
        """End the watch."""
        await self.tasks.close()

    def check(self) -> None:
        """Check that this replica need not be replaced; for `/healthz` and for Serve.

        Raises:
            Temporary: it should be replaced; the message says why.
        """
        if self._reason:
            raise Temporary(self._reason)
        if len(self.tasks) and time.monotonic() - self._on_time_at > self._liveness_s:
            raise Temporary(LOOP)

    async def _tick(self) -> None:
        """Note over and over when the event loop was last on time."""
        while True:
            began = time.monotonic()
            await asyncio.sleep(min(TICK_S, self._liveness_s / 5))
            if time.monotonic() - began < TICK_S + LATE_S:
                self._on_time_at = time.monotonic()

    async def _watch(self) -> None:
        """Ask the database now and then, also without traffic; where it does not answer, try a fresh connection.

        One answer over a fresh connection proves nothing: a database that has just come back may give that one first.
        """
        is_answered_directly = False
        while True:
            await asyncio.sleep(self._liveness_s / 5)
            if await self._is_answered():
                self._reason, is_answered_directly = "", False
            elif time.monotonic() - self._readers.answered_at > self._liveness_s:
                was_answered_directly = is_answered_directly
                is_answered_directly = await self._readers.works_directly(DIRECT_TIMEOUT_S)
                exhausted = was_answered_directly and is_answered_directly
                if exhausted and not self._reason:
                    log.error("%s: %s", MEANS, dict(self._readers.gauges()))
                self._reason = MEANS if exhausted else ""

    async def _is_answered(self) -> bool:
        """Return whether a database has answered in the last moments, or answers now."""
        if time.monotonic() - self._readers.answered_at < self._liveness_s / 5:
            return True
        try:
            await self._readers.primary(_nothing)
        except (Temporary, psycopg.Error):
            return False
        return True


async def _nothing(connection: Connection) -> None:
    await connection.execute("SELECT 1")
