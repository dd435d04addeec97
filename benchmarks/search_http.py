"""Search over HTTP, for `benchmarks.search`: latency and CPU beside the bare SQL; cached answers beside a bare echo.

The application is the deployed one, in Serve on a Ray cluster of the benchmark's own. Four clients run in processes of
their own with plain sockets. Each text stands for a row of the table of query vectors, and the search uses that row
even where a real text tower has encoded the text: so the tower's cost is measured, while the true answers stay known.
"""

from __future__ import annotations

import dataclasses
import http.client
import json
import multiprocessing
import time
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx
import numpy as np
import psutil
from numpy.typing import NDArray

from benchmarks import big_model, search_corpus
from benchmarks.ground import ray_and_redis
from benchmarks.run import Figure
from benchmarks.search_corpus import QUERIES, WORDS, Corpus
from benchmarks.search_load import SECONDS, WARM_S, Load, cpu_s, fresh_client, http_client, load, sql_client
from cluster import runtime
from cluster.database import database
from cluster.errors import Temporary
from cluster.settings import Settings
from pipelines.index.vectors import SearchLimits
from pipelines.models.relevance import general
from pipelines.settings import ModelSettings
from serve.access import keys
from serve.replica import encoding
from serve.replica.encoder import EncoderInfo, Vector
from serve.replica.store import Store
from serve.replicas import Replicas
from serve.settings import SearchSettings

T = TypeVar("T")

CLIENTS = 4
LIMIT = 10
RIGHT = 200  # questions whose answers are compared with the truth
DOOR_TIMEOUT_S = 60.0
FRESH = 3000  # questions a client has
COMMON_WORDS = 20  # in a third of all videos and more: a text search stops at such words
NEAR, FAR = "near", "far (text-like)"
_said: set[str] = set()
STAGES = {"SearchApi": "replica", "QueryEncoder": "encoder", "proxy": "proxy"}


