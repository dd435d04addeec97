"""A replica whose own means are exhausted says so and is replaced; one whose database is away for everybody does not.

Also: a background task that dies is a reason not to be ready, a generation never goes backwards, and keys are read
where they are written.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from typing import Any

import httpx
import pytest
from psycopg import AsyncConnection

from cluster import database
from cluster.errors import Temporary
from cluster.settings import Settings
from pipelines import catalog, index
from serve import app, keys
from serve.connections import Away, Connections
from serve.generation import Generation
from serve.liveness import LOOP, MEANS, Liveness
from serve.readers import Readers
from serve.settings import SearchSettings
from tests.serve.doors import Doors, bearer, opened
from tests.serve.relay import relayed

WITHIN_S = 15.0
LIVENESS_S = 2.0


async def until_health(doors: Doors, status: int) -> httpx.Response:
    deadline = time.monotonic() + WITHIN_S
    while (answer := await doors.http.get("/healthz")).status_code != status:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)
    return answer


def quick(settings: Settings, **changed: Any) -> Settings:
    search = dataclasses.replace(settings.section(SearchSettings), liveness_s=LIVENESS_S, **changed)
    return settings.with_section(search)


async def test_a_replica_that_the_database_answers_no_more_while_it_answers_others_is_not_alive(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(quick(settings)) as doors:
        assert (await doors.http.get("/healthz")).status_code == 200
        checked = app.Checked()
        checked._asgi_app = doors.app
        await checked.check_health()

        async def use(*_: Any) -> None:
            raise Away("its means are exhausted")

        monkeypatch.setattr(Connections, "use", use)
        answer = await until_health(doors, 503)
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["detail"] == MEANS
        with pytest.raises(Temporary):
            await checked.check_health()
        monkeypatch.undo()
        await until_health(doors, 200)


async def test_a_database_that_is_away_for_everybody_leaves_a_replica_alive(settings: Settings) -> None:
    async with relayed(settings.postgres.url) as postgres:
        through = quick(settings).with_section(dataclasses.replace(settings.postgres, url=postgres.url, serve_url=""))
        async with opened(through) as doors:
            await postgres.cut()
            until = time.monotonic() + 3 * LIVENESS_S
            while time.monotonic() < until:
                assert MEANS not in (await doors.http.get("/healthz")).text
                await asyncio.sleep(0.1)


async def test_a_database_that_is_back_and_has_not_been_asked_again_yet_leaves_a_replica_alive(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stood still for long, and goes on between the replica's own question and that of a fresh connection."""
    directly, is_back = Readers.works_directly, asyncio.Event()
    async with relayed(settings.postgres.url) as postgres:
        through = quick(settings).with_section(dataclasses.replace(settings.postgres, url=postgres.url, serve_url=""))

        async def once_it_is_back(readers: Readers, limit_s: float) -> bool:
            await postgres.mend()
            is_back.set()
            return await directly(readers, limit_s)

        monkeypatch.setattr(Readers, "works_directly", once_it_is_back)
        async with opened(through) as doors:
            postgres.hang()
            async with asyncio.timeout(WITHIN_S):
                await is_back.wait()
            until = time.monotonic() + LIVENESS_S
            while time.monotonic() < until:
                assert (await doors.http.get("/healthz")).status_code == 200
                await asyncio.sleep(0.02)


async def test_a_loop_that_is_blocked_all_the_time_is_not_alive(postgres_url: str) -> None:
    liveness = Liveness(Readers(Connections(postgres_url, SearchSettings()), [], SearchSettings()), 0.5)
    liveness.start()
    await asyncio.sleep(0)
    time.sleep(0.7)  # noqa: ASYNC251  that is what is meant
    with pytest.raises(Temporary, match=LOOP):
        liveness.check()
    await liveness.close()


async def test_a_background_task_that_dies_is_a_reason_not_to_be_ready(settings: Settings) -> None:
    async def die() -> None:
        raise RuntimeError("of something unexpected")

    async with opened(settings) as doors:
        assert "tasks" not in doors.services.failing()
        doors.services.tasks.keep("a task", die)
        await asyncio.sleep(0.05)
        found = (await doors.http.get("/readyz")).json()
        assert found["ready"] is False
        assert found["dependencies"]["tasks"]["reason"].startswith("a task failed")
        assert "unexpected" not in str(found)  # what it was is the log's to say, not the public's to read


