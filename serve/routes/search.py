"""`/v1/search`, `/v1/segments/{id}/similar`, and the routes for operators: `/healthz`, `/readyz`, `/metrics`.

Answers of searches are bytes that are serialised once. Knows how parameters become a body, and nothing of how a search is
made (`search.response` answers it).
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Depends, Header, Query, Request
from fastapi.responses import PlainTextResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from serve.access import keys
from serve.access.keys import Principal
from serve.routes import opened, ready
from serve.routes.routing import Route
from serve.routes.services import Services
from serve.search.ids import SegmentId
from serve.search.moments import Answer
from serve.search.query import Body, Intent, Parameters
from serve.search.response import KEY_CHARS_MAX, Answering

IdempotencyKey = Annotated[
    str | None,
    Header(max_length=KEY_CHARS_MAX, description="A search that is sent again with the same key counts once."),
]


def json(document: Any, status: int = 200) -> Response:
    """Return a JSON response."""
    return Response(orjson.dumps(document), status, media_type="application/json")


def router(services: Services) -> APIRouter:
    """Return the routes over one replica's services."""
    routes = APIRouter(route_class=Route)
    anybody, parameters = Depends(keys.optional(services)), Depends(of_parameters)
    answering = Answering(services, services.metrics.observe)
    readiness = ready.Readiness(ready.questions_of(services), services.tasks)

    @routes.get("/v1/search", response_model=Answer, tags=["search"], summary="Search by text")
    async def read_search(
        request: Request,
        body: Body = parameters,
        idempotency_key: IdempotencyKey = None,
        principal: Principal | None = anybody,
    ) -> Response:
        """Moments for a text, or the next page of an answer. Open to all; only intent `search` earns for creators."""
        query_string = request.scope["query_string"]
        return await answering.respond(request, body, principal, idempotency_key, query_string=query_string)

    @routes.post("/v1/search", response_model=Answer, tags=["search"], summary="Search by text, image or moment")
    async def post_search(
        request: Request, body: Body, idempotency_key: IdempotencyKey = None, principal: Principal | None = anybody
    ) -> Response:
        """Search by a text, a picture, a moment to find more of, or several of them, with filters and weights."""
        return await answering.respond(request, body, principal, idempotency_key)

    @routes.get("/v1/segments/{segment_id}/similar", response_model=Answer, tags=["search"])
    async def read_similar(
        request: Request,
        segment_id: SegmentId,
        limit: Annotated[int | None, Query(ge=1)] = None,
        intent: Intent = Intent.SEARCH,
        idempotency_key: IdempotencyKey = None,
        principal: Principal | None = anybody,
    ) -> Response:
        """Find moments that look like this one."""
        body = Body(segment_id=segment_id, limit=limit, intent=intent)
        return await answering.respond(request, body, principal, idempotency_key)

    @routes.get("/healthz", tags=["health"], responses={503: {"description": "This replica's own means are exhausted"}})
    async def read_health() -> Response:
        """Tell whether this replica is alive. Outages of its dependencies do not change the answer."""
        services.liveness.check()
        return json({"status": "ok"})

    @routes.get("/readyz", tags=["health"], responses={503: {"description": "A dependency that is needed is away"}})
    async def read_ready(request: Request) -> Response:
        """Tell whether this replica is ready: the database and the index answer, and no background task keeps failing.

        Other dependencies may be away. Without the encoder, searches use words only; without Redis, they are slower;
        without the object store, pictures and videos are missing; without the recorder, appearances wait on the disk.
        Administrators, and networks of `[search] operators_from`, are also told the state of each dependency.
        """
        document = await readiness.now()
        if not request.scope.get("state", {}).get("is_operator", True):
            document = {"ready": document["ready"]}
        return json(document, 200 if document["ready"] else 503)

    @routes.get("/metrics", tags=["health"], response_class=PlainTextResponse)
    async def read_metrics() -> Response:
        """Return this replica's counters for Prometheus, to administrators and networks of `[search] operators_from`."""
        metrics, readers = services.metrics, services.readers
        await asyncio.gather(opened.look(metrics.open, readers), metrics.retention.look(readers))
        return Response(generate_latest(services.metrics.registry), media_type=CONTENT_TYPE_LATEST)

    return routes


async def of_parameters(parameters: Annotated[Parameters, Query()]) -> Body:
    """Return the body that the parameters of a `GET` stand for.

    It is a coroutine, since FastAPI would call a plain function in a thread.
    """
    return parameters.body()
