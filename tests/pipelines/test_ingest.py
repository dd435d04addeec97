"""The whole job on real Ray, PostgreSQL and S3: what it makes, what it refuses, and what a kill in the middle changes."""

from __future__ import annotations

import hashlib
import shutil
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
from psycopg import Connection

from cluster import runtime
from cluster.settings import Settings
from cluster.storage import Storage
from pipelines import jobs, lists, report, source, watch
from pipelines.scratch import Scratch
from pipelines.settings import IngestSettings
from tests.conftest import until

TIMEOUT_S = 240.0
WHOLE = ("cuts.mp4", "hevc.mp4", "vp9.webm", "av1.mkv", "mpeg2.mpg", "rotated.mp4", "edited.mp4", "one_frame.mp4")
FREE = b"\x00\x00\x00\x10free"  # the box that may stand anywhere in an MP4, and mean nothing

Rows = list[tuple[Any, ...]]


@dataclass
class Kill:
    """Whom a test has killed, and how many videos were not done then."""

    pids: list[int]
    videos_open: int


@pytest.fixture
def whole(clips: Path, tmp_path: Path) -> Path:
    return copied(tmp_path / "whole", *(clips / name for name in WHOLE))


def copied(folder: Path, *files: Path) -> Path:
    folder.mkdir()
    for file in files:
        shutil.copy(file, folder)
    return folder


def multiplied(folder: Path, files: Iterable[Path], copies: int) -> Path:
    """Copies that differ in a few bytes behind the end."""
    folder.mkdir()
    for file in files:
        for number in range(copies):
            data = file.read_bytes() + FREE + number.to_bytes(8)
            (folder / f"{number:02d}-{file.name}").write_bytes(data)
    return folder


def submit(settings: Settings, connection: Connection, folder: Path) -> str:
    storage = Storage(runtime.endpoints(settings).s3)
    uri = source.upload(folder, storage, settings.s3.bucket, None, lambda *_: None).uri
    lists.remember(connection, uri)
    return str(jobs.create(settings, connection, uri)["id"])


@contextmanager
def slow_to_fetch(settings: Settings, folder: Path, name: str) -> Iterator[None]:
    """While this lasts, no worker gets at the file of this name in a folder: it is as if a large one were on its way."""
    ends, bucket = runtime.endpoints(settings), settings.s3.bucket
    storage = Storage(ends.s3)
    source.upload(folder, storage, bucket, None, lambda *_: None)
    (uri,) = [found.uri for found in storage.list(f"s3://{bucket}/uploads/") if found.uri.endswith(f"/{name}")]
    found = storage.info(uri)
    scratch = Scratch.of(settings.section(IngestSettings), ends.s3.url, bucket, 1)
    with scratch.file(storage, uri, found.etag, found.size):
        yield


def wait(
    connection: Connection, job_id: str, between: Callable[[], object] = lambda: None, timeout_s: float = TIMEOUT_S
) -> dict[str, Any]:
    deadline = time.monotonic() + timeout_s
    while not (job := jobs.get(connection, job_id))["finished_at"]:
        assert time.monotonic() < deadline, job
        between()
        time.sleep(0.3)
    return job


def rows(connection: Connection) -> Rows:
    """Moments by their natural keys, with their vectors."""
    return connection.execute(
        "SELECT v.source_uri, v.status, v.duration_ms, s.start_ms, s.end_ms, s.best_frame_ms, e.embedding::text"
        " FROM media.videos v LEFT JOIN media.segments s ON s.video_id = v.id"
        " LEFT JOIN media.embeddings e ON e.segment_id = s.id ORDER BY 1, 4"
    ).fetchall()


def processes(settings: Settings, *words: str) -> list[psutil.Process]:
    """Processes of this test run's Ray whose command line contains the words."""
    mine = str(settings.data_dir)
    found = []
    for process in psutil.process_iter():
        try:
            line = " ".join(process.cmdline())
            if all(word in line for word in words) and _environment(process).get("PIXR_DATA_DIR") == mine:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def _environment(process: psutil.Process) -> dict[str, str]:
    """Of a process, or of its parent where it has closed itself, as workers that decode do."""
    try:
        return dict(process.environ())
    except psutil.AccessDenied:
        parent = process.parent()
        return _environment(parent) if parent else {}


def gauges(settings: Settings) -> set[str]:
    """The figures of jobs that this test run's Ray shows to Prometheus."""
    port = runtime.known_port(settings, "ray-metrics")
    text = requests.get(f"http://127.0.0.1:{port}/metrics", timeout=10).text
    return {line.partition("{")[0] for line in text.splitlines() if line.startswith("ray_pixr_ingest_")}


