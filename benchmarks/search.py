"""How fast and how right a search is: over HTTP beside the same SQL by bare psycopg, with filters, kept, and as rows grow.

Rows are synthetic but clustered (`search_corpus`), query vectors come from a prepared table, so that what is measured is
the search and not a model. The application is the one that is deployed, in Serve on a Ray of its own; four clients are
processes of their own with plain sockets. Figures of CPU are the robust ones on a machine that others use too.
"""

from __future__ import annotations

import asyncio
import dataclasses
import http.client
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray
from psycopg import AsyncConnection

from benchmarks import search_corpus
from benchmarks.ground import ray_and_redis
from benchmarks.run import Figure
from benchmarks.search_corpus import SHARES, Corpus
from benchmarks.search_load import SECONDS, WARM_S, fresh_client, http_client, load, sql_client
from cluster import database, runtime
from cluster.settings import Settings
from pipelines import index
from pipelines.index import Filters, Plan
from pipelines.relevance import general
from serve.services import Facts, Vector
from serve.settings import SearchSettings

ROWS, FEWER_ROWS = 1_000_000, 100_000
CLIENTS = 4
LIMIT = 10
EFS = (100, 200, 400, 800)
NEAR_EF, FAR_EF = 400, 1000
TARGET_RATE = 10_000
CARRIERS = ("ServeReplica", "ProxyActor", "HAProxyManager", "haproxy")


class Prepared:
    """Encoding by table: the text names a row of the prepared queries."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._facts = Facts(search_corpus.MODEL, search_corpus.DIMENSIONS, search_corpus.MODEL, general())
        self._tables: dict[str, NDArray[np.float32]] = {}

    def prepare(self, models: Iterable[str]) -> None:
        """There is one table."""

    async def facts(self, _model: str = "") -> Facts:
        return self._facts

    async def text(self, text: str, _model: str = "") -> Vector:
        if not self._tables:
            loaded = np.load(self._path)
            self._tables = {"near": loaded["near"], "far": loaded["far"]}
        kind, number, *_ = text.split()
        vector: Vector = self._tables[kind][int(number)]
        return vector

    async def image(self, data: bytes, _model: str = "") -> Vector:
        raise NotImplementedError(f"no picture of {len(data)} bytes is in the table")


# ── Recall, CPU and latency of the SQL itself ──────────────────────────────────────────────────────────────────────


def _plan(ef: int) -> Plan:
    return Plan(ef_search=ef, timeout_ms=60_000)


async def _ask(
    url: str, queries: NDArray[np.float32], plan: Plan, filters: Filters, limit: int
) -> tuple[list[list[int]], float]:
    """Answers, and the CPU milliseconds that the server's process spent on each."""
    async with await AsyncConnection.connect(url, autocommit=True) as connection:
        _, model, _ = await index.state(connection)
        assert model is not None
        server = psutil.Process(connection.info.backend_pid)
        for vector in queries[:20]:
            await index.nearest(connection, model, vector, limit, filters, plan)
        before, found = _cpu_s(server), []
        for vector in queries:
            looked = await index.nearest(connection, model, vector, limit, filters, plan)
            found.append([hit.segment_id for hit in looked.hits[:LIMIT]])
        return found, (_cpu_s(server) - before) * 1000 / len(queries)


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def recall(found: Sequence[Sequence[int]], truth: NDArray[np.int64]) -> float:
    return float(
        np.mean([len(set(ids) & set(map(int, true))) / len(true) for ids, true in zip(found, truth, strict=True)])
    )


def warm(corpus: Corpus) -> None:
    """Read the graph and the vectors that queries meet into memory, as a server's are when it is ready."""
    for asked in (corpus.near, corpus.far):
        asyncio.run(_ask(corpus.url, asked[::-1], _plan(400), Filters(), LIMIT))


