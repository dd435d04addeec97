"""An estimate of what ingesting a source would take: videos that are done already, and time and cost of the rest.

It is computed from what earlier jobs took for each byte. Creates no job, uploads nothing and changes nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from psycopg import Connection

from cluster.settings import Settings
from pipelines.catalog import catalog
from pipelines.settings import IngestSettings, ModelSettings
from pipelines.sources.listed import Listed
from pipelines.sources.remarks import STAYS, TAKEN_DOWN, Remarks


def of(
    settings: Settings,
    connection: Connection,
    videos: Sequence[Listed],
    model: str = "",
    remarks: Remarks | None = None,
) -> dict[str, Any]:
    """Count the videos of a source and estimate the cost of ingesting them.

    Args:
        settings: All settings.
        connection: Connection to the primary.
        videos: Videos as the source was listed.
        model: Model of the job; "" for that of the settings.
        remarks: Collects a remark on each video that was taken down, as a job would.

    Returns:
        The counts, and under "estimate" what `_estimate` returns.
    """
    finished = catalog.finished(connection, videos, model or settings.section(ModelSettings).name)
    remaining = [video for video in videos if video.source_uri not in finished]
    counts = Counter(finished.values())
    for video in videos:
        if remarks is not None and finished.get(video.source_uri) == "removed":
            remarks.add(TAKEN_DOWN, STAYS, video.source_uri.rpartition("/")[2])
    size = sum(video.size for video in remaining)
    return {
        "videos": len(videos),
        "creators": len({video.creator for video in videos}),
        "bytes": sum(video.size for video in videos),
        "done_before": counts["ready"],
        "refused_before": counts["quarantined"],
        "taken_down_before": counts["removed"],
        "to_ingest": len(remaining),
        "to_ingest_bytes": size,
        "estimate": _estimate(settings, connection, size),
    }


def _estimate(settings: Settings, connection: Connection, size: int) -> dict[str, Any] | None:
    """Return CPU seconds, hours of video and cost for `size` bytes; None before the first job has finished a video."""
    row = connection.execute(
        "SELECT sum(j.decode_seconds)::float8, sum(j.embed_seconds)::float8, sum(v.duration_ms)::float8 / 3600000,"
        " nullif(sum(j.bytes), 0)::float8"
        " FROM media.job_videos j JOIN media.videos v ON v.id = j.video_id WHERE j.outcome = 'ready' AND j.frames > 0"
    ).fetchone()
    if row is None or row[3] is None:
        return None
    decode_s, embed_s, hours = (value * size / row[3] for value in row[:3])
    ingest = settings.section(IngestSettings)
    embed_usd = ingest.gpu_hour_usd if ingest.embedder_gpus else ingest.cpu_hour_usd
    return {
        "hours_of_video": round(hours, 3),
        "decode_cpu_seconds": round(decode_s, 1),
        "embed_seconds": round(embed_s, 1),
        "cost_usd": round((decode_s * ingest.cpu_hour_usd + embed_s * embed_usd) / 3600, 4),
    }
