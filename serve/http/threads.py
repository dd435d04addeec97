"""A limited number of threads for blocking calls. Each call has a timeout, and its caller may be cancelled.

A thread cannot be ended from outside. So a call keeps its place until its thread has returned, even when the caller
gave up long ago. Callers who find no free place are refused soon. The event loop's own executor (for name lookups
and files) is separate. `DatabaseThreads` also gives each call a database connection; it is for rare calls (jobs,
takedown, earnings), while searches use `readers`.
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
    """The threads for one kind of calls. For use inside one event loop."""

    def __init__(self, name: str, threads_max: int, wait_s: float, timeout_s: float) -> None:
        """Make the threads; they start when they are needed.

        Args:
            name: The plural noun that errors use, e.g. `calls of this kind`.
            threads_max: How many calls run at once.
            wait_s: How many seconds a call waits for a free thread.
            timeout_s: How many seconds a caller waits for the call's result.
        """
        self._name = name
        self._max, self._wait_s, self._timeout_s = threads_max, wait_s, timeout_s
        self._executor = ThreadPoolExecutor(threads_max, f"pixr-{name}")
        self._places = asyncio.Semaphore(threads_max)
        self._used = 0

    @property
    def used(self) -> int:
        """Threads that are at work, including those whose callers have given up."""
        return self._used

    async def run(
        self, function: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> Result:
        """Call `function(*args, **kwargs)` in a thread and return its result.

        Raises:
            Temporary: no thread became free in time, or the call takes too long (its thread then goes on to the end).
        """
        await self._place()
        with deadlines.limited(deadlines.left_s(self._timeout_s)):
            context = contextvars.copy_context()
        loop = asyncio.get_running_loop()
        call = self._executor.submit(context.run, functools.partial(function, *args, **kwargs))
        call.add_done_callback(lambda done: self._end(loop, done))
        waited = asyncio.wrap_future(call)
        waited.add_done_callback(_retrieve)
        done, _ = await asyncio.wait({waited}, timeout=deadlines.left_s(self._timeout_s))
        if not done:
            raise Temporary(f"{self._name} take too long at present")
        return call.result()

    async def close(self) -> None:
        """Accept no more calls; running ones come to their end."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    async def _place(self) -> None:
        """Wait for a free thread."""
        try:
            async with asyncio.timeout(deadlines.left_s(self._wait_s)):
                await self._places.acquire()
        except TimeoutError as error:
            raise Temporary(f"too many {self._name} at once") from error
        self._used += 1

    def _end(self, loop: asyncio.AbstractEventLoop, _: Future[Any]) -> None:
        """Release the place of a call. Runs in the call's thread."""
        with suppress(RuntimeError):  # the event loop has ended before the thread
            loop.call_soon_threadsafe(self._release)

    def _release(self) -> None:
        self._used -= 1
        self._places.release()


def _retrieve(future: asyncio.Future[Any]) -> None:
    """Retrieve a call's exception, so that asyncio does not log it when the caller has given up."""
    if not future.cancelled():
        future.exception()


class DatabaseThreads(Threads):
    """Threads that give each call a database connection, from a pool with one connection for each thread."""

    def __init__(self, url: str, threads_max: int, wait_s: float, timeout_s: float) -> None:
        """Make the threads; the pool is opened by the first call.

        Args:
            url: The URL of the database.
            threads_max: How many calls, and connections, there are at once.
            wait_s: How many seconds a call waits for a free thread, and for a connection.
            timeout_s: How many seconds a caller waits for the call's result; statements are ended after this time too.
        """
        super().__init__("calls of this kind", threads_max, wait_s, timeout_s)
        self._url, self._opening = url, threading.Lock()
        self._pool: ConnectionPool | None = None

    async def ask(
        self,
        function: Callable[Concatenate[Connection[Any], Arguments], Result],
        *args: Arguments.args,
        **kwargs: Arguments.kwargs,
    ) -> Result:
        """Call `function(connection, *args, **kwargs)` in a thread and return its result.

        The transaction is committed when the function returns in time, and rolled back when it raises or is late.

        Raises:
            Temporary: as in `run`, or the database is away.
        """
        return await self.run(self._with_connection, lambda connection: function(connection, *args, **kwargs))

    async def close(self) -> None:
        await super().close()
        if self._pool is not None:
            await asyncio.to_thread(self._pool.close)

    def _with_connection(self, function: Callable[[Connection[Any]], Result]) -> Result:
        with database.translate(self._url), self._open_pool().connection() as connection:
            result = function(connection)
            if deadlines.left_s(self._timeout_s) <= 0:  # the caller was told that it failed, so roll back
                raise Temporary(deadlines.LATE)
            return result

    def _open_pool(self) -> ConnectionPool:
        """Return the connection pool; the first call opens it."""
        with self._opening:
            if self._pool is None:
                session = database.with_statement_timeout(self._url, int(self._timeout_s * 1000))
                self._pool = database.pool(session, max_size=self._max, wait_s=self._wait_s)
            return self._pool