class Prepared:
    """An encoder that looks a text's vector up in a table instead of computing it; the text's checksum selects the row."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._facts = EncoderInfo(search_corpus.MODEL, search_corpus.DIMENSIONS, search_corpus.MODEL, general())
        self._table: NDArray[np.float32] | None = None

    def prepare(self, models: Iterable[str]) -> None:
        """Do nothing: the table serves all models."""

    async def answers(self) -> None:
        """Do nothing: the table always answers."""

    async def close(self) -> None:
        """Do nothing: nothing is open."""

    async def facts(self, _model: str = "") -> EncoderInfo:
        return self._facts

    async def text(self, text: str, _model: str = "") -> Vector:
        if self._table is None:
            loaded = np.load(self._path)
            self._table = np.concatenate([loaded["near"], loaded["far"]])
        vector: Vector = self._table[place(text)]
        return vector

    async def image(self, data: bytes, _model: str = "") -> Vector:
        raise NotImplementedError(f"no picture of {len(data)} bytes is in the table")


class Towered(Prepared):
    """An encoder that lets a real one encode every text, as when deployed, and then returns the vector of the table."""

    def __init__(self, path: Path, remote: encoding.RemoteEncoding) -> None:
        super().__init__(path)
        self._remote = remote

    async def text(self, text: str, model: str = "") -> Vector:
        await self._remote.text(text)
        return await super().text(text, model)


def place(text: str) -> int:
    """Return the row of the table of query vectors that a text stands for; `near` queries are the first half of the table."""
    return zlib.crc32(text.encode()) % (2 * QUERIES)


def texts(kind: str, count: int) -> list[str]:
    """Return texts of three words that stand for query vectors of one kind, `near` or far.

    No text is returned twice in a run, so none of the answers is cached.
    """
    rng = np.random.default_rng(len(_said))
    made: list[str] = []
    while len(made) < count:
        ranks = np.exp(rng.uniform(np.log(COMMON_WORDS), np.log(WORDS), 3)).astype(int)
        text = " ".join(f"word{rank}" for rank in ranks)
        if text not in _said and (place(text) < QUERIES) is (kind == NEAR):
            made.append(text)
            _said.add(text)
    return made


# ── Serve ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def serving(settings: Settings, queries: Path, tower: str = "") -> Iterator[int]:
    """Run the application in Serve with the table as encoder (behind a real tower if named), and yield the port."""
    from ray import serve as ray_serve

    from serve import app

    search = dataclasses.replace(
        settings.section(SearchSettings),
        address_burst=10**9,
        address_rate_per_s=1e9,
        key_burst=10**9,
        key_rate_per_s=1e9,
    )
    made = settings.with_section(search).with_section(ModelSettings(name=tower or ModelSettings().name, threads=1))

    def make(given: SearchSettings, store: Store) -> Prepared:
        if not tower:
            return Prepared(queries)
        return Towered(queries, app.encoded_remotely(given, store))

    ray_serve.run(app.application(made, make), name=app.APP, route_prefix="/")
    try:
        with behind_the_door(settings, app.APP, app.INGRESS, "/healthz"):
            yield runtime.known_port(settings, "serve")
    finally:
        ray_serve.delete(app.APP)


def start(settings: Settings) -> int:
    """Start Serve; return the port of the door."""
    from ray import serve as ray_serve

    ray_serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1"})
    return runtime.known_port(settings, "serve")


@contextmanager
def behind_the_door(settings: Settings, app: str, deployment: str, path: str) -> Iterator[None]:
    """Make the door send requests to the replicas of one deployment, for the block."""
    replicas = Replicas(settings, app, deployment)
    replicas.start()
    try:
        deadline = time.monotonic() + DOOR_TIMEOUT_S
        while httpx.get(f"{runtime.serve_url(settings)}{path}").status_code != 200:
            if time.monotonic() > deadline:
                raise Temporary(f"the door knows no replica of {deployment}")
            time.sleep(0.1)
        yield
    finally:
        replicas.end()


@contextmanager
def echoing(settings: Settings, body: bytes) -> Iterator[None]:
    """Run a bare deployment that answers at once with the given body."""
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
        with behind_the_door(settings, "echo", "Echo", "/echo"):
            yield
    finally:
        ray_serve.delete("echo")


def _apart(work: Callable[..., T], *arguments: Any) -> T:
    """Run some work in another process and return its result.

    Each run needs a process of its own: Serve reads its mode when it is imported, and Ray keeps the token of the first
    cluster that a process has joined, so that the process cannot join another.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as processes:
        return processes.submit(work, *arguments).result()


# ── CPU of the processes that answer ───────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Spent:
    """CPU seconds used so far, by stage; a process that has started between two readings counts from 0."""

    seconds: dict[str, float]

    @classmethod
    def now(cls, url: str) -> Spent:
        own, seconds = psutil.Process().username(), dict.fromkeys((*STAGES.values(), "PostgreSQL"), 0.0)
        port = f"--port={url.rsplit(':', 1)[1].split('/')[0]}"
        for process in psutil.process_iter(["cmdline", "username"]):
            line = " ".join(process.info["cmdline"] or [])
            if port in line.split():
                seconds["PostgreSQL"] += sum(map(cpu_s, process.children()))
            elif process.info["username"] == own:
                seconds |= {
                    stage: seconds[stage] + cpu_s(process)
                    for mark, stage in STAGES.items()
                    if mark.lower() in line.lower()
                }
        return cls(seconds)

    def since(self, before: Spent, requests: float) -> dict[str, float]:
        """Map each stage to its CPU milliseconds per request since `before`."""
        return {stage: (total - before.seconds[stage]) * 1000 / requests for stage, total in self.seconds.items()}


