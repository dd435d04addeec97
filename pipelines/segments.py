"""The tables of moments: segments, their vectors, and where old ones went; and how a moment is made of what was staged.

A segment keeps its id as long as its video, start and pipeline version stay the same; ids are given once and never
again, because money is kept under them.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from operator import itemgetter

import numpy as np
from pgvector import HalfVector
from pgvector.psycopg import register_vector
from psycopg import Connection

from pipelines import contents, shots
from pipelines.media import PIPELINE_VERSION, Floats, Segment, Shot, Times

REDIRECTS_MAX = 20
# A moment that is replaced: its id, start and end, and since when it is shown where that is longer than its video's content.
Before = tuple[int, int, int, datetime | None]


@dataclass(frozen=True)
class Staged:
    """All chunks of a video, in order, as one: a time and measurements a frame; time, sharpness, vector a candidate."""

    frame_ms: Times
    features: Floats
    candidate_ms: Times
    sharpness: Floats
    vectors: Floats
    thumbnails: Sequence[bytes]


@dataclass(frozen=True)
class Kept:
    """What became of a video's moments."""

    segments: int
    replaced: int
    before: int = 0  # how many it had


def assemble(staged: Staged, found: Sequence[Shot]) -> list[Segment]:
    """Pool the candidates of each shot: their mean direction, and the sharpest of them to show."""
    starts = np.array([shot.start_ms for shot in found], np.int64)
    shot_of = np.clip(np.searchsorted(starts, staged.candidate_ms, side="right") - 1, 0, None)
    segments = []
    for number, shot in enumerate(found):
        inside = np.flatnonzero(shot_of == number)
        if not len(inside):  # shorter than the grid, or its frames were lost: the nearest stands for it
            middle = (shot.start_ms + shot.end_ms) // 2
            inside = np.array([int(np.argmin(np.abs(staged.candidate_ms.astype(np.int64) - middle)))])
        best = int(inside[np.argmax(staged.sharpness[inside])])
        best_ms = min(max(int(staged.candidate_ms[best]), shot.start_ms), shot.end_ms)
        vector = _mean_direction(staged.vectors[inside])
        segments.append(Segment(shot.start_ms, shot.end_ms, best_ms, staged.thumbnails[best], vector))
    return segments


def find_shots(staged: Staged, mode: str, end_ms: int, rules: shots.Rules, fixed_ms: int) -> list[Shot]:
    """Cuts where every frame was seen, moments of one length where not."""
    last = max(end_ms, int(staged.frame_ms[-1]) + 1)
    if mode == "frames":
        return shots.find(staged.frame_ms, staged.features, last, rules)
    return shots.fixed(int(staged.frame_ms[0]), last, fixed_ms, staged.frame_ms)


def _mean_direction(vectors: Floats) -> Floats:
    mean = vectors.astype(np.float64).mean(axis=0)
    length = float(np.linalg.norm(mean))
    unit: Floats = (mean / length if length > 1e-9 else vectors[0]).astype(np.float32)
    return unit


def thumbnails(connection: Connection, video_id: int) -> list[str]:
    """Addresses of the thumbnails that a video's moments show now."""
    rows = connection.execute(
        "SELECT thumbnail_uri FROM media.segments WHERE video_id = %s AND thumbnail_uri IS NOT NULL", (video_id,)
    ).fetchall()
    return [uri for (uri,) in rows]


