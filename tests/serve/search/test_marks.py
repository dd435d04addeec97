"""Highlights and facets say what was found, and change nothing of it."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest

from cluster.settings import Settings
from pipelines.catalog import catalog
from pipelines.index import highlights, vectors
from pipelines.index.vectors import MomentDetails
from serve.replica.encoding import QueryEncoder
from serve.search import answer as search
from serve.search.answer import UNPAID
from tests.serve.doors import Doors, near, opened, uncut
from tests.serve.scenes import Gallery, Scenes, hang

Room = tuple[Doors, Gallery]


@pytest.fixture
async def room(settings: Settings, model: QueryEncoder, painted: Scenes) -> AsyncIterator[Room]:
    async with opened(uncut(settings), near(model)) as doors:
        with doors.database() as connection:
            gallery = hang(connection, painted)
        yield doors, gallery


async def ask(room: Room, **parameters: Any) -> dict[str, Any]:
    answer = await room[0].http.get("/v1/search", params=parameters)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def rename(room: Room, video: str, **words: Any) -> None:
    with room[0].database() as connection:
        catalog.change(connection, room[1].videos[video], **words)
        catalog.bump_generation(connection)


async def test_the_words_of_the_query_are_marked_where_they_stand(room: Room) -> None:
    rename(room, "owl", title="Élan: two <b>owls</b> 🦉, one owl", tags=["night owl", "OWLS", "goat"])
    found = await ask(room, q='owl "night owl" -goat zebra', highlight="true", limit=100)
    assert found["moments"] == []  # its tag goat is excluded
    found = await ask(room, q='"one owl" zebra', highlight="true", limit=1)
    moment = found["moments"][0]
    assert moment["video_id"] == str(room[1].videos["owl"])
    marked = {(each["field"], each["index"], each["text"]) for each in moment["highlights"]}
    assert marked == {
        ("title", 0, "owls"), ("title", 0, "one"), ("title", 0, "owl"), ("tags", 0, "owl"), ("tags", 1, "OWLS")
    }  # fmt: skip
    for each in moment["highlights"]:
        given = [moment["title"]] if each["field"] == "title" else moment["tags"]
        assert given[each["index"]][each["start"] : each["end"]] == each["text"]


async def test_a_word_is_marked_by_its_stem_in_the_language_of_its_video(room: Room) -> None:
    rename(room, "owl", title="Zwei Häuser", language="german")
    found = await ask(room, q="Haus", language="german", highlight="true", limit=1)
    assert [each["text"] for each in found["moments"][0]["highlights"]] == ["Häuser"]


async def test_words_that_a_sign_joins_are_marked_each(room: Room) -> None:
    rename(room, "owl", title="Learn node.js", tags=["node_modules"])
    for text, expected in (("node", ["node", "node"]), ("node.js", ["node", "js", "node"]), ("modules", ["modules"])):
        found = await ask(room, q=text, highlight="true", limit=1)
        assert [each["text"] for each in found["moments"][0]["highlights"]] == expected


async def test_facets_count_what_was_found_and_obey_the_search(room: Room) -> None:
    whole = await ask(room, q="banana", limit=100)
    found = await ask(room, q="banana", limit=1, facets="true")
    facets = found["facets"]
    assert facets["moments"] == len(whole["moments"])
    assert facets["videos"] == len({each["video_id"] for each in whole["moments"]})
    creators = Counter(each["creator_id"] for each in whole["moments"])
    assert {each["creator_id"]: each["moments"] for each in facets["creators"]} == creators
    tags = Counter(tag for each in whole["moments"] for tag in each["tags"])
    assert {each["tag"]: each["moments"] for each in facets["tags"]} == tags
    narrowed = (await ask(room, q="banana", limit=1, facets="true", tags="row1"))["facets"]
    (row,) = [each for each in facets["tags"] if each["tag"] == "row1"]
    assert (narrowed["moments"], narrowed["videos"]) == (row["moments"], row["videos"])


async def test_neither_changes_what_is_found_or_how_it_is_kept(room: Room) -> None:
    plain = await ask(room, q="banana number3")
    for _ in range(2):  # made, then kept
        said = await ask(room, q="banana number3", highlight="true", facets="true")
        without = [{name: value for name, value in each.items() if name != "highlights"} for each in said["moments"]]
        assert without == plain["moments"]
        assert said["facets"]["moments"] > 0
    assert "facets" not in plain
    assert "highlights" not in plain["moments"][0]
    services = room[0].services
    await services.results.shared()
    services.results._clear(services.results._generation)
    shared = await room[0].http.get("/v1/search", params={"q": "banana number3", "highlight": "true", "facets": "true"})
    assert shared.headers["x-pixr-cache"] == "redis"
    assert shared.json()["facets"] == said["facets"]


async def test_a_cursor_carries_no_text_to_mark_and_no_whole_to_count(room: Room) -> None:
    cursor = (await ask(room, q="banana", limit=1))["next_cursor"]
    for beside in ("highlight", "facets"):
        answer = await room[0].http.get("/v1/search", params={"cursor": cursor, beside: "true"})
        assert (answer.status_code, answer.json()["code"]) == (422, "bad-query")


async def test_what_cannot_be_marked_or_counted_is_left_out_and_the_search_stands(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = await ask(room, q="banana", highlight="true", facets="true", limit=3)
    # The database's own refusal: each question takes longer than its statements may.
    slow = highlights.MATCHED.replace("WHERE", "WHERE pg_sleep(5) IS NOT NULL AND")
    with monkeypatch.context() as patched:
        patched.setattr(highlights, "MATCHED", slow)
        found = await ask(room, q="banana number2", highlight="true", limit=3)
    assert found["degraded"] == ["highlights"]
    assert [each["highlights"] for each in found["moments"]] == [None] * 3
    assert not UNPAID & {search.HIGHLIGHTS, search.FACETS}
    with room[0].database() as connection:
        for _ in range(500):
            rows = connection.execute("SELECT sum(searches)::int FROM ledger.appearance_batches").fetchall()
            if rows == [(2,)]:
                break
            await asyncio.sleep(0.02)
    assert rows == [(2,)]
    again = await ask(room, q="banana number2", highlight="true", limit=3)  # it was not kept
    assert again["degraded"] == []
    assert [{**each, "highlights": None} for each in again["moments"]] == found["moments"]
    assert whole["degraded"] == []


async def test_a_count_that_fails_takes_no_search_with_it(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = vectors.moment_details
    limit = 3

    async def refused(connection: vectors.Connection, segment_ids: Sequence[int]) -> dict[int, vectors.MomentDetails]:
        if len(segment_ids) > limit:  # all candidates: the count
            await vectors.configure(connection, {"statement_timeout": 10})
            await connection.execute("SELECT pg_sleep(5)")
        return await plain(connection, segment_ids)

    monkeypatch.setattr(vectors, "moment_details", refused)
    found = await ask(room, q="banana", facets="true", limit=limit)
    assert found["degraded"] == ["facets"]
    assert "facets" not in found
    assert len(found["moments"]) == limit


def long_moments(count: int) -> list[MomentDetails]:
    """Moments of one video, with texts as long as a release before took them."""
    text = " ".join(f"word{number}" for number in range(40_000))
    return [MomentDetails(number, 1, 1, text, text, [text] * 20) for number in range(count)]


def test_marking_is_bounded_however_long_the_texts_are_and_many_the_moments() -> None:
    moments = long_moments(100)
    asked = highlights.words_of(moments)
    words = asked.words.split(" ")
    assert len(words) == len(set(words)) == len(asked.videos.split(" ")) <= highlights.CHARS_MAX
    marked = highlights.marked(moments, {(1, word) for word in words})
    assert {len(each) for each in marked.values()} == {highlights.MARKS_MAX}


def test_titles_are_compared_before_anything_else() -> None:
    text = " ".join(f"w{number}" for number in range(1000))
    moments = [MomentDetails(number, number, 1, f"title{number}", text, [text]) for number in range(100)]
    words = highlights.words_of(moments).words.split(" ")
    assert words[:100] == [f"title{number}" for number in range(100)]
    assert len(words) == highlights.WORDS_MAX


async def test_the_loop_goes_on_while_an_answer_is_marked(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    threads = set[str]()
    for name in ("words_of", "marked"):
        monkeypatch.setattr(highlights, name, noting(threads, getattr(highlights, name)))
    assert (await ask(room, q="banana", highlight="true"))["moments"]
    assert threads
    assert threading.current_thread().name not in threads


def noting(threads: set[str], function: Callable[..., Any]) -> Callable[..., Any]:
    def noted(*given: Any) -> Any:
        threads.add(threading.current_thread().name)
        return function(*given)

    return noted