# ── Figures ────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Asked:
    """How requests are made.

    `kind` is that of the queries, near or far. `hybrid` requests search by words too. `tower` is the real text tower
    that encodes the texts; without one, the table alone does.
    """

    kind: str
    hybrid: bool = False
    tower: str = ""

    @property
    def name(self) -> str:
        by = "hybrid" if self.hybrid else "vectors alone"
        through = f"text tower {Path(self.tower).name}" if self.tower else "vectors by table"
        return f"{self.kind}, {by}, {through}, over HTTP, {CLIENTS} clients, uncached"

    def body(self, text: str) -> bytes:
        weights = {} if self.hybrid else {"weights": {"text": 0}}
        asked = {"text": text, "limit": LIMIT, "intent": "typing", "relevance_min_ppm": 0}  # recall of all that is near
        return json.dumps(asked | weights).encode()


@dataclass(frozen=True)
class Costs:
    """CPU milliseconds per request.

    `sql_ms` and `search_ms` are those of a request that is not cached: in PostgreSQL, and in replica and proxy.
    `kept_ms` is what a cached one takes in replica and proxy.
    """

    sql_ms: float
    search_ms: float
    kept_ms: float


def figures(settings: Settings, corpus: Corpus) -> Generator[Figure, None, Costs]:
    """Yield all figures; return what requests cost."""
    queries = settings.data_dir / "queries.npz"
    with ray_and_redis(settings, corpus.url) as through:
        port = start(through)
        with serving(through, queries):
            made = yield from timed(through, corpus, Asked(NEAR), port)
            for asked in (Asked(FAR), Asked(NEAR, hybrid=True), Asked(FAR, hybrid=True)):
                yield from timed(through, corpus, asked, port)
            hot, cpu_ms, size = kept(corpus, port)
        with echoing(through, b"x" * size):
            echo = load(http_client, [(port, ["/echo"], {})] * CLIENTS)
        for tower in (ModelSettings().name, str(big_model.folder(settings))):
            with serving(through, queries, tower):
                yield from timed(through, corpus, Asked(FAR, tower=tower), port)
                yield from timed(through, corpus, Asked(FAR, hybrid=True, tower=tower), port)
    name = f"kept answers ({size:,} bytes, hit ratio 1), with a key, appearances in the spool, {CLIENTS} clients"
    yield Figure(
        name,
        f"{hot.rate:.0f}/s, p95 {hot.percentile(95):.1f} ms",
        f"{echo.rate:.0f}/s, p95 {echo.percentile(95):.1f} ms, a bare echo behind the same door",
        hot.rate / echo.rate,
    )
    yield Figure(f"{name}: CPU a request, replica and proxy", f"{cpu_ms:.2f} ms")
    return Costs(made["PostgreSQL"], made["replica"] + made["proxy"], cpu_ms)


def vectors_alone(settings: Settings, corpus: Corpus) -> Generator[Figure, None, float]:
    """Measure requests that search by vectors without words; return the CPU milliseconds of a whole request."""
    figures, cpu_ms = _apart(_vectors_alone, settings, corpus)
    yield from figures
    return cpu_ms


def _vectors_alone(settings: Settings, corpus: Corpus) -> tuple[list[Figure], float]:
    spent: dict[str, float] = {}

    def figures(through: Settings, port: int) -> Iterator[Figure]:
        spent.update((yield from timed(through, corpus, Asked(NEAR), port)))

    with ray_and_redis(settings, corpus.url) as through:
        port = start(through)
        with serving(through, settings.data_dir / "queries.npz"):
            made = list(figures(through, port))
    return made, spent["PostgreSQL"] + spent["replica"] + spent["proxy"]


def by_words_too(settings: Settings, corpus: Corpus) -> Iterator[Figure]:
    """Measure requests by words and vectors together."""
    yield from _apart(_by_words_too, settings, corpus)


def _by_words_too(settings: Settings, corpus: Corpus) -> list[Figure]:
    with ray_and_redis(settings, corpus.url) as through:
        port = start(through)
        with serving(through, settings.data_dir / "queries.npz"):
            return [figure for kind in (NEAR, FAR) for figure in timed(through, corpus, Asked(kind, hybrid=True), port)]


