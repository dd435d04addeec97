"""A hot search goes the short way, and nobody can tell but by the time: answers, limits, money and refusals are the same."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest

from cluster.settings import Settings
from serve.replica.encoding import QueryEncoder
from serve.search import kept
from serve.settings import SearchSettings
from tests.serve.doors import Doors, bearer, near, opened, uncut
from tests.serve.scenes import Scenes, hang
from tests.serve.search.test_answer import Room, moments


@pytest.fixture
async def room(settings: Settings, model: QueryEncoder, painted: Scenes) -> AsyncIterator[Room]:
    slow = dataclasses.replace(settings.section(SearchSettings), generation_interval_s=30.0)
    async with opened(uncut(settings.with_section(slow)), near(model)) as doors:
        with doors.database() as connection:
            gallery = hang(connection, painted)
        yield Room(doors, gallery, painted)


def watched(monkeypatch: pytest.MonkeyPatch, way: str) -> list[bytes]:
    """The query strings of what is answered on a short way, from now on."""
    gone: list[bytes] = []
    real = getattr(kept.Shortcut, way)

    async def answer(self: kept.Shortcut, request: Any, *more: Any) -> Any:
        response = await real(self, request, *more)
        if response is not None:
            gone.append(request.scope["query_string"])
        return response

    monkeypatch.setattr(kept.Shortcut, way, answer)
    return gone


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Query strings of hot searches that were answered on the short way."""
    return watched(monkeypatch, "_hot")


