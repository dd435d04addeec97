"""`/v1/videos/…` and `/v1/segments/{id}`: list videos, read one and its moments, change it, take it down.

Public videos that are ready are open to all, unlisted ones to callers who know their public id. All others are for keys
that may act for their creator; for every other caller they do not exist (404).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request
from psycopg import Connection
from pydantic import BaseModel, ConfigDict, Field, model_validator

from cluster.errors import Rejected
from cluster.settings import Settings
from pipelines import takedown
from pipelines.catalog import catalog, listing, videos
from pipelines.catalog.listing import Seen
from pipelines.catalog.videos import Moment
from serve.access import keys
from serve.access.keys import Principal
from serve.http import texts
from serve.media import links
from serve.routes.pages import Cursor, Pages
from serve.routes.routing import Route
from serve.routes.services import Services
from serve.search import ids
from serve.search.ids import SegmentId, VideoId
from serve.search.moments import Segment

Visibility = Literal["public", "unlisted", "private"]
Status = Literal["queued", "processing", "ready", "failed", "quarantined", "removed"]
NEWEST: Literal["-created_at"] = "-created_at"
LISTED_MAX = 100


class Video(BaseModel):
    """One video, at any stage of its ingest. `error` says why it failed; None for callers who may not change it."""

    id: str
    public_id: str
    creator_id: str
    creator_public_id: str
    creator: str
    title: str
    description: str
    tags: list[str]
    language: str
    duration_ms: int | None
    width: int | None
    height: int | None
    fps: float | None
    has_audio: bool | None
    visibility: Visibility
    status: Status
    error: str | None = None
    error_code: str | None = None
    warning: str | None = None
    attempts: int | None = None
    source_uri: str | None = None
    repost_of: str | None = Field(
        default=None,
        description="The public id of the first public video of another creator that is the same file; then this one earns "
        "nothing, unless `repost_accepted`. Both are told to those who may change the video.",
    )
    repost_accepted: bool | None = None
    segments: int
    created_at: str
    ready_at: str | None


class Segments(BaseModel):
    segments: list[Segment]
    total: int
    next_cursor: str | None


class Videos(BaseModel):
    """A page of videos; `total` counts what the caller sees of them, up to 100,000."""

    videos: list[Video]
    total: int
    next_cursor: str | None


class Wanted(BaseModel):
    """Which videos to list, and in which order. A cursor carries all of these fields but `limit`."""

    model_config = ConfigDict(extra="forbid")
    creator: Annotated[
        str, Field(max_length=200, pattern=texts.LINE, description="An id, a public id or a handle.")
    ] = ""
    status: Status | None = None
    visibility: Visibility | None = None
    tag: texts.SoughtTag = ""
    sort: Literal["created_at", "-created_at", "title", "-title", "duration", "-duration"] = NEWEST
    cursor: Annotated[str | None, Field(max_length=4096)] = None
    limit: Annotated[int, Field(ge=1, le=LISTED_MAX)] = 20


class Change(BaseModel):
    """The fields to change; those that are left out stay as they are."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"visibility": "private"}], "minProperties": 1}
    )
    title: texts.Title | None = None
    description: texts.Description | None = None
    tags: texts.Tags | None = None
    visibility: Visibility | None = None
    language: texts.Language | None = None
    repost_accepted: bool | None = Field(
        default=None, description="Whether it earns although another creator's video is the same file. Scope admin."
    )

    @model_validator(mode="after")
    def _something(self) -> Change:
        if not self.model_dump(exclude_none=True):
            raise ValueError(
                "nothing to change; give title, description, tags, visibility, language or repost_accepted"
            )
        return self


class Removed(BaseModel):
    id: str
    public_id: str
    status: Literal["removed"]


