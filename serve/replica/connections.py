"""Connections to one database, so many at most, that no caller can lose: what goes away mid-question gives them back.

A caller waits for a *place*, and may be cancelled at any moment. From then on there are two points where it can be
interrupted, while a connection is made and under its own question; taking an idle connection and giving it back wait for
nothing, so nothing can come between. A connection that is being made is made all the same, and kept for the next caller.
One under whose question the caller was interrupted is closed, not kept: the wish to end a statement may reach the server
late and end another one. The next question opens a new one, so that a database that is back is used at once.

Made here rather than with psycopg_pool, whose `getconn` and `putconn` lose connections when they are cancelled (psycopg
#509, #1208, #1214, #1275, #1345; 3.3.3 with 96 callers that hang up: none of 8 left after four rounds).
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

PLAIN = ""  # of a question that sets nothing in its session
CONNECT_TIMEOUT_S = 2
HANG_TIMEOUT_MS = 5000  # of bytes that a server does not acknowledge
LIFETIME_S = 3600.0  # so that a server that was added behind a name gets its share
CANCEL_GRACE_S = 0.3  # for the server to end a statement that it is asked to end
SERVER_LEAD_S = 0.5  # by which the server ends a statement before the question is cut off here
CLOSE_TIMEOUT_S = 5.0


class Busy(Temporary):
    """Every place was taken for as long as could be waited."""


class Away(Temporary):
    """No connection could be made."""


class Slow(Temporary):
    """The question took longer than there was time; the server ended it when it was asked to, so it is well."""


class Late(Temporary):
    """The question took longer than there was time, and the server did not end it when it was asked to: it hangs."""


class Connections:
    """At most `search.pool_max` connections to one database. Used inside one event loop."""

    def __init__(self, url: str, search: SearchSettings) -> None:
        self.url = url
        self._question_s = search.question_timeout_s
        self._session = database.with_statement_timeout(url, _server_ms(search.question_timeout_s))
        self._max = search.pool_max
        self._places = asyncio.Semaphore(search.pool_max)
        self._waiting = self._used = self._replaced = 0
        self._idle: deque[_Kept] = deque()
        self._closed = False
        self._making = Tasks("connections")

    @property
    def gauges(self) -> dict[str, float]:
        """Connections that are open, those that are idle, places that are free, callers that wait for one, and how many
        connections were closed since they were of no use any more."""
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
        """Put a question to the database, and answer what it answers.

        Args:
            wait_s: the longest wait for a place.
            limit_s: the longest time for the question; `search.question_timeout_s` where it is None.
            manner: which settings the question gives its session; it gets a connection that has them, where there is one.

        Raises:
            Busy, Away, Slow, Late: see there.
            psycopg.Error: what the question raises.
        """
        await self._place(wait_s)
        making: asyncio.Task[_Kept] | None = None
        try:
            kept = await self._taken(manner)
            if kept is None:
                making = self._making.spawn("a connection", self._made(manner), expected=(Away,))
                kept = await asyncio.shield(making)
                making = None
            return await self._put(question, kept, limit_s or self._question_s, manner)
        finally:
            if making is None:
                self._leave()
            else:
                making.add_done_callback(self._made_for_others)

    async def _put(self, question: Question[Answer], kept: _Kept, limit_s: float, manner: str) -> Answer:
        """Put a question to a connection, and give that back whatever happens."""
        is_whole = False
        try:
            answer = await bounded(question(kept.connection), limit_s)
            is_whole = True
        except psycopg.Error:
            is_whole = True
            raise
        finally:
            self._given_back(kept, manner, is_whole=is_whole)
        return answer

    def _made_for_others(self, making: asyncio.Task[_Kept]) -> None:
        """Keep a connection whose caller went away, or was late, while it was made; its place is held until then."""
        if not making.cancelled() and making.exception() is None:
            kept = making.result()
            self._given_back(kept, kept.manner, is_whole=True)
        self._leave()

    def _leave(self) -> None:
        self._used -= 1
        self._places.release()

    async def close(self) -> None:
        """Close what is idle at once and what is used when it comes back, for which this waits a while."""
        self._closed = True
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                for _ in range(self._max):
                    await self._places.acquire()
        while self._idle:
            self._idle.pop().connection.pgconn.finish()

    async def _place(self, wait_s: float) -> None:
        """Wait for a place; nothing is held before this returns, and a cancelled wait leaves nothing behind."""
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

    async def _taken(self, manner: str) -> _Kept | None:
        """An idle connection that is well: one of this manner, else none while there may be more, else any."""
        while self._idle:
            kept = next((each for each in reversed(self._idle) if each.manner == manner), None)
            if kept is None and len(self._idle) + self._used <= self._max:
                break
            kept = kept or self._idle[0]
            self._idle.remove(kept)
            if kept.is_well() and await self._prepared(kept, manner):
                return kept
            self._replace(kept)
        return None

    async def _made(self, manner: str) -> _Kept:
        return _Kept(await self._connected(), manner, time.monotonic())

    async def _prepared(self, kept: _Kept, manner: str) -> bool:
        """Whether a connection has no settings of another manner left. A search says all that it needs by itself."""
        if manner != PLAIN or kept.manner == PLAIN:
            return True
        try:
            await bounded(vectors.configure(kept.connection, {}), CONNECT_TIMEOUT_S)
        except (psycopg.OperationalError, Slow, Late):
            return False
        except BaseException:
            self._replace(kept)
            raise
        return True

    async def _connected(self) -> AsyncConnection[Any]:
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S + 1.0):  # of which resolving a name is a part
                return await AsyncConnection.connect(
                    self._session,
                    autocommit=True,
                    connect_timeout=CONNECT_TIMEOUT_S,
                    tcp_user_timeout=HANG_TIMEOUT_MS,
                )
        except (psycopg.OperationalError, TimeoutError) as error:
            detail = str(database.of(error, self.url)) if isinstance(error, psycopg.OperationalError) else "no answer"
            raise Away(f"no connection: {detail}", public="the database does not answer") from error

    def _given_back(self, kept: _Kept, manner: str, *, is_whole: bool) -> None:
        """Keep a connection that is idle and well; close any other. Waits for nothing."""
        kept.manner = manner
        if is_whole and not self._closed and kept.is_idle():
            self._idle.append(kept)
        else:
            self._replace(kept)

    def _replace(self, kept: _Kept) -> None:
        self._replaced += not self._closed
        kept.connection.pgconn.finish()  # what `close` does, without being a coroutine


class _Kept:
    """A connection with what is known of it."""

    __slots__ = ("connection", "made_at", "manner")

    def __init__(self, connection: AsyncConnection[Any], manner: str, made_at: float) -> None:
        self.connection, self.manner, self.made_at = connection, manner, made_at

    def is_idle(self) -> bool:
        """Between transactions; one in the middle of something is of no use to others."""
        return self.connection.pgconn.transaction_status == TransactionStatus.IDLE

    def is_well(self) -> bool:
        """A server says nothing to an idle connection but that it ends, or that its configuration has changed."""
        if not self.is_idle() or time.monotonic() - self.made_at > LIFETIME_S:
            return False
        look = select.poll()
        look.register(self.connection.fileno(), select.POLLIN)
        return not look.poll(0)


def _server_ms(limit_s: float) -> int:
    return max(1, int(1000 * max(limit_s - SERVER_LEAD_S, limit_s / 2)))


async def bounded(work: Awaitable[Answer], limit_s: float) -> Answer:
    """The result of a question, which is cut off after `limit_s` or a little after its request's deadline.

    psycopg takes one cancellation for the wish to end the statement, for which it waits up to ten seconds, and a second
    one for the end of the connection: a server that does not even end a statement is not waited for, whether the first
    was ours or the caller's.

    Raises:
        Slow, Late: it was cut off; see there.
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
    """Cancels a task at its limit, and again a moment later."""

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
    """Whether a database answers a connection that is nobody else's."""
    with suppress(psycopg.Error, OSError, TimeoutError):
        async with asyncio.timeout(limit_s):
            connection = await AsyncConnection.connect(url, autocommit=True, connect_timeout=CONNECT_TIMEOUT_S)
            try:
                await connection.execute("SELECT 1")
            finally:
                await connection.close()
            return True
    return False