def sql(corpus: Corpus, queries: int = 200) -> Iterator[Figure]:
    """Recall and CPU by ef, for queries like the rows and unlike them; then under filters."""
    warm(corpus)
    name = f"{corpus.rows:,} x {search_corpus.DIMENSIONS} synthetic"
    for kind, asked in (("near", corpus.near[:queries]), ("far (text-like)", corpus.far[:queries])):
        truth = corpus.truth(asked)
        for ef in EFS:
            found, cpu_ms = asyncio.run(_ask(corpus.url, asked, _plan(ef), Filters(), LIMIT))
            yield Figure(
                f"{name}, {kind}, vectors alone, ef {ef}: recall@10 {recall(found, truth):.3f}", f"{cpu_ms:.2f} CPU ms"
            )
        found, cpu_ms = asyncio.run(_ask(corpus.url, asked, _plan(FAR_EF), Filters(), 200))
        yield Figure(
            f"{name}, {kind}, as searched (200 candidates, ef {FAR_EF}): recall@10 {recall(found, truth):.3f}",
            f"{cpu_ms:.2f} CPU ms",
        )
    for tag, every in SHARES.items():
        asked = corpus.near[:100]
        truth = corpus.truth(asked, every=every)
        found, cpu_ms = asyncio.run(_ask(corpus.url, asked, Plan(timeout_ms=60_000), Filters(tags=(tag,)), 200))
        full = sum(len(ids) == LIMIT for ids in found) / len(found)
        yield Figure(
            f"{name}, filter of {1 / every:.1%}: recall@10 {recall(found, truth):.3f}, full answers {full:.0%}",
            f"{cpu_ms:.2f} CPU ms",
        )


# ── Serve ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def serving(settings: Settings, queries: str, ef: int) -> Iterator[int]:
    """The application in Serve, its encoder a table; the port."""
    from ray import serve as ray_serve

    from serve import app

    search = dataclasses.replace(
        settings.section(SearchSettings), ef_search=ef, address_burst=10**9, address_rate_per_s=1e9
    )
    made = settings.with_section(search)

    def build() -> Any:
        return app.build(app.services_of(made, lambda _search, _store: Prepared(queries)))

    deployment: Any = ray_serve.deployment
    ingress = deployment(
        ray_serve.ingress(build)(), name="SearchApi", num_replicas=1, max_ongoing_requests=64,
        ray_actor_options={"num_cpus": 0.2},
    )  # fmt: skip
    port = runtime.port(settings, "serve", settings.serve.port)
    ray_serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": port})
    ray_serve.run(ingress.bind(), name=app.APP, route_prefix="/")
    try:
        yield port
    finally:
        ray_serve.delete(app.APP)


@contextmanager
def echoing(settings: Settings, body: bytes) -> Iterator[int]:
    """A bare deployment that answers at once with as many bytes."""
    from ray import serve as ray_serve
    from starlette.requests import Request
    from starlette.responses import Response

    class Echo:
        async def __call__(self, _: Request) -> Response:
            return Response(body, media_type="application/json")

    deployment: Any = ray_serve.deployment
    ray_serve.run(
        deployment(Echo, num_replicas=1, max_ongoing_requests=64, ray_actor_options={"num_cpus": 0.2}).bind(),
        name="echo",
        route_prefix="/echo",
    )
    try:
        yield runtime.port(settings, "serve", settings.serve.port)
    finally:
        ray_serve.delete("echo")


def _processes(names: Sequence[str]) -> list[psutil.Process]:
    own = psutil.Process().username()
    found = []
    for process in psutil.process_iter(["cmdline", "username"]):
        line = " ".join(process.info["cmdline"] or [])
        if process.info["username"] == own and any(name in line for name in names):
            found.append(process)
    return found


def _backends(url: str) -> list[psutil.Process]:
    port = url.rsplit(":", 1)[1].split("/")[0]
    servers = [
        process for process in psutil.process_iter(["cmdline"]) if f"--port={port}" in (process.info["cmdline"] or [])
    ]
    return [process for server in servers for process in server.children()]


def over_http(settings: Settings, corpus: Corpus, queries: str) -> Iterator[Figure]:
    """Latency and CPU end to end beside the SQL alone; recall of what HTTP answers; then kept answers beside an echo."""
    warm(corpus)
    for kind, ef in (("near", NEAR_EF), ("far", FAR_EF)):
        asked = corpus.near if kind == "near" else corpus.far
        with serving(settings, queries, ef) as port:
            paths = [_path(kind, number, worker) for worker in range(CLIENTS) for number in range(100)]
            found = [_ids(port, _path(kind, number, 99)) for number in range(100)]
            right = recall(found, corpus.truth(asked[:100]))
            yield from _timed(corpus, kind, ef, right, port, paths)
            if kind == "near":
                yield from kept(settings, port)


