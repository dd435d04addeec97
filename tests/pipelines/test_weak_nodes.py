"""A machine that cannot confine a decoder is given nothing, and a job that finds no other says so at once.

The machine is made weak by what makes containers so: a filter of system calls that knows no Landlock, put on the thread
that starts everything. Further nodes are started by another thread, and are strong.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from psycopg import Connection
from ray._private.authentication_test_utils import reset_auth_token_state

from cluster import ray_cluster
from cluster.database import database
from cluster.embedded.keeper import kill_tree
from cluster.errors import Rejected
from cluster.runtime import S3Endpoint
from cluster.settings import Settings
from pipelines import nodes, stages
from pipelines.catalog import catalog
from pipelines.confinement.layers import LANDLOCK
from pipelines.jobs import jobs
from pipelines.media import TEMPORARY, UNCONFINED, Failure
from pipelines.models.registry import ModelInfo
from pipelines.sandbox.sandbox import Sandbox
from pipelines.settings import IngestSettings, ModelSettings
from pipelines.sources.listed import Listed
from pipelines.stages import Decode, Done, JobContext, Plan, Refused, Store, Task
from tests.conftest import supervised, throwaway_settings
from tests.forgetting import forget_landlock
from tests.pipelines import counted
from tests.pipelines.test_ingest import copied, multiplied, submit, wait
from tests.pipelines.test_nodes import NODE_CPUS, decodes, joined

WEAK = Failure(UNCONFINED, "this machine cannot confine a decoder: no landlock")


@pytest.fixture
def weak(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    """This process's sandbox, without Landlock."""
    box = Sandbox(without=(LANDLOCK,))
    monkeypatch.setattr(stages, "sandbox", lambda: box)
    yield box
    box.close()


@pytest.fixture
def place(postgres_url: str, s3: S3Endpoint, bucket: str, tmp_path: Path) -> JobContext:
    ingest = IngestSettings(scratch_dir=str(tmp_path / "scratch"), backoff_base_s=0.0)
    return JobContext(
        "j", "j/1", postgres_url, s3, bucket, ingest, ModelSettings(), ModelInfo(1, "m", 64, "squash", "f")
    )


@pytest.fixture
def catalogued(place: JobContext) -> Iterator[Connection]:
    """A database that knows a video which is not there: whoever fetches it says so."""
    with database.connect(place.postgres_url, autocommit=True) as opened:
        opened.execute("SELECT media.register_model('m', 3, 'f')")
        opened.execute("INSERT INTO media.jobs (id, source) VALUES ('j', 's3://b')")
        catalog.register(opened, "j", [Listed(f"s3://{place.bucket}/gone.mp4", "", 1000, "ana", "Film")], 1)
        yield opened


def test_nothing_is_fetched_for_a_probe(weak: Sandbox, place: JobContext, catalogued: Connection) -> None:
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
    place: JobContext, catalogued: Connection, clips: Path, monkeypatch: pytest.MonkeyPatch
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
        nodes.require_any([WEAK, WEAK])
    nodes.require_any([WEAK, None])
    nodes.require_any([WEAK], silent=1)
    nodes.require_any([Failure(TEMPORARY, "the process that keeps the decoders cannot be started on this machine")])
    nodes.require_any([])


