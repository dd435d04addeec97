"""The feed shows what is watched and what is new, to each viewer what they have not seen; nothing of it earns."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from cluster.database import database, migrations
from cluster.settings import Settings
from serve.access import viewers
from serve.search import feed
from serve.settings import SearchSettings
from tests.conftest import fresh_database
from tests.serve.doors import Doors, Shelf, fill, opened


@dataclass(frozen=True)
class Room:
    doors: Doors
    shelf: Shelf

    async def feed(self, headers: dict[str, str] | None = None) -> list[int]:
        answer = await self.doors.http.get("/v1/feed", headers=headers or {})
        assert answer.status_code == 200, answer.text
        return [int(moment["segment_id"]) for moment in answer.json()["moments"]]

    async def watch(self, segment_id: int, headers: dict[str, str] | None = None, **more: Any) -> int:
        body = {"segment_id": str(segment_id)} | more
        return (await self.doors.http.post("/v1/events", json=body, headers=headers or {})).status_code


@pytest.fixture
async def room(settings: Settings) -> AsyncIterator[Room]:
    shelf = fill(settings)
    async with opened(settings) as doors:
        yield Room(doors, shelf)


async def test_new_videos_are_shown_by_their_first_moment(room: Room) -> None:
    assert sorted(await room.feed()) == [room.shelf.moments[0], room.shelf.moments[2]]


async def test_what_many_watch_comes_first_and_one_viewer_counts_once(room: Room) -> None:
    first, second, *_ = room.shelf.moments
    for _ in range(5):
        assert await room.watch(first, room.doors.key("search", creator_id=room.shelf.ada)) == 204
    for name in ("ingest", "admin"):
        assert await room.watch(second, room.doors.key(name)) == 204
    assert (await room.feed())[0] == second
    with room.doors.database() as connection:
        assert connection.execute("SELECT count(*) FROM app.watch_events").fetchone() == (3,)


async def test_what_is_claimed_to_be_watched_is_at_most_the_moment_and_counts_once_an_hour(room: Room) -> None:
    moment, me = room.shelf.moments[0], room.doors.key("search")
    for kind in ("like", "like", "play", "like"):
        assert await room.watch(moment, me, kind=kind, watched_ms=86_400_000) == 204
    with room.doors.database() as connection:
        said = "SELECT kind, watched_ms FROM app.watch_events ORDER BY kind"
        assert connection.execute(said).fetchall() == [("like", 1500), ("play", 1500)]
        connection.execute("UPDATE app.watch_events SET at = at - interval '61 minutes'")
    assert await room.watch(moment, me, kind="like", watched_ms=10) == 204
    with room.doors.database() as connection:
        assert connection.execute("SELECT count(*) FROM app.watch_events").fetchone() == (3,)


async def test_events_of_many_at_once_are_noted_over_a_few_connections(room: Room) -> None:
    """Each once opened a connection of its own, and PostgreSQL has 120 for everybody."""
    moment, many = room.shelf.moments[0], 60
    with room.doors.database() as connection:
        connection.execute(NOTES_CONNECTIONS)
    cookies = [viewers.new_cookie(viewers.key_of(room.doors.settings)) for _ in range(many)]
    asked = (room.watch(moment, {"Cookie": f"{viewers.COOKIE}={cookie}"}) for cookie in cookies)
    statuses = await asyncio.gather(*asked)
    assert set(statuses) <= {204, 503}  # who finds no free thread for long is told to come again
    with room.doors.database() as connection:
        counted = connection.execute("SELECT count(*), count(DISTINCT pid) FROM app.noted_by").fetchone()
    assert counted is not None
    noted, connections = counted
    assert noted == statuses.count(204) > 0
    assert connections <= room.doors.services.search.threads_max


NOTES_CONNECTIONS = """
    CREATE TABLE app.noted_by (pid int);
    CREATE FUNCTION app.note_connection() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS
        $$ BEGIN INSERT INTO app.noted_by VALUES (pg_backend_pid()); RETURN NULL; END $$;
    CREATE TRIGGER notes_connections AFTER INSERT ON app.watch_events
        FOR EACH ROW EXECUTE FUNCTION app.note_connection()"""


async def test_a_feed_reads_as_little_of_many_events_as_of_few(room: Room) -> None:
    """A week of events is not counted for every feed: what is watched most stands in the order of an index."""
    search = room.doors.settings.section(SearchSettings)
    with room.doors.database() as connection:
        connection.execute(SHOTS, {"video": room.shelf.video, "shots": 2000})
        connection.execute(MANY, {"viewers": 5_000, "first": room.shelf.moments[0], "shots": 2000})
        connection.execute("ANALYZE app.watch_events; ANALYZE app.watched")
        plan = connection.execute(
            "EXPLAIN (ANALYZE, FORMAT JSON) " + feed.SCORED, feed.parameters(search, 20, bytes(16))
        )
        (row,) = plan.fetchall()
    read = {name: sum(rows for each, rows in read_rows(row[0][0]["Plan"]) if each == name) for name in TABLES}
    assert read["watched"] <= feed.SPARE * search.feed_limit_max
    assert read["watch_events"] <= 3 * feed.SPARE * search.feed_limit_max
    assert (await room.feed())[0] == room.shelf.moments[0]


TABLES = ("watched", "watch_events")
SHOTS = """
    INSERT INTO media.segments (id, video_id, creator_id, start_ms, end_ms, best_frame_ms, search, pipeline_version)
    OVERRIDING SYSTEM VALUE
    SELECT 1000000 + n, id, creator_id, 100000 + n, 100001 + n, 100000 + n, '', 1
    FROM media.videos, generate_series(1, %(shots)s) n WHERE id = %(video)s"""
# Each of many viewers has watched the first moment and two of others.
MANY = """
    INSERT INTO app.watch_events (viewer, segment_id, kind, at)
    SELECT decode(lpad(to_hex(who), 32, '0'), 'hex'), moment, 'play', now() - make_interval(secs => who * 80)
    FROM generate_series(1, %(viewers)s) AS who,
        unnest(ARRAY[%(first)s, 1000001 + who %% %(shots)s, 1000001 + who * 7 %% %(shots)s]) AS moment"""


def read_rows(node: dict[str, Any]) -> Iterator[tuple[str, int]]:
    """The table of each scan of a plan, with the rows that it read."""
    if "Relation Name" in node:
        yield (
            node["Relation Name"],
            node["Actual Loops"] * (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)),
        )
    for each in node.get("Plans", ()):
        yield from read_rows(each)


async def test_what_is_hidden_crowds_nothing_out_of_the_feed(room: Room) -> None:
    """More is hidden than the feed looks at, and watched and invested in more than what may be seen."""
    most = feed.SPARE * room.doors.settings.section(SearchSettings).feed_limit_max
    _, second, _, fourth = room.shelf.moments
    with room.doors.database() as connection:
        (hidden,) = connection.execute(
            "INSERT INTO media.videos (creator_id, source_uri, title, status, ready_at, visibility)"
            " VALUES (%s, 's3://pixr/hidden.mp4', 'Hidden', 'ready', now(), 'private') RETURNING id",
            (room.shelf.ada,),
        ).fetchone() or (0,)
        connection.execute(SHOTS, {"video": hidden, "shots": most})
        connection.execute(
            "INSERT INTO app.watched (segment_id, heat) SELECT 1000000 + n, app.half_lives(now()) + 9"
            " FROM generate_series(1, %s) n",
            (most,),
        )
        connection.execute(
            "INSERT INTO ledger.segment_stakes (segment_id, investor_id, pix_invested)"
            " SELECT 1000000 + n, 1, 900000000000 FROM generate_series(1, %s) n",
            (most,),
        )
        connection.execute("INSERT INTO ledger.segment_stakes VALUES (%s, 1, 10000000000)", (fourth,))
    assert await room.watch(second, room.doors.key("search")) == 204
    assert set(await room.feed()) == set(room.shelf.moments)


async def test_a_moment_that_is_gone_leaves_what_is_watched(room: Room) -> None:
    first, second, *_ = room.shelf.moments
    for moment in (first, second):
        assert await room.watch(moment, room.doors.key("search")) == 204
    with room.doors.database() as connection, connection.transaction():
        connection.execute("SET LOCAL ROLE pixr_serve")
        connection.execute("DELETE FROM media.embeddings WHERE segment_id = %s", (first,))
        connection.execute("DELETE FROM media.segments WHERE id = %s", (first,))
    with room.doors.database() as connection:
        assert connection.execute("SELECT segment_id FROM app.watched").fetchall() == [(second,)]


async def test_who_watched_counts_less_the_longer_ago_it_was(room: Room) -> None:
    first, second, *_ = room.shelf.moments
    said = "INSERT INTO app.watch_events (viewer, segment_id, kind, at) VALUES (%s, %s, 'play', now() - %s::interval)"
    with room.doors.database() as connection:
        for who, moment, ago in ((1, first, "7 days"), (2, first, "7 days"), (3, second, "0"), (3, second, "0")):
            connection.execute(said, (bytes([who] * 16), moment, ago))
        query = "SELECT segment_id, power(2, heat - app.half_lives(now())) FROM app.watched ORDER BY heat"
        rows = connection.execute(query).fetchall()
    # Two viewers, two half-lives ago; one viewer now, though they sent two events.
    assert [(moment, pytest.approx(viewers, rel=1e-3)) for moment, viewers in rows] == [(first, 0.5), (second, 1.0)]
    assert (await room.feed())[0] == second


def test_what_was_watched_before_the_migration_counts(ground: Settings) -> None:
    before = [each for each in migrations.registered() if not (each.package == "app" and each.name >= "0004")]
    assert len(before) < len(migrations.registered())
    with fresh_database(ground, "template0") as url, database.connect(url, autocommit=True) as connection:
        migrations.migrate(url, before)
        for who, ago in ((1, "1 day"), (1, "8 days"), (2, "84 hours"), (3, "9 days")):
            connection.execute(
                "INSERT INTO app.watch_events (viewer, segment_id, kind, at) VALUES (%s, 7, 'like', now() - %s::interval)",
                (bytes([who] * 16), ago),
            )
        migrations.migrate(url)
        rows = connection.execute(
            "SELECT segment_id, power(2, heat - app.half_lives(now())) FROM app.watched"
        ).fetchall()
    assert rows == [(7, pytest.approx(0.5 + 2 ** (-24 / 84), rel=1e-3))]


async def test_a_viewer_sees_first_what_they_have_not_seen(room: Room) -> None:
    me = room.doors.key("search")
    before = await room.feed(me)
    assert await room.watch(before[0], me, kind="finish", watched_ms=1500) == 204
    assert await room.feed(me) == [*before[1:], before[0]]


async def test_what_may_not_be_seen_is_neither_shown_nor_watched(room: Room) -> None:
    with room.doors.database() as connection:
        connection.execute("UPDATE media.videos SET visibility = 'private' WHERE id = %s", (room.shelf.video,))
    assert await room.feed() == [room.shelf.moments[2]]
    assert await room.watch(room.shelf.moments[0]) == 404
    assert await room.watch(999_999) == 404
    assert await room.watch(room.shelf.moments[2], kind="download") == 422


async def test_the_feed_makes_no_appearances(room: Room) -> None:
    await room.feed()
    assert room.doors.services.recorder.waiting == 0
    with room.doors.database() as connection:
        assert connection.execute("SELECT count(*) FROM ledger.appearance_batches").fetchone() == (0,)


async def test_a_title_completes_what_was_typed(room: Room) -> None:
    answer = await room.doors.http.get("/v1/completions", params={"q": "orch"})
    assert answer.json() == {"completions": ["Orchard in spring"]}
    assert (await room.doors.http.get("/v1/completions", params={"q": ""})).status_code == 422


async def test_what_is_invested_in_is_shown_and_weighs_by_its_logarithm(room: Room) -> None:
    _, second, _, fourth = room.shelf.moments
    with room.doors.database() as connection:
        connection.execute(
            "INSERT INTO ledger.segment_stakes (segment_id, investor_id, pix_invested) VALUES"
            " (%s, 1, 400000000), (%s, 2, 600000000), (%s, 1, 900000000)",
            (second, second, fourth),
        )
    assert (await room.feed())[:2] == [second, fourth]


async def test_without_its_weight_a_stake_moves_nothing_forward(settings: Settings) -> None:
    shelf = fill(settings)
    plain = settings.with_section(SearchSettings(feed_stake_weight=0.0))
    async with opened(plain) as doors:
        with doors.database() as connection:
            connection.execute("INSERT INTO ledger.segment_stakes VALUES (%s, 1, 10000000000)", (shelf.moments[1],))
        found = (await doors.http.get("/v1/feed")).json()["moments"]
        scores = {int(each["segment_id"]): each["score"] for each in found}
        assert scores[shelf.moments[1]] == pytest.approx(scores[shelf.moments[0]], abs=1e-3)
