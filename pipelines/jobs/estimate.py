"""What ingesting a source would mean: how many videos, how many are done already, and what the rest will take.

Judged by what earlier jobs took for a byte. Makes no job, sends nothing and changes nothing.
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
    settings: Settings, connection: Connection, videos: Sequence[Listed], model: str = "", noted: Remarks | None = None
) -> dict[str, Any]:
    """Counts, and an estimate where there is experience. What was taken down is `noted`, as a job would."""
    stands = catalog.finished(connection, videos, model or settings.section(ModelSettings).name)
    left = [video for video in videos if video.source_uri not in stands]
    counts = Counter(stands.values())
    for video in videos:
        if noted is not None and stands.get(video.source_uri) == "removed":
            noted.add(TAKEN_DOWN, STAYS, video.source_uri.rpartition("/")[2])
    size = sum(video.size for video in left)
    return {
        "videos": len(videos),
        "creators": len({video.creator for video in videos}),
        "bytes": sum(video.size for video in videos),
        "done_before": counts["ready"],
        "refused_before": counts["quarantined"],
        "taken_down_before": counts["removed"],
        "to_ingest": len(left),
        "to_ingest_bytes": size,
        "estimate": _estimate(settings, connection, size),
    }


def _estimate(settings: Settings, connection: Connection, size: int) -> dict[str, Any] | None:
    """CPU seconds, hours of video and money; None before the first job."""
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
