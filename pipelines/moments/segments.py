"""The tables of segments, embeddings and lineage, and how segments are made of staged chunks.

A segment keeps its id as long as its video, start and pipeline version stay the same. Ids are never reused, because the
ledger keeps money under them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from pgvector import HalfVector
from pgvector.psycopg import register_vector
from psycopg import Connection

from pipelines.media import PIPELINE_VERSION, Floats, Segment, Shot, Times
from pipelines.models.relevance import SAME_COSINE
from pipelines.moments import shots

COMPARED_ROWS = 256  # segments that are compared at once with those of before
# A stored segment: its id, its start and end in milliseconds, and since when its pictures have been shown, if that is longer
# than its video has its present content; else None.
StoredSegment = tuple[int, int, int, datetime | None]


@dataclass(frozen=True)
class Staged:
    """All chunks of a video in order, as one: frames with measurements, and candidates with vectors."""

    frame_ms: Times  # (frames,)
    features: Floats  # (frames, shots.FEATURES); (0, shots.FEATURES) in modes that look for no cuts
    candidate_ms: Times  # (candidates,)
    sharpness: Floats  # (candidates,)
    vectors: Floats  # (candidates, dimensions), unit length
    thumbnails: Sequence[bytes]  # WebP, one a candidate


@dataclass(frozen=True)
class SegmentsWritten:
    """The counts of a video's segments after they were replaced."""

    segments: int
    replaced: int  # segments that were removed
    before: int = 0  # segments that it had


def assemble(staged: Staged, shots_found: Sequence[Shot]) -> list[Segment]:
    """Make a segment of each shot.

    Its vector is the mean direction of the vectors of the shot's candidates, its thumbnail that of the sharpest one. If
    a shot has no candidate, the candidate nearest to its middle is used.
    """
    starts = np.array([shot.start_ms for shot in shots_found], np.int64)
    # (candidates,): the number of the shot that each candidate falls into
    shot_of = np.clip(np.searchsorted(starts, staged.candidate_ms, side="right") - 1, 0, None)
    segments = []
    for number, shot in enumerate(shots_found):
        members = np.flatnonzero(shot_of == number)
        if not len(members):  # shorter than the grid, or its frames were lost: take the nearest candidate
            middle = (shot.start_ms + shot.end_ms) // 2
            members = np.array([int(np.argmin(np.abs(staged.candidate_ms.astype(np.int64) - middle)))])
        sharpest = int(members[np.argmax(staged.sharpness[members])])
        best_ms = min(max(int(staged.candidate_ms[sharpest]), shot.start_ms), shot.end_ms)
        vector = _mean_direction(staged.vectors[members])
        segments.append(Segment(shot.start_ms, shot.end_ms, best_ms, staged.thumbnails[sharpest], vector))
    return segments


def find_shots(staged: Staged, mode: str, end_ms: int, rules: shots.Rules, fixed_ms: int) -> list[Shot]:
    """Divide a video into shots: at its cuts if every frame was measured, else into shots of one length.

    Args:
        staged: The video's frames.
        mode: The sampling mode of the ingest settings; only "frames" measures every frame.
        end_ms: Duration of the video in milliseconds.
        rules: Limits of a shot's length.
        fixed_ms: Length of a shot in the other modes, in milliseconds.

    Returns:
        The shots in order, without gaps, from the first frame to the end.
    """
    last = max(end_ms, int(staged.frame_ms[-1]) + 1)
    if mode == "frames":
        return shots.find(staged.frame_ms, staged.features, last, rules)
    return shots.fixed(int(staged.frame_ms[0]), last, fixed_ms, staged.frame_ms)


def _mean_direction(vectors: Floats) -> Floats:
    """Return the normalised mean of unit vectors (n, dimensions) as (dimensions,); the first one if they cancel out."""
    mean = vectors.astype(np.float64).mean(axis=0)
    length = float(np.linalg.norm(mean))
    unit: Floats = (mean / length if length > 1e-9 else vectors[0]).astype(np.float32)
    return unit


def thumbnails(connection: Connection, video_id: int) -> list[str]:
    """Return the URIs of the thumbnails that a video's segments show now."""
    rows = connection.execute(
        "SELECT thumbnail_uri FROM media.segments WHERE video_id = %s AND thumbnail_uri IS NOT NULL", (video_id,)
    ).fetchall()
    return [uri for (uri,) in rows]