def kill_once(settings: Settings, connection: Connection, job_id: str, *words: str) -> tuple[Callable[[], None], Kill]:
    """Kill what matches as soon as something is staged or ready; what was killed, and how much was still to be done."""
    kill = Kill([], 0)

    def look() -> None:
        if kill.pids or not (_count(connection, "media.staging") or jobs.get(connection, job_id)["videos"]["ready"]):
            return
        for process in processes(settings, *words):
            process.send_signal(signal.SIGKILL)
            kill.pids.append(process.pid)
        kill.videos_open = jobs.get(connection, job_id)["progress"]["left"]

    return look, kill


def _count(connection: Connection, table: str) -> int:
    row = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
    assert row is not None
    return int(row[0])


def test_good_files_become_searchable_and_bad_ones_are_refused_with_one_reason(
    deployment: Settings, connection: Connection, clips: Path, broken: Path, tmp_path: Path
) -> None:
    folder = copied(tmp_path / "mixed", clips / "cuts.mp4", clips / "portrait.mp4", *sorted(broken.iterdir()))
    (folder / "manifest.csv").write_text(
        "file,title,tags,creator\ncuts.mp4,Six scenes,red;blue,ana\n", encoding="utf-8"
    )
    job = wait(connection, submit(deployment, connection, folder))
    assert job["status"] == "succeeded"
    assert job["videos"] == {"total": 10, "ready": 2, "failed": 0, "quarantined": 8, "skipped": 0, "removed": 0}
    reasons = {failure["source_uri"].rpartition("/")[2]: failure["code"] for failure in job["failures"]}
    assert reasons == {
        "truncated.mp4": "damaged", "truncated.mkv": "damaged", "cut_off.mp4": "damaged", "empty.mp4": "empty",
        "text.mp4": "not-a-video", "playlist.mp4": "not-allowed", "concat.mp4": "not-allowed", "audio_only.mp4": "no-video",
    }  # fmt: skip
    found = rows(connection)
    starts = [row[3] for row in found if str(row[0]).endswith("cuts.mp4") and row[1] == "ready"]
    assert starts == [0, 2000, 4000, 6000, 8000, 10000]
    thumbnail = connection.execute("SELECT thumbnail_uri FROM media.segments LIMIT 1").fetchone()
    assert thumbnail is not None
    assert Storage(runtime.endpoints(deployment).s3).read(thumbnail[0])[8:12] == b"WEBP"

    again = wait(connection, submit(deployment, connection, folder))
    assert again["videos"] == {"total": 10, "ready": 2, "failed": 0, "quarantined": 8, "skipped": 2, "removed": 0}
    assert again["segments"] == 0
    assert rows(connection) == found


def test_a_refusal_is_seen_while_another_file_is_on_its_way(
    deployment: Settings, connection: Connection, clips: Path, broken: Path, tmp_path: Path
) -> None:
    """It waits neither for a model to be loaded nor for a batch to fill."""
    folder = copied(tmp_path / "mixed", clips / "cuts.mp4", broken / "text.mp4")
    with slow_to_fetch(deployment, folder, "cuts.mp4"):
        job_id = submit(deployment, connection, folder)
        until(lambda: jobs.get(connection, job_id)["failures"], 90, "the refusal of text.mp4")
        job = jobs.get(connection, job_id)
        assert [(each["code"], each["outcome"]) for each in job["failures"]] == [("not-a-video", "quarantined")]
        assert (job["status"], job["videos"]["quarantined"], job["progress"]["left"]) == ("running", 1, 1)
    job = wait(connection, job_id)
    assert (job["status"], job["videos"]["ready"], job["videos"]["quarantined"]) == ("succeeded", 1, 1)


def attempts(connection: Connection) -> int:
    """How often the videos of a test were begun."""
    row = connection.execute("SELECT coalesce(sum(attempts), 0) FROM media.videos").fetchone()
    assert row is not None
    return int(row[0])


def say(settings: Settings, *lines: str) -> None:
    """Add settings to the section [ingest] of a deployment's file, which comes last."""
    with settings.path.open("a", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in lines)


def test_a_step_that_takes_long_is_no_round_without_progress(
    deployment: Settings, connection: Connection, clips: Path, tmp_path: Path
) -> None:
    timeout_s = 15  # in which a worker's process starts, also on a busy machine
    say(deployment, f"no_progress_timeout_s = {timeout_s}")
    folder = copied(tmp_path / "films", clips / "cuts.mp4")
    with slow_to_fetch(deployment, folder, "cuts.mp4"):
        job_id = submit(deployment, connection, folder)
        until(lambda: attempts(connection), 90, "the video's first attempt")
        time.sleep(2.5 * timeout_s)
        assert attempts(connection) == 1
    job = wait(connection, job_id)
    assert (job["status"], job["videos"]["ready"], attempts(connection)) == ("succeeded", 1, 1)


def test_while_no_encoder_has_a_place_no_video_is_begun(
    deployment: Settings, connection: Connection, clips: Path, tmp_path: Path
) -> None:
    """As where other jobs have every GPU: an attempt for each wait would have the video refused in the end."""
    say(deployment, "embedder_cpus = 1000.0", "start_timeout_s = 5")
    job_id = submit(deployment, connection, copied(tmp_path / "films", clips / "cuts.mp4"))
    until(lambda: jobs.get(connection, job_id)["listed"], 90, "the job's list")
    time.sleep(25)  # several rounds
    assert (jobs.get(connection, job_id)["status"], attempts(connection)) == ("running", 0)
    jobs.cancel(deployment, connection, job_id)


