"""Repooling: make the moments of every ready video again from its frame vectors, without decoding.

One video at a time, in a transaction each; running it again changes nothing. Knows the order, not how a moment is made.
"""

from __future__ import annotations

from typing import Any

from psycopg import Connection

from cluster.errors import Rejected
from cluster.storage import Storage
from pipelines.models import registry
from pipelines.moments import frame_vectors, segments, sink
from pipelines.settings import IngestSettings

REFUSED_SHOWN_MAX = 20


def run(connection: Connection, storage: Storage, bucket: str, settings: IngestSettings) -> dict[str, Any]:
    """Repool every video with stored frame vectors, for each model that is still registered.

    Args:
        connection: Connection to the primary, in autocommit mode.
        storage: Object store of frame vectors and thumbnails.
        bucket: Bucket of frame vectors and thumbnails.
        settings: Rules for shots.

    Returns:
        Counts of `videos` and `segments` made, of videos `skipped` because they are not ready or in use, and the first
        reasons why frame vectors were `refused`.
    """
    known_models = registry.ids(connection)
    videos: set[int] = set()
    segments_made = skipped = 0
    refused: list[str] = []
    current_video, shown = -1, list[str]()
    for video_id, model_id in frame_vectors.listed(storage, bucket):
        if model_id not in known_models:
            continue
        if video_id != current_video:  # several models of one video: keep the thumbnails from before the first one
            current_video, shown = video_id, segments.thumbnails(connection, video_id)
        try:
            written = sink.repool(
                connection, storage, video_id, model_id, bucket=bucket, settings=settings, spared=shown
            )
        except Rejected as error:
            refused.append(f"{error.detail}: {error.hint}")
            continue
        if written is None:
            skipped += 1
            continue
        segments_made += 0 if video_id in videos else written.segments
        videos.add(video_id)
    return {
        "videos": len(videos),
        "segments": segments_made,
        "skipped": skipped,
        "refused": refused[:REFUSED_SHOWN_MAX],
    }
