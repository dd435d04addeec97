"""How good a search is and what it costs: the SQL alone, with filters, over HTTP, from the cache, and as rows grow.

Rows are synthetic but clustered (`search_corpus`). Query vectors come from a prepared table, so that the search is
measured and not a model; `search_http` measures requests with real text towers too. Figures of CPU are the ones that
other programs on the same machine disturb least.
"""

from __future__ import annotations

import asyncio
import json
import math
import statistics
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import psutil
from numpy.typing import NDArray
from psycopg import AsyncConnection

from benchmarks import search_corpus, search_http, search_words
from benchmarks.run import Figure
from benchmarks.search_corpus import SHARES, Corpus
from benchmarks.search_http import Costs
from benchmarks.search_load import cpu_s
from cluster.database import database
from cluster.settings import Settings
from pipelines.index import vectors
from pipelines.index.vectors import Filters, SearchLimits
from serve.settings import SearchSettings

ROWS, FEWER_ROWS = 1_000_000, 100_000
LIMIT = 10
EFS = (50, 100, 150, 200, 300, 400, 800)
RECALL, EFS_NEAR_IT = 0.95, (100, 125, 150, 175, 200, 250, 300)  # at which catalogues of different sizes are compared
ROUNDS = 3  # of both catalogues in turns; the smaller has another graph each time, since a graph is drawn at random
TARGET_RATE = 10_000
NODE_CORES = 32
DEFAULTS = SearchSettings()


# ── Recall, CPU and latency of the SQL itself ──────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Point:
    """Result for one `ef`: recall@10, CPU milliseconds of PostgreSQL per query, and the latencies of queries one by one."""

    ef: int
    recall: float
    cpu_ms: float
    p50_ms: float
    p95_ms: float


@dataclass(frozen=True)
class Answers:
    """The answers to all queries, the CPU milliseconds per query of PostgreSQL's process, and the latency of each query."""

    found: list[list[int]]
    cpu_ms: float
    latencies_ms: list[float]


def _plan(ef: int) -> SearchLimits:
    return SearchLimits(ef_search=ef, timeout_ms=60_000)


async def _ask(url: str, queries: NDArray[np.float32], plan: SearchLimits, filters: Filters, limit: int) -> Answers:
    """Ask all queries one after another; return their answers, latencies, and the CPU milliseconds of PostgreSQL's process.

    Everything is asked twice and the second time is measured: the process of a new connection first has to map the
    pages of shared memory that it uses, while a service keeps its connections open.
    """
    async with await AsyncConnection.connect(url, autocommit=True) as connection:
        _, model, *_ = await vectors.state(connection)
        assert model is not None
        server = psutil.Process(connection.info.backend_pid)
        for vector in queries:
            await vectors.nearest(connection, model, vector, limit, filters, plan)
        before, found, latencies_ms = cpu_s(server), [], []
        for vector in queries:
            began = time.perf_counter()
            looked = await vectors.nearest(connection, model, vector, limit, filters, plan)
            latencies_ms.append((time.perf_counter() - began) * 1000)
            found.append([hit.segment_id for hit in looked.hits[:LIMIT]])
        return Answers(found, (cpu_s(server) - before) * 1000 / len(queries), latencies_ms)


def recall(found: Sequence[Sequence[int]], truth: NDArray[np.int64]) -> float:
    return float(
        np.mean([len(set(ids) & set(map(int, true))) / len(true) for ids, true in zip(found, truth, strict=True)])
    )


def warm(corpus: Corpus) -> None:
    """Read the graph and the vectors that queries use into memory, as they are on a server that is ready."""
    for asked in (corpus.near, corpus.far):
        asyncio.run(_ask(corpus.url, asked[::-1], _plan(400), Filters(), LIMIT))


def curve(corpus: Corpus, asked: NDArray[np.float32], efs: Sequence[int] = EFS) -> list[Point]:
    """Measure recall of ten neighbours, CPU and latency for each `ef`."""
    truth, points = corpus.truth(asked), []
    for ef in efs:
        answers = asyncio.run(_ask(corpus.url, asked, _plan(ef), Filters(), LIMIT))
        p50_ms, p95_ms = map(float, np.percentile(answers.latencies_ms, (50, 95)))
        points.append(Point(ef, recall(answers.found, truth), answers.cpu_ms, p50_ms, p95_ms))
    return points


