"""Where searches read: the primary and its replicas, each behind a breaker, the replicas only while they keep up.

A replica that is away, no longer streaming, or further behind than is allowed is left out until it is well again; when
none is left the primary answers. Knows nothing of what is asked.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import select
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

import psycopg
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

from cluster.errors import Temporary
from cluster.resilience import Breaker
from serve.settings import SearchSettings

log = logging.getLogger(__name__)

Answer = TypeVar("Answer")

CONNECT_TIMEOUT_S = 2
HANG_TIMEOUT_MS = 5000  # of bytes that a server does not acknowledge
RECONNECT_TIMEOUT_S = 2.0  # then the next who asks tries anew, so that a server that is back is used at once
LAG = """
    SELECT CASE WHEN NOT pg_is_in_recovery() THEN 0
                WHEN NOT EXISTS (SELECT FROM pg_stat_wal_receiver WHERE status = 'streaming') THEN 'infinity'
                WHEN pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn() THEN 0
                ELSE coalesce(extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp()), 'infinity')
           END::float8"""


async def check(connection: AsyncConnection[Any]) -> None:
    """Raise if a connection that was idle is of no use.

    A server says nothing to an idle connection but that it ends. Only where there is something to read it is asked, so
    that a search does without a round trip for each statement.
    """
    look = select.poll()
    look.register(connection.fileno(), select.POLLIN)
    if look.poll(0):
        await AsyncConnectionPool.check_connection(connection)


def pool(url: str, search: SearchSettings) -> AsyncConnectionPool:
    """A pool that is not yet open and gives up soon."""
    return AsyncConnectionPool(
        url,
        min_size=1,
        max_size=search.pool_max,
        timeout=search.connection_wait_s,
        open=False,
        check=check,
        reconnect_timeout=RECONNECT_TIMEOUT_S,
        kwargs={"connect_timeout": CONNECT_TIMEOUT_S, "tcp_user_timeout": HANG_TIMEOUT_MS, "autocommit": True},
    )


class Reader:
    """One database: `fit` while a replica keeps up, the primary always."""

    def __init__(self, name: str, connections: AsyncConnectionPool, *, is_replica: bool) -> None:
        self.name = name
        self.is_replica = is_replica
        self.pool = connections
        self.fit = True
        self.breaker = Breaker(name, failures_max=3, reset_s=1.0)

    def failed(self) -> None:
        """It went away: a replica is asked nothing more before it has been looked at."""
        self.breaker.failure()
        self.fit = not self.is_replica


class Readers:
    """Used inside one event loop: `await start()`, `connection()`, `await close()`."""

    def __init__(
        self, primary: AsyncConnectionPool, replicas: list[AsyncConnectionPool], search: SearchSettings
    ) -> None:
        self._primary = Reader("the primary", primary, is_replica=False)
        self._replicas = [Reader(f"replica {number}", each, is_replica=True) for number, each in enumerate(replicas, 1)]
        self._search = search
        self._turns = itertools.count()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Open every pool and begin to watch the replicas; waits for none of them."""
        for reader in (self._primary, *self._replicas):
            await reader.pool.open(wait=False)
        for reader in self._replicas:
            reader.fit = False  # until it has been looked at
        if self._replicas:
            self._task = asyncio.create_task(self._watch())

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        for reader in (self._primary, *self._replicas):
            await reader.pool.close()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[AsyncConnection[Any]]:
        """A connection of the first reader that gives one.

        Raises:
            Temporary: none does.
        """
        for reader in self._order():
            if not reader.breaker.allow():
                continue
            try:
                connection = await reader.pool.getconn(self._search.connection_wait_s)
            except psycopg.OperationalError as error:
                reader.failed()
                log.warning("%s gives no connection: %s", reader.name, type(error).__name__)
                continue
            async with _returned(reader, connection):
                yield connection
            return
        raise Temporary("the database does not answer")

    async def ask(self, question: Callable[[AsyncConnection[Any]], Awaitable[Answer]]) -> Answer:
        """What a database answers, asked once more where one goes away under the question.

        Raises:
            Temporary: none gives a connection.
            psycopg.OperationalError: it went away again, or took too long (`QueryCanceled`, at once).
        """
        try:
            async with self.connection() as connection:
                return await question(connection)
        except psycopg.errors.QueryCanceled:
            raise
        except psycopg.OperationalError as error:
            log.warning("a database went away under a question, which is asked again: %s", type(error).__name__)
        async with self.connection() as connection:
            return await question(connection)

    async def each(self) -> AsyncGenerator[AsyncConnection[Any]]:
        """A connection of every database that gives one, one after another."""
        for reader in (self._primary, *self._replicas):
            try:
                connection = await reader.pool.getconn(self._search.connection_wait_s)
            except psycopg.OperationalError as error:
                log.warning("%s gives no connection: %s", reader.name, type(error).__name__)
                continue
            async with _returned(reader, connection):
                yield connection

    def _order(self) -> Iterator[Reader]:
        fit = [reader for reader in self._replicas if reader.fit]
        turn = next(self._turns) % len(fit) if fit else 0
        yield from (*fit[turn:], *fit[:turn], self._primary)

    async def _watch(self) -> None:
        while True:
            await asyncio.gather(*(self._look(reader) for reader in self._replicas))
            await asyncio.sleep(self._search.replica_interval_s)

    async def _look(self, reader: Reader) -> None:
        try:
            async with reader.pool.connection(self._search.connection_wait_s) as connection:
                row = await (await connection.execute(LAG)).fetchone()
            lag_s = float(row[0]) if row else float("inf")
        except (psycopg.Error, OSError):
            lag_s = float("inf")
        fit = lag_s <= self._search.replica_lag_max_s
        if fit != reader.fit:
            log.warning("%s is %s (%.1f s behind)", reader.name, "used" if fit else "left out", lag_s)
        reader.fit = fit


@asynccontextmanager
async def _returned(reader: Reader, connection: AsyncConnection[Any]) -> AsyncIterator[None]:
    """Give the connection back, and tell the breaker. A statement cut off in time is no failure."""
    try:
        yield
    except psycopg.errors.QueryCanceled:
        reader.breaker.success()
        raise
    except psycopg.OperationalError:
        reader.failed()
        raise
    else:
        reader.breaker.success()
    finally:
        await reader.pool.putconn(connection)
