"""Videos and the leases on them: who may work, whose late writes count for nothing, and when to give up."""

from __future__ import annotations

import dataclasses
import random
import string
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import base58
import pytest
from psycopg import Connection

from cluster.database import database
from pipelines.catalog import catalog
from pipelines.jobs import jobs, leases
from pipelines.jobs.leases import Lease
from pipelines.media import PIPELINE_VERSION, Failure
from pipelines.settings import IngestSettings
from pipelines.sources.listed import Listed
from tests.conftest import until

WALLET, OTHER = (base58.b58encode(bytes([number] * 32)).decode() for number in (1, 2))
VIDEO = Listed("s3://b/one.mp4", "etag", 10, "ana", "One", tags=("red",), wallet=WALLET)
BROKEN = Failure("decoder-crashed", "SIGSEGV")
FINAL = Failure("gone", "the object is not there", final=True)


@pytest.fixture
def connection(postgres_url: str) -> Iterator[Connection]:
    with database.connect(postgres_url, autocommit=True) as opened:
        opened.execute("SELECT media.register_model('m', 3, 'f')")
        opened.execute("INSERT INTO media.jobs (id, source) VALUES ('j', 's3://b'), ('k', 's3://b')")
        yield opened


def register(connection: Connection, *videos: Listed, job: str = "j") -> None:
    catalog.register(connection, job, videos or (VIDEO,), 1)


def claim(
    connection: Connection, owner: str = "j/1", *, starts_max: int = 9, lease_s: int = 60
) -> Lease | Failure | None:
    return leases.claim(connection, 1, owner, lease_s=lease_s, starts_max=starts_max)


def leased(connection: Connection, owner: str = "j/1") -> Lease:
    lease = claim(connection, owner)
    assert isinstance(lease, Lease)
    return lease


def fail(connection: Connection, lease: Lease, failure: Failure = BROKEN, base_s: float = 0.0) -> str | None:
    ingest = IngestSettings(failures_max=3, backoff_base_s=base_s, backoff_max_s=100)
    return leases.fail(connection, lease.video_id, lease.token, failure, ingest)


def column(connection: Connection, name: str) -> object:
    row = connection.execute(f"SELECT {name} FROM media.videos WHERE id = 1").fetchone()
    assert row is not None
    return row[0]


def test_registering_twice_changes_nothing(connection: Connection) -> None:
    register(connection)
    before = connection.execute("SELECT * FROM media.videos, media.creators, media.job_videos").fetchall()
    register(connection)
    assert connection.execute("SELECT * FROM media.videos, media.creators, media.job_videos").fetchall() == before


def test_an_object_with_another_content_starts_anew(connection: Connection) -> None:
    register(connection)
    fail(connection, leased(connection), Failure("damaged", "no", final=True))
    assert column(connection, "status") == "quarantined"
    register(connection, dataclasses.replace(VIDEO, etag="other"), job="k")
    assert column(connection, "status") == "queued"
    assert column(connection, "attempts") == 0


def test_the_first_wallet_stands(connection: Connection) -> None:
    register(connection, dataclasses.replace(VIDEO, wallet=""))
    register(connection)
    register(connection, dataclasses.replace(VIDEO, wallet=OTHER))
    assert connection.execute("SELECT wallet FROM media.creators").fetchall() == [(WALLET,)]


def test_creators_take_turns(connection: Connection) -> None:
    many = [dataclasses.replace(VIDEO, source_uri=f"s3://b/{number}", creator="ana") for number in range(3)]
    register(connection, *many, dataclasses.replace(VIDEO, source_uri="s3://b/x", creator="bo"))
    rows = connection.execute(
        "SELECT c.handle FROM media.job_videos j JOIN media.videos v ON v.id = j.video_id"
        " JOIN media.creators c ON c.id = v.creator_id ORDER BY j.position"
    ).fetchall()
    assert [row[0] for row in rows] == ["ana", "bo", "ana", "ana"]


def test_of_each_creator_the_largest_video_comes_first(connection: Connection) -> None:
    sizes = {"s3://b/short": 1, "s3://b/long": 9, "s3://b/middle": 5}
    register(connection, *(dataclasses.replace(VIDEO, source_uri=uri, size=size) for uri, size in sizes.items()))
    rows = connection.execute(
        "SELECT v.source_uri FROM media.job_videos j JOIN media.videos v ON v.id = j.video_id ORDER BY j.position"
    ).fetchall()
    assert [row[0] for row in rows] == ["s3://b/long", "s3://b/middle", "s3://b/short"]


def test_an_attempt_is_counted_when_it_begins_and_asking_again_is_none(connection: Connection) -> None:
    register(connection)
    first = leased(connection)
    assert leased(connection).token == first.token
    assert column(connection, "attempts") == 1
    assert column(connection, "status") == "processing"


def test_a_leased_video_is_nobody_elses(connection: Connection) -> None:
    register(connection)
    leased(connection)
    assert claim(connection, "k/1") is None


