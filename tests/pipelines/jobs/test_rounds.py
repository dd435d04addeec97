"""A job waits for videos that rest without losing rounds over it, and not for ever."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
from psycopg import Connection

from cluster.database import database
from cluster.runtime import S3Endpoint
from pipelines import ingest
from pipelines.catalog import catalog
from pipelines.ingest import Heartbeat, startable
from pipelines.models.registry import ModelInfo
from pipelines.nodes import Survey
from pipelines.settings import IngestSettings, ModelSettings
from pipelines.sources.listed import Listed
from pipelines.stages import JobContext


@pytest.fixture
def place(postgres_url: str, s3: S3Endpoint) -> JobContext:
    return JobContext(
        "j", "j/1", postgres_url, s3, "b", IngestSettings(), ModelSettings(), ModelInfo(1, "m", 64, "squash", "f")
    )


@pytest.fixture
def connection(place: JobContext) -> Iterator[Connection]:
    with database.connect(place.postgres_url, autocommit=True) as opened:
        opened.execute("SELECT media.register_model('m', 3, 'f')")
        opened.execute("INSERT INTO media.jobs (id, source) VALUES ('j', 's3://b')")
        catalog.register(opened, "j", [Listed("s3://b/one.mp4", "", 1000, "ana", "One")], 1)
        yield opened


@pytest.fixture
def heart(place: JobContext) -> Heartbeat:
    return Heartbeat(place.postgres_url, "j", 1, "j/1", lease_s=10, also=lambda _: None)


def rest(connection: Connection, seconds: float) -> None:
    connection.execute("UPDATE media.videos SET retry_at = now() + make_interval(secs => %s)", (seconds,))


def patient(place: JobContext, seconds: float) -> JobContext:
    """The same place, where a job waits as long for what cannot be begun."""
    return replace(place, ingest=IngestSettings(waited_max_s=seconds))


def test_a_video_that_rests_is_waited_for(connection: Connection, place: JobContext, heart: Heartbeat) -> None:
    rest(connection, ingest.WAIT_MAX_S + 1)  # longer than one wait
    began = time.monotonic()
    assert startable(connection, place, heart) == [1]
    assert time.monotonic() - began > ingest.WAIT_MAX_S


def test_waiting_ends(
    connection: Connection, place: JobContext, heart: Heartbeat, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest, "WAIT_MAX_S", 0.2)
    rest(connection, 3600)
    began = time.monotonic()
    assert startable(connection, patient(place, 0.5), heart) == []
    assert time.monotonic() - began >= 0.5


def test_a_job_that_shall_stop_waits_for_nothing(connection: Connection, place: JobContext, heart: Heartbeat) -> None:
    heart.stopped = True
    assert startable(connection, place, heart) == []


def test_a_job_that_never_comes_to_a_video_fails_it(
    connection: Connection, place: JobContext, heart: Heartbeat
) -> None:
    rest(connection, 3600)
    ingest.rounds(connection, patient(place, 0.0), heart, Survey(place.ingest))
    assert connection.execute("SELECT status FROM media.videos").fetchone() == ("failed",)
