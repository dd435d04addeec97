"""Full text ranks every match, finds all words before any of them, is strict where it is told to, and takes any text."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import numpy as np
import pytest
from psycopg import AsyncConnection
from psycopg.sql import SQL

from cluster.database import database
from pipelines.catalog import videos
from pipelines.index import fulltext, vectors
from pipelines.index.vectors import Filters, SearchLimits
from tests.pipelines.corpus import Catalogue

VIDEOS = 3000


@pytest.fixture
async def shelf(postgres_url: str) -> AsyncIterator[AsyncConnection[Any]]:
    """Three thousand videos whose descriptions all have one word; the last one has it in its title. One moment each."""
    with database.connect(postgres_url, autocommit=True) as connection:
        connection.execute("INSERT INTO media.creators (handle, name) VALUES ('a', 'a'), ('b', 'b')")
        connection.execute(
            "INSERT INTO media.videos (creator_id, source_uri, title, description, tags, status, ready_at)"
            " SELECT 1 + (n %% 1000 = 0)::int, 'v' || n, CASE WHEN n = %(n)s THEN 'Harbour' ELSE 'Film ' || n END,"
            " 'a harbour' || CASE WHEN n %% 2 = 0 THEN ' by day' ELSE ' by night' END, '{water,harbour lights}', 'ready',"
            " now() FROM generate_series(1, %(n)s) n ORDER BY n",
            {"n": VIDEOS},
        )
        connection.execute(
            "INSERT INTO media.segments (video_id, creator_id, start_ms, end_ms, best_frame_ms, search, pipeline_version)"
            " SELECT id, creator_id, 0, 1000, 0, media.search_text(language, title, tags, description), 1"
            " FROM media.videos ORDER BY id"
        )
        connection.execute("VACUUM ANALYZE")
    async with await AsyncConnection.connect(postgres_url, autocommit=True) as made:
        yield made


def ids(matches: Sequence[fulltext.Match]) -> list[int]:
    return [match.video_id for match in matches]


async def test_every_match_is_ranked_before_anything_is_cut(shelf: AsyncConnection[Any]) -> None:
    assert ids(await fulltext.matching(shelf, "harbour", 1)) == [VIDEOS]
    assert ids(await fulltext.matching(shelf, "harbour day", 1, None, SearchLimits(text_rows=10))) == [VIDEOS]


async def test_filters_hold_before_anything_is_cut(shelf: AsyncConnection[Any]) -> None:
    for filters, expected in (
        (Filters(creator_ids=(2,)), [3000, 2000, 1000]),
        (Filters(video_ids=(5, 7)), [7, 5]),
        (Filters(segment_ids=(9,)), [9]),
        (Filters(segment_ids=()), []),
    ):
        assert ids(await fulltext.matching(shelf, "harbour", 10, filters, SearchLimits(text_rows=1))) == expected


async def test_filters_hold_also_where_many_videos_pass_them(
    shelf: AsyncConnection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    few = await fulltext.matching(shelf, "harbour day", 20, Filters(creator_ids=(1,)))
    monkeypatch.setattr(fulltext, "FITTING_MAX", 100)
    many = await fulltext.matching(shelf, "harbour day", 20, Filters(creator_ids=(1,)))
    assert ids(many) == ids(few)
    assert not {1000, 2000, 3000} & set(ids(many))


async def test_words_are_matched_all_first_then_any(reading: AsyncConnection[Any], corpus: Catalogue) -> None:
    first, *rest = await fulltext.matching(reading, "video number7 common", 10)
    assert (first.video_id, first.is_complete) == (7, True)
    assert len(rest) == 9
    assert not any(match.is_complete for match in rest)


async def test_either_word_is_all_that_an_or_asks_for(reading: AsyncConnection[Any]) -> None:
    found = await fulltext.matching(reading, "number7 or number8", 10)
    assert {match.video_id: match.is_complete for match in found} == {7: True, 8: True}


async def test_what_is_excluded_is_in_neither_list(reading: AsyncConnection[Any], corpus: Catalogue) -> None:
    _, model, *_ = await vectors.state(reading)
    assert model is not None
    rare = {video for video in range(1, 1001) if (video - 1) % 50 == 7}
    for text, without in (("common -rare", []), ('common -"rare thing"', []), ("common", ["rare"])):
        filters = fulltext.strict(Filters(), text, without, "english")
        assert not rare & set(ids(await fulltext.matching(reading, text, 2000, filters)))
        for plan in (SearchLimits(), SearchLimits(exact_rows=0)):
            for vector in corpus.corpus.queries[:5]:
                looked = await vectors.nearest(reading, model, vector, 100, filters, plan)
                assert len(looked.hits) == 100
                assert not rare & {int(corpus.corpus.videos[hit.segment_id - 1]) for hit in looked.hits}
    assert (
        await fulltext.matching(reading, "number7 -common", 10, fulltext.strict(Filters(), "x -common", (), "english"))
        == []
    )


async def test_a_phrase_must_stand_in_the_words_for_either_list(
    reading: AsyncConnection[Any], corpus: Catalogue
) -> None:
    _, model, *_ = await vectors.state(reading)
    assert model is not None
    vector = corpus.corpus.queries[0]
    for text, there in (('"number7 rare"', False), ('"common words"', True), ('"words common"', False)):
        filters = fulltext.strict(Filters(), text, (), "english")
        assert bool(await fulltext.matching(reading, text, 10, filters)) is there
        assert bool((await vectors.nearest(reading, model, vector, 10, filters)).hits) is there
    both = '"rare thing" number8'
    found = await fulltext.matching(reading, both, 100, fulltext.strict(Filters(), both, (), "english"))
    assert found[0] == fulltext.Match(8, found[0].value, True)
    assert {(match.video_id - 1) % 50 for match in found} == {7}


TITLES = (  # with the language of each
    ("The Who", "english"), ("Live: the Who, again", "english"), ("To be or not to be", "english"), ("IT", "english"),
    ("Zwei Bäume am Haus", "german"), ("Ein Baum, ein Haus", "german"), ("Haus", "german"), ("New whole boats", "english"),
    ("Itinerary", "english"), ("Die Häuser am See", "german"), ("Haus news", "english"),
)  # fmt: skip


@pytest.fixture
async def named(postgres_url: str) -> AsyncIterator[AsyncConnection[Any]]:
    """A video for each of `TITLES`, its number as its id; "it" is a tag of the last one too."""
    async with await AsyncConnection.connect(postgres_url, autocommit=True) as made:
        await made.execute("INSERT INTO media.creators (handle, name) VALUES ('a', 'a')")
        for number, (title, language) in enumerate(TITLES, 1):
            await made.execute(
                "INSERT INTO media.videos (creator_id, source_uri, title, language, tags, status, ready_at)"
                " VALUES (1, %s, %s, %s, %s, 'ready', now())",
                (str(number), title, language, ["it"] if number == len(TITLES) else []),
            )
        yield made


async def passing(connection: AsyncConnection[Any], filters: Filters) -> set[int]:
    """The videos that filters leave to every list."""
    conditions, parameters = filters.conditions()
    query = SQL(f"SELECT v.id FROM media.videos v WHERE {videos.VISIBLE}{conditions}")
    return {row[0] for row in await (await connection.execute(query, parameters)).fetchall()}


@pytest.mark.parametrize(
    ("text", "there"),
    [
        ('"The Who"', {1, 2}),
        ('"to be or not to be"', {3}),
        ('"IT"', {4, 11}),
        ('"IT" "haus"', {11}),
        ('"the who" "again"', {2}),
        ('"they who"', set()),
    ],
)
async def test_a_phrase_of_stop_words_stands_in_a_title_or_tag(
    named: AsyncConnection[Any], text: str, there: set[int]
) -> None:
    filters = fulltext.strict(Filters(), text, (), "english")
    assert await passing(named, filters) == there
    found = await fulltext.matching(named, text, 10, filters)
    assert set(ids(found)) == there
    assert all(match.is_complete for match in found)


async def test_the_exact_title_of_stop_words_comes_first(named: AsyncConnection[Any]) -> None:
    filters = fulltext.strict(Filters(), '"The Who"', (), "english")
    assert ids(await fulltext.matching(named, '"The Who"', 10, filters)) == [1, 2]
    assert await fulltext.matching(named, '"The Who" zebra', 10, filters) == []


@pytest.mark.parametrize(
    ("text", "language", "gone"),
    [
        ("Haus -Bäume", "english", {5, 6}),
        ("Haus -baum", "french", {5, 6}),
        ("Haus -Haus", "english", {5, 6, 7, 10, 11}),
        ("boats -news", "english", {11}),  # "new" to French alone
        ("boats -der", "english", set()),
    ],
)
async def test_what_is_excluded_is_read_in_the_language_of_each_video(
    named: AsyncConnection[Any], text: str, language: str, gone: set[int]
) -> None:
    left = await passing(named, fulltext.strict(Filters(), text, (), language))
    assert set(range(1, len(TITLES) + 1)) - left == gone


async def test_a_phrase_is_read_in_the_language_of_each_video(named: AsyncConnection[Any]) -> None:
    for language in ("english", "german", "simple"):
        assert await passing(named, fulltext.strict(Filters(), '"haus am see"', (), language)) == {10}
        assert await passing(named, fulltext.strict(Filters(), '"whole boat"', (), language)) == {8}


SHELVED = (  # titles and descriptions with words that signs join
    ("hdr10.mp4", ""), ("Learn node.js", ""), ("Reel", "as in sample-video.v2.mov"),
    ("Reel", "from example.com/path?id=7 by ana@harbour.org"), ("Reel", "alpha/beta/gamma.txt"), ("foo_bar", ""),
    ("Release 1.2.3", ""), ("Wi-Fi", ""), ("lord.of.the.rings.mkv", ""), ("How-to", ""), ("A.I.", ""), ("Using <video>", ""),
    ("Node at first, then js", ""), ("Reel", "tools, e.g. hammers"),
)  # fmt: skip


@pytest.fixture
async def joined(postgres_url: str) -> AsyncIterator[AsyncConnection[Any]]:
    """A video for each of `SHELVED`, its number as its id."""
    async with await AsyncConnection.connect(postgres_url, autocommit=True) as made:
        await made.execute("INSERT INTO media.creators (handle, name) VALUES ('a', 'a')")
        for number, (title, description) in enumerate(SHELVED, 1):
            await made.execute(
                "INSERT INTO media.videos (creator_id, source_uri, title, description, status, ready_at)"
                " VALUES (1, %s, %s, %s, 'ready', now())",
                (str(number), title, description),
            )
        yield made


@pytest.mark.parametrize(
    ("text", "there"),
    [
        ("hdr10", {1}), ("mp4", {1}), ("HDR10.MP4", {1}), ('"hdr10.mp4"', {1}), ("mp4.hdr10", set()),
        ("node", {2, 13}), ("js", {2, 13}), ("node js", {2, 13}), ("node.js", {2}), ('"node.js"', {2}),
        ('"node js"', {2}), ('"learn node.js"', {2}), ("learn node.js", {2}), ("js.node or hdr10.mp4", {1}),
        ("sample", {3}), ("v2", {3}), ("v2.mov", {3}), ("sample-video", {3}), ("sample_video", {3}), ("(sample)", {3}),
        ("example.com", {4}), ("path", {4}), ("id=7", {4}), ("ana", {4}), ("ana@harbour.org", {4}), ("harbour", {4}),
        ("beta", {5}), ("alpha/beta", {5}), ("gamma.txt", {5}), ("beta/alpha", set()),
        ("foo", {6}), ("bar", {6}), ("foo_bar", {6}),
        ("1.2.3", {7}), ("1.2", {7}), ("3.2", set()), ("1.1", set()), ("release 1.2", {7}),
        ("wi-fi", {8}), ("fi", {8}), ("wi fi", {8}), ("fi-wi", set()),
        ("ring", {9}), ("lord.of.the.rings", {9}), ('"lord of the rings"', {9}), ("rings.lord", set()),
        ("how-to", {10}), ('"how-to"', {10}), ("A.I.", {11}), ("video", {3, 12}), ("<video>", {3, 12}),
        ("e.g.", {14}), ('"tools e.g. hammer"', {14}),
    ],
)  # fmt: skip
async def test_words_that_signs_join_are_found_by_each_of_them_and_as_they_stand(
    joined: AsyncConnection[Any], text: str, there: set[int]
) -> None:
    found = await fulltext.matching(joined, text, 20, fulltext.strict(Filters(), text, (), "english"))
    assert {match.video_id for match in found if match.is_complete} == there


@pytest.mark.parametrize(
    ("text", "gone"),
    [
        ("reel -node", {2, 13}), ("reel -node.js", {2}), ('reel -"node.js"', {2}), ("reel -mp4", {1}), ("reel -rings", {9}),
        ("reel -how-to", {10}), ("reel -example.com", {4}), ("reel -js.node", set()),
    ],
)  # fmt: skip
async def test_what_is_excluded_is_gone_where_signs_join_it_too(
    joined: AsyncConnection[Any], text: str, gone: set[int]
) -> None:
    for language in ("english", "german"):
        left = await passing(joined, fulltext.strict(Filters(), text, (), language))
        assert set(range(1, len(SHELVED) + 1)) - left == gone


async def test_what_signs_join_is_completed_as_it_is_written(joined: AsyncConnection[Any]) -> None:
    for typed, whole in (
        ("hdr", "hdr10.mp4"),
        ("hdr10.m", "hdr10.mp4"),
        ("node.", "Learn node.js"),
        ("<v", "Using <video>"),
    ):
        assert await fulltext.completions(joined, typed, 5) == [whole]


async def test_a_title_counts_once_and_not_once_for_each_moment(
    reading: AsyncConnection[Any], corpus: Catalogue
) -> None:
    matches = await fulltext.matching(reading, "number7 number8 common", 5)
    named = await fulltext.moments(reading, matches, 2)
    assert len({each.video_id for each in named[:5]}) == 5
    first, second = ([each.rank for each in part] for part in (named[:5], named[5:]))
    assert max(first) < min(second)


async def test_the_moments_that_stand_for_a_video_are_its_nearest_or_its_first(
    reading: AsyncConnection[Any], corpus: Catalogue
) -> None:
    _, model, *_ = await vectors.state(reading)
    matches = await fulltext.matching(reading, "number7", 1)
    own = corpus.corpus.ids[corpus.corpus.videos == 7]
    vector = corpus.corpus.queries[1]
    nearest = own[np.argsort(-(corpus.corpus.vectors[own - 1] @ vector))][:2]
    named = await fulltext.moments(reading, matches, 2, model, vector)
    assert [each.segment_id for each in named] == nearest.tolist()
    assert all(each.cosine is not None for each in named)
    assert [each.segment_id for each in await fulltext.moments(reading, matches, 2)] == own[:2].tolist()
    only = await fulltext.moments(reading, matches, 2, model, vector, segment_ids=[int(own[2])])
    assert [each.segment_id for each in only] == [int(own[2])]


@pytest.mark.parametrize(
    "text", ["'; DROP TABLE media.segments; --", "a & | ! ( <->", '"', "the", "\\", ":*", "%s", "{0}"]
)
async def test_no_text_breaks_full_text(reading: AsyncConnection[Any], text: str) -> None:
    for filters in (Filters(), fulltext.strict(Filters(), text, [text], "english"), Filters(phrases=(text,))):
        assert await fulltext.matching(reading, text, 10, filters) == []
    await fulltext.completions(reading, text, 5)


async def test_titles_and_tags_complete_what_was_typed(reading: AsyncConnection[Any]) -> None:
    assert (await fulltext.completions(reading, "Video number7", 3))[0] == "Video number7"
    assert all("number70" in each for each in await fulltext.completions(reading, "number70", 20))
    assert await fulltext.completions(reading, "SHARE0.5", 5) == ["share0.5"]
    for nothing in ("zebra", "", "'", "& | !", "number7:* | common"):
        assert await fulltext.completions(reading, nothing, 5) == []


@pytest.mark.parametrize(("typed", "expected"), [("f", 8), ("h", 2), ("li", 1), ("harbour l", 1)])
async def test_completing_reads_as_much_whatever_is_typed(
    shelf: AsyncConnection[Any], typed: str, expected: int
) -> None:
    async with shelf.transaction():
        assert len(await fulltext.completions(shelf, typed, 8)) == expected
        row = await (
            await shelf.execute(
                "SELECT seq_scan, idx_scan, idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relname = 'completions'"
            )
        ).fetchone()
    assert row is not None
    assert row[0] == 0
    assert row[1] <= 2 * fulltext.COMPLETIONS_READ_MAX + 2
    assert row[2] <= 2 * fulltext.COMPLETIONS_READ_MAX + 2
