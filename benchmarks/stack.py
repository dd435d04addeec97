"""How long a new user waits: the stack's start (cold and warm), the demo catalogue's ingest, and one search.

Runs through the command line in a data folder of its own, as a user would; a stack that already runs is left alone.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx

from benchmarks.run import Figure
from cluster.settings import Settings
from pipelines.samples import samples

SEARCHES = 20
SEED = 1


def run(settings: Settings) -> Iterator[Figure]:
    """Measure a first start, an ingest, a search and, after a stop, a second start."""
    with tempfile.TemporaryDirectory(prefix="pixr-") as folder:
        environment = {**os.environ, "PIXR_CONFIG": str(settings.path), "PIXR_DATA_DIR": folder}
        try:
            cold_s, _ = _timed(environment, "up")
            yield Figure("stack, first start", f"{cold_s:.1f} s")
            videos = Path(folder) / "videos"
            made = samples.demo(videos, SEED)
            seconds = sum(sample.duration_ms for sample in made) / 1000
            ingest_s, _ = _timed(environment, "ingest", str(videos), "--json")
            yield Figure(
                "ingest of the demo catalogue", f"{ingest_s:.1f} s", f"{seconds:.0f} s of video", ingest_s / seconds
            )
            yield from _searches(environment)
            _timed(environment, "down")
            warm_s, _ = _timed(environment, "up")
            yield Figure("stack, second start", f"{warm_s:.1f} s", f"{cold_s:.1f} s first start", warm_s / cold_s)
        finally:
            _timed(environment, "down")


def _searches(environment: dict[str, str]) -> Iterator[Figure]:
    status = json.loads(_timed(environment, "status", "--json")[1])
    url = status["services"]["serve"]["url"]
    with httpx.Client(base_url=url, timeout=30) as client:
        first_ms, *rest_ms = (_milliseconds(client, number) for number in range(SEARCHES + 1))
        health_ms = statistics.median(_milliseconds(client, None) for _ in range(SEARCHES))
    median_ms = statistics.median(rest_ms)
    yield Figure("one search over HTTP, first", f"{first_ms:.0f} ms")
    yield Figure(
        "one search over HTTP, median", f"{median_ms:.1f} ms", f"{health_ms:.1f} ms /healthz", median_ms / health_ms
    )


def _milliseconds(client: httpx.Client, number: int | None) -> float:
    began = time.perf_counter()
    if number is None:
        answer = client.get("/healthz")
    else:
        answer = client.get("/v1/search", params={"q": f"a red apple {number}", "intent": "typing"})
    answer.raise_for_status()
    return (time.perf_counter() - began) * 1000


def _timed(environment: dict[str, str], *arguments: str) -> tuple[float, str]:
    began = time.perf_counter()
    argv = (sys.executable, "-m", "cluster.cli", *arguments)
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=True)
    return time.perf_counter() - began, done.stdout
