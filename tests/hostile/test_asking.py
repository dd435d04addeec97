"""The client that counts is right itself: each way in which a request can end is told by its own name."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from tests.conftest import free_port
from tests.hostile import asking
from tests.hostile.asking import Asked, Kind, Plan, Seen
from tests.hostile.wire import Wire

GOOD = b'{"moments":[],"degraded":["vector"]}'
PROBLEM = {"type": "urn:x", "title": "Service Unavailable", "status": 503, "detail": "ask again"}


def http(status: int, kind: str, body: bytes, *more: str) -> bytes:
    head = (f"HTTP/1.1 {status} X", f"Content-Type: {kind}", f"Content-Length: {len(body)}", *more, "", "")
    return "\r\n".join(head).encode() + body


@asynccontextmanager
async def server(
    behave: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[Plan]:
    made = await asyncio.start_server(behave, "127.0.0.1", 0)
    async with made:
        yield Plan("127.0.0.1", made.sockets[0].getsockname()[1], ("goat",), 1, late_s=0.5)


async def ends(plan: Plan) -> Asked:
    return await asking.asked(plan, 0, asyncio.get_running_loop().time())


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (http(200, "application/json", GOOD), Kind.OK),
        (http(200, "application/json", b"{"), Kind.WRONG),
        (http(503, "application/problem+json", json.dumps(PROBLEM).encode(), "Retry-After: 1"), Kind.BUSY),
        (http(503, "application/problem+json", json.dumps(PROBLEM).encode()), Kind.WRONG),
        (http(503, "application/problem+json", b'{"status":503}', "Retry-After: 1"), Kind.WRONG),
        (http(503, "text/html", b"<h1>503</h1>", "Retry-After: 1"), Kind.WRONG),
        (http(404, "text/plain", b"Path not found"), Kind.WRONG),
        (http(200, "application/json", GOOD)[:-5], Kind.RESET),
        (b"", Kind.RESET),
        (b"SSH-2.0 x\r\n", Kind.WRONG),
    ],
)
async def test_an_answer_is_of_its_kind(answer: bytes, kind: Kind) -> None:
    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    async with server(behave) as plan:
        assert (await ends(plan)).kind is kind


async def test_a_reset_is_a_reset() -> None:
    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        Wire(writer.get_extra_info("socket"), reader, writer).reset()

    async with server(behave) as plan:
        assert (await ends(plan)).kind is Kind.RESET


async def test_where_nobody_listens_a_request_is_refused() -> None:
    assert (await ends(Plan("127.0.0.1", free_port(), ("goat",), 1))).kind is Kind.REFUSED


async def test_a_good_answer_after_its_time_is_late() -> None:
    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.7)
        writer.write(http(200, "application/json", GOOD))
        writer.close()

    async with server(behave) as plan:
        assert (await ends(plan)).kind is Kind.LATE


async def test_a_server_that_says_nothing_does_not_slow_the_schedule(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "GIVEN_UP_S", 1.0)

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with server(behave) as plan:
        end = asyncio.Event()
        asyncio.get_running_loop().call_later(1.0, end.set)
        seen = Seen(tuple(await asking.run(plan, end)))
    assert len(seen.rows) in range(9, 13)  # ten a second
    assert set(seen.kinds) == {Kind.LATE}