async def test_what_is_unexpected_in_warming_is_said_and_tried_again(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(_: AsyncConnection[Any]) -> None:
        raise ValueError("this was not expected")

    monkeypatch.setattr("serve.warming.AGAIN_S", 0.1)
    with monkeypatch.context() as patch:
        patch.setattr("serve.warming.index.state", broken)
        patch.setattr("serve.app._prepare_models", lambda _: asyncio.sleep(60))
        async with opened(settings) as doors:
            found = (await doors.http.get("/readyz")).json()
            assert "ValueError" in found["dependencies"]["index"]["reason"]
            patch.undo()
            deadline = time.monotonic() + WITHIN_S
            while doors.services.warming.reason:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.05)


class Behind(Readers):
    """A deployment whose replica answers what the catalogue was a while ago."""

    old: tuple[Any, ...] | None = None

    async def ask(self, question: Any, **settings: Any) -> Any:
        if question is index.state and self.old is not None:
            return self.old
        return await super().ask(question, **settings)


async def test_the_generation_never_goes_backwards_and_a_change_is_seen_at_the_primary(postgres_url: str) -> None:
    search = SearchSettings(generation_interval_s=0.02)
    readers = Behind(Connections(postgres_url, search), [], search)
    await readers.start()
    generation = Generation(readers, search)
    first = await generation.now()
    readers.old = (first.generation, None, (), 0)
    with database.connect(postgres_url, autocommit=True) as connection:
        connection.execute("UPDATE media.generation SET value = value + 1")
    generation.expire()  # as a replica does after a change of its own
    seen = [(await generation.now()).generation]
    for _ in range(10):
        await asyncio.sleep(0.03)
        seen.append((await generation.now()).generation)
    assert seen == [first.generation + 1] * 11
    await generation.close()
    await readers.close()


async def test_while_many_videos_are_added_kept_answers_go_now_and_then_and_at_once_for_anything_else(
    postgres_url: str,
) -> None:
    """Of 20 videos in a row each would empty every cache; a takedown among them is felt at once."""
    search = SearchSettings(generation_interval_s=0.01, growth_interval_s=0.5)
    readers = Readers(Connections(postgres_url, search), [], search)
    await readers.start()
    generation = Generation(readers, search)
    first = (await generation.now()).generation
    began, seen = time.monotonic(), []
    with database.connect(postgres_url, autocommit=True) as connection:
        for _ in range(20):
            catalog.bump_generation(connection, only_grown=True)
            await asyncio.sleep(0.02)
            seen.append((await generation.now()).generation)
        assert seen[0] == first + 1  # after a quiet time at once
        assert len(set(seen)) <= 2 + (time.monotonic() - began) / 0.5
        catalog.bump_generation(connection)
        await asyncio.sleep(0.02)
        assert (await generation.now()).generation == first + 21
        catalog.bump_generation(connection, only_grown=True)
        while (await generation.now()).generation != first + 22:
            assert time.monotonic() - began < WITHIN_S
            await asyncio.sleep(0.02)
    await generation.close()
    await readers.close()


async def test_a_fresh_key_and_a_revoked_one_are_looked_up_at_the_primary(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def lagging(*_: Any, **__: Any) -> None:
        return None  # a replica that has not replayed the key yet

    async with opened(settings) as doors:
        monkeypatch.setattr(doors.services.readers, "ask", lagging)
        with doors.database() as connection:
            key_id, token = keys.create(connection, "fresh", ("search",))
        assert await keys.identify(doors.services, token) is not None
        with doors.database() as connection:
            keys.revoke(connection, key_id)
        monkeypatch.setattr("serve.keys.REMEMBERED_S", 0)
        keys._checks.clear()
        answer = await doors.http.get("/v1/videos/7", headers=bearer(token))
        assert (answer.status_code, answer.json()["code"]) == (401, "key-invalid")
