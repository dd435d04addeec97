"""A pool of connections to one database that loses none of them, however its callers are cancelled.

A caller waits for a *place*, of which there are `search.pool_max`. A caller with a place can be interrupted only at two
points: while its connection is being opened, and while its question runs. Taking an idle connection and giving it back
await nothing. If the caller is interrupted while a connection is being opened, opening goes on, and the connection is
kept for the next caller. A connection whose question is interrupted is closed: the request to cancel a statement may
reach the server late and end the next one. The next question opens a new connection, so that a database is used as soon
as it is back.

psycopg_pool is not used, since its `getconn` and `putconn` lose connections when they are cancelled (psycopg #509,
#1208, #1214, #1275, #1345). With version 3.3.3 and 96 callers that hang up, none of 8 connections was left after four
rounds.
"""

from __future__ import annotations

import asyncio
import logging
import select
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, TypeVar

import psycopg
from psycopg import AsyncConnection
from psycopg.pq import TransactionStatus

from cluster.database import database
from cluster.errors import Temporary
from cluster.tasks import Tasks
from pipelines.index import vectors
from serve.http import deadlines
from serve.settings import SearchSettings

log = logging.getLogger(__name__)

Answer = TypeVar("Answer")
Question = Callable[[AsyncConnection[Any]], Awaitable[Answer]]

# The manner of a question is the name of the settings that it gives its session; an idle connection keeps those of its last
# question, and is given to one of the same manner first.
PLAIN = ""  # the manner of questions that set nothing
CONNECT_TIMEOUT_S = 2
HANG_TIMEOUT_MS = 5000  # after which bytes that the server does not acknowledge end the connection
LIFETIME_S = 3600.0  # of a connection, so that a server that is added behind a name gets its share
CANCEL_GRACE_S = 0.3  # within which the server is to end a statement that it is asked to end
SERVER_LEAD_S = 0.5  # the server ends a statement this much earlier than the question is cut off here
CLOSE_TIMEOUT_S = 5.0


class Busy(Temporary):
    """No place became free while the caller could wait."""


class Away(Temporary):
    """No connection could be made."""


class Slow(Temporary):
    """The question was cut off, and the server ended it when it was asked to: the server is well."""


class Late(Temporary):
    """The question was cut off, and the server did not end it when it was asked to: the server hangs."""


