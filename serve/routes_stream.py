"""`/v1/search/stream`: a search in parts, as server-sent events. The first words are there while pictures are compared."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import psycopg
from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response

from cluster.errors import Rejected, Temporary
from cluster.tasks import ended
from serve import ids, keys, problems, search, viewers
from serve import query as queries
from serve.answering import caller_of, check_repeated, seen
from serve.keys import Principal
from serve.query import Body
from serve.routes_search import IdempotencyKey, of_parameters
from serve.routing import Route
from serve.services import Services
from serve.transfer import HeldResponse
from serve.variants import Variants

Part = tuple[str, search.Answer]


class EventStream(HeldResponse):
    """Server-sent events."""

    media_type = "text/event-stream"


class Parts:
    """The parts of a search, made as quickly as they can be and kept here for a client that reads slowly.

    So a search has its place among searches for as long as it takes, not for as long as somebody reads.
    """

    def __init__(self, services: Services, parts: AsyncGenerator[Part]) -> None:
        self._deadline_s = asyncio.get_running_loop().time() + services.search.stream_timeout_s
        self._made: asyncio.Queue[Part | None] = asyncio.Queue()  # two parts at most
        self._task = asyncio.create_task(self._make(parts), name="the parts of a search")

    async def next(self) -> Part | None:
        """The next part; None after the last.

        Raises:
            Rejected, Temporary, psycopg.OperationalError: as the search; or it takes too long.
        """
        try:
            async with asyncio.timeout_at(self._deadline_s):
                part = await self._made.get()
        except TimeoutError as error:
            raise Temporary("the stream takes too long at present") from error
        if part is None:
            await self._task  # it has ended: this raises what ended it
        return part

    async def close(self) -> None:
        await ended(self._task)

    async def _make(self, parts: AsyncGenerator[Part]) -> None:
        try:
            async for part in parts:
                self._made.put_nowait(part)
        finally:
            self._made.put_nowait(None)
            await parts.aclose()


EVENT = {
    "type": "object",
    "description": "One event of the stream: an answer of `GET /v1/search`, or a problem document.",
    "required": ["event", "data"],
    "properties": {
        "event": {"type": "string", "enum": [search.TEXT, search.FUSED, "error"]},
        "data": {"type": "string", "contentMediaType": "application/json"},
    },
}
STREAM: dict[int | str, dict[str, Any]] = {200: {"content": {EventStream.media_type: {"schema": EVENT}}}}


def router(services: Services) -> APIRouter:
    """The route over one deployment's services."""
    routes = APIRouter(prefix="/v1/search", tags=["search"], route_class=Route)
    anybody, asked = Depends(keys.optional(services)), Depends(of_parameters)
    viewer_key, variants = viewers.key_of(services.settings), Variants(services)

    @routes.get("/stream", response_class=EventStream, responses=STREAM, summary="Search by text, in parts")
    async def read_stream(
        request: Request,
        body: Body = asked,
        idempotency_key: IdempotencyKey = None,
        principal: Principal | None = anybody,
    ) -> Response:
        """The same as server-sent events: `text` with what the words find, if that is there first, then `fused`.

        The data of both is an answer of `GET /v1/search`; only `fused` earns for creators. What goes wrong after the
        first event comes as an `error` whose data is a problem document. Then the stream ends.
        """
        began = time.perf_counter()
        caller = caller_of(request, principal, viewer_key, idempotency_key)
        variant, own = variants.of(caller.viewer)
        query = seen(request, queries.of(await ids.resolved(services, body), own.search, variant), caller, own)
        await check_repeated(services, query, caller)
        async with AsyncExitStack() as held:
            held.enter_context(services.gates.streams.passed(caller.share, caller.weight(services)))
            parts = Parts(services, search.streamed(own, query, caller))
            held.push_async_callback(parts.close)
            first = await parts.next()  # what goes wrong before is answered as everywhere
            release = held.pop_all()

        async def events() -> AsyncIterator[bytes]:
            part: Part | None = first
            try:
                while part is not None:
                    seconds = time.perf_counter() - began
                    if part[0] == search.FUSED:
                        services.metrics.observe(query, part[1], seconds)
                    yield event(part[0], part[1].body(query.text, seconds * 1000))
                    part = await parts.next()
            except (Rejected, Temporary, psycopg.OperationalError) as error:
                yield event("error", bytes(problems.answer_to(request, error).body))

        unbuffered = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return EventStream(events(), release, headers=unbuffered | variants.headers(variant))

    return routes


def event(name: str, data: bytes) -> bytes:
    """One server-sent event (WHATWG HTML, 9.2); its data is JSON on one line."""
    return b"event: " + name.encode() + b"\ndata: " + data + b"\n\n"
