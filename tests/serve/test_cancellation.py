"""Callers that hang up, are cut off or wait for a database that hangs leave nothing behind, on real servers.

Every gauge is back where it was, and the next question is answered.
"""

from __future__ import annotations

import asyncio
import dataclasses
import random
import threading
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from typing import Any

import httpx
import psycopg
import pytest
from psycopg import AsyncConnection

from cluster import cache
from cluster.database import database
from cluster.errors import Temporary
from cluster.settings import Settings
from cluster.tasks import uncancelled_running
from serve.http import deadlines
from serve.http.threads import DatabaseThreads
from serve.replica.connections import Busy, Connections, Late, Slow
from serve.replica.readers import Readers
from serve.replica.store import Store
from serve.settings import SearchSettings
from tests.serve.doors import answers, fill, listening, opened, tiny
from tests.serve.relay import Relay, relayed

CALLERS, ROUNDS, HANG_UP_S = 96, 40, 0.4
QUIET_S = 10.0
SEARCH = SearchSettings(question_timeout_s=1.0, connection_wait_s=0.5)


@pytest.fixture
async def readers(postgres_url: str) -> AsyncIterator[Readers]:
    made = Readers(Connections(postgres_url, SEARCH), [], SEARCH)
    await made.start()
    yield made
    await made.close()


@pytest.fixture
async def relay(postgres_url: str) -> AsyncIterator[Relay]:
    async with relayed(postgres_url) as made:
        yield made


async def is_quiet(readers: Readers, search: SearchSettings = SEARCH) -> None:
    """Wait until every place is free and no caller waits."""
    deadline = time.monotonic() + QUIET_S
    while not _quiet(readers.gauges(), search.pool_max):
        assert time.monotonic() < deadline, (dict(readers.gauges()), uncancelled_running())
        await asyncio.sleep(0.02)


def _quiet(gauges: Mapping[str, float], places: int) -> bool:
    is_idle = gauges["connections_open"] == gauges["connections_idle"] and not gauges["connections_waiting"]
    return is_idle and gauges["connections_places_free"] == places and uncancelled_running() == 0


def asleep(seconds: float) -> Any:
    async def question(connection: AsyncConnection[Any]) -> float:
        await connection.execute("SELECT pg_sleep(%s)", (seconds,))
        return seconds

    return question


async def hung_up(work: Any, after_s: float) -> None:
    """A caller who goes away, in the middle of whatever it is."""
    task = asyncio.create_task(work)
    await asyncio.sleep(after_s)
    task.cancel()
    with suppress(asyncio.CancelledError, Temporary):
        await task


async def test_callers_who_hang_up_take_no_connection_with_them(readers: Readers) -> None:
    rng = random.Random(1)
    for _ in range(ROUNDS):
        asked = (readers.ask(asleep(rng.uniform(0, 0.02))) for _ in range(CALLERS))
        await asyncio.gather(*(hung_up(each, rng.uniform(0, HANG_UP_S / 8)) for each in asked))
    await is_quiet(readers)
    assert await asyncio.gather(*(readers.ask(asleep(0.01)) for _ in range(SEARCH.pool_max))) == [0.01] * 8
    await is_quiet(readers)


async def test_questions_of_callers_who_have_gone_while_they_waited_are_not_asked(readers: Readers) -> None:
    asked: list[int] = []

    async def counted(connection: AsyncConnection[Any]) -> None:
        asked.append(connection.info.backend_pid)
        await connection.execute("SELECT pg_sleep(0.3)")

    await asyncio.gather(*(hung_up(readers.ask(counted), 0.1) for _ in range(CALLERS)))
    await is_quiet(readers)
    assert len(asked) <= SEARCH.pool_max


