"""A search over HTTP, once it is known who asks: their variant, the answer and its headers, the metrics.

What takes requests apart, the routes and `kept`, shares it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from urllib.parse import quote

from fastapi import Request
from fastapi.responses import Response

from serve.access import origins, viewers
from serve.access.keys import Principal
from serve.http import manners
from serve.search import answer, ids
from serve.search import query as queries
from serve.search.answer import Caller, SearchResult
from serve.search.context import SearchContext
from serve.search.query import Body, Intent, Query
from serve.search.variants import Variants

KEY_CHARS_MAX = 200  # of an Idempotency-Key


class Answering:
    """Answers over one replica's services."""

    def __init__(self, services: SearchContext, observe: Callable[[Query, SearchResult, float], None]) -> None:
        self._observe = observe  # each answer, with the seconds that it took
        self._services, self._variants = services, Variants(services)
        self._viewer_key = viewers.key_of(services.settings)

    async def to(
        self,
        request: Request,
        body: Body,
        principal: Principal | None,
        idempotency_key: str | None,
        *,
        remembered: bytes = b"",
    ) -> Response:
        """The answer to a body; what it means is `remembered` by a query string, where there is one.

        Raises:
            Rejected: as `query.of` and `search.answer`.
            Temporary: nothing can be asked at present.
        """
        began = time.perf_counter()
        caller = caller_of(request, principal, self._viewer_key, idempotency_key)
        variant, own = self._variants.of(caller.viewer)
        asked = queries.of(await ids.resolved(own, body), own.search, variant)
        query = seen(request, asked, caller, own)
        await check_repeated(self._services, query, caller)
        found = await answer.answer(own, query, caller)
        if remembered:
            self._services.remembered.put(remembered, asked)
        return self._sent(query, found, began, self._variants.headers(variant))

    async def kept(
        self,
        request: Request,
        query: Query,
        found: SearchResult,
        principal: Principal | None,
        idempotency_key: str | None,
    ) -> Response:
        """A kept answer to a query that is known already, where viewers have no variants."""
        began = time.perf_counter()
        caller = caller_of(request, principal, self._viewer_key, idempotency_key)
        query = seen(request, query, caller, self._services)
        await check_repeated(self._services, query, caller)
        answer.recorded(self._services, query, caller, found)
        return self._sent(query, found, began)

    def _sent(self, query: Query, found: SearchResult, began: float, more: Mapping[str, str] | None = None) -> Response:
        """An answer as it is sent, counted; `began` is when its making did, by the performance counter."""
        seconds = time.perf_counter() - began
        self._observe(query, found, seconds)
        headers = {
            "x-pixr-degraded": ",".join(found.page.degraded),
            "x-pixr-cache": found.source,
            "etag": found.tag,
            "x-pixr-model": quote(found.model),
            "server-timing": server_timing({**found.seconds, "total": seconds}),
            **(more or {}),
        }
        return Response(found.body(query.text, seconds * 1000), headers=headers, media_type="application/json")


def caller_of(request: Request, principal: Principal | None, viewer_key: bytes, idempotency_key: str | None) -> Caller:
    """Who asks, whose places at the gate they take: those of their key, else of their address."""
    share = origins.share(request, principal.id if principal is not None else None)
    client = request.scope.get("state", {}).get("client")
    return Caller(viewers.of(request, principal, viewer_key), principal, idempotency_key, share, client)


def seen(request: Request, query: Query, caller: Caller, services: SearchContext) -> Query:
    """The query; one that counts for nobody where nobody sees the answer: of a HEAD, or of another site's page, which makes
    strangers' browsers ask."""
    is_elsewhere = caller.principal is None and manners.is_from_another_site(request, services.search.cors_origins)
    is_unseen = (manners.is_head(request) or is_elsewhere) and query.intent is Intent.SEARCH
    return replace(query, intent=Intent.TYPING) if is_unseen else query


async def check_repeated(services: SearchContext, query: Query, caller: Caller) -> None:
    """Check that an Idempotency-Key is not sent with another search that counts.

    Raises:
        Rejected: it is.
    """
    if caller.idempotency_key and query.counts:
        viewer = services.recorder.hashes.viewer(caller.viewer.kind, caller.viewer.identity)
        is_named = caller.viewer.kind != "address"
        await services.repeats.check(viewer, caller.idempotency_key, query.identity, is_named=is_named)


def server_timing(seconds: Mapping[str, float]) -> str:
    """As the header `Server-Timing` (W3C Server Timing), in milliseconds."""
    return ", ".join(f"{name};dur={1000 * spent:.1f}" for name, spent in seconds.items())
