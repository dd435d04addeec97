"""Who sends slowly is answered 408, who does not read is cut off, and large bodies block nobody."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import http.client
import json
import socket
import statistics
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import uvicorn
from starlette.types import Message, Receive, Scope, Send

from cluster.database import database
from cluster.door import service
from cluster.door.backends import Backend
from cluster.settings import Settings
from serve.access import keys
from serve.access.keys import Principal
from serve.access.transfer import Incoming, Transfer
from serve.http import gates
from serve.settings import SearchSettings
from tests.cluster.doors import OwnDoor, door
from tests.conftest import free_port, until
from tests.serve.doors import bearer, listening, opened

TIMEOUT_S = 20.0


def with_search(settings: Settings, **changes: Any) -> Settings:
    return settings.with_section(dataclasses.replace(settings.section(SearchSettings), **changes))


@contextmanager
def begun(url: str, path: str = "/v1/search", length: int = 1000) -> Iterator[socket.socket]:
    """A request whose body has begun and does not go on."""
    where = urlsplit(url)
    with socket.create_connection((where.hostname, where.port), timeout=TIMEOUT_S) as connection:
        head = (
            f"POST {path} HTTP/1.1\r\nHost: pixr\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
        )
        connection.sendall(head.encode() + b"{")
        yield connection


def test_a_body_that_does_not_come_is_given_up(settings: Settings) -> None:
    with listening(with_search(settings, body_timeout_s=0.5)) as url, begun(url) as connection:
        began = time.monotonic()
        assert connection.recv(100).startswith(b"HTTP/1.1 408 ")
        assert time.monotonic() - began < 5


def test_slow_bodies_take_no_place_of_others(settings: Settings) -> None:
    with listening(with_search(settings, body_timeout_s=30.0)) as url, ExitStack() as stack:
        slow = [stack.enter_context(begun(url)) for _ in range(200)]
        assert slow[-1].recv(100).startswith(b"HTTP/1.1 503 ")  # above what one address may have
        began = time.monotonic()
        assert httpx.get(f"{url}/v1/search", params={"q": "a"}, timeout=TIMEOUT_S).status_code == 200
        assert time.monotonic() - began < 5


async def test_a_client_that_does_not_read_is_cut_off() -> None:
    search, ended = SearchSettings(write_timeout_s=0.5), asyncio.Event()

    async def endless(_scope: Scope, _receive: Receive, send: Send) -> None:
        try:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            while True:
                await send({"type": "http.response.body", "body": bytes(65536), "more_body": True})
        finally:
            ended.set()

    port = free_port()
    made = Transfer(endless, search, gates.of(search))
    config = uvicorn.Config(made, host="127.0.0.1", port=port, log_level="critical", lifespan="off")
    server = uvicorn.Server(config)
    running = asyncio.create_task(server.serve())
    try:
        while not server.started:  # noqa: ASYNC110  uvicorn has no event for it
            await asyncio.sleep(0.01)
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: pixr\r\n\r\n")
        async with asyncio.timeout(TIMEOUT_S):
            await ended.wait()
        writer.close()
    finally:
        server.should_exit = True
        await running


def posted(address: str, principal: Principal | None = None) -> Scope:
    headers = [(b"content-length", b"900000"), (b"content-type", b"application/json")]
    state = {"address": address, "principal": principal}
    return {"type": "http", "method": "POST", "path": "/v1/search", "headers": headers, "state": state}


def sent_slowly() -> Receive:
    """The beginning of a large body, and then nothing."""
    begun: list[Message] = [{"type": "http.request", "body": b'{"image":"' + b"A" * 100_000, "more_body": True}]

    async def received() -> Message:
        if not begun:
            await asyncio.Event().wait()
        return begun.pop()

    return received


async def test_slow_large_bodies_of_strangers_leave_places_to_keys_and_to_other_networks() -> None:
    """Eight addresses, of one network or of eight, filled the places for pictures until their bodies were given up."""
    search = SearchSettings(gate_wait_s=0.1, body_timeout_s=30.0)
    own, answered = gates.of(search), list[int]()

    async def application(_scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def whole() -> Message:
        return {"type": "http.request", "body": b'{"image":"' + b"A" * 100_000 + b'"}', "more_body": False}

    async def unheard(_message: Message) -> None:
        pass

    async def said(message: Message) -> None:
        if message["type"] == "http.response.start":
            answered.append(message["status"])

    made = Transfer(application, search, own)
    for addresses in ([f"192.0.2.{each}" for each in range(8)], [f"10.{each}.0.1" for each in range(8)]):
        slow = [asyncio.create_task(made(posted(each), sent_slowly(), unheard)) for each in addresses]
        await asyncio.sleep(0.5)
        is_one_network = addresses[0].startswith("192")
        assert own.large_bodies.held == (2 if is_one_network else 3)
        answered.clear()
        await made(posted("192.0.2.1", Principal(1, frozenset(("search",)))), whole, said)
        await made(posted("203.0.113.7"), whole, said)
        assert answered == [200, 200 if is_one_network else 503]
        for task in slow:
            task.cancel()
        await asyncio.gather(*slow, return_exceptions=True)
        assert own.large_bodies.held == own.bodies.held == own.large_shares.held == 0


async def coming(pieces: int, size: int, pause_s: float) -> AsyncIterator[Message]:
    for number in range(pieces):
        yield {"type": "http.request", "body": bytes(size), "more_body": number < pieces - 1}
        await asyncio.sleep(pause_s)


async def test_of_a_refused_body_what_comes_quickly_is_thrown_away_and_the_rest_is_not_waited_for() -> None:
    search = SearchSettings(refused_pause_s=5.0, refused_timeout_s=10.0, refused_bytes_max=1_000_000)
    for pieces, has_ended in ((10, True), (1000, False)):
        quick = Incoming(coming(pieces, 65_536, 0.0).__anext__)
        await quick.drop(search)
        assert quick.has_ended is has_ended
    dripping, began = Incoming(coming(100_000, 1, 0.02).__anext__), time.monotonic()
    await dripping.drop(dataclasses.replace(search, refused_pause_s=0.1, refused_timeout_s=60.0))
    assert not dripping.has_ended
    assert time.monotonic() - began < 30
    silent = Incoming(asyncio.Event().wait)  # type: ignore[arg-type]  nothing ever comes
    await silent.drop(dataclasses.replace(search, refused_pause_s=0.1))
    assert not silent.has_ended


def sent_whole(own: OwnDoor, path: str, headers: Mapping[str, str]) -> tuple[int, str, str]:
    """The answer to 8 MB that are sent at full speed before anything is read; its status, its code, and when to come again."""
    connection = http.client.HTTPConnection("127.0.0.1", own.port, timeout=60)
    try:
        connection.request("POST", path, bytes(8_000_000), {"Content-Type": "application/json", **headers})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())["code"], answer.getheader("retry-after", "")
    finally:
        connection.close()


def test_who_sends_at_full_speed_sees_why_they_are_refused(settings: Settings, tmp_path: Path) -> None:
    """The door ends a refused request: where the body was still coming, every other sender had a broken pipe instead."""
    patient = {"refused_pause_s": 10.0, "refused_timeout_s": 30.0}
    tight = with_search(settings, address_burst=1, address_rate_per_s=0.001, **patient)
    with database.connect(settings.postgres.url, autocommit=True) as connection:
        good = bearer(keys.create(connection, "a sender", ["search"])[1])
    (tmp_path / "door").mkdir()
    with listening(tight) as url, door(tmp_path / "door") as own:
        own.start()
        service.feed(own.settings, [Backend("a", urlsplit(url).netloc)])
        until(lambda: own.get()[0] == 429, 20, "the address has asked for what it may")
        for path, headers, refusal in (
            ("/v1/search", bearer("pixr_wrong"), (401, "key-invalid")),
            ("/v1/events", good, (413, "too-large")),
            ("/v1/search", {}, (429, "too-many-requests")),
        ):
            found = [sent_whole(own, path, headers) for _ in range(10)]
            assert {each[:2] for each in found} == {refusal}
            assert refusal[0] != 429 or all(int(each[2]) >= 1 for each in found)


@pytest.mark.parametrize("body", [b"[" * 11_000_000, b'{"text":"' + b"a" * 11_000_000 + b'"}'])
async def test_what_is_large_and_not_a_picture_is_refused_unparsed(settings: Settings, body: bytes) -> None:
    async with opened(settings) as doors:
        headers = {"Content-Type": "application/json"}
        assert (await doors.http.post("/v1/search", content=body, headers=headers)).status_code == 413
        small = await doors.http.post("/v1/search", content=body[:60_000], headers=headers)
        assert small.status_code in (400, 422)
        event = await doors.http.post("/v1/events", content=body, headers=headers)
        assert event.status_code == 413
        assert doors.services.gates.bodies.held == doors.services.gates.large_bodies.held == 0


def test_large_bodies_at_once_do_not_keep_others_waiting(settings: Settings) -> None:
    picture = base64.b64encode(bytes(7_900_000)).decode()
    body = b'{"image":"' + picture.encode() + b'"}'

    async def flood(url: str) -> tuple[list[int], list[float]]:
        async with httpx.AsyncClient(base_url=url, timeout=60) as http:
            headers = {"Content-Type": "application/json"}
            posts = asyncio.gather(*(http.post("/v1/search", content=body, headers=headers) for _ in range(12)))
            waits_s = []
            while not posts.done():
                began = time.monotonic()
                assert (await http.get("/healthz")).status_code == 200
                waits_s.append(time.monotonic() - began)
                await asyncio.sleep(0.01)
            return [each.status_code for each in await posts], waits_s

    with listening(settings) as url:
        statuses, waits_s = asyncio.run(flood(url))
    assert set(statuses) <= {422, 503}
    assert statistics.quantiles([*waits_s, *waits_s], n=20)[-1] < 1.5  # client and server share this process's lock