def router(services: Services) -> APIRouter:
    """Return the routes over one replica's services."""
    routes = APIRouter(prefix="/v1", tags=["videos"], route_class=Route)
    anybody = Depends(keys.optional(services))
    needs_key = Depends(keys.require(services, "ingest", "creator"))
    listed, parts = Pages(services, "videos"), Pages(services, "segments")

    @routes.get("/videos", response_model=Videos)
    async def list_videos(
        request: Request, wanted: Annotated[Wanted, Query()], caller: Principal | None = anybody
    ) -> Any:
        """Videos, the newest first: public ones that are ready, and all videos of creators whom the key may act for."""
        place = listed.start(wanted.cursor, wanted.model_dump(exclude={"cursor", "limit"}, exclude_unset=True))
        filters = {name: value for name, value in place.filters.items() if name != "sort"}
        sort, seen = place.filters.get("sort", NEWEST), seen_by(caller)
        rows, total = await listed.read(
            request,
            caller,
            lambda connection: listing.videos(
                connection, listing.Wanted(**filters), seen, sort=sort, after=place.after, limit=wanted.limit + 1
            ),
        )
        shown, is_more = listed.cut(rows, wanted.limit)
        cursor = listed.cursor_after(place, (shown[-1].place, shown[-1].id)) if is_more else None
        return {"videos": [_document(video, caller) for video in shown], "total": total, "next_cursor": cursor}

    @routes.get("/videos/{video_id}", response_model=Video)
    async def read(video_id: VideoId, caller: Principal | None = anybody) -> Any:
        """A video with its status and, for those who may change it, its error."""
        return _document(await _seen(services, ids.key(video_id), caller), caller)

    @routes.get("/videos/{video_id}/segments", response_model=Segments)
    async def read_segments(
        video_id: VideoId,
        cursor: Cursor = None,
        limit: Annotated[int, Query(ge=1, le=videos.SEGMENTS_MAX)] = videos.SEGMENTS_MAX,
        caller: Principal | None = anybody,
    ) -> Any:
        """The moments of a video, in the order of time."""
        video = await _seen(services, ids.key(video_id), caller)
        place = parts.start(cursor, of=video.id)
        after = place.after or (-1, 0)
        rows = await services.readers.ask(lambda connection: videos.segments(connection, video.id, limit + 1, after))
        shown, is_more = parts.cut(rows, limit)
        following = parts.cursor_after(place, (shown[-1].start_ms, shown[-1].id), of=video.id) if is_more else None
        moments = [_segment(services.settings, moment, video.visibility == "private") for moment in shown]
        return {"segments": moments, "total": video.segments, "next_cursor": following}

    @routes.get("/segments/{segment_id}", response_model=Segment)
    async def read_segment(segment_id: SegmentId, caller: Principal | None = anybody) -> Any:
        """One moment. An id that a later ingest has replaced leads to the moment that took over most of it."""
        number = await ids.moment(services.readers, segment_id)
        moment = await services.readers.ask(lambda connection: videos.moment(connection, number))
        if moment is None:
            raise ids.missing("segment", segment_id)
        by_number = segment_id.isdecimal()
        try:
            video = await _seen(services, moment.video_id if by_number else moment.video_public_id, caller)
        except Rejected as error:
            raise ids.missing("segment", segment_id) from error  # without naming the video
        return _segment(services.settings, moment, video.visibility == "private")

    @routes.patch("/videos/{video_id}", response_model=Video)
    async def change(video_id: VideoId, new: Change, caller: Principal = needs_key) -> Any:
        """Change title, description, tags, visibility or language. Searches find the new words at once."""
        video = await _changeable(services, ids.key(video_id), caller)
        changes = _permitted(new, caller)
        if video.status == "removed" or not await services.threads.ask(_change, video.id, changes):
            raise Rejected(f"video {video_id} has been removed", status=409, code="removed")
        services.generation.expire()
        return _document(await _changeable(services, video.id, caller), caller)

    @routes.delete("/videos/{video_id}", response_model=Removed)
    async def remove(video_id: VideoId, caller: Principal = needs_key) -> Any:
        """Take a video down for good: it leaves every answer at once, then its file and thumbnails are deleted."""
        video = await _changeable(services, ids.key(video_id), caller)
        bucket = services.settings.s3.bucket
        try:
            await services.threads.ask(takedown.remove, services.storage, bucket, video.id)
        finally:  # the video is out of search before its objects are deleted, which fails while the store is away
            services.generation.expire()
            await services.results.forget()
        return {"id": str(video.id), "public_id": video.public_id, "status": "removed"}

    return routes


