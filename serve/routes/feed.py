"""`/v1/feed`, `/v1/events`, `/v1/completions`: the feed, events of viewers, completions of what is being typed.

None of them makes appearances, since nothing here was searched for. The feed itself is made by `search.feed`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response
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
    """A moment that a viewer watched, finished or liked."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"segment_id": "42", "kind": "play"}]})
    segment_id: SegmentId
    kind: Literal["play", "finish", "like"] = "play"
    watched_ms: int = Field(default=0, ge=0, le=DAY_MS)


class Completions(BaseModel):
    """Titles and tags that begin with what was typed."""

    completions: list[str]


def router(services: Services) -> APIRouter:
    """Return the routes over one replica's services."""
    routes = APIRouter(prefix="/v1", tags=["feed"], route_class=Route)
    anybody = Depends(keys.optional(services))
    viewer_key, variants = viewers.key_of(services.settings), Variants(services.search)
    hashes = services.recorder.hashes
    limited = Query(20, ge=1, le=services.search.feed_limit_max)
    cursor_key = services.cursor_key + b" feed"  # so that a cursor of the feed is refused by a search

    @routes.get("/feed", response_model=Answer)
    async def read_feed(
        request: Request,
        limit: int = limited,
        cursor: Cursor = None,
        principal: Principal | None = anybody,
    ) -> Response:
        """Moments worth seeing without a query, by what is watched, new and invested in.

        Moments that the viewer has not seen come first.
        """
        began = time.perf_counter()
        viewer = viewers.of(request, principal, viewer_key)
        seen_by = hashes.viewer(viewer.kind, viewer.identity)
        variant, search = variants.of(viewer)
        if cursor is not None:
            ranks, *_ = cursors.unpack(cursor, cursor_key)
        else:
            most = limit + services.search.cursor_ids_max
            ranks = await services.readers.ask(lambda connection: feed.ranked(connection, search, most, seen_by))
        worth = await services.readers.ask(lambda connection: feed.shown(connection, ranks[:limit]))
        remaining, expires_s = ranks[limit:], services.search.cursor_expires_s
        following = cursors.pack(remaining, 0, cursor_key, expires_s) if remaining else None
        shown = [
            moments.of(services.links, Ranked(each.details.segment_id, each.score, 0, ()), each.details)
            for each in worth
        ]
        took_ms = round((time.perf_counter() - began) * 1000, 1)
        document = {"query": "", "moments": shown, "next_cursor": following, "degraded": [], "took_ms": took_ms}
        headers = variants.headers(variant) | {"ETag": manners.tag(orjson.dumps(shown), _tagged(remaining, expires_s))}
        return Response(orjson.dumps(document), headers=headers, media_type="application/json")

    @routes.post("/events", status_code=204)
    async def note(request: Request, event: Event, principal: Principal | None = anybody) -> None:
        """Note that a moment was watched. The viewer is stored as a keyed hash, and only for the feed."""
        viewer = viewers.of(request, principal, viewer_key)
        seen_by = hashes.viewer(viewer.kind, viewer.identity)
        number = await ids.moment(services.readers, event.segment_id)
        by_name = not event.segment_id.isdecimal()
        if not await services.threads.ask(feed.watch, seen_by, number, event.kind, event.watched_ms, unlisted=by_name):
            raise ids.missing("segment", event.segment_id)

    @routes.get("/completions", response_model=Completions)
    async def complete(
        q: Annotated[str, Query(min_length=1, max_length=100, examples=["orch"])],
        limit: Annotated[int, Query(ge=1, le=COMPLETIONS_MAX)] = 8,
    ) -> Any:
        """How a search might go on: titles and tags of public videos that begin with what was typed."""
        typed = texts.sought("q", q)
        completions = await services.readers.ask(lambda connection: fulltext.completions(connection, typed, limit))
        return {"completions": completions}

    return routes


def _tagged(remaining: Sequence[Ranked], expires_s: int) -> bytes:
    """Return the part of the entity tag that covers the cursor: the moments that it leads to, and the time.

    The time counts in steps of half a cursor's life. Otherwise a client that is answered 304 again and again would keep
    its cursor until the cursor has expired.
    """
    if not remaining:
        return b""
    return orjson.dumps([*(each.segment_id for each in remaining), 2 * time.time() // expires_s])
