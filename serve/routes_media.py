"""`/media/…`: pictures and videos behind signed links, with ranges, read from S3 piece by piece and never held whole.

A link opens what it names until it expires, unless the video has been taken down or made private since.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import Response, StreamingResponse

from cluster.errors import Rejected
from cluster.storage import StoredObject
from pipelines import videos
from serve import media, problems
from serve.media import Span
from serve.services import Services

PIECE_BYTES = 1024 * 1024
PICTURE_BYTES_MAX = 4 * 1024 * 1024
CACHE_CONTROL = "private, max-age=3600"
Id = Annotated[int, Path(ge=1, le=2**63 - 1)]
Expires = Annotated[int, Query(ge=0, le=2**53)]
Signature = Annotated[str, Query(max_length=64)]
Private = Annotated[bool, Query()]


def router(services: Services) -> APIRouter:
    """The routes over one deployment's services."""
    routes = APIRouter(prefix="/media", tags=["media"])

    @routes.head("/thumbnails/{segment_id}", include_in_schema=False)
    @routes.get(
        "/thumbnails/{segment_id}",
        response_class=Response,
        responses={200: {"content": {"image/webp": {}}}, 304: {"description": "Not modified"}},
    )
    async def thumbnail(
        request: Request, segment_id: Id, expires: Expires, signature: Signature, private: Private = False
    ) -> Response:
        """The picture of a moment."""
        media.check(services.settings, request.url.path, expires, signature, private=private)
        picture = await services.readers.primary(lambda connection: videos.picture(connection, segment_id))
        if picture is None or picture.uri is None or (picture.visibility == "private" and not private):
            raise Rejected("there is no such picture", status=404, code="not-found")
        with problems.of_the_store("picture"):
            data = await services.objects.run(services.storage.read, picture.uri, 0, PICTURE_BYTES_MAX)
        headers = _headers(f'"{hashlib.sha256(data).hexdigest()[:32]}"')
        if _unchanged(request, headers["ETag"]):
            return Response(status_code=304, headers=headers)
        return Response(data, headers=headers, media_type="image/webp")

    @routes.head("/videos/{video_id}", include_in_schema=False)
    @routes.get(
        "/videos/{video_id}",
        response_class=Response,
        responses={
            200: {"content": {"video/mp4": {}}},
            206: {"content": {"video/mp4": {}}, "description": "Partial content"},
            304: {"description": "Not modified"},
        },
    )
    async def video(
        request: Request, video_id: Id, expires: Expires, signature: Signature, private: Private = False
    ) -> Response:
        """A video, or the part of it that a Range header names."""
        media.check(services.settings, request.url.path, expires, signature, private=private)
        found = await services.readers.primary(lambda connection: videos.get(connection, video_id))
        if found is None or found.status != "ready" or (found.visibility == "private" and not private):
            raise Rejected("there is no such video", status=404, code="not-found")
        with problems.of_the_store("video"):
            stored = await services.objects.run(services.storage.info, found.playback_uri or found.source_uri)
            return await _part(request, services, stored)

    return routes


async def _part(request: Request, services: Services, stored: StoredObject) -> Response:
    headers = _headers(f'"{hashlib.sha256(stored.etag.encode()).hexdigest()[:32]}"')
    headers["Accept-Ranges"] = "bytes"
    media_type = media.content_type(stored.uri)
    if _unchanged(request, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    try:
        asked = media.span(request.headers.get("range"), stored.size) if _current(request, headers["ETag"]) else None
    except Rejected:
        return Response(status_code=416, headers=headers | {"Content-Range": f"bytes */{stored.size}"})
    span = asked or Span(0, stored.size, stored.size)
    headers["Content-Length"] = str(span.end - span.start)
    if asked:
        headers["Content-Range"] = asked.content_range
    status = 206 if asked else 200
    if request.method == "HEAD" or span.start == span.end:
        return Response(status_code=status, headers=headers, media_type=media_type)
    # Read before the status is sent: an object that is gone becomes a clean error.
    end = min(span.start + PIECE_BYTES, span.end)
    first = await services.objects.run(services.storage.read, stored.uri, span.start, end)
    return StreamingResponse(_pieces(services, stored.uri, span, first), status, headers, media_type)


async def _pieces(services: Services, uri: str, span: Span, first: bytes) -> AsyncIterator[bytes]:
    yield first
    for start in range(span.start + len(first), span.end, PIECE_BYTES):
        yield await services.objects.run(services.storage.read, uri, start, min(start + PIECE_BYTES, span.end))


def _headers(etag: str) -> dict[str, str]:
    return {"ETag": etag, "Cache-Control": CACHE_CONTROL, "X-Content-Type-Options": "nosniff"}


def _unchanged(request: Request, etag: str) -> bool:
    known = request.headers.get("if-none-match", "")
    return known == "*" or etag in [name.strip().removeprefix("W/") for name in known.split(",")]


def _current(request: Request, etag: str) -> bool:
    """Whether a range may be answered: without If-Range always, with it only for this very content."""
    condition = request.headers.get("if-range")
    return condition is None or condition == etag
