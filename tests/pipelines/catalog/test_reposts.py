"""Who had a file, or pictures, first: nobody becomes that by a place that was there before its content, to code a film again
changes nothing of it, and a job says who was not."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import numpy as np
from psycopg import Connection

from pipelines import ingest
from pipelines.catalog import catalog, reposts
from pipelines.jobs import jobs, leases
from pipelines.jobs.leases import Lease
from pipelines.media import Segment
from pipelines.moments import segments
from pipelines.sources.listed import Listed
from pipelines.sources.remarks import CREATOR_ALIKE, REPOST, Remarks
from tests.pipelines.catalog.test_catalog import connection as connection

SAME, OTHER = "a" * 64, "b" * 64
RED, GREEN, BLUE = np.eye(3, dtype=np.float32)
NEARLY_RED = np.array([0.995, 0.0999, 0], np.float32)  # as another coding of a picture
REDDISH = np.array([0.97, 0.243, 0], np.float32)  # as another take
FACTS: dict[str, Any] = dict.fromkeys(("container", "codec", "width", "height", "fps", "duration_ms", "has_audio"))


def listed(connection: Connection, name: str, creator: str, job: str = "j") -> int:
    catalog.register(connection, job, [Listed(f"s3://b/{creator}/{name}", "e", 10, creator, name)], 1)
    row = connection.execute(
        "SELECT id FROM media.videos WHERE source_uri = %s", (f"s3://b/{creator}/{name}",)
    ).fetchone()
    assert row is not None
    return int(row[0])


def described(connection: Connection, video: int, content: str) -> None:
    """A job finds that content in it, and comes no further."""
    lease = leases.claim(connection, video, "j/1", starts_max=9, lease_s=60)
    assert isinstance(lease, Lease)
    assert leases.describe(connection, lease, FACTS | {"content_hash": content, "warning": ""})
    connection.execute(
        "UPDATE media.videos SET lease_owner = NULL, lease_token = NULL, lease_until = NULL WHERE id = %s", (video,)
    )


def probed(connection: Connection, video: int, content: str) -> None:
    """A job finds that content in it, and makes it ready."""
    described(connection, video, content)
    connection.execute("UPDATE media.videos SET status = 'ready', ready_at = now() WHERE id = %s", (video,))


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


def shown(connection: Connection, video: int, *pictures: Any, shot_ms: int = 2000, model: int = 1) -> None:
    """These are the video's moments from now on."""
    moments = [
        Segment(number * shot_ms, (number + 1) * shot_ms, number * shot_ms, b"", vector)
        for number, vector in enumerate(pictures)
    ]
    with connection.transaction():
        segments.replace(connection, video, model, moments, ["s3://b/x.webp"] * len(moments))
        connection.execute("UPDATE media.videos SET ready_at = now() WHERE id = %s", (video,))


def since(connection: Connection, video: int) -> list[datetime]:
    rows = connection.execute(
        "SELECT coalesce(s.shown_since, v.content_at, v.created_at) FROM media.segments s"
        " JOIN media.videos v ON v.id = s.video_id WHERE v.id = %s ORDER BY s.start_ms",
        (video,),
    )
    return [row[0] for row in rows]


def test_a_film_that_is_coded_again_is_there_as_long_as_before(connection: Connection) -> None:
    """Else whoever has copied it meanwhile would have it first. What is new in it is there since now."""
    film = listed(connection, "film.mp4", "ana")
    probed(connection, film, SAME)
    shown(connection, film, RED, GREEN)
    first = since(connection, film)[0]
    copy = listed(connection, "copy.mp4", "bo")
    probed(connection, copy, SAME)
    shown(connection, copy, RED, GREEN)
    (copied,) = set(since(connection, copy))
    described(connection, film, OTHER)  # an attempt that came to nothing
    assert since(connection, film) == [first, first]  # while its old moments are shown
    described(connection, film, "c" * 64)
    shown(connection, film, NEARLY_RED, BLUE, REDDISH)
    again = since(connection, film)
    assert again[0] == first < copied < again[1] == again[2]
    connection.execute("SELECT media.register_model('other', 3, 'g')")
    described(connection, film, "c" * 64)
    shown(connection, film, BLUE, RED, GREEN, model=2)
    assert since(connection, film) == again
    shown(connection, film, NEARLY_RED, NEARLY_RED, BLUE, BLUE, shot_ms=1000)  # cut in other places
    assert since(connection, film) == [first, first, again[1], again[1]]


def test_what_takes_a_film_s_place_is_there_since_then(connection: Connection) -> None:
    place = listed(connection, "place.mp4", "thief")
    probed(connection, place, OTHER)
    shown(connection, place, RED, RED)
    film = listed(connection, "film.mp4", "ana")
    probed(connection, film, SAME)
    shown(connection, film, GREEN, REDDISH)
    described(connection, place, "c" * 64)
    shown(connection, place, GREEN, REDDISH)
    assert min(since(connection, place)) > max(since(connection, film))


def test_who_puts_an_earlier_file_back_is_no_copy_of_who_has_copied_it(connection: Connection) -> None:
    film, copy = listed(connection, "film.mp4", "ana"), listed(connection, "copy.mp4", "bo")
    for video in (film, copy):
        probed(connection, video, SAME)
        shown(connection, video, RED, GREEN)
    assert are_reposts(connection) == {copy}
    for content, picture in ((OTHER, NEARLY_RED), (SAME, RED)):
        described(connection, film, content)
        shown(connection, film, picture, GREEN)
    assert are_reposts(connection) == {copy}
    described(connection, film, OTHER)
    shown(connection, film, BLUE, GREEN)  # half of another film
    described(connection, film, SAME)
    shown(connection, film, RED, GREEN)
    assert are_reposts(connection) == {film}


def test_of_what_was_there_before_this_release_it_is_known_since_when_it_was_listed(connection: Connection) -> None:
    film = listed(connection, "film.mp4", "ana")
    probed(connection, film, SAME)
    connection.execute("UPDATE media.videos SET content_at = NULL, created_at = now() - interval '1 year'")
    shown(connection, film, RED)
    before = since(connection, film)
    described(connection, film, OTHER)
    shown(connection, film, RED)
    assert since(connection, film) == before


def test_who_had_a_file_first_is_found_by_an_index_however_many_have_it(connection: Connection) -> None:
    first = listed(connection, "0.mp4", "ana")
    probed(connection, first, SAME)
    connection.execute(
        "INSERT INTO media.videos (creator_id, source_uri, content_hash, content_at, status, ready_at)"
        " SELECT v.creator_id, 's3://b/copy/' || n, v.content_hash, now() + n * interval '1 s', 'ready', now()"
        " FROM media.videos v, generate_series(1, 3000) n"
    )
    connection.execute("ANALYZE media.videos")
    question = f"SELECT (SELECT o.id {reposts.FIRST}) FROM media.videos v WHERE v.id = %s"
    last = first + 3000
    assert connection.execute(question, (last,)).fetchone() == (first,)
    plan = "\n".join(row[0] for row in connection.execute(f"EXPLAIN (ANALYZE, BUFFERS) {question}", (last,)))
    assert "videos_first_public" in plan
    assert "Sort" not in plan
