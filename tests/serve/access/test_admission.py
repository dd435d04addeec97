"""Nothing that costs is done for free: every route takes a token first, and a wrong key takes a rare one."""

from __future__ import annotations

import asyncio
import dataclasses
import re
import statistics
import time
from collections.abc import Iterator
from typing import Any

import pytest

from cluster.settings import Settings
from serve import app
from serve.access import admission, keys, known_keys
from serve.settings import SearchSettings
from tests.serve.doors import Doors, bearer, opened

POLICY = re.compile(r'"(\w+)";q=(\d+);w=(\d+)')
STANDING = re.compile(r'"(\w+)";r=(\d+);t=(\d+)')


def with_limits(settings: Settings, **limits: Any) -> Settings:
    return settings.with_section(dataclasses.replace(settings.section(SearchSettings), **limits))


def routes(doors: Doors) -> Iterator[tuple[str, str]]:
    """Every method and path of the application, with something in the place of each parameter."""
    included = [route for module in app.ROUTERS for route in module.router(doors.services).routes]
    for route in (*doors.app.routes, *included):
        for method in sorted(getattr(route, "methods", None) or ()):
            yield method, re.sub(r"{[^}]+}", "7", getattr(route, "path", ""))


async def test_every_route_but_healthz_answers_429_when_its_bucket_is_empty(settings: Settings) -> None:
    empty = {f"{kind}_burst": 1 for kind in ("address", "media", "probe", "wrong")}
    slow = {f"{kind}_rate_per_s": 0.001 for kind in ("address", "media", "probe", "wrong")}
    async with opened(with_limits(settings, **empty, **slow)) as doors:
        for path in ("/v1/search", "/readyz", "/"):
            await doors.http.get(path)
        asked = [(method, path) for method, path in routes(doors) if path != admission.EXEMPT]
        assert len(asked) > 30
        asked += [("GET", "/nowhere"), ("POST", "/nowhere"), ("BREW", "/v1/search")]
        found = {each: (await doors.http.request(*each)).status_code for each in asked}
        assert {each: status for each, status in found.items() if status != 429} == {}
        assert [(await doors.http.get(admission.EXEMPT)).status_code for _ in range(5)] == [200] * 5


async def test_a_body_that_is_sent_to_healthz_is_judged_as_any_other(settings: Settings) -> None:
    """With a wrong key it would be read in the door's room for callers with a key."""
    async with opened(settings) as doors:
        wrong = bearer("pixr_wrong")
        assert (await doors.http.post(admission.EXEMPT, content=b"x" * 10, headers=wrong)).status_code == 401
        assert (await doors.http.get(admission.EXEMPT, headers=wrong)).status_code == 200


async def test_a_probe_is_not_refused_for_what_else_its_address_asks(settings: Settings) -> None:
    async with opened(with_limits(settings, address_burst=2, address_rate_per_s=0.01)) as doors:
        assert [(await doors.http.get("/v1/videos/7")).status_code for _ in range(4)] == [404, 404, 429, 429]
        assert [(await doors.http.get("/readyz")).status_code for _ in range(5)] == [200] * 5


async def test_answers_say_how_the_bucket_stands(settings: Settings) -> None:
    async with opened(with_limits(settings, address_burst=3, address_rate_per_s=0.1)) as doors:
        answers = [await doors.http.get("/v1/videos/7") for _ in range(4)]
        assert {each.headers["ratelimit-policy"] for each in answers} == {'"address";q=3;w=30'}
        standings = [STANDING.fullmatch(each.headers["ratelimit"]) for each in answers]
        assert [int(each[2]) for each in standings if each is not None] == [2, 1, 0, 0]
        assert answers[3].status_code == 429
        assert 1 <= int(answers[3].headers["retry-after"]) <= 10
        assert answers[3].headers["content-type"] == "application/problem+json"


async def test_callers_with_keys_are_not_refused_for_their_address(settings: Settings) -> None:
    tight = with_limits(settings, address_burst=1, address_rate_per_s=0.01, wrong_burst=3, wrong_rate_per_s=0.01)
    async with opened(tight) as doors:
        with doors.database() as connection:
            tokens = [keys.create(connection, f"caller {n}", ["search"])[1] for n in range(30)]
        await doors.http.get("/v1/videos/7")
        answers = await asyncio.gather(*(doors.http.get("/v1/videos/7", headers=bearer(each)) for each in tokens))
        assert [each.status_code for each in answers] == [404] * 30
        assert POLICY.fullmatch(answers[0].headers["ratelimit-policy"])


