"""Whatever is killed, a search is answered or refused cleanly and in time, says what it lacks, and is whole again after.

Servers are real; a relay before them is cut, which is what their death looks like from here.
"""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from cluster.database import database
from cluster.errors import Temporary
from cluster.settings import Settings
from ledger.appearances.appearances import adopt
from serve.replica.encoder import EncoderInfo, Encoding, Vector
from serve.replica.encoding import QueryEncoder
from serve.settings import SearchSettings
from tests.serve.doors import Doors, near, opened
from tests.serve.relay import Relay, relayed
from tests.serve.scenes import Gallery, Scenes, hang

DEADLINE_S = 2.0
SLACK_S = 3.0  # a busy machine is not a late answer


@dataclass
class Switched:
    """The real encoder, which can be turned off."""

    inner: Encoding
    on: bool = True

    async def answers(self) -> None:
        self._check()

    async def facts(self, model: str = "") -> EncoderInfo:
        self._check()
        return await self.inner.facts(model)

    def prepare(self, models: Iterable[str]) -> None:
        self.inner.prepare(models)

    async def close(self) -> None:
        await self.inner.close()

    async def text(self, text: str, model: str = "") -> Vector:
        self._check()
        return await self.inner.text(text, model)

    async def image(self, data: bytes, model: str = "") -> Vector:
        self._check()
        return await self.inner.image(data, model)

    def _check(self) -> None:
        if not self.on:
            raise Temporary("the encoder is away")


@dataclass
class Room:
    """Everything a search needs, each of which can be taken away; what was answered so far."""

    doors: Doors
    gallery: Gallery
    postgres: Relay
    redis: Relay
    encoder: Switched
    answers: list[httpx.Response] = field(default_factory=list)

    async def search(self, q: str, **parameters: Any) -> httpx.Response:
        began = time.monotonic()
        answer = await self.doors.http.get("/v1/search", params={"q": q} | parameters)
        assert time.monotonic() - began < DEADLINE_S + SLACK_S, "later than its deadline"
        assert answer.status_code in (200, 503), answer.text
        assert answer.status_code == 200 or int(answer.headers["retry-after"]) >= 1
        self.answers.append(answer)
        return answer

    async def until_whole(self, q: str) -> None:
        deadline = time.monotonic() + 20
        number = 0
        while True:
            number += 1  # another text each time, so that no answer is a kept one
            answer = await self.search(f"{q} again{number}")
            if answer.status_code == 200 and answer.json()["degraded"] == []:
                return
            assert time.monotonic() < deadline, f"still {answer.text}"
            await asyncio.sleep(0.05)


@pytest.fixture
async def room(settings: Settings, model: QueryEncoder, painted: Scenes) -> AsyncIterator[Room]:
    async with AsyncExitStack() as stack:
        with database.connect(settings.postgres.url) as connection:
            gallery = hang(connection, painted)
        postgres = await stack.enter_async_context(relayed(settings.postgres.url))
        redis = await stack.enter_async_context(relayed(settings.redis.url))
        quick = dataclasses.replace(
            settings.section(SearchSettings),
            deadline_s=DEADLINE_S,
            connection_wait_s=0.3,
            generation_interval_s=0.1,
            feed_interval_s=0.05,
            address_rate_per_s=10_000,  # refusals cost nothing, and whoever is refused asks again at once
            address_burst=100_000,
        )
        through = settings.with_section(quick)
        through = through.with_section(dataclasses.replace(settings.postgres, url=postgres.url, serve_url=""))
        through = through.with_section(dataclasses.replace(settings.redis, url=redis.url))
        kept: list[Switched] = []

        def switched(search: Any, store: Any) -> Encoding:
            kept.append(Switched(near(model)(search, store)))
            return kept[0]

        doors = await stack.enter_async_context(opened(through, switched))
        yield Room(doors, gallery, postgres, redis, kept[0])


async def test_without_redis_nothing_is_lost_but_speed(room: Room) -> None:
    await room.redis.cut()
    for _ in range(2):
        answer = await room.search("banana")
        assert (answer.status_code, answer.json()["degraded"]) == (200, [])
        assert answer.json()["moments"][0]["video_id"] == str(room.gallery.videos["banana"])
    assert answer.headers["x-pixr-cache"] == "replica"


async def test_without_an_encoder_words_answer_until_it_is_back(room: Room) -> None:
    room.encoder.on = False
    answer = await room.search("number3")
    assert answer.json()["degraded"] == ["vector"]
    assert answer.json()["moments"]
    room.encoder.on = True
    await room.until_whole("banana")


