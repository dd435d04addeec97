"""The databases that are read from: the primary and its standbys, each behind a breaker.

A standby is used only while it keeps up: one that is away, no longer streaming, further behind than is allowed, or behind a
generation of the catalogue that is known already is left out until it has caught up. When none is left the primary answers.
Questions that must see the newest write (keys, permissions, a writer's own change) ask only the primary. Knows nothing of
what is asked. In settings, logs and metrics a standby is called a replica, as PostgreSQL calls it too.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any, LiteralString, TypeVar

import psycopg
from psycopg import AsyncConnection

from cluster.database import database
from cluster.errors import Temporary
from cluster.observability.seldom import Seldom
from cluster.resilience import Breaker
from cluster.tasks import Tasks
from pipelines.catalog.catalog import GENERATION
from serve.http import deadlines
from serve.replica.connections import PLAIN, Away, Busy, Connections, Late, Question, Slow, works
from serve.settings import SearchSettings

log = logging.getLogger(__name__)

Answer = TypeVar("Answer")

BEHIND_S = 0.1  # between looks at a standby that has not replayed a generation that is known
# How many seconds behind a standby is (infinity where it streams no more), and its generation of the catalogue.
LAG: LiteralString = f"""
    SELECT CASE WHEN NOT pg_is_in_recovery() THEN 0
                WHEN NOT EXISTS (SELECT FROM pg_stat_wal_receiver WHERE status = 'streaming') THEN 'infinity'
                WHEN pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn() THEN 0
                ELSE coalesce(extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp()), 'infinity')
           END::float8, {GENERATION}"""


class Reader:
    """One database. `fit` is whether it is used: always for the primary, and for a standby while it keeps up."""

    def __init__(self, name: str, connections: Connections, *, is_replica: bool) -> None:
        self.name = name
        self.is_replica = is_replica
        self.connections = connections
        self.fit = True
        self.generation = 0  # of the catalogue, when a standby was looked at last
        self.breaker = Breaker(name, failures_max=3, reset_s=1.0)
        self.answered_at = time.monotonic()

    def failed(self) -> None:
        """Mark the database as failed; a standby is skipped until the next lag check."""
        self.breaker.failure()
        self.fit = not self.is_replica

    def answered(self) -> None:
        """Mark the database as answering; an error that the question itself has caused counts as an answer."""
        self.breaker.success()
        self.answered_at = time.monotonic()


class Readers:
    """The databases of one replica of Serve. Used inside one event loop: `start`, then `ask`, then `close`."""

    def __init__(self, primary: Connections, replicas: list[Connections], search: SearchSettings) -> None:
        self._primary = Reader("the primary", primary, is_replica=False)
        self._replicas = [Reader(f"replica {number}", each, is_replica=True) for number, each in enumerate(replicas, 1)]
        self._search = search
        self._turns = itertools.count()
        self._generation = 0
        self._behind = asyncio.Event()
        self._seldom = Seldom(log)
        self.tasks = Tasks("readers")

    async def start(self) -> None:
        """Begin to watch the standbys; waits for no database."""
        for reader in self._replicas:
            reader.fit = False  # until it has been looked at
        if self._replicas:
            self.tasks.keep("the watch of the replicas", self._watch)

    async def close(self) -> None:
        """End the watch and close every connection."""
        await self.tasks.close()
        for reader in (self._primary, *self._replicas):
            await reader.connections.close()

    async def ask(self, question: Question[Answer], *, manner: str = PLAIN, limit_s: float | None = None) -> Answer:
        """Ask a standby that keeps up, else the primary; ask once more if a database goes away during the question.

        The caller may be cancelled at any moment: the connection is given back at once.

        Args:
            question: is called with a connection.
            manner: the settings that the question gives its session (`connections`).
            limit_s: the longest time for the question, in seconds; the setting `question_timeout_s` where it is None.

        Returns:
            What the question returns.

        Raises:
            Temporary: no database gives a connection, or one gives a connection and then hangs.
            psycopg.Error: what the question raises; `QueryCanceled` if a statement took longer than it may.
        """
        return await self._ask_twice(self._order, question, manner, limit_s)

    async def primary(self, question: Question[Answer], *, manner: str = PLAIN, limit_s: float | None = None) -> Answer:
        """Ask the primary, which has every write; otherwise like `ask`.

        Raises:
            Temporary, psycopg.Error: see `ask`.
        """
        return await self._ask_twice(lambda: iter((self._primary,)), question, manner, limit_s)

    async def each(self, question: Question[Answer], *, manner: str = PLAIN, limit_s: float) -> list[Answer]:
        """Ask all databases, one after another; return the answers of those that answer."""
        answers = []
        for reader in (self._primary, *self._replicas):
            try:
                answers.append(await self._ask_one(reader, question, manner, limit_s))
            except (Away, Busy, Slow, Late) as error:
                self._seldom.warning(f"{reader.name}: {error}")
        return answers

    def at_least(self, generation: int) -> None:
        """Skip the standbys that have not replayed this generation yet, and have all standbys checked immediately."""
        if generation != self._generation:  # less only after the primary was restored
            self._generation = generation
            self._behind.set()

    @property
    def answered_at(self) -> float:
        """The time of the last answer of any database, by the monotonic clock."""
        return max(reader.answered_at for reader in (self._primary, *self._replicas))

    async def works_directly(self, limit_s: float) -> bool:
        """Return whether the primary answers over a new connection, outside of the pools."""
        return await works(self._primary.connections.url, limit_s)

    def gauges(self) -> Mapping[str, float]:
        """Return the sums of `Connections.gauges` over all databases, and the number of standbys in use.

        The names of the sums begin with `connections_`.
        """
        summed: dict[str, float] = {"replicas_fit": sum(self._is_used(each) for each in self._replicas)}
        for reader in (self._primary, *self._replicas):
            for name, value in reader.connections.gauges.items():
                summed[f"connections_{name}"] = summed.get(f"connections_{name}", 0.0) + value
        return summed

    async def _ask_twice(
        self,
        order: Callable[[], Iterable[Reader]],
        question: Question[Answer],
        manner: str,
        limit_s: float | None,
    ) -> Answer:
        try:
            return await self._ask_first(order(), question, manner, limit_s)
        except psycopg.OperationalError as error:
            if not database.is_away(error):
                raise
            self._seldom.warning(f"a database went away under a question, which is asked again: {type(error).__name__}")
        return await self._ask_first(order(), question, manner, limit_s)

    async def _ask_first(
        self, readers: Iterable[Reader], question: Question[Answer], manner: str, limit_s: float | None
    ) -> Answer:
        """Ask the first database that gives a connection.

        Raises:
            Temporary: no database gives a connection.
        """
        reason: Temporary = Away("the database does not answer")
        for reader in readers:
            if not reader.breaker.allow():
                continue
            try:
                return await self._ask_one(reader, question, manner, limit_s)
            except (Away, Busy) as error:
                self._seldom.warning(f"{reader.name}: {error}")
                reason = error
        raise reason

    async def _ask_one(self, reader: Reader, question: Question[Answer], manner: str, limit_s: float | None) -> Answer:
        """Ask one database, and report the outcome to its breaker.

        An error that the question itself has caused is reported as an answer.
        """
        wait_s = deadlines.left_s(self._search.connection_wait_s)
        try:
            answer = await reader.connections.use(question, wait_s, limit_s, manner)
        except (Away, Late):
            reader.failed()
            raise
        except Slow:
            reader.answered()
            raise
        except psycopg.OperationalError as error:
            if database.is_away(error):
                reader.failed()
            else:
                reader.answered()
            raise
        reader.answered()
        return answer

    def _is_used(self, reader: Reader) -> bool:
        return reader.fit and reader.generation >= self._generation

    def _order(self) -> Iterator[Reader]:
        """Yield the databases to ask: the standbys in use, which take turns, then the primary."""
        fit = [reader for reader in self._replicas if self._is_used(reader)]
        turn = next(self._turns) % len(fit) if fit else 0
        yield from (*fit[turn:], *fit[:turn], self._primary)

    async def _watch(self) -> None:
        while True:
            self._behind.clear()
            await asyncio.gather(*(self._look(reader) for reader in self._replicas))
            is_late = any(reader.fit and not self._is_used(reader) for reader in self._replicas)
            with suppress(TimeoutError):
                async with asyncio.timeout(BEHIND_S if is_late else self._search.replica_interval_s):
                    await self._behind.wait()

    async def _look(self, reader: Reader) -> None:
        try:
            lag_s, generation = await reader.connections.use(_lag, self._search.connection_wait_s)
        except Busy:
            return  # it answers other callers, and nothing new is known of it
        except (psycopg.Error, Temporary):
            lag_s, generation = float("inf"), 0
        fit = lag_s <= self._search.replica_lag_max_s
        if fit != reader.fit:
            log.warning("%s is %s (%.1f s behind)", reader.name, "used" if fit else "left out", lag_s)
        reader.fit, reader.generation = fit, generation
        if fit:
            reader.answered()


async def _lag(connection: AsyncConnection[Any]) -> tuple[float, int]:
    row = await (await connection.execute(LAG)).fetchone()
    return (float(row[0]), int(row[1] or 0)) if row else (float("inf"), 0)
