"""Since when a video has shown what it shows: its content, and the pictures of its moments.

A content is known by its hash: a video has it since it was first found there, whatever came between. Pictures are known by
vectors: a moment has the time of the earliest pictures of its video that are the same as its own, and is compared with
those themselves. Were it compared with what was the same as they, a video would become any other film by small steps and
keep its time. A model that has no vectors of earlier pictures says nothing of them: what is shown counts as new until one
that has them has vectors of it, and those follow by themselves while that model is used or followed.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import numpy as np
from psycopg import Connection

from pipelines.media import Segment

COMPARED_ROWS = 256  # moments that are compared at once with earlier ones


def take_over(connection: Connection, video_id: int, earlier_moments_max: int) -> None:
    """Make what the attempt has found the content of a video, whose moments are about to be replaced.

    In the caller's transaction, which holds the video's row. The same content again changes nothing. Vectors of another
    one, by whichever model, are kept apart: at most so many of a video, the earliest.
    """
    is_other = connection.execute(
        "SELECT 1 FROM media.videos WHERE id = %s AND probed_hash <> coalesce(content_hash, '')", (video_id,)
    ).fetchone()
    if is_other is None:
        return
    _keep(connection, video_id, earlier_moments_max)
    connection.execute("DELETE FROM media.embeddings WHERE video_id = %s", (video_id,))
    connection.execute("UPDATE media.segments SET shown_since = NULL WHERE video_id = %s", (video_id,))
    connection.execute(
        "UPDATE media.videos v SET content_hash = c.content_hash, content_at = c.since, repost_accepted = false"
        " FROM media.contents c WHERE v.id = %s AND c.video_id = v.id AND c.content_hash = v.probed_hash",
        (video_id,),
    )


def _keep(connection: Connection, video_id: int, earlier_moments_max: int) -> None:
    # Of one time a model has the pictures of one content, the first that it knows: what was the same by it, or by another
    # model before this one was there, never takes their place.
    connection.execute(
        """
        INSERT INTO media.earlier_moments (video_id, model_id, since, embedding)
        SELECT e.video_id, e.model_id, w.since, e.embedding
        FROM media.videos v JOIN media.embeddings e ON e.video_id = v.id JOIN media.segments s ON s.id = e.segment_id,
             LATERAL (SELECT coalesce(s.shown_since, v.content_at, v.created_at) AS since) w
        WHERE v.id = %(video)s AND NOT EXISTS (
              SELECT FROM media.earlier_moments m
              WHERE m.video_id = v.id AND m.model_id = e.model_id AND m.since = w.since)
        ORDER BY w.since, e.start_ms
        LIMIT greatest(0, %(max)s - (SELECT count(*) FROM media.earlier_moments WHERE video_id = %(video)s))
        """,
        {"video": video_id, "max": earlier_moments_max},
    )


def earlier(
    connection: Connection, video_id: int, model_id: int, moments: Sequence[Segment], same: float
) -> list[datetime | None]:
    """Since when each moment's pictures were shown before the video had its content; None: since then.

    Those of a cosine of `same` and more are the same pictures to this model. The connection knows the type of vectors.
    """
    rows = connection.execute(
        "SELECT m.since, m.embedding FROM media.earlier_moments m JOIN media.videos v ON v.id = m.video_id"
        " WHERE m.video_id = %s AND m.model_id = %s AND m.since < coalesce(v.content_at, v.created_at) ORDER BY m.since",
        (video_id, model_id),
    ).fetchall()
    if not rows:
        return [None] * len(moments)
    old = np.stack([vector.to_numpy() for _, vector in rows]).astype(np.float32)
    since: list[datetime | None] = []
    for start in range(0, len(moments), COMPARED_ROWS):
        new = np.stack([moment.vector for moment in moments[start : start + COMPARED_ROWS]])
        alike = new @ old.T >= same  # (moments, earlier moments), the earliest first
        since += [rows[int(row.argmax())][0] if row.any() else None for row in alike]
    return since
