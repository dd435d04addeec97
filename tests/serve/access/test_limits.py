"""Who asks too often is told to wait and for how long, with Redis and without; a full replica sends away at once."""

from __future__ import annotations

import asyncio
import dataclasses
import pickle
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cluster import cache
from cluster.errors import Temporary
from cluster.settings import Settings
from serve.access.limits import Limited, Limits
from serve.http.gates import Gate, Shares
from serve.replica.store import Store
from serve.settings import SearchSettings
from tests.conftest import throwaway_settings
from tests.serve.doors import opened

SLOW = SearchSettings(key_rate_per_s=0.5, key_burst=5, address_rate_per_s=0.5, address_burst=3)


@pytest.fixture
async def store(tmp_path: Path, redis_url: str) -> AsyncIterator[Store]:
    client = cache.async_client(redis_url)
    yield Store(throwaway_settings(tmp_path), client)
    await client.aclose()


@pytest.fixture
async def nowhere(tmp_path: Path) -> AsyncIterator[Store]:
    client = cache.async_client("redis://127.0.0.1:1/0")
    yield Store(throwaway_settings(tmp_path), client)
    await client.aclose()


async def taken(limits: Limits, kind: str, identity: str, most: int = 20) -> int:
    """How many may be taken at once."""
    for count in range(most):
        try:
            await limits.take(kind, identity)
        except Limited as limited:
            assert 0 < limited.retry_after_s <= 2.1
            return count
    return most


async def test_a_burst_is_given_and_no_more(store: Store) -> None:
    limits = Limits(store, SLOW)
    assert await taken(limits, "key", "1") == 5
    assert await taken(limits, "address", "192.0.2.1") == 3
    assert await taken(limits, "address", "192.0.2.2") == 3


async def test_replicas_share_a_bucket(store: Store) -> None:
    first, second = Limits(store, SLOW), Limits(store, SLOW)
    assert await taken(first, "key", "1", most=3) == 3
    assert await taken(second, "key", "1") == 2


async def test_without_redis_each_replica_keeps_a_bucket_of_its_own(nowhere: Store) -> None:
    first, second = Limits(nowhere, SLOW), Limits(nowhere, SLOW)
    assert await taken(first, "key", "1") == 5
    assert await taken(second, "key", "1") == 5


async def refused(limits: Limits, kind: str, requests: int, side_by_side: int) -> int:
    """How many of so many requests are refused, so many at once."""
    left, count = iter(range(requests)), 0

    async def ask() -> None:
        nonlocal count
        for _ in left:
            try:
                await limits.take(kind, "1")
            except Limited:
                count += 1

    await asyncio.gather(*(ask() for _ in range(side_by_side)))
    return count


@pytest.mark.parametrize("side_by_side", [1, 32, 64])
async def test_nobody_is_refused_while_tokens_are_left(store: Store, side_by_side: int) -> None:
    limits = Limits(store, SearchSettings(key_rate_per_s=500, key_burst=2000))
    assert await refused(limits, "key", 1500, side_by_side) == 0


async def test_a_burst_of_an_address_is_given_whole_to_those_that_come_at_once(store: Store) -> None:
    limits = Limits(store, SearchSettings(address_rate_per_s=100, address_burst=1000))
    assert await refused(limits, "address", 300, 300) == 0


async def test_what_was_taken_ahead_is_there_after_an_idle_second(store: Store) -> None:
    limits = Limits(store, SearchSettings(key_rate_per_s=0.01, key_burst=40))
    for _ in range(3):
        assert await refused(limits, "key", 10, 10) == 0
        await asyncio.sleep(1.1)
    assert await refused(limits, "key", 10, 10) == 0
    assert await refused(limits, "key", 1, 1) == 1


