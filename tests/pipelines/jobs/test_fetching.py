"""What a worker fetches was allowed when it fetches it, whatever the tables say by then."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from cluster.database import database
from cluster.errors import Rejected
from cluster.runtime import S3Endpoint
from cluster.storage import Storage
from pipelines import stages
from pipelines.catalog import catalog
from pipelines.models.registry import ModelInfo
from pipelines.settings import IngestSettings, ModelSettings
from pipelines.sources.listed import Listed
from pipelines.stages import JobContext, Plan, Refused, Task


def test_a_dependency_that_refuses_us_is_no_fault_of_a_video() -> None:
    for error, is_final in ((Rejected("no such user", 503, "database-refused"), False), (Rejected("too large"), True)):
        assert stages.as_failure(error).final is is_final


def test_a_video_outside_the_configured_buckets_is_not_fetched(
    postgres_url: str, s3: S3Endpoint, bucket: str, clips: Path, tmp_path: Path
) -> None:
    other = f"{bucket}-secrets"
    storage = Storage(s3)
    storage.ensure_bucket(other)
    names = (bucket, other)
    for name in names:
        storage.put_bytes((clips / "cuts.mp4").read_bytes(), f"s3://{name}/film.mp4")
    size = (clips / "cuts.mp4").stat().st_size
    listed = [Listed(f"s3://{name}/film.mp4", "", size, "ana", "Film") for name in names]
    with database.connect(postgres_url, autocommit=True) as connection:
        connection.execute("SELECT media.register_model('m', 3, 'f')")
        connection.execute("INSERT INTO media.jobs (id, source) VALUES ('j', 's3://b')")
        catalog.register(connection, "j", listed, 1)
        ids = dict(connection.execute("SELECT source_uri, id FROM media.videos").fetchall())
    ingest = IngestSettings(scratch_dir=str(tmp_path / "scratch"))
    model = ModelInfo(1, "m", 64, "squash", "f")
    only = dataclasses.replace(s3, buckets=(bucket,))
    plan = Plan(JobContext("j", "j/1", postgres_url, only, bucket, ingest, ModelSettings(), model))
    allowed, refused = (list(plan(ids[each.source_uri])) for each in listed)
    assert all(isinstance(row, Task) for row in allowed)
    (row,) = refused
    assert isinstance(row, Refused)
    assert (row.failure.code, row.failure.final) == ("bucket-not-allowed", True)
    assert len([path for path in (tmp_path / "scratch").rglob("*") if path.is_file() and not path.suffix]) == 1
