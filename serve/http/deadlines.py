"""One deadline for a whole request, shared by everything that the request waits for.

Checking the key, rate limits, gates, the database and the search itself each have a timeout; together they could take
several times the deadline. So a request carries its deadline in a context variable, which the tasks that it starts
inherit. Each step asks how much time is left (`left_s`). Work that outlives its request on purpose runs inside
`unlimited`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from http import HTTPStatus
from typing import TypeVar

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cluster.errors import Temporary
from serve.http import problems
from serve.settings import SearchSettings

Result = TypeVar("Result")

LATE = "this takes too long at present"
SLACK_S = 0.5  # after the deadline, so that a step that ends at it can say what it lacked before the request is ended
SEARCH_PATH = "/v1/search"
READS = ("GET", "HEAD", "OPTIONS")
_UNTIL_S: ContextVar[float | None] = ContextVar("pixr_deadline", default=None)


def left_s(most_s: float) -> float:
    """Return how many seconds a step may take: `most_s`, or the rest of the request's time if that is less; at least 0."""
    until_s = _UNTIL_S.get()
    return most_s if until_s is None else max(0.0, min(most_s, until_s - time.monotonic()))


@contextmanager
def limited(deadline_s: float) -> Iterator[None]:
    """Run the block under a deadline `deadline_s` seconds from now, in place of the request's own."""
    token = _UNTIL_S.set(time.monotonic() + deadline_s)
    try:
        yield
    finally:
        _UNTIL_S.reset(token)


@contextmanager
def unlimited() -> Iterator[None]:
    """Run the block without the deadline of the request that has started it."""
    token = _UNTIL_S.set(None)
    try:
        yield
    finally:
        _UNTIL_S.reset(token)


@asynccontextmanager
async def at_most(most_s: float, late: str = LATE) -> AsyncIterator[None]:
    """Limit the block to `most_s` seconds and the request's deadline, as `within` does for an awaitable.

    Raises:
        Temporary: it takes longer than `most_s` seconds, or than what is left of the request.
    """
    timer = asyncio.timeout(left_s(most_s))
    try:
        async with timer:
            yield
    except TimeoutError as error:
        if not timer.expired():
            raise
        raise Temporary(late) from error


async def within(work: Awaitable[Result], most_s: float, late: str = LATE) -> Result:
    """Await some work for at most `most_s` seconds and within the request's deadline; return its result.

    Raises:
        Temporary: it takes longer. The work is cancelled, unless it is wrapped in `cluster.tasks.uncancelled`.
    """
    timer = asyncio.timeout(left_s(most_s))
    try:
        async with timer:
            return await work
    except TimeoutError as error:
        if not timer.expired():
            raise
        raise Temporary(late) from error


class Deadlines:
    """Middleware that gives each request its deadline; shortly after it, a request that has no response yet gets a 503.

    The time starts when the body has arrived (the door bounds how slowly a client may send) and ends with the first
    byte of the response: a video or a stream may last longer.
    """

    def __init__(self, app: ASGIApp, search: SearchSettings) -> None:
        self._app, self._search = app, search

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        await _Request(scope, receive, send, self._deadline_s(scope)).run(self._app)

    def _deadline_s(self, scope: Scope) -> float:
        """Return how many seconds a request may take: fewer for reads and searches than for changes."""
        is_read = scope["method"] in READS or scope["path"] == SEARCH_PATH
        return self._search.deadline_s if is_read else self._search.change_deadline_s


class _Request:
    """One request and its deadline. `_answering` is True once the response has begun."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, deadline_s: float) -> None:
        self._scope, self._receive, self._send = scope, receive, send
        self._deadline_s = deadline_s
        self._timer = asyncio.timeout(None)
        self._answering = False

    async def run(self, app: ASGIApp) -> None:
        try:
            async with self._timer:
                if has_body(self._scope):
                    await app(self._scope, self._received, self._sent)
                else:
                    self._begin()
                    await app(self._scope, self._receive, self._sent)
        except TimeoutError:
            if self._answering or not self._timer.expired():
                raise
            late = problems.problem(self._scope, HTTPStatus.SERVICE_UNAVAILABLE, LATE, code="temporary")
            await late(self._scope, self._receive, self._send)
        finally:
            _UNTIL_S.set(None)

    def _begin(self) -> None:
        now_s = time.monotonic()
        _UNTIL_S.set(now_s + self._deadline_s)
        self._timer.reschedule(asyncio.get_running_loop().time() + self._deadline_s + SLACK_S)

    async def _received(self) -> Message:
        """Receive a part of the body; the time until the deadline starts with the last part."""
        message = await self._receive()
        has_begun = self._timer.when() is not None
        if message["type"] == "http.request" and not message.get("more_body") and not (has_begun or self._answering):
            self._begin()
        return message

    async def _sent(self, message: Message) -> None:
        """Send a part of the response; the first one ends the deadline."""
        if message["type"] == "http.response.start":
            self._answering = True
            _UNTIL_S.set(None)
            if not self._timer.expired():
                self._timer.reschedule(None)
        await self._send(message)


def has_body(scope: Scope) -> bool:
    """Return whether a request's headers announce a body."""
    return any(
        name == b"transfer-encoding" or (name == b"content-length" and value.strip(b"0 ") != b"")
        for name, value in scope["headers"]
    )
