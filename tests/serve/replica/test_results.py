"""Answers are kept for their generation, shared between replicas, made once at a time, and forgotten when told to."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster import cache
from cluster.errors import Temporary
from serve.http import deadlines
from serve.replica.results import ResultPage, Results, Shown
from serve.replica.store import Store
from serve.settings import SearchSettings
from tests.conftest import throwaway_settings

WHOLE = ResultPage(b'[{"a":1}]', (Shown(1, 2, 3, 4),), "cursor")


class Maker:
    """Makes a page, and counts how often."""

    def __init__(self, page: ResultPage | None = None) -> None:
        self.page = page or aged(WHOLE, 0)  # which was made when this file was read
        self.made = 0

    async def __call__(self) -> ResultPage:
        self.made += 1
        await asyncio.sleep(0.01)
        return self.page


@pytest.fixture
async def store(tmp_path: Path, redis_url: str) -> AsyncIterator[Store]:
    client = cache.async_client(redis_url)
    yield Store(throwaway_settings(tmp_path), client)
    await client.aclose()


async def test_an_answer_is_made_once_and_kept_here_and_for_others(store: Store) -> None:
    make, here, there = Maker(), Results(store, SearchSettings()), Results(store, SearchSettings())
    assert await here.get("q", 1, make) == (WHOLE, "miss")
    assert await here.get("q", 1, make) == (WHOLE, "replica")
    await here.shared()
    assert await there.get("q", 1, make) == (WHOLE, "redis")
    assert make.made == 1


async def test_every_answer_of_a_moment_is_kept_for_others(store: Store) -> None:
    make, here, there = Maker(), Results(store, SearchSettings()), Results(store, SearchSettings())
    names = [f"q{number}" for number in range(20)]
    await asyncio.gather(*(here.get(name, 1, make) for name in names))
    await asyncio.sleep(0.03)  # Redis is being given the first
    await here.get("late", 1, make)
    await here.shared()
    assert {(await there.get(name, 1, make))[1] for name in (*names, "late")} == {"redis"}


async def test_who_no_longer_waits_for_redis_takes_nothing_from_it(store: Store) -> None:
    make, here, there = Maker(), Results(store, SearchSettings()), Results(store, SearchSettings())
    await here.get("q", 1, make)
    gone, stays = asyncio.create_task(here.shared()), asyncio.create_task(here.shared())
    await asyncio.sleep(0)
    gone.cancel()
    await stays
    assert (await there.get("q", 1, make))[1] == "redis"


async def test_another_generation_is_another_answer(store: Store) -> None:
    make, results = Maker(), Results(store, SearchSettings())
    for generation in (1, 2, 1):
        await results.get("q", generation, make)
        await results.shared()
    assert make.made == 2


async def test_many_who_ask_at_once_wait_for_one(store: Store) -> None:
    make, results = Maker(), Results(store, SearchSettings())
    first = asyncio.create_task(results.get("q", 1, make))
    others = [asyncio.create_task(results.get("q", 1, make)) for _ in range(20)]
    await asyncio.sleep(0)
    first.cancel()  # who asked first goes away; the others get their answer
    assert {page for page, _ in await asyncio.gather(*others)} == {WHOLE}
    assert make.made == 1


async def test_a_degraded_answer_is_not_kept(store: Store) -> None:
    make, results = Maker(ResultPage(b"[]", (), None, ("vector",))), Results(store, SearchSettings())
    for _ in range(2):
        assert (await results.get("q", 1, make))[1] == "miss"
    assert make.made == 2


async def test_what_fails_fails_for_all_who_wait_and_is_tried_again(store: Store) -> None:
    async def fail() -> ResultPage:
        await asyncio.sleep(0.01)
        raise Temporary("away")

    results = Results(store, SearchSettings())
    found = await asyncio.gather(*(results.get("q", 1, fail) for _ in range(3)), return_exceptions=True)
    assert all(isinstance(each, Temporary) for each in found)
    assert (await results.get("q", 1, Maker()))[1] == "miss"


async def test_forgetting_reaches_every_store(store: Store) -> None:
    make, results = Maker(), Results(store, SearchSettings())
    await results.get("q", 1, make)
    await results.forget()
    assert await store.get("result:1:q") is None
    await results.get("q", 1, make)
    assert make.made == 2


async def test_a_replica_keeps_so_many_answers_and_no_more(store: Store) -> None:
    results, make = Results(store, SearchSettings(cache_entries_max=3)), Maker()
    for number in range(5):
        await results.get(f"q{number}", 1, make)
    await results.shared()
    assert [(await results.get(f"q{number}", 1, make))[1] for number in (4, 3, 2, 0)] == ["replica"] * 3 + ["redis"]


@given(
    st.lists(st.builds(Shown, *(st.integers(0, 2**63 - 1) for _ in range(4))), max_size=5),
    st.none() | st.text("abc_-", min_size=1),
    st.binary(max_size=50),
)
def test_a_kept_page_is_the_page(shown: list[Shown], cursor: str | None, moments: bytes) -> None:
    page = ResultPage(moments, tuple(shown), cursor)
    assert ResultPage.load(page.dump()) == page


async def test_who_joins_an_answer_does_not_share_the_time_of_who_asked_first(store: Store) -> None:
    results = Results(store, SearchSettings())

    async def make() -> ResultPage:
        await asyncio.sleep(0.6)
        return aged(WHOLE, 0)

    async def ask(left_s: float) -> tuple[ResultPage, str]:
        with deadlines.limited(left_s):
            return await results.get("shared", 1, make)

    first, second = asyncio.create_task(ask(0.5)), asyncio.create_task(ask(3.0))
    with pytest.raises(Temporary):
        await first
    assert (await second)[0] == WHOLE
    await results.close()


async def test_an_answer_of_an_older_generation_is_not_kept_for_a_newer_one(store: Store) -> None:
    results = Results(store, SearchSettings())
    await store.put("result:5:q", ResultPage(b'["taken down"]', (), None).dump(), 60)

    async def make() -> ResultPage:
        return aged(WHOLE, 0)

    # Both in one turn of the loop: the second moves the replica on before the first has begun.
    await asyncio.gather(results.get("q", 5, make), results.get("other", 6, make))
    assert (await results.get("q", 6, make))[0] == WHOLE
    await results.close()


def aged(page: ResultPage, age_s: float) -> ResultPage:
    return replace(page, made_at_s=time.time() - age_s)


async def test_an_answer_is_made_again_once_it_is_too_old_wherever_it_was_kept(store: Store) -> None:
    """Else its cursor and its links would be shown after they have expired, in a catalogue in which nothing changes."""
    search = SearchSettings(result_cache_s=60)
    results, make = Results(store, search), Maker(aged(WHOLE, 59))
    await results.get("q", 1, make)
    assert (await results.get("q", 1, make))[1] == "replica"
    await results.shared()
    there = Results(store, search)
    assert (await there.get("q", 1, make))[1] == "redis"
    await asyncio.sleep(1.1)
    await store.forget("result:")  # as Redis does then
    assert there.kept("q", 1) is None  # as old as it was in Redis, not as what came a moment ago
    make.page = replace(WHOLE, moments=b'[{"b":2}]')
    for each in (results, there):
        assert (await each.get("q", 1, make))[0].moments == make.page.moments
        await each.close()
    assert results._bytes == len(make.page.moments)


async def test_an_answer_that_is_too_old_is_shown_while_none_can_be_made(store: Store) -> None:
    async def fail() -> ResultPage:
        raise Temporary("the database does not answer")

    results = Results(store, SearchSettings(result_cache_s=1, stale_max_s=30.0))
    for name, age_s in (("old", 20), ("too old", 40)):
        results._keep(name, aged(WHOLE, age_s))
    results._generation = 1
    assert results.kept("old", 1) is None
    assert await results.get("old", 1, fail) == (WHOLE, "replica")
    with pytest.raises(Temporary):
        await results.get("too old", 1, fail)
    await results.close()
