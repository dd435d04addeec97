"""Liveness: whether this replica itself is of use, or should be replaced.

A database that is away for everybody is no reason: another replica would fare no better. But where no question of this
replica has been answered for `liveness_s` while a fresh connection of its own kind is, its means are exhausted (lost
connections, a descriptor limit, a fault of ours), and where the event loop is late all the time it answers nobody in
time. `/healthz` says so, and so does `check` to Serve, which starts another replica.
"""

from __future__ import annotations

import asyncio
import logging
import time

import psycopg

from cluster.errors import Temporary
from cluster.tasks import Tasks
from pipelines.index import Connection
from serve.readers import Readers

log = logging.getLogger(__name__)

TICK_S = 1.0
LATE_S = 1.0  # of a tick: more than that is not a busy moment but a loop that is blocked
DIRECT_TIMEOUT_S = 3.0
MEANS, LOOP = "the database answers others and not this replica", "the event loop is late all the time"


class Liveness:
    """One replica's. `start` once the loop runs; `check` at any time."""

    def __init__(self, readers: Readers, liveness_s: float) -> None:
        self._readers, self._liveness_s = readers, liveness_s
        self._on_time_at = time.monotonic()
        self._reason = ""
        self.tasks = Tasks("liveness")

    def start(self) -> None:
        self._on_time_at = time.monotonic()
        self.tasks.keep("the clock", self._tick)
        self.tasks.keep("the database", self._watch)

    async def close(self) -> None:
        await self.tasks.close()

    def check(self) -> None:
        """For `/healthz` and for Serve.

        Raises:
            Temporary: this replica should be replaced.
        """
        if self._reason:
            raise Temporary(self._reason)
        if len(self.tasks) and time.monotonic() - self._on_time_at > self._liveness_s:
            raise Temporary(LOOP)

    async def _tick(self) -> None:
        while True:
            began = time.monotonic()
            await asyncio.sleep(min(TICK_S, self._liveness_s / 5))
            if time.monotonic() - began < TICK_S + LATE_S:
                self._on_time_at = time.monotonic()

    async def _watch(self) -> None:
        """Ask now and then, so that a replica that nobody asks knows too; and ask otherwise when nothing comes back.

        One answer to a fresh connection is no proof: a database that has just come back may give that one first.
        """
        others_are = False
        while True:
            await asyncio.sleep(self._liveness_s / 5)
            if await self._is_answered():
                self._reason, others_are = "", False
            elif time.monotonic() - self._readers.answered_at > self._liveness_s:
                others_were, others_are = others_are, await self._readers.works_directly(DIRECT_TIMEOUT_S)
                exhausted = others_were and others_are
                if exhausted and not self._reason:
                    log.error("%s: %s", MEANS, dict(self._readers.gauges()))
                self._reason = MEANS if exhausted else ""

    async def _is_answered(self) -> bool:
        """Whether a database has answered of late, or does now."""
        if time.monotonic() - self._readers.answered_at < self._liveness_s / 5:
            return True
        try:
            await self._readers.primary(_nothing)
        except (Temporary, psycopg.Error):
            return False
        return True


async def _nothing(connection: Connection) -> None:
    await connection.execute("SELECT 1")