def replace(
    connection: Connection,
    video_id: int,
    model_id: int,
    moments: Sequence[Segment],
    uris: Sequence[str],
    *,
    same: float | None = None,
) -> Kept:
    """Make these the moments of a video, within the caller's transaction; the same ones again change nothing.

    With `same`, the cosine from which on two show the same pictures, they are compared with what the video showed earlier.
    """
    register_vector(connection)
    before = connection.execute(
        "SELECT id, start_ms, end_ms, shown_since FROM media.segments WHERE video_id = %s FOR UPDATE", (video_id,)
    ).fetchall()
    since = _shown_at(before, [(moment.start_ms + moment.end_ms) // 2 for moment in moments])
    if same is not None:
        earlier = contents.earlier(connection, video_id, model_id, moments, same)
        since = [min(filter(None, each), default=None) for each in zip(since, earlier, strict=True)]
    ids = _upsert(connection, video_id, moments, uris, since)
    kept = set(ids)
    gone = [row for row in before if row[0] not in kept]
    if gone:
        _redirect(connection, gone, moments, ids)
        connection.execute("DELETE FROM media.embeddings WHERE segment_id = ANY(%s)", ([row[0] for row in gone],))
        connection.execute("DELETE FROM media.segments WHERE id = ANY(%s)", ([row[0] for row in gone],))
    _write_vectors(connection, video_id, model_id, moments, ids)
    return Kept(len(ids), len(gone), len(before))


def _shown_at(before: Sequence[Before], middles_ms: Sequence[int]) -> list[datetime | None]:
    """Since when the moments at these times are shown, where that is longer than their video has its content."""
    rows = sorted(before, key=itemgetter(1))  # they do not overlap, and a day of video has tens of thousands
    starts = [start for _, start, _, _ in rows]
    found = [rows[place - 1] if (place := bisect_right(starts, middle)) else None for middle in middles_ms]
    return [row[3] if row and middle < row[2] else None for row, middle in zip(found, middles_ms, strict=True)]


def _upsert(
    connection: Connection,
    video_id: int,
    moments: Sequence[Segment],
    uris: Sequence[str],
    since: Sequence[datetime | None],
) -> list[int]:
    columns = {
        "starts": [moment.start_ms for moment in moments],
        "ends": [moment.end_ms for moment in moments],
        "bests": [moment.best_frame_ms for moment in moments],
        "uris": list(uris),
        "since": list(since),
        "video": video_id,
        "version": PIPELINE_VERSION,
    }
    rows = connection.execute(
        """
        INSERT INTO media.segments (video_id, creator_id, start_ms, end_ms, best_frame_ms, description, search,
                                    thumbnail_uri, pipeline_version, shown_since)
        SELECT v.id, v.creator_id, m.start_ms, m.end_ms, m.best_ms, v.description, v.search, m.uri, %(version)s, m.since
        FROM (SELECT *, media.search_text(language, title, tags, description) AS search
              FROM media.videos WHERE id = %(video)s) AS v,
             unnest(%(starts)s::int[], %(ends)s::int[], %(bests)s::int[], %(uris)s::text[], %(since)s::timestamptz[])
                 AS m (start_ms, end_ms, best_ms, uri, since)
        ORDER BY m.start_ms
        ON CONFLICT (video_id, start_ms, pipeline_version) DO UPDATE SET
            end_ms = excluded.end_ms, best_frame_ms = excluded.best_frame_ms, description = excluded.description,
            search = excluded.search, thumbnail_uri = excluded.thumbnail_uri, shown_since = excluded.shown_since
        RETURNING start_ms, id
        """,
        columns,
    ).fetchall()
    by_start: dict[int, int] = dict(rows)
    return [by_start[moment.start_ms] for moment in moments]


def _redirect(connection: Connection, gone: Sequence[Before], moments: Sequence[Segment], ids: Sequence[int]) -> None:
    lineage = []
    for old_id, start, end, _ in gone:
        for moment, new_id in zip(moments, ids, strict=True):
            overlap = min(end, moment.end_ms) - max(start, moment.start_ms)
            if overlap > 0:
                lineage.append((old_id, new_id, overlap / (end - start)))
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO media.segment_lineage (old_id, new_id, overlap) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING",
            lineage,
        )


def _write_vectors(
    connection: Connection, video_id: int, model_id: int, moments: Sequence[Segment], ids: Sequence[int]
) -> None:
    """Vectors are never changed in place: those of this model go, the new ones are copied in."""
    connection.execute("DELETE FROM media.embeddings WHERE video_id = %s AND model_id = %s", (video_id, model_id))
    connection.execute(  # another model's rows carry the same times
        "UPDATE media.embeddings e SET end_ms = s.end_ms FROM media.segments s"
        " WHERE e.video_id = %s AND e.segment_id = s.id AND e.end_ms <> s.end_ms",
        (video_id,),
    )
    row = connection.execute("SELECT creator_id FROM media.videos WHERE id = %s", (video_id,)).fetchone()
    assert row is not None
    columns = "model_id, segment_id, video_id, creator_id, start_ms, end_ms, embedding"
    with connection.cursor().copy(f"COPY media.embeddings ({columns}) FROM STDIN (FORMAT BINARY)") as copy:
        copy.set_types(["int2", "int8", "int8", "int8", "int4", "int4", "halfvec"])
        for moment, segment_id in zip(moments, ids, strict=True):
            vector = HalfVector(moment.vector)
            copy.write_row((model_id, segment_id, video_id, row[0], moment.start_ms, moment.end_ms, vector))


def current(connection: Connection, segment_id: int) -> int | None:
    """The id under which a moment lives today: its own, or that of the one with the largest overlap, step by step."""
    row = connection.execute(
        """
        WITH RECURSIVE path (id, step) AS (
            SELECT %(id)s::bigint, 0
            UNION ALL
            SELECT (SELECT l.new_id FROM media.segment_lineage l WHERE l.old_id = p.id
                    ORDER BY l.overlap DESC, l.new_id LIMIT 1), p.step + 1
            FROM path p WHERE p.id IS NOT NULL AND p.step < %(max)s
        )
        SELECT s.id FROM path p JOIN media.segments s ON s.id = p.id ORDER BY p.step LIMIT 1
        """,
        {"id": segment_id, "max": REDIRECTS_MAX},
    ).fetchone()
    return row[0] if row else None
