"""What is lost on the way from a file to its moments: the stages by hand, on a real database and store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from psycopg import Connection

from cluster.database import database
from cluster.runtime import S3Endpoint
from cluster.storage import Storage
from pipelines import ingest
from pipelines.catalog import catalog
from pipelines.models.registry import ModelInfo
from pipelines.moments import sink
from pipelines.settings import IngestSettings, ModelSettings
from pipelines.sources.listed import Listed
from pipelines.stages import Decode, Decoded, Done, JobContext, Plan, Refused, Store, Task, chunk_row
from tests.pipelines import oddities
from tests.pipelines.conftest import ffmpeg

Spoil = Callable[[bytearray, list[tuple[int, int]]], None]  # the bytes of a file, and where its frames lie


@pytest.fixture
def place(postgres_url: str, s3: S3Endpoint, bucket: str, tmp_path: Path) -> JobContext:
    ingest = IngestSettings(chunk_ms=8000, scratch_dir=str(tmp_path), backoff_base_s=0.0)
    model = ModelInfo(1, "m", 64, "squash", "f")
    return JobContext("j", "j/1", postgres_url, s3, bucket, ingest, ModelSettings(), model)


@pytest.fixture
def connection(postgres_url: str) -> Iterator[Connection]:
    with database.connect(postgres_url, autocommit=True) as opened:
        opened.execute("SELECT media.register_model('m', 3, 'f')")
        opened.execute("INSERT INTO media.jobs (id, source) VALUES ('j', 's3://b')")
        yield opened


def planned(place: JobContext, connection: Connection, path: Path) -> list[Task | Refused | Done]:
    """A file in the store, registered, and cut into chunks."""
    uri = f"s3://{place.bucket}/{path.name}"
    Storage(place.s3).put_bytes(path.read_bytes(), uri)
    found = Storage(place.s3).info(uri)
    catalog.register(connection, "j", [Listed(uri, found.etag, found.size, "ana", path.stem)], 1)
    return list(Plan(place)(1))


def staged(row: Decoded | Refused | Done) -> sink.ChunkRow | Refused | Done:
    """Without a model: each picture points the same way."""
    if not isinstance(row, Decoded):
        return row
    return chunk_row(row, np.tile(np.array([[0.6, 0.8, 0.0]], np.float32), (len(row.candidate_ms), 1)), 0.0, 1.0)


def spoiled(folder: Path, spoil: Spoil, seconds: float = 40) -> Path:
    """A film with key frames 2 s apart, damaged."""
    path = oddities.film(folder / "film.mp4", *oddities.X264, "-g", "50", seconds=seconds)
    data = bytearray(path.read_bytes())
    spoil(data, oddities.frames_of(path))
    path.write_bytes(data)
    return path


def video(connection: Connection) -> tuple[str, str, str]:
    row = connection.execute(
        "SELECT status, coalesce(warning, ''), coalesce(error, '') FROM media.videos WHERE id = 1"
    ).fetchone()
    assert row is not None
    return row


def one_glitch(data: bytearray, frames: list[tuple[int, int]]) -> None:
    at, size = frames[303]
    data[at + size // 3 : at + size // 3 + 100] = bytes(100)


def a_tenth_gone(data: bytearray, frames: list[tuple[int, int]]) -> None:
    """Four fifths of a chunk, and 7 % of the film."""
    for at, size in frames[400:470]:
        data[at + 4 : at + size] = bytes(size - 4)


def all_but_key_frames_gone(data: bytearray, frames: list[tuple[int, int]]) -> None:
    for number, (at, size) in enumerate(frames):
        if number % 50:
            data[at + 4 : at + size] = bytes(size - 4)


@pytest.mark.parametrize("spoil", [one_glitch, a_tenth_gone])
def test_a_film_with_a_glitch_becomes_ready_with_a_warning(
    place: JobContext, connection: Connection, tmp_path: Path, spoil: Spoil
) -> None:
    tasks = planned(place, connection, spoiled(tmp_path, spoil))
    assert len(tasks) > 3
    done = [Store(place)(staged(Decode(place)(task))) for task in tasks]
    assert done[-1].outcome == "ready"
    status, warning, error = video(connection)
    assert (status, error) == ("ready", "")
    assert "frames" in warning
    (end_ms,) = connection.execute("SELECT max(end_ms) FROM media.segments").fetchone() or (0,)
    assert end_ms == 40_000


def test_a_film_of_which_most_is_lost_is_refused_and_leaves_nothing_behind(
    place: JobContext, connection: Connection, tmp_path: Path
) -> None:
    tasks = planned(place, connection, spoiled(tmp_path, all_but_key_frames_gone))
    assert len(tasks) > 3
    decoded = [Decode(place)(task) for task in tasks]
    refused = [row for row in decoded if isinstance(row, Refused)]
    assert [row.failure.code for row in refused] == ["damaged"]
    after = decoded[decoded.index(refused[0]) + 1 :]
    assert after, "no chunk was left to show that it is not decoded in vain"
    assert all(isinstance(row, Done) and row.outcome == "fenced" for row in after)
    for row in decoded:
        Store(place)(staged(row))
    status, _, error = video(connection)
    assert status == "quarantined"
    assert "of 1000 frames cannot be decoded" in error
    assert [file.name for file in tmp_path.rglob("*") if file.suffix in ("", ".lock", ".done") and file.is_file()] == []


def test_a_film_is_refused_as_soon_as_too_much_of_it_is_lost(
    place: JobContext, connection: Connection, tmp_path: Path
) -> None:
    """Before its other chunks are decoded, and whoever waits behind them."""
    tasks = planned(place, connection, spoiled(tmp_path, all_but_key_frames_gone))
    decode = ingest.one_to_one(Decode(place), place)
    assert [ingest.unpack(each["row"]) for each in decode(ingest.pack(tasks[0]))] == [Done(1, "quarantined")]
    assert video(connection)[0] == "quarantined"
    said = connection.execute("SELECT outcome, error_code FROM media.job_videos").fetchone()
    assert said == ("quarantined", "damaged")


def test_a_chunk_of_an_attempt_that_has_ended_is_not_fetched(
    place: JobContext, connection: Connection, tmp_path: Path
) -> None:
    path = oddities.film(tmp_path / "film.mp4", *oddities.X264, "-g", "50", seconds=20)
    tasks = planned(place, connection, path)
    connection.execute("UPDATE media.videos SET lease_token = lease_token + 1000")
    assert Decode(place)(tasks[1]) == Done(1, "fenced")
    assert [file for file in tmp_path.rglob("*") if file.is_file() and not file.suffix] == []


def test_a_flat_film_is_one_moment(place: JobContext, connection: Connection, tmp_path: Path) -> None:
    path = ffmpeg(tmp_path / "flat.mp4", "-f", "lavfi", "-i", "color=gray:s=160x120:r=25:d=8", *oddities.X264)
    for task in planned(place, connection, path):
        Store(place)(staged(Decode(place)(task)))
    assert connection.execute("SELECT start_ms, end_ms FROM media.segments").fetchall() == [(0, 8000)]


def test_twelve_hours_in_two_frames_are_two_moments(place: JobContext, connection: Connection, tmp_path: Path) -> None:
    for task in planned(place, connection, oddities.RECIPES["twelve_hours.mp4"](tmp_path).path):
        Store(place)(staged(Decode(place)(task)))
    assert connection.execute("SELECT count(*) FROM media.segments").fetchone() == (2,)
