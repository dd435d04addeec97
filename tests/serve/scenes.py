"""Scenes of the visual world, painted and encoded once: pictures a search has something to find in.

Each scene shows one concept on a plain ground. Titles say nothing of what is seen, so that only vectors can find it.
"""

from __future__ import annotations

import io
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from psycopg import Connection

from pipelines.samples import world, world_paint
from pipelines.samples.world import Background, Scene
from serve.replica.encoder import EncoderInfo
from serve.replica.encoding import QueryEncoder

NAMES = (
    "apple", "banana", "rocket", "umbrella", "bicycle", "airplane", "penguin", "pizza", "castle", "octopus", "owl", "dog",
)  # fmt: skip
SIDE_PIXELS = 256
SHOTS = 2
SHOT_MS = 2000


@dataclass(frozen=True)
class Scenes:
    """`vectors[n]` and `pictures[n]` (PNG) are of the concept `names[n]`, seen twice in different places."""

    facts: EncoderInfo
    names: tuple[str, ...]
    pictures: tuple[bytes, ...]
    vectors: NDArray[np.float32]  # [concept, shot, dimensions]

    def picture(self, name: str) -> bytes:
        return self.pictures[self.names.index(name)]


def paint(model: QueryEncoder) -> Scenes:
    """A video's worth of every concept that the artwork has."""
    concepts = {concept.name: concept for concept in world.artwork().concepts}
    rng, painter = random.Random(3), world_paint.Painter(world.artwork(), SIDE_PIXELS, SIDE_PIXELS)
    pictures, vectors = [], []
    for name in NAMES:
        shots = [_png(painter.paint(_scene(rng, concepts[name].index))) for _ in range(SHOTS)]
        pictures.append(shots[0])
        vectors.append([model.image(shot) for shot in shots])
    return Scenes(model.facts(), NAMES, tuple(pictures), np.array(vectors, np.float32))


def _scene(rng: random.Random, concept: int) -> Scene:
    composed = world.compose(rng, [concept], moving=False)
    return Scene(Background(next(iter(world.COLOURS)), 7), composed.items)


def _png(pixels: NDArray[np.uint8]) -> bytes:
    kept = io.BytesIO()
    Image.fromarray(pixels).save(kept, "PNG")
    return kept.getvalue()


@dataclass(frozen=True)
class Gallery:
    """Ids of what was put into the catalogue: a video a concept, its moments in the order of time."""

    model_id: int
    creators: tuple[int, ...]
    videos: dict[str, int]
    moments: dict[str, tuple[int, ...]]


def hang(connection: Connection[Any], painted: Scenes, creators: Sequence[str] = ("ada", "bob")) -> Gallery:
    """Put every scene into an empty catalogue, the creators taking turns."""
    facts = painted.facts
    model_id = _one(
        connection, "SELECT media.register_model(%s, %s, %s)", facts.name, facts.dimensions, facts.fingerprint
    )
    owners = tuple(
        _one(connection, "INSERT INTO media.creators (handle, name) VALUES (%s, %s) RETURNING id", name, name)
        for name in creators
    )
    videos, moments = {}, {}
    for number, name in enumerate(painted.names):
        videos[name] = _one(
            connection,
            "INSERT INTO media.videos (creator_id, source_uri, title, description, tags, duration_ms, width, height,"
            " fps, has_audio, status, ready_at, pipeline_version) VALUES (%s, %s, %s, %s, %s, %s, 320, 180, 25, false,"
            " 'ready', now(), 1) RETURNING id",
            owners[number % len(owners)],
            f"s3://pixr/gallery/{number}.mp4",
            f"Reel {chr(65 + number)}",
            f"the collection of number{number}",
            ["gallery", f"row{number % 3}"],
            SHOTS * SHOT_MS,
        )
        moments[name] = tuple(
            _moment(connection, model_id, videos[name], shot, vector)
            for shot, vector in enumerate(painted.vectors[number])
        )
    connection.commit()
    return Gallery(model_id, owners, videos, moments)


def _moment(connection: Connection[Any], model_id: int, video: int, shot: int, vector: NDArray[np.float32]) -> int:
    moment = _one(
        connection,
        "INSERT INTO media.segments (video_id, creator_id, start_ms, end_ms, best_frame_ms, description, search,"
        " pipeline_version) SELECT id, creator_id, %(start)s, %(start)s + 1900, %(start)s + 700, description,"
        " media.search_text(language, title, tags, description), 1 FROM media.videos WHERE id = %(video)s RETURNING id",
        start=shot * SHOT_MS,
        video=video,
    )
    connection.execute(
        "INSERT INTO media.embeddings (model_id, segment_id, video_id, creator_id, start_ms, end_ms, embedding)"
        " SELECT %s, id, video_id, creator_id, start_ms, end_ms, %s::halfvec FROM media.segments WHERE id = %s",
        (model_id, "[" + ",".join(f"{value:.6g}" for value in vector) + "]", moment),
    )
    return moment


def _one(connection: Connection[Any], query: str, *parameters: Any, **named: Any) -> int:
    row = connection.execute(query, named or parameters).fetchone()  # type: ignore[arg-type]
    assert row is not None
    return int(row[0])
