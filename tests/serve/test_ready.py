"""Readiness is looked at once a second however many ask, and says nothing of where a dependency is."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from typing import Any

import pytest

from cluster import cache
from cluster.settings import Settings
from serve import ready
from serve.services import Services
from tests.serve.doors import Doors, opened


@pytest.fixture
async def doors(settings: Settings) -> AsyncIterator[Doors]:
    async with opened(settings) as made:
        yield made


async def test_those_who_ask_at_once_share_an_answer(doors: Doors, monkeypatch: pytest.MonkeyPatch) -> None:
    looks, look = 0, ready.look

    async def counted(services: Services) -> dict[str, Any]:
        nonlocal looks
        looks += 1
        return await look(services)

    monkeypatch.setattr(ready, "look", counted)
    answers = await asyncio.gather(*(doors.http.get("/readyz") for _ in range(50)))
    assert {each.status_code for each in answers} == {200}
    assert looks == 1
    assert (await doors.http.get("/readyz")).json() == answers[0].json()
    assert looks == 1
    await asyncio.sleep(ready.KEPT_S + 0.1)
    await doors.http.get("/readyz")
    assert looks == 2


async def test_a_dependency_that_is_away_is_named_without_its_address(doors: Doors) -> None:
    away = dataclasses.replace(doors.services, redis=cache.async_client("redis://:secret@127.0.0.1:1/0"))
    found = await ready.look(away)
    assert not found["dependencies"]["redis"]["ok"]
    assert found["dependencies"]["redis"]["reason"] == "ConnectionError"
    assert "127.0.0.1" not in str(found)
