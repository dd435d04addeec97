"""The report of a job: seconds per stage, frames per second, bytes, cost per hour of video, the slowest videos.

Computed from what `moments/sink.py` counts as chunks arrive; nothing is measured here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from psycopg import Connection

from cluster.settings import Settings
from pipelines.settings import IngestSettings

SLOWEST_SHOWN = 5
STORE_FIGURES = {  # what the driver notes of Ray's object store
    "object_store_peak_share": "greatest share of the object store that was in use, of all nodes",
    "object_store_spilled_mb": "MB (2^20 bytes) that the object store has spilled to disk since the job was begun",
}
FIGURES = {  # the numbers of a report, each also a metric of the job (`gauges`), and what they mean
    "wall_seconds": "time since the job was begun, by the clock",
    "hours_of_video": "length of the videos that the job has made ready",
    "frames": "frames that were decoded",
    "frames_per_second": "frames that were decoded for each second of `wall_seconds`",
    "frames_embedded": "frames that were embedded",
    "bytes": "size of the files that were read",
    "fetch_seconds": "time for fetching files, summed over all tasks",
    "decode_cpu_seconds": "CPU time for decoding, summed over all tasks",
    "embed_cpu_seconds": "CPU time for embedding, summed over all actors",
    "batch_fill": "share of the places in the encoder's batches that held a frame",
    "decoders_busy": "average number of decoders at work",
    "embedders_busy": "average number of embedders at work",
    **STORE_FIGURES,
    "cost_per_hour_of_video_usd": "cost of an hour of video, by the prices in `[ingest]`",
}


def of(settings: Settings, connection: Connection, job: Mapping[str, Any]) -> dict[str, Any]:
    """Return the report of a job, finished or not."""
    row = connection.execute(
        "SELECT coalesce(sum(j.frames), 0)::bigint, coalesce(sum(j.bytes), 0)::bigint,"
        " coalesce(sum(j.embedded), 0)::bigint, coalesce(sum(j.embed_slots), 0)::float8,"
        " coalesce(sum(j.fetch_seconds), 0)::float8, coalesce(sum(j.decode_seconds), 0)::float8,"
        " coalesce(sum(j.embed_seconds), 0)::float8,"
        " coalesce(sum(v.duration_ms) FILTER (WHERE j.outcome = 'ready'), 0)::float8 / 3600000"
        " FROM media.job_videos j JOIN media.videos v ON v.id = j.video_id WHERE j.job_id = %s",
        (job["id"],),
    ).fetchone()
    assert row is not None  # an aggregate returns a row
    frames, size, embedded, slots, fetch_s, decode_s, embed_s, hours = row
    ingest = settings.section(IngestSettings)
    wall_s = job["seconds"] or 0.0
    gpu_s = embed_s if ingest.embedder_gpus else 0.0
    cost = (decode_s + embed_s - gpu_s) / 3600 * ingest.cpu_hour_usd + gpu_s / 3600 * ingest.gpu_hour_usd
    report = {
        "wall_seconds": round(wall_s, 1),
        "hours_of_video": round(hours, 4),
        "frames": frames,
        "frames_per_second": job["progress"]["frames_per_s"],
        "frames_embedded": embedded,
        "bytes": size,
        "fetch_seconds": round(fetch_s, 2),
        "decode_cpu_seconds": round(decode_s, 2),
        "embed_cpu_seconds": round(embed_s, 2),
        "batch_fill": round(embedded / slots, 3) if slots else None,
        "decoders_busy": round(decode_s / wall_s, 2) if wall_s else None,  # average number at once
        "embedders_busy": round(embed_s / wall_s, 2) if wall_s else None,
        **_store(connection, job["id"]),
        "cost_per_hour_of_video_usd": round(cost / hours, 5) if hours else None,
        "slowest": _slowest(connection, job["id"]),
    }
    assert report.keys() == {*FIGURES, "slowest"}, "the reference of metrics names the figures"
    return report


def _store(connection: Connection, job_id: str) -> dict[str, Any]:
    """Return what the driver has seen of Ray's object store; None values for a job that never began."""
    row = connection.execute("SELECT report FROM media.jobs WHERE id = %s", (job_id,)).fetchone()
    assert row is not None  # the job was just read
    return {name: row[0].get(name) for name in STORE_FIGURES}


def _slowest(connection: Connection, job_id: str) -> list[str]:
    """Return the job's slowest videos with their seconds."""
    rows = connection.execute(
        "SELECT v.source_uri, j.decode_seconds + j.embed_seconds FROM media.job_videos j"
        " JOIN media.videos v ON v.id = j.video_id WHERE j.job_id = %s AND j.frames > 0 ORDER BY 2 DESC LIMIT %s",
        (job_id, SLOWEST_SHOWN),
    ).fetchall()
    return [f"{uri.rpartition('/')[2]} {seconds:.1f} s" for uri, seconds in rows]
