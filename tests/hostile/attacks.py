"""What strangers do to a door, one function for each kind. Bounded in time, and drawn from one random generator.

Each takes a `Stranger`: where to go, which address to come from, how long to hold what it holds. It returns when it has
done its worst, or raises what the network raised; both are counted by who started it.
"""

from __future__ import annotations

import asyncio
import base64
import functools
import json
import random
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from struct import pack
from urllib.parse import quote, urlsplit

from tests.hostile.wire import Answer, Door, Wire, connected, request

BODY_BYTES = 11_900_000  # a little under what the door lets through
PIXELS = (8000, 5000)  # 40 million: refused by its head, before it is decoded
SEEN_PIXELS = (3990, 3000)  # a little under what is decoded, in so few bytes that it is no large body
WAITS, WAITS_S = 16, 0.5  # of those who hang up, one in so many waits so long for what is said to such
REDIRECTS_MAX = 3
TAKEN_BYTES = 4096  # by a client that reads no further
WORDS = ("leopard", "night", "a goat", "red apple", "film", "music", "zzz", "the", "🐆", "-night", "policeman at sea")
PATHS = (
    "/v1/search",
    "/v1/videos/7",
    "/v1/keys",
    "/v1/jobs",
    "/readyz",
    "/metrics",
    "/openapi.json",
    "/media/x",
    "/../",
)


@dataclass
class Stranger:
    """One hostile client: everything it draws comes from `rng`."""

    door: Door
    source: str
    rng: random.Random
    hold_s: float
    keys: tuple[str, ...] = ()  # good ones
    links: tuple[str, ...] = ()  # of videos
    statuses: Counter[str] = field(default_factory=Counter)
    connections: int = 0  # that were made

    @asynccontextmanager
    async def connected(self, *, receive_bytes: int = 0, door: Door | None = None) -> AsyncIterator[Wire]:
        async with connected(door or self.door, self.source, receive_bytes=receive_bytes) as wire:
            self.connections += 1
            yield wire

    def search(self, path: str = "/v1/search") -> str:
        return f"{path}?limit=100&q={quote(self.rng.choice(WORDS))}+{self.rng.getrandbits(40):x}"

    def wrong_key(self) -> dict[str, str]:
        token = base64.urlsafe_b64encode(self.rng.randbytes(32)).decode().rstrip("=")
        return {"Authorization": f"Bearer {self.rng.choice(('pixr_', ''))}{token}"}

    def key(self) -> dict[str, str]:
        """A good key, a wrong one or none."""
        good = [{"Authorization": f"Bearer {key}"} for key in self.keys]
        return self.rng.choice([*good, self.wrong_key(), {}])

    async def asks(self, raw: bytes, *, body: bool = True) -> Answer:
        """Send one request and take its answer."""
        async with self.connected() as wire:
            await wire.send(raw)
            return self.saw(await wire.read(body=body))

    def saw(self, answer: Answer) -> Answer:
        """Count an answer; a refusal by its code, where it was read."""
        kind = answer.headers.get("content-type", "-").split(";")[0]
        if answer.is_problem and answer.body:
            kind = json.loads(answer.body).get("code", kind)
        self.statuses[f"{answer.status} {kind}" if answer.status >= 400 else str(answer.status)] += 1
        return answer


async def says_nothing(stranger: Stranger) -> None:
    async with stranger.connected() as wire:
        await _closed(wire, stranger.hold_s)


async def half_a_line(stranger: Stranger) -> None:
    async with stranger.connected() as wire:
        await wire.send(b"GET /v1/sea")
        await _closed(wire, stranger.hold_s)


async def slow_headers(stranger: Stranger) -> None:
    async with stranger.connected() as wire:
        await wire.send(f"GET {stranger.search()} HTTP/1.1\r\nHost: pixr.test\r\n".encode())
        await _dripped(wire, stranger, b"X-Slow: 1\r\n")


async def slow_body(stranger: Stranger) -> None:
    async with stranger.connected() as wire:
        await wire.send(request("POST", "/v1/search", {"Content-Length": "1000", "Content-Type": "application/json"}))
        await _dripped(wire, stranger, b" ")


async def longer_than_announced(stranger: Stranger) -> None:
    body = json.dumps({"text": stranger.rng.choice(WORDS)}).encode()
    raw = request("POST", "/v1/search", {"Content-Length": str(len(body) - 3)}, body * 20, keep=True)
    async with stranger.connected() as wire:
        await wire.send(raw)
        await _answers(wire, stranger, 2)


async def shorter_than_announced(stranger: Stranger) -> None:
    async with stranger.connected() as wire:
        await wire.send(request("POST", "/v1/search", {"Content-Length": "400"}, b'{"text":"goat"}'))
        wire.writer.write_eof()
        await _answers(wire, stranger, 1)


