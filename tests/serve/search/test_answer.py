"""A search finds what is seen, says what it could not ask, turns pages without repeating, and records what it shows."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from cluster import runtime
from cluster.settings import Settings
from pipelines.index import fulltext, vectors
from serve.access import viewers
from serve.replica.encoding import QueryEncoder
from serve.search import relevance
from serve.settings import SearchSettings
from tests.serve.doors import Doors, near, opened, uncut
from tests.serve.scenes import Gallery, Scenes, hang


@dataclass(frozen=True)
class Room:
    """The doors, with a gallery behind them."""

    doors: Doors
    gallery: Gallery
    painted: Scenes

    async def search(self, **parameters: Any) -> dict[str, Any]:
        answer = await self.doors.http.get("/v1/search", params=parameters)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    async def ask(self, **body: Any) -> dict[str, Any]:
        answer = await self.doors.http.post("/v1/search", json=body)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    async def recorded(self, searches: int) -> list[tuple[Any, ...]]:
        """Batches in the ledger, when so many searches have arrived there."""
        query = (
            "SELECT coalesce(sum(searches), 0)::int, coalesce(sum(appearances), 0)::int FROM ledger.appearance_batches"
        )
        with self.doors.database() as connection:
            for _ in range(200):
                rows = connection.execute(query).fetchall()
                if rows[0][0] >= searches:
                    return rows
                await asyncio.sleep(0.02)
        raise AssertionError(f"{rows} instead of {searches} searches")


@pytest.fixture
async def room(hung: tuple[Settings, Gallery], model: QueryEncoder, painted: Scenes) -> AsyncIterator[Room]:
    """For tests that change nothing. All is shown: they are about order, pages and filters (the cut: `test_cut`)."""
    async with opened(uncut(hung[0]), near(model)) as doors:
        yield Room(doors, hung[1], painted)


@pytest.fixture
async def own(settings: Settings, model: QueryEncoder, painted: Scenes) -> AsyncIterator[Room]:
    """The same over a database of the test's own."""
    async with opened(uncut(settings), near(model)) as doors:
        with doors.database() as connection:
            gallery = hang(connection, painted)
        yield Room(doors, gallery, painted)


@pytest.fixture
async def dark(hung: tuple[Settings, Gallery], painted: Scenes) -> AsyncIterator[Room]:
    """The same without an encoder."""
    async with opened(hung[0]) as doors:
        yield Room(doors, hung[1], painted)


def videos(answer: dict[str, Any]) -> list[int]:
    return [int(moment["video_id"]) for moment in answer["moments"]]


def moments(answer: dict[str, Any]) -> list[int]:
    return [int(moment["segment_id"]) for moment in answer["moments"]]


async def test_what_is_seen_is_found_though_no_word_tells_it(room: Room) -> None:
    right = 0
    for name in room.painted.names:
        answer = await room.search(q=name, limit=1)
        assert answer["degraded"] == []
        right += videos(answer) == [room.gallery.videos[name]]
    assert right >= len(room.painted.names) - 1


async def test_words_are_found_by_full_text_in_whatever_form(room: Room) -> None:
    answer = await room.ask(text="collections number4", limit=1, weights={"vector": 0})
    assert videos(answer) == [list(room.gallery.videos.values())[4]]
    assert "text" in answer["moments"][0]["matched"]


async def test_an_answer_says_text_only_where_all_words_are_there_as_they_were_asked(room: Room) -> None:
    number4 = list(room.gallery.videos.values())[4]
    for text, others in (
        ("collection number4", {"some_words"}), ("number4 collection", {"some_words"}), ("collection", {"text"}),
        ('"collection of number4"', set()), ("collection or number4", {"text"}), ("number4 zebra", set()),
    ):  # fmt: skip
        answer = await room.search(q=text, limit=100, relevance_min_ppm=0)
        its_own, of_others = set[str](), set[str]()
        for moment in answer["moments"]:
            (its_own if moment["video_id"] == str(number4) else of_others).update(moment["matched"])
        assert its_own - {"vector"} == ({"some_words"} if "zebra" in text else {"text"}), text
        assert of_others - {"vector"} == others, text
    whole = await room.search(q="number4 zebra", limit=100, relevance_min_ppm=0)
    page = await room.search(q="number4 zebra", limit=1, relevance_min_ppm=0)
    further = await room.search(cursor=page["next_cursor"], limit=100)
    assert [each["matched"] for each in page["moments"] + further["moments"]] == [
        each["matched"] for each in whole["moments"]
    ]


