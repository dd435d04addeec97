"""`/v1/search`, `/v1/segments/{id}/similar`, and what tells whether Pixr is well. Answers are serialised once."""

from __future__ import annotations

from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Depends, Header, Path, Query, Request
from fastapi.responses import PlainTextResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel, Field, ValidationError

from cluster.errors import Rejected
from serve import keys, ready
from serve import query as queries
from serve.answering import KEY_CHARS_MAX, Answering
from serve.keys import Principal
from serve.moments import Answer
from serve.query import Body, GroupBy, Intent
from serve.services import Services

SegmentId = Annotated[int, Path(ge=1, le=2**63 - 1, examples=[1])]
IdempotencyKey = Annotated[
    str | None,
    Header(max_length=KEY_CHARS_MAX, description="A search that is sent again with the same key counts once."),
]


GIVEN_ALIKE = ("limit", "cursor", "group_by", "explain", "intent", "relevance_min_ppm", "language")


class Parameters(BaseModel):
    """What a search by `GET` can say. One model, which is checked in a third of the time of as many parameters."""

    q: Annotated[str, Field(examples=["a red apple"])] = ""
    limit: Annotated[int | None, Field(ge=1)] = None
    cursor: str | None = None
    group_by: GroupBy = GroupBy.MOMENT
    explain: bool = False
    intent: Intent = Intent.SEARCH
    relevance_min_ppm: Annotated[int | None, Field(ge=0, le=1_000_000)] = None
    language: str = "english"
    creator_id: list[str] = []
    video_id: list[str] = []
    tags: list[str] = []
    stake_min_pix: Annotated[int | None, Field(ge=1, le=queries.ID_MAX)] = None


def json(document: Any, status: int = 200) -> Response:
    return Response(orjson.dumps(document), status, media_type="application/json")


def router(services: Services) -> APIRouter:
    """The routes over one deployment's services."""
    routes = APIRouter()
    anybody, asked = Depends(keys.optional(services)), Depends(of_parameters)
    answering, readiness = Answering(services), ready.Readiness(services)

    @routes.get("/v1/search", response_model=Answer, tags=["search"], summary="Search by text")
    async def read_search(
        request: Request,
        body: Body = asked,
        idempotency_key: IdempotencyKey = None,
        principal: Principal | None = anybody,
    ) -> Response:
        """Moments for a text, or the next page of an answer. Open to all; earns for creators when intent is search."""
        query_string = request.scope["query_string"]
        return await answering.to(request, body, principal, idempotency_key, remembered=query_string)

    @routes.post("/v1/search", response_model=Answer, tags=["search"], summary="Search by text, image or moment")
    async def post_search(
        request: Request, body: Body, idempotency_key: IdempotencyKey = None, principal: Principal | None = anybody
    ) -> Response:
        """The same with everything a search can say."""
        return await answering.to(request, body, principal, idempotency_key)

    @routes.get("/v1/segments/{segment_id}/similar", response_model=Answer, tags=["search"])
    async def read_similar(
        request: Request,
        segment_id: SegmentId,
        limit: Annotated[int | None, Query(ge=1)] = None,
        intent: Intent = Intent.SEARCH,
        idempotency_key: IdempotencyKey = None,
        principal: Principal | None = anybody,
    ) -> Response:
        """Moments that look like this one."""
        body = _body(segment_id=str(segment_id), limit=limit, intent=intent)
        return await answering.to(request, body, principal, idempotency_key)

    @routes.get("/healthz", tags=["health"], responses={503: {"description": "This replica's own means are exhausted"}})
    async def read_health() -> Response:
        """Alive. Asks nobody else, and is not affected by what is away for everybody."""
        services.liveness.check()
        return json({"status": "ok"})

    @routes.get("/readyz", tags=["health"], responses={503: {"description": "A dependency that is needed is away"}})
    async def read_ready() -> Response:
        """Ready, with each dependency. Redis and the encoder may be away: they cost speed and vectors only."""
        found = await readiness.now()
        return json(found, 200 if found["ready"] else 503)

    @routes.get("/metrics", tags=["health"], response_class=PlainTextResponse)
    async def read_metrics() -> Response:
        """This replica's counters, for Prometheus."""
        return Response(generate_latest(services.metrics.registry), media_type=CONTENT_TYPE_LATEST)

    return routes


async def of_parameters(given: Annotated[Parameters, Query()]) -> Body:
    """The body that the parameters of a `GET` stand for. Awaited, since FastAPI would call it in a thread else."""
    filters = {name: getattr(given, name) for name in ("creator_id", "video_id", "tags", "stake_min_pix")}
    rest = {name: getattr(given, name) for name in GIVEN_ALIKE}
    return _body(text=given.q, filters=filters, **rest)


def _body(**fields: Any) -> Body:
    try:
        return Body(**fields)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise Rejected(f"{where}: {first['msg']}", status=422, code="bad-query") from error
