"""Load for `benchmarks.search`: clients that are processes of their own, with plain sockets, and what they saw."""

from __future__ import annotations

import asyncio
import http.client
import multiprocessing
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import psutil
from psycopg import AsyncConnection

from pipelines import fulltext, index
from pipelines.index import Filters, Plan
from serve.services import Vector
from serve.settings import SearchSettings

SECONDS = 12.0
WARM_S = 3.0
CANDIDATES = SearchSettings().candidates_max


@dataclass(frozen=True)
class Load:
    """What clients saw: one latency a request, in milliseconds, over `seconds`."""

    latencies_ms: Sequence[float]
    seconds: float

    @property
    def rate(self) -> float:
        return len(self.latencies_ms) / self.seconds

    def __add__(self, other: Load) -> Load:
        """Both together, as of one longer time."""
        return Load([*self.latencies_ms, *other.latencies_ms], self.seconds + other.seconds)

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


def cpu_s(process: psutil.Process) -> float:
    """Seconds of CPU that a process has used."""
    times = process.cpu_times()
    return float(times.user + times.system)


def http_client(
    port: int, paths: Sequence[str], headers: Mapping[str, str], until: tuple[float, float], out: Any
) -> None:
    """Asks for the same paths again and again."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    latencies, number = [], 0
    while (now := time.time()) < until[1]:
        began = time.perf_counter()
        connection.request("GET", paths[number % len(paths)], headers=headers)
        answer = connection.getresponse()
        body = answer.read()
        assert answer.status == 200, (answer.status, body[:300])
        if now >= until[0]:
            latencies.append((time.perf_counter() - began) * 1000)
        number += 1
    out.put(latencies)


def fresh_client(port: int, bodies: Sequence[bytes], until: tuple[float, float], out: Any) -> None:
    """Asks each time for what nobody asked before."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    latencies, left = [], iter(bodies)
    while (now := time.time()) < until[1]:
        began = time.perf_counter()
        connection.request("POST", "/v1/search", next(left), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        body = answer.read()
        assert answer.status == 200, (answer.status, body[:300])
        assert answer.headers["x-pixr-cache"] == "miss", "a kept answer"
        assert b'"degraded":[]' in body, body[-200:]
        if now >= until[0]:
            latencies.append((time.perf_counter() - began) * 1000)
    out.put(latencies)


def sql_client(
    url: str, asked: Sequence[tuple[Vector, str]], plan: Plan, shown: int, until: tuple[float, float], out: Any
) -> None:
    """Runs the SQL of searches by itself: nearest and, where there are words, matches side by side, then what is shown."""

    async def run() -> list[float]:
        latencies, number = [], 0
        async with (
            await AsyncConnection.connect(url, autocommit=True) as one,
            await AsyncConnection.connect(url, autocommit=True) as other,
        ):
            _, model, _ = await index.state(one)
            assert model is not None
            while (now := time.time()) < until[1]:
                vector, words = asked[number % len(asked)]
                began = time.perf_counter()
                looked, matching = await asyncio.gather(
                    index.nearest(one, model, vector, CANDIDATES, Filters(), plan), _matching(other, words, plan)
                )
                near = {hit.segment_id for hit in looked.hits}
                missing = [hit.segment_id for hit in matching if hit.segment_id not in near]
                if missing:
                    await index.cosines(one, model, vector, missing)
                await index.found(one, [hit.segment_id for hit in looked.hits[:shown]])
                if now >= until[0]:
                    latencies.append((time.perf_counter() - began) * 1000)
                number += 1
        return latencies

    out.put(asyncio.run(run()))


async def _matching(connection: index.Connection, words: str, plan: Plan) -> list[index.Hit]:
    return await fulltext.matching(connection, words, CANDIDATES, Filters(), plan) if words else []
