"""A hot search goes the short way, and nobody can tell but by the time: answers, limits, money and refusals are the same."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from typing import Any

import pytest

from cluster.settings import Settings
from serve import shortcut
from serve.encoding import QueryEncoder
from serve.settings import SearchSettings
from tests.serve.doors import Doors, bearer, near, opened
from tests.serve.scenes import Scenes, hang
from tests.serve.test_search import Room, moments


@pytest.fixture
async def room(settings: Settings, model: QueryEncoder, painted: Scenes) -> AsyncIterator[Room]:
    slow = dataclasses.replace(settings.section(SearchSettings), generation_interval_s=30.0)
    async with opened(settings.with_section(slow), near(model)) as doors:
        with doors.database() as connection:
            gallery = hang(connection, painted)
        yield Room(doors, gallery, painted)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Query strings that were answered on the short way."""
    gone: list[bytes] = []
    real = shortcut.Shortcut._hot

    async def watched(self: shortcut.Shortcut, request: Any) -> Any:
        response = await real(self, request)
        if response is not None:
            gone.append(request.scope["query_string"])
        return response

    monkeypatch.setattr(shortcut.Shortcut, "_hot", watched)
    return gone


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
    posted = await room.doors.http.post("/v1/search?q=rocket&limit=3", json={"text": "banana", "limit": 3})
    similar = await room.doors.http.get(f"/v1/segments/{moments(posted.json())[0]}/similar?q=rocket&limit=3")
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
    assert len(short) == 2
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
    async with opened(settings.with_section(few), near(model)) as doors:
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
    async with opened(settings.with_section(quick), near(model)) as doors:
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
    async with opened(settings.with_section(varied), near(model)) as doors:
        with doors.database() as connection:
            hang(connection, painted)
        for _ in range(3):
            await get(doors, "banana")
    assert short == []
