"""`/v1/search/stream`: a search as server-sent events. What words find is sent while vectors are still compared.

`StreamedParts` makes the parts as fast as they can be made, `EventStream` sends them as fast as the client reads. Knows
nothing of how a part is made (`search.answer.streamed`).
"""

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
from serve.access import keys, viewers
from serve.access.keys import Principal
from serve.access.transfer import HeldResponse
from serve.http import problems
from serve.routes.routing import Route
from serve.routes.search import IdempotencyKey, of_parameters
from serve.routes.services import Services
from serve.search import answer, ids
from serve.search import query as queries
from serve.search.page import SearchResult
from serve.search.query import Body
from serve.search.response import caller_of, check_repeated, seen
from serve.search.variants import Variants

Part = tuple[str, SearchResult]


class EventStream(HeldResponse):
    """A response of server-sent events."""

    media_type = "text/event-stream"


class StreamedParts:
    """The parts of a search, computed as fast as they can be, and queued here for a client that reads slowly.

    So a search counts towards the limit of concurrent searches only while it is computed, not while its answer is read.
    """

    def __init__(self, services: Services, parts: AsyncGenerator[Part]) -> None:
        self._deadline_s = asyncio.get_running_loop().time() + services.search.stream_timeout_s
        self._made: asyncio.Queue[Part | None] = asyncio.Queue()  # two parts at most
        self._task = asyncio.create_task(self._make(parts), name="the parts of a search")

    async def next(self) -> Part | None:
        """Return the next part; None after the last.

        Raises:
            Rejected, Temporary, psycopg.OperationalError: what ended the search; Temporary also where it takes too long.
        """
        try:
            async with asyncio.timeout_at(self._deadline_s):
                part = await self._made.get()
        except TimeoutError as error:
            raise Temporary("the stream takes too long at present") from error
        if part is None:
            await self._task  # has ended; raises what ended it
        return part

    async def close(self) -> None:
        """End the search, if it is still being made."""
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
        "event": {"type": "string", "enum": [answer.TEXT, answer.FUSED, "error"]},
        "data": {"type": "string", "contentMediaType": "application/json"},
    },
}
STREAM: dict[int | str, dict[str, Any]] = {200: {"content": {EventStream.media_type: {"schema": EVENT}}}}


def router(services: Services) -> APIRouter:
    """Return the route over one replica's services."""
    routes = APIRouter(prefix="/v1/search", tags=["search"], route_class=Route)
    anybody, parameters = Depends(keys.optional(services)), Depends(of_parameters)
    viewer_key, variants = viewers.key_of(services.settings), Variants(services.search)

    @routes.get("/stream", response_class=EventStream, responses=STREAM, summary="Search by text, in parts")
    async def read_stream(
        request: Request,
        body: Body = parameters,
        idempotency_key: IdempotencyKey = None,
        principal: Principal | None = anybody,
    ) -> Response:
        """Search in parts, as server-sent events: `text` for what words find, if that is there first; then `fused`.

        The data of both is an answer of `GET /v1/search`; only `fused` earns for creators. What goes wrong after the
        first event comes as an `error` whose data is a problem document. Then the stream ends.
        """
        began = time.perf_counter()
        caller = caller_of(request, principal, viewer_key, idempotency_key)
        variant, search = variants.of(caller.viewer)
        parsed = queries.of(await ids.resolved(services.readers, body), search, variant)
        query = seen(request, parsed, caller, search.cors_origins)
        await check_repeated(services.recorder.hashes, services.repeats, query, caller)
        async with AsyncExitStack() as held:
            held.enter_context(services.gates.streams.passed(caller.share, caller.weight(search)))
            parts = StreamedParts(services, answer.streamed(services, search, query, caller))
            held.push_async_callback(parts.close)
            first = await parts.next()  # a failure before it has the status of an error
            release = held.pop_all()

        async def events() -> AsyncIterator[bytes]:
            part: Part | None = first
            try:
                while part is not None:
                    seconds = time.perf_counter() - began
                    if part[0] == answer.FUSED:
                        services.metrics.observe(query, part[1], seconds)
                    yield event(part[0], part[1].body(query.text, seconds * 1000))
                    part = await parts.next()
            except (Rejected, Temporary, psycopg.OperationalError) as error:
                yield event("error", bytes(problems.answer_to(request, error).body))

        unbuffered = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return EventStream(events(), release, headers=unbuffered | variants.headers(variant))

    return routes


def event(name: str, data: bytes) -> bytes:
    """Return the bytes of one server-sent event (WHATWG HTML, 9.2); `data` is JSON on one line."""
    return b"event: " + name.encode() + b"\ndata: " + data + b"\n\n"