async def test_a_client_who_disconnects_from_the_server_takes_no_connection_with_it(settings: Settings) -> None:
    rng = random.Random(2)
    short = dataclasses.replace(settings.section(SearchSettings), deadline_s=0.4)  # so that many are cut off half way
    with listening(settings.with_section(short)) as url:
        async with httpx.AsyncClient(base_url=url) as quiet:
            for _ in range(ROUNDS // 4):
                await asyncio.gather(*(_asked_and_gone(url, rng) for _ in range(CALLERS)))
            assert (await _said(quiet, "/v1/videos/7", 404))["code"] == "not-found"
            assert (await _said(quiet, "/readyz", 200))["dependencies"]["postgres"]["ok"]


async def test_a_search_that_is_refused_ends_what_it_has_begun_to_ask(settings: Settings) -> None:
    """Its words are asked for, and never found; that there is no such moment is known at once."""
    fill(settings)
    patient = dataclasses.replace(
        settings.section(SearchSettings), statement_timeout_ms=60_000, question_timeout_s=60.0, deadline_s=60.0
    )
    with database.connect(settings.postgres.url, autocommit=False) as locking:
        locking.execute("LOCK media.impacts")
        async with opened(settings.with_section(patient), tiny) as doors:
            began = time.monotonic()
            answer = await doors.http.get("/v1/search?q=orchard+harbour&segment_id=9223372036854775807")
            assert (answer.status_code, answer.json()["code"]) == (404, "not-found")
            await is_quiet(doors.services.readers, patient)
            assert time.monotonic() - began < QUIET_S


async def _said(quiet: httpx.AsyncClient, path: str, status: int) -> dict[str, Any]:
    """What a path says once it is answered so: until then the short deadline may send a caller away."""
    began = time.monotonic()
    while (answer := await quiet.get(path, timeout=QUIET_S)).status_code != status:
        assert answer.status_code == 503
        assert time.monotonic() - began < QUIET_S
    found: dict[str, Any] = answer.json()
    return found


async def _asked_and_gone(url: str, rng: random.Random) -> None:
    """One caller with a wrong key who does not wait for the answer."""
    host, port = url.removeprefix("http://").split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    key = rng.randbytes(16).hex()
    writer.write(f"GET /v1/videos/7 HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {key}\r\n\r\n".encode())
    await writer.drain()
    await asyncio.sleep(rng.uniform(0, HANG_UP_S))
    writer.transport.abort()


async def test_a_database_that_hangs_keeps_no_place_longer_than_its_limit(relay: Relay) -> None:
    readers = Readers(Connections(relay.url, SEARCH), [], SEARCH)
    await readers.start()
    await readers.ask(answers)
    relay.hang()
    began = time.monotonic()
    asked = (readers.ask(answers) for _ in range(CALLERS))
    failed = await asyncio.gather(*asked, return_exceptions=True)
    assert {type(each) for each in failed} <= {Busy, Late, Temporary} | set(Temporary.__subclasses__())
    await is_quiet(readers)
    assert time.monotonic() - began < 8
    await relay.cut()
    await relay.mend()
    await _until_answered(readers)
    await is_quiet(readers)
    await readers.close()


async def test_callers_who_give_up_on_a_database_that_hangs_leave_nothing_either(relay: Relay) -> None:
    readers = Readers(Connections(relay.url, SEARCH), [], SEARCH)
    await readers.start()
    await asyncio.gather(*(readers.ask(asleep(0.05)) for _ in range(8)))
    relay.hang()
    await asyncio.gather(*(hung_up(readers.ask(answers), 0.05) for _ in range(CALLERS)))
    await is_quiet(readers)
    await relay.cut()
    await relay.mend()
    await _until_answered(readers)
    await readers.close()


async def test_a_database_that_is_back_is_used_soon(relay: Relay) -> None:
    readers = Readers(Connections(relay.url, SEARCH), [], SEARCH)
    await readers.start()
    await readers.ask(answers)
    await relay.cut()
    until = time.monotonic() + 4  # longer than any breaker or backoff that grows would stay calm about
    while time.monotonic() < until:
        with pytest.raises((Temporary, psycopg.OperationalError)):
            await readers.ask(answers)
        await asyncio.sleep(0.05)
    await relay.mend()
    began = time.monotonic()
    await _until_answered(readers)
    assert time.monotonic() - began < 4
    await readers.close()


async def _until_answered(readers: Readers) -> None:
    deadline = time.monotonic() + QUIET_S
    while True:
        try:
            await readers.ask(answers)
        except (Temporary, psycopg.OperationalError):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)
        else:
            return


async def test_what_a_search_sets_in_its_session_is_not_found_by_the_next_question(readers: Readers) -> None:
    from pipelines.index import vectors

    async def search(connection: AsyncConnection[Any]) -> None:
        await vectors.configure(connection, {"statement_timeout": 77, "enable_seqscan": "off"})

    async def found(connection: AsyncConnection[Any]) -> tuple[Any, ...] | None:
        cursor = await connection.execute(
            "SELECT current_setting('statement_timeout'), current_setting('enable_seqscan')"
        )
        return await cursor.fetchone()

    before = await readers.ask(found)
    await asyncio.gather(*(readers.ask(search, manner="nearest") for _ in range(20)))
    for _ in range(10):
        assert await asyncio.gather(*(readers.ask(found) for _ in range(8))) == [before] * 8
    assert before == ("500ms", "on")


async def test_redis_calls_that_are_cancelled_half_way_mix_up_no_answers_and_leave_no_connection(
    settings: Settings, redis_url: str
) -> None:
    async with relayed(redis_url) as relay:
        client = cache.async_client(relay.url)
        store = Store(settings, client, calls_max=8)
        names = [f"mixed{number}" for number in range(50)]
        for name in names:
            await store.put(name, name.encode(), 60)
        rng = random.Random(3)
        for _ in range(20):
            asked = (store.get(rng.choice(names)) for _ in range(CALLERS))
            await asyncio.gather(*(hung_up(each, rng.uniform(0, 0.01)) for each in asked))
            found = await asyncio.gather(*(store.get(name) for name in names))
            assert all(each in (None, name.encode()) for each, name in zip(found, names, strict=True))
        assert [await store.get(name) for name in names] == [name.encode() for name in names]
        assert uncancelled_running() == 0
        assert sum(count for count, _ in client.connection_pool.get_connection_count()) <= 8
        relay.hang()
        began = time.monotonic()
        assert await asyncio.gather(*(store.get(name) for name in names)) == [None] * len(names)
        assert time.monotonic() - began < 3
        await relay.cut()
        await relay.mend()
        deadline = time.monotonic() + QUIET_S
        while await store.get(names[0]) is None:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)
        await client.aclose()


