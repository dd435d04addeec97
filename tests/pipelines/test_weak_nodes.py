"""A machine that cannot confine a decoder fetches nothing, and a job that finds no other says so at once.

The machine is made weak by what makes containers so: a filter of system calls that knows no Landlock, put on the thread
that starts everything.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from psycopg import Connection

from cluster import database
from cluster.errors import Rejected
from cluster.runtime import S3Endpoint
from cluster.settings import Settings
from pipelines import catalog, nodes, stages
from pipelines.confinement.layers import LANDLOCK
from pipelines.listed import Listed
from pipelines.media import UNCONFINED, Failure
from pipelines.sandbox import Sandbox
from pipelines.settings import IngestSettings, ModelSettings
from pipelines.stages import Decode, Done, Model, Place, Plan, Refused, Store, Task
from tests.conftest import supervised, throwaway_settings
from tests.forgetting import forget_landlock
from tests.pipelines import counted
from tests.pipelines.test_ingest import copied, submit, wait

WEAK = Failure(UNCONFINED, "this machine cannot confine a decoder: no landlock")


@pytest.fixture
def weak(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    """This process's sandbox, without Landlock."""
    box = Sandbox(without=(LANDLOCK,))
    monkeypatch.setattr(stages, "sandbox", lambda: box)
    yield box
    box.close()


@pytest.fixture
def place(postgres_url: str, s3: S3Endpoint, bucket: str, tmp_path: Path) -> Place:
    ingest = IngestSettings(scratch_dir=str(tmp_path / "scratch"), backoff_base_s=0.0)
    return Place("j", "j/1", postgres_url, s3, bucket, ingest, ModelSettings(), Model(1, "m", 64, "squash", "f"))


@pytest.fixture
def catalogued(place: Place) -> Iterator[Connection]:
    """A database that knows a video which is not there: whoever fetches it says so."""
    with database.connect(place.postgres_url, autocommit=True) as opened:
        opened.execute("SELECT media.register_model('m', 3, 'f')")
        opened.execute("INSERT INTO media.jobs (id, source) VALUES ('j', 's3://b')")
        catalog.register(opened, "j", [Listed(f"s3://{place.bucket}/gone.mp4", "", 1000, "ana", "Film")], 1)
        yield opened


def test_nothing_is_fetched_for_a_probe(weak: Sandbox, place: Place, catalogued: Connection) -> None:
    (row,) = Plan(place)(1)
    assert isinstance(row, Refused)
    assert row.failure.code == UNCONFINED
    assert "no landlock" in row.failure.reason
    assert Store(place)(row) == Done(1, UNCONFINED)
    found = catalogued.execute("SELECT status, attempts, failures, error FROM media.videos").fetchone()
    assert found is not None
    assert found[:3] == ("queued", 0, 0)  # another node may take it
    assert "no landlock" in found[3]


def test_nothing_is_fetched_for_a_chunk(
    place: Place, catalogued: Connection, clips: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = counted.tasks(counted.probed(clips / "cuts.mp4"), 60_000)[0]
    box = Sandbox(without=(LANDLOCK,))
    monkeypatch.setattr(stages, "sandbox", lambda: box)
    row = Decode(place)(Task(task.lease, task.chunk, task.order, 0.0))
    box.close()
    assert isinstance(row, Refused)
    assert row.failure.code == UNCONFINED


def test_a_job_ends_where_every_node_has_refused() -> None:
    with pytest.raises(Rejected, match="no landlock"):
        nodes.judge([WEAK, WEAK])
    nodes.judge([WEAK, None])
    nodes.judge([WEAK], silent=1)
    nodes.judge([Failure("sandbox-lost", "the process that keeps the decoders was killed")])
    nodes.judge([])


# ── A whole job on weak nodes ──────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def ray_head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """As that of the other tests, on a machine without Landlock."""
    settings = throwaway_settings(tmp_path_factory.mktemp("weak"))
    with ThreadPoolExecutor(1, initializer=forget_landlock) as thread:  # what it starts has its filter
        running = supervised(settings, "ray")
        yield thread.submit(running.__enter__).result()
        thread.submit(running.__exit__, None, None, None).result()


def test_a_job_on_weak_nodes_ends_at_once_with_the_reason(
    deployment: Settings, connection: Connection, clips: Path, tmp_path: Path
) -> None:
    began = time.monotonic()
    folder = copied(tmp_path / "films", clips / "cuts.mp4", clips / "vp9.webm")
    job = wait(connection, submit(deployment, connection, folder))
    assert job["status"] == "failed"
    assert "none of the nodes that decode (1) takes videos: this machine cannot confine a decoder" in job["error"]
    assert "no landlock" in job["error"]
    assert time.monotonic() - began < 150  # not sixty rounds
    assert (job["videos"]["total"], job["videos"]["failed"]) == (2, 2)
    said = connection.execute("SELECT status, error FROM media.videos").fetchall()
    assert all(status == "failed" and "no landlock" in error for status, error in said)
