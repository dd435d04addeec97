"""A replica that ends answers what it has: well, or 503 and when to come again; never 500, nor nothing at all."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Coroutine
from typing import Any

import httpx
import pytest

from cluster.settings import Settings
from serve import app
from serve.replica.encoder import EncoderInfo, Vector
from tests.serve.doors import Tiny, bearer, fill, services_of
from tests.serve.relay import relayed

PATHS = (
    "/v1/search?q=orchard", "/v1/search?q=orchard", "/v1/search?q=harbour&intent=typing", "/v1/search/stream?q=apple",
    "/v1/feed", "/v1/videos/1", "/v1/segments/1", "/v1/completions?q=or", "/readyz",
)  # fmt: skip


class Slow(Tiny):
    """An encoder that is still at it when the replica ends."""

    async def facts(self, _model: str = "") -> EncoderInfo:
        await asyncio.sleep(1.0)
        return await super().facts(_model)

    async def text(self, _text: str, _model: str = "") -> Vector:
        await asyncio.sleep(1.0)
        return await super().text(_text, _model)


def is_honest(answer: httpx.Response) -> bool:
    """Good or refused, or a problem that says when to come again."""
    if answer.status_code != 503 or answer.request.url.path == "/readyz":  # whose 503 is of another form
        return answer.status_code in (200, 401, 404, 503)
    return answer.headers["content-type"] == "application/problem+json" and int(answer.headers["retry-after"]) > 0


async def ended_under(
    settings: Settings, asked: list[tuple[str, str, dict[str, Any]]], hang: Coroutine[Any, Any, None] | None = None
) -> list[httpx.Response]:
    """What requests are answered whose replica ends while they are under way, as Serve ends it: without asking them."""
    services = services_of(settings, lambda *_: Slow())
    made = app.build(services)
    transport = httpx.ASGITransport(made, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://pixr", timeout=60) as client:
        async with made.router.lifespan_context(made):
            await client.get("/readyz")
            if hang is not None:
                await hang
            tasks = [asyncio.create_task(client.request(*each[:2], **each[2])) for each in asked]
            await asyncio.sleep(0.3)
        late = [asyncio.create_task(client.request(*each[:2], **each[2])) for each in asked]
        return await asyncio.gather(*tasks, *late)


async def test_what_is_under_way_when_a_replica_ends_is_answered_or_told_to_come_again(settings: Settings) -> None:
    fill(settings)
    asked: list[tuple[str, str, dict[str, Any]]] = [("GET", path, {}) for path in PATHS]
    asked += [("POST", "/v1/search", {"json": {"text": "orchard"}}), ("POST", "/v1/search", {"json": {"text": "sea"}})]
    asked += [("GET", "/v1/keys", {"headers": bearer("pixr_wrong")}), ("GET", "/v1/creators/1", {})]
    answers = await ended_under(settings, asked)
    assert [(each.request.url.path, each.status_code) for each in answers if not is_honest(each)] == []
    assert {each.status_code for each in answers} >= {200, 503}


async def test_also_while_the_database_hangs(settings: Settings) -> None:
    fill(settings)
    async with relayed(settings.postgres.url) as postgres:
        own = dataclasses.replace(settings.postgres, url=postgres.url, serve_url="")

        async def hang() -> None:
            postgres.hang()

        asked: list[tuple[str, str, dict[str, Any]]] = [("GET", path, {}) for path in PATHS]
        answers = await ended_under(settings.with_section(own), asked, hang())
        await postgres.cut()
    assert [(each.request.url.path, each.status_code) for each in answers if not is_honest(each)] == []


async def test_a_caller_who_goes_away_is_not_answered(settings: Settings) -> None:
    """Their cancellation is theirs; only what a request waited for may be cancelled without it."""
    fill(settings)
    made = app.build(services_of(settings, lambda *_: Slow()))
    transport = httpx.ASGITransport(made, raise_app_exceptions=False)
    async with (
        made.router.lifespan_context(made),
        httpx.AsyncClient(transport=transport, base_url="http://pixr") as client,
    ):
        task = asyncio.create_task(client.get("/v1/search", params={"q": "orchard"}))
        await asyncio.sleep(0.1)
        assert not task.done()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