async def test_an_answer_has_all_that_the_contract_names(room: Room) -> None:
    answer = await room.search(q="banana", limit=2)
    assert answer.keys() == {"query", "moments", "next_cursor", "degraded", "nothing_matches", "took_ms"}
    moment = answer["moments"][0]
    assert moment.keys() >= {
        "segment_id", "video_id", "creator_id", "title", "description", "tags", "start_ms", "end_ms", "best_frame_ms",
        "score", "relevance_ppm", "thumbnail_url", "play_url", "matched",
    }  # fmt: skip
    assert 0 < moment["relevance_ppm"] <= 1_000_000
    assert moment["play_url"].endswith(f"#t={moment['start_ms'] / 1000:.3f},{moment['end_ms'] / 1000:.3f}")


async def test_a_picture_finds_its_like(room: Room) -> None:
    image = base64.b64encode(room.painted.picture("banana")).decode()
    answer = await room.ask(image=image, limit=2)
    assert answer["moments"][0]["video_id"] == str(room.gallery.videos["banana"])


async def test_a_broken_picture_is_refused(room: Room) -> None:
    for data in (b"GIF89a" + bytes(40), room.painted.picture("banana")[:200], b"x"):
        body = {"image": base64.b64encode(data).decode()}
        assert (await room.doors.http.post("/v1/search", json=body)).status_code == 422


async def test_more_like_a_moment_leaves_the_moment_itself_out(room: Room) -> None:
    first, second = room.gallery.moments["banana"]
    answer = await room.doors.http.get(f"/v1/segments/{first}/similar", params={"limit": 1})
    assert moments(answer.json()) == [second]
    missing = await room.doors.http.get("/v1/segments/999999/similar")
    assert missing.status_code == 404


async def test_a_picture_and_words_are_looked_for_together(room: Room) -> None:
    image = base64.b64encode(room.painted.picture("banana")).decode()
    words = {"vector": 1, "text": 0}
    both = await room.ask(image=image, text="rocket", weights=words, limit=4)
    assert {room.gallery.videos["banana"], room.gallery.videos["rocket"]} == set(videos(both))
    mostly = await room.ask(image=image, text="rocket", weights=words, blend={"image": 0.1}, limit=1)
    assert videos(mostly) == [room.gallery.videos["rocket"]]


async def test_what_is_excluded_is_not_answered_at_all(room: Room) -> None:
    gone = list(room.gallery.videos.values())[4]
    assert gone in videos(await room.search(q="collections", limit=100))
    for body in ({"text": "collections -number4"}, {"text": "banana", "negative": ["number4"]}):
        found = videos(await room.ask(**body, limit=100))
        assert gone not in found
        assert set(found) == {*room.gallery.videos.values()} - {gone}


async def test_a_phrase_in_quotes_is_strict(room: Room) -> None:
    asked = list(room.gallery.videos.values())[4]
    assert set(videos(await room.ask(text='"collection of number4"', limit=100))) == {asked}
    assert videos(await room.ask(text='"number4 collection"', limit=100)) == []


async def test_the_words_of_a_video_count_for_its_best_moment(room: Room) -> None:
    answer = await room.ask(text="collections", weights={"vector": 0}, explain=True, limit=100)
    ranks: dict[int, list[int]] = {}
    for moment in answer["moments"]:
        ranks.setdefault(int(moment["video_id"]), []).append(moment["explain"]["ranks"]["text"])
    assert len(ranks) == len(room.gallery.videos)
    assert max(min(each) for each in ranks.values()) < min(max(each) for each in ranks.values())