def _timed(corpus: Corpus, kind: str, ef: int, right: float, port: int, paths: Sequence[str]) -> Iterator[Figure]:
    processes, backends = _processes(CARRIERS), _backends(corpus.url)
    before = {process.pid: _cpu_s(process) for process in (*processes, *backends)}
    clients = [(port, [f"{path}+{number}" for path in paths[number::CLIENTS]]) for number in range(CLIENTS)]
    served = load(fresh_client, clients)
    spent = {process.pid: _cpu_s(process) - before[process.pid] for process in (*processes, *backends)}
    asked = (corpus.near if kind == "near" else corpus.far)[:100]
    bare = load(sql_client, [(corpus.url, asked, _plan(ef))] * CLIENTS)
    name = f"{corpus.rows:,} x {search_corpus.DIMENSIONS} synthetic, {kind}, over HTTP, {CLIENTS} clients, ef {ef}, uncached"
    yield Figure(f"{name}: recall@10", f"{right:.3f}")
    yield Figure(
        f"{name}: p50 {served.percentile(50):.1f} ms, {served.rate:.0f}/s, p95",
        f"{served.percentile(95):.1f} ms",
        f"p95 {bare.percentile(95):.1f} ms, p50 {bare.percentile(50):.1f} ms, {bare.rate:.0f}/s, the same SQL by psycopg",
        served.percentile(95) / bare.percentile(95),
    )
    total = len(served.latencies_ms) * (SECONDS + WARM_S) / SECONDS
    stages = {"replica": "servereplica", "proxy": "proxy"}
    for stage, mark in stages.items():
        cpu_s = sum(spent[process.pid] for process in processes if mark in " ".join(process.cmdline()).lower())
        yield Figure(f"{name}: CPU a request, {stage}", f"{cpu_s * 1000 / total:.2f} ms")
    cpu_s = sum(spent[process.pid] for process in backends)
    yield Figure(f"{name}: CPU a request, PostgreSQL", f"{cpu_s * 1000 / total:.2f} ms")


def kept(settings: Settings, port: int) -> Iterator[Figure]:
    """Hot queries, recorded as appearances, beside an echo of as many bytes behind the same proxy."""
    paths = [f"/v1/search?q=near+{number}+hot&limit={LIMIT}" for number in range(20)]
    size = len(json.dumps(_get(port, paths[0])))
    processes = _processes(CARRIERS)  # HAProxy takes a new one whenever its replicas change
    before = sum(map(_cpu_s, processes))
    hot = load(http_client, [(port, paths)] * CLIENTS)
    cpu_ms = (sum(map(_cpu_s, processes)) - before) * 1000 / (len(hot.latencies_ms) * (SECONDS + WARM_S) / SECONDS)
    with echoing(settings, b"x" * size) as echo_port:
        echo = load(http_client, [(echo_port, ["/echo"])] * CLIENTS)
    name = f"kept answers ({size:,} bytes, hit ratio 1), spool included, {CLIENTS} clients"
    yield Figure(
        name,
        f"{hot.rate:.0f}/s, p95 {hot.percentile(95):.1f} ms",
        f"{echo.rate:.0f}/s, p95 {echo.percentile(95):.1f} ms, a bare echo in the same mode",
        hot.rate / echo.rate,
    )
    yield Figure(f"{name}: CPU a request, replica and proxy", f"{cpu_ms:.2f} ms")


def _path(kind: str, number: int, salt: int) -> str:
    return f"/v1/search?limit={LIMIT}&intent=benchmark&q={kind}+{number}+{salt}"


