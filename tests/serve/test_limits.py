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
from serve.limits import Gate, Limited, Limits
from serve.settings import SearchSettings
from serve.store import Store
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
    gate, release = Gate(SearchSettings(searches_max=2, waiting_max=3)), asyncio.Event()

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
