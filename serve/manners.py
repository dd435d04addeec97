"""HTTP manners that are the same for every route: HEAD, OPTIONS, Allow, ETag, compression, and who may keep an answer.

A HEAD is answered by its GET, whose body is thrown away; what it would have shown earns nothing (`is_head`). An answer that
comes in one piece gets an entity tag (weak: it is the same however it is compressed) and is compressed where it is large
and the client takes gzip. Streams pass as they are. Knows nothing of what is answered.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import ipaddress
from collections.abc import Mapping, Sequence

from fastapi import Request
from fastapi.responses import Response
from starlette.datastructures import Headers, MutableHeaders
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.settings import SearchSettings

OWN_HEAD = "/media/"  # a presigned link holds for one method, so these routes know which it is
TAGGED = ("/v1/", "/openapi.json")
NOT_TAGGED = ("/v1/search", "/v1/feed")  # have a tag of their own: their answers say how long they took
PAID, PAID_ENDING = "/v1/search", "/similar"  # what these answer with may have earned by being shown
COMPRESSED = ("application/json", "application/problem+json", "text/", "image/svg+xml")
STREAMED = "text/event-stream"
THREAD_BYTES_MIN = 128 * 1024  # from here on compressing takes milliseconds, which others have meanwhile
DIGEST_BYTES = 12


class Manners:
    """The middleware; `routes` are the application's."""

    def __init__(self, app: ASGIApp, search: SearchSettings, routes: Sequence[BaseRoute]) -> None:
        self._app, self._search, self._routes = app, search, routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if scope["method"] == "OPTIONS" and (methods := allowed(self._routes, scope)):
            await Response(status_code=204, headers={"Allow": methods})(scope, receive, send)
            return
        inner = scope
        if scope["method"] == "HEAD" and not scope["path"].startswith(OWN_HEAD):
            state = scope.setdefault("state", {})
            state["head"] = True
            inner = {**scope, "method": "GET"}
        reply = _Reply(scope, send, self._search, self._routes)
        await self._app(inner, receive, reply.send)


def is_head(request: Request) -> bool:
    """Does nobody see what this request is answered with?"""
    return bool(request.scope.get("state", {}).get("head"))


def is_from_another_site(request: Request, origins: Sequence[str]) -> bool:
    """Has a page that is neither ours nor of `origins` made a browser ask, as an `<img>` there does?

    Browsers say so; programs do not. `Sec-Fetch-Site` is sent to HTTPS and loopback alone and is its own word: another
    name of the same site is another's page too. Over plain HTTP the origin says it, and where a request has none the referrer.
    """
    headers = request.headers
    site, origin = headers.get("sec-fetch-site", "").strip().lower(), headers.get("origin", "")
    if {"*", origin} & set(origins):
        return False
    if site:
        return site not in ("same-origin", "none")
    page = origin or headers.get("referer", "")
    return bool(page) and (_host(page) or page) != _host(f"//{headers.get('host', '')}")


def is_browser_by_name(request: Request) -> bool:
    """Does a browser ask by a name? Anybody can let theirs lead here, and a page under it then reads what we answer.

    IP addresses and `localhost` are nobody's to point elsewhere; programs, which ask by names too, run no pages.
    """
    headers = request.headers
    is_browser = headers.get("user-agent", "").startswith("Mozilla/") or "origin" in headers
    if not is_browser and not any(name.startswith("sec-fetch-") for name in headers):
        return False
    host = _host(f"//{headers.get('host', '')}")
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return name != "localhost"
    return False


def _host(address: str) -> str:
    """Host and port of an address; empty for one without a host (`null`). The scheme's own port, which a proxy may add or
    leave out, does not count, nor does the scheme, which a proxy changes.
    """
    host = address.partition("//")[2].partition("/")[0].lower()
    return host.removesuffix(":80").removesuffix(":443")


def allowed(routes: Sequence[BaseRoute], scope: Scope) -> str:
    """All methods of a path, as the header `Allow` names them; empty where no route has it."""
    found: set[str] = set()
    for route in routes:
        if route.matches(scope)[0] is not Match.NONE:
            found |= getattr(route, "methods", None) or set()
    if "GET" in found:
        found.add("HEAD")
    return ", ".join(sorted(found | {"OPTIONS"})) if found else ""


