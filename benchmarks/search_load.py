"""Load for `benchmarks.search`: clients in processes of their own, with plain sockets, and the latencies that they measure."""

from __future__ import annotations

import asyncio
import multiprocessing
import re
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import psutil
from psycopg import AsyncConnection

from pipelines.index import fulltext, vectors
from pipelines.index.vectors import Filters, SearchLimits
from serve.replica.encoder import Vector
from serve.settings import SearchSettings

SECONDS = 12.0
WARM_S = 3.0
CANDIDATES = SearchSettings().candidates_max
VIDEOS, OF_ONE_VIDEO = SearchSettings().text_videos_max, SearchSettings().text_moments_max
LENGTH = re.compile(rb"content-length: (\d+)")


@dataclass(frozen=True)
class Load:
    """What clients measured: the latency of each request in milliseconds, during `seconds`."""

    latencies_ms: Sequence[float]
    seconds: float

    @property
    def rate(self) -> float:
        return len(self.latencies_ms) / self.seconds

    def __add__(self, other: Load) -> Load:
        """Join two loads, as if measured in one longer time."""
        return Load([*self.latencies_ms, *other.latencies_ms], self.seconds + other.seconds)

    def percentile(self, share: float) -> float:
        return float(np.percentile(self.latencies_ms, share))


def load(target: Callable[..., None], arguments: Sequence[tuple[Any, ...]], seconds: float = SECONDS) -> Load:
    """Run clients side by side, each in a process; return what they measured after a warm-up."""
    context = multiprocessing.get_context("spawn")
    out = context.Queue()
    start = time.time() + 4.0  # until they have been started
    until = (start + WARM_S, start + WARM_S + seconds)
    processes = [context.Process(target=target, args=(*each, until, out)) for each in arguments]
    for process in processes:
        process.start()
    latencies = [one for _ in processes for one in out.get(timeout=seconds + 90)]
    for process in processes:
        process.join()
    return Load(latencies, seconds)


def cpu_s(process: psutil.Process) -> float:
    """Return the CPU seconds that a process has used."""
    times = process.cpu_times()
    return float(times.user + times.system)


class Client:
    """A kept-alive connection on a plain socket. It is light, because clients share the machine with what they measure."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, sent: bytes) -> tuple[bytes, bytes]:
        """Send a request and return head and body of the response, whose status must be 200."""
        self._socket.sendall(sent)
        data = b""
        while (end := data.find(b"\r\n\r\n")) < 0:
            data += self._received()
        head, body = data[:end].lower(), data[end + 4 :]
        assert b" 200 " in head.split(b"\r\n", 1)[0], data[:600]
        announced = LENGTH.search(head)
        assert announced is not None, head
        while len(body) < int(announced[1]):
            body += self._received()
        return head, body

    def _received(self) -> bytes:
        data = self._socket.recv(1 << 16)
        assert data, "the server hung up"
        return data


def request(method: str, path: str, headers: Mapping[str, str], body: bytes = b"") -> bytes:
    """Return the bytes of an HTTP/1.1 request."""
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", *(f"{name}: {value}" for name, value in headers.items())]
    lines += [f"Content-Length: {len(body)}"] if body else []
    return "\r\n".join([*lines, "", ""]).encode() + body


def http_client(
    port: int, paths: Sequence[str], headers: Mapping[str, str], until: tuple[float, float], out: Any
) -> None:
    """Request the same paths again and again until `until[1]`; put the latencies since `until[0]` into `out`."""
    client, requests = Client(port), [request("GET", path, headers) for path in paths]
    latencies, number = [], 0
    while (now := time.time()) < until[1]:
        began = time.perf_counter()
        client.ask(requests[number % len(requests)])
        if now >= until[0]:
            latencies.append((time.perf_counter() - began) * 1000)
        number += 1
    out.put(latencies)


def fresh_client(port: int, bodies: Sequence[bytes], until: tuple[float, float], out: Any) -> None:
    """Request each body once, so that no answer comes from the cache; put the latencies since `until[0]` into `out`."""
    client, given = Client(port), {"Content-Type": "application/json"}
    latencies, left = [], iter([request("POST", "/v1/search", given, body) for body in bodies])
    while (now := time.time()) < until[1]:
        began = time.perf_counter()
        head, body = client.ask(next(left))
        assert b"x-pixr-cache: miss" in head, "a kept answer"
        assert b'"degraded":[]' in body, body[-200:]
        if now >= until[0]:
            latencies.append((time.perf_counter() - began) * 1000)
    out.put(latencies)


def sql_client(
    url: str, asked: Sequence[tuple[Vector, str]], plan: SearchLimits, shown: int, until: tuple[float, float], out: Any
) -> None:
    """Run only the SQL of searches, until `until[1]`; put the latencies since `until[0]` into `out`.

    Each search finds the nearest vectors and, in parallel, the matches of its words if it has any; then it reads the
    details of the moments that are shown.
    """

    async def run() -> list[float]:
        latencies, number = [], 0
        async with (
            await AsyncConnection.connect(url, autocommit=True) as one,
            await AsyncConnection.connect(url, autocommit=True) as other,
        ):
            _, model, *_ = await vectors.state(one)
            assert model is not None
            while (now := time.time()) < until[1]:
                vector, words = asked[number % len(asked)]
                began = time.perf_counter()
                looked, matching = await asyncio.gather(
                    vectors.nearest(one, model, vector, CANDIDATES, Filters(), plan), _matching(other, words, plan)
                )
                if matching:
                    await fulltext.moments(other, matching, OF_ONE_VIDEO, model, vector)
                await vectors.moment_details(one, [hit.segment_id for hit in looked.hits[:shown]])
                if now >= until[0]:
                    latencies.append((time.perf_counter() - began) * 1000)
                number += 1
        return latencies

    out.put(asyncio.run(run()))


async def _matching(connection: vectors.Connection, words: str, plan: SearchLimits) -> list[fulltext.Match]:
    return await fulltext.matching(connection, words, VIDEOS, Filters(), plan) if words else []
