"""A synthetic catalogue: clustered vectors in videos of a few moments each, with tags of known selectivity.

Vectors of a video lie together, videos gather around Zipf-weighted topics, all share a cone, as those of CLIP models
do. `queries` are drawn like vectors and are not among them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from psycopg import Connection

AT = "2026-01-01T00:00:00Z"
SHARES = (0.5, 0.1, 0.05, 0.01, 0.001)


ROWS, DIMENSIONS = 3000, 32


@dataclass(frozen=True)
class Corpus:
    """`ids` are the segments', from 1; `videos` the video of each."""

    vectors: NDArray[np.float32]
    videos: NDArray[np.int64]
    queries: NDArray[np.float32]
    tags: dict[float, NDArray[np.bool_]]  # which videos (by id - 1) carry the tag of a share
    per_video: int

    @property
    def ids(self) -> NDArray[np.int64]:
        return np.arange(1, len(self.vectors) + 1)

    def tagged(self, share: float) -> tuple[str, NDArray[np.bool_]]:
        """The tag that this share of all videos carries, and which rows fit it."""
        return f"share{share}", self.tags[share][self.videos - 1]


@dataclass(frozen=True)
class Catalogue:
    """A database, and the corpus that is in it."""

    url: str
    corpus: Corpus


def clustered(rows: int, dimensions: int, seed: int, per_video: int = 3, queries: int = 50) -> Corpus:
    """Rows around topics; every row of a video near the others."""
    rng = np.random.default_rng(seed)
    count = rows // per_video
    topics = rng.standard_normal((max(2, count // 40), dimensions), np.float32)
    weights = 1 / np.arange(1, len(topics) + 1)
    spectrum = 1 / np.sqrt(np.arange(1, dimensions + 1, dtype=np.float32))
    cone = rng.standard_normal(dimensions, np.float32) * 0.5

    def draw(number: int, each: int) -> NDArray[np.float32]:
        chosen = topics[rng.choice(len(topics), number, p=weights / weights.sum())]
        centres = chosen + 0.5 * rng.standard_normal((number, dimensions), np.float32)
        made = np.repeat(centres, each, 0) + 0.8 * rng.standard_normal((number * each, dimensions), np.float32)
        made = made * spectrum + cone
        return np.asarray(made / np.linalg.norm(made, axis=1, keepdims=True), np.float32)

    tags = {share: np.arange(count) % round(1 / share) == 0 for share in SHARES}
    videos = np.repeat(np.arange(1, count + 1), per_video)
    return Corpus(draw(count, per_video), videos, draw(queries, 1), tags, per_video)


def load(connection: Connection[Any], corpus: Corpus, creators: int = 10) -> None:
    """Put a corpus into an empty catalogue whose model is `synthetic`; the index is there already and grows along."""
    connection.execute(
        "INSERT INTO media.creators (handle, name) SELECT 'c' || n, 'c' || n FROM generate_series(1, %s) n", (creators,)
    )
    connection.execute("SELECT media.register_model('synthetic', %s, 'synthetic')", (corpus.vectors.shape[1],))
    count = int(corpus.videos.max())
    with connection.cursor().copy(
        "COPY media.videos (creator_id, source_uri, title, description, tags, duration_ms, width, height, fps,"
        " has_audio, status, created_at, ready_at, pipeline_version) FROM STDIN"
    ) as copy:
        for video in range(count):
            tags = ["all", *(f"share{share}" for share, carriers in corpus.tags.items() if carriers[video])]
            words = f"common words {'rare' if video % 50 == 7 else 'usual'} thing"
            copy.write_row((
                video % creators + 1, f"s3://synthetic/{video}", f"Video number{video + 1}", words, tags,
                10_000 + video % 60 * 1000, 1920, (480, 720, 1080)[video % 3], 25.0, False, "ready", AT, AT, 1,
            ))  # fmt: skip
    connection.execute("UPDATE media.videos SET created_at = created_at + make_interval(secs => id)")
    connection.execute(
        "INSERT INTO media.segments (video_id, creator_id, start_ms, end_ms, best_frame_ms, description, search,"
        " pipeline_version) SELECT v.id, v.creator_id, n * 2000, n * 2000 + 1900, n * 2000 + 500, v.description,"
        " media.search_text(v.language, v.title, v.tags, v.description), 1"
        " FROM media.videos v, generate_series(0, %s) n ORDER BY v.id, n",
        (corpus.per_video - 1,),
    )
    connection.execute("CREATE TEMP TABLE incoming (id bigint, embedding halfvec)")
    with connection.cursor().copy("COPY incoming (id, embedding) FROM STDIN") as copy:
        for number, vector in zip(corpus.ids, corpus.vectors, strict=True):
            copy.write_row((int(number), "[" + ",".join(f"{value:.5g}" for value in vector) + "]"))
    connection.execute(
        "INSERT INTO media.embeddings (model_id, segment_id, video_id, creator_id, start_ms, end_ms, embedding)"
        " SELECT 1, s.id, s.video_id, s.creator_id, s.start_ms, s.end_ms, i.embedding FROM incoming i"
        " JOIN media.segments s USING (id) ORDER BY s.id"
    )
    connection.execute("ANALYZE media.videos")
    connection.execute("ANALYZE media.segments")
    connection.execute("ANALYZE media.embeddings_m1")
