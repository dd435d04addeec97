"""The words of videos follow them, whoever writes; a catalogue of the release before is migrated while it is searched."""

from __future__ import annotations

import random
import string
import threading
from collections.abc import Iterator
from contextlib import closing

import pytest
from psycopg import AsyncConnection, Connection
from psycopg.sql import SQL

from cluster.database import database, migrations
from cluster.database.migrations import Migration
from cluster.settings import Settings
from pipelines.catalog import catalog
from pipelines.index import fulltext
from tests.conftest import fresh_database, until

# As the release before it searched (commit 7812ba8), all words.
OLD_SEARCH = (
    "WITH asked AS MATERIALIZED (SELECT websearch_to_tsquery('english', %(text)s) AS words),"
    " hits AS MATERIALIZED (SELECT s.id, s.search, asked.words FROM asked, media.segments s"
    " JOIN media.videos v ON v.id = s.video_id WHERE s.search @@ asked.words AND v.status = 'ready'"
    " AND v.visibility = 'public' LIMIT 2000)"
    " SELECT id FROM hits ORDER BY ts_rank_cd(search, words, 1) DESC, 1 LIMIT 100"
)
OLD_VIDEOS = (
    "INSERT INTO media.videos (creator_id, source_uri, title, description, tags, visibility, status, ready_at)"
    " SELECT 1, 'v' || n, 'Film number' || n, 'boats in a harbour', '{water}',"
    " CASE WHEN n %% 10 = 0 THEN 'private' ELSE 'public' END, CASE WHEN n %% 10 = 1 THEN 'queued' ELSE 'ready' END, now()"
    " FROM generate_series(1, %s) n ORDER BY n"
)
OLD_SEGMENTS = (  # the statement by which it ingested, with two moments a video
    "INSERT INTO media.segments (video_id, creator_id, start_ms, end_ms, best_frame_ms, description, search,"
    " pipeline_version) SELECT v.id, v.creator_id, m * 1000, m * 1000 + 900, m * 1000, v.description,"
    " media.search_text(v.language, v.title, v.tags, v.description), 1"
    " FROM media.videos v, generate_series(0, 1) m WHERE v.status = 'ready' ORDER BY 1, 3"
)
# Once the words of videos are kept for themselves they are there for every search, whatever else is migrated.
KEPT_SEARCH = (
    "SELECT count(*) FROM media.texts t JOIN media.impacts i USING (video_id)"
    " WHERE i.lexeme = 'number77' AND t.search @@ 'number77'"
)
TABLES = ("texts", "impacts", "completions")
# As long as that release took them, and random, so that it does not compress into a row of an index.
LONG_TITLE = "".join(random.Random(7).choices(string.ascii_letters + " " * 8, k=10_000))


@pytest.fixture
def connection(postgres_url: str) -> Iterator[Connection]:
    with database.connect(postgres_url, autocommit=True) as opened:
        opened.execute("INSERT INTO media.creators (handle, name) VALUES ('a', 'a')")
        opened.execute(
            "INSERT INTO media.videos (creator_id, source_uri, title, description, tags)"
            " VALUES (1, 'v', 'Red Boats', 'in a harbour', '{water}')"
        )
        yield opened


def words(connection: Connection) -> set[str]:
    """The words by which video 1 is found; the three tables must agree on whether there are any."""
    kept = [connection.execute(f"SELECT count(*) FROM media.{table} WHERE video_id = 1").fetchone() for table in TABLES]
    assert len({row is not None and row[0] > 0 for row in kept}) == 1
    return {row[0] for row in connection.execute("SELECT lexeme FROM media.impacts WHERE video_id = 1")}


def ready(connection: Connection) -> None:
    connection.execute("UPDATE media.videos SET status = 'ready', ready_at = now() WHERE id = 1")


def test_words_come_with_readiness_and_go_with_visibility(connection: Connection) -> None:
    assert words(connection) == set()
    ready(connection)
    assert words(connection) == {"red", "boat", "harbour", "water"}
    catalog.change(connection, 1, visibility="unlisted")
    assert words(connection) == set()
    catalog.change(connection, 1, visibility="public")
    assert words(connection) == {"red", "boat", "harbour", "water"}


def test_words_follow_a_change_in_its_language(connection: Connection) -> None:
    ready(connection)
    catalog.change(connection, 1, title="Rote Boote", tags=["wasser"], description="", language="german")
    assert words(connection) == {"rot", "boot", "wass"}
    whole = {row[0] for row in connection.execute("SELECT whole FROM media.completions")}
    assert whole == {"Rote Boote", "wasser"}


def test_a_removed_video_leaves_no_word(connection: Connection) -> None:
    ready(connection)
    assert catalog.remove(connection, 1)
    assert words(connection) == set()


def test_leases_and_attempts_write_no_words(connection: Connection) -> None:
    ready(connection)
    before = connection.execute("SELECT id FROM media.texts").fetchall()
    connection.execute(
        "UPDATE media.videos SET lease_owner = 'x', lease_token = 1, lease_until = now(), attempts = 2, status = status,"
        " title = title, pipeline_version = 9"
    )
    assert connection.execute("SELECT id FROM media.texts").fetchall() == before


def test_a_word_in_the_title_says_more_than_in_the_description_and_length_takes_from_it(connection: Connection) -> None:
    ready(connection)
    impacts = dict(connection.execute("SELECT lexeme, impact FROM media.impacts").fetchall())
    assert impacts["red"] == impacts["boat"] > impacts["water"] > impacts["harbour"]
    catalog.change(connection, 1, description="in a harbour " + "very long story " * 50)
    longer = dict(connection.execute("SELECT lexeme, impact FROM media.impacts").fetchall())
    assert longer["red"] < impacts["red"]


