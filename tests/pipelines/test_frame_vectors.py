"""What moments were made of is kept, and makes the same moments again, or others under other rules, without decoding."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from psycopg import Connection

from cluster.errors import Rejected
from cluster.storage import Storage
from pipelines import frame_vectors, prefixes, repool, takedown
from tests.pipelines.test_sink import SETTINGS, begin, connection, finalise, ingest, pictures, shown, storage

__all__ = ["connection", "storage"]  # fixtures

KEEPING = dataclasses.replace(SETTINGS, frame_vectors=True)


def rows(connection: Connection) -> list[tuple[Any, ...]]:
    return connection.execute(
        "SELECT s.id, s.start_ms, s.end_ms, s.best_frame_ms, substring(s.thumbnail_uri FROM '[^/]*$'), e.embedding::text"
        " FROM media.segments s JOIN media.embeddings e ON e.segment_id = s.id ORDER BY s.start_ms"
    ).fetchall()


def test_what_is_kept_makes_the_same_moments_again(connection: Connection, storage: Storage, bucket: str) -> None:
    ingest(connection, storage, bucket, settings=KEEPING)
    before = rows(connection)
    assert len(before) > 1
    connection.execute("TRUNCATE media.embeddings")
    done = repool.run(connection, storage, bucket, KEEPING)
    assert done == {"videos": 1, "segments": len(before), "skipped": 0, "refused": []}
    assert rows(connection) == before
    assert repool.run(connection, storage, bucket, KEEPING) == done
    assert rows(connection) == before


def test_other_rules_make_other_moments_and_old_ids_lead_to_them(
    connection: Connection, storage: Storage, bucket: str
) -> None:
    ingest(connection, storage, bucket, settings=KEEPING)
    before = rows(connection)
    repool.run(connection, storage, bucket, dataclasses.replace(KEEPING, shot_max_ms=1000))
    after = rows(connection)
    assert len(after) > len(before)
    assert max(end - start for _, start, end, *_ in after) <= 1000
    repool.run(connection, storage, bucket, KEEPING)
    gone = {row[0] for row in after} - {row[0] for row in rows(connection)}
    led = {row[0] for row in connection.execute("SELECT old_id FROM media.segment_lineage").fetchall()}
    assert gone
    assert gone <= led


def test_nothing_is_kept_unless_it_is_asked_for(connection: Connection, storage: Storage, bucket: str) -> None:
    ingest(connection, storage, bucket)
    assert list(frame_vectors.listed(storage, bucket)) == []
    assert repool.run(connection, storage, bucket, KEEPING)["videos"] == 0


def test_a_video_that_is_being_worked_on_is_left_alone(connection: Connection, storage: Storage, bucket: str) -> None:
    ingest(connection, storage, bucket, settings=KEEPING)
    connection.execute("UPDATE media.videos SET pipeline_version = NULL")
    lease = begin(connection)
    before = rows(connection)
    done = repool.run(connection, storage, bucket, dataclasses.replace(KEEPING, shot_max_ms=1000))
    assert (done["videos"], done["skipped"], rows(connection)) == (0, 1, before)
    assert finalise(connection, storage, bucket, lease) is None  # nothing was staged: the lease itself still stands


def test_frame_vectors_of_another_version_are_refused_with_what_to_do(
    connection: Connection, storage: Storage, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest(connection, storage, bucket, settings=KEEPING)
    monkeypatch.setattr(frame_vectors, "PIPELINE_VERSION", 99)
    with pytest.raises(Rejected, match="made by version"):
        frame_vectors.read(storage, bucket, 1, 1)
    (refused,) = repool.run(connection, storage, bucket, KEEPING)["refused"]
    assert "ingest the video again" in refused


def test_what_was_shown_before_stays_though_two_models_follow_each_other(
    connection: Connection, storage: Storage, bucket: str
) -> None:
    for model in (1, 2):
        ingest(connection, storage, bucket, settings=KEEPING, model=model)
    before = shown(connection)
    assert repool.run(connection, storage, bucket, KEEPING)["skipped"] == 0
    assert before.isdisjoint(shown(connection))
    assert before | shown(connection) <= set(pictures(storage, bucket))


def test_a_takedown_removes_them(connection: Connection, storage: Storage, bucket: str) -> None:
    ingest(connection, storage, bucket, settings=KEEPING)
    assert list(frame_vectors.listed(storage, bucket)) == [(1, 1)]
    takedown.remove(connection, storage, bucket, 1)
    assert list(storage.list(f"s3://{bucket}/{prefixes.FRAMES}/")) == []