def test_an_expired_lease_passes_on_and_its_late_writes_find_nothing(connection: Connection) -> None:
    register(connection)
    old = leased(connection)
    connection.execute("UPDATE media.videos SET lease_until = now() - interval '1 second'")
    new = leased(connection, "k/1")
    assert new.token > old.token
    assert fail(connection, old) is None
    assert not leases.describe(connection, old, dict.fromkeys(
        ("content_hash", "container", "codec", "width", "height", "fps", "duration_ms", "has_audio", "warning")))  # fmt: skip
    assert column(connection, "lease_token") == new.token


def test_after_its_last_failure_a_video_is_quarantined_with_the_reason(connection: Connection) -> None:
    register(connection)
    assert [fail(connection, leased(connection)) for _ in range(3)] == ["queued", "queued", "quarantined"]
    assert column(connection, "error") == "SIGSEGV"
    assert claim(connection) is None


def test_each_failure_is_tried_again_later_than_the_one_before(connection: Connection) -> None:
    register(connection)
    waits_s = []
    for _ in range(2):
        random.seed(3)  # of the jitter
        fail(connection, leased(connection), base_s=10)
        waits_s.append(float(str(column(connection, "extract(epoch FROM retry_at - now())"))))
        connection.execute("UPDATE media.videos SET retry_at = NULL")
    assert waits_s[1] == pytest.approx(2 * waits_s[0], abs=0.5)


def test_a_refusal_is_seen_in_its_job_at_once(connection: Connection) -> None:
    """Not only when the round over all its videos ends, which may be hours later; a failure to be tried again is none."""
    other = dataclasses.replace(VIDEO, source_uri="s3://b/two.mp4")
    register(connection, VIDEO, other)
    fail(connection, leased(connection))
    job = jobs.get(connection, "j")
    assert (job["failures"], job["progress"]["left"]) == ([], 2)
    fail(connection, leased(connection), FINAL)
    job = jobs.get(connection, "j")
    assert [(each["code"], each["reason"]) for each in job["failures"]] == [(FINAL.code, FINAL.reason)]
    assert (job["videos"]["quarantined"], job["progress"]["left"]) == (1, 1)


def test_what_trying_again_cannot_mend_is_quarantined_at_once(connection: Connection) -> None:
    register(connection)
    assert fail(connection, leased(connection), Failure("empty", "0 bytes", final=True)) == "quarantined"


def test_a_searchable_video_stays_so_when_a_further_look_at_it_fails_for_good(connection: Connection) -> None:
    """A back-fill, or another version, finds the object gone: what is searched is no worse for that."""
    register(connection)
    connection.execute("UPDATE media.videos SET status = 'ready', ready_at = now(), pipeline_version = 1")
    assert fail(connection, leased(connection), FINAL) == "quarantined"
    assert (column(connection, "status"), column(connection, "error"), column(connection, "lease_owner")) == (
        "ready",
        None,
        None,
    )
    outcome = connection.execute("SELECT outcome, error_code FROM media.job_videos").fetchone()
    assert outcome == ("quarantined", FINAL.code)
    connection.execute("UPDATE media.videos SET attempts = 9")
    assert isinstance(claim(connection, starts_max=9), Failure)
    assert column(connection, "status") == "ready"


def test_a_ready_video_that_is_looked_at_again_has_attempts_of_its_own(connection: Connection) -> None:
    register(connection)
    connection.execute("UPDATE media.videos SET status = 'ready', ready_at = now(), pipeline_version = 1, attempts = 9")
    register(connection, job="k")
    assert isinstance(claim(connection, "k/1", starts_max=9), Lease)


def test_a_changed_object_that_is_broken_is_quarantined(connection: Connection) -> None:
    register(connection)
    connection.execute("UPDATE media.videos SET status = 'ready', ready_at = now(), pipeline_version = NULL")
    assert fail(connection, leased(connection), FINAL) == "quarantined"
    assert column(connection, "status") == "quarantined"


def test_a_dependency_that_is_away_is_nobodys_failure(connection: Connection) -> None:
    register(connection)
    for _ in range(5):
        assert fail(connection, leased(connection), Failure("temporary", "S3 is away")) == "queued"
    assert (column(connection, "failures"), column(connection, "attempts")) == (0, 0)


def test_a_video_that_takes_its_machine_down_is_not_tried_for_ever(connection: Connection) -> None:
    register(connection)
    for number in range(3):
        leased(connection, f"j/{number}")
        connection.execute("UPDATE media.videos SET lease_until = now() - interval '1 second'")
    found = claim(connection, "j/9", starts_max=3)
    assert isinstance(found, Failure)
    assert column(connection, "status") == "quarantined"


def test_a_new_driver_takes_over_at_once(connection: Connection) -> None:
    register(connection)
    old = leased(connection, "j/1")
    leases.release(connection, "j", except_owner="j/2")
    assert leased(connection, "j/2").token > old.token