def test_a_machine_where_no_keeper_starts_is_no_fault_of_the_video(
    place: JobContext, catalogued: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    box = Sandbox(tasks="tests.pipelines.nothing_of_this_name")
    monkeypatch.setattr(stages, "sandbox", lambda: box)
    (row,) = Plan(place)(1)
    assert isinstance(row, Refused)
    assert (row.failure.code, row.failure.final) == (TEMPORARY, False)
    assert "cannot be started" in row.failure.reason
    Store(place)(row)
    found = catalogued.execute("SELECT status, attempts, failures FROM media.videos").fetchone()
    assert found == ("queued", 0, 0)


# ── A whole job on weak nodes ──────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def ray_head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """As that of the other tests, on a machine without Landlock.

    Ray remembers a process's token: that of this cluster is not that of the others.
    """
    settings = throwaway_settings(tmp_path_factory.mktemp("weak"))
    reset_auth_token_state()
    with ThreadPoolExecutor(1, initializer=forget_landlock) as thread:  # what it starts has its filter
        running = supervised(settings, "ray")
        yield thread.submit(running.__enter__).result()
        thread.submit(running.__exit__, None, None, None).result()
    reset_auth_token_state()


def attempts(connection: Connection) -> int:
    """How often a video was begun, whatever came of it."""
    row = connection.execute("SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM media.lease_tokens").fetchone()
    assert row is not None
    return int(row[0])


@pytest.fixture
def in_short_chunks(deployment: Settings) -> Settings:
    """A deployment that cuts a video of 12 s into six chunks, and has each of them find a node."""
    with deployment.path.open("a", encoding="utf-8") as file:
        file.write("chunk_ms = 2000\nno_progress_timeout_s = 30\n")  # in [ingest], which comes last
    return deployment


def test_a_job_on_weak_nodes_ends_at_once_with_the_reason(
    deployment: Settings, connection: Connection, clips: Path, tmp_path: Path
) -> None:
    folder = copied(tmp_path / "films", clips / "cuts.mp4", clips / "vp9.webm")
    job = wait(connection, submit(deployment, connection, folder))
    assert job["status"] == "failed"
    assert "none of the nodes that decode (1) takes videos: this machine cannot confine a decoder" in job["error"]
    assert "no landlock" in job["error"]
    assert attempts(connection) == 0  # no video was begun, in no round
    assert (job["videos"]["total"], job["videos"]["failed"]) == (2, 2)
    said = connection.execute("SELECT status, error FROM media.videos").fetchall()
    assert all(status == "failed" and "no landlock" in error for status, error in said)


# ── Weak nodes and strong ones ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.timeout(600)
def test_one_strong_node_among_weak_ones_does_all_the_work_in_one_attempt_each(
    in_short_chunks: Settings, connection: Connection, clips: Path, tmp_path: Path
) -> None:
    folder = multiplied(tmp_path / "films", [clips / "cuts.mp4", clips / "vp9.webm"], 3)
    with joined(in_short_chunks, 1):
        job = wait(connection, submit(in_short_chunks, connection, folder), timeout_s=400)
    assert (job["status"], job["error"], job["videos"]["ready"]) == ("succeeded", None, 6)
    assert attempts(connection) == 6


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_strong_node_that_joins_later_takes_over_from_one_that_dies(
    in_short_chunks: Settings, connection: Connection, clips: Path, tmp_path: Path
) -> None:
    folder = multiplied(tmp_path / "films", [clips / "cuts.mp4", clips / "vp9.webm"], 10)
    with contextlib.ExitStack() as further:
        (first,) = further.enter_context(joined(in_short_chunks, 1))
        second: list[psutil.Process] = []
        left: list[int] = []

        def look() -> None:
            if not second and decodes(first):
                second.extend(further.enter_context(joined(in_short_chunks, 1, beside=2)))
            if second and not left and decodes(second[0]):
                left.append(jobs.get(connection, job_id)["progress"]["left"])
                kill_tree(first.pid)

        job_id = submit(in_short_chunks, connection, folder)
        job = wait(connection, job_id, look, timeout_s=600)
        assert (job["status"], job["error"], job["videos"]["ready"]) == ("succeeded", None, 20)
        assert left[0] > 0


@pytest.mark.timeout(600)
def test_tasks_are_placed_on_strong_nodes_alone_and_on_those_that_join(deployment: Settings) -> None:
    environment = {**os.environ, **ray_cluster.environment(deployment)}
    argv = (sys.executable, "-m", "tests.pipelines.surveyor")
    with subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE, text=True) as driver:
        assert driver.stdout is not None
        try:
            before = json.loads(driver.stdout.readline())
            (weak,) = before["nodes"]
            assert "none of the nodes that decode (1) takes videos" in before["refused"]
            assert before["placing"] == {"label_selector": {nodes.LABEL: f"!in({weak})"}}
            with joined(deployment, 1):
                after = json.loads(driver.stdout.readline())
        finally:
            driver.kill()
    (strong,) = set(after["found"])
    assert (strong != weak, after["cpus"], after["accepting"]) == (True, NODE_CPUS, {})