class Connections:
    """At most `search.pool_max` connections to one database. Used inside one event loop."""

    def __init__(self, url: str, search: SearchSettings) -> None:
        self.url = url
        self._question_s = search.question_timeout_s
        self._session = database.with_statement_timeout(url, _server_ms(search.question_timeout_s))
        self._max = search.pool_max
        self._places = asyncio.Semaphore(search.pool_max)
        self._waiting = self._used = self._replaced = 0
        self._idle: deque[_PooledConnection] = deque()
        self._closed = False
        self._connecting = Tasks("connections")

    @property
    def gauges(self) -> dict[str, float]:
        """Map the names of the pool's gauges to their values.

        They are: open and idle connections, free places, callers who wait for a place, and how many connections were closed
        so far because they could not be used again.
        """
        return {
            "open": len(self._idle) + self._used,
            "idle": len(self._idle),
            "places_free": self._max - self._used,
            "waiting": self._waiting,
            "replaced": self._replaced,
        }

    async def use(
        self, question: Question[Answer], wait_s: float, limit_s: float | None = None, manner: str = PLAIN
    ) -> Answer:
        """Ask the database a question.

        Args:
            question: is called with a connection in autocommit mode.
            wait_s: the longest wait for a place, in seconds.
            limit_s: the longest time for the question, in seconds; `search.question_timeout_s` where it is None.
            manner: the settings that the question gives its session; it gets a connection that has them, if one is
                idle.

        Returns:
            What the question returns.

        Raises:
            Busy, Away, Slow, Late: see these classes.
            psycopg.Error: what the question raises.
        """
        await self._wait_for_place(wait_s)
        connecting: asyncio.Task[_PooledConnection] | None = None
        try:
            pooled = await self._idle_connection(manner)
            if pooled is None:
                connecting = self._connecting.spawn("a connection", self._connected(manner), expected=(Away,))
                pooled = await asyncio.shield(connecting)
                connecting = None
            return await self._ask(question, pooled, limit_s or self._question_s, manner)
        finally:
            if connecting is None:
                self._free_place()
            else:
                connecting.add_done_callback(self._keep_for_others)

    async def _ask(self, question: Question[Answer], pooled: _PooledConnection, limit_s: float, manner: str) -> Answer:
        """Ask a question over a connection, and give the connection back whatever happens."""
        is_complete = False
        try:
            answer = await bounded(question(pooled.connection), limit_s)
            is_complete = True
        except psycopg.Error:
            is_complete = True
            raise
        finally:
            self._give_back(pooled, manner, is_complete=is_complete)
        return answer

    def _keep_for_others(self, connecting: asyncio.Task[_PooledConnection]) -> None:
        """Keep a connection whose caller was interrupted while it was opened, then free the caller's place."""
        if not connecting.cancelled() and connecting.exception() is None:
            pooled = connecting.result()
            self._give_back(pooled, pooled.manner, is_complete=True)
        self._free_place()

    def _free_place(self) -> None:
        self._used -= 1
        self._places.release()

    async def close(self) -> None:
        """Close all connections.

        Waits a while for used connections, each of which is closed when it is given back; then closes the idle ones.
        """
        self._closed = True
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                for _ in range(self._max):
                    await self._places.acquire()
        while self._idle:
            self._idle.pop().connection.pgconn.finish()

    async def _wait_for_place(self, wait_s: float) -> None:
        """Wait for a place; a wait that is cancelled holds none.

        Raises:
            Busy: no place became free in time.
        """
        if self._places.locked():
            self._waiting += 1
            try:
                async with asyncio.timeout(wait_s):
                    await self._places.acquire()
            except TimeoutError as error:
                raise Busy("the database has no time at present", public="too many questions at once") from error
            finally:
                self._waiting -= 1
        else:
            await self._places.acquire()  # at once
        self._used += 1

    async def _idle_connection(self, manner: str) -> _PooledConnection | None:
        """Take a usable idle connection out of the pool; return None if a new one has to be opened.

        A connection whose last question had the same manner is preferred. One of another manner is taken only if the
        pool may not open any more.
        """
        while self._idle:
            pooled = next((each for each in reversed(self._idle) if each.manner == manner), None)
            if pooled is None and len(self._idle) + self._used <= self._max:
                break
            pooled = pooled or self._idle[0]
            self._idle.remove(pooled)
            if pooled.is_well() and await self._is_reset(pooled, manner):
                return pooled
            self._discard(pooled)
        return None

    async def _is_reset(self, pooled: _PooledConnection, manner: str) -> bool:
        """Reset the session's settings before a question of manner `PLAIN`; return False if that fails.

        Questions of other manners set all the settings that they need themselves.
        """
        if manner != PLAIN or pooled.manner == PLAIN:
            return True
        try:
            await bounded(vectors.configure(pooled.connection, {}), CONNECT_TIMEOUT_S)
        except (psycopg.OperationalError, Slow, Late):
            return False
        except BaseException:
            self._discard(pooled)
            raise
        return True

    async def _connected(self, manner: str) -> _PooledConnection:
        """Open a connection.

        Raises:
            Away: the database refuses it, or does not answer in time.
        """
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S + 1.0):  # which includes resolving the host's name
                connection = await AsyncConnection.connect(
                    self._session,
                    autocommit=True,
                    connect_timeout=CONNECT_TIMEOUT_S,
                    tcp_user_timeout=HANG_TIMEOUT_MS,
                )
            return _PooledConnection(connection, manner, time.monotonic())
        except (psycopg.OperationalError, TimeoutError) as error:
            detail = str(database.of(error, self.url)) if isinstance(error, psycopg.OperationalError) else "no answer"
            raise Away(f"no connection: {detail}", public="the database does not answer") from error

    def _give_back(self, pooled: _PooledConnection, manner: str, *, is_complete: bool) -> None:
        """Keep a connection that is idle and whose question has come to its end; close any other. Awaits nothing."""
        pooled.manner = manner
        if is_complete and not self._closed and pooled.is_idle():
            self._idle.append(pooled)
        else:
            self._discard(pooled)

    def _discard(self, pooled: _PooledConnection) -> None:
        self._replaced += not self._closed
        pooled.connection.pgconn.finish()  # what `close` does, without being a coroutine


