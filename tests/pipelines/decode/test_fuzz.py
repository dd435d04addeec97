"""Spoiled and hostile files: each is decoded or refused with one reason, and nobody else notices.

Thirty of them in the sandbox by default; three hundred through whole jobs, three times, are slow.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from psycopg import Connection

from cluster.settings import Settings
from pipelines import stages
from pipelines.media import Failure
from pipelines.settings import IngestSettings
from tests.pipelines import counted, mutants
from tests.pipelines.test_ingest import copied, rows, submit, wait

FEW, MANY = 30, 300
SETTINGS = IngestSettings(decode_timeout_s=60, decode_cpu_max_s=30, probe_timeout_s=30, decode_memory_max_mb=1024)
SOURCES = ("cuts.mp4", "faststart.mp4", "fragmented.mp4", "matroska.mkv", "vp9.webm", "av1.mkv", "transport.ts",
           "mpeg4.avi", "mpeg2.mpg", "hevc.mp4", "audio_first.mp4", "edited.mp4")  # fmt: skip
HEALTHY = ("cuts.mp4", "vp9.webm", "transport.ts")


@contextmanager
def listener() -> Iterator[tuple[str, list[str]]]:
    """An address, and who has called it."""
    callers: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                callers.append(connection.recv(300).decode(errors="replace"))
                connection.close()

        threading.Thread(target=answer, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}", callers
        server.shutdown(socket.SHUT_RDWR)


def outcome(path: Path) -> Failure | int:
    """What becomes of a file: a reason, or how many frames are there."""
    video = stages.probe(path, SETTINGS)
    if isinstance(video, Failure):
        return video
    frames = 0
    for task in counted.tasks(video, 60_000, interval_ms=1000):
        part = stages.decode(path, task, SETTINGS)
        if isinstance(part, Failure):
            return part
        assert list(part.frame_ms) == sorted(set(part.frame_ms.tolist()))
        frames += len(part.frame_ms)
    return frames


def test_mutated_files_are_decoded_or_refused_with_a_reason(clips: Path, tmp_path: Path) -> None:
    files = mutants.write(tmp_path, [clips / name for name in SOURCES], FEW, seed=1)
    results = {path.name: outcome(path) for path in files}
    for name, result in results.items():
        if isinstance(result, Failure):
            assert result.code, name
            assert result.reason.isprintable(), name
            assert 10 < len(result.reason) <= 300, name
        else:
            assert result > 0, name
    refused = [result for result in results.values() if isinstance(result, Failure)]
    assert 0 < len(refused) < FEW  # the mutations do harm, and not only harm
    assert outcome(clips / "cuts.mp4") == 360


def test_no_file_and_no_address_is_read_on_behalf_of_another(clips: Path, tmp_path: Path) -> None:
    """Were a script followed to the whole video that it names, there would be frames."""
    with listener() as (url, callers):
        for path in mutants.scripts(tmp_path, clips / "cuts.mp4", url):
            result = stages.probe(path, SETTINGS)
            assert isinstance(result, Failure), path.name
            assert result.final, path.name
            assert result.code in ("not-allowed", "not-a-video", "damaged"), (path.name, result)
        assert callers == []


def test_what_lies_before_the_beginning_is_left_out(clips: Path, tmp_path: Path) -> None:
    """A mutant whose index begins later than what can be decoded: it had times below zero."""
    path = mutants.write(tmp_path, [clips / name for name in SOURCES], 54, seed=3)[53]
    assert path.name == "053-swapped-transport.ts"
    video = stages.probe(path, SETTINGS)
    assert not isinstance(video, Failure)
    (task,) = counted.tasks(video, 60_000)
    found = stages.decode(path, task, SETTINGS)
    assert not isinstance(found, Failure)
    assert (found.frame_ms[0], found.candidate_ms[0]) == (0, 0)
    lengths = [len(found.candidates), len(found.sharpness), len(found.thumbnails), len(found.candidate_ms)]
    assert len(set(lengths)) == 1
    assert len(found.features) == len(found.frame_ms)


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_job_full_of_mutants_ends_and_its_healthy_files_are_as_ever(
    deployment: Settings, connection: Connection, clips: Path, tmp_path: Path, seed: int
) -> None:
    healthy = copied(tmp_path / "healthy", *(clips / name for name in HEALTHY))
    wait(connection, submit(deployment, connection, healthy))
    expected = rows(connection)
    connection.execute("TRUNCATE media.embeddings, media.segments, media.videos, media.jobs CASCADE")
    with listener() as (url, callers):
        mutants.write(healthy, [clips / name for name in SOURCES], MANY, seed)
        mutants.scripts(healthy, clips / "cuts.mp4", url)
        total = len(list(healthy.iterdir()))
        job = wait(connection, submit(deployment, connection, healthy), timeout_s=2900)
        assert callers == []
    videos = job["videos"]
    unfinished = connection.execute(
        "SELECT source_uri, status, attempts, failures, error, lease_owner, retry_at FROM media.videos"
        " WHERE status NOT IN ('ready', 'quarantined')"
    ).fetchall()
    assert (job["status"], job["error"], unfinished) == ("succeeded", None, [])
    assert (job["submissions"], videos["total"]) == (1, total)
    assert videos["ready"] + videos["quarantined"] == total
    names = tuple(f"/{name}" for name in HEALTHY)
    assert [row for row in rows(connection) if str(row[0]).endswith(names)] == expected
    bad = connection.execute(
        "SELECT source_uri, error_code, error FROM media.videos WHERE status = 'quarantined'"
        " AND (error IS NULL OR length(error) < 10 OR error_code IN ('temporary', 'lost-too-often', 'sandbox-lost'))"
    ).fetchall()
    assert bad == []
    scripts = connection.execute("SELECT status FROM media.videos WHERE source_uri LIKE '%/script-%'").fetchall()
    assert {status for (status,) in scripts} == {"quarantined"}
