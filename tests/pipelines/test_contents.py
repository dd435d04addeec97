"""Since when a video shows its pictures: another film has no earlier time in an old place, by however many small steps it
comes there; one that is coded again keeps its time, whichever models there are; and a content is its moments'."""

from __future__ import annotations

import math
import time
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from psycopg import Connection

from cluster.errors import Rejected
from pipelines import catalog, leases, segments
from pipelines.leases import Lease
from pipelines.media import Segment
from tests.pipelines.test_catalog import connection as connection
from tests.pipelines.test_reposts import (
    BLUE,
    FACTS,
    GREEN,
    OTHER,
    RED,
    SAME,
    are_reposts,
    described,
    listed,
    probed,
    shown,
    since,
)

STEPS = 9


def turned(part: float) -> Any:
    """A picture between red and green."""
    angle = math.pi / 2 * part
    return (math.cos(angle) * RED + math.sin(angle) * GREEN).astype(np.float32)


def film_of(connection: Connection, creator: str, content: str, *pictures: Any) -> int:
    video = listed(connection, "film.mp4", creator)
    probed(connection, video, content)
    shown(connection, video, *pictures)
    return video


def coded_again(connection: Connection, video: int, content: str, *pictures: Any, model: int = 1) -> None:
    """Its object is another one, which a job finds, and makes its moments of."""
    connection.execute("UPDATE media.videos SET attempts = 0 WHERE id = %s", (video,))  # as `register` does
    described(connection, video, content)
    shown(connection, video, *pictures, model=model)


def faded(connection: Connection, video: int, last: str = SAME) -> None:
    """Step by step, each with a cosine of 0.985 to the one before, to the very file of another film."""
    for step in range(1, STEPS + 1):
        picture = turned(step / STEPS)
        coded_again(connection, video, last if step == STEPS else f"{step:064d}", picture, picture)


def content(connection: Connection, video: int) -> tuple[str, datetime]:
    row = connection.execute("SELECT content_hash, content_at FROM media.videos WHERE id = %s", (video,)).fetchone()
    assert row is not None
    return row[0], row[1]


def another_model(connection: Connection) -> None:
    connection.execute("SELECT media.register_model('other', 3, 'g')")


def test_no_place_becomes_another_film_s_first_by_small_steps(connection: Connection) -> None:
    place = film_of(connection, "thief", OTHER, RED, RED)
    film = film_of(connection, "ana", SAME, GREEN, GREEN)
    faded(connection, place)
    assert min(since(connection, place)) > max(since(connection, film))
    assert are_reposts(connection) == {place}


def test_a_step_has_the_time_of_the_earliest_pictures_that_are_the_same_and_not_of_what_was_the_same_as_they(
    connection: Connection,
) -> None:
    film = film_of(connection, "ana", SAME, RED)
    (first,) = since(connection, film)
    coded_again(connection, film, "1" * 64, turned(1 / STEPS))
    assert since(connection, film) == [first]
    coded_again(connection, film, "2" * 64, turned(2 / STEPS))
    assert since(connection, film) == [content(connection, film)[1]] > [first]
    coded_again(connection, film, "3" * 64, turned(0.5 / STEPS))
    assert since(connection, film) == [first]


def test_a_film_that_is_coded_again_for_another_model_keeps_its_time(connection: Connection) -> None:
    """The other model knows nothing of its earlier pictures: the first one says that they are the same, when its vectors of
    the new ones follow. Nothing is earned by them before that."""
    film = film_of(connection, "ana", SAME, RED, GREEN)
    first = since(connection, film)
    copy = film_of(connection, "bo", SAME, RED, GREEN)
    another_model(connection)
    coded_again(connection, film, OTHER, BLUE, RED, model=2)  # its vectors of the same pictures
    assert vectors(connection, film) == {2: 2}  # none that searches with the first one would find
    shown(connection, film, RED, GREEN)
    assert since(connection, film) == first < since(connection, copy)
    shown(connection, film, BLUE, RED, model=2)
    assert since(connection, film) == first


def vectors(connection: Connection, video: int) -> dict[int, int]:
    return dict(
        connection.execute(
            "SELECT model_id::int, count(*)::int FROM media.embeddings WHERE video_id = %s GROUP BY 1", (video,)
        ).fetchall()
    )


def test_no_change_of_model_gives_another_film_the_time_of_what_stood_there(connection: Connection) -> None:
    place = film_of(connection, "thief", OTHER, RED, RED)
    film = film_of(connection, "ana", SAME, GREEN, GREEN)
    another_model(connection)
    coded_again(connection, place, "1" * 64, BLUE, BLUE, model=2)
    assert min(since(connection, place)) > max(since(connection, film))
    shown(connection, place, GREEN, GREEN)
    assert min(since(connection, place)) > max(since(connection, film))


def test_a_film_coded_again_before_a_change_of_model_and_after_it_keeps_its_time_and_moves_no_further(
    connection: Connection,
) -> None:
    film = film_of(connection, "ana", SAME, RED)
    first = since(connection, film)
    coded_again(connection, film, "1" * 64, turned(1 / STEPS))
    another_model(connection)
    shown(connection, film, RED, model=2)
    coded_again(connection, film, "2" * 64, turned(1 / STEPS), model=2)
    assert since(connection, film) == first
    coded_again(connection, film, "3" * 64, turned(2 / STEPS), model=2)
    assert since(connection, film) > first
    coded_again(connection, film, "4" * 64, turned(1 / STEPS), model=2)
    shown(connection, film, turned(3 / STEPS))
    assert since(connection, film) == first