class _PooledConnection:
    """A connection, the manner of its last question, and when it was made."""

    __slots__ = ("connection", "made_at", "manner")

    def __init__(self, connection: AsyncConnection[Any], manner: str, made_at: float) -> None:
        self.connection, self.manner, self.made_at = connection, manner, made_at

    def is_idle(self) -> bool:
        """Whether it is between transactions, so that another caller may use it."""
        return self.connection.pgconn.transaction_status == TransactionStatus.IDLE

    def is_well(self) -> bool:
        """Whether it is idle, not too old, and has received nothing since its last question.

        A server writes to an idle connection only to end it, or when its configuration has changed.
        """
        if not self.is_idle() or time.monotonic() - self.made_at > LIFETIME_S:
            return False
        look = select.poll()
        look.register(self.connection.fileno(), select.POLLIN)
        return not look.poll(0)


def _server_ms(limit_s: float) -> int:
    """Return the server's own time limit for a question's statements, in milliseconds.

    It is a little shorter than `limit_s`, after which the question is cut off here.
    """
    return max(1, int(1000 * max(limit_s - SERVER_LEAD_S, limit_s / 2)))


async def bounded(work: Awaitable[Answer], limit_s: float) -> Answer:
    """Await a question, which is cut off after `limit_s` or a little after its request's deadline.

    At a first cancellation psycopg asks the server to end the statement, and waits for that up to ten seconds; at a
    second one it ends the connection. So a question is cancelled twice, and a server that does not end its statement is
    not waited for. The same holds if the first cancellation is the caller's.

    Raises:
        Slow, Late: it was cut off; see these classes.
        asyncio.CancelledError: the caller was cancelled.
    """
    task = asyncio.current_task()
    assert task is not None
    cut = _QuestionTimeout(task, min(limit_s, deadlines.left_s(limit_s) + CANCEL_GRACE_S))
    try:
        return await work
    except BaseException as error:
        for _ in range(cut.times):
            task.uncancel()
        if not cut.times or task.cancelling():
            raise
        if cut.times == 1:
            raise Slow("a question takes too long", public="this takes too long at present") from error
        raise Late("the database does not end a question", public="the database does not answer") from error
    finally:
        cut.timer.cancel()


class _QuestionTimeout:
    """Cancels a task at its limit, and again `CANCEL_GRACE_S` later; `times` counts its cancellations."""

    __slots__ = ("task", "timer", "times")

    def __init__(self, task: asyncio.Task[Any], limit_s: float) -> None:
        self.task, self.times = task, 0
        self.timer = asyncio.get_running_loop().call_later(limit_s, self._cancel)

    def _cancel(self) -> None:
        if not self.times:
            self.timer = asyncio.get_running_loop().call_later(CANCEL_GRACE_S, self._cancel)
        self.times += 1
        self.task.cancel()


async def works(url: str, limit_s: float) -> bool:
    """Return whether a database answers over a new connection within `limit_s` seconds."""
    with suppress(psycopg.Error, OSError, TimeoutError):
        async with asyncio.timeout(limit_s):
            connection = await AsyncConnection.connect(url, autocommit=True, connect_timeout=CONNECT_TIMEOUT_S)
            try:
                await connection.execute("SELECT 1")
            finally:
                await connection.close()
            return True
    return False