def timed(settings: Settings, corpus: Corpus, asked: Asked, port: int) -> Generator[Figure, None, dict[str, float]]:
    """Measure one way of making requests: recall, latency beside the same SQL by psycopg, and CPU by stage (also returned)."""
    name = f"{corpus.rows:,} x {search_corpus.DIMENSIONS} synthetic, {asked.name}"
    if not asked.hybrid:  # what is right of a fused list has no truth here
        yield Figure(f"{name}: recall@10", f"{_recall(corpus, asked, port):.3f}")
    said = [texts(asked.kind, FRESH) for _ in range(CLIENTS)]
    table = np.concatenate([corpus.near, corpus.far])
    sql = [[(table[place(text)], text if asked.hybrid else "") for text in each] for each in said]
    search = settings.section(SearchSettings)
    plan = SearchLimits(ef_search=search.ef_search, text_rows=search.text_rows_max, timeout_ms=60_000)
    bare = load(sql_client, [(corpus.url, each, plan, LIMIT) for each in sql])
    before = Spent.now(corpus.url)
    served = load(fresh_client, [(port, [asked.body(text) for text in each]) for each in said])
    total = len(served.latencies_ms) * (SECONDS + WARM_S) / SECONDS
    spent = Spent.now(corpus.url).since(before, total)
    bare += load(sql_client, [(corpus.url, each, plan, LIMIT) for each in sql])
    yield Figure(
        f"{name}: p50 {served.percentile(50):.1f} ms, {served.rate:.0f}/s, p95",
        f"{served.percentile(95):.1f} ms",
        f"p95 {bare.percentile(95):.1f} ms, p50 {bare.percentile(50):.1f} ms, {bare.rate:.0f}/s, the same SQL by psycopg",
        served.percentile(95) / bare.percentile(95),
    )
    yield Figure(
        f"{name}: CPU ms a request",
        ", ".join(f"{stage} {cpu_ms:.2f}" for stage, cpu_ms in spent.items() if cpu_ms > 0),
    )
    return spent


def _recall(corpus: Corpus, asked: Asked, port: int) -> float:
    said = texts(asked.kind, RIGHT)
    table = np.concatenate([corpus.near, corpus.far])
    truth = corpus.truth(table[[place(text) for text in said]])
    found = [_ids(port, asked.body(text)) for text in said]
    return float(np.mean([len(set(ids) & set(map(int, true))) / LIMIT for ids, true in zip(found, truth, strict=True)]))


def kept(corpus: Corpus, port: int) -> tuple[Load, float, int]:
    """Measure repeated queries with a key; the answers come from the cache, and appearances are recorded.

    Returns:
        What clients measured, CPU milliseconds per request, and bytes of an answer.
    """
    paths = [f"/v1/search?q={text.replace(' ', '+')}&limit={LIMIT}" for text in texts(NEAR, 20)]
    size = len(_get(port, "GET", paths[0]))
    before = Spent.now(corpus.url)
    with database.connect(corpus.url) as connection:
        _, token = keys.create(connection, "benchmark", ("search",))
    hot = load(http_client, [(port, paths, {"Authorization": f"Bearer {token}"})] * CLIENTS)
    spent = Spent.now(corpus.url).since(before, len(hot.latencies_ms) * (SECONDS + WARM_S) / SECONDS)
    return hot, spent["replica"] + spent["proxy"], size


def _get(port: int, method: str, path: str, body: bytes | None = None) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
    answer = connection.getresponse()
    data = answer.read()
    assert answer.status == 200, (answer.status, data[:300])
    connection.close()
    return data


def _ids(port: int, body: bytes) -> list[int]:
    return [int(moment["segment_id"]) for moment in json.loads(_get(port, "POST", "/v1/search", body))["moments"]]
