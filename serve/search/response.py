"""A search over HTTP, once the key is known: find out the viewer and variant, answer, set headers, count metrics.

Shared by the routes and by the fast path before them (`kept`), which read the request. Knows no route.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from urllib.parse import quote

from fastapi import Request
from fastapi.responses import Response

from ledger.appearances.appearances import Hashes
from serve.access import origins, viewers
from serve.access.keys import Principal
from serve.http import manners
from serve.replica.repeats import Repeats
from serve.search import answer, ids
from serve.search import query as queries
from serve.search.answer import Caller
from serve.search.context import SearchContext
from serve.search.page import SearchResult
from serve.search.query import Body, Intent, Query
from serve.search.variants import Variants

KEY_CHARS_MAX = 200  # of an Idempotency-Key


class Answering:
    """Answers searches of one replica.

    Args:
        context: the replica's connections and caches.
        observe: is called with each query, its answer and the seconds that it took.
    """

    def __init__(self, context: SearchContext, observe: Callable[[Query, SearchResult, float], None]) -> None:
        self._context, self._observe = context, observe
        self._variants = Variants(context.search)
        self._viewer_key = viewers.key_of(context.settings)

    async def respond(
        self,
        request: Request,
        body: Body,
        principal: Principal | None,
        idempotency_key: str | None,
        *,
        query_string: bytes = b"",
    ) -> Response:
        """Run a search and build the HTTP response; cache the parsed query under the raw query string.

        Args:
            request: the request, for where it comes from.
            body: the search as the caller wrote it.
            principal: who calls, if they sent a key.
            idempotency_key: the header of that name.
            query_string: the raw query string that the body was parsed from; empty where it came otherwise.

        Returns:
            The answer as JSON, with its headers.

        Raises:
            Rejected: the body contradicts itself or exceeds a limit, or `answer.answer` refuses the query.
            Temporary: nothing can be asked at present.
        """
        began = time.perf_counter()
        caller = caller_of(request, principal, self._viewer_key, idempotency_key)
        variant, search = self._variants.of(caller.viewer)
        parsed = queries.of(await ids.resolved(self._context.readers, body), search, variant)
        query = seen(request, parsed, caller, search.cors_origins)
        await check_repeated(self._context.recorder.hashes, self._context.repeats, query, caller)
        result = await answer.answer(self._context, search, query, caller)
        if query_string:
            self._context.query_cache.put(query_string, parsed)
        return self._response(query, result, began, self._variants.headers(variant))

    async def respond_kept(
        self,
        request: Request,
        query: Query,
        result: SearchResult,
        principal: Principal | None,
        idempotency_key: str | None,
    ) -> Response:
        """Build the response to a parsed query from a kept page.

        Queries are cached only where viewers have no variants, so that the settings are those of the deployment.

        Args:
            request: the request, for where it comes from.
            query: the query that its query string stands for.
            result: the kept page.
            principal: who calls, if they sent a key.
            idempotency_key: the header of that name.

        Returns:
            The answer as JSON, with its headers.

        Raises:
            Rejected: the caller may not state the intent, or the Idempotency-Key was sent with another search.
            Temporary: appearances cannot be recorded.
        """
        began = time.perf_counter()
        context = self._context
        caller = caller_of(request, principal, self._viewer_key, idempotency_key)
        query = seen(request, query, caller, context.search.cors_origins)
        await check_repeated(context.recorder.hashes, context.repeats, query, caller)
        answer.permit(query, caller)
        answer.record(context.recorder, context.economics, query, caller, result)
        return self._response(query, result, began)

    def _response(
        self, query: Query, result: SearchResult, began: float, variant: Mapping[str, str] | None = None
    ) -> Response:
        """Build and count the response; `began` is when work on it began, by the performance counter."""
        seconds = time.perf_counter() - began
        self._observe(query, result, seconds)
        headers = {
            "x-pixr-degraded": ",".join(result.page.degraded),
            "x-pixr-cache": result.source,
            "etag": result.tag,
            "x-pixr-model": quote(result.model),
            "server-timing": server_timing({**result.seconds, "total": seconds}),
            **(variant or {}),
        }
        return Response(result.body(query.text, seconds * 1000), headers=headers, media_type="application/json")


def caller_of(request: Request, principal: Principal | None, viewer_key: bytes, idempotency_key: str | None) -> Caller:
    """Return who searches.

    Args:
        request: the request, for its cookie, address and connection.
        principal: who calls, if they sent a key.
        viewer_key: the key that signs viewers' cookies.
        idempotency_key: the header of that name.

    Returns:
        The caller, whose places at the gate are those of their key, else of their address.
    """
    share = origins.share(request, principal.id if principal is not None else None)
    client = request.scope.get("state", {}).get("client")
    return Caller(viewers.of(request, principal, viewer_key), principal, idempotency_key, share, client)


def seen(request: Request, query: Query, caller: Caller, cors_origins: Sequence[str]) -> Query:
    """Return the query; if nobody can be taken to see its answer, change it so that it makes no appearances.

    A HEAD shows nothing, and the page of another site can make a person's browser search without their knowledge.

    Args:
        request: the request, for its method and origin.
        query: the query as it was parsed.
        caller: who searches; for a caller with a key it does not matter which page sent the request.
        cors_origins: the sites whose pages may search.

    Returns:
        The query itself, or one whose intent is `typing`, which makes no appearances.
    """
    is_elsewhere = caller.principal is None and manners.is_from_another_site(request, cors_origins)
    is_unseen = (manners.is_head(request) or is_elsewhere) and query.intent is Intent.SEARCH
    return replace(query, intent=Intent.TYPING) if is_unseen else query


async def check_repeated(hashes: Hashes, repeats: Repeats, query: Query, caller: Caller) -> None:
    """Check that an Idempotency-Key was not sent with another search that counts.

    Args:
        hashes: makes the keyed hash of a viewer.
        repeats: remembers for which search each key was sent.
        query: the query; only one that counts is checked.
        caller: who searches, with the key.

    Raises:
        Rejected: the viewer has sent the key with another search.
    """
    if caller.idempotency_key and query.counts:
        viewer = hashes.viewer(caller.viewer.kind, caller.viewer.identity)
        is_named = caller.viewer.kind != "address"
        await repeats.check(viewer, caller.idempotency_key, query.identity, is_named=is_named)


def server_timing(seconds: Mapping[str, float]) -> str:
    """Return the value of the header `Server-Timing` (W3C Server Timing), in milliseconds, of seconds by stage."""
    return ", ".join(f"{name};dur={1000 * spent:.1f}" for name, spent in seconds.items())