async def test_without_a_database_kept_answers_are_shown_and_then_what_is_popular(room: Room) -> None:
    first = (await room.search("banana")).json()
    deadline = time.monotonic() + 10
    while not room.doors.services.feed.of(await room.doors.services.generation.now()):
        await room.search(f"banana {time.monotonic()}")
        assert time.monotonic() < deadline
    await room.postgres.cut()
    await asyncio.sleep(0.2)  # older than the generation may be
    kept = await room.search("banana")
    assert kept.json()["degraded"] == ["database"]
    assert kept.json()["moments"] == first["moments"]
    other = await room.search("rocket")
    assert other.json()["degraded"] == ["database", "vector", "text", "popular"]
    assert {moment["relevance_ppm"] for moment in other.json()["moments"]} == {0}
    narrowed = await room.search("rocket", tags="gallery")
    assert narrowed.status_code == 503
    await room.postgres.mend()
    await room.until_whole("rocket")


async def test_a_database_that_hangs_costs_no_more_than_the_deadline(room: Room) -> None:
    await room.search("banana")
    room.postgres.hang()
    answers = await asyncio.gather(*(room.search(f"umbrella {number}") for number in range(5)))
    assert {answer.status_code for answer in answers} <= {200, 503}
    await room.postgres.cut()
    await room.postgres.mend()
    await room.until_whole("banana")


async def test_under_load_everything_may_die_and_every_appearance_is_recorded_once(room: Room) -> None:
    names, stop = list(room.gallery.videos), asyncio.Event()

    async def load(worker: int) -> None:
        number = 0
        while not stop.is_set():
            number += 1
            await room.search(f"{names[(worker + number) % len(names)]} {worker} {number}", limit=3)

    workers = [asyncio.create_task(load(worker)) for worker in range(3)]
    for take, give in (
        (room.redis.cut, room.redis.mend),
        (room.postgres.cut, room.postgres.mend),
        (room.postgres.cut, room.postgres.mend),
    ):
        await _answered(room, 10)
        room.encoder.on = False
        await take()
        await asyncio.sleep(0.5)
        await give()
        room.encoder.on = True
    stop.set()
    await asyncio.gather(*workers)
    await room.until_whole("banana")
    whole = [each.json() for each in room.answers if each.status_code == 200]
    shown = sum(len(each["moments"]) for each in whole if "popular" not in each["degraded"])
    assert shown > 30
    await _recorded(room, shown)


async def test_a_replica_ends_though_the_database_is_away_and_its_spool_is_left_to_an_heir(
    settings: Settings, model: QueryEncoder, painted: Scenes
) -> None:
    with database.connect(settings.postgres.url) as connection:
        hang(connection, painted)
    async with relayed(settings.postgres.url) as postgres:
        through = settings.with_section(dataclasses.replace(settings.postgres, url=postgres.url, serve_url=""))
        async with opened(through, near(model)) as doors:
            shown = len((await doors.http.get("/v1/search", params={"q": "banana"})).json()["moments"])
            deadline = time.monotonic() + 20
            while doors.services.recorder.waiting:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.05)
            await postgres.cut()
    with database.connect(settings.postgres.url, autocommit=True) as connection:
        assert connection.execute("SELECT closed_at FROM ledger.incarnations").fetchall() == [(None,)]
        adopt(connection, settings.data_dir / "spool")
        assert connection.execute("SELECT closed_at IS NULL FROM ledger.incarnations").fetchall() == [(False,)]
    assert await asyncio.to_thread(_appearances, settings.postgres.url) == shown


async def _answered(room: Room, more: int) -> None:
    before, deadline = len(room.answers), time.monotonic() + 30
    while len(room.answers) < before + more:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


async def _recorded(room: Room, shown: int) -> None:
    deadline = time.monotonic() + 20
    while room.doors.services.recorder.waiting:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)
    assert await asyncio.to_thread(_appearances, room.doors.settings.postgres.url) == shown


def _appearances(url: str) -> int:
    with database.connect(url) as connection:
        row = connection.execute("SELECT sum(appearances)::int FROM ledger.appearance_batches").fetchone()
    assert row is not None
    return int(row[0])


async def test_a_search_by_a_picture_that_cannot_be_made_is_not_answered_with_something_else(
    room: Room, painted: Scenes
) -> None:
    await room.until_whole("banana")
    await until_feed(room)
    room.encoder.on = False
    picture = base64.b64encode(painted.picture("rocket")).decode()
    answer = await room.doors.http.post("/v1/search", json={"image": picture, "intent": "typing"})
    assert (answer.status_code, answer.json()["code"]) == (503, "temporary")
    assert int(answer.headers["retry-after"]) >= 1


async def until_feed(room: Room) -> None:
    """Wait until this replica knows what is popular."""
    async with asyncio.timeout(20):
        while True:
            state = await room.doors.services.generation.now()
            if room.doors.services.feed.of(state):
                return
            room.doors.services.feed.follow(state)
            await asyncio.sleep(0.05)
