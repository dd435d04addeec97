"""Load for `benchmarks.search`: clients that are processes of their own, with plain sockets, and what they saw."""

from __future__ import annotations

import asyncio
import http.client
import multiprocessing
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from psycopg import AsyncConnection

from pipelines import index
from pipelines.index import Filters, Plan

SECONDS = 8.0
WARM_S = 3.0


@dataclass(frozen=True)
class Load:
    """What clients saw: one latency a request, in milliseconds, over `seconds`."""

    latencies_ms: Sequence[float]
    seconds: float

    @property
    def rate(self) -> float:
        return len(self.latencies_ms) / self.seconds

    def percentile(self, share: float) -> float:
        return float(np.percentile(self.latencies_ms, share))


def load(target: Callable[..., None], arguments: Sequence[tuple[Any, ...]], seconds: float = SECONDS) -> Load:
    """Clients side by side, each a process; what they saw after a warm-up."""
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


def http_client(port: int, paths: Sequence[str], until: tuple[float, float], out: Any) -> None:
    """Asks for the same paths again and again."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    latencies, number = [], 0
    while (now := time.time()) < until[1]:
        began = time.perf_counter()
        connection.request("GET", paths[number % len(paths)])
        answer = connection.getresponse()
        body = answer.read()
        assert answer.status == 200, (answer.status, body[:300])
        if now >= until[0]:
            latencies.append((time.perf_counter() - began) * 1000)
        number += 1
    out.put(latencies)


def sql_client(url: str, queries: NDArray[np.float32], plan: Plan, until: tuple[float, float], out: Any) -> None:
    """Runs the search's SQL by itself."""

    async def run() -> list[float]:
        latencies, number = [], 0
        async with await AsyncConnection.connect(url, autocommit=True) as connection:
            _, model, _ = await index.state(connection)
            assert model is not None
            while (now := time.time()) < until[1]:
                began = time.perf_counter()
                await index.nearest(connection, model, queries[number % len(queries)], 200, Filters(), plan)
                if now >= until[0]:
                    latencies.append((time.perf_counter() - began) * 1000)
                number += 1
        return latencies

    out.put(asyncio.run(run()))


def fresh_client(port: int, paths: Sequence[str], until: tuple[float, float], out: Any) -> None:
    """Asks each time for what nobody asked before: the same vector under another name."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    latencies, number = [], 0
    while (now := time.time()) < until[1]:
        began = time.perf_counter()
        connection.request("GET", f"{paths[number % len(paths)]}+{number}")
        answer = connection.getresponse()
        body = answer.read()
        assert answer.status == 200, (answer.status, body[:300])
        assert answer.headers["x-pixr-cache"] == "miss", "a kept answer"
        assert b'"degraded":[]' in body, body[-200:]
        if now >= until[0]:
            latencies.append((time.perf_counter() - began) * 1000)
        number += 1
    out.put(latencies)