def test_who_puts_the_very_file_back_has_had_it_all_the_time(connection: Connection) -> None:
    """After another one, for which there are no vectors of what was there before, and after one that came to nothing."""
    film, copy = (film_of(connection, creator, SAME, RED, GREEN) for creator in ("ana", "bo"))
    first, had = since(connection, film), content(connection, film)
    another_model(connection)
    described(connection, film, OTHER)  # an attempt that came to nothing: a file that was cut short
    coded_again(connection, film, SAME, BLUE, RED, model=2)  # the same file as ever
    assert (since(connection, film), content(connection, film)) == (first, had)
    coded_again(connection, film, OTHER, BLUE, model=2)
    assert are_reposts(connection) == set()
    coded_again(connection, film, SAME, BLUE, RED, model=2)
    assert (since(connection, film), content(connection, film)) == (first, had)
    assert are_reposts(connection) == {copy}


def test_a_file_that_is_put_back_is_there_no_later_for_what_stood_there_meanwhile(connection: Connection) -> None:
    film = film_of(connection, "ana", SAME, RED)
    first = since(connection, film)
    another_model(connection)
    coded_again(connection, film, OTHER, BLUE, model=2)
    coded_again(connection, film, SAME, BLUE, model=2)
    assert since(connection, film) == first


def test_a_content_is_the_video_s_with_its_moments_and_not_when_it_is_looked_at(connection: Connection) -> None:
    """Nor do moments that are made anew, of what was kept of them, say anything of what was found since."""
    film, copy = (film_of(connection, creator, SAME, RED, GREEN) for creator in ("ana", "bo"))
    had = content(connection, copy)
    described(connection, copy, OTHER)
    assert are_reposts(connection) == {copy}  # what it shows is still that
    with connection.transaction():
        segments.replace(connection, copy, 1, [Segment(0, 4000, 0, b"", RED)], ["s3://b/x.webp"])
    assert content(connection, copy) == had
    assert since(connection, film) < since(connection, copy)
    assert catalog.accept_repost(connection, copy, is_accepted=True)
    described(connection, copy, SAME)
    shown(connection, copy, RED, GREEN)
    assert are_reposts(connection) == set()


def test_an_attempt_that_finds_two_contents_is_refused(connection: Connection) -> None:
    """As where its first step is done again on another machine, and the object was swapped meanwhile."""
    video = listed(connection, "film.mp4", "ana")
    lease = leases.claim(connection, video, "j/1", starts_max=9, lease_s=60)
    assert isinstance(lease, Lease)
    for _ in range(2):
        assert leases.describe(connection, lease, FACTS | {"content_hash": SAME, "warning": ""})
    with pytest.raises(Rejected, match="changed"):
        leases.describe(connection, lease, FACTS | {"content_hash": OTHER, "warning": ""})


def test_where_pictures_are_the_same_to_a_model_from_less_on_they_keep_their_time_from_there(
    connection: Connection,
) -> None:
    film = film_of(connection, "ana", SAME, RED)
    first = since(connection, film)
    for same, is_kept in ((0.98, False), (0.90, True)):
        described(connection, film, f"{int(same * 100):064d}")
        shown(connection, film, turned(0.2), same=same)  # a cosine of 0.951
        assert (since(connection, film) == first) is is_kept


def test_of_earlier_moments_the_earliest_are_kept_and_none_of_a_video_that_is_taken_down(
    connection: Connection,
) -> None:
    film = film_of(connection, "ana", SAME, RED, GREEN)
    first = since(connection, film)
    for number, picture in enumerate((BLUE, GREEN, BLUE)):
        described(connection, film, f"{number:064d}")
        shown(connection, film, picture, picture, earlier_max=3)
    assert connection.execute("SELECT count(*) FROM media.earlier_moments").fetchone() == (3,)
    coded_again(connection, film, "9" * 64, GREEN, RED)
    assert since(connection, film) == first
    described(connection, film, "0" * 64)
    shown(connection, film, RED, BLUE)
    another_model(connection)
    shown(connection, film, GREEN, RED, model=2)
    described(connection, film, SAME)
    shown(connection, film, RED, GREEN, earlier_max=4)  # one more of the four is kept
    described(connection, film, "8" * 64)
    shown(connection, film, GREEN, model=2)
    assert since(connection, film) == first[:1]
    catalog.remove(connection, film)
    assert connection.execute("SELECT count(*) FROM media.earlier_moments").fetchone() == (0,)


def test_the_moments_of_a_day_of_video_are_found_again_in_no_time() -> None:
    since = datetime(2026, 1, 1, tzinfo=UTC)
    before = [(number, 1000 * number, 1000 * number + 900, since if number % 2 else None) for number in range(86_400)]
    began_s = time.perf_counter()
    found = segments._shown_at(before[::-1], [1000 * number + 450 for number in range(86_400)])
    assert found == [each[3] for each in before]
    assert time.perf_counter() - began_s < 5  # one by one it is minutes, in which the video's row is locked
    # Between moments, and outside of all.
    assert segments._shown_at(before, [-1, 1950, 86_400_000]) == [None, None, None]
