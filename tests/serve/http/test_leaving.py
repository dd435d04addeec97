"""Who is gone before their request is begun, over real connections to a real server."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import pytest
import uvicorn
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from cluster.errors import Temporary
from cluster.settings import Settings
from serve.access.admission import Admission
from serve.access.viewers import Viewer
from serve.http.leaving import HUNG_UP, ClientConnection
from serve.search import answer as search
from serve.search import query as queries
from serve.search.answer import Caller
from serve.search.query import Body, Intent
from tests.serve.doors import opened
from tests.serve.scenes import Gallery

GET = b"GET /v1/search?q=a HTTP/1.1\r\nHost: pixr\r\nConnection: close\r\n\r\n"


async def eventually(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  conditions of things that tell nobody
            await asyncio.sleep(0.01)


class Asking:
    """An application that asks whether its client has left as soon as it is told to."""

    def __init__(self) -> None:
        self.begun, self.told, self.left = asyncio.Event(), asyncio.Event(), list[bool]()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        self.begun.set()
        await self.told.wait()
        client = ClientConnection(receive)
        self.left += [await client.has_left(), await client.has_left()]
        assert self.left[0] or await Request(scope, client.received).body() == b""  # what was looked at still comes
        assert await client.has_left() is self.left[0]
        await Response(b"here")(scope, receive, send)


@asynccontextmanager
async def served(app: object) -> AsyncIterator[int]:
    """A server of this application; its port."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, lifespan="off", log_level="error"))  # type: ignore[arg-type]
    task = asyncio.create_task(server.serve())
    await eventually(lambda: server.started)
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        await task


async def hung_up(port: int, *, reset: bool) -> None:
    """Send a request, and be gone."""
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(GET)
    await writer.drain()
    if reset:
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.close()
    with suppress(ConnectionResetError):
        await writer.wait_closed()


@pytest.mark.parametrize("reset", [True, False])
async def test_who_is_gone_is_known_before_the_work_is_begun(reset: bool) -> None:
    asked = Asking()
    async with served(asked) as port:
        await hung_up(port, reset=reset)
        await asyncio.wait_for(asked.begun.wait(), 10)
        await asyncio.sleep(0.2)
        asked.told.set()
        await eventually(lambda: asked.left)
    assert asked.left == [True, True]


async def test_who_waits_is_answered_and_their_request_is_as_it_came() -> None:
    asked = Asking()
    asked.told.set()
    async with served(asked) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(GET)
        answer = await asyncio.wait_for(reader.read(), 10)
        writer.close()
    assert asked.left == [False, False]
    assert answer.endswith(b"here")


async def test_a_busy_replica_begins_nothing_for_who_is_gone(hung: tuple[Settings, Gallery]) -> None:
    """Busy is one on which as many requests are under way as it makes searches at once."""
    begun, ended = list[str](), asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        begun.append(scope["query_string"].decode())
        await ended.wait()

    async with opened(hung[0]) as doors:
        admission = Admission(app, doors.services, [])
        busy = [asyncio.create_task(admission(*asked("waits"))) for _ in range(doors.services.search.searches_max)]
        await eventually(lambda: len(begun) == len(busy))
        told = list[Message]()
        await admission(*asked("is_gone", {"type": "http.disconnect"}, told=told))
        assert told[0]["status"] == HUNG_UP
        busy.append(asyncio.create_task(admission(*asked("waits"))))
        await eventually(lambda: len(begun) == len(busy))
        ended.set()
        await asyncio.gather(*busy)
        assert set(begun) == {"waits"}
        await admission(*asked("quiet", {"type": "http.disconnect"}))  # where there is room nobody is asked
        assert begun[-1] == "quiet"


def asked(query: str, *more: Message, told: list[Message] | None = None) -> tuple[Scope, Receive, Send]:
    """A search without a body; `more` is what is received of its client, who else stays."""
    scope = {"type": "http", "method": "GET", "path": "/v1/search", "query_string": query.encode(), "headers": []}
    comes: list[Message] = [{"type": "http.request", "body": b"", "more_body": False}, *more]

    async def receive() -> Message:
        return comes.pop(0) if comes else await asyncio.Future()

    async def send(message: Message) -> None:
        if told is not None:
            told.append(message)

    return {**scope, "client": ("127.0.0.1", 1)}, receive, send


async def test_who_has_left_while_waiting_for_a_place_is_not_searched_for(hung: tuple[Settings, Gallery]) -> None:
    comes: list[Message] = [{"type": "http.request", "body": b"", "more_body": False}, {"type": "http.disconnect"}]

    async def receive() -> Message:
        return comes.pop(0)

    async with opened(hung[0]) as doors:
        query = queries.of(Body(text="banana", intent=Intent.TYPING), doors.services.search)
        caller = Caller(Viewer("address", "192.0.2.1", "192.0.2.1"), client=ClientConnection(receive))
        with pytest.raises(Temporary, match="has left"):
            await search.answer(doors.services, doors.services.search, query, caller)
        assert doors.services.gate.held == 0
