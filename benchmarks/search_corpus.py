"""A synthetic catalogue for `benchmarks.search`: clustered vectors in a PostgreSQL of its own, built once and kept.

It is not product data, and harder to search than typical sets of CLIP vectors. There are 5,000 topics with Zipf
weights; a video lies near its topic, and its 25 moments lie near the video. The noise has a falling spectrum, and all
vectors lie in a common cone. `near` queries are drawn like moments but are not among them. `far` queries are shifted by
a constant vector and have twice the noise, as vectors of texts are to those of pictures. Words are Zipf-distributed.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from psycopg import Connection, sql

from cluster import runtime
from cluster.database import database, migrations
from cluster.embedded.postgres import Postgres
from cluster.errors import Temporary
from cluster.observability import health
from cluster.settings import Settings
from pipelines.index import admin as index_admin

DIMENSIONS = 512
TOPICS = 5000
PER_VIDEO = 25
CHUNK_VIDEOS = 2000
QUERIES = 400
WORDS, WORDS_PER_VIDEO = 5000, 12
SHARES = {"percent": 100, "permille": 1000}  # a tag on every so many videos
SHARED_BUFFERS_MB = 4096
BUILD_MEMORY_MB = 4096
MODEL = "synthetic"

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Corpus:
    """A filled and indexed database; `vectors[n]` belongs to segment n + 1, in the precision that is stored."""

    url: str
    rows: int
    vectors: NDArray[np.float16]
    near: Floats
    far: Floats

    def truth(self, queries: Floats, limit: int = 10, every: int = 1) -> NDArray[np.int64]:
        """Return the ids of the true nearest segments of each query, (queries, limit).

        Only the moments of every `every`th video are searched; 1 stands for all.
        """
        best = np.full((len(queries), limit), -np.inf, np.float32)
        ids = np.zeros((len(queries), limit), np.int64)
        stored = queries.astype(np.float16).astype(np.float32)
        for start in range(0, self.rows, 50_000):
            rows = np.arange(start, min(start + 50_000, self.rows))
            rows = rows[(rows // PER_VIDEO) % every == 0]
            if not len(rows):
                continue
            cosines = stored @ self.vectors[rows].astype(np.float32).T
            cosines, candidates = np.hstack([best, cosines]), np.hstack([ids, np.tile(rows + 1, (len(queries), 1))])
            order = np.argsort(-cosines, axis=1)[:, :limit]
            best, ids = np.take_along_axis(cosines, order, 1), np.take_along_axis(candidates, order, 1)
        return ids


class Maker:
    """Draws vectors; the same seed gives the same ones."""

    def __init__(self, seed: int = 1) -> None:
        self._rng = np.random.default_rng(seed)
        self._topics = self._rng.standard_normal((TOPICS, DIMENSIONS), np.float32)
        weights = 1 / np.arange(1, TOPICS + 1)
        self._weights = weights / weights.sum()
        self._spectrum = (1 / np.sqrt(1 + np.arange(DIMENSIONS) / 16)).astype(np.float32)
        self._cone = self._rng.standard_normal(DIMENSIONS).astype(np.float32) * 0.3
        self._gap = self._rng.standard_normal(DIMENSIONS).astype(np.float32) * 0.3

    def moments(self, videos: int, each: int, noise: float = 0.6, gap: float = 0.0) -> Floats:
        chosen = self._topics[self._rng.choice(TOPICS, videos, p=self._weights)]
        centres = chosen + 0.6 * self._rng.standard_normal((videos, DIMENSIONS), np.float32)
        made = np.repeat(centres, each, 0)
        made += noise * self._rng.standard_normal(made.shape, np.float32)
        made = made * self._spectrum + self._cone + gap * self._gap
        made /= np.linalg.norm(made, axis=1, keepdims=True)
        return np.asarray(made, np.float32)


@contextmanager
def postgres(settings: Settings) -> Iterator[str]:
    """Run the embedded server with more memory than its default, and yield its URL."""
    server = Postgres(
        settings.with_section(dataclasses.replace(settings.postgres, shared_buffers_mb=SHARED_BUFFERS_MB))
    )
    (settings.data_dir / "run").mkdir(parents=True, exist_ok=True)
    server.prepare()
    process = subprocess.Popen([*server.command().argv, "--max-wal-size=8GB", "--max-parallel-maintenance-workers=1"])
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                server.check()
                break
            except Temporary:
                if time.monotonic() > deadline or process.poll() is not None:
                    raise
                time.sleep(0.2)
        yield runtime.postgres_url(settings, runtime.DATABASE)
    finally:
        process.send_signal(server.command().stop_signal)
        process.wait(60)


@contextmanager
def corpus(settings: Settings, rows: int) -> Iterator[Corpus]:
    """Yield the catalogue with `rows` moments; it is made at the first call."""
    folder = settings.data_dir
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with postgres(settings) as url:
        health.postgres(url)
        migrations.migrate(url)  # one that was made by an earlier release too
        if not (folder / "corpus.json").exists():
            _make(url, folder, rows)
        queries = np.load(folder / "queries.npz")
        yield Corpus(url, rows, np.load(folder / "vectors.npy", mmap_mode="r"), queries["near"], queries["far"])


def _make(url: str, folder: Path, rows: int) -> None:
    times: dict[str, float] = {}
    with database.connect(url, autocommit=True) as connection:
        for name, step in (("videos", _videos), ("segments", _segments)):
            times[name] = _timed(step, connection, rows)
        times["vectors"] = _timed(_vectors, connection, rows, folder)
        times["index"] = _timed(build_index, connection)
    (folder / "corpus.json").write_text(json.dumps({"rows": rows, "seconds": times}), encoding="utf-8")


def _timed(step: Any, *arguments: Any) -> float:
    began = time.monotonic()
    step(*arguments)
    return round(time.monotonic() - began, 1)


def _videos(connection: Connection[Any], rows: int) -> None:
    rng = np.random.default_rng(2)
    connection.execute(
        "INSERT INTO media.creators (handle, name) SELECT 'c' || n, 'Creator ' || n FROM generate_series(1, 1000) n"
    )
    with connection.cursor().copy(
        "COPY media.videos (creator_id, source_uri, title, description, tags, duration_ms, width, height, fps,"
        " has_audio, status, ready_at, pipeline_version) FROM STDIN"
    ) as copy:
        for video in range(rows // PER_VIDEO):
            words = [f"word{min(WORDS, number)}" for number in rng.zipf(1.3, WORDS_PER_VIDEO)]
            tags = ["all", *(name for name, every in SHARES.items() if video % every == 0)]
            title, rest = " ".join(words[:4]), " ".join(words[4:])
            copy.write_row((
                video % 1000 + 1, f"s3://synthetic/{video}", title, rest, tags, PER_VIDEO * 4000, 1280, 720, 25.0, False,
                "ready", "2026-01-01T00:00:00Z", 1,
            ))  # fmt: skip


def _segments(connection: Connection[Any], _rows: int) -> None:
    connection.execute("DROP INDEX media.segments_search")
    connection.execute(
        "INSERT INTO media.segments (video_id, creator_id, start_ms, end_ms, best_frame_ms, description, search,"
        " pipeline_version) SELECT v.id, v.creator_id, n * 4000, n * 4000 + 3900, n * 4000 + 500, '', v.search, 1"
        " FROM (SELECT id, creator_id, media.search_text(language, title, tags, description) AS search"
        f"  FROM media.videos OFFSET 0) v, generate_series(0, {PER_VIDEO - 1}) n ORDER BY v.id, n"
    )
    connection.execute("CREATE INDEX segments_search ON media.segments USING gin (search)")
    connection.execute("VACUUM ANALYZE media.segments")
    connection.execute("VACUUM ANALYZE media.videos, media.texts, media.impacts, media.completions")


def _vectors(connection: Connection[Any], rows: int, folder: Path) -> None:
    connection.execute("SELECT media.register_model(%s, %s, %s)", (MODEL, DIMENSIONS, MODEL))
    connection.execute("DROP INDEX media.embeddings_m1_hnsw")
    maker = Maker()
    np.savez(
        folder / "queries.npz",
        near=maker.moments(QUERIES, 1),
        far=maker.moments(QUERIES, 1, noise=1.2, gap=1.0),
    )
    kept = np.lib.format.open_memmap(folder / "vectors.npy", "w+", np.float16, (rows, DIMENSIONS))
    columns = "model_id, segment_id, video_id, creator_id, start_ms, end_ms, embedding"
    types = ["int2", "int8", "int8", "int8", "int4", "int4", "halfvec"]
    from pgvector.psycopg import register_vector

    register_vector(connection)
    with connection.cursor().copy(f"COPY media.embeddings ({columns}) FROM STDIN WITH (FORMAT BINARY)") as copy:
        copy.set_types(types)
        for first in range(0, rows // PER_VIDEO, CHUNK_VIDEOS):
            vectors = maker.moments(min(CHUNK_VIDEOS, rows // PER_VIDEO - first), PER_VIDEO).astype(np.float16)
            start = first * PER_VIDEO
            kept[start : start + len(vectors)] = vectors
            for number, vector in enumerate(vectors, start):
                video, place = divmod(number, PER_VIDEO)
                row = (1, number + 1, video + 1, video % 1000 + 1, place * 4000, place * 4000 + 3900)
                copy.write_row((*row, _halfvec(vector)))
    kept.flush()
    connection.execute("VACUUM ANALYZE media.embeddings_m1")


def _halfvec(vector: NDArray[np.float16]) -> Any:
    from pgvector import HalfVector

    return HalfVector(vector)


def build_index(connection: Connection[Any]) -> None:
    """Build the HNSW graph, in place of an existing one. The connection is in autocommit mode."""
    target = index_admin.model(connection, MODEL)
    index_admin.build(connection, target, "hnsw", BUILD_MEMORY_MB)


def huge_pages(corpus: Corpus) -> str:
    """Return "on" if the server's memory lies in huge pages, else "off"."""
    with database.connect(corpus.url) as connection:
        row = connection.execute("SHOW huge_pages_status").fetchone()
    assert row is not None  # of SHOW
    return str(row[0])


def sizes(connection: Connection[Any]) -> dict[str, int]:
    """Return the bytes on disk of each table and index."""
    names = (
        "embeddings_m1", "embeddings_m1_hnsw", "segments", "segments_search", "videos", "texts", "texts_search", "impacts",
        "impacts_pkey", "impacts_best", "completions", "completions_pkey", "completions_video",
    )  # fmt: skip
    return {
        name: int(connection.execute(sql.SQL("SELECT pg_relation_size({})").format(f"media.{name}")).fetchone()[0])  # type: ignore[index]
        for name in names
    }
