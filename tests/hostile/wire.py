"""HTTP/1.1 by hand over plain sockets, so that a client can do to a server whatever a stranger can.

A connection comes from a source address that the caller chooses; it can be told to take little (a small receive
buffer), or to end with a reset. `read` takes one answer off it. Knows nothing of what is asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

CONNECT_TIMEOUT_S = 10.0
HEAD_BYTES_MAX = 64 * 1024
IP_BIND_ADDRESS_NO_PORT = 24  # the port is chosen on connect, so that it is unique for each destination only


@dataclass(frozen=True)
class Door:
    """Where a server listens."""

    host: str
    port: int

    @classmethod
    def of(cls, url: str) -> Door:
        parts = urlsplit(url)
        return cls(parts.hostname or "127.0.0.1", parts.port or 80)


@dataclass(frozen=True)
class Answer:
    """One answer; names of headers in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def is_problem(self) -> bool:
        return self.headers.get("content-type", "").startswith("application/problem+json")


@dataclass
class Wire:
    """One connection."""

    sock: socket.socket
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    seen: list[int] = field(default_factory=list)  # the statuses that were read

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def read(self, *, body: bool = True) -> Answer:
        """The next answer.

        Raises:
            ConnectionError: the server closed the connection first.
            ValueError: what came is not HTTP.
        """
        try:
            answer = await _answer(self.reader, body=body)
        except asyncio.IncompleteReadError as error:
            raise ConnectionResetError("closed in the middle of an answer") from error
        self.seen.append(answer.status)
        return answer

    def reset(self) -> None:
        """End with a reset instead of a goodbye."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


@asynccontextmanager
async def connected(door: Door, source: str, *, receive_bytes: int = 0) -> AsyncIterator[Wire]:
    """A connection from an address of this machine; `receive_bytes` bounds what it takes without being read."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
        if receive_bytes:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        sock.bind((source, 0))
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            await asyncio.get_running_loop().sock_connect(sock, (door.host, door.port))
        reader, writer = await asyncio.open_connection(sock=sock, limit=receive_bytes or HEAD_BYTES_MAX)
    except BaseException:
        sock.close()
        raise
    try:
        yield Wire(sock, reader, writer)
    finally:
        writer.transport.abort()
        with contextlib.suppress(OSError):  # how it ended is known already
            await writer.wait_closed()


def request(
    method: str, path: str, headers: Mapping[str, str] | None = None, body: bytes = b"", *, keep: bool = False
) -> bytes:
    """The bytes of a request; the connection ends with it unless it is kept."""
    named = {"Host": "pixr.test", "Connection": "keep-alive" if keep else "close"} | dict(headers or {})
    if body:
        named.setdefault("Content-Type", "application/json")
        named.setdefault("Content-Length", str(len(body)))
    head = "".join(f"{name}: {value}\r\n" for name, value in named.items())
    return f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode("latin-1") + body


async def _answer(reader: asyncio.StreamReader, *, body: bool) -> Answer:
    line = await reader.readuntil(b"\r\n")
    words = line.decode("latin-1").split(" ", 2)
    if len(words) < 2 or not words[0].startswith("HTTP/1.") or not words[1].strip().isdigit():
        raise ValueError(f"not HTTP: {line[:80]!r}")
    status, headers = int(words[1]), {}
    while (line := await reader.readuntil(b"\r\n")) != b"\r\n":
        name, _, value = line.decode("latin-1").partition(":")
        headers[name.strip().lower()] = value.strip()
    if not body or status in (204, 304) or 100 <= status < 200:
        return Answer(status, headers, b"")
    return Answer(status, headers, await _body(reader, headers))


async def _body(reader: asyncio.StreamReader, headers: Mapping[str, str]) -> bytes:
    if headers.get("transfer-encoding", "").lower() == "chunked":
        pieces = []
        while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
            pieces.append((await reader.readexactly(size + 2))[:-2])
        await reader.readuntil(b"\r\n")
        return b"".join(pieces)
    if "content-length" in headers:
        return await reader.readexactly(int(headers["content-length"]))
    return await reader.read()
