"""Where searches read: the primary and its replicas, each behind a breaker, the replicas only while they keep up.

A replica that is away, no longer streaming, further behind than is allowed, or behind a generation of the catalogue that
is known already is left out until it is well again; when none is left the primary answers. What must see the newest
write (keys, permissions, a writer's own change) asks the primary alone. Knows nothing of what is asked.
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

BEHIND_S = 0.1  # between looks at a replica that has not replayed a generation that is known
LAG: LiteralString = f"""
    SELECT CASE WHEN NOT pg_is_in_recovery() THEN 0
                WHEN NOT EXISTS (SELECT FROM pg_stat_wal_receiver WHERE status = 'streaming') THEN 'infinity'
                WHEN pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn() THEN 0
                ELSE coalesce(extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp()), 'infinity')
           END::float8, {GENERATION}"""


class Reader:
    """One database: `fit` while a replica keeps up, the primary always."""

    def __init__(self, name: str, connections: Connections, *, is_replica: bool) -> None:
        self.name = name
        self.is_replica = is_replica
        self.connections = connections
        self.fit = True
        self.generation = 0  # of the catalogue, when a replica was looked at last
        self.breaker = Breaker(name, failures_max=3, reset_s=1.0)
        self.answered_at = time.monotonic()

    def failed(self) -> None:
        """It went away: a replica is asked nothing more before it has been looked at."""
        self.breaker.failure()
        self.fit = not self.is_replica

    def answered(self) -> None:
        """Also with an error of the question's own: the server is there."""
        self.breaker.success()
        self.answered_at = time.monotonic()


class Readers:
    """Used inside one event loop: `await start()`, `ask(question)`, `await close()`."""

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
        """Begin to watch the replicas; waits for no database."""
        for reader in self._replicas:
            reader.fit = False  # until it has been looked at
        if self._replicas:
            self.tasks.keep("the watch of the replicas", self._watch)

    async def close(self) -> None:
        await self.tasks.close()
        for reader in (self._primary, *self._replicas):
            await reader.connections.close()

    async def ask(self, question: Question[Answer], *, manner: str = PLAIN, limit_s: float | None = None) -> Answer:
        """What a database answers, a replica first; asked once more where one goes away under the question.

        The caller may be cancelled at any moment: what the question holds is given back at once.

        Raises:
            Temporary: none gives a connection, or the one that did hangs.
            psycopg.Error: what the question raises; `QueryCanceled` where it took longer than its statements may.
        """
        return await self._asked(self._order, question, manner, limit_s)

    async def primary(self, question: Question[Answer], *, manner: str = PLAIN, limit_s: float | None = None) -> Answer:
        """What the primary answers, which every write is in.

        Raises:
            Temporary, psycopg.Error: as `ask`.
        """
        return await self._asked(lambda: iter((self._primary,)), question, manner, limit_s)

    async def each(self, question: Question[Answer], *, manner: str = PLAIN, limit_s: float) -> list[Answer]:
        """What every database answers that gives a connection, one after another."""
        answers = []
        for reader in (self._primary, *self._replicas):
            try:
                answers.append(await self._of(reader, question, manner, limit_s))
            except (Away, Busy, Slow, Late) as error:
                self._seldom.warning(f"{reader.name}: {error}")
        return answers

    def at_least(self, generation: int) -> None:
        """Leave out the replicas that have not this generation of the catalogue yet, and look at them at once."""
        if generation != self._generation:  # less only after the primary was restored
            self._generation = generation
            self._behind.set()

    @property
    def answered_at(self) -> float:
        """When a database answered last, by the monotonic clock."""
        return max(reader.answered_at for reader in (self._primary, *self._replicas))

    async def works_directly(self, limit_s: float) -> bool:
        """Whether the primary answers a fresh connection that needs none of the means here."""
        return await works(self._primary.connections.url, limit_s)

    def gauges(self) -> Mapping[str, float]:
        """The sums over all databases of `Connections.gauges`, as `connections_…`, and the replicas that are used."""
        summed: dict[str, float] = {"replicas_fit": sum(self._is_used(each) for each in self._replicas)}
        for reader in (self._primary, *self._replicas):
            for name, value in reader.connections.gauges.items():
                summed[f"connections_{name}"] = summed.get(f"connections_{name}", 0.0) + value
        return summed

    async def _asked(
        self,
        order: Callable[[], Iterable[Reader]],
        question: Question[Answer],
        manner: str,
        limit_s: float | None,
    ) -> Answer:
        try:
            return await self._first(order(), question, manner, limit_s)
        except psycopg.OperationalError as error:
            if not database.is_away(error):
                raise
            self._seldom.warning(f"a database went away under a question, which is asked again: {type(error).__name__}")
        return await self._first(order(), question, manner, limit_s)

    async def _first(
        self, readers: Iterable[Reader], question: Question[Answer], manner: str, limit_s: float | None
    ) -> Answer:
        """What the first reader answers that gives a connection."""
        reason: Temporary = Away("the database does not answer")
        for reader in readers:
            if not reader.breaker.allow():
                continue
            try:
                return await self._of(reader, question, manner, limit_s)
            except (Away, Busy) as error:
                self._seldom.warning(f"{reader.name}: {error}")
                reason = error
        raise reason

    async def _of(self, reader: Reader, question: Question[Answer], manner: str, limit_s: float | None) -> Answer:
        """What one reader answers, as its breaker sees it: a question that fails by itself is an answer too."""
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
            return  # it answers others, and nothing new is known of it
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
