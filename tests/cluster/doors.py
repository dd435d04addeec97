"""A door of a test's own: the real HAProxy as the supervisor starts it, and small HTTP servers behind it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cluster import runtime
from cluster.door import service
from cluster.door.backends import Backend
from cluster.errors import Temporary
from cluster.settings import DoorSettings, Settings
from tests.conftest import free_port, throwaway_settings, until

FIRST = "127.0.0.1"


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256
    owner: Server

    def handle_error(self, *_: Any) -> None:
        """HAProxy ends its health checks by a reset, which is no error."""


@dataclass
class Server:
    """An HTTP server behind the door; it keeps what it was asked."""

    name: str
    delay_s: float = 0.0
    healthy: bool = True
    size: int = 0  # of an answer, when not a short one
    cut: bool = False  # an answer could not be sent to its end
    documents: dict[str, Any] = field(default_factory=dict)  # by path, instead of the usual answer
    text: int = 0  # a status to answer with as Serve does, in a text
    seen: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    _http: ThreadingHTTPServer | None = None

    def start(self, port: int = 0) -> Server:
        self._http = _Http((FIRST, port), _Handler)
        self._http.owner = self
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    @property
    def port(self) -> int:
        assert self._http is not None
        return self._http.server_port

    @property
    def backend(self) -> Backend:
        return Backend(self.name, f"{FIRST}:{self.port}")

    def stop(self) -> None:
        if self._http is not None:
            self._http.shutdown()
            self._http.server_close()
            self._http = None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def _any(self) -> None:
        owner = self.owner
        if self.path == "/-/healthz":
            self._answer(200 if owner.healthy else 503, b"success")
            return
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        owner.seen.append((self.command, self.path, dict(self.headers)))
        time.sleep(owner.delay_s)
        if owner.size and self.path != "/healthz":
            self._long()
        elif owner.text:
            self._answer(owner.text, b"Request dropped due to backpressure", "text/plain")
        else:
            short = {"server": owner.name, "bytes": len(body)}
            self._answer(200, json.dumps(owner.documents.get(self.path, short)).encode())

    do_GET = do_HEAD = do_POST = do_PUT = do_OPTIONS = _any  # noqa: N815  names that the library calls

    @property
    def owner(self) -> Server:
        assert isinstance(self.server, _Http)
        return self.server.owner

    def _long(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(self.owner.size))
        self.end_headers()
        try:
            self.wfile.write(b"x" * self.owner.size)
        except OSError:
            self.owner.cut = True

    def _answer(self, status: int, body: bytes, kind: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Nobody reads it."""


class OwnDoor:
    """HAProxy over a data folder, started and ended like a service."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.service = service.DoorService(settings)
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def port(self) -> int:
        return runtime.known_port(self.settings, "serve")

    @property
    def url(self) -> str:
        return runtime.serve_url(self.settings)

    def start(self) -> None:
        self.service.prepare()
        self.process = subprocess.Popen(self.service.command().argv)
        until(self.answers, 10, "the door answers")

    def answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, "HAProxy ended"
        with contextlib.suppress(Temporary):
            self.service.check()
            return True
        return False

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(10)

    def feed(self, *servers: Server) -> None:
        service.feed(self.settings, [each.backend for each in servers])

    def raw(self, data: bytes, source: str = FIRST, timeout_s: float = 5.0) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of the answer to bytes on a connection of their own; 0 where it is thrown away."""
        with contextlib.suppress(ConnectionResetError, BrokenPipeError), self.connect(source, timeout_s) as connection:
            connection.sendall(data)
            return parsed(received(connection))
        return parsed(b"")

    def connect(self, source: str = FIRST, timeout_s: float = 5.0) -> socket.socket:
        return socket.create_connection((FIRST, self.port), timeout=timeout_s, source_address=(source, 0))

    def get(
        self, path: str = "/v1/x", source: str = FIRST, headers: str = "", method: str = "GET"
    ) -> tuple[int, dict[str, str], bytes]:
        head = f"{method} {path} HTTP/1.1\r\nHost: pixr.test:8000\r\nConnection: close\r\n{headers}\r\n"
        return self.raw(head.encode(), source)

    def post(self, path: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
        return self.raw(head.encode() + body)


def received(connection: socket.socket) -> bytes:
    """Everything until the other end closes."""
    data = bytearray()
    with contextlib.suppress(ConnectionResetError):
        while piece := connection.recv(65_536):
            data += piece
    return bytes(data)


def parsed(answer: bytes) -> tuple[int, dict[str, str], bytes]:
    """Status (0: no answer), headers in small letters, body."""
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *rest = head.decode("latin-1").split("\r\n")
    fields = (line.partition(":") for line in rest)
    return int(first.split()[1]) if first else 0, {name.lower(): value.strip() for name, _, value in fields}, body


@contextmanager
def door(folder: Path, host: str = FIRST, s3: str = "", certificate: str = "", **said: Any) -> Iterator[OwnDoor]:
    """A running door with what the settings are said to be; `s3` is the port of an object store."""
    settings = throwaway_settings(folder)
    settings = settings.with_section(replace(settings.serve, host=host, port=free_port(), certificate=certificate))
    wanted: dict[str, Any] = {"check_interval_s": 0.2, "replicas_max": 4, "threads": 1, **said}
    settings = settings.with_section(DoorSettings(**wanted))
    runtime.port(settings, "serve", settings.serve.port)
    made = OwnDoor(settings)
    try:
        yield made
    finally:
        made.stop()


def ask_all(door: OwnDoor, ended: threading.Event, statuses: list[int]) -> threading.Thread:
    """A client that asks one request after another until told to end."""

    def run() -> None:
        while not ended.is_set():
            try:
                statuses.append(door.get()[0])
            except OSError:
                statuses.append(-1)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


async def half_open(port: int, number: int, source: str, data: bytes) -> list[tuple[asyncio.StreamReader, Any]]:
    """Connections from an address that send a part of a request and wait."""
    made = []
    for _ in range(number):
        with contextlib.suppress(OSError):
            reader, writer = await asyncio.open_connection(FIRST, port, local_addr=(source, 0))
            writer.write(data)
            made.append((reader, writer))
    return made