def cpu_at(points: Sequence[Point], wanted: float) -> float:
    """Return the CPU milliseconds per query at a wanted recall; NaN if none of the points reaches it.

    The `ef` for this recall is interpolated between the two nearest points. CPU grows linearly with `ef`; a line is
    fitted to all points, so that it matters little if another program has used the machine during one of them.
    """
    ordered = sorted(points, key=lambda point: point.recall)
    if ordered[-1].recall < wanted:
        return math.nan
    slope, base = np.polyfit([point.ef for point in points], [point.cpu_ms for point in points], 1)
    return float(base + slope * np.interp(wanted, [point.recall for point in ordered], [point.ef for point in ordered]))


def sql(corpus: Corpus, near: Sequence[Point], far: Sequence[Point]) -> Iterator[Figure]:
    """Measure recall and CPU of the SQL alone: by `ef`, then with the settings of a real search, then with filters.

    The first two are measured for `near` queries, which are like the rows, and for `far` ones, which are like texts.
    Filters are measured for `near` queries only.
    """
    name = f"{corpus.rows:,} x {search_corpus.DIMENSIONS} synthetic"
    for kind, asked, points in (("near", corpus.near, near), ("far (text-like)", corpus.far, far)):
        for point in points:
            yield Figure(
                f"{name}, {kind}, vectors alone, ef {point.ef}: recall@10 {point.recall:.3f}",
                f"{point.cpu_ms:.2f} CPU ms, p50 {point.p50_ms:.2f} ms, p95 {point.p95_ms:.2f} ms",
            )
        answers = asyncio.run(_ask(corpus.url, asked, _plan(DEFAULTS.ef_search), Filters(), DEFAULTS.candidates_max))
        yield Figure(
            f"{name}, {kind}, as searched ({DEFAULTS.candidates_max} candidates, ef {DEFAULTS.ef_search}):"
            f" recall@10 {recall(answers.found, corpus.truth(asked)):.3f}",
            f"{answers.cpu_ms:.2f} CPU ms",
        )
    for tag, every in SHARES.items():
        asked = corpus.near[:100]
        truth = corpus.truth(asked, every=every)
        answers = asyncio.run(
            _ask(corpus.url, asked, SearchLimits(timeout_ms=60_000), Filters(tags=(tag,)), DEFAULTS.candidates_max)
        )
        full = sum(len(ids) == LIMIT for ids in answers.found) / len(answers.found)
        yield Figure(
            f"{name}, filter of {1 / every:.1%}: recall@10 {recall(answers.found, truth):.3f}, full answers {full:.0%}",
            f"{answers.cpu_ms:.2f} CPU ms",
        )


# ── What more rows would need ──────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Measured:
    """Sizes of one catalogue: bytes per row on disk, and the seconds to build the graph."""

    rows: int
    heap_bytes: float
    graph_bytes: float
    words_bytes: float
    build_s: float


def measured(corpus: Corpus, build_s: float) -> Measured:
    with database.connect(corpus.url) as connection:
        found = search_corpus.sizes(connection)
    rest = sum(size for name, size in found.items() if not name.startswith("embeddings_m1")) / corpus.rows
    heap, graph = (found[name] / corpus.rows for name in ("embeddings_m1", "embeddings_m1_hnsw"))
    return Measured(corpus.rows, heap, graph, rest, build_s)