def replace(
    connection: Connection, video_id: int, model_id: int, moments: Sequence[Segment], uris: Sequence[str]
) -> SegmentsWritten:
    """Replace a video's segments, within the caller's transaction; the same segments again change nothing.

    A segment whose pictures the video showed before keeps the time since when they have been shown. If that is true of
    all segments, the video counts as having its content since the latest of these times.

    Args:
        connection: Connection to the primary, in a transaction that holds the video's row.
        video_id: Number of the video.
        model_id: Number of the model that made the vectors.
        moments: The new segments.
        uris: The thumbnail's URI of each.

    Returns:
        The counts of the segments that are there now, of those that were removed, and of those that were there before.
    """
    old_rows = connection.execute(
        "SELECT id, start_ms, end_ms, shown_since FROM media.segments WHERE video_id = %s FOR UPDATE", (video_id,)
    ).fetchall()
    register_vector(connection)
    shown_since = _shown_since(connection, video_id, model_id, old_rows, moments)
    ids = _upsert(connection, video_id, moments, uris, shown_since)
    removed_rows = [row for row in old_rows if row[0] not in set(ids)]
    if removed_rows:
        _redirect(connection, removed_rows, moments, ids)
        connection.execute(
            "DELETE FROM media.embeddings WHERE segment_id = ANY(%s)", ([row[0] for row in removed_rows],)
        )
        connection.execute("DELETE FROM media.segments WHERE id = ANY(%s)", ([row[0] for row in removed_rows],))
    _write_vectors(connection, video_id, model_id, moments, ids)
    known_since = [since for since in shown_since if since is not None]
    if known_since and len(known_since) == len(moments):
        connection.execute("UPDATE media.videos SET content_at = %s WHERE id = %s", (max(known_since), video_id))
    return SegmentsWritten(len(ids), len(removed_rows), len(old_rows))


def _shown_since(
    connection: Connection,
    video_id: int,
    model_id: int,
    old_rows: Sequence[StoredSegment],
    moments: Sequence[Segment],
) -> list[datetime | None]:
    """Return since when the video has shown each new segment's pictures, if that is longer than it has its content.

    So a film that is encoded again has been there as long as before; what only takes the place of a film has not.
    """
    if all(since is None for *_, since in old_rows):
        return [None] * len(moments)
    row = connection.execute(
        "SELECT coalesce(content_at <= ready_at, true) FROM media.videos WHERE id = %s", (video_id,)
    ).fetchone()
    if row == (True,):  # the same content, for another model or cut in other places
        return [_since_at(old_rows, (moment.start_ms + moment.end_ms) // 2) for moment in moments]
    return _since_by_pictures(connection, video_id, model_id, moments)


def _since_at(old_rows: Sequence[StoredSegment], middle_ms: int) -> datetime | None:
    """Return since when the stored segment at this time has been shown."""
    return next((since for _, start, end, since in old_rows if start <= middle_ms < end), None)


def _since_by_pictures(
    connection: Connection, video_id: int, model_id: int, moments: Sequence[Segment]
) -> list[datetime | None]:
    """Return, for segments of new content, since when the video has shown their pictures, by vectors of this model."""
    rows = connection.execute(
        "SELECT s.shown_since, e.embedding FROM media.segments s"
        " JOIN media.embeddings e ON e.model_id = %s AND e.segment_id = s.id"
        " WHERE s.video_id = %s AND s.shown_since IS NOT NULL ORDER BY s.shown_since",
        (model_id, video_id),
    ).fetchall()
    if not rows:
        return [None] * len(moments)
    old = np.stack([vector.to_numpy() for _, vector in rows]).astype(np.float32)  # (stored, dimensions)
    shown_since: list[datetime | None] = []
    for start in range(0, len(moments), COMPARED_ROWS):
        new = np.stack([moment.vector for moment in moments[start : start + COMPARED_ROWS]])  # (new, dimensions)
        alike = new @ old.T >= SAME_COSINE  # (new, stored); the stored ones ascend by `shown_since`
        shown_since += [rows[int(row.argmax())][0] if row.any() else None for row in alike]
    return shown_since


def _upsert(
    connection: Connection,
    video_id: int,
    moments: Sequence[Segment],
    uris: Sequence[str],
    shown_since: Sequence[datetime | None],
) -> list[int]:
    """Insert or update the segments; return their ids in order."""
    columns = {
        "starts": [moment.start_ms for moment in moments],
        "ends": [moment.end_ms for moment in moments],
        "bests": [moment.best_frame_ms for moment in moments],
        "uris": list(uris),
        "since": list(shown_since),
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


def _redirect(
    connection: Connection, removed_rows: Sequence[StoredSegment], moments: Sequence[Segment], ids: Sequence[int]
) -> None:
    """Record which new segments overlap each removed one, and by which share of the removed one."""
    lineage = []
    for old_id, start, end, _ in removed_rows:
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
    """Replace the embeddings by this model: rows are deleted and copied in, never updated."""
    connection.execute("DELETE FROM media.embeddings WHERE video_id = %s AND model_id = %s", (video_id, model_id))
    connection.execute(  # the rows of other models hold the segments' times too
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


def forget_lineage(connection: Connection, video_id: int) -> None:
    """Delete the redirects to and from a video's segments, which would outlive the segments themselves."""
    connection.execute(
        "DELETE FROM media.segment_lineage l USING media.segments s"
        " WHERE s.video_id = %s AND s.id IN (l.old_id, l.new_id)",
        (video_id,),
    )
