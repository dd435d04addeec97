"""A search in parts: the words first, then everything; only what is given out whole earns."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import threading
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from cluster.database import database
from cluster.errors import Rejected, Temporary
from cluster.settings import Settings
from serve.access import origins
from serve.client import Client
from serve.http import gates
from serve.replica.encoder import EncoderInfo, Encoding, Vector
from serve.replica.encoding import QueryEncoder
from serve.search import answer
from serve.search.context import SearchContext
from serve.search.page import SearchResult
from serve.search.query import Query
from serve.settings import SearchSettings
from tests.serve.doors import Doors, MakeEncoding, listening, near, opened, uncut
from tests.serve.relay import relayed
from tests.serve.scenes import Scenes, hang

TIMEOUT_S = 20.0
WORDS = "number4"


@dataclass
class Slow:
    """The real encoder, which answers a text when it may."""

    inner: Encoding
    may: threading.Event

    async def answers(self) -> None:
        await self.inner.answers()

    async def facts(self, model: str = "") -> EncoderInfo:
        return await self.inner.facts(model)

    def prepare(self, models: Iterable[str]) -> None:
        self.inner.prepare(models)

    async def close(self) -> None:
        await self.inner.close()

    async def text(self, text: str, model: str = "") -> Vector:
        await asyncio.to_thread(self.may.wait, TIMEOUT_S)
        return await self.inner.text(text, model)

    async def image(self, data: bytes, model: str = "") -> Vector:
        return await self.inner.image(data, model)


@pytest.fixture
def may() -> Iterator[threading.Event]:
    """Set, the encoder answers."""
    event = threading.Event()
    yield event
    event.set()


def slow(model: QueryEncoder, may: threading.Event) -> MakeEncoding:
    return lambda search, store: Slow(near(model)(search, store), may)


@pytest.fixture
def hung_here(settings: Settings, painted: Scenes) -> Settings:
    """A gallery in a database of the test's own; an encoder that waits is waited for, and all that is shown counts."""
    with database.connect(settings.postgres.url) as connection:
        hang(connection, painted)
    patient = dataclasses.replace(settings.section(SearchSettings), encode_timeout_s=TIMEOUT_S, deadline_s=TIMEOUT_S)
    return uncut(settings.with_section(patient))


@asynccontextmanager
async def reading(url: str, q: str, **more: str) -> AsyncIterator[AsyncIterator[tuple[str, dict[str, Any]]]]:
    """The events of a stream as they come."""
    async with (
        httpx.AsyncClient(base_url=url, timeout=TIMEOUT_S) as http,
        http.stream("GET", "/v1/search/stream", params={"q": q} | more) as answer,
    ):
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")

        async def events() -> AsyncIterator[tuple[str, dict[str, Any]]]:
            name = ""
            async for line in answer.aiter_lines():
                if line.startswith("event: "):
                    name = line.removeprefix("event: ")
                elif line.startswith("data: "):
                    yield name, json.loads(line.removeprefix("data: "))

        yield events()


def recorded(settings: Settings, searches: int) -> tuple[int, int]:
    """Searches and appearances that have arrived in the ledger, once there are so many."""
    query = "SELECT coalesce(sum(searches), 0)::int, coalesce(sum(appearances), 0)::int FROM ledger.appearance_batches"
    with database.connect(settings.postgres.url, autocommit=True) as connection:
        for _ in range(400):
            row = connection.execute(query).fetchone()
            assert row is not None
            if row[0] >= searches:
                return row[0], row[1]
            threading.Event().wait(0.02)
    raise AssertionError(f"{row} instead of {searches} searches")


async def plainly(url: str, q: str) -> dict[str, Any]:
    """The same search, not in parts."""
    async with httpx.AsyncClient(base_url=url, timeout=TIMEOUT_S) as http:
        return dict((await http.get("/v1/search", params={"q": q})).json())


async def test_the_words_come_while_the_vectors_are_made(
    hung_here: Settings, model: QueryEncoder, may: threading.Event
) -> None:
    with listening(hung_here, slow(model, may)) as url:
        async with reading(url, WORDS) as events:
            name, words = await asyncio.wait_for(anext(events), TIMEOUT_S)
            assert not may.is_set()
            assert name == "text"
            assert words["moments"]
            assert {tuple(moment["matched"]) for moment in words["moments"]} == {("text",)}
            may.set()
            name, whole = await asyncio.wait_for(anext(events), TIMEOUT_S)
            assert name == "fused"
            assert whole["degraded"] == []
            assert any("vector" in moment["matched"] for moment in whole["moments"])
            assert [each async for each in events] == []
        assert recorded(hung_here, 1) == (1, len(whole["moments"]))
        plain = await plainly(url, WORDS)
        assert [m["segment_id"] for m in plain["moments"]] == [m["segment_id"] for m in whole["moments"]]
        with Client(url) as client:  # the answer is known by now, so it comes whole and at once
            assert [name for name, _ in client.stream(WORDS)] == ["fused"]
        assert recorded(hung_here, 3) == (3, 3 * len(whole["moments"]))


async def test_who_leaves_before_the_whole_answer_has_seen_nothing(
    hung_here: Settings, model: QueryEncoder, may: threading.Event
) -> None:
    with listening(hung_here, slow(model, may)) as url:
        for _ in range(3):
            async with reading(url, WORDS) as events:
                assert (await asyncio.wait_for(anext(events), TIMEOUT_S))[0] == "text"
        may.set()
        plain = await plainly(url, "banana")
        assert recorded(hung_here, 1) == (1, len(plain["moments"]))


