"""Threads for what blocks: so many at most, each call with a limit in time, and a caller who can go away.

A thread cannot be ended from outside. So a call holds its place until its thread has come back, however long ago the
caller gave up, and callers who find no free place are sent away soon. The event loop's own executor, which names and
files are read with, has no part in it. `DatabaseThreads` gives what runs in them a connection (jobs, takedown,
earnings): rare calls; what every search needs goes through `readers`.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Concatenate, ParamSpec, TypeVar

from psycopg import Connection
from psycopg_pool import ConnectionPool

from cluster.database import database
from cluster.errors import Temporary
from serve.http import deadlines

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class Threads:
    """Threads of one kind. Used inside one event loop."""

    def __init__(self, name: str, threads_max: int, wait_s: float, timeout_s: float) -> None:
        self._name = name
        self._max, self._wait_s, self._timeout_s = threads_max, wait_s, timeout_s
        self._executor = ThreadPoolExecutor(threads_max, f"pixr-{name}")
        self._places = asyncio.Semaphore(threads_max)
        self._used = 0

    @property
    def used(self) -> int:
        """Threads that are at work at present, also for callers who have gone."""
        return self._used

    async def run(
        self, function: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> Result:
        """`function(…)` in a thread.

        Raises:
            Temporary: no thread is free for as long as may be waited, or the call takes too long; it goes on then.
        """
        await self._place()
        with deadlines.limited(deadlines.left_s(self._timeout_s)):
            context = contextvars.copy_context()
        loop = asyncio.get_running_loop()
        call = self._executor.submit(context.run, functools.partial(function, *args, **kwargs))
        call.add_done_callback(lambda done: self._end(loop, done))
        waited = asyncio.wrap_future(call)
        waited.add_done_callback(_seen)
        done, _ = await asyncio.wait({waited}, timeout=deadlines.left_s(self._timeout_s))
        if not done:
            raise Temporary(f"{self._name} take too long at present")
        return call.result()

    async def close(self) -> None:
        """Take no more calls; those that run come to their end by themselves."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    async def _place(self) -> None:
        try:
            async with asyncio.timeout(deadlines.left_s(self._wait_s)):
                await self._places.acquire()
        except TimeoutError as error:
            raise Temporary(f"too many {self._name} at once") from error
        self._used += 1

    def _end(self, loop: asyncio.AbstractEventLoop, _: Future[Any]) -> None:
        with suppress(RuntimeError):  # the loop has ended before the thread
            loop.call_soon_threadsafe(self._release)

    def _release(self) -> None:
        self._used -= 1
        self._places.release()


def _seen(future: asyncio.Future[Any]) -> None:
    """The failure of a call whose caller has gone is nobody's concern."""
    if not future.cancelled():
        future.exception()


class DatabaseThreads(Threads):
    """Threads that have a connection each, of a pool that grows to as many."""

    def __init__(self, url: str, threads_max: int, wait_s: float, timeout_s: float) -> None:
        super().__init__("calls of this kind", threads_max, wait_s, timeout_s)
        self._url, self._opening = url, threading.Lock()
        self._pool: ConnectionPool | None = None

    async def ask(
        self,
        function: Callable[Concatenate[Connection[Any], Arguments], Result],
        *args: Arguments.args,
        **kwargs: Arguments.kwargs,
    ) -> Result:
        """`function(connection, …)` in a thread; committed when it returns in time, rolled back when it does not or raises.

        Raises:
            Temporary: as `run`; the database is away.
        """
        return await self.run(self._asked, lambda connection: function(connection, *args, **kwargs))

    async def close(self) -> None:
        await super().close()
        if self._pool is not None:
            await asyncio.to_thread(self._pool.close)

    def _asked(self, function: Callable[[Connection[Any]], Result]) -> Result:
        with database.translate(self._url), self._opened().connection() as connection:
            found = function(connection)
            if deadlines.left_s(self._timeout_s) <= 0:  # the caller was told that it failed
                raise Temporary(deadlines.LATE)
            return found

    def _opened(self) -> ConnectionPool:
        """The pool, opened by the first call."""
        with self._opening:
            if self._pool is None:
                session = database.with_statement_timeout(self._url, int(self._timeout_s * 1000))
                self._pool = database.pool(session, max_size=self._max, wait_s=self._wait_s)
            return self._pool
