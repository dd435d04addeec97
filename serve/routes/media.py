"""`/media/…`: signed links to pictures and videos, each of which redirects to the object in the store.

A link is good until it expires, unless its video has been taken down or made private since: each redirect asks `Sources`. A
link to the store that was given before stays good for `object_link_expires_s` at most. The store sends the bytes, with
ranges and conditional requests, so that no replica holds a place while a video plays.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import Response

from cluster import presign
from cluster.errors import Rejected
from serve.media import links, objects
from serve.media.sources import Sources
from serve.routes.routing import Route
from serve.routes.services import Services

KEPT_MAX_S = 60  # for which a browser may keep a redirect
Id = Annotated[int, Path(ge=1, le=2**63 - 1)]
Expires = Annotated[int, Query(ge=0, le=2**53)]
Signature = Annotated[str, Query(max_length=64)]
Private = Annotated[bool, Query()]
REDIRECTS: dict[int | str, dict[str, object]] = {307: {"description": "Where the object is, by a link that expires"}}


def router(services: Services) -> APIRouter:
    """Return the routes over one replica's services."""
    routes = APIRouter(prefix="/media", tags=["media"], route_class=Route)
    settings, endpoint = services.settings, services.storage.endpoint
    sources = Sources(services.readers, services.generation, services.search.sources_kept_max)
    kept_s = min(
        KEPT_MAX_S, services.search.object_link_expires_s // presign.STEPS
    )  # the link then lasts longer than it is kept

    def redirect(request: Request, uri: str, content_type: str) -> Response:
        host = request.headers.get("host", "")
        where = objects.location(settings, endpoint, uri, host=host, content_type=content_type, method=request.method)
        headers = {"Location": where, "Cache-Control": f"private, max-age={kept_s}", "Vary": "Host"}
        return Response(status_code=307, headers=headers)

    @routes.head("/thumbnails/{segment_id}", include_in_schema=False)
    @routes.get("/thumbnails/{segment_id}", status_code=307, response_class=Response, responses=REDIRECTS)
    async def thumbnail(
        request: Request, segment_id: Id, expires: Expires, signature: Signature, private: Private = False
    ) -> Response:
        """The picture of a moment (WebP)."""
        links.check(settings, request.url.path, expires, signature, private=private)
        picture = await sources.picture(segment_id, private=private)
        if picture is None:
            raise Rejected("there is no such picture", status=404, code="not-found")
        return redirect(request, picture.uri, "image/webp")

    @routes.head("/videos/{video_id}", include_in_schema=False)
    @routes.get("/videos/{video_id}", status_code=307, response_class=Response, responses=REDIRECTS)
    async def video(
        request: Request, video_id: Id, expires: Expires, signature: Signature, private: Private = False
    ) -> Response:
        """A video; the store answers ranges of it."""
        links.check(settings, request.url.path, expires, signature, private=private)
        source = await sources.video(video_id, private=private)
        if source is None:
            raise Rejected("there is no such video", status=404, code="not-found")
        return redirect(request, source.uri, links.content_type(source.uri))

    return routes
