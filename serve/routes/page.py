"""The web page at `/` and the documentation at `/docs`: static files, read once when the routes are made.

Their headers keep a browser from asking any other site. Knows nothing of what the pages show.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from fastapi import APIRouter, Request
from fastapi.responses import Response

from serve.access import viewers
from serve.media import objects
from serve.routes.services import Services

WEB = Path(__file__).parents[1] / "web"
FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/web/style.css": ("style.css", "text/css; charset=utf-8"),
    "/web/app.js": ("app.js", "text/javascript; charset=utf-8"),
    "/web/icon.svg": ("icon.svg", "image/svg+xml"),
    "/favicon.ico": (
        "icon.svg",
        "image/svg+xml",
    ),  # browsers ask for it whatever a page says; none needs another format
    "/robots.txt": ("robots.txt", "text/plain; charset=utf-8"),
    "/docs": ("docs.html", "text/html; charset=utf-8"),
    "/web/docs.css": ("docs.css", "text/css; charset=utf-8"),
    "/web/docs.js": ("docs.js", "text/javascript; charset=utf-8"),
}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src {media}; media-src {media}; connect-src 'self';"
    " form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


@dataclass(frozen=True)
class File:
    """A static file as it is sent."""

    content: bytes
    media_type: str
    etag: str


def router(services: Services) -> APIRouter:
    """Return the routes. A browser that opens the page gets a signed cookie, by which it is one viewer from then on."""
    routes = APIRouter(include_in_schema=False)
    viewer_key = viewers.key_of(services.settings)
    media = f"'self' {objects.public_origin(services.settings.s3)}".strip()  # where pictures and videos are loaded from
    guard = HEADERS | {"Content-Security-Policy": POLICY.format(media=media)}
    files = {path: _read(name, media_type) for path, (name, media_type) in FILES.items()}

    async def static(request: Request) -> Response:
        file = files[request.url.path]
        headers = guard | {"ETag": file.etag}
        if request.headers.get("if-none-match") == file.etag:
            answer = Response(status_code=304, headers=headers)
        else:
            answer = Response(file.content, headers=headers, media_type=file.media_type)
        if request.url.path == "/" and viewers.of(request, None, viewer_key).kind != "cookie":
            answer.set_cookie(
                viewers.COOKIE,
                viewers.new_cookie(viewer_key),
                max_age=viewers.COOKIE_MAX_AGE_S,
                httponly=True,
                samesite="lax",
                secure=request.url.scheme == "https",
            )
        return answer

    for path in files:
        routes.add_api_route(path, static, methods=["GET", "HEAD"], response_class=Response)
    return routes


def _read(name: str, media_type: str) -> File:
    content = (WEB / name).read_bytes()
    return File(content, media_type, f'W/"{hashlib.sha256(content).hexdigest()[:32]}"')