async def test_cosines_that_the_lists_have_told_are_not_looked_up_again(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_up: list[Any] = []
    cosines = vectors.cosines

    async def counted(*asked: Any) -> dict[int, float]:
        looked_up.append(asked)
        return await cosines(*asked)

    monkeypatch.setattr(vectors, "cosines", counted)
    plain = await room.ask(text="collections", weights={"vector": 0}, limit=100)
    assert not looked_up
    await room.ask(text="collections", weights={"vector": 0}, negative=["banana"], blend={"negative": 0.001}, limit=100)
    assert looked_up  # searched by a blend, measured by the text alone
    monkeypatch.setattr(relevance, "known", lambda parts, _near: [{} for _ in parts.wanted])
    afresh = await room.ask(text="collections", weights={"vector": 0}, limit=99)  # another question: no answer is kept
    assert [each["relevance_ppm"] for each in afresh["moments"]] == [
        each["relevance_ppm"] for each in plain["moments"][:99]
    ]


async def test_moments_that_stand_for_videos_are_looked_for_beside_the_vector_list(
    hung: tuple[Settings, Gallery], model: QueryEncoder, painted: Scenes, monkeypatch: pytest.MonkeyPatch
) -> None:
    nearest, moments, has_stood = vectors.nearest, fulltext.moments, asyncio.Event()

    async def after_the_moments(*asked: Any) -> vectors.VectorHits:
        await has_stood.wait()
        return await nearest(*asked)

    async def noted(*asked: Any) -> list[fulltext.Named]:
        found = await moments(*asked)
        has_stood.set()
        return found

    monkeypatch.setattr(vectors, "nearest", after_the_moments)
    monkeypatch.setattr(fulltext, "moments", noted)
    settings = uncut(hung[0])
    patient = replace(settings.section(SearchSettings), question_timeout_s=20.0, deadline_s=30.0)
    async with opened(settings.with_section(patient), near(model)) as doors:
        answer = await Room(doors, hung[1], painted).search(q="collections")
    assert answer["degraded"] == []
    assert {"vector", "text"} == {name for moment in answer["moments"] for name in moment["matched"]}


async def test_what_is_negative_moves_away(room: Room) -> None:
    def place(answer: dict[str, Any]) -> int:
        return videos(answer).index(room.gallery.videos["banana"])

    plain = await room.ask(text="banana", limit=100)
    less = await room.ask(text="banana", negative=["banana"], blend={"negative": 0.9}, limit=100)
    assert place(plain) == 0
    typed = await room.search(q="fruit -banana", limit=100)
    assert place(typed) > place(await room.search(q="fruit", limit=100))
    assert moments(less) == moments(plain)  # the same direction, shorter
    gone = await room.doors.http.post(
        "/v1/search", json={"text": "banana", "negative": ["banana"], "blend": {"negative": 1}}
    )
    assert (gone.status_code, gone.json()["code"]) == (422, "bad-query")


async def test_pages_neither_repeat_nor_leave_out(room: Room) -> None:
    everything = moments(await room.search(q="banana", limit=100))
    assert len(everything) == 2 * len(room.painted.names)
    pages, answer = [], await room.search(q="banana", limit=5)
    while True:
        pages += moments(answer)
        if answer["next_cursor"] is None:
            break
        answer = await room.search(cursor=answer["next_cursor"], limit=5)
    assert pages == everything


async def test_a_removed_video_is_missing_on_the_next_page_and_nothing_shifts(own: Room) -> None:
    everything = moments(await own.search(q="banana", limit=100))
    first = await own.search(q="banana", limit=4)
    gone = next(name for name, ids in own.gallery.moments.items() if everything[5] in ids)
    with own.doors.database() as connection:
        connection.execute("UPDATE media.videos SET visibility = 'private' WHERE id = %s", (own.gallery.videos[gone],))
    rest = moments(await own.search(cursor=first["next_cursor"], limit=100))
    assert rest == [each for each in everything[4:] if each not in own.gallery.moments[gone]]


async def test_a_video_is_shown_once_with_its_other_moments(room: Room) -> None:
    answer = await room.search(q="banana", group_by="video", limit=100)
    assert sorted(videos(answer)) == sorted(room.gallery.videos.values())
    best = answer["moments"][0]
    assert {int(best["segment_id"]), *(int(other["segment_id"]) for other in best["others"])} == set(
        room.gallery.moments["banana"]
    )


async def test_filters_narrow_and_never_leave_out_what_fits(room: Room) -> None:
    ada, _ = room.gallery.creators
    hers = list(room.gallery.videos.values())[::2]
    answer = await room.search(q="banana", creator_id=str(ada), limit=100)
    assert sorted(videos(answer)) == sorted(hers * 2)
    both = await room.ask(text="banana", filters={"creator_id": [str(ada)], "tags": ["gallery", "row0"]}, limit=100)
    assert sorted(videos(both)) == sorted(list(room.gallery.videos.values())[::6] * 2)
    none = await room.ask(text="banana", filters={"duration_min_ms": 10**9})
    assert none["moments"] == []


async def test_a_threshold_leaves_out_what_is_less_relevant(room: Room) -> None:
    answer = await room.search(q="banana", limit=100)
    middle = sorted(moment["relevance_ppm"] for moment in answer["moments"])[len(answer["moments"]) // 2]
    above = await room.search(q="banana", limit=100, relevance_min_ppm=middle)
    assert moments(above) == [int(m["segment_id"]) for m in answer["moments"] if m["relevance_ppm"] >= middle]


async def test_an_answer_explains_itself_when_asked(room: Room) -> None:
    answer = await room.search(q="banana number1", explain=True, limit=100)
    cosines = []
    for moment in answer["moments"]:
        lists = {"text" if name == "some_words" else name for name in moment["matched"]}
        assert moment["explain"]["ranks"].keys() == lists
        cosines.append((moment["explain"]["cosine"], moment["relevance_ppm"]))
    assert [ppm for _, ppm in sorted(cosines)] == sorted(ppm for _, ppm in cosines)  # relevance is monotone


async def test_texts_and_moments_have_their_own_curve_of_relevance(room: Room) -> None:
    facts = await room.doors.services.encoding.facts()
    first = (await room.search(q="banana", limit=1))["moments"][0]["segment_id"]
    by_text = await _explained(room, text="banana")
    by_moment = await _explained(room, segment_id=first)
    for explained, curve in ((by_text, facts.calibration.texts), (by_moment, facts.calibration.pictures)):
        for cosine, ppm in explained.values():
            stated = int(curve.ppm(np.array([cosine]))[0])
            assert ppm == pytest.approx(stated, abs=2000)  # the cosine told is rounded
    both = await _explained(room, text="banana", segment_id=first)
    for moment, told in both.items():
        assert told == min(by_text[moment], by_moment[moment], key=lambda each: each[1])


async def _explained(room: Room, **body: Any) -> dict[str, tuple[float, int]]:
    """The cosine that a moment's relevance comes from, and the relevance."""
    answer = await room.ask(**body, explain=True, limit=100)
    return {each["segment_id"]: (each["explain"]["cosine"], each["relevance_ppm"]) for each in answer["moments"]}


async def test_without_an_encoder_words_answer_and_it_is_said(dark: Room) -> None:
    answer = await dark.doors.http.get("/v1/search", params={"q": "number4"})
    assert answer.json()["degraded"] == ["vector"]
    assert answer.headers["x-pixr-degraded"] == "vector"
    assert set(videos(answer.json())) == {list(dark.gallery.videos.values())[4]}
    assert all(moment["relevance_ppm"] == 0 for moment in answer.json()["moments"])


async def test_a_committed_search_is_recorded_once_with_what_it_showed(own: Room) -> None:
    await own.search(q="banana", limit=3)
    for parameters in ({"intent": "typing"}, {"intent": "suggestion"}, {"intent": "feed"}):
        await own.search(q="banana", limit=3, **parameters)
    cursor = (await own.search(q="rocket", limit=2))["next_cursor"]
    await own.search(cursor=cursor, limit=2)
    assert await own.recorded(2) == [(2, 5)]


@pytest.mark.parametrize("scopes", [("creator", "search"), ("search", "ingest")])
async def test_a_creator_earns_nothing_by_searches_of_a_key_that_speaks_for_them(
    own: Room, scopes: tuple[str, ...]
) -> None:
    ada, _ = own.gallery.creators
    with own.doors.database() as connection:
        found = connection.execute("SELECT handle FROM media.creators WHERE id = %s", (ada,)).fetchone()
    assert found is not None
    whose: dict[str, Any] = {"creators": [found[0]]} if "ingest" in scopes else {"creator_id": ada}
    headers = own.doors.key(*scopes, **whose)
    answer = await own.doors.http.get("/v1/search", params={"q": "banana", "limit": 100}, headers=headers)
    assert len(answer.json()["moments"]) == 2 * len(own.painted.names)
    assert await own.recorded(1) == [(1, len(own.painted.names))]


async def test_only_public_videos_that_are_ready_are_found(own: Room) -> None:
    hidden = {"private": "apple", "unlisted": "rocket"}
    with own.doors.database() as connection:
        for visibility, name in hidden.items():
            connection.execute(
                "UPDATE media.videos SET visibility = %s WHERE id = %s", (visibility, own.gallery.videos[name])
            )
        connection.execute(
            "UPDATE media.videos SET status = 'processing' WHERE id = %s", (own.gallery.videos["castle"],)
        )
    for headers in ({}, own.doors.key("admin")):
        answer = await own.doors.http.get("/v1/search", params={"q": "apple", "limit": 100}, headers=headers)
        shown = set(videos(answer.json()))
        assert shown == set(own.gallery.videos.values()) - {
            own.gallery.videos[n] for n in ("apple", "rocket", "castle")
        }
    for name in ("apple", "rocket", "castle"):
        similar = await own.doors.http.get(f"/v1/segments/{own.gallery.moments[name][0]}/similar")
        assert similar.status_code == 404


async def test_the_page_gives_a_browser_a_name_of_its_own(room: Room) -> None:
    page = await room.doors.http.get("/")
    assert page.headers["content-security-policy"].startswith("default-src 'none'")
    assert viewers.COOKIE in page.cookies
    assert (await room.doors.http.get("/")).cookies.get(viewers.COOKIE) is None


async def test_the_name_of_a_browser_that_asks_by_tls_is_sent_by_tls_alone(room: Room) -> None:
    """By the door's word alone. Links have no scheme: they are opened by the one that was asked by."""
    http, proven = room.doors.http, {"x-pixr-door": runtime.secret(room.doors.settings, "door")}
    by_tls = {"x-forwarded-proto": "https"}
    for headers, is_secure in (({}, False), (by_tls, False), (proven, False), (by_tls | proven, True)):
        http.cookies.clear()
        page = await http.get("/", headers=headers)
        assert ("secure" in page.headers["set-cookie"].lower()) is is_secure
        found = (await http.get("/v1/search?q=banana&limit=1", headers=headers)).json()["moments"][0]
        assert {found["play_url"][:7], found["thumbnail_url"][:7]} == {"/media/"}


async def test_a_stake_narrows_to_the_moments_that_have_it(own: Room) -> None:
    everything = moments(await own.search(q="banana", limit=100))
    with own.doors.database() as connection:
        connection.execute(
            "INSERT INTO ledger.segment_stakes (segment_id, investor_id, pix_invested) SELECT id, investor, 50"
            " FROM unnest(%s::bigint[]) id, generate_series(1, 2) investor",
            (everything[3:6],),
        )
        connection.execute("INSERT INTO ledger.segment_stakes VALUES (%s, 1, 99)", (everything[7],))
    staked = {"q": "banana", "limit": 100}
    assert moments(await own.search(**staked, stake_min_pix=100)) == everything[3:6]
    assert moments(await own.search(**staked, stake_min_pix=99)) == [*everything[3:6], everything[7]]
    assert moments(await own.search(**staked, stake_min_pix=101)) == []
    title = (await own.ask(text="number4", filters={"stake_min_pix": 50}, weights={"vector": 0}))["moments"]
    assert {int(each["segment_id"]) for each in title} <= {*everything[3:6], everything[7]}
    with own.doors.database() as connection:
        connection.execute("DELETE FROM ledger.segment_stakes WHERE segment_id = %s", (everything[7],))
    assert moments(await own.search(**staked, stake_min_pix=99)) == everything[3:6]  # at once, though the other is kept


async def test_a_stake_that_too_many_moments_have_is_refused(settings: Settings) -> None:
    few = settings.with_section(SearchSettings(stake_segments_max=2))
    async with opened(few) as doors:
        with doors.database() as connection:
            connection.execute("INSERT INTO ledger.segment_stakes SELECT id, 1, 5 FROM generate_series(1, 3) id")
        refused = await doors.http.get("/v1/search", params={"q": "banana", "stake_min_pix": 5})
        assert (refused.status_code, refused.json()["hint"]) == (422, "ask for a larger stake")
