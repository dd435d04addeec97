"""`/v1/feed`, `/v1/events`, `/v1/completions`: what is worth seeing, what was watched, how a search might go on.

None of them makes appearances: nothing here was searched for.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response
from psycopg import Connection
from pydantic import BaseModel, ConfigDict, Field

from pipelines.index import fulltext
from serve.access import keys, viewers
from serve.access.keys import Principal
from serve.http import manners, texts
from serve.routes.pages import Cursor
from serve.routes.routing import Route
from serve.routes.services import Services
from serve.search import cursors, feed, ids, moments
from serve.search.cursors import Ranked
from serve.search.moments import Answer
from serve.search.query import SegmentId
from serve.search.variants import Variants

COMPLETIONS_MAX = 20
DAY_MS = 86_400_000


class Event(BaseModel):
    """Something that a viewer watched."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"segment_id": "42", "kind": "play"}]})
    segment_id: SegmentId
    kind: Literal["play", "finish", "like"] = "play"
    watched_ms: int = Field(default=0, ge=0, le=DAY_MS)


class Completions(BaseModel):
    """Titles and tags that begin like what was typed."""

    completions: list[str]


def router(services: Services) -> APIRouter:
    """The routes over one deployment's services."""
    routes = APIRouter(prefix="/v1", tags=["feed"], route_class=Route)
    anybody = Depends(keys.optional(services))
    viewer_key, variants = viewers.key_of(services.settings), Variants(services)
    hashes = services.recorder.hashes
    limited = Query(20, ge=1, le=services.search.feed_limit_max)
    cursor_key = services.cursor_key + b" feed"  # a cursor of the feed is none of a search

    @routes.get("/feed", response_model=Answer)
    async def read_feed(
        request: Request,
        limit: int = limited,
        cursor: Cursor = None,
        principal: Principal | None = anybody,
    ) -> Response:
        """Moments by what is watched, new and invested in; for a known viewer, those they have not seen come first."""
        began = time.perf_counter()
        viewer = viewers.of(request, principal, viewer_key)
        seen_by = hashes.viewer(viewer.kind, viewer.identity)
        variant, own = variants.of(viewer)
        if cursor is not None:
            ranks, *_ = cursors.unpack(cursor, cursor_key)
        else:
            most = limit + services.search.cursor_ids_max
            ranks = await services.readers.ask(lambda connection: feed.ranked(connection, own.search, most, seen_by))
        worth = await services.readers.ask(lambda connection: feed.shown(connection, ranks[:limit]))
        following = (
            cursors.pack(ranks[limit:], 0, cursor_key, services.search.cursor_expires_s) if ranks[limit:] else None
        )
        shown = [moments.of(services, Ranked(each.found.segment_id, each.score, 0, ()), each.found) for each in worth]
        took_ms = round((time.perf_counter() - began) * 1000, 1)
        document = {"query": "", "moments": shown, "next_cursor": following, "degraded": [], "took_ms": took_ms}
        further = _further(ranks[limit:], services.search.cursor_expires_s)
        headers = variants.headers(variant) | {"ETag": manners.tag(orjson.dumps(shown), further)}
        return Response(orjson.dumps(document), headers=headers, media_type="application/json")

    @routes.post("/events", status_code=204)
    async def note(request: Request, event: Event, principal: Principal | None = anybody) -> None:
        """Note that a moment was watched. The viewer is kept as a keyed hash, and only for the feed."""
        viewer = viewers.of(request, principal, viewer_key)
        seen_by = hashes.viewer(viewer.kind, viewer.identity)
        noted = (seen_by, await ids.moment(services, event.segment_id), event.kind, event.watched_ms)
        if not await services.threads.ask(_watch, noted, not event.segment_id.isdecimal()):
            raise ids.missing("segment", event.segment_id)

    @routes.get("/completions", response_model=Completions)
    async def complete(
        q: Annotated[str, Query(min_length=1, max_length=100, examples=["orch"])],
        limit: Annotated[int, Query(ge=1, le=COMPLETIONS_MAX)] = 8,
    ) -> Any:
        """How a search might go on: titles and tags of public videos that begin with what was typed."""
        begun = texts.sought("q", q)
        found = await services.readers.ask(lambda connection: fulltext.completions(connection, begun, limit))
        return {"completions": found}

    return routes


def _further(rest: Sequence[Ranked], expires_s: int) -> bytes:
    """What the tag of an answer says of its cursor: what that leads to, and a time of half its life.

    Else a client that is told that it has the answer already would keep a cursor until it has expired.
    """
    return orjson.dumps([*(each.segment_id for each in rest), 2 * time.time() // expires_s]) if rest else b""


def _watch(connection: Connection[Any], noted: tuple[bytes, int, str, int], unlisted: bool) -> bool:
    return feed.watch(connection, *noted, unlisted=unlisted)