def questions(doors: Doors) -> int:
    """How many times keys were looked up in the database."""
    with doors.database() as connection:
        connection.execute("SELECT pg_stat_force_next_flush()")
        row = connection.execute(
            "SELECT coalesce(sum(idx_scan), 0)::int FROM pg_stat_user_indexes WHERE relname = 'api_keys'"
        ).fetchone()
    assert row is not None
    return int(row[0])


async def test_wrong_keys_cost_a_bounded_number_of_questions_and_slow_nobody(settings: Settings) -> None:
    async with opened(with_limits(settings, wrong_burst=20, wrong_rate_per_s=5.0)) as doors:
        good = doors.key("search")
        assert (await doors.http.get("/v1/keys", headers=good)).status_code == 403
        began, found, waits_s = time.monotonic(), [], []
        numbers = iter(range(2000))

        async def stranger() -> None:
            for number in numbers:
                answer = await doors.http.get("/v1/keys", headers=bearer(f"pixr_wrong{number}"))
                found.append(answer.status_code)

        strangers = asyncio.gather(*(stranger() for _ in range(32)))
        while not strangers.done():
            asked_s = time.monotonic()
            answer = await doors.http.get("/v1/keys", headers=good)
            waits_s.append(time.monotonic() - asked_s)
            assert answer.status_code == 403
            await asyncio.sleep(0.01)
        spent_s = time.monotonic() - began
        assert set(found) == {401, 429}
        assert found.count(401) <= 20 + 5 * spent_s + 1
        assert statistics.median(waits_s) < 0.5
        for _ in range(50):  # statistics come with the end of a connection's transaction, at most a second later
            if questions(doors):
                break
            await asyncio.sleep(0.1)
        assert questions(doors) <= 2 * (20 + 5 * spent_s) + 20


async def test_a_good_key_does_not_pay_for_the_wrong_keys_of_its_neighbours(settings: Settings) -> None:
    """Behind one address: keys that this replica has never seen, one of which is made while the wrong ones come."""
    async with opened(with_limits(settings, wrong_burst=5, wrong_rate_per_s=0.01)) as doors:
        first = doors.key("search")
        ended, is_empty = asyncio.Event(), asyncio.Event()
        found: list[int] = []

        async def stranger(name: int) -> None:
            for number in range(100_000):
                if ended.is_set():
                    return
                answer = await doors.http.get("/v1/keys", headers=bearer(f"pixr_{name}_{number}"))
                found.append(answer.status_code)
                if answer.status_code == 429:
                    is_empty.set()
                await asyncio.sleep(0)

        strangers = asyncio.gather(*(stranger(number) for number in range(8)))
        await asyncio.wait_for(is_empty.wait(), 20)
        began = time.monotonic()
        assert (await doors.http.get("/v1/keys", headers=first)).status_code == 403
        second = doors.key("search")
        while (await doors.http.get("/v1/keys", headers=second)).status_code == 429:
            assert time.monotonic() - began < 5  # known_keys looks once a second
            await asyncio.sleep(0.05)
        revoked = doors.key("ingest")
        with doors.database() as connection:
            connection.execute(
                "UPDATE app.api_keys SET revoked_at = now() WHERE id = (SELECT max(id) FROM app.api_keys)"
            )
        await asyncio.sleep(known_keys.INTERVAL_S)
        assert (await doors.http.get("/v1/keys", headers=revoked)).status_code == 401
        spent_s = time.monotonic() - began
        ended.set()
        await strangers
        assert found.count(401) <= 6
        assert len(found) > 50
        assert questions(doors) <= 5 * 2 + 2 * spent_s + 20


async def test_keys_are_known_in_pages_and_the_newest_alone(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known_keys, "PAGE_ROWS", 3)
    monkeypatch.setattr(known_keys, "INTERVAL_S", 0.0)
    async with opened(with_limits(settings, known_keys_max=7)) as doors:
        made = [keys.digest_of(doors.key("search")["Authorization"][7:]) for _ in range(10)]
        known = known_keys.KnownKeys(doors.services.readers, doors.services.search, doors.services.tasks)
        assert [await known.has(each) for each in made] == [False] * 3 + [True] * 7
        later = keys.digest_of(doors.key("admin")["Authorization"][7:])
        assert await known.has(later)
        assert not await known.has(keys.digest_of("pixr_nobody's"))


