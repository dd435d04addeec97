"""A service that is away is a line now and then, not one for each request that meets it."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest

from cluster import cache
from cluster.errors import Temporary
from cluster.tasks import uncancelled
from serve.replica.connections import Connections
from serve.replica.readers import Readers
from serve.replica.store import Store
from serve.settings import SearchSettings
from tests.conftest import throwaway_settings

REQUESTS = 60


def lines(caplog: pytest.LogCaptureFixture, logger: str) -> list[str]:
    return [each.getMessage() for each in caplog.records if each.name == logger]


async def test_a_redis_that_is_away(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    client = cache.async_client("redis://127.0.0.1:1/0")
    store = Store(throwaway_settings(tmp_path), client)
    with caplog.at_level(logging.WARNING):
        assert set(await asyncio.gather(*(store.get(f"{number}") for number in range(REQUESTS)))) == {None}
    await client.aclose()
    assert 1 <= len(lines(caplog, "serve.replica.store")) <= 10


async def test_a_redis_that_is_full(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """No place is free: each call would say so once."""
    client = cache.async_client("redis://127.0.0.1:1/0")
    store = Store(throwaway_settings(tmp_path), client, calls_max=1)
    async with store._places:
        with caplog.at_level(logging.WARNING):
            await asyncio.gather(*(store.get(f"{number}") for number in range(REQUESTS)))
    await client.aclose()
    assert 1 <= len(lines(caplog, "serve.replica.store")) <= 10


async def test_a_database_that_is_away(caplog: pytest.LogCaptureFixture) -> None:
    search = SearchSettings(connection_wait_s=0.2)
    readers = Readers(Connections("postgresql://nobody@127.0.0.1:1/nothing", search), [], search)

    async def asked() -> None:
        async def question(_connection: Any) -> None:
            raise AssertionError("there is no connection")

        await readers.ask(question)

    with caplog.at_level(logging.WARNING):
        found = await asyncio.gather(*(asked() for _ in range(REQUESTS)), return_exceptions=True)
    await readers.close()
    assert all(isinstance(each, Temporary) for each in found)
    assert 1 <= len(lines(caplog, "serve.replica.readers")) <= 10


async def test_work_that_fails_behind_callers_who_have_gone(caplog: pytest.LogCaptureFixture) -> None:
    async def fails() -> None:
        await asyncio.sleep(0.05)
        raise OSError("the store is away")

    with caplog.at_level(logging.WARNING):
        callers = [asyncio.create_task(uncancelled(fails())) for _ in range(REQUESTS)]
        await asyncio.sleep(0.01)
        for caller in callers:
            caller.cancel()
        await asyncio.gather(*callers, return_exceptions=True)
        await asyncio.sleep(0.3)
    assert 1 <= len(lines(caplog, "cluster.tasks")) <= 10