@pytest.mark.timeout(900)
def test_a_kill_in_the_middle_changes_nothing(deployment: Settings, connection: Connection, whole: Path) -> None:
    """The embedding actor, and then the whole job: its driver, and all that ends with it."""
    shown: set[str] = set()
    job = wait(connection, submit(deployment, connection, whole), lambda: shown.update(gauges(deployment)))
    assert {"ray_pixr_ingest_frames", "ray_pixr_ingest_decode_cpu_seconds"} <= shown
    figures = report.of(deployment, connection, job)
    assert 0 < figures["frames_embedded"] < figures["frames"]
    assert 0 < figures["batch_fill"] <= 1
    assert figures["decoders_busy"] > 0
    assert (figures["object_store_spilled_mb"], figures["object_store_peak_share"] < 0.5) == (0, True)
    expected = rows(connection)
    assert {row[1] for row in expected} == {"ready"}
    victims = (("EmbedBatches", 1), ("pipelines.ingest --job", 2))
    for words, submissions in victims:
        connection.execute("TRUNCATE media.embeddings, media.segments, media.videos, media.jobs CASCADE")
        job_id = submit(deployment, connection, whole)
        look, kill = kill_once(deployment, connection, job_id, words)

        def between(look: Callable[[], None] = look) -> None:
            look()
            watch.look(deployment, connection)

        job = wait(connection, job_id, between)
        assert kill.pids, f"nothing was killed: {words}"
        assert kill.videos_open, f"the kill came too late: {words}"
        assert (job["status"], job["error"], job["submissions"]) == ("succeeded", None, submissions), words
        assert rows(connection) == expected, words
        assert _count(connection, "media.staging") == 0


POISON = """
    CREATE FUNCTION media.poison() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no row can be written'; END $$;
    CREATE TRIGGER poison BEFORE UPDATE OF probed_hash ON media.videos FOR EACH ROW
        WHEN (NEW.source_uri LIKE '%/poison.mp4') EXECUTE FUNCTION media.poison()"""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_video_that_brings_rounds_down_is_refused_in_the_end_and_harms_no_neighbour(
    deployment: Settings, connection: Connection, clips: Path, tmp_path: Path
) -> None:
    """As by an error that nobody has thought of: what cannot be written brings its task down, and that the round."""
    say(deployment, "starts_max = 4")
    folder = copied(tmp_path / "mixed", *(clips / name for name in WHOLE))
    (folder / "poison.mp4").write_bytes((clips / "cuts.mp4").read_bytes() + b"\0\0\0\x08free")
    connection.execute(POISON)
    job = wait(connection, submit(deployment, connection, folder), timeout_s=800)
    assert [(each["source_uri"].rpartition("/")[2], each["code"]) for each in job["failures"]] == [
        ("poison.mp4", "lost-too-often")
    ]
    assert (job["status"], job["videos"]["ready"], job["submissions"]) == ("succeeded", len(WHOLE), 1)


def test_a_cancelled_job_leaves_its_videos_to_others(
    deployment: Settings, connection: Connection, clips: Path, tmp_path: Path
) -> None:
    job_id = submit(deployment, connection, copied(tmp_path / "films", clips / "portrait.mp4", clips / "odd.mp4"))
    deadline = time.monotonic() + 60
    while not jobs.get(connection, job_id)["listed"] and time.monotonic() < deadline:
        time.sleep(0.1)
    assert jobs.cancel(deployment, connection, job_id)["status"] == "cancelled"
    assert jobs.cancel(deployment, connection, job_id)["status"] == "cancelled"
    assert connection.execute("SELECT count(*) FROM media.videos WHERE lease_token IS NOT NULL").fetchone() == (0,)
    job = wait(connection, str(jobs.retry(deployment, connection, job_id)["id"]))
    assert job["videos"]["ready"] == 2


def test_an_error_that_another_start_would_come_to_again_ends_the_job_at_the_first(
    deployment: Settings, connection: Connection
) -> None:
    """A list that is none: an error that nobody foresaw. Dead machines alone are worth another driver."""
    storage, body = Storage(runtime.endpoints(deployment).s3), b"no JSON at all\n"
    uri = f"s3://{deployment.s3.bucket}/uploads/lists/{hashlib.sha256(body).hexdigest()[:32]}.jsonl"
    storage.put_bytes(body, uri)
    lists.remember(connection, uri)
    job = wait(connection, str(jobs.create(deployment, connection, uri)["id"]))
    assert (job["status"], job["submissions"]) == ("failed", 1)
    assert job["error"].startswith("the source cannot be listed: JSONDecodeError: ")
    assert "\n" not in job["error"]