def _get(port: int, path: str) -> dict[str, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", path)
    answer: dict[str, Any] = json.loads(connection.getresponse().read())
    connection.close()
    return answer


def _ids(port: int, path: str) -> list[int]:
    return [int(moment["segment_id"]) for moment in _get(port, path)["moments"]]


# ── What more rows would need ──────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Measured:
    """Of one catalogue: bytes a row on disk, seconds to build the graph, CPU milliseconds of PostgreSQL a query."""

    rows: int
    heap_bytes: float
    graph_bytes: float
    words_bytes: float
    build_s: float
    cpu_ms: float


def measured(corpus: Corpus, build_s: float, cpu_ms: float) -> Measured:
    with database.connect(corpus.url) as connection:
        found = search_corpus.sizes(connection)
    words = found["segments"] + found["segments_search"] + found["videos"]
    heap, graph, rest = (size / corpus.rows for size in (found["embeddings_m1"], found["embeddings_m1_hnsw"], words))
    return Measured(corpus.rows, heap, graph, rest, build_s, cpu_ms)


def projection(fewer: Measured, more: Measured, http_ms: float) -> Iterator[Figure]:
    """Extrapolated from what was measured: bytes by rows, CPU by its growth from the smaller to the larger catalogue."""
    growth = max(1.0, more.cpu_ms / fewer.cpu_ms) ** (1 / math.log10(more.rows / fewer.rows))
    for rows in (10_000_000, 100_000_000):
        times = rows / more.rows
        cpu_ms = more.cpu_ms * growth ** math.log10(times)
        gb = [each * rows / 1e9 for each in (more.heap_bytes, more.graph_bytes, more.words_bytes)]
        hours = more.build_s * times * math.log(rows) / math.log(more.rows) / 3600
        cores = {hit: TARGET_RATE * ((1 - hit) * cpu_ms + http_ms) / 1000 for hit in (0.0, 0.9, 0.99)}
        needs = ", ".join(f"{count:.0f} cores at hit ratio {hit:.2f}" for hit, count in cores.items())
        yield Figure(
            f"projected (extrapolated) to {rows:,} rows: RAM {sum(gb):.0f} GB (vectors {gb[0]:.0f}, graph {gb[1]:.0f}, words"
            f" {gb[2]:.0f}), build {hours:.1f} h on this machine, {cpu_ms:.1f} CPU ms a query; {TARGET_RATE:,}/s needs",
            needs,
            f"{more.cpu_ms:.1f} CPU ms a query and {http_ms:.2f} ms of HTTP a request measured at {more.rows:,} rows",
        )


# ── All of it ──────────────────────────────────────────────────────────────────────────────────────────────────────


def run(settings: Settings) -> Iterator[Figure]:
    """Catalogues under the data folder's `search-…`, made where they are not there yet and kept for the next time."""
    looked: list[Measured] = []
    http_ms = 0.0
    for rows in (FEWER_ROWS, ROWS):
        own = dataclasses.replace(settings, data_dir=settings.data_dir / f"search-{rows}")
        with search_corpus.corpus(own, rows) as corpus:
            build_s = json.loads((own.data_dir / "corpus.json").read_text(encoding="utf-8"))["seconds"]["index"]
            yield Figure(f"{rows:,} x {search_corpus.DIMENSIONS} synthetic, HNSW built", f"{build_s:.0f} s")
            for figure in sql(corpus):
                if f"near, vectors alone, ef {NEAR_EF}:" in figure.name:
                    looked.append(measured(corpus, build_s, float(figure.value.split()[0])))
                yield figure
            if rows == ROWS:
                for figure in _whole(own, corpus):
                    if "kept answers" in figure.name and "CPU" in figure.name:
                        http_ms = float(figure.value.split()[0])
                    yield figure
    fewer, more = looked
    yield Figure(
        f"CPU a query at ef {NEAR_EF}, {fewer.rows:,} to {more.rows:,} rows",
        f"{more.cpu_ms:.2f} ms",
        f"{fewer.cpu_ms:.2f} ms",
        more.cpu_ms / fewer.cpu_ms,
    )
    yield from projection(fewer, more, http_ms)


def _whole(settings: Settings, corpus: Corpus) -> Iterator[Figure]:
    with ray_and_redis(settings, corpus.url) as through:
        yield from over_http(through, corpus, str(Path(settings.data_dir) / "queries.npz"))
