"""The books of ingest jobs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from psycopg import Connection, Cursor

from cluster import database, runtime
from cluster.errors import Rejected
from cluster.settings import Settings
from pipelines import catalog, jobs, leases
from pipelines.catalog import Listed
from pipelines.jobs import Options
from pipelines.leases import Lease


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


def test_a_list_of_jobs_costs_the_same_few_questions_however_long_it_is(connection: Connection) -> None:
    connection.execute(
        "INSERT INTO media.jobs (id, source) SELECT 'job-' || n, 's3://b/' FROM generate_series(1, 200) AS n"
    )
    asked = 0

    class Counted(Cursor[Any]):
        def execute(self, *arguments: Any, **named: Any) -> Any:
            nonlocal asked
            asked += 1
            return super().execute(*arguments, **named)

    connection.cursor_factory = Counted
    assert len(jobs.listing(connection, 200)) == 200
    assert asked <= 4


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


def begin(connection: Connection, name: str, priority: int) -> None:
    connection.execute(
        "INSERT INTO media.jobs (id, source, priority, status, heartbeat_at) VALUES (%s, 's3://b', %s, 'running', now())",
        (name, priority),
    )
    connection.execute("SELECT media.register_model('m', 3, 'f')")
    catalog.register(connection, name, [Listed(f"s3://b/{name}.mp4", "e", 1, "ana", name)], 1)


def test_a_job_gives_way_to_one_of_higher_priority_while_that_has_videos_to_begin(connection: Connection) -> None:
    begin(connection, "calm", 0)
    begin(connection, "also-calm", 0)
    assert not jobs.is_outranked(connection, "calm")
    begin(connection, "urgent", 5)
    assert jobs.is_outranked(connection, "calm")
    assert not jobs.is_outranked(connection, "urgent")
    row = connection.execute("SELECT id FROM media.videos WHERE source_uri = 's3://b/urgent.mp4'").fetchone()
    assert row is not None
    assert isinstance(leases.claim(connection, row[0], "urgent/1", lease_s=60, starts_max=9), Lease)
    assert not jobs.is_outranked(connection, "calm")  # its last video is begun


def test_a_job_whose_driver_is_dead_holds_nobody_up(connection: Connection) -> None:
    begin(connection, "calm", 0)
    begin(connection, "urgent", 5)
    connection.execute("UPDATE media.jobs SET heartbeat_at = now() - interval '1 hour' WHERE id = 'urgent'")
    assert not jobs.is_outranked(connection, "calm")


def test_giving_way_ends_in_time(connection: Connection) -> None:
    begin(connection, "calm", 0)
    begin(connection, "urgent", 5)
    began = time.monotonic()
    jobs.give_way(connection, "calm", 1.5)
    assert 1.5 <= time.monotonic() - began < 10
    connection.execute(
        "UPDATE media.jobs SET status = 'cancelled', cancel = true, finished_at = now() WHERE id = 'urgent'"
    )
    began = time.monotonic()
    jobs.give_way(connection, "calm", 60)
    assert time.monotonic() - began < 10