async def test_both_parts_are_made_under_the_name_of_who_asks(
    hung_here: Settings, model: QueryEncoder, may: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    find, made_for = answer.find, dict[bool, tuple[str, float]]()

    async def watched(context: SearchContext, search: SearchSettings, query: Query) -> SearchResult:
        made_for[query.is_early] = gates.current_caller()
        if query.is_early:
            may.set()  # the whole answer does not come before the words are looked for
        return await find(context, search, query)

    monkeypatch.setattr(answer, "find", watched)
    async with opened(hung_here, slow(model, may)) as doors:
        assert (await names(doors, WORDS))[-1] == "fused"
    asker = (origins.bucket("127.0.0.1"), gates.STRANGER)
    assert made_for == {True: asker, False: asker}


async def test_where_nothing_matches_the_words_there_is_one_part(hung_here: Settings, model: QueryEncoder) -> None:
    async with opened(hung_here, near(model)) as doors:
        assert await names(doors, "zzzz") == ["fused"]


async def names(doors: Doors, q: str) -> list[str]:
    answer = await doors.http.get("/v1/search/stream", params={"q": q})
    assert answer.status_code == 200, answer.text
    return [line.removeprefix("event: ") for line in answer.text.splitlines() if line.startswith("event: ")]


async def test_what_is_wrong_at_once_is_answered_as_everywhere(hung_here: Settings) -> None:
    async with opened(hung_here) as doors:
        for parameters in ({}, {"q": "x", "limit": "1000"}, {"q": "x", "language": "klingon"}):
            answer = await doors.http.get("/v1/search/stream", params=parameters)
            assert (answer.status_code, answer.json()["code"]) == (422, "bad-query")
        answer = await doors.http.get("/v1/search/stream", params={"q": "x"}, headers={"X-API-Key": "pixr_no"})
        assert answer.status_code == 401


async def test_what_goes_wrong_later_is_said_in_the_stream(
    hung_here: Settings, model: QueryEncoder, may: threading.Event
) -> None:
    async with AsyncExitStack() as stack:
        relay = await stack.enter_async_context(relayed(hung_here.postgres.url))
        through = hung_here.with_section(dataclasses.replace(hung_here.postgres, url=relay.url, serve_url=""))
        url = await asyncio.to_thread(stack.enter_context, listening(through, slow(model, may)))
        events = await stack.enter_async_context(reading(url, WORDS, tags="gallery"))
        assert (await asyncio.wait_for(anext(events), TIMEOUT_S))[0] == "text"
        await relay.cut()
        may.set()
        name, document = await asyncio.wait_for(anext(events), TIMEOUT_S)
        assert (name, document["status"], document["code"]) == ("error", 503, "temporary")
        assert [each async for each in events] == []


def test_the_client_raises_what_a_stream_says(hung_here: Settings) -> None:
    with (
        listening(hung_here) as url,
        Client(url) as client,
        pytest.raises(Rejected, match="limit is 1000"),
    ):
        list(client.stream("x", limit=1000))
    with Client("http://127.0.0.1:9") as client, pytest.raises(Temporary, match="does not answer"):
        list(client.stream("x"))


async def test_a_stream_that_nobody_reads_holds_no_place_of_searches(hung_here: Settings, model: QueryEncoder) -> None:
    """The stream is asked for as a client would that stops reading: what it sends is never taken."""
    async with opened(hung_here, near(model)) as doors:
        stuck, may_end = asyncio.Event(), asyncio.Event()

        async def send(message: Any) -> None:
            if message["type"] == "http.response.body":
                stuck.set()
                await may_end.wait()

        async def receive() -> Any:
            await may_end.wait()
            return {"type": "http.disconnect"}

        query = b"q=" + WORDS.encode()
        scope = {"type": "http", "method": "GET", "path": "/v1/search/stream", "query_string": query, "headers": []}
        more = {"client": ("192.0.2.7", 1), "scheme": "http", "http_version": "1.1", "root_path": "", "raw_path": b""}
        task = asyncio.create_task(doors.app({**scope, **more, "server": ("pixr", 80)}, receive, send))
        async with asyncio.timeout(TIMEOUT_S):
            await stuck.wait()
            while doors.services.gate.held:  # noqa: ASYNC110  a gate has no event for it
                await asyncio.sleep(0.01)
        assert doors.services.gates.streams.held == 1
        may_end.set()
        await asyncio.gather(task, return_exceptions=True)
        assert doors.services.gates.streams.held == 0


async def test_one_address_has_a_part_of_the_streams(hung_here: Settings, model: QueryEncoder) -> None:
    few = dataclasses.replace(hung_here.section(SearchSettings), streams_address_max=2)
    async with opened(hung_here.with_section(few), near(model)) as doors:
        streams, here = doors.services.gates.streams, origins.bucket("127.0.0.1")
        with streams.passed(here), streams.passed(here):
            answer = await doors.http.get("/v1/search/stream", params={"q": WORDS})
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
            assert (await doors.http.get("/v1/search", params={"q": WORDS})).status_code == 200
        assert await names(doors, WORDS) == ["text", "fused"] or await names(doors, WORDS) == ["fused"]