def tag(*parts: bytes) -> str:
    """A weak entity tag of what an answer consists of."""
    digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
    for part in parts:
        digest.update(len(part).to_bytes(8) + part)
    return f'W/"{digest.hexdigest()}"'


class _Reply:
    """One answer on its way out: its head is held back until its body says what the head must be."""

    def __init__(self, scope: Scope, send: Send, search: SearchSettings, routes: Sequence[BaseRoute]) -> None:
        self._scope, self._send, self._search, self._routes = scope, send, search, routes
        self._asked = Headers(scope=scope)
        self._start: Message | None = None

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._start = message
            return
        if message["type"] != "http.response.body":
            await self._send(message)
            return
        start, self._start = self._start, None
        if start is not None:
            is_whole = not message.get("more_body", False)
            message = await self._completed(start, message) if is_whole else self._headed(start, message)
            await self._send(start)
        if self._scope["method"] == "HEAD":
            message = {**message, "body": b""}
        await self._send(message)

    def _headed(self, start: Message, message: Message) -> Message:
        """The first part of a stream."""
        self._said(MutableHeaders(scope=start), start["status"])
        return message

    async def _completed(self, start: Message, message: Message) -> Message:
        """The body of an answer that is whole, as it is sent; its head is put right."""
        headers, body = MutableHeaders(scope=start), message.get("body", b"")
        self._said(headers, start["status"])
        if start["status"] == 200 and self._is_tagged() and "etag" not in headers:
            headers["ETag"] = tag(body)
        if start["status"] == 200 and self._is_known(headers.get("etag", "")):
            start["status"] = 304
            del headers["content-length"], headers["content-type"]
            return {**message, "body": b""}
        if _is_compressed(headers) and len(body) >= self._search.gzip_min_bytes:
            headers.add_vary_header("Accept-Encoding")
            if _takes_gzip(self._asked):
                body = await self._compressed(body)
                headers["Content-Encoding"], headers["Content-Length"] = "gzip", str(len(body))
        return {**message, "body": body}

    async def _compressed(self, body: bytes) -> bytes:
        level = self._search.gzip_level
        if len(body) < THREAD_BYTES_MIN:
            return gzip.compress(body, level, mtime=0)
        return await asyncio.to_thread(gzip.compress, body, level, mtime=0)

    def _said(self, headers: MutableHeaders, status: int) -> None:
        """Who may keep the answer, by what it differs, and what else can be asked here."""
        if status == 405 and (methods := allowed(self._routes, self._scope)):
            headers["Allow"] = methods
        path, reads = self._scope["path"], self._scope["method"] in ("GET", "HEAD")
        if "cache-control" not in headers:
            private = "private, no-cache" if path.startswith("/v1/") else "no-cache"
            headers["Cache-Control"] = private if reads and status < 400 else "no-store"
        if path.startswith("/v1/"):
            headers.add_vary_header("Authorization, X-API-Key")

    def _is_tagged(self) -> bool:
        path = self._scope["path"]
        return self._scope["method"] in ("GET", "HEAD") and path.startswith(TAGGED) and not path.startswith(NOT_TAGGED)

    def _is_known(self, etag: str) -> bool:
        """Has the client this very answer?"""
        given = self._asked.get("if-none-match", "")
        if not etag or not given or self._scope["method"] not in ("GET", "HEAD"):
            return False
        if given.strip() == "*":  # names an answer that nobody has seen, so not one that pays
            return not (self._scope["path"].startswith(PAID) or self._scope["path"].endswith(PAID_ENDING))
        return _opaque(etag) in {_opaque(each) for each in given.split(",")}


def _opaque(etag: str) -> str:
    """What of a tag is compared (RFC 9110, 13.1.2: weakly)."""
    return etag.strip().removeprefix("W/")


def _is_compressed(headers: Mapping[str, str]) -> bool:
    kind = headers.get("content-type", "")
    return kind.startswith(COMPRESSED) and not kind.startswith(STREAMED) and "content-encoding" not in headers


def _takes_gzip(headers: Mapping[str, str]) -> bool:
    """Does the client say that it takes gzip, and not with a quality of 0?"""
    for part in headers.get("accept-encoding", "").split(","):
        name, _, quality = part.replace(" ", "").lower().partition(";q=")
        if name in ("gzip", "*"):
            return quality.rstrip("0").rstrip(".") not in ("0", "") or not quality
    return False