async def test_threads_hold_a_bounded_number_of_connections_and_callers_find_out_soon(postgres_url: str) -> None:
    threads = DatabaseThreads(postgres_url, threads_max=3, wait_s=0.2, timeout_s=2.0)

    def slow(connection: psycopg.Connection[Any]) -> int:
        connection.execute("SELECT pg_sleep(0.5)")
        row = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend'"
        ).fetchone()
        assert row is not None
        return int(row[0])

    began = time.monotonic()
    asked = [asyncio.create_task(threads.ask(slow)) for _ in range(30)]
    done = await asyncio.gather(*asked, return_exceptions=True)
    assert time.monotonic() - began < 5
    counted = [each for each in done if isinstance(each, int)]
    assert counted
    assert max(counted) <= 3
    assert all(isinstance(each, Temporary) for each in done if not isinstance(each, int))
    await hung_up(threads.ask(slow), 0.1)
    assert threads.used == 1  # the thread of a caller who has gone keeps its place to its end
    deadline = time.monotonic() + QUIET_S
    while threads.used:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)
    await threads.close()


async def test_what_a_caller_was_told_has_failed_is_not_done_later(postgres_url: str) -> None:
    threads = DatabaseThreads(postgres_url, threads_max=1, wait_s=0.2, timeout_s=0.5)
    gate = threading.Event()

    def late(connection: psycopg.Connection[Any]) -> None:
        connection.execute("INSERT INTO media.jobs (id, source) VALUES ('late', 's3://b')")
        gate.wait(QUIET_S)

    with pytest.raises(Temporary):
        await threads.ask(late)
    gate.set()
    deadline = time.monotonic() + QUIET_S
    while threads.used:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)
    await threads.close()
    with database.connect(postgres_url) as connection:
        assert connection.execute("SELECT count(*) FROM media.jobs").fetchone() == (0,)


async def test_a_request_has_one_deadline_for_all_that_it_waits_for(settings: Settings) -> None:
    quick = dataclasses.replace(settings.section(SearchSettings), deadline_s=1.0, question_timeout_s=5.0)
    async with relayed(settings.postgres.url) as postgres:
        through = settings.with_section(quick)
        through = through.with_section(dataclasses.replace(settings.postgres, url=postgres.url, serve_url=""))
        async with opened(through) as doors:
            await doors.http.get("/v1/search", params={"q": "before"})
            postgres.hang()
            # Its key is looked up, then its generation, then the search: each would have a deadline of its own.
            for path in ("/v1/search?q=orchard", "/v1/videos/7", "/v1/feed", "/v1/completions?q=or"):
                began = time.monotonic()
                answer = await doors.http.get(path, headers={"Authorization": "Bearer wrong"})
                assert time.monotonic() - began < quick.deadline_s + 1.0, path
                assert answer.status_code == 503, path
                assert answer.headers["content-type"] == "application/problem+json"
                assert int(answer.headers["retry-after"]) >= 1
            await postgres.cut()


async def test_steps_of_a_request_spend_of_its_one_deadline() -> None:
    with deadlines.limited(0.6):
        began = time.monotonic()
        for _ in range(3):
            with suppress(Temporary):
                await deadlines.within(asyncio.sleep(10), 0.5)
        assert time.monotonic() - began < 1.4  # and not three times 0.5
        assert deadlines.left_s(5) == 0
        with deadlines.unlimited():
            assert deadlines.left_s(5) == 5
    assert deadlines.left_s(5) == 5


async def test_a_question_that_is_only_slow_shuts_nobody_out(settings: Settings) -> None:
    """The server ended it when it was asked to: it is well, and the next question is answered."""
    search = settings.section(SearchSettings)
    readers = Readers(Connections(settings.postgres.url, search), [], search)
    await readers.start()

    async def slow(connection: AsyncConnection[Any]) -> None:
        await connection.execute("SELECT pg_sleep(1)")

    async def late() -> None:
        with deadlines.limited(0.3), pytest.raises(Slow):
            await readers.ask(slow)

    await readers.ask(asked_one)
    for _ in range(2):
        await asyncio.gather(*(late() for _ in range(4)))
    assert await readers.ask(asked_one) == 1
    await readers.close()


async def asked_one(connection: AsyncConnection[Any]) -> int:
    row = await (await connection.execute("SELECT 1")).fetchone()
    assert row is not None
    return int(row[0])