@pytest.mark.parametrize("replicas", [1, 2])
async def test_never_more_than_the_burst_and_the_rate_is_let_through(store: Store, replicas: int) -> None:
    search = SearchSettings(key_rate_per_s=100, key_burst=50)
    began = time.monotonic()
    counts = await asyncio.gather(*(refused(Limits(store, search), "key", 2000, 32) for _ in range(replicas)))
    let_through = 2000 * replicas - sum(counts)
    assert 50 <= let_through <= 50 + 100 * (time.monotonic() - began) + 1


async def test_the_limit_holds_while_redis_is_away_and_when_it_goes(store: Store, nowhere: Store) -> None:
    search = SearchSettings(key_rate_per_s=0.1, key_burst=50)
    away = Limits(nowhere, search)
    assert await refused(away, "key", 200, 32) == 150
    goes = Limits(store, search)
    assert await refused(goes, "key", 40, 8) == 0
    goes._store = nowhere
    assert await refused(goes, "key", 40, 8) == 30


async def test_a_caller_that_goes_away_takes_nobody_with_it(store: Store) -> None:
    limits = Limits(store, SearchSettings(key_rate_per_s=1, key_burst=100))
    first = asyncio.create_task(limits.take("key", "1"))
    others = [asyncio.create_task(limits.take("key", "1")) for _ in range(10)]
    await asyncio.sleep(0)
    first.cancel()
    assert len(await asyncio.gather(*others)) == 10


async def test_a_bucket_fills_again(store: Store) -> None:
    limits = Limits(store, SearchSettings(key_rate_per_s=50, key_burst=2))
    assert await taken(limits, "key", "1", most=2) == 2
    deadline = time.monotonic() + 10
    while await taken(limits, "key", "1", most=1) == 0:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)


def test_a_limit_survives_pickling() -> None:
    again = pickle.loads(pickle.dumps(Limited("too many", 2.5)))
    assert (again.detail, again.status, again.retry_after_s) == ("too many", 429, 2.5)


async def test_a_gate_lets_so_many_through_and_so_many_wait() -> None:
    gate, release = Gate("searches", 2, 3), asyncio.Event()

    async def pass_through() -> None:
        async with gate.passed():
            await release.wait()

    tasks = [asyncio.create_task(pass_through()) for _ in range(5)]
    await asyncio.sleep(0)
    with pytest.raises(Temporary):
        async with gate.passed():
            raise AssertionError("a place too many")
    release.set()
    await asyncio.gather(*tasks)
    async with gate.passed():
        pass


async def test_a_gate_gives_its_place_back_however_its_holder_ends() -> None:
    gate = Gate("searches", 1, 1, wait_s=0.05)
    entered = asyncio.Event()

    async def hold() -> None:
        async with gate.passed():
            entered.set()
            await asyncio.sleep(60)

    task = asyncio.create_task(hold())
    await entered.wait()
    with pytest.raises(Temporary):  # nobody gives up a place in time
        async with gate.passed():
            raise AssertionError("a place too many")
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert gate.held == 0
    async with gate.passed():
        pass


def test_one_address_has_a_part_of_the_places_only() -> None:
    shares = Shares("streams", 3, 2)
    with shares.passed("a"), shares.passed("a"):
        with pytest.raises(Temporary), shares.passed("a"):
            raise AssertionError("a place too many")
        with shares.passed("b"), pytest.raises(Temporary), shares.passed("c"):
            raise AssertionError("a place too many")
    assert shares.held == 0


async def test_too_many_searches_are_answered_with_429_and_when_to_come_again(settings: Settings) -> None:
    tight = settings.with_section(
        dataclasses.replace(settings.section(SearchSettings), address_burst=2, address_rate_per_s=0.4)
    )
    async with opened(tight) as doors:
        answers = [await doors.http.get("/v1/search", params={"q": "a"}) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 429]
        assert answers[2].headers["content-type"] == "application/problem+json"
        assert 1 <= int(answers[2].headers["retry-after"]) <= 3
        known = await doors.http.get("/v1/search", params={"q": "a"}, headers=doors.key("search"))
        assert known.status_code == 200
