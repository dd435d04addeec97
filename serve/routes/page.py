"""The web page at `/` and the documentation at `/docs`: static files, read once when the routes are made.

Their headers keep a browser from loading anything from other sites. If another site has led a browser to the web page,
the page is told so: the search that it then makes by itself must not earn anything. Knows nothing of what the pages
show.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from fastapi import APIRouter, Request
from fastapi.responses import Response

from serve.access import viewers
from serve.http import manners
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
    "Cross-Origin-Opener-Policy": "same-origin",  # who opened the page cannot steer it
}
PAGE = "/"
# The page's root element, and how it says that another site has led here.
ROOT, LED_FROM_ELSEWHERE = b'<html lang="en">', b'<html lang="en" data-led-from-elsewhere>'
TOLD_BY = "Sec-Fetch-Site, Origin, Referer"  # as `manners.is_from_another_site` judges


@dataclass(frozen=True)
class File:
    """A static file as it is sent."""

    content: bytes
    media_type: str
    etag: str


def router(services: Services) -> APIRouter:
    """Return the routes. A browser that opens the page gets a signed cookie, which identifies it as a viewer."""
    routes = APIRouter(include_in_schema=False)
    viewer_key = viewers.key_of(services.settings)
    media = f"'self' {objects.public_origin(services.settings.s3)}".strip()  # where pictures and videos are loaded from
    guard = HEADERS | {"Content-Security-Policy": POLICY.format(media=media)}
    files = {path: _read(name, media_type) for path, (name, media_type) in FILES.items()}
    assert files[PAGE].content.count(ROOT) == 1
    led = _file(files[PAGE].content.replace(ROOT, LED_FROM_ELSEWHERE), files[PAGE].media_type)

    async def static(request: Request) -> Response:
        file, headers = files[request.url.path], guard
        if request.url.path == PAGE:
            headers = guard | {"Vary": TOLD_BY}
            file = led if manners.is_from_another_site(request, services.search.cors_origins) else file
        headers = headers | {"ETag": file.etag}
        if request.headers.get("if-none-match") == file.etag:
            answer = Response(status_code=304, headers=headers)
        else:
            answer = Response(file.content, headers=headers, media_type=file.media_type)
        if request.url.path == PAGE and viewers.of(request, None, viewer_key).kind != "cookie":
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
    return _file((WEB / name).read_bytes(), media_type)


def _file(content: bytes, media_type: str) -> File:
    return File(content, media_type, f'W/"{hashlib.sha256(content).hexdigest()[:32]}"')
