"""Error responses of the HTTP interface: `application/problem+json` (RFC 9457), always with a request id.

Rejected     → its own status; the hint says what to do
Temporary    → 503 with Retry-After, without the address of what is away; the same for a database that is away
validation   → 422 with one line per field; also for half of a surrogate pair, which JSON allows and UTF-8 does not
anything else is a bug: logged with its traceback, answered with 500 and no detail

When a replica ends, work that a request waits for may be cancelled although the request is not; such a request gets a
response too. This module also adds what every response carries: the request id, and CORS headers.
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
from cluster.observability.seldom import Seldom

log = logging.getLogger(__name__)
seldom = Seldom(log)

MEDIA_TYPE = "application/problem+json"
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
FIELDS_SHOWN_MAX = 20  # of the fields of a body that are wrong
# Bounds on texts that callers may have written: the door can resend a document only if it fits into one of its buffers.
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
    """Give an application its error responses, request ids and CORS; middleware that is added later wraps these.

    With `stamped`, responses carry their request id. Behind Serve `stamped` is False, since Serve adds the id.
    """
    for kind, answer in ANSWERS.items():
        app.add_exception_handler(kind, _in_loop(answer))
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
    """Return the id of a request; empty where the middleware `RequestIds` did not run."""
    return str(scope.get("state", {}).get("request_id", ""))


def problem(
    scope: Mapping[str, Any],
    status: int,
    detail: str,
    *,
    code: str = "",
    headers: Mapping[str, str] | None = None,
    **members: Any,
) -> Response:
    """Make a response with a problem document (RFC 9457).

    Args:
        scope: The request's, for its id.
        status: The HTTP status.
        detail: What is wrong, for people.
        code: The last part of the document's `type`; by default the status's phrase in kebab case.
        headers: Further headers.
        members: Further members of the document, such as `hint`; empty ones are left out.

    Returns:
        The response.
    """
    title = _title(status)
    name = code or title.lower().replace(" ", "-")
    document = {
        "type": f"urn:pixr:problem:{name}",
        "title": title,
        "status": status,
        "detail": _cut(detail),
        "request_id": request_id(scope),
        "code": name,
    } | {key: _cut(value) if isinstance(value, str) else value for key, value in members.items() if value}
    sent = dict(headers or {}) | {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
    if status == HTTPStatus.UNAUTHORIZED:
        sent.setdefault("WWW-Authenticate", 'Bearer realm="pixr"')
    if status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE):
        sent.setdefault("Retry-After", str(math.ceil(RETRY_AFTER_S)))
    return Response(_json(document), status, sent, media_type=MEDIA_TYPE)


def answer_to(request: Request, error: Exception) -> Response:
    """Make the response to an error that was raised outside of FastAPI's error handlers."""
    return refusal(request.scope, error)


def refusal(scope: MutableMapping[str, Any], error: Exception, headers: Mapping[str, str] | None = None) -> Response:
    """Make the response to an error, wherever it was raised, with further headers."""
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
    """Turn the object store's refusals inside the block into errors that callers may see; addresses go to the log only.

    `what` is the noun of the object, e.g. `picture`.

    Raises:
        Rejected: 404, the object does not exist; or the store refused for another reason.
        Temporary: the store is away, or denies Pixr access, which the caller cannot change.
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
    """Shorten a text to `chars_max` characters."""
    return text if len(text) <= chars_max else f"{text[: chars_max - 1]}…"


def _json(document: Mapping[str, Any]) -> bytes:
    """Return a document as JSON; texts with lone surrogates, which orjson refuses, are escaped."""
    try:
        return orjson.dumps(document)
    except TypeError:
        return json.dumps(document).encode()


def _title(status: int) -> str:
    """Return the phrase of a status."""
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
    broken = next((fault for fault in error.errors() if fault["type"] == "json_invalid"), None)
    if broken is not None:
        detail = f"the body is no JSON: {broken['ctx']['error']} at character {broken['loc'][-1]}"
        return problem(request.scope, 400, detail, code="malformed-json")
    fields = [
        {
            "where": _cut(".".join(str(part)[:WHERE_CHARS_MAX] for part in fault["loc"]), WHERE_CHARS_MAX),
            "message": _cut(str(fault["msg"]), WHERE_CHARS_MAX * 3),
        }
        for fault in error.errors()[:FIELDS_SHOWN_MAX]
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
    if getattr(request.app.state, "is_ending", False):  # its connections are being closed
        return _temporary(request, Temporary(f"this replica ends ({type(error).__name__})", public="this replica ends"))
    log.error("unexpected %s", type(error).__name__, exc_info=error, extra={"request_id": request_id(request.scope)})
    # Starlette answers a bug outside of all middleware, so that `RequestIds` does not add the id.
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


def _in_loop(answer: Callable[[Request, Exception], Response]) -> Callable[[Request, Exception], Awaitable[Response]]:
    """Return a handler that runs in the event loop; Starlette would run a plain function in a thread."""

    async def handler(request: Request, error: Exception) -> Response:
        return answer(request, error)

    return handler


class Answered:
    """Middleware that answers a request whose work is cancelled because the replica ends.

    It does so only if the request itself was not cancelled and no part of the response was sent.
    """

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
                raise  # the request itself was cancelled, or a part of the response was sent
            await _bug(Request(scope), error)(scope, receive, send)


class RequestIds:
    """Middleware that gives each request an id: a valid X-Request-Id that the client sent, or else a new one.

    The response carries the id. With `stamped` False this is left to Ray Serve, which adds the id itself.
    """

    def __init__(self, app: ASGIApp, stamped: bool) -> None:
        self._app, self._stamped = app, stamped

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        sent = dict(scope["headers"]).get(b"x-request-id", b"").decode("latin-1")
        name = sent if REQUEST_ID.fullmatch(sent) else secrets.token_hex(12)
        scope.setdefault("state", {}).update(request_id=name, stamped=self._stamped)

        async def stamped(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["X-Content-Type-Options"] = "nosniff"
                if self._stamped:
                    headers["X-Request-Id"] = name
            await send(message)

        await self._app(scope, receive, stamped)