def _permitted(new: Change, caller: Principal) -> dict[str, Any]:
    """Return the fields to change with their new values.

    Raises:
        Rejected: 403, only an administrator decides whether a repost earns.
    """
    changes = new.model_dump(exclude_none=True)
    if "repost_accepted" in changes:
        keys.check(caller, (keys.ADMIN,))
    return changes


def _change(connection: Connection[Any], video_id: int, changes: dict[str, Any]) -> bool:
    """Change a video in one transaction; return False if it was removed."""
    words = dict(changes)
    is_accepted = words.pop("repost_accepted", None)
    with connection.transaction():
        is_there = is_accepted is None or catalog.accept_repost(connection, video_id, is_accepted=is_accepted)
        return is_there and (not words or catalog.change(connection, video_id, **words))


def seen_by(caller: Principal | None) -> Seen:
    """Return what a caller sees in lists besides public videos that are ready."""
    if caller is None:
        return Seen()
    handles = caller.speaks_for
    creator_id = caller.creator_id if "creator" in caller.scopes else None
    return Seen(everything=True) if handles is None else Seen(creator_id=creator_id, handles=handles)


async def _seen(services: Services, key: int | str, caller: Principal | None) -> videos.VideoDetails:
    """Return a video, if the caller may see it.

    Numbers can be guessed, so an unlisted video is found by its number only for callers who may change it. The primary
    is asked, so that a change of visibility takes effect at once.

    Raises:
        Rejected: 404, the video does not exist, or the caller may not see it.
    """
    video = await services.readers.primary(lambda connection: videos.get(connection, key))
    if video is None:
        raise ids.missing("video", key)
    open_to_all = ("public",) if isinstance(key, int) else ("public", "unlisted")
    if not (video.status == "ready" and video.visibility in open_to_all) and not _may_change(video, caller):
        raise ids.missing("video", key)
    return video


async def _changeable(services: Services, key: int | str, caller: Principal) -> videos.VideoDetails:
    """Return a video that the caller may change.

    Raises:
        Rejected: 403, it belongs to another creator; 404 as `_seen`.
    """
    video = await _seen(services, key, caller)
    if not _may_change(video, caller):
        raise Rejected("this video belongs to another creator", status=403, code="not-yours")
    return video


def _may_change(video: videos.VideoDetails, caller: Principal | None) -> bool:
    return caller is not None and (caller.covers(video.creator) or caller.owns(video.creator_id))


def _document(video: videos.VideoDetails, caller: Principal | None) -> dict[str, Any]:
    shown = {name: getattr(video, name) for name in Video.model_fields}
    shown |= {"id": str(video.id), "creator_id": str(video.creator_id), "created_at": video.created_at.isoformat()}
    shown["ready_at"] = video.ready_at.isoformat() if video.ready_at else None
    if not _may_change(video, caller):
        shown |= dict.fromkeys(
            ("error", "error_code", "warning", "attempts", "source_uri", "repost_of", "repost_accepted")
        )
    return shown


def _segment(settings: Settings, moment: Moment, private: bool) -> dict[str, Any]:
    """Return the document of a moment; with `private`, its links also open a private video."""
    return {
        "segment_id": str(moment.id),
        "public_id": moment.public_id,
        "video_id": str(moment.video_id),
        "video_public_id": moment.video_public_id,
        "creator_id": str(moment.creator_id),
        "creator_public_id": moment.creator_public_id,
        "start_ms": moment.start_ms,
        "end_ms": moment.end_ms,
        "best_frame_ms": moment.best_frame_ms,
        "description": moment.description,
        "thumbnail_url": links.thumbnail_url(settings, moment.id, private=private),
        "play_url": links.play_url(settings, moment.video_id, moment.start_ms, moment.end_ms, private=private),
    }
