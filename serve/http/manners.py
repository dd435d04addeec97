"""HTTP rules that are the same for every route: HEAD, OPTIONS, Allow, ETag, compression, Cache-Control, Vary.

A HEAD request is answered by its GET route, whose body is thrown away; a search by HEAD earns nothing (`is_head`). A
response that is sent as a whole gets an entity tag (a weak one, since it does not depend on the compression), and is
compressed when it is large and the client accepts gzip. Streams pass unchanged. Knows nothing of a response's content.
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

OWN_HEAD = "/media/"  # these routes handle HEAD themselves: a presigned link is valid for one method only
TAGGED = ("/v1/", "/openapi.json")
NOT_TAGGED = ("/v1/search", "/v1/feed")  # these make their own tags, since each response has another `took_ms`
PAID, PAID_ENDING = "/v1/search", "/similar"  # paths whose responses may earn
COMPRESSED = ("application/json", "application/problem+json", "text/", "image/svg+xml")
STREAMED = "text/event-stream"
THREAD_BYTES_MIN = 128 * 1024  # from this size on, compressing takes milliseconds and is done in a thread
DIGEST_BYTES = 12


class Manners:
    """Middleware that applies the rules of this module. `routes` are the application's; they tell the methods of a path."""

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
    """Return whether the request is a HEAD, so that nobody sees the body of the response."""
    return bool(request.scope.get("state", {}).get("head"))


def is_from_another_site(request: Request, origins: Sequence[str]) -> bool:
    """Return whether a page that is neither ours nor of `origins` made a browser send the request (e.g. by an `<img>`).

    Browsers tell this in headers; a request without them is taken for a program's. To HTTPS and loopback addresses
    browsers send `Sec-Fetch-Site`, which alone decides: a page on another host name of the same site then counts as
    another site's. Over plain HTTP the Origin decides, or without one the Referer.
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
    """Return whether a browser sent the request to a host name other than `localhost`.

    Any site can point a host name of its own to this address; its page could then read the responses (DNS rebinding).
    An IP address or `localhost` cannot be pointed elsewhere. Programs may use host names too, but they run no pages.
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
    """Return the host and port in the URL of a page; empty for a URL without a host (`null`).

    The scheme and the default ports are left out, since a proxy may change them.
    """
    host = address.partition("//")[2].partition("/")[0].lower()
    return host.removesuffix(":80").removesuffix(":443")


def allowed(routes: Sequence[BaseRoute], scope: Scope) -> str:
    """Return all methods of a path, for the header `Allow`; empty where no route has the path."""
    methods: set[str] = set()
    for route in routes:
        if route.matches(scope)[0] is not Match.NONE:
            methods |= getattr(route, "methods", None) or set()
    if "GET" in methods:
        methods.add("HEAD")
    return ", ".join(sorted(methods | {"OPTIONS"})) if methods else ""


def tag(*parts: bytes) -> str:
    """Return a weak entity tag of the parts that a response consists of."""
    digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
    for part in parts:
        digest.update(len(part).to_bytes(8) + part)
    return f'W/"{digest.hexdigest()}"'


class _Reply:
    """One response. Its headers are held back until the body begins, since some of them depend on it."""

    def __init__(self, scope: Scope, send: Send, search: SearchSettings, routes: Sequence[BaseRoute]) -> None:
        self._scope, self._send, self._search, self._routes = scope, send, search, routes
        self._request_headers = Headers(scope=scope)
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
            if is_whole:
                message = await self._completed(start, message)
            else:  # the first part of a stream
                self._set_headers(MutableHeaders(scope=start), start["status"])
            await self._send(start)
        if self._scope["method"] == "HEAD":
            message = {**message, "body": b""}
        await self._send(message)

    async def _completed(self, start: Message, message: Message) -> Message:
        """Set the headers of a response that is sent as a whole, and return its body as it is sent.

        The body is empty for a 304. It is compressed if it is large enough and the client accepts gzip.
        """
        headers, body = MutableHeaders(scope=start), message.get("body", b"")
        self._set_headers(headers, start["status"])
        if start["status"] == 200 and self._is_tagged() and "etag" not in headers:
            headers["ETag"] = tag(body)
        if start["status"] == 200 and self._is_known(headers.get("etag", "")):
            start["status"] = 304
            del headers["content-length"], headers["content-type"]
            return {**message, "body": b""}
        if _is_compressed(headers) and len(body) >= self._search.gzip_min_bytes:
            headers.add_vary_header("Accept-Encoding")
            if _takes_gzip(self._request_headers):
                body = await self._compressed(body)
                headers["Content-Encoding"], headers["Content-Length"] = "gzip", str(len(body))
        return {**message, "body": body}

    async def _compressed(self, body: bytes) -> bytes:
        level = self._search.gzip_level
        if len(body) < THREAD_BYTES_MIN:
            return gzip.compress(body, level, mtime=0)
        return await asyncio.to_thread(gzip.compress, body, level, mtime=0)

    def _set_headers(self, headers: MutableHeaders, status: int) -> None:
        """Set Cache-Control and Vary unless the route did, and Allow for a 405."""
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
        """Return whether the client has this response already (If-None-Match)."""
        condition = self._request_headers.get("if-none-match", "")
        if not etag or not condition or self._scope["method"] not in ("GET", "HEAD"):
            return False
        if condition.strip() == "*":  # does not show that the client has seen a response, so not where one may earn
            return not (self._scope["path"].startswith(PAID) or self._scope["path"].endswith(PAID_ENDING))
        return _opaque(etag) in {_opaque(known) for known in condition.split(",")}


def _opaque(etag: str) -> str:
    """Return the part of a tag that is compared (weak comparison: RFC 9110, 8.8.3.2)."""
    return etag.strip().removeprefix("W/")


def _is_compressed(headers: Mapping[str, str]) -> bool:
    """Return whether a response can be compressed: its type is among `COMPRESSED`, and it has no encoding yet."""
    kind = headers.get("content-type", "")
    return kind.startswith(COMPRESSED) and not kind.startswith(STREAMED) and "content-encoding" not in headers


def _takes_gzip(headers: Mapping[str, str]) -> bool:
    """Return whether the client accepts gzip (or anything) with a quality other than 0."""
    for part in headers.get("accept-encoding", "").split(","):
        name, _, quality = part.replace(" ", "").lower().partition(";q=")
        if name in ("gzip", "*"):
            return quality.rstrip("0").rstrip(".") not in ("0", "") or not quality
    return False
