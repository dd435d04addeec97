"""What a worker fetches was allowed when it fetches it, whatever the tables say by then."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from psycopg import Connection

from cluster import database
from cluster.errors import Rejected
from cluster.runtime import S3Endpoint
from cluster.storage import Storage
from pipelines import catalog, stages
from pipelines.listed import Listed
from pipelines.settings import IngestSettings, ModelSettings
from pipelines.stages import Decode, Decoded, Model, Place, Plan, Refused, Task


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
    model = Model(1, "m", 64, "squash", "f")
    only = dataclasses.replace(s3, buckets=(bucket,))
    plan = Plan(Place("j", "j/1", postgres_url, only, bucket, ingest, ModelSettings(), model))
    allowed, refused = (list(plan(ids[each.source_uri])) for each in listed)
    assert all(isinstance(row, Task) for row in allowed)
    (row,) = refused
    assert isinstance(row, Refused)
    assert (row.failure.code, row.failure.final) == ("bucket-not-allowed", True)
    assert len([path for path in (tmp_path / "scratch").rglob("*") if path.is_file() and not path.suffix]) == 1


@pytest.fixture
def machines(
    postgres_url: str, s3: S3Endpoint, bucket: str, clips: Path, tmp_path: Path
) -> Iterator[tuple[Connection, Callable[[str], Place]]]:
    """A film that is listed, and machines that work on it, by their names."""
    data = (clips / "cuts.mp4").read_bytes()
    Storage(s3).put_bytes(data, f"s3://{bucket}/film.mp4")
    listed = Listed(
        f"s3://{bucket}/film.mp4", Storage(s3).info(f"s3://{bucket}/film.mp4").etag, len(data), "ana", "Film"
    )
    with database.connect(postgres_url, autocommit=True) as connection:
        connection.execute("SELECT media.register_model('m', 3, 'f')")
        connection.execute("INSERT INTO media.jobs (id, source) VALUES ('j', 's3://b')")
        catalog.register(connection, "j", [listed], 1)

        def place(name: str) -> Place:
            ingest = IngestSettings(scratch_dir=str(tmp_path / name), chunk_ms=1000)
            return Place(
                "j", "j/1", postgres_url, s3, bucket, ingest, ModelSettings(), Model(1, "m", 64, "squash", "f")
            )

        yield connection, place


def swap(place: Place, clips: Path) -> None:
    """The object is another film of the same size."""
    data = bytearray((clips / "cuts.mp4").read_bytes())
    data[len(data) // 2] ^= 1
    Storage(place.s3).put_bytes(bytes(data), f"s3://{place.bucket}/film.mp4")


def test_what_is_decoded_on_another_machine_is_what_was_hashed(
    machines: tuple[Connection, Callable[[str], Place]], clips: Path
) -> None:
    _, place = machines
    tasks = [row for row in Plan(place("planner"))(1) if isinstance(row, Task)]
    assert len(tasks) > 2
    assert isinstance(Decode(place("planner"))(tasks[0]), Decoded)
    assert isinstance(Decode(place("other"))(tasks[0]), Decoded)
    swap(place("any"), clips)
    assert isinstance(Decode(place("planner"))(tasks[1]), Decoded)  # what it has fetched before
    assert isinstance(Decode(place("other"))(tasks[1]), Decoded)
    row = Decode(place("late"))(tasks[1])
    assert isinstance(row, Refused)
    assert (row.failure.code, row.failure.final) == ("changed", True)


def test_an_attempt_that_is_begun_again_elsewhere_finds_what_it_found_before_or_ends(
    machines: tuple[Connection, Callable[[str], Place]], clips: Path
) -> None:
    """And a machine that has fetched the object of before for another attempt does not take it for the object of this one."""
    connection, place = machines
    old = [row for row in Plan(place("planner"))(1) if isinstance(row, Task)]
    assert isinstance(Decode(place("other"))(old[0]), Decoded)
    swap(place("any"), clips)
    (refused,) = Plan(place("late"))(1)
    assert isinstance(refused, Refused)
    assert refused.failure.code == "changed"
    connection.execute("UPDATE media.videos SET lease_until = now() - interval '1 s'")
    later = dataclasses.replace(place("late"), owner="j/2")
    new = [row for row in Plan(later)(1) if isinstance(row, Task)]
    assert {row.content_hash for row in new}.isdisjoint({row.content_hash for row in old})
    assert isinstance(Decode(place("other"))(new[0]), Decoded)
    assert {path.read_text() for path in (Path(place("other").ingest.scratch_dir)).rglob("*.sha256")} == {
        new[0].content_hash
    }
