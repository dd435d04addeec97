"""From staged chunks to a video that can be searched: whole, once, and never by one whose lease has passed on."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from psycopg import Connection

from cluster import database
from cluster.errors import Temporary
from cluster.runtime import S3Endpoint
from cluster.storage import Storage
from pipelines import catalog, leases, segments, shots, sink, takedown
from pipelines.leases import Lease
from pipelines.listed import Listed
from pipelines.losses import Losses
from pipelines.media import Failure
from pipelines.settings import IngestSettings, ModelSettings
from pipelines.sink import ChunkRow
from pipelines.stages import Done, Model, Place, Plan, Refused, Store

SETTINGS = IngestSettings(shot_min_ms=500, shot_max_ms=2000)
CHUNK_FRAMES = 60


@pytest.fixture
def connection(postgres_url: str) -> Iterator[Connection]:
    with database.connect(postgres_url, autocommit=True) as opened:
        opened.execute("SELECT media.register_model('m', 3, 'f'), media.register_model('n', 3, 'g')")
        opened.execute("INSERT INTO media.jobs (id, source) VALUES ('j', 's3://b')")
        catalog.register(opened, "j", [Listed("s3://b/one.mp4", "e", 1, "ana", "A red car", tags=("night",))], 1)
        yield opened


@pytest.fixture
def storage(s3: S3Endpoint) -> Storage:
    return Storage(s3)


def begin(connection: Connection, owner: str = "j/1") -> Lease:
    lease = leases.claim(connection, 1, owner, lease_s=60, starts_max=99)
    assert isinstance(lease, Lease)
    facts = {"content_hash": "h", "container": "mp4", "codec": "h264", "width": 2, "height": 2, "fps": 30.0,
             "duration_ms": 4000, "has_audio": False, "warning": ""}  # fmt: skip
    assert leases.describe(connection, lease, facts)
    return lease


def chunk(lease: Lease, number: int, count: int = 2) -> ChunkRow:
    """Two seconds a chunk, a candidate every half second, vectors that name their place."""
    first = number * CHUNK_FRAMES
    frame_ms = np.arange(first, first + CHUNK_FRAMES, dtype=np.int32) * 1000 // 30
    candidate_ms = frame_ms[::15]
    vectors = np.stack([np.array([1.0, at / 1000, 0.5], np.float32) for at in candidate_ms])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    features = np.zeros((CHUNK_FRAMES, shots.FEATURES), np.float32)
    features[:, shots.CONTRAST] = 50
    features[:, shots.CHANGE] = 1  # something moves
    costs = {"fetch_s": 0.1, "decode_s": 1.0, "embed_s": 0.5, "embed_slots": 8.0, "bytes": 10}
    pictures = [b"webp%d" % at for at in candidate_ms]
    sharp = np.arange(len(candidate_ms), dtype=np.float32)
    return ChunkRow(
        lease.video_id,
        lease.token,
        number,
        count,
        frame_ms,
        features,
        candidate_ms,
        sharp,
        vectors,
        pictures,
        Losses(CHUNK_FRAMES),
        costs,
    )


def finalise(
    connection: Connection,
    storage: Storage,
    bucket: str,
    lease: Lease,
    settings: IngestSettings = SETTINGS,
    model: int = 1,
) -> segments.Kept | None:
    place = {"model_id": model, "bucket": bucket, "settings": settings, "job_id": "j"}
    return sink.finalise(connection, storage, lease.video_id, lease.token, **place)  # type: ignore[arg-type]


def ingest(connection: Connection, storage: Storage, bucket: str, **options: object) -> segments.Kept | None:
    lease = begin(connection)
    sink.stage(connection, "j", chunk(lease, 0))
    assert sink.stage(connection, "j", chunk(lease, 1))
    return finalise(connection, storage, bucket, lease, **options)  # type: ignore[arg-type]


def rows(connection: Connection) -> list[tuple[object, ...]]:
    return connection.execute(
        "SELECT s.id, s.start_ms, s.end_ms, s.best_frame_ms, s.thumbnail_uri, e.embedding::text FROM media.segments s"
        " JOIN media.embeddings e ON e.segment_id = s.id ORDER BY s.start_ms, e.model_id"
    ).fetchall()


def test_the_last_chunk_makes_the_video_whole_in_any_order(
    connection: Connection, storage: Storage, bucket: str
) -> None:
    lease = begin(connection)
    assert not sink.stage(connection, "j", chunk(lease, 1))
    assert sink.stage(connection, "j", chunk(lease, 0))
    assert finalise(connection, storage, bucket, lease) == segments.Kept(2, 0)
    assert [row[1:3] for row in rows(connection)] == [(0, 2000), (2000, 4000)]
    assert storage.read(f"s3://{bucket}/thumbnails/1/{lease.token}/0.webp").startswith(b"webp")
    status = connection.execute("SELECT status, lease_token, error FROM media.videos").fetchone()
    assert status == ("ready", None, None)
    assert connection.execute("SELECT count(*) FROM media.staging").fetchone() == (0,)


def test_frames_that_could_not_be_decoded_are_spoken_of(connection: Connection, storage: Storage, bucket: str) -> None:
    lease = begin(connection)
    connection.execute("UPDATE media.videos SET warning = 'the tail is missing'")
    sink.stage(connection, "j", dataclasses.replace(chunk(lease, 0), losses=Losses(60, lost=3, concealed=7)))
    sink.stage(connection, "j", dataclasses.replace(chunk(lease, 1), losses=Losses(60, lost=1)))
    assert sink.losses(connection, lease.video_id, lease.token) == Losses(120, 4, 7, 8)
    finalise(connection, storage, bucket, lease)
    (warning,) = connection.execute("SELECT warning FROM media.videos").fetchone() or ("",)
    assert warning == "the tail is missing; 4 frames could not be decoded; 7 frames are damaged"


def test_a_chunk_that_comes_twice_counts_once(connection: Connection) -> None:
    lease = begin(connection)
    assert not sink.stage(connection, "j", chunk(lease, 0))
    assert not sink.stage(connection, "j", chunk(lease, 0))
    assert connection.execute("SELECT frames, decode_seconds FROM media.job_videos").fetchone() == (CHUNK_FRAMES, 1.0)


def test_a_second_run_keeps_every_id_and_row(connection: Connection, storage: Storage, bucket: str) -> None:
    def but_for_pictures() -> list[tuple[object, ...]]:
        return [(*row[:4], row[5]) for row in rows(connection)]

    ingest(connection, storage, bucket)
    before = but_for_pictures()
    ingest(connection, storage, bucket)
    assert but_for_pictures() == before


def test_one_whose_lease_has_passed_on_writes_nothing(connection: Connection, storage: Storage, bucket: str) -> None:
    old = begin(connection)
    sink.stage(connection, "j", chunk(old, 0))
    assert sink.stage(connection, "j", chunk(old, 1))
    connection.execute("UPDATE media.videos SET lease_until = now() - interval '1 second'")
    begin(connection, "j/2")
    assert finalise(connection, storage, bucket, old) is None
    assert not sink.stage(connection, "j", chunk(old, 1))
    assert rows(connection) == []


def test_a_video_that_was_removed_meanwhile_stays_removed(
    connection: Connection, storage: Storage, bucket: str
) -> None:
    lease = begin(connection)
    sink.stage(connection, "j", chunk(lease, 0))
    sink.stage(connection, "j", chunk(lease, 1))
    catalog.remove(connection, 1)
    assert finalise(connection, storage, bucket, lease) is None
    assert rows(connection) == []


def test_other_moments_leave_a_way_from_the_old_ids(connection: Connection, storage: Storage, bucket: str) -> None:
    ingest(connection, storage, bucket)
    old = [row[0] for row in rows(connection)]
    kept = ingest(connection, storage, bucket, settings=dataclasses.replace(SETTINGS, shot_max_ms=4000))
    assert kept == segments.Kept(1, 1, 2)
    now = [row[0] for row in rows(connection)]
    assert now == [old[0]]
    assert [segments.current(connection, int(str(each))) for each in old] == [old[0], old[0]]
    assert segments.current(connection, 999) is None


def test_two_models_live_side_by_side(connection: Connection, storage: Storage, bucket: str) -> None:
    ingest(connection, storage, bucket)
    ingest(connection, storage, bucket, model=2)
    counts = connection.execute("SELECT model_id, count(*) FROM media.embeddings GROUP BY 1 ORDER BY 1").fetchall()
    assert counts == [(1, 2), (2, 2)]


def test_words_are_found_and_follow_a_change(connection: Connection, storage: Storage, bucket: str) -> None:
    ingest(connection, storage, bucket)
    found = "SELECT count(*) FROM media.segments WHERE search @@ plainto_tsquery('english', %s)"
    assert connection.execute(found, ("cars",)).fetchone() == (2,)
    before = connection.execute("SELECT value FROM media.generation").fetchone()
    assert catalog.change(connection, 1, title="A blue boat")
    assert connection.execute(found, ("cars",)).fetchone() == (0,)
    assert connection.execute(found, ("boat",)).fetchone() == (2,)
    assert connection.execute("SELECT value FROM media.generation").fetchone() != before


def test_moments_that_are_only_added_are_counted_apart_from_every_other_change(
    connection: Connection, storage: Storage, bucket: str
) -> None:
    def moved() -> tuple[int, int]:
        """Changes, and those of them that only added."""
        row = connection.execute("SELECT value, grown FROM media.generation").fetchone()
        assert row is not None
        return row

    start, _ = moved()
    ingest(connection, storage, bucket)
    assert moved() == (start + 1, 1)
    kept = ingest(connection, storage, bucket, settings=dataclasses.replace(SETTINGS, shot_max_ms=4000))
    assert kept is not None
    assert kept.replaced > 0
    assert moved() == (start + 2, 1)  # what was shown has gone
    kept = ingest(connection, storage, bucket, settings=dataclasses.replace(SETTINGS, shot_max_ms=4000))
    assert kept == segments.Kept(1, 0, 1)
    assert moved() == (start + 3, 1)  # the same moments of another source, which show something else
    assert catalog.change(connection, 1, visibility="private")
    assert catalog.remove(connection, 1)
    assert moved() == (start + 5, 1)


def test_a_moment_is_the_mean_of_its_samples_and_shows_the_sharpest(
    connection: Connection, storage: Storage, bucket: str
) -> None:
    ingest(connection, storage, bucket)
    row = rows(connection)[0]
    assert row[3] == chunk(Lease(1, 1, "", "", 0, 1), 0).candidate_ms[-1]
    vector = np.array([float(number) for number in str(row[5]).strip("[]").split(",")])
    samples = chunk(Lease(1, 1, "", "", 0, 1), 0).vectors.mean(axis=0)
    assert float(vector @ samples / np.linalg.norm(samples) / np.linalg.norm(vector)) > 0.9999


def pictures(storage: Storage, bucket: str) -> dict[str, bytes]:
    return {found.uri: storage.read(found.uri) for found in storage.list(f"s3://{bucket}/thumbnails/1/")}


def shown(connection: Connection) -> set[object]:
    return {row[4] for row in rows(connection)}


def test_an_attempt_that_lost_its_lease_overwrites_no_picture_that_is_shown_and_leaves_none(
    connection: Connection, storage: Storage, bucket: str
) -> None:
    ingest(connection, storage, bucket)
    before = pictures(storage, bucket)
    old = begin(connection)
    late = dataclasses.replace(chunk(old, 0, 1), thumbnails=[b"late"] * 4)
    assert sink.stage(connection, "j", late)
    connection.execute("UPDATE media.videos SET lease_until = now() - interval '1 second'")
    begin(connection, "j/2")
    connection.execute("UPDATE media.staging SET lease_token = (SELECT lease_token FROM media.videos)")

    class Fenced(Storage):
        """The lease passes on while pictures are stored."""

        def put_bytes(self, data: bytes, uri: str, content_type: str = "") -> None:
            connection.execute("UPDATE media.videos SET lease_token = nextval('media.lease_tokens')")
            super().put_bytes(data, uri, content_type)

    row = connection.execute("SELECT lease_token FROM media.videos").fetchone()
    assert row is not None
    assert finalise(connection, Fenced(storage.endpoint), bucket, dataclasses.replace(old, token=row[0])) is None
    assert pictures(storage, bucket) == before
    assert set(before) == shown(connection)


def test_pictures_of_moments_that_are_gone_stay_until_the_next_attempt_is_kept(
    connection: Connection, storage: Storage, bucket: str
) -> None:
    """Browsers keep the way to what was shown for a minute (`routes_media.CACHE_CONTROL`)."""
    storage.put_bytes(b"of an older release", f"s3://{bucket}/thumbnails/1/0.webp")
    before = set[object]()
    for shot_max_ms, count in ((2000, 2), (4000, 1), (2000, 2)):
        ingest(connection, storage, bucket, settings=dataclasses.replace(SETTINGS, shot_max_ms=shot_max_ms))
        assert set(pictures(storage, bucket)) == shown(connection) | before
        before = shown(connection)
        assert len(before) == count


def test_an_attempt_that_fails_leaves_what_the_next_one_takes_away(
    connection: Connection, storage: Storage, bucket: str
) -> None:
    lease = begin(connection)
    sink.stage(connection, "j", chunk(lease, 0))
    sink.stage(connection, "j", chunk(lease, 1))
    connection.execute("ALTER TABLE media.segments ADD CONSTRAINT short CHECK (end_ms < 3000)")
    with pytest.raises(psycopg.errors.CheckViolation):
        finalise(connection, storage, bucket, lease)
    connection.execute("ALTER TABLE media.segments DROP CONSTRAINT short")
    connection.execute("UPDATE media.videos SET lease_until = now() - interval '1 second'")
    ingest(connection, storage, bucket)
    assert set(pictures(storage, bucket)) == shown(connection)


def test_what_is_shown_stays_when_nobody_learns_that_it_was_committed(
    connection: Connection, storage: Storage, bucket: str, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = begin(connection)
    sink.stage(connection, "j", chunk(lease, 0))
    sink.stage(connection, "j", chunk(lease, 1))

    class Broken(Connection[Any]):
        """The network goes once COMMIT has been sent."""

        @contextmanager
        def transaction(self, *arguments: Any, **named: Any) -> Iterator[Any]:
            with super().transaction(*arguments, **named) as inner:
                yield inner
            if written:
                raise psycopg.OperationalError("server closed the connection unexpectedly")

    written, replace = list[bool](), segments.replace

    def watched(*arguments: Any, **named: Any) -> segments.Kept:
        kept = replace(*arguments, **named)
        written.append(True)
        return kept

    monkeypatch.setattr(segments, "replace", watched)
    with Broken.connect(postgres_url, autocommit=True) as broken, pytest.raises(psycopg.OperationalError):
        finalise(broken, storage, bucket, lease)
    assert shown(connection)
    assert set(pictures(storage, bucket)) == shown(connection)


def test_a_task_that_was_started_twice_takes_nothing_away_that_the_other_has_committed(
    connection: Connection, storage: Storage, bucket: str
) -> None:
    lease = begin(connection)
    sink.stage(connection, "j", chunk(lease, 0))
    sink.stage(connection, "j", chunk(lease, 1))

    class Twin(Storage):
        """The other one begins and ends when this one has stored its first picture."""

        is_first = True

        def put_bytes(self, data: bytes, uri: str, content_type: str = "") -> None:
            super().put_bytes(data, uri, content_type)
            if self.is_first:
                self.is_first = False
                assert finalise(connection, storage, bucket, lease) is not None

    assert finalise(connection, Twin(storage.endpoint), bucket, lease) is None
    assert shown(connection)
    assert set(pictures(storage, bucket)) == shown(connection)


def test_of_two_that_repool_at_once_the_later_one_is_shown_with_all_its_pictures(
    connection: Connection, storage: Storage, bucket: str
) -> None:
    ingest(connection, storage, bucket, settings=dataclasses.replace(SETTINGS, frame_vectors=True))

    class Overtaken(Storage):
        """Another one begins and ends when this one has stored its first picture."""

        is_first = True

        def put_bytes(self, data: bytes, uri: str, content_type: str = "") -> None:
            super().put_bytes(data, uri, content_type)
            if self.is_first:
                self.is_first = False
                assert sink.repool(connection, storage, 1, 1, bucket=bucket, settings=SETTINGS) is not None

    assert sink.repool(connection, Overtaken(storage.endpoint), 1, 1, bucket=bucket, settings=SETTINGS) is None
    assert shown(connection)
    assert shown(connection) <= set(pictures(storage, bucket))


def staged(connection: Connection) -> Lease:
    """An attempt that has only to be finalised."""
    lease = begin(connection)
    sink.stage(connection, "j", chunk(lease, 0))
    assert sink.stage(connection, "j", chunk(lease, 1))
    return lease


@pytest.mark.parametrize("is_begun", [True, False], ids=["begun before", "begun meanwhile"])
def test_repooling_writes_no_old_moments_over_those_of_a_newer_ingest(
    connection: Connection, storage: Storage, bucket: str, is_begun: bool
) -> None:
    keeping = dataclasses.replace(SETTINGS, frame_vectors=True, shot_max_ms=4000)
    ingest(connection, storage, bucket, settings=dataclasses.replace(SETTINGS, frame_vectors=True))
    newer = [staged(connection)] if is_begun else []

    def ends() -> None:
        lease = newer.pop() if newer else staged(connection)
        assert finalise(connection, storage, bucket, lease, settings=keeping) is not None
        after.extend(rows(connection))

    class Overtaken(Storage):
        """The newer ingest ends when the old frame vectors have been read."""

        def read(self, uri: str) -> bytes:
            data = super().read(uri)
            if "/model-" in uri:
                ends()
            return data

    after = list[tuple[object, ...]]()
    assert sink.repool(connection, Overtaken(storage.endpoint), 1, 1, bucket=bucket, settings=SETTINGS) is None
    if newer:  # nothing was read
        ends()
    assert rows(connection) == after
    assert len(after) == 1
    assert shown(connection) <= set(pictures(storage, bucket))


class Full(Storage):
    """A store that takes one picture and no more."""

    is_empty = True

    def put_bytes(self, data: bytes, uri: str, content_type: str = "") -> None:
        if not self.is_empty:
            raise Temporary("the store is full")
        super().put_bytes(data, uri, content_type)
        self.is_empty = False


@pytest.mark.parametrize("puts_max", [3, 99], ids=["fails", "ends"])
@pytest.mark.parametrize("keeps_frames", [True, False])
def test_an_attempt_at_a_video_that_was_taken_down_meanwhile_leaves_nothing(
    connection: Connection, storage: Storage, bucket: str, puts_max: int, keeps_frames: bool
) -> None:
    settings = dataclasses.replace(SETTINGS, frame_vectors=keeps_frames, shot_max_ms=1000)
    lease = staged(connection)

    class TakenDown(Storage):
        """The video is taken down before the second object is stored, and the store is full later on, or not."""

        puts = 0

        def put_bytes(self, data: bytes, uri: str, content_type: str = "") -> None:
            self.puts += 1
            if self.puts == 2:
                takedown.remove(connection, storage, bucket, 1)
            if self.puts > puts_max:
                raise Temporary("the store is full")
            super().put_bytes(data, uri, content_type)

    emptied = TakenDown(storage.endpoint)
    if puts_max < 99:
        with pytest.raises(Temporary, match="full"):
            finalise(connection, emptied, bucket, lease, settings=settings)
    else:
        assert finalise(connection, emptied, bucket, lease, settings=settings) is None
    assert emptied.puts > 3
    assert list(storage.list(f"s3://{bucket}")) == []


def test_repooling_that_fails_leaves_the_pictures_that_are_shown_and_no_others(
    connection: Connection, storage: Storage, bucket: str
) -> None:
    ingest(connection, storage, bucket, settings=dataclasses.replace(SETTINGS, frame_vectors=True))
    with pytest.raises(Temporary, match="full"):
        sink.repool(connection, Full(storage.endpoint), 1, 1, bucket=bucket, settings=SETTINGS)
    assert set(pictures(storage, bucket)) == shown(connection)


def test_a_video_that_is_quarantined_keeps_no_picture_of_its_attempts(
    connection: Connection, storage: Storage, bucket: str, postgres_url: str, s3: S3Endpoint
) -> None:
    lease = staged(connection)
    with pytest.raises(Temporary, match="full"):
        finalise(connection, Full(storage.endpoint), bucket, lease)
    assert len(pictures(storage, bucket)) == 1  # the next attempt takes it away
    place = Place("j", "j/1", postgres_url, s3, bucket, SETTINGS, ModelSettings(), Model(1, "m", 64, "squash", "f"))
    failed = Failure("unreadable", "no frame can be decoded", final=True)
    assert Store(place)(Refused(1, lease.token, failed)) == Done(1, "quarantined")
    assert pictures(storage, bucket) == {}


FULL_DISK = """
    CREATE FUNCTION media.full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        RAISE 'could not extend file: No space left on device' USING ERRCODE = 'disk_full'; END $$;
    CREATE TRIGGER full_disk BEFORE INSERT ON media.staging FOR EACH ROW EXECUTE FUNCTION media.full_disk()"""


def test_a_database_whose_disk_is_full_costs_a_video_no_attempt(
    connection: Connection, storage: Storage, bucket: str, postgres_url: str, s3: S3Endpoint
) -> None:
    place = Place("j", "j/1", postgres_url, s3, bucket, SETTINGS, ModelSettings(), Model(1, "m", 64, "squash", "f"))
    connection.execute(FULL_DISK)
    for _ in range(SETTINGS.starts_max + 1):
        assert Store(place)(chunk(begin(connection), 0)) == Done(1, "queued")
        connection.execute("UPDATE media.videos SET retry_at = NULL")
    found = connection.execute("SELECT status, attempts, failures, error FROM media.videos").fetchone()
    assert found == ("queued", 0, 0, "the database has no space left on its disk")
    connection.execute("DROP TRIGGER full_disk ON media.staging")
    assert ingest(connection, storage, bucket) == segments.Kept(2, 0)


def test_a_video_that_was_lost_too_often_keeps_no_picture_of_its_attempts(
    connection: Connection, storage: Storage, bucket: str, postgres_url: str, s3: S3Endpoint, tmp_path: Path
) -> None:
    lease = staged(connection)
    with pytest.raises(Temporary, match="full"):
        finalise(connection, Full(storage.endpoint), bucket, lease)
    connection.execute("UPDATE media.videos SET lease_until = now() - interval '1 second'")
    settings = dataclasses.replace(SETTINGS, starts_max=1, scratch_dir=str(tmp_path / "scratch"))
    place = Place("j", "j/2", postgres_url, s3, bucket, settings, ModelSettings(), Model(1, "m", 64, "squash", "f"))
    assert list(Plan(place)(1)) == [Done(1, "quarantined")]
    assert pictures(storage, bucket) == {}
