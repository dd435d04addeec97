"""Repooling: the moments of every ready video made anew of its frame vectors, without decoding anything.

One video at a time, in a transaction each; run again, it changes nothing. Knows the order, not how a moment is made.
"""

from __future__ import annotations

from typing import Any

from psycopg import Connection

from cluster.errors import Rejected
from cluster.storage import Storage
from pipelines import frame_vectors, sink
from pipelines.settings import IngestSettings

REFUSED_SHOWN_MAX = 20


def run(connection: Connection, storage: Storage, bucket: str, settings: IngestSettings) -> dict[str, Any]:
    """Every video whose frame vectors are there, by each model that is still known."""
    known = {row[0] for row in connection.execute("SELECT id FROM media.models").fetchall()}
    videos: set[int] = set()
    segments = skipped = 0
    refused: list[str] = []
    for video_id, model_id in frame_vectors.listed(storage, bucket):
        if model_id not in known:
            continue
        try:
            kept = sink.repool(connection, storage, video_id, model_id, bucket=bucket, settings=settings)
        except Rejected as error:
            refused.append(f"{error.detail}: {error.hint}")
            continue
        if kept is None:
            skipped += 1
            continue
        segments += 0 if video_id in videos else kept.segments
        videos.add(video_id)
    return {"videos": len(videos), "segments": segments, "skipped": skipped, "refused": refused[:REFUSED_SHOWN_MAX]}