async def test_the_body_of_who_may_not_send_one_is_thrown_away_up_to_a_bound(settings: Settings) -> None:
    sent, parts_max = 0, 10

    async def body() -> Any:
        nonlocal sent
        for _ in range(1000):
            sent += 1
            yield b"[" * 11_000

    async with opened(with_limits(settings, refused_bytes_max=(parts_max - 1) * 11_000)) as doors:
        for headers, status in (({}, 401), (bearer("pixr_wrong"), 401), (doors.key("search"), 403)):
            answer = await doors.http.post("/v1/keys", content=body(), headers=headers)
            assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
            assert sent <= parts_max
            sent = 0
        for path in ("/v1/jobs", "/v1/keys/3/rotate"):
            assert (await doors.http.post(path, content=body())).status_code == 401
            assert sent <= parts_max
            sent = 0
        assert (await doors.http.patch("/v1/videos/7", content=body())).status_code == 401
        assert sent <= parts_max


@pytest.mark.parametrize("path", ["/v1/keys", "/v1/jobs"])
async def test_a_right_key_is_asked_for_what_the_route_requires(settings: Settings, path: str) -> None:
    async with opened(settings) as doors:
        assert (await doors.http.get(path, headers=doors.key("admin"))).status_code == 200
        assert (await doors.http.get(path)).status_code == 401
        assert (await doors.http.get(path, headers=doors.key("search"))).status_code == 403


async def test_who_hangs_up_pays_for_the_wrong_key(settings: Settings) -> None:
    tight = with_limits(settings, wrong_burst=3, wrong_rate_per_s=0.001, key_questions_max=1)
    async with opened(tight) as doors:
        async with doors.services.gates.questions.passed():
            asked = [asyncio.create_task(doors.http.get("/v1/keys", headers=bearer(f"pixr_{n}"))) for n in range(3)]
            for _ in range(500):
                if doors.services.gates.questions.waiting == admission.QUESTIONS_ADDRESS_MAX:
                    break
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.1)  # the third waits before that
            for each in asked:
                each.cancel()
            await asyncio.wait(asked)
        assert (await doors.http.get("/v1/keys", headers=bearer("pixr_more"))).status_code == 429


async def test_a_key_that_nobody_could_judge_costs_nothing(settings: Settings) -> None:
    tight = with_limits(settings, wrong_burst=1, wrong_rate_per_s=0.001, key_questions_max=1, waiting_max=1)
    async with opened(tight) as doors:
        gate = doors.services.gates.questions
        async with gate.passed():
            waits = asyncio.create_task(gate.passed().__aenter__())
            await asyncio.sleep(0.01)
            found = [(await doors.http.get("/v1/keys", headers=bearer("pixr_wrong"))).status_code for _ in range(3)]
            assert found == [503] * 3
            waits.cancel()
            await asyncio.wait({waits})
        found = [(await doors.http.get("/v1/keys", headers=bearer("pixr_wrong"))).status_code for _ in range(2)]
        assert found == [401, 429]


async def test_a_revoked_key_pays_from_some_bucket_always(settings: Settings) -> None:
    tight = with_limits(settings, wrong_burst=1, wrong_rate_per_s=0.001, address_burst=4, address_rate_per_s=0.001)
    async with opened(tight) as doors:
        revoked = doors.key("search")
        with doors.database() as connection:
            connection.execute("UPDATE app.api_keys SET revoked_at = now()")
        found = [(await doors.http.get("/v1/keys", headers=revoked)).status_code for _ in range(8)]
        assert found == [401] * 5 + [429] * 3


async def test_a_restored_database_makes_all_keys_be_asked_again(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known_keys, "OVERLAP_IDS", 0)
    monkeypatch.setattr(known_keys, "INTERVAL_S", 0.0)
    async with opened(settings) as doors:
        made = [keys.digest_of(doors.key("search")["Authorization"][7:]) for _ in range(5)]
        known = known_keys.KnownKeys(doors.services.readers, doors.services.search, doors.services.tasks)
        assert await known.has(made[-1])
        with doors.database() as connection:
            connection.execute("DELETE FROM app.api_keys WHERE id > (SELECT min(id) FROM app.api_keys)")
            connection.execute("ALTER TABLE app.api_keys ALTER COLUMN id RESTART WITH 2")
        assert await known.has(keys.digest_of(doors.key("admin")["Authorization"][7:]))
        assert [await known.has(each) for each in made] == [True] + [False] * 4
