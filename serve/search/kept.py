"""A shorter way for searches: what needs no care of FastAPI's is answered before the routes.

FastAPI finds a route, solves what it depends on and checks each parameter by itself: of a kept answer that is more work
than all the rest, of a new one a tenth of the replica's. Two requests go around it: a `GET` whose query string was
asked a moment ago and whose answer is kept, and a `POST` with a good body of announced length. Known key, appearances in
the spool and metrics are as everywhere; whatever else comes goes the whole way, as it came.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import psycopg
from fastapi import Request
from fastapi.responses import Response
from pydantic import ValidationError
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cluster.errors import Rejected, Temporary
from serve.access import keys
from serve.http import problems
from serve.search import answer as search
from serve.search.answer import SearchResult
from serve.search.context import SearchContext
from serve.search.query import Body, Query
from serve.search.response import KEY_CHARS_MAX, Answering

PATH = "/v1/search"


class Shortcut:
    """The way around everything else, before the routes."""

    def __init__(
        self, app: ASGIApp, services: SearchContext, observe: Callable[[Query, SearchResult, float], None]
    ) -> None:
        self._app, self._services = app, services
        self._answering, self._principal = Answering(services, observe), keys.optional(services)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = None
        if scope["type"] == "http" and scope["path"] == PATH:
            request = Request(scope)
            if len(request.headers.get("idempotency-key", "")) > KEY_CHARS_MAX:
                pass  # the routes say what is wrong with it
            elif scope["method"] == "GET":
                response = await self._hot(request)
            elif scope["method"] == "POST" and not scope["query_string"] and _is_announced_json(request):
                message = await receive()  # `Transfer` gives the whole body as one
                receive = _once_more(message, receive)
                response = await self._posted(request, message)
        await (response or self._app)(scope, receive, send)

    async def _hot(self, request: Request) -> Response | None:
        """The answer to a hot search; None for any other."""
        query = self._services.remembered.get(request.scope["query_string"])
        found = search.kept(self._services, query) if query is not None else None
        if query is None or found is None:
            return None

        async def answer() -> Response:
            principal = await self._principal(request)
            return await self._answering.kept(request, query, found, principal, request.headers.get("idempotency-key"))

        return await _or_problem(request, answer())

    async def _posted(self, request: Request, message: Message) -> Response | None:
        """The answer to a body that is whole and good; None for any other."""
        data = message["body"]
        try:
            if len(data) > self._services.search.json_max_bytes:  # it takes milliseconds, which others have meanwhile
                body = await asyncio.to_thread(Body.model_validate_json, data)
            else:
                body = Body.model_validate_json(data)
        except ValidationError:
            return None

        async def answer() -> Response:
            principal = await self._principal(request)
            return await self._answering.to(request, body, principal, request.headers.get("idempotency-key"))

        return await _or_problem(request, answer())


async def _or_problem(request: Request, answer: Awaitable[Response]) -> Response:
    try:
        return await answer
    except (Rejected, Temporary, psycopg.OperationalError) as error:
        return problems.answer_to(request, error)


def _is_announced_json(request: Request) -> bool:
    """Is it announced as JSON, of a length that was found to be allowed?"""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    return kind == "application/json" and "content-length" in request.headers


def _once_more(message: Message, receive: Receive) -> Receive:
    """What comes, with this message before it."""
    left = [message]

    async def received() -> Message:
        return left.pop() if left else await receive()

    return received
