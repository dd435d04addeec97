"""Hot searches: a search by `GET` that was asked just so a moment ago, and whose answer is kept, is answered at once.

Taking a request's parameters apart and checking them costs more than all the rest of a kept answer. What a query string
means is remembered, bounded, and whoever asks with the same one is answered here: known key, token of the bucket,
appearances in the spool and metrics as everywhere. Whatever is not known goes the whole way.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from urllib.parse import quote

import psycopg
from fastapi import Request
from fastapi.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from cluster.errors import Rejected, Temporary
from serve import keys, problems, search, viewers
from serve.query import Query
from serve.search import Answer, Caller
from serve.services import Services

PATH = "/v1/search"
KEY_CHARS_MAX = 200


class HotSearches:
    """The way around everything else, before the routes."""

    def __init__(self, app: ASGIApp, services: Services) -> None:
        self._app, self._services = app, services
        self._viewer_key, self._principal = viewers.key_of(services.settings), keys.optional(services)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = None
        if scope["type"] == "http" and scope["path"] == PATH and scope["method"] == "GET":
            response = await self._answer(Request(scope))
        await (response or self._app)(scope, receive, send)

    async def _answer(self, request: Request) -> Response | None:
        """The answer to a hot search; None for any other."""
        began = time.perf_counter()
        services = self._services
        query = services.remembered.get(request.scope["query_string"])
        found = search.kept(services, query) if query is not None else None
        idempotency_key = request.headers.get("idempotency-key")
        if query is None or found is None or len(idempotency_key or "") > KEY_CHARS_MAX:
            return None
        try:
            principal = await self._principal(request)
            await services.limits.take(*viewers.bucket(request, principal))
            caller = Caller(viewers.of(request, principal, self._viewer_key), principal, idempotency_key)
            search.recorded(services, query, caller, found)
        except (Rejected, Temporary, psycopg.OperationalError) as error:
            return problems.answer_to(request, error)
        seconds = time.perf_counter() - began
        services.metrics.observe(query, found, seconds)
        return answer(query, found, seconds)


def answer(query: Query, found: Answer, seconds: float, more: dict[str, str] | None = None) -> Response:
    """A search's answer over HTTP."""
    headers = {
        "x-pixr-degraded": ",".join(found.page.degraded),
        "x-pixr-cache": found.source,
        "x-pixr-model": quote(found.model),
        "server-timing": server_timing({**found.seconds, "total": seconds}),
        **(more or {}),
    }
    return Response(found.body(query.text, seconds * 1000), headers=headers, media_type="application/json")


def server_timing(seconds: Mapping[str, float]) -> str:
    """As the header `Server-Timing` (W3C Server Timing), in milliseconds."""
    return ", ".join(f"{name};dur={1000 * spent:.1f}" for name, spent in seconds.items())
