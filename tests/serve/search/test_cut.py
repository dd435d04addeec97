"""What is not there is said: nothing that is far is shown or paid, words that match are, and 0 shows everything."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import orjson
import pytest

from cluster.settings import Settings
from ledger.settings import Economics
from pipelines.catalog import catalog
from pipelines.training.cut import OUTSIDE, nonsense
from serve.replica.encoding import QueryEncoder
from serve.settings import SearchSettings
from tests.serve.doors import Doors, near, opened
from tests.serve.scenes import NAMES, Gallery, Scenes, hang
from tests.serve.test_degradation import Switched
from tests.serve.test_money import searches

ALL = 2 * len(NAMES)
ABSENT = (
    "anchor",
    "harp",
    "cactus",
    "volcano",
    "trumpet",
    "microscope",
    "elephant",
    "lobster",
    "wheelchair",
    "scissors",
)
PAID = Economics(anonymous_weight_ppm=1_000_000)


@dataclass(frozen=True)
class Room:
    """Doors behind which a gallery hangs, cut as it is by default; everybody is paid in full."""

    doors: Doors
    gallery: Gallery
    encoder: Switched

    async def search(self, q: str = "", **more: Any) -> dict[str, Any]:
        answer = await self.doors.http.get("/v1/search", params=({"q": q} if q else {}) | more)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    async def ask(self, **body: Any) -> dict[str, Any]:
        answer = await self.doors.http.post("/v1/search", json=body)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def name(self, video: str, title: str) -> None:
        with self.doors.database() as connection:
            connection.execute("UPDATE media.videos SET title = %s WHERE id = %s", (title, self.gallery.videos[video]))
            catalog.bump_generation(connection)

    def paid(self) -> int:
        """What all searches so far earn."""
        return sum(int(row["amount_pix"]) for _, rows in searches(self.doors.settings) for row in rows)


@pytest.fixture
async def room(settings: Settings, model: QueryEncoder, painted: Scenes) -> AsyncIterator[Room]:
    kept: list[Switched] = []

    def switched(search: Any, store: Any) -> Switched:
        kept.append(Switched(near(model)(search, store)))
        return kept[0]

    quick = dataclasses.replace(
        settings.section(SearchSettings), generation_interval_s=0.05, encode_timeout_s=10.0, deadline_s=20.0
    )
    async with opened(settings.with_section(PAID).with_section(quick), switched) as doors:
        with doors.database() as connection:
            gallery = hang(connection, painted)
        yield Room(doors, gallery, kept[0])


async def test_nonsense_matches_nothing_and_pays_nothing(room: Room) -> None:
    asked = ["asdfghjkl", "qwertz zzzz", "zzz", *nonsense(random.Random(1000), 47)]
    answers = [await room.search(text) for text in asked]
    silent = [answer["nothing_matches"] and not answer["moments"] for answer in answers]
    assert sum(silent) >= 0.95 * len(asked), [text for text, is_so in zip(asked, silent, strict=True) if not is_so]
    shown = sum(len(answer["moments"]) for answer in answers)
    assert room.paid() <= shown * PAID.rate_pix
    before = room.paid()
    assert (await room.search("asdfghjkl", group_by="video"))["nothing_matches"]
    assert room.paid() == before


async def test_what_is_not_in_the_catalogue_matches_nothing(room: Room) -> None:
    asked = [*ABSENT, *OUTSIDE]
    silent = {text: (await room.search(text))["nothing_matches"] for text in asked}
    assert sum(silent.values()) >= 0.9 * len(asked), [text for text, is_so in silent.items() if not is_so]


async def test_what_is_in_the_catalogue_is_found(room: Room) -> None:
    for name in NAMES:
        answer = await room.search(name)
        assert answer["moments"][0]["video_id"] == str(room.gallery.videos[name]), name
        assert not answer["nothing_matches"]


async def test_an_exact_title_is_found_although_the_picture_shows_none_of_it(room: Room) -> None:
    room.name("owl", "Zyxxel grand finale")
    answer = await room.search("zyxxel grand finale", explain="true")
    assert {moment["video_id"] for moment in answer["moments"]} == {str(room.gallery.videos["owl"])}
    assert not answer["nothing_matches"]
    assert [moment["explain"]["above_cut"] for moment in answer["moments"]] == [False, False]
    phrase = await room.search('"grand finale"')
    assert {moment["video_id"] for moment in phrase["moments"]} == {str(room.gallery.videos["owl"])}
    assert (await room.search("zyxxel asdfghjkl"))["nothing_matches"]  # one of its words alone is no match


async def test_0_shows_everything_by_parameter_and_by_setting(room: Room, model: QueryEncoder) -> None:
    assert len((await room.search("asdfghjkl", limit=100, relevance_min_ppm=0))["moments"]) == ALL
    assert len((await room.ask(text="asdfghjkl", limit=100, relevance_min_ppm=0))["moments"]) == ALL
    settings = room.doors.settings
    uncut = dataclasses.replace(settings.section(SearchSettings), relevance_min_ppm=0)
    async with opened(settings.with_section(uncut), near(model)) as doors:
        answer = await doors.http.get("/v1/search", params={"q": "asdfghjkl", "limit": 100})
        assert len(answer.json()["moments"]) == ALL


async def test_asking_for_everything_raises_no_money(room: Room) -> None:
    """What is shown only because a caller asks for it makes no appearance; what is near enough earns as ever."""
    await room.search("asdfghjkl", limit=100, relevance_min_ppm=0)
    assert room.paid() == 0
    await room.search("banana", limit=100)
    usual = room.paid()
    await room.search("banana", limit=100, relevance_min_ppm=0)
    assert 0 < usual == room.paid() / 2
    await room.ask(text="asdfghjkl", segment_id=str(room.gallery.moments["banana"][0]), limit=100)
    assert room.paid() == 2 * usual  # near to one of two parts is shown, and pays where it is near to both


async def test_words_show_what_is_below_the_cut_and_pay_nothing_for_it(room: Room) -> None:
    room.name("owl", "Zyxxel grand finale")
    assert len((await room.search("zyxxel grand finale"))["moments"]) == 2
    assert room.paid() == 0


async def test_what_words_match_is_the_callers_to_say_and_no_reason_to_pay(room: Room, model: QueryEncoder) -> None:
    """A language, a filter or a blend decides which moments stand for the words; below the cut each earns as little."""
    room.name("banana", "banane")
    room.name("owl", "Bananen")
    settings = room.doors.settings
    level = dataclasses.replace(settings.section(SearchSettings), relevance_min_ppm=1_000_000)
    async with opened(settings.with_section(level), near(model)) as doors:
        for said in (
            {"text": "banane"},
            {"text": "banane", "language": "german"},
            {"text": "banane", "language": "german", "relevance_min_ppm": 1},
            {"text": "banane", "filters": {"video_id": [str(room.gallery.videos["banana"])]}},
            {"text": "banane", "weights": {"vector": 0}},
            {"text": "banane", "blend": {"negative": 3}, "negative": ["night"]},
        ):
            found = (await doors.http.post("/v1/search", json=said | {"limit": 100})).json()["moments"]
            assert found, said
        assert max(moment["relevance_ppm"] for moment in found) * PAID.rate_pix >= 1_000_000  # something to earn
        assert room.paid() == 0  # here, since the spools of doors that are closed are gone


async def test_a_level_that_is_set_holds_for_vectors_and_not_for_words(room: Room, model: QueryEncoder) -> None:
    room.name("owl", "asdfghjkl")
    settings = room.doors.settings
    strict = dataclasses.replace(settings.section(SearchSettings), relevance_min_ppm=900_000)
    async with opened(settings.with_section(strict), near(model)) as doors:
        answer = (await doors.http.get("/v1/search", params={"q": "asdfghjkl", "limit": 100})).json()
        assert {moment["video_id"] for moment in answer["moments"]} == {str(room.gallery.videos["owl"])}
        answer = (await doors.http.get("/v1/search", params={"q": "banana", "limit": 100})).json()
        assert all(moment["relevance_ppm"] >= 900_000 for moment in answer["moments"])


async def test_a_degraded_answer_never_says_that_nothing_matches(room: Room) -> None:
    room.encoder.on = False
    answer = await room.search("asdfghjkl")
    assert (answer["degraded"], answer["moments"], answer["nothing_matches"]) == (["vector"], [], False)
    partly = await room.search("number3 asdfghjkl")  # without vectors to judge by, words are not cut
    assert (partly["degraded"], len(partly["moments"])) == (["vector"], 2)


async def test_a_stream_shows_first_only_what_stays(room: Room) -> None:
    async def parts(q: str) -> list[tuple[str, dict[str, Any]]]:
        text = (await room.doors.http.get("/v1/search/stream", params={"q": q})).text
        events = [block.split("\n") for block in text.strip().split("\n\n")]
        return [(name.removeprefix("event: "), orjson.loads(data.removeprefix("data: "))) for name, data in events]

    assert [(name, answer["nothing_matches"]) for name, answer in await parts("asdfghjkl")] == [("fused", True)]
    for q in ("number3", "number3 asdfghjkl", "banana number3"):
        found = await parts(q)
        whole = {moment["segment_id"] for moment in found[-1][1]["moments"]}
        assert all({moment["segment_id"] for moment in answer["moments"]} <= whole for _, answer in found), q


async def test_a_title_of_stop_words_in_quotes_is_shown(room: Room) -> None:
    room.name("owl", "The Who")
    found = (await room.search('"The Who"'))["moments"]
    assert {each["video_id"] for each in found} == {str(room.gallery.videos["owl"])}


async def test_nothing_matches_is_not_said_where_a_list_was_not_asked(room: Room) -> None:
    left_out: tuple[dict[str, Any], ...] = ({"vector_weight": 0}, {"text_weight": 0})
    for weights in left_out:
        for _ in range(2):  # made, then kept
            answer = await room.search("asdfghjkl", **weights)
            assert (answer["moments"], answer["degraded"], answer["nothing_matches"]) == ([], [], False), weights
    assert (await room.search("asdfghjkl"))["nothing_matches"]


async def test_further_pages_hold_only_what_is_near_enough_and_never_say_that_nothing_matches(room: Room) -> None:
    whole = [moment["segment_id"] for moment in (await room.search("banana", limit=100))["moments"]]
    assert 0 < len(whole) < ALL
    page = await room.search("banana", limit=1)
    turned = [page]
    while page["next_cursor"]:
        page = await room.search(cursor=page["next_cursor"], limit=1)
        turned.append(page)
    assert [moment["segment_id"] for each in turned for moment in each["moments"]] == whole
    assert not any(each["nothing_matches"] for each in turned)
    room_of = turned[0]["next_cursor"]
    if room_of:
        with room.doors.database() as connection:
            connection.execute("UPDATE media.videos SET status = 'removed'")
        assert (await room.search(cursor=room_of))["nothing_matches"] is False


async def test_a_kept_answer_says_the_same(room: Room) -> None:
    first = await room.doors.http.get("/v1/search", params={"q": "asdfghjkl"})
    again = await room.doors.http.get("/v1/search", params={"q": "asdfghjkl"})
    assert [each.headers["x-pixr-cache"] for each in (first, again)] == ["miss", "replica"]
    assert [each.json()["nothing_matches"] for each in (first, again)] == [True, True]
    await room.doors.services.results.shared()
    room.doors.services.results._clear(room.doors.services.results._generation)
    shared = await room.doors.http.get("/v1/search", params={"q": "asdfghjkl"})
    assert (shared.headers["x-pixr-cache"], shared.json()["nothing_matches"]) == ("redis", True)


async def test_a_picture_shows_what_is_like_it_and_not_the_rest(room: Room, painted: Scenes) -> None:
    segment_id = str(room.gallery.moments["banana"][0])
    found = (await room.ask(segment_id=segment_id, limit=100))["moments"]
    assert found[0]["video_id"] == str(room.gallery.videos["banana"])
    assert len(found) < ALL - 1
    assert len((await room.ask(segment_id=segment_id, limit=100, relevance_min_ppm=0))["moments"]) == ALL - 1