async def reads_an_answer_slowly(stranger: Stranger) -> None:
    """Ask for many searches on one connection and take a few bytes a second of what comes."""
    async with stranger.connected(receive_bytes=TAKEN_BYTES) as wire:
        await wire.send(b"".join(request("GET", stranger.search(), keep=True) for _ in range(30)))
        await _sipped(wire, stranger.hold_s)


async def paused_player(stranger: Stranger) -> None:
    """Follow a video's link to where the bytes are, take the first of them, and pause."""
    door, path = stranger.door, stranger.rng.choice(stranger.links)
    for _ in range(REDIRECTS_MAX + 1):
        async with stranger.connected(receive_bytes=TAKEN_BYTES, door=door) as wire:
            host = {"Host": f"{door.host}:{door.port}"}  # a presigned link is signed with it
            await wire.send(request("GET", path, host, keep=True))
            answer = stranger.saw(await wire.read(body=False))
            if answer.status not in (301, 302, 303, 307, 308):
                await wire.reader.read(TAKEN_BYTES)
                await asyncio.sleep(stranger.hold_s)
                return
        to = urlsplit(answer.headers["location"])
        door = Door(to.hostname, to.port or 80) if to.hostname else door
        path = to.path + (f"?{to.query}" if to.query else "")


async def hangs_up(stranger: Stranger) -> None:
    async with stranger.connected() as wire:
        await wire.send(request("GET", stranger.search(), stranger.key()))
        await asyncio.sleep(stranger.rng.uniform(0, 0.4))


async def resets(stranger: Stranger) -> None:
    path = stranger.rng.choice((stranger.search(), "/v1/videos/7", "/v1/segments/1/similar"))
    async with stranger.connected() as wire:
        await wire.send(request("GET", path, stranger.wrong_key()))
        await asyncio.sleep(stranger.rng.uniform(0, 0.4))
        wire.reset()


async def asks_and_resets(stranger: Stranger) -> None:
    waits = stranger.rng.randrange(WAITS) == 0
    async with stranger.connected() as wire:
        await wire.send(request("GET", stranger.search()))
        if waits:
            with suppress(TimeoutError):
                async with asyncio.timeout(WAITS_S):
                    stranger.saw(await wire.read())
        await asyncio.sleep(stranger.rng.uniform(0, 0.02))
        wire.reset()


async def floods(stranger: Stranger) -> None:
    headers = stranger.key()
    async with stranger.connected() as wire:
        for _ in range(30):
            await wire.send(request("GET", stranger.search(), headers, keep=True))
            if stranger.saw(await wire.read()).headers.get("connection") == "close":
                return


async def wrong_keys(stranger: Stranger) -> None:
    async with stranger.connected() as wire:
        for _ in range(25):
            path = stranger.rng.choice((stranger.search(), "/v1/videos/7", "/v1/keys"))
            await wire.send(request("GET", path, stranger.wrong_key(), keep=True))
            if stranger.saw(await wire.read()).headers.get("connection") == "close":
                return


async def pipelined(stranger: Stranger) -> None:
    async with stranger.connected() as wire:
        await wire.send(b"".join(request("GET", stranger.search(), keep=True) for _ in range(20)))
        await _answers(wire, stranger, stranger.rng.randrange(21))


async def malformed(stranger: Stranger) -> None:
    many = "".join(f"X-Header-{number}: 1\r\n" for number in range(101))
    raw = stranger.rng.choice(
        (
            f"GET {stranger.search()} HTTP/1.0\r\n\r\n",
            f"GET {stranger.search()} HTTP/1.1\nHost: a\n\n",
            f"GET {stranger.search()} HTTP/1.1\r\n\r\n",
            f"GET {stranger.search()} HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
            f"GET {stranger.search()} HTTP/9.9\r\nHost: a\r\n\r\n",
            f"GET /v1/search?q={'a' * 20_000} HTTP/1.1\r\nHost: a\r\n\r\n",
            f"GET {stranger.search()} HTTP/1.1\r\nHost: a\r\n{many}\r\n",
            f"GET {stranger.search()} HTTP/1.1\r\nHost: a\r\nX-Long: {'a' * 17_000}\r\n\r\n",
            "POST /v1/search HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET",
            "POST /v1/search HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nffffffff\r\nabc",
            "POST /v1/search HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
            "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + "\x00" * 200,
            "G\x00T / HTTP/1.1\r\n\r\n",
        )
    ).encode("latin-1", "replace")
    async with stranger.connected() as wire:
        await wire.send(raw)
        await _answers(wire, stranger, 1)


async def idle_stream(stranger: Stranger) -> None:
    """Open a stream of events, take its head and leave it there."""
    async with stranger.connected(receive_bytes=TAKEN_BYTES) as wire:
        await wire.send(request("GET", stranger.search("/v1/search/stream"), keep=True))
        stranger.saw(await wire.read(body=False))
        await asyncio.sleep(stranger.hold_s)


