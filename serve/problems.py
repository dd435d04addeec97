"""How the HTTP door answers when something is wrong: `application/problem+json`, always with a request id.

Rejected     → its own status; the hint says what to do
Temporary    → 503 with Retry-After and without the address of what is away; so does a database that is away
validation   → 422 with one line per field; so does half of a surrogate pair, which JSON lets through and UTF-8 does not
anything else is a bug: logged with its traceback, answered with 500 and no detail

What a request waits for may be cancelled without it, where a replica ends: that is answered, too.

Also what marks every request: the request id, CORS.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import re
import secrets
from collections.abc import Awaitable, Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any

import orjson
import psycopg
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cluster.errors import Rejected, Temporary
from cluster.seldom import Seldom
from serve.routing import FIELDS_SHOWN_MAX

log = logging.getLogger(__name__)
seldom = Seldom(log)

MEDIA_TYPE = "application/problem+json"
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
# Characters of what callers may have written: the door says a document again only where one of its buffers holds it.
WHERE_CHARS_MAX, SAID_CHARS_MAX = 100, 2000
RETRY_AFTER_S = 1.0
EXPOSED_HEADERS = (
    "X-Request-Id",
    "Retry-After",
    "RateLimit",
    "RateLimit-Policy",
    "ETag",
    "X-Pixr-Degraded",
    "X-Pixr-Cache",
    "X-Pixr-Variant",
    "Server-Timing",
)


def install(app: FastAPI, *, cors_origins: Sequence[str] = (), stamped: bool = True) -> None:
    """Give an application its error answers, request ids and CORS. Middleware that is added later stands outside.

    `stamped` answers carry their request id; Serve stamps those of its replicas itself.
    """
    for kind, answer in ANSWERS.items():
        app.add_exception_handler(kind, _here(answer))
    app.add_middleware(Answered)
    if cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(cors_origins),
            allow_methods=["GET", "HEAD", "POST", "PATCH", "PUT", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "Idempotency-Key", "X-Request-Id", "Range"],
            expose_headers=list(EXPOSED_HEADERS),
        )
    app.add_middleware(RequestIds, stamped=stamped)


def request_id(scope: Mapping[str, Any]) -> str:
    return str(scope.get("state", {}).get("request_id", ""))


def problem(
    scope: Mapping[str, Any],
    status: int,
    detail: str,
    *,
    code: str = "",
    headers: Mapping[str, str] | None = None,
    **more: Any,
) -> Response:
    """One problem document (RFC 9457). `more` are extension members; empty ones are left out."""
    title = _title(status)
    name = code or title.lower().replace(" ", "-")
    document = {
        "type": f"urn:pixr:problem:{name}",
        "title": title,
        "status": status,
        "detail": _cut(detail),
        "request_id": request_id(scope),
        "code": name,
    } | {key: _cut(value) if isinstance(value, str) else value for key, value in more.items() if value}
    given = dict(headers or {})
    given |= {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
    if status == HTTPStatus.UNAUTHORIZED:
        given.setdefault("WWW-Authenticate", 'Bearer realm="pixr"')
    if status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE):
        given.setdefault("Retry-After", str(math.ceil(RETRY_AFTER_S)))
    return Response(_json(document), status, given, media_type=MEDIA_TYPE)


def answer_to(request: Request, error: Exception) -> Response:
    """The answer to an error that a handler did not get to see, since the answer had begun."""
    return refusal(request.scope, error)


def refusal(scope: MutableMapping[str, Any], error: Exception, headers: Mapping[str, str] | None = None) -> Response:
    """The answer to an error, wherever it was raised, with more headers."""
    request = Request(scope)
    if isinstance(error, Rejected):
        response = _rejected(request, error)
    elif isinstance(error, Temporary):
        response = _temporary(request, error)
    else:
        response = (_database_away if isinstance(error, psycopg.OperationalError) else _bug)(request, error)
    response.headers.update(headers or {})
    return response


@contextmanager
def of_the_store(what: str) -> Iterator[None]:
    """What the store refuses, as a caller may know it: without addresses, which only the log has.

    Raises:
        Rejected: 404, there is no such thing; or what else was refused inside.
        Temporary: the store is shut to Pixr, about which the caller can do nothing; or away.
    """
    try:
        yield
    except Rejected as error:
        if error.status not in (HTTPStatus.NOT_FOUND, HTTPStatus.FORBIDDEN):
            raise
        seldom.warning(f"the store: {error}")
        if error.status == HTTPStatus.NOT_FOUND:
            raise Rejected(f"there is no such {what}", status=404, code="not-found") from error
        raise Temporary(f"the {what} cannot be read at present") from error


def _cut(text: str, chars_max: int = SAID_CHARS_MAX) -> str:
    return text if len(text) <= chars_max else f"{text[: chars_max - 1]}…"


def _json(document: Mapping[str, Any]) -> bytes:
    """What was asked may stand in it, also where it is no text."""
    try:
        return orjson.dumps(document)
    except TypeError:
        return json.dumps(document).encode()


def _title(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"


def _rejected(request: Request, error: Exception) -> Response:
    assert isinstance(error, Rejected)
    wait_s = getattr(error, "retry_after_s", None)
    headers = {"Retry-After": str(max(1, math.ceil(wait_s)))} if wait_s is not None else None
    return problem(request.scope, error.status, error.detail, code=error.code, headers=headers, hint=error.hint)


def _temporary(request: Request, error: Exception) -> Response:
    assert isinstance(error, Temporary)
    seldom.warning(f"unavailable: {error}", request_id(request.scope))
    headers = {"Retry-After": str(max(1, math.ceil(error.retry_after_s)))}
    return problem(request.scope, 503, error.public, code="temporary", headers=headers)


def _database_away(request: Request, error: Exception) -> Response:
    seldom.warning(f"database: {type(error).__name__}", request_id(request.scope))
    return problem(request.scope, 503, "the database does not answer in time", code="temporary")


def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    broken = next((each for each in error.errors() if each["type"] == "json_invalid"), None)
    if broken is not None:
        said = f"the body is no JSON: {broken['ctx']['error']} at character {broken['loc'][-1]}"
        return problem(request.scope, 400, said, code="malformed-json")
    fields = [
        {
            "where": _cut(".".join(str(part)[:WHERE_CHARS_MAX] for part in each["loc"]), WHERE_CHARS_MAX),
            "message": _cut(str(each["msg"]), WHERE_CHARS_MAX * 3),
        }
        for each in error.errors()[:FIELDS_SHOWN_MAX]
    ]
    first = fields[0] if fields else {"where": "request", "message": "not understood"}
    detail = f"{first['where']}: {first['message']}"
    return problem(request.scope, 422, detail, code="invalid", errors=fields)


def _no_text(request: Request, _: Exception) -> Response:
    return problem(request.scope, 422, "a text has half of a surrogate pair, which is no character", code="invalid")


def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return problem(request.scope, error.status_code, str(error.detail), headers=error.headers)


def _bug(request: Request, error: BaseException) -> Response:
    if getattr(request.app.state, "is_ending", False):  # what it works with is being closed
        return _temporary(request, Temporary(f"this replica ends ({type(error).__name__})", public="this replica ends"))
    log.error("unexpected %s", type(error).__name__, exc_info=error, extra={"request_id": request_id(request.scope)})
    # A bug is answered outside all that guards requests, so that nobody but Serve would stamp the answer.
    headers = {"X-Request-Id": request_id(request.scope)} if request.scope["state"].get("stamped", True) else {}
    detail = "something unexpected happened; the request id finds it in the logs"
    return problem(request.scope, 500, detail, headers=headers)


ANSWERS: dict[type[Exception], Callable[[Request, Exception], Response]] = {
    Rejected: _rejected,
    Temporary: _temporary,
    psycopg.OperationalError: _database_away,
    RequestValidationError: _invalid,
    UnicodeEncodeError: _no_text,
    HTTPException: _http,
    Exception: _bug,
}


def _here(answer: Callable[[Request, Exception], Response]) -> Callable[[Request, Exception], Awaitable[Response]]:
    """A handler that runs where the request does; a plain function would have a thread of its own for each answer."""

    async def handler(request: Request, error: Exception) -> Response:
        return answer(request, error)

    return handler


class Answered:
    """Answers a request that was not cancelled itself, but what it waited for was: by a replica that ends."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        has_begun = False

        async def noticed(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await self._app(scope, receive, noticed)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if scope["type"] != "http" or has_begun or task is None or task.cancelling():
                raise  # the caller has gone, or has a part of the answer
            await _bug(Request(scope), error)(scope, receive, send)


class RequestIds:
    """Takes a well-formed X-Request-Id or makes one, and sends it back with every answer unless somebody else does."""

    def __init__(self, app: ASGIApp, stamped: bool) -> None:
        self._app, self._stamped = app, stamped

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = dict(scope["headers"]).get(b"x-request-id", b"").decode("latin-1")
        name = given if REQUEST_ID.fullmatch(given) else secrets.token_hex(12)
        scope.setdefault("state", {}).update(request_id=name, stamped=self._stamped)

        async def stamped(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["X-Content-Type-Options"] = "nosniff"
                if self._stamped:
                    headers["X-Request-Id"] = name
            await send(message)

        await self._app(scope, receive, stamped)