def test_replicas_change_words_of_videos_and_cannot_write_those_of_the_index(connection: Connection) -> None:
    ready(connection)
    with connection.transaction():
        connection.execute("SET LOCAL ROLE pixr_serve")
        assert catalog.change(connection, 1, title="Blue Boats")
    assert "blue" in words(connection)
    for table in TABLES:
        held = connection.execute(
            "SELECT has_table_privilege('pixr_serve', %s, 'INSERT, UPDATE, DELETE')", (f"media.{table}",)
        ).fetchone()
        assert held == (False,)


async def test_a_catalogue_of_the_release_before_is_migrated_while_it_is_searched(ground: Settings) -> None:
    every = migrations.registered()
    before = [each for each in every if not (each.package == "media" and each.name >= "0007")]
    later = every[len(before) :]
    assert later
    assert not set(before) & set(later)
    with fresh_database(ground, "template0") as url:
        migrations.migrate(url, before)
        with database.connect(url, autocommit=True) as connection:
            connection.execute("INSERT INTO media.creators (handle, name) VALUES ('a', %s)", (LONG_TITLE,))
            connection.execute(OLD_VIDEOS, (2000,))
            connection.execute(OLD_SEGMENTS)
            connection.execute("UPDATE media.videos SET title = %s WHERE id = 22", (LONG_TITLE,))
            joined = "UPDATE media.videos SET title = 'hdr10.mp4', description = 'of node.js, how-to' WHERE id = 24"
            connection.execute(joined)
            expected = connection.execute(OLD_SEARCH, {"text": "number77 harbour"}).fetchall()
            assert len(expected) == 2
            with closing(Searches(url)) as searches:
                for number, each in enumerate(later, 1):
                    rehearsed(connection, each, searches)
                    assert migrations.migrate(url, [*before, *later[:number]]) == [each]
                    searches.more()
                migrations.migrate(url)
            assert searches.answers == {tuple(expected)}
            assert searches.kept == {1}
            migrated = [as_kept(connection, table) for table in TABLES]
            rewritten(connection)
            assert [as_kept(connection, table) for table in TABLES] == migrated
            assert connection.execute(OLD_SEARCH, {"text": "number77 harbour"}).fetchall() == expected
            # The release before still writes: its new video is found by both, its long title is no fault.
            connection.execute("UPDATE media.videos SET status = 'ready' WHERE id = 11")
            connection.execute("UPDATE media.videos SET title = %s WHERE id = 23", (LONG_TITLE[::-1],))
            connection.execute("INSERT INTO media.creators (handle, name) VALUES ('b', 'b')")
            for table in ("videos", "creators"):  # an old insert has a public id as well
                counted = connection.execute(
                    f"SELECT count(*), count(DISTINCT public_id) FROM media.{table}"
                ).fetchone()
                assert counted is not None
                assert counted[0] == counted[1] > 0
        async with await AsyncConnection.connect(url, autocommit=True) as reading:
            for number, there in ((77, True), (11, True), (21, False), (20, False)):
                found = await fulltext.matching(reading, f"number{number}", 10)
                assert [match.video_id for match in found] == ([number] if there else [])
            for text in ("hdr10", "node", "hdr10.mp4", '"node.js"', "how-to"):
                assert [match.video_id for match in await fulltext.matching(reading, text, 10)] == [24]


def as_kept(connection: Connection, table: str) -> list[tuple[object, ...]]:
    """What a table of words has, in an order of its own."""
    row = {"texts": "video_id, search::text", "impacts": "video_id, lexeme, impact"}
    query = SQL(f"SELECT {row.get(table, '*')} FROM media.{table}")  # type: ignore[arg-type]
    return sorted(connection.execute(query).fetchall(), key=repr)


def rewritten(connection: Connection) -> None:
    """Have the words of each video that has some written once more."""
    for before, after in (("public", "unlisted"), ("unlisted", "public")):
        connection.execute("UPDATE media.videos SET visibility = %s WHERE visibility = %s", (after, before))


# They change no row of videos: their locks stop searches for a moment.
AT_ONCE = {
    "0008_public_ids.sql", "0012_mended.sql", "0015_instants.sql", "0018_reposts.sql", "0019_shown_since.sql",
}  # fmt: skip


def rehearsed(connection: Connection, migration: Migration, searches: Searches) -> None:
    """All of a migration is done and not yet ended, and searches go on; then it is taken back."""
    if migration.name in AT_ONCE:
        return
    with connection.transaction(force_rollback=True):
        connection.execute(SQL(migration.text))
        searches.more()


class Searches:
    """The old search, and one of kept words where there are some, again and again, in a thread of its own."""

    def __init__(self, url: str) -> None:
        self.count, self.answers, self.kept = 0, set[tuple[object, ...]](), set[int]()
        self._url, self._over, self._begun = url, threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        assert self._begun.wait(30)

    def more(self) -> None:
        """Until two more have ended, of which the second has begun after this was called."""
        before = self.count
        until(lambda: self.count >= before + 2 or not self._thread.is_alive(), what="searches go on")
        assert self.count >= before + 2

    def _run(self) -> None:
        with database.connect(self._url, autocommit=True) as connection:
            connection.execute("SET lock_timeout = '1s'")
            while not self._over.is_set():
                self.answers.add(tuple(connection.execute(OLD_SEARCH, {"text": "number77 harbour"}).fetchall()))
                if connection.execute("SELECT to_regclass('media.impacts')").fetchone() != (None,):
                    self.kept |= {count for (count,) in connection.execute(KEPT_SEARCH).fetchall()}
                self.count += 1
                self._begun.set()

    def close(self) -> None:
        self._over.set()
        self._thread.join(30)