async def big_body(stranger: Stranger) -> None:
    body = stranger.rng.choice((_nested, _long_text, _many_numbers, _many_names))()
    path = stranger.rng.choice(("/v1/search", "/v1/search", "/v1/keys", "/v1/events"))
    await stranger.asks(request("POST", path, stranger.key(), body))


async def big_picture(stranger: Stranger) -> None:
    await _asks_with(stranger, picture(stranger.rng, PIXELS))


async def seen_picture(stranger: Stranger) -> None:
    await _asks_with(stranger, picture(stranger.rng, SEEN_PIXELS))


async def _asks_with(stranger: Stranger, image: bytes) -> None:
    body = json.dumps({"image": base64.b64encode(image).decode()}).encode()
    await stranger.asks(request("POST", "/v1/search", {}, body))


async def odd_methods(stranger: Stranger) -> None:
    method = stranger.rng.choice(("HEAD", "OPTIONS", "PUT", "DELETE", "PATCH", "TRACE", "CONNECT", "BREW"))
    path = stranger.rng.choice(
        (*PATHS, f"/{stranger.rng.getrandbits(64):x}", f"/v1/videos/{stranger.rng.getrandbits(80)}")
    )
    await stranger.asks(request(method, path, stranger.key()), body=method != "HEAD")


async def fresh_cookies(stranger: Stranger) -> None:
    cookie = (await stranger.asks(request("GET", "/"))).headers.get("set-cookie", "").split(";")[0]
    await stranger.asks(request("GET", stranger.search(), {"Cookie": cookie or "pixr=forged"}))


Behaviour = Callable[[Stranger], Awaitable[None]]
BEHAVIOURS: dict[str, Behaviour] = {
    each.__name__: each
    for each in (
        says_nothing, half_a_line, slow_headers, slow_body, longer_than_announced, shorter_than_announced,
        reads_an_answer_slowly, paused_player, hangs_up, resets, asks_and_resets, floods, wrong_keys, pipelined, malformed,
        idle_stream, big_body, big_picture, seen_picture, odd_methods, fresh_cookies,
    )
}  # fmt: skip


async def _closed(wire: Wire, hold_s: float) -> None:
    """Wait until the server closes the connection, or for as long as it is to be held."""
    try:
        async with asyncio.timeout(hold_s):
            await wire.reader.read()
    except TimeoutError:
        pass


async def _dripped(wire: Wire, stranger: Stranger, drop: bytes) -> None:
    """A drop now and then, until the server answers or closes."""
    loop = asyncio.get_running_loop()
    end_s = loop.time() + stranger.hold_s
    while loop.time() < end_s and not wire.reader.at_eof():
        try:
            async with asyncio.timeout(stranger.rng.uniform(0.2, 1.0)):
                stranger.saw(await wire.read())
                return
        except TimeoutError:
            await wire.send(drop)


async def _sipped(wire: Wire, hold_s: float) -> None:
    loop = asyncio.get_running_loop()
    end_s = loop.time() + hold_s
    while loop.time() < end_s:
        if not await wire.reader.read(16):
            return
        await asyncio.sleep(0.5)


async def _answers(wire: Wire, stranger: Stranger, count: int) -> None:
    """Up to so many answers; fewer where the server closes or says nothing."""
    try:
        async with asyncio.timeout(stranger.hold_s):
            for _ in range(count):
                stranger.saw(await wire.read())
    except TimeoutError:
        pass


@functools.cache
def _nested() -> bytes:
    return b'{"text":' + b"[" * BODY_BYTES


@functools.cache
def _long_text() -> bytes:
    return b'{"text":"' + b"a" * BODY_BYTES + b'"}'


@functools.cache
def _many_numbers() -> bytes:
    return b'{"text":"a","filters":{"video_id":[' + b"1," * (BODY_BYTES // 2) + b"1]}}"


@functools.cache
def _many_names() -> bytes:
    """As many fields that nobody knows as a body may have values."""
    return b'{"text":"a",' + b",".join(b'"creator%d":0' % number for number in range(1990)) + b"}"


@functools.cache
def _picture(width: int, height: int) -> tuple[bytes, bytes]:
    """A PNG of one colour, millions of pixels in few kB: what stands before its end, and its end."""
    packer, line = zlib.compressobj(9), b"\x00" + bytes((200, 30, 0)) * width
    rows = b"".join(packer.compress(line) for _ in range(height)) + packer.flush()
    head = pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + _chunk(b"IDAT", rows), _chunk(b"IEND", b"")


def picture(rng: random.Random, size: tuple[int, int]) -> bytes:
    """Such a picture that nobody has sent before: a comment makes it another one."""
    rows, end = _picture(*size)
    return rows + _chunk(b"tEXt", b"Comment\x00" + rng.randbytes(12).hex().encode()) + end


def _chunk(name: bytes, data: bytes) -> bytes:
    return pack(">I", len(data)) + name + data + pack(">I", zlib.crc32(name + data))
