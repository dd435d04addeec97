"""Whatever is sent to the door, it answers with a problem document, or not at all: never HTML, plain text or a 500."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from cluster.door import answers, service
from cluster.door.backends import Backend
from tests.cluster.doors import FIRST, OwnDoor, door, parsed
from tests.conftest import free_port, until

END = "Host: a\r\nConnection: close\r\n"
GET, POST = f"GET /v1/x HTTP/1.1\r\n{END}", f"POST /v1/search HTTP/1.1\r\n{END}"
CHUNKS = "\r\n0\r\n\r\n"
UPGRADE = "GET /v1/search HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade:"
SOCKET = "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"

# What is refused by a rule, with the status.
REFUSED = {
    f"{GET}X-A: a\x00b\r\n\r\n": 400,
    f"{GET}X-A: a\x01b\r\n\r\n": 400,
    f"{GET}X-A: a\x7fb\r\n\r\n": 400,
    f"{GET}Cookie: \x00\r\n\r\n": 400,
    "GET / HTTP/1.1\r\nConnection: close\r\n\r\n": 400,
    "GET / HTTP/1.1\r\nHost: a:b\r\nConnection: close\r\n\r\n": 400,
    f"GET http://a:b@c:99999/v1/x HTTP/1.1\r\n{END}\r\n": 400,
    f"GET / HTTP/9.9\r\n{END}\r\n": 400,
    f"GET / HTTP/2.0\r\n{END}\r\n": 400,
    f"GET /#a HTTP/1.1\r\n{END}\r\n": 400,
    f"GET /caf\xe9 HTTP/1.1\r\n{END}\r\n": 400,
    f"{UPGRADE} websocket\r\n{SOCKET}\r\n": 400,
    f"{UPGRADE} WebSocket\r\n{SOCKET}Connection: close\r\n\r\n": 400,
    f"{UPGRADE} TLS/1.0\r\n\r\n": 400,
    f"{UPGRADE} h2c, websocket\r\n{SOCKET}\r\n": 400,
    "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n": 405,
    f"CONNECT b:443 HTTP/1.1\r\n{END}\r\n": 405,
    f"CONNECT /v1/x HTTP/1.1\r\n{END}\r\n": 405,
    f"TRACE / HTTP/1.1\r\n{END}\r\n": 405,
    f"BREW / HTTP/1.1\r\n{END}\r\n": 405,
    f"OPTIONS * HTTP/1.1\r\n{END}\r\n": 404,
    f"GET /-/routes HTTP/1.1\r\n{END}\r\n": 404,
    f"GET /{'a' * 9000} HTTP/1.1\r\n{END}\r\n": 414,
    f"{GET}X-Long: {'a' * 17_000}\r\n\r\n": 431,
}
# What HAProxy takes for no request of HTTP, and would answer in HTML.
CLOSED = (
    f"{POST}Transfer-Encoding: identity, chunked\r\n{CHUNKS}",
    f"{POST}Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n{CHUNKS}",
    f"{POST}Transfer-Encoding: identity\r\n\r\n",
    f"{POST}Transfer-Encoding: gzip, chunked\r\n{CHUNKS}",
    f"{POST}Transfer-Encoding: chunked, chunked\r\n{CHUNKS}",
    f"{POST}Transfer-Encoding: xchunked\r\n{CHUNKS}",
    f"{POST}Transfer-Encoding: chunked\r\n\r\nzz\r\n\r\n",
    f"{POST}Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\nabc",
    f"{POST}Content-Length: -1\r\n\r\n",
    f"{POST}Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    f"{POST}Content-Length: 99999999999999999999999\r\n\r\n",
    f"GET / HTTP/1.1\r\nHost: b\r\n{END}\r\n",
    f"GET /\x00 HTTP/1.1\r\n{END}\r\n",
    f"G\x00T / HTTP/1.1\r\n{END}\r\n",
    f"GET / HTTP/1.x\r\n{END}\r\n",
    f"GET / / HTTP/1.1\r\n{END}\r\n",
    f"{GET}X-A\r\n\r\n",
    f"{GET}X-A: a\rb\r\n\r\n",
    f"{UPGRADE} websocket\r\n\r\n",
    "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
)


async def _application(scope: Any, _receive: Any, send: Any) -> None:
    assert scope["type"] == "http", "nothing is upgraded"
    kind = [(b"content-type", b"application/json"), (b"content-length", b"2")]
    await send({"type": "http.response.start", "status": 200, "headers": kind})
    await send({"type": "http.response.body", "body": b"{}"})


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnDoor]:
    """A door before the server that replicas have."""
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(_application, host=FIRST, port=port, log_level="critical", lifespan="off"))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()), daemon=True)
    thread.start()
    with door(tmp_path_factory.mktemp("door")) as made:
        made.start()
        service.feed(made.settings, [Backend("x", f"{FIRST}:{port}")])
        until(lambda: made.get()[0] == 200, 20, "the replica answers")
        yield made
    server.should_exit = True
    thread.join(20)


def answer(own: OwnDoor, text: str) -> tuple[int, dict[str, str], bytes]:
    """The first answer, also on a connection that stays."""
    data = b""
    with own.connect(timeout_s=20.0) as connection, contextlib.suppress(ConnectionResetError, BrokenPipeError):
        connection.sendall(text.encode("latin-1"))
        while not _is_whole(data) and (piece := connection.recv(65_536)):
            data += piece
    return parsed(data)


def _is_whole(data: bytes) -> bool:
    head, gap, body = data.partition(b"\r\n\r\n")
    length = re.search(rb"\r\ncontent-length: *([0-9]+)", head, re.IGNORECASE)
    return bool(gap) and length is not None and len(body) >= int(length[1])


@pytest.mark.parametrize("text", REFUSED, ids=lambda text: repr(text[:60]))
def test_what_is_not_right_is_answered_with_a_problem(own: OwnDoor, text: str) -> None:
    status, headers, body = answer(own, text)
    assert (status, headers["content-type"]) == (REFUSED[text], "application/problem+json")
    document = json.loads(body)
    assert document["status"] == status
    assert document["request_id"] == headers["x-request-id"]


@pytest.mark.parametrize("text", CLOSED, ids=lambda text: repr(text[:60]))
def test_what_cannot_be_read_is_closed_without_a_word(own: OwnDoor, text: str) -> None:
    assert answer(own, text) == (0, {}, b"")


def test_a_client_that_could_speak_http2_is_answered_as_it_asked(own: OwnDoor) -> None:
    """curl and Java's client offer an upgrade with each request; it may be left alone (RFC 9110, 7.8)."""
    offer = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n"
    status, headers, body = answer(own, f"GET /v1/x HTTP/1.1\r\nHost: a\r\n{offer}\r\n")
    assert (status, body) == (200, b"{}")
    assert "upgrade" not in headers


@pytest.mark.parametrize("host", ["pixr.test", "pixr.test:8000", "127.0.0.1:80", "[::1]:8000", "[2001:db8::7]", "a_b"])
def test_a_host_that_is_one_is_taken(own: OwnDoor, host: str) -> None:
    assert answer(own, f"GET /v1/x HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")[0] == 200


def test_every_status_that_haproxy_has_a_text_for_is_a_problem_here(tmp_path: Path) -> None:
    """What it can say by itself (`errorfile` in its manual); a 200 is what it says of itself."""
    haproxys = {400, 401, 403, 404, 405, 407, 408, 410, 413, 421, 422, 425, 429, 500, 501, 502, 503, 504}
    assert set(answers.ALL) == haproxys
    with door(tmp_path) as made:
        made.service.prepare()
        text = (made.settings.data_dir / "run" / "door" / "haproxy.cfg").read_text()
    defaults = text.partition("\ndefaults")[2].partition("\n\n")[0]
    assert set(map(int, re.findall(r"http-error status (\d+)", defaults))) == haproxys
    for status in answers.UNREAD:  # and what it says before any rule is nothing
        assert f"errorfile {status} /dev/null" in text
