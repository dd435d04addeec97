"""Repooling: the moments of every ready video made anew of its frame vectors, without decoding anything.

One video at a time, in a transaction each; run again, it changes nothing. Knows the order, not how a moment is made.
"""

from __future__ import annotations

from typing import Any

from psycopg import Connection

from cluster.errors import Rejected
from cluster.storage import Storage
from pipelines.moments import frame_vectors, segments, sink
from pipelines.settings import IngestSettings

REFUSED_SHOWN_MAX = 20


def run(connection: Connection, storage: Storage, bucket: str, settings: IngestSettings) -> dict[str, Any]:
    """Every video whose frame vectors are there, by each model that is still known."""
    known = {row[0] for row in connection.execute("SELECT id FROM media.models").fetchall()}
    videos: set[int] = set()
    made = skipped = 0
    refused: list[str] = []
    looked_at, shown = -1, list[str]()
    for video_id, model_id in frame_vectors.listed(storage, bucket):
        if model_id not in known:
            continue
        if (
            video_id != looked_at
        ):  # its models follow each other at once, and links to what was shown are kept for longer
            looked_at, shown = video_id, segments.thumbnails(connection, video_id)
        try:
            kept = sink.repool(connection, storage, video_id, model_id, bucket=bucket, settings=settings, spared=shown)
        except Rejected as error:
            refused.append(f"{error.detail}: {error.hint}")
            continue
        if kept is None:
            skipped += 1
            continue
        made += 0 if video_id in videos else kept.segments
        videos.add(video_id)
    return {"videos": len(videos), "segments": made, "skipped": skipped, "refused": refused[:REFUSED_SHOWN_MAX]}
