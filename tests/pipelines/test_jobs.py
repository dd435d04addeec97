"""The books of ingest jobs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from psycopg import Connection

from cluster import database, runtime
from cluster.errors import Rejected
from cluster.settings import Settings
from pipelines import jobs
from pipelines.jobs import Options


@pytest.fixture
def connection(settings: Settings) -> Iterator[Connection]:
    with database.connect(settings.postgres.url, autocommit=True) as opened:
        yield opened


def test_a_source_that_cannot_be_read_makes_no_job(settings: Settings, connection: Connection) -> None:
    runtime.port(settings, "solana", 8899)
    runtime.port(settings, "ray", 6379)
    runtime.port(settings, "ray-dashboard", 8265)
    for uri, code in (("s3://elsewhere/x", "bucket-not-allowed"), ("/etc", "bad-request"), ("s3://", "bad-request")):
        with pytest.raises(Rejected) as caught:
            jobs.create(settings, connection, uri)
        assert caught.value.code == code
    assert jobs.listing(connection) == []


def test_an_unknown_job_is_not_found(connection: Connection) -> None:
    with pytest.raises(Rejected) as caught:
        jobs.get(connection, "none")
    assert caught.value.status == 404


def test_options_are_checked() -> None:
    with pytest.raises(Rejected, match="mode"):
        Options(mode="everything")


@pytest.mark.parametrize(
    ("videos", "words"),
    [
        ({"total": 3, "ready": 2, "failed": 0, "quarantined": 1}, None),
        ({"total": 3, "ready": 2, "failed": 0, "quarantined": 0}, "1 of 3 videos are neither ready nor refused"),
        ({"total": 3, "ready": 2, "failed": 1, "quarantined": 0}, "1 of 3 videos could not be ingested"),
    ],
)
def test_every_video_must_be_accounted_for(videos: dict[str, int], words: str | None) -> None:
    assert jobs.reconcile({"videos": videos}) == words