@pytest.fixture
def posted(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """One for each body that was answered on the short way."""
    return watched(monkeypatch, "_posted")


async def get(doors: Doors, q: str, headers: dict[str, str] | None = None, **more: Any) -> Any:
    return await doors.http.get("/v1/search", params={"q": q} | more, headers=headers or {})


async def test_the_second_time_is_short_and_all_the_same(room: Room, short: list[bytes]) -> None:
    first = await get(room.doors, "banana", limit=3)
    assert short == []
    second = await get(room.doors, "banana", limit=3)
    assert len(short) == 1
    a, b = first.json(), second.json()
    assert (a | {"took_ms": 0}) == (b | {"took_ms": 0})
    assert first.headers.keys() == second.headers.keys()
    assert (second.headers["x-pixr-cache"], second.headers["x-pixr-degraded"]) == ("replica", "")
    assert await room.recorded(2) == [(2, 6)]
    metrics = (await room.doors.http.get("/metrics")).text
    assert 'source="replica"' in metrics


async def test_other_parameters_and_other_ways_to_ask_are_other_searches(room: Room, short: list[bytes]) -> None:
    await get(room.doors, "banana", limit=3)
    both = await room.doors.http.post("/v1/search?q=rocket&limit=3", json={"text": "banana", "limit": 3})
    assert both.status_code == 422
    posted = await room.doors.http.post("/v1/search", json={"text": "banana", "limit": 3})
    similar = await room.doors.http.get(f"/v1/segments/{moments(posted.json())[0]}/similar?limit=3")
    assert similar.status_code == 200
    rocket = await get(room.doors, "rocket", limit=3)
    assert short == []
    assert moments(rocket.json()) != moments(posted.json())
    assert moments((await get(room.doors, "rocket", limit=3)).json()) == moments(rocket.json())
    assert len(short) == 1


async def test_keys_are_looked_at_on_the_short_way_too(room: Room, short: list[bytes]) -> None:
    await get(room.doors, "banana")
    assert (await get(room.doors, "banana", bearer("pixr_wrong"))).status_code == 401
    assert (await get(room.doors, "banana", room.doors.key("search"))).status_code == 200
    assert len(short) == 1  # a wrong key does not come so far
    assert (await get(room.doors, "banana", {"Idempotency-Key": "x" * 201})).status_code == 422


async def test_a_creators_own_search_earns_nothing_on_the_short_way(room: Room, short: list[bytes]) -> None:
    ada, _ = room.gallery.creators
    headers = room.doors.key("creator", "search", creator_id=ada)
    for _ in range(2):
        await get(room.doors, "banana", headers, limit=100)
    assert len(short) == 1
    assert await room.recorded(2) == [(2, 2 * len(room.painted.names))]


async def test_the_bucket_is_emptied_on_the_short_way_too(
    settings: Settings, model: QueryEncoder, painted: Scenes, short: list[bytes]
) -> None:
    few = dataclasses.replace(
        settings.section(SearchSettings), address_rate_per_s=0.01, address_burst=5, generation_interval_s=30.0
    )
    async with opened(uncut(settings.with_section(few)), near(model)) as doors:
        with doors.database() as connection:
            hang(connection, painted)
        codes = [(await get(doors, "banana")).status_code for _ in range(8)]
        refused = await get(doors, "banana")
    assert codes == [200] * 5 + [429] * 3
    assert int(refused.headers["retry-after"]) >= 1
    assert refused.headers["content-type"] == "application/problem+json"
    assert short


async def test_what_is_taken_down_is_not_shown_on_the_short_way(
    settings: Settings, model: QueryEncoder, painted: Scenes
) -> None:
    quick = dataclasses.replace(settings.section(SearchSettings), generation_interval_s=1e-6)
    async with opened(uncut(settings.with_section(quick)), near(model)) as doors:
        with doors.database() as connection:
            hang(connection, painted)
        before = (await get(doors, "banana")).json()["moments"][0]
        await get(doors, "banana")
        gone = await doors.http.delete(f"/v1/videos/{before['video_id']}", headers=doors.key("admin"))
        assert gone.status_code == 200
        after = (await get(doors, "banana")).json()["moments"]
        assert before["video_id"] not in {each["video_id"] for each in after}


async def test_with_variants_everybody_goes_the_whole_way(
    settings: Settings, model: QueryEncoder, painted: Scenes, short: list[bytes]
) -> None:
    varied = dataclasses.replace(settings.section(SearchSettings), variants=("words 500000 vector_weight=0",))
    async with opened(uncut(settings.with_section(varied)), near(model)) as doors:
        with doors.database() as connection:
            hang(connection, painted)
        for _ in range(3):
            await get(doors, "banana")
    assert short == []


async def in_pieces(data: bytes) -> AsyncIterator[bytes]:
    """A body of no announced length."""
    for start in range(0, len(data), 10):
        yield data[start : start + 10]


JSON = {"content-type": "application/json"}


async def test_a_body_is_answered_the_same_on_both_ways(room: Room, posted: list[bytes]) -> None:
    search = room.doors.http
    liked = moments((await get(room.doors, "banana")).json())[0]
    bodies: list[dict[str, Any]] = [
        {"text": "banana", "limit": 3, "explain": True},
        {
            "text": "banana",
            "negative": ["rocket"],
            "weights": {"text": 0},
            "filters": {"tags": []},
            "group_by": "video",
        },
        {"segment_id": str(liked), "blend": {"segment": 2.0}},
    ]
    for number, body in enumerate(bodies, 1):
        await search.post("/v1/search", json=body | {"intent": "typing"})  # from here on it is kept, for both
        direct = await search.post("/v1/search", json=body)
        assert len(posted) == 2 * number
        whole = await search.post("/v1/search", content=in_pieces(orjson.dumps(body)), headers=JSON)
        assert len(posted) == 2 * number
        assert (direct.json() | {"took_ms": 0}) == (whole.json() | {"took_ms": 0})
        assert direct.headers.keys() == whole.headers.keys()
        assert moments(direct.json())


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"", 422), (b"{", 400), (b"[]", 422), (b'{"text": 3}', 422), (b'{"text": "a", "limit": 0}', 422),
        (b'{"text": "a", "other": 1}', 422), (b'{"weights": {"text": NaN}, "text": "a"}', 422), (b"{}", 422),
        (b'{"text": "\\ud800"}', 422), (b'{"text": "a", "limit": 100000}', 422), (b'{"segment_id": "999999999"}', 404),
        ('{"text": "banana"}'.encode("utf-16"), 200),
    ],
)  # fmt: skip
async def test_what_is_wrong_is_said_the_same_on_both_ways(room: Room, data: bytes, status: int) -> None:
    ways = [{"content": data}, {"content": in_pieces(data)}]
    answers = [await room.doors.http.post("/v1/search", headers=JSON, **way) for way in ways]
    assert [each.status_code for each in answers] == [status, status]
    if status != 200:
        one, other = ({**each.json(), "request_id": ""} for each in answers)
        assert one == other


async def test_keys_and_other_kinds_of_bodies_are_looked_at(room: Room, posted: list[bytes]) -> None:
    search, body = room.doors.http, {"text": "banana"}
    assert (await search.post("/v1/search", json=body, headers=bearer("pixr_wrong"))).status_code == 401
    assert len(posted) == 0  # it is refused before
    assert (await search.post("/v1/search", json=body, headers={"Idempotency-Key": "x" * 201})).status_code == 422
    plain = await search.post("/v1/search", content=orjson.dumps(body), headers={"content-type": "text/plain"})
    assert plain.status_code == 415
    large = await search.post("/v1/search", content=b"x" * (SearchSettings().body_max_bytes + 1), headers=JSON)
    assert large.status_code == 413
    assert len(posted) == 0
    await search.post("/v1/search", json=body, headers=room.doors.key("search"))
    assert await room.recorded(1) == [(1, SearchSettings().limit_default)]
