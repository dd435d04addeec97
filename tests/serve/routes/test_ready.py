"""Readiness is looked at once a second however many ask, and says nothing of where a dependency is."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from cluster import cache
from cluster.settings import Settings
from serve.replica.store import Store
from serve.routes import ready
from tests.ledger.appearances.test_recorder import fixture_no_room  # noqa: F401
from tests.serve.doors import Doors, fill, opened, tiny


@pytest.fixture
async def doors(settings: Settings) -> AsyncIterator[Doors]:
    async with opened(settings) as made:
        yield made


async def test_those_who_ask_at_once_share_an_answer(doors: Doors, monkeypatch: pytest.MonkeyPatch) -> None:
    looks, look = 0, ready.look

    async def counted(questions: Mapping[str, ready.Question]) -> dict[str, Any]:
        nonlocal looks
        looks += 1
        return await look(questions)

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
    nowhere = cache.async_client("redis://:secret@127.0.0.1:1/0")
    away = dataclasses.replace(doors.services, store=Store(doors.settings, nowhere, calls_max=1))
    found = await ready.look(ready.questions_of(away))
    assert not found["dependencies"]["redis"]["ok"]
    assert found["dependencies"]["redis"]["reason"] == "Redis does not answer"
    assert "127.0.0.1" not in str(found)


async def test_a_replica_without_a_spool_answers_what_earns_nothing_and_is_named_degraded(
    settings: Settings, no_room: Path
) -> None:
    fill(settings)
    async with opened(settings, tiny) as doors:
        found = (await doors.http.get("/readyz")).json()
        assert found["ready"]
        assert found["dependencies"]["recorder"] == {"ok": False, "reason": "spool failed; the log says why"}
        said = {"q": "orchard", "limit": "2"}
        refused = await doors.http.get("/v1/search", params=said)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
        assert str(no_room) not in refused.text
        typed = await doors.http.get("/v1/search", params=said | {"intent": "typing"})
        assert (typed.status_code, len(typed.json()["moments"])) == (200, 2)
        assert (await doors.http.get("/v1/feed")).status_code == 200
        (no_room / "ballast").unlink()
        assert (await doors.http.get("/v1/search", params=said)).status_code == 200
