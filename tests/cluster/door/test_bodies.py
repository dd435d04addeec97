"""Bodies that drip through the real HAProxy: they take a part of their own room, never that of callers with a key."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.door import backends, service
from cluster.door.backends import Backend
from tests.cluster.doors import FIRST, OwnDoor, Server, door, parsed, received
from tests.conftest import until

KEY = b"Authorization: Bearer pixr_a\r\n"
NO_KEYS = (  # a replica finds none in these
    b"",
    b"Authorization: Basic eA==\r\n",
    b"Authorization: Bearer  \r\n",
    b"Authorization: Bearer \xa0\r\n",
    b"Authorization: Basic eA==\r\nAuthorization: Bearer pixr_a\r\n",
    b"Authorization: \r\nX-API-Key: \r\n",
    b"X-API-Key: \r\nX-API-Key: pixr_a\r\n",
    b"Authorization: Basic Bearer pixr_a\r\n",
)
BODY = b"x" * 20_000
NEAR = [f"127.0.0.{number}" for number in range(2, 10)]  # eight addresses of one network
FAR = [f"127.0.{number}.1" for number in range(1, 9)]  # of eight networks


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server("a").start()
    yield made
    made.stop()


def head(extra: bytes = b"", length: int = len(BODY)) -> bytes:
    return b"POST /v1/search HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n%s\r\n" % (length, extra)


def dripping(own: OwnDoor, stack: contextlib.ExitStack, source: str, extra: bytes = b"") -> socket.socket:
    """A body of which one byte comes."""
    connection = stack.enter_context(own.connect(source))
    connection.sendall(head(extra) + b"x")
    return connection


def under_way(own: OwnDoor, room: str = "bodies") -> int:
    """Requests of a room, with replicas or waiting for one."""
    text = backends.ask(service.admin_socket(own.settings), "show stat")
    names, *rows = [line.split(",") for line in text.splitlines() if line]
    return sum(int(row[names.index("scur")]) for row in rows if row[0] == room and row[1] == "BACKEND")


def test_slow_bodies_of_one_address_leave_room_for_those_of_another(tmp_path: Path, server: Server) -> None:
    with door(tmp_path, bodies_per_replica_max=6, bodies_per_address_max=4) as own, contextlib.ExitStack() as stack:
        own.start()
        own.feed(server)
        for _ in range(4):
            dripping(own, stack, FIRST)
        until(lambda: under_way(own) == 4, 10, "they are on their way in")
        refused, headers, text = own.raw(head() + b"x")
        assert (refused, json.loads(text)["code"]) == (429, "too-many-bodies")
        assert int(headers["retry-after"]) >= 1
        assert own.raw(head() + BODY, source="127.0.0.9")[0] == 200


def test_one_network_has_a_part_of_the_room_however_many_addresses_it_has(tmp_path: Path, server: Server) -> None:
    with door(tmp_path, bodies_per_replica_max=8, bodies_per_network_max=4) as own, contextlib.ExitStack() as stack:
        own.start()
        own.feed(server)
        for source in NEAR:
            dripping(own, stack, source)
        until(lambda: under_way(own) == 4, 10, "four are on their way in")
        assert own.raw(head() + BODY, source="127.0.0.200")[0] == 429
        assert own.raw(head() + BODY, source=FAR[0])[0] == 200


def test_slow_bodies_of_strangers_never_take_the_room_of_callers_with_a_key(tmp_path: Path, server: Server) -> None:
    said: dict[str, Any] = {"bodies_per_replica_max": 8, "bodies_per_address_max": 1, "queue_timeout_s": 0.3}
    with door(tmp_path, **said) as own, contextlib.ExitStack() as stack:
        own.start()
        own.feed(server)
        for source, extra in zip(FAR, NO_KEYS, strict=True):
            dripping(own, stack, source, extra)
        until(lambda: under_way(own) == 8, 10, "the room is full")
        status, headers, text = own.raw(head() + BODY, source="127.0.99.1")
        document = json.loads(text)
        assert (status, document["code"]) == (503, "bodies-full")
        assert "no replica" not in document["detail"]
        assert int(headers["retry-after"]) >= 1
        assert own.raw(head(KEY) + BODY, source=FAR[0])[0] == 200
        assert own.raw(head(b"X-API-Key: pixr_a\r\n") + BODY, source=FAR[0])[0] == 200
        assert own.raw(head(b"authorization: bEARER   pixr_a\r\n") + BODY, source=FAR[0])[0] == 200
        assert under_way(own, "bodies_with_key") == 0


def test_what_a_browser_asks_before_it_asks_has_no_key(tmp_path: Path, server: Server) -> None:
    """It is answered before a key is judged: with any, its body would drip in the room of callers with one."""
    with door(tmp_path) as own, contextlib.ExitStack() as stack:
        own.start()
        own.feed(server)
        connection = stack.enter_context(own.connect())
        connection.sendall(head(KEY).replace(b"POST", b"OPTIONS", 1) + b"x")
        until(lambda: under_way(own) + under_way(own, "bodies_with_key") == 1, 10, "it is on its way in")
        assert under_way(own) == 1


def test_who_is_refused_holds_no_place_though_they_go_on_to_send(tmp_path: Path) -> None:
    """A replica answers a wrong key before the body is there; HAProxy would keep the place until the body ends."""
    listener = socket.create_server((FIRST, 0))
    threading.Thread(target=_refuse_all, args=(listener,), daemon=True).start()
    said: dict[str, Any] = {"bodies_per_replica_max": 2, "bodies_per_address_max": 20, "queue_timeout_s": 0.5}
    with door(tmp_path, **said) as own, contextlib.ExitStack() as stack:
        own.start()
        service.feed(own.settings, [Backend("x", f"{FIRST}:{listener.getsockname()[1]}")])
        for extra in (KEY, b""):
            for _ in range(6):
                status, headers, text = parsed(received(dripping(own, stack, FIRST, extra)))
                assert (status, json.loads(text)) == (401, DOCUMENT)
                assert headers["www-authenticate"] == "Bearer"
                assert headers["content-type"] == "application/problem+json"
                assert headers["retry-after"] == "7"
                assert "x-odd" not in headers
        until(lambda: under_way(own, "bodies_with_key") + under_way(own) == 0, 10, "they hold nothing")
    listener.close()


DOCUMENT = {"code": "key-invalid", "detail": "50 % of \u00fc"}


def _refuse_all(listener: socket.socket) -> None:
    """A replica that judges a key by the headers alone, and is well."""
    with contextlib.suppress(OSError):
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=_refuse, args=(connection,), daemon=True).start()


def _refuse(connection: socket.socket) -> None:
    said = json.dumps(DOCUMENT, ensure_ascii=False).encode()
    with connection, contextlib.suppress(OSError):
        is_well = b"/-/healthz" in connection.recv(65_536)
        status = b"200 OK" if is_well else b"401 Unauthorized\r\nWWW-Authenticate: Bearer\r\nRetry-After: 7\r\nX-Odd: 1"
        kind = b"Content-Type: application/problem+json\r\nContent-Length: %d\r\n\r\n%s" % (len(said), said)
        connection.sendall(b"HTTP/1.1 %s\r\n%s" % (status, kind))
        while connection.recv(65_536):
            pass


def test_without_a_replica_every_room_says_so(tmp_path: Path) -> None:
    with door(tmp_path) as own:
        own.start()
        for path in ("/v1/search", "/v1/search/stream"):
            assert json.loads(own.get(path)[2])["code"] == "unavailable"
        for extra in (b"", KEY):
            status, _, text = own.raw(head(extra) + BODY)
            assert (status, json.loads(text)["code"]) == (503, "unavailable")


def test_what_is_full_says_what_is_full(tmp_path: Path, server: Server) -> None:
    """Streams and the object store have rooms of their own: no replica is away when they are full."""
    server.delay_s = 3.0
    with door(tmp_path, streams_per_replica_max=1, queue_timeout_s=0.3) as own, contextlib.ExitStack() as stack:
        own.start()
        own.feed(server)
        stream = b"GET /v1/search/stream?q=a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        held = stack.enter_context(own.connect())
        held.sendall(stream)
        until(lambda: server.seen, 10, "a stream is there")
        status, _, text = own.raw(stream)
        assert (status, json.loads(text)["code"]) == (503, "streams-full")
        assert parsed(received(held))[0] == 200
