"""Who had a file first: nobody becomes that by a place that was there before its content, and a job says who was not."""

from __future__ import annotations

from typing import Any

from psycopg import Connection

from pipelines import catalog, ingest, jobs, leases, reposts
from pipelines.leases import Lease
from pipelines.listed import Listed
from pipelines.remarks import CREATOR_ALIKE, REPOST, Remarks
from tests.pipelines.test_catalog import connection as connection

SAME, OTHER = "a" * 64, "b" * 64
FACTS: dict[str, Any] = dict.fromkeys(("container", "codec", "width", "height", "fps", "duration_ms", "has_audio"))


def listed(connection: Connection, name: str, creator: str, job: str = "j") -> int:
    catalog.register(connection, job, [Listed(f"s3://b/{creator}/{name}", "e", 10, creator, name)], 1)
    row = connection.execute(
        "SELECT id FROM media.videos WHERE source_uri = %s", (f"s3://b/{creator}/{name}",)
    ).fetchone()
    assert row is not None
    return int(row[0])


def probed(connection: Connection, video: int, content: str) -> None:
    """A job finds that content in it, and makes it ready."""
    lease = leases.claim(connection, video, "j/1", starts_max=9, lease_s=60)
    assert isinstance(lease, Lease)
    assert leases.describe(connection, lease, FACTS | {"content_hash": content, "warning": ""})
    connection.execute(
        "UPDATE media.videos SET status = 'ready', ready_at = now(), lease_owner = NULL, lease_token = NULL,"
        " lease_until = NULL WHERE id = %s",
        (video,),
    )


def are_reposts(connection: Connection) -> set[int]:
    return {number for (number,) in connection.execute(f"SELECT v.id FROM media.videos v WHERE {reposts.IS_REPOST}")}


def said(connection: Connection, job: str = "j") -> list[tuple[str, int, list[str]]]:
    remarks = jobs.get(connection, job)["remarks"]
    return [(row["kind"], row["count"], row["names"]) for row in remarks]


def test_the_first_who_had_a_file_is_who_had_its_content_first(connection: Connection) -> None:
    """Not who had a place for it: what stood there before was something else."""
    early = listed(connection, "one.mp4", "thief")
    probed(connection, early, OTHER)
    original = listed(connection, "film.mp4", "ana")
    probed(connection, original, SAME)
    assert are_reposts(connection) == set()
    probed(connection, early, SAME)
    assert are_reposts(connection) == {early}
    probed(connection, original, SAME)  # looked at again, for another model
    again = listed(connection, "again.mp4", "ana")
    probed(connection, again, SAME)
    assert are_reposts(connection) == {early}  # hers is no copy of the thief's, which was there before
    catalog.remove(connection, original)
    assert are_reposts(connection) == {again}


def test_who_was_accepted_is_so_for_that_content(connection: Connection) -> None:
    original, later = listed(connection, "film.mp4", "ana"), listed(connection, "film.mp4", "bo")
    probed(connection, original, SAME)
    probed(connection, later, SAME)
    assert catalog.accept_repost(connection, later, is_accepted=True)
    assert are_reposts(connection) == set()
    probed(connection, later, SAME)
    assert are_reposts(connection) == set()
    probed(connection, original, OTHER)
    probed(connection, later, OTHER)
    assert are_reposts(connection) == {later}
    assert not catalog.accept_repost(connection, 999, is_accepted=True)


def test_a_job_says_which_of_its_videos_are_reposts(connection: Connection) -> None:
    probed(connection, listed(connection, "film.mp4", "ana"), SAME)
    noted = Remarks()
    noted.add(CREATOR_ALIKE, "of another kind", "x")
    jobs.note(connection, "k", {"remarks": noted.rows()})
    for number in range(3):
        probed(connection, listed(connection, f"{number}.mp4", "bo", job="k"), SAME)
    probed(connection, listed(connection, "own.mp4", "bo", job="k"), OTHER)
    for _ in range(2):  # by the driver that takes over, too
        ingest.note_reposts(connection, "j")
        ingest.note_reposts(connection, "k")
        assert said(connection, "j") == []
        assert said(connection, "k") == [(CREATOR_ALIKE, 1, ["x"]), (REPOST, 3, ["0.mp4", "1.mp4", "2.mp4"])]
