"""A shortcut for searches before the routes: kept answers, and bodies that are complete and valid.

FastAPI finds a route, resolves its dependencies and checks each parameter. For a kept answer that is more work than all
the rest; for a new answer it is a tenth of the replica's work. Two requests go around it: a `GET` whose query string
was parsed a moment ago and whose answer is kept, and a `POST` with a valid body of announced length. Keys, appearances
and metrics are treated as everywhere. Every other request goes to the routes as it came.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import psycopg
from fastapi import Request
from fastapi.responses import Response
from pydantic import ValidationError
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cluster.errors import Rejected, Temporary
from serve.access import keys
from serve.http import problems
from serve.search import answer
from serve.search.context import SearchContext
from serve.search.page import SearchResult
from serve.search.query import Body, Query
from serve.search.response import KEY_CHARS_MAX, Answering

PATH = "/v1/search"
REFUSALS = (Rejected, Temporary, psycopg.OperationalError)  # that are answered with a problem document


class Shortcut:
    """Middleware that answers some searches itself and passes every other request on to the routes.

    Args:
        app: the routes.
        context: the replica's connections and caches.
        observe: is called with each query, its answer and the seconds that it took.
    """

    def __init__(
        self, app: ASGIApp, context: SearchContext, observe: Callable[[Query, SearchResult, float], None]
    ) -> None:
        self._app, self._context = app, context
        self._answering, self._principal = Answering(context, observe), keys.optional(context)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = None
        if scope["type"] == "http" and scope["path"] == PATH:
            request = Request(scope)
            if len(request.headers.get("idempotency-key", "")) > KEY_CHARS_MAX:
                pass  # the routes say what is wrong with it
            elif scope["method"] == "GET":
                response = await self._hot(request)
            elif scope["method"] == "POST" and not scope["query_string"] and _is_announced_json(request):
                message = await receive()  # `Transfer` gives the whole body as one message
                receive = _before(message, receive)
                response = await self._posted(request, message)
        await (response or self._app)(scope, receive, send)

    async def _hot(self, request: Request) -> Response | None:
        """Answer a search if its parsed query is cached and its page is kept; return None for any other."""
        context = self._context
        query = context.query_cache.get(request.scope["query_string"])
        result = answer.kept(context.generation, context.results, query) if query is not None else None
        if query is None or result is None:
            return None
        try:
            principal = await self._principal(request)
            key = request.headers.get("idempotency-key")
            return await self._answering.respond_kept(request, query, result, principal, key)
        except REFUSALS as error:
            return problems.answer_to(request, error)

    async def _posted(self, request: Request, message: Message) -> Response | None:
        """Answer a search whose body is complete and valid; return None for any other."""
        data = message["body"]
        try:
            if len(data) > self._context.search.json_max_bytes:  # takes milliseconds, so that others go on meanwhile
                body = await asyncio.to_thread(Body.model_validate_json, data)
            else:
                body = Body.model_validate_json(data)
        except ValidationError:
            return None
        try:
            principal = await self._principal(request)
            return await self._answering.respond(request, body, principal, request.headers.get("idempotency-key"))
        except REFUSALS as error:
            return problems.answer_to(request, error)


def _is_announced_json(request: Request) -> bool:
    """Return whether a body is announced as JSON and with its length; `Transfer` has already checked the length."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    return kind == "application/json" and "content-length" in request.headers


def _before(message: Message, receive: Receive) -> Receive:
    """Return a `receive` that gives `message` first, then the messages of the original."""
    waiting = [message]

    async def received() -> Message:
        return waiting.pop() if waiting else await receive()

    return received
