"""`/v1/search/stream`: a search in parts, as server-sent events. The first words are there while pictures are compared."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any

import psycopg
from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response, StreamingResponse

from cluster.errors import Rejected, Temporary
from serve import keys, problems, search, viewers
from serve import query as queries
from serve.keys import Principal
from serve.query import Body
from serve.routes_search import IdempotencyKey, of_parameters
from serve.search import Caller
from serve.services import Services
from serve.variants import Variants


class EventStream(StreamingResponse):
    """Server-sent events."""

    media_type = "text/event-stream"


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
    routes = APIRouter(prefix="/v1/search", tags=["search"])
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
        caller = Caller(viewers.of(request, principal, viewer_key), principal, idempotency_key)
        await services.limits.take(*viewers.bucket(request, principal))
        variant, own = variants.of(caller.viewer)
        query = queries.of(body, own.search, variant)
        parts = search.streamed(own, query, caller)
        first = await anext(parts)  # what goes wrong before is answered as everywhere

        async def events() -> AsyncIterator[bytes]:
            part: tuple[str, search.Answer] | None = first
            try:
                while part is not None:
                    seconds = time.perf_counter() - began
                    if part[0] == search.FUSED:
                        services.metrics.observe(query, part[1], seconds)
                    yield event(part[0], part[1].body(query.text, seconds * 1000))
                    part = await anext(parts, None)
            except (Rejected, Temporary, psycopg.OperationalError) as error:
                yield event("error", bytes(problems.answer_to(request, error).body))
            finally:
                await parts.aclose()

        unbuffered = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return EventStream(events(), headers=unbuffered | variants.headers(variant))

    return routes


def event(name: str, data: bytes) -> bytes:
    """One server-sent event (WHATWG HTML, 9.2); its data is JSON on one line."""
    return b"event: " + name.encode() + b"\ndata: " + data + b"\n\n"