def test_what_an_owner_no_longer_works_on_is_put_back_and_counts_as_begun(connection: Connection) -> None:
    register(connection)
    old = leased(connection, "j/1")
    assert leases.put_back(connection, "j/2") == 0
    assert leases.put_back(connection, "j/1") == 1
    assert column(connection, "status") == "queued"
    again = leased(connection, "j/1")
    assert (again.token > old.token, again.attempts) == (True, 2)


def test_a_job_that_gives_up_fails_what_it_is_at_and_leaves_no_gap_for_a_late_task(
    connection: Connection, postgres_url: str
) -> None:
    """A task claims its video while the job gives it up: it waits for the task, and finds the video leased."""
    register(connection)
    seen, task = (database.connect(postgres_url, autocommit=True) for _ in range(2))
    with seen, task, ThreadPoolExecutor(1) as thread:
        with task.transaction():
            lease = leased(task)
            ending = thread.submit(leases.give_up, connection, "j", "no node can confine a decoder", "j/1")
            until(lambda: waits(seen), what="the job waits for the task")
        ending.result(30)
        assert fail(task, lease) is None
    assert (column(connection, "status"), column(connection, "lease_token")) == ("failed", None)
    assert column(connection, "error") == "no node can confine a decoder"
    assert claim(connection, "j/1") is None


def waits(connection: Connection) -> bool:
    """Whether another connection to this database waits for a lock."""
    question = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    return connection.execute(question).fetchone() != (0,)


def test_a_job_that_gives_up_leaves_alone_what_another_one_is_at(connection: Connection) -> None:
    register(connection)
    leased(connection, "k/1")
    leases.give_up(connection, "j", "a reason", "j/1")
    assert column(connection, "status") == "processing"


def test_a_retried_video_has_its_attempts_again(connection: Connection) -> None:
    register(connection)
    fail(connection, leased(connection), Failure("damaged", "no", final=True))
    assert catalog.requeue(connection, [1]) == 1
    assert leased(connection).attempts == 1


def test_a_removed_video_does_not_come_back(connection: Connection) -> None:
    register(connection)
    lease = leased(connection)
    assert catalog.remove(connection, 1)
    assert not catalog.remove(connection, 1)
    assert fail(connection, lease) is None
    register(connection, dataclasses.replace(VIDEO, etag="other"))
    assert column(connection, "status") == "removed"
    assert claim(connection) is None


def test_what_is_done_is_skipped_without_a_look_at_the_object(connection: Connection) -> None:
    register(connection)
    connection.execute(
        "UPDATE media.videos SET status = 'ready', ready_at = now(), pipeline_version = %s", (PIPELINE_VERSION,)
    )
    connection.execute(
        "INSERT INTO media.embeddings (model_id, segment_id, video_id, creator_id, start_ms, end_ms, embedding)"
        " VALUES (1, 1, 1, 1, 0, 1, '[1,0,0]')"
    )
    register(connection, job="k")
    row = connection.execute("SELECT outcome FROM media.job_videos WHERE job_id = 'k'").fetchone()
    assert row == ("skipped",)


@pytest.mark.parametrize(
    "words",
    [
        {"title": "half \ud83d"},
        {"description": "half \udce9"},
        {"language": "x\0y"},
        {"creator": ""},
        {"creator": "\udce9"},
        {"creator": "bo", "wallet": "\ud83d"},
        {"visibility": "secret"},
        {"size": -1},
        {"size": 1 << 63},
        {"source_uri": "s3://b/\udce9.mp4"},
        {"tags": ("".join(random.Random(1).choices(string.ascii_letters + string.digits, k=4500)),)},
    ],
    ids=str,
)
def test_a_row_that_the_database_does_not_keep_is_named_and_its_neighbours_get_in(
    connection: Connection, words: dict[str, Any]
) -> None:
    many = [dataclasses.replace(VIDEO, source_uri=f"s3://b/{number}") for number in range(7)]
    odd = dataclasses.replace(VIDEO, **{"source_uri": "s3://b/odd", **words})
    refused = catalog.register(connection, "j", [*many[:3], odd, *many[3:]], 1).refused
    assert [note.video for note in refused] == [odd]
    assert refused[0].reason.startswith("the database does not keep it: ")
    row = connection.execute("SELECT count(*), max(position) FROM media.job_videos").fetchone()
    assert row == (7, 7)


def test_the_reason_of_a_failed_video_names_no_place_and_no_secret(connection: Connection) -> None:
    register(connection)
    said = "S3 at http://127.0.0.1:9000 failed: [Errno 2] '/tmp/pixr-scratch-0-ab/cd.mp4' of s3://b/one.mp4\n token=abcdefgh"
    fail(connection, leased(connection), Failure("temporary", said))
    assert column(connection, "error") == "S3 at … failed: [Errno 2] '…' of s3://b/one.mp4 token=***"