def growth(settings: Settings) -> Generator[Figure, None, float]:
    """Measure PostgreSQL's CPU at equal recall in a small and a large catalogue, in turns.

    The generator returns the factor by which this CPU grows when a catalogue gets ten times as many rows.
    """
    costs: dict[int, list[float]] = {FEWER_ROWS: [], ROWS: []}
    for number in range(ROUNDS):
        for rows, spent in costs.items():
            with search_corpus.corpus(search_words.of(settings, rows), rows) as corpus:
                if number and rows == FEWER_ROWS:
                    with database.connect(corpus.url, autocommit=True) as connection:
                        search_corpus.build_index(connection)
                warm(corpus)
                spent.append(cpu_at(curve(corpus, corpus.near, EFS_NEAR_IT), RECALL))
                pages = search_corpus.huge_pages(corpus)
    few, many = (statistics.median(spent) for spent in costs.values())
    said = {rows: f"{min(spent):.2f} to {max(spent):.2f} ms" for rows, spent in costs.items()}
    yield Figure(
        f"CPU of PostgreSQL a query at recall@10 {RECALL} (near, interpolated; huge pages {pages}; medians of {ROUNDS} in"
        f" turns), {FEWER_ROWS:,} ({ROUNDS} graphs, {said[FEWER_ROWS]}) to {ROWS:,} rows ({said[ROWS]})",
        f"{many:.2f} ms",
        f"{few:.2f} ms",
        many / few,
    )
    return float(max(1.0, many / few) ** (1 / math.log10(ROWS / FEWER_ROWS)))


def projection(more: Measured, grown: float, http: Costs) -> Iterator[Figure]:
    """Extrapolate the measured costs to catalogues with more rows.

    Bytes grow in proportion to the rows, PostgreSQL's CPU by the factor `grown` for every ten times as many rows. A
    request that is not cached costs the CPU time of PostgreSQL, replica and proxy; a cached one that of replica and
    proxy.
    """
    for rows in (10_000_000, 100_000_000):
        times = rows / more.rows
        cpu_ms = http.sql_ms * grown ** math.log10(times) + http.search_ms
        gb = [each * rows / 1e9 for each in (more.heap_bytes, more.graph_bytes, more.words_bytes)]
        hours = more.build_s * times * math.log(rows) / math.log(more.rows) / 3600
        cores = {hit: TARGET_RATE * ((1 - hit) * cpu_ms + hit * http.kept_ms) / 1000 for hit in (0.0, 0.9, 0.99)}
        needs = (
            f"{count:.0f} cores ({math.ceil(count / NODE_CORES)} replicas of {NODE_CORES}) at hit ratio {hit:.2f}"
            for hit, count in cores.items()
        )
        yield Figure(
            f"projected (extrapolated) to {rows:,} rows: RAM {sum(gb):.0f} GB a replica of the database (vectors"
            f" {gb[0]:.0f}, graph {gb[1]:.0f}, words {gb[2]:.0f}), build {hours:.1f} h on this machine,"
            f" {cpu_ms:.1f} CPU ms a request that is not kept; {TARGET_RATE:,}/s needs",
            ", ".join(needs),
            f"{http.sql_ms:.1f} + {http.search_ms:.1f} CPU ms, kept {http.kept_ms:.2f}, measured at {more.rows:,} rows",
        )


# ── All of it ──────────────────────────────────────────────────────────────────────────────────────────────────────


def run(settings: Settings) -> Iterator[Figure]:
    """Measure search on two catalogues in the data folder (`search-…`), which are made at the first run and kept."""
    for rows in (FEWER_ROWS, ROWS):
        own = search_words.of(settings, rows)
        with search_corpus.corpus(own, rows) as corpus:
            build_s = json.loads((own.data_dir / "corpus.json").read_text(encoding="utf-8"))["seconds"]["index"]
            yield Figure(f"{rows:,} x {search_corpus.DIMENSIONS} synthetic, HNSW built", f"{build_s:.0f} s")
            warm(corpus)
            yield from sql(corpus, curve(corpus, corpus.near), curve(corpus, corpus.far))
            yield from search_words.words(corpus)
            if rows == ROWS:
                more = measured(corpus, build_s)
                http = yield from search_http.figures(own, corpus)
            else:
                few_ms = yield from search_http.vectors_alone(own, corpus)
    many_ms = http.sql_ms + http.search_ms
    yield Figure(
        f"CPU of a whole request over HTTP (PostgreSQL, replica, proxy; near, vectors alone, recall above),"
        f" {FEWER_ROWS:,} to {ROWS:,} rows",
        f"{many_ms:.2f} ms",
        f"{few_ms:.2f} ms",
        many_ms / few_ms,
    )
    grown = yield from growth(settings)
    yield from projection(more, grown, http)
