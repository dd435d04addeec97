"""A bucket of 100,000 objects: listed, registered by a first job, and skipped by a second one that has nothing to do."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from psycopg import Connection

from benchmarks.ingest import stack
from benchmarks.run import Figure
from cluster import runtime
from cluster.runtime import S3Endpoint
from cluster.settings import Settings
from cluster.storage import Storage
from pipelines.catalog import catalog
from pipelines.jobs import jobs
from pipelines.media import PIPELINE_VERSION
from pipelines.sources import source
from pipelines.sources.listed import Listed

OBJECTS = 100_000
AT_ONCE = 32
PREFIX = "listing"
DONE_S = 30.0  # "in seconds"

T = TypeVar("T")


def run(settings: Settings) -> Iterator[Figure]:
    """Measure the listing, its registration by a first job, and that by a second job after all videos are done."""
    with stack(settings) as (made, connection):
        storage, uri = Storage(runtime.endpoints(made).s3), f"s3://{made.s3.bucket}/{PREFIX}"
        storage.ensure_bucket(made.s3.bucket)
        asyncio.run(_fill(storage.endpoint, made.s3.bucket))
        row = connection.execute("SELECT media.register_model('m', 3, 'f')").fetchone()
        assert row is not None
        model = int(row[0])
        list_s, videos = _timed(lambda: source.listed(uri, storage).videos)
        assert len(videos) == OBJECTS
        first_s, _ = _timed(lambda: _register(connection, "first", videos, model))
        assert len(jobs.open_videos(connection, "first")[0]) == OBJECTS
        _finish(connection, model)
        again_s, _ = _timed(lambda: _register(connection, "again", videos, model))
        assert jobs.open_videos(connection, "again")[0] == []
    name = f"a bucket of {OBJECTS:,} objects"
    yield Figure(f"{name}: listed", f"{list_s:.1f} s")
    yield Figure(f"{name}: made known to a first job", f"{first_s:.1f} s")
    whole_s = list_s + again_s
    yield Figure(
        f"{name}: listed and skipped, all done", f"{whole_s:.1f} s", f"{DONE_S:.0f} s wanted", whole_s / DONE_S
    )


async def _fill(endpoint: S3Endpoint, bucket: str) -> None:
    """Put small objects into the bucket, with names as videos have them."""
    import s3fs

    files = s3fs.S3FileSystem(
        key=endpoint.key,
        secret=endpoint.secret,
        endpoint_url=endpoint.url,
        config_kwargs={"s3": {"addressing_style": "path"}, "max_pool_connections": AT_ONCE},
        client_kwargs={"region_name": endpoint.region},
        asynchronous=True,
        skip_instance_cache=True,
    )
    session = await files.set_session()
    gate = asyncio.Semaphore(AT_ONCE)

    async def put(number: int) -> None:
        async with gate:
            await session.put_object(Bucket=bucket, Key=f"{PREFIX}/{number % 100:02d}/{number:06d}.mp4", Body=b"x")

    await asyncio.gather(*(put(number) for number in range(OBJECTS)))
    await session.close()


def _register(connection: Connection, job_id: str, videos: list[Listed], model: int) -> None:
    connection.execute("INSERT INTO media.jobs (id, source) VALUES (%s, 's3://b')", (job_id,))
    catalog.register(connection, job_id, videos, model)
    jobs.mark_listed(connection, job_id)


def _finish(connection: Connection, model: int) -> None:
    """Make every video look ingested: ready, with one segment and one embedding."""
    connection.execute(
        "UPDATE media.videos SET status = 'ready', ready_at = now(), pipeline_version = %s", (PIPELINE_VERSION,)
    )
    connection.execute(
        "INSERT INTO media.segments (video_id, creator_id, start_ms, end_ms, best_frame_ms, search, pipeline_version)"
        " SELECT id, creator_id, 0, 1000, 0, '', %s FROM media.videos",
        (PIPELINE_VERSION,),
    )
    connection.execute(
        "INSERT INTO media.embeddings (model_id, segment_id, video_id, creator_id, start_ms, end_ms, embedding)"
        " SELECT %s, id, video_id, creator_id, start_ms, end_ms, '[1,0,0]' FROM media.segments",
        (model,),
    )
    connection.execute("ANALYZE media.videos, media.embeddings, media.job_videos")


def _timed(call: Callable[[], T]) -> tuple[float, T]:
    began = time.monotonic()
    done = call()
    return time.monotonic() - began, done
