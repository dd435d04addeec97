"""`/v1/videos/…` and `/v1/segments/{id}`: what a video is, its moments, changing its words and visibility, taking it down.

Public and unlisted videos that are ready are open to who knows their id. The rest is for their creator's key and for
keys of scope ingest; to everybody else it does not exist.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path
from psycopg import Connection
from pydantic import BaseModel, ConfigDict, Field, model_validator

from cluster.errors import Rejected
from pipelines import catalog, takedown, videos
from pipelines.manifest import TITLE_CHARS_MAX
from pipelines.videos import Moment
from serve import keys, media
from serve.keys import Principal
from serve.services import Services

VideoId = Annotated[int, Path(ge=1, le=2**63 - 1, examples=[1])]
SegmentId = Annotated[int, Path(ge=1, le=2**63 - 1, examples=[1])]
CONTROLS = r"\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069"  # and marks that turn the order of letters around
LINE = rf"^[^{CONTROLS}]*[^\s{CONTROLS}][^{CONTROLS}]*$"  # one line, not blank
TEXT = r"^[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]*$"  # with lines
Tag = Annotated[str, Field(min_length=1, max_length=100, pattern=LINE)]


class Video(BaseModel):
    """One video, however far it has come. `error` says why it is failed or quarantined, to those who may know."""

    id: str
    creator_id: str
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
    visibility: Literal["public", "unlisted", "private"]
    status: Literal["queued", "processing", "ready", "failed", "quarantined", "removed"]
    error: str | None = None
    error_code: str | None = None
    warning: str | None = None
    attempts: int | None = None
    source_uri: str | None = None
    segments: int
    created_at: str
    ready_at: str | None


class Segment(BaseModel):
    segment_id: str
    video_id: str
    creator_id: str
    start_ms: int
    end_ms: int
    best_frame_ms: int
    description: str
    thumbnail_url: str
    play_url: str


class Segments(BaseModel):
    segments: list[Segment]


class Change(BaseModel):
    """What to change; what is left out stays."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"visibility": "private"}]})
    title: Annotated[str | None, Field(min_length=1, max_length=TITLE_CHARS_MAX, pattern=LINE)] = None
    description: Annotated[str | None, Field(max_length=10_000, pattern=TEXT)] = None
    tags: Annotated[list[Tag] | None, Field(max_length=100)] = None
    visibility: Literal["public", "unlisted", "private"] | None = None

    @model_validator(mode="after")
    def _something(self) -> Change:
        if not self.model_dump(exclude_none=True):
            raise ValueError("nothing to change; give title, description, tags or visibility")
        return self


class Removed(BaseModel):
    id: str
    status: Literal["removed"]


def router(services: Services) -> APIRouter:
    """The routes over one deployment's services."""
    routes = APIRouter(prefix="/v1", tags=["videos"])
    anybody = Depends(keys.optional(services))
    needs_key = Depends(keys.require(services, "ingest", "creator"))

    @routes.get("/videos/{video_id}", response_model=Video)
    async def read(video_id: VideoId, caller: Principal | None = anybody) -> Any:
        """A video with its status and, for those who may change it, its error."""
        return _document(await _seen(services, video_id, caller), caller)

    @routes.get("/videos/{video_id}/segments", response_model=Segments)
    async def read_segments(video_id: VideoId, caller: Principal | None = anybody) -> Any:
        """The moments of a video, in the order of time."""
        video = await _seen(services, video_id, caller)
        found = await services.readers.ask(lambda connection: videos.segments(connection, video_id))
        private = video.visibility == "private"
        return {"segments": [_segment(services, moment, private) for moment in found]}

    @routes.get("/segments/{segment_id}", response_model=Segment)
    async def read_segment(segment_id: SegmentId, caller: Principal | None = anybody) -> Any:
        """One moment. An id that a later ingest has replaced leads to the moment that took over most of it."""
        moment = await services.readers.ask(lambda connection: videos.moment(connection, segment_id))
        if moment is None:
            raise Rejected(f"there is no segment {segment_id}", status=404, code="not-found")
        video = await _seen(services, moment.video_id, caller)
        return _segment(services, moment, video.visibility == "private")

    @routes.patch("/videos/{video_id}", response_model=Video)
    async def change(video_id: VideoId, new: Change, caller: Principal = needs_key) -> Any:
        """Change title, description, tags or visibility. Search follows at once."""
        await _changeable(services, video_id, caller)
        words = new.model_dump(exclude_none=True)
        if new.tags is not None:
            words["tags"] = list(dict.fromkeys(new.tags))
        if not await services.threads.ask(_change, video_id, words):
            raise _missing(video_id)
        services.generation.expire()
        return _document(await _changeable(services, video_id, caller), caller)

    @routes.delete("/videos/{video_id}", response_model=Removed)
    async def remove(video_id: VideoId, caller: Principal = needs_key) -> Any:
        """Take a video down for good: out of every answer at once, then what was made of it is deleted."""
        await _changeable(services, video_id, caller)
        bucket = services.settings.s3.bucket
        try:
            await services.threads.ask(takedown.remove, services.storage, bucket, video_id)
        finally:  # it is out of search before its objects are deleted, which a store that is away stops
            services.generation.expire()
            await services.results.forget()
        return {"id": str(video_id), "status": "removed"}

    return routes


def _change(connection: Connection[Any], video_id: int, words: dict[str, Any]) -> bool:
    return catalog.change(connection, video_id, **words)


async def _get(services: Services, video_id: int) -> videos.Video:
    """As the primary has it: who may see and change a video changes at once."""
    video = await services.readers.primary(lambda connection: videos.get(connection, video_id))
    if video is None:
        raise _missing(video_id)
    return video


async def _seen(services: Services, video_id: int, caller: Principal | None) -> videos.Video:
    video = await _get(services, video_id)
    open_to_all = video.status == "ready" and video.visibility != "private"
    if not open_to_all and not _may_change(video, caller):
        raise _missing(video_id)
    return video


async def _changeable(services: Services, video_id: int, caller: Principal) -> videos.Video:
    video = await _seen(services, video_id, caller)
    if not _may_change(video, caller):
        raise Rejected("this video belongs to another creator", status=403, code="not-yours")
    return video


def _may_change(video: videos.Video, caller: Principal | None) -> bool:
    return caller is not None and (caller.may("ingest") or caller.owns(video.creator_id))


def _missing(video_id: int) -> Rejected:
    return Rejected(f"there is no video {video_id}", status=404, code="not-found")


def _document(video: videos.Video, caller: Principal | None) -> dict[str, Any]:
    shown = {name: getattr(video, name) for name in Video.model_fields}
    shown |= {"id": str(video.id), "creator_id": str(video.creator_id), "created_at": video.created_at.isoformat()}
    shown["ready_at"] = video.ready_at.isoformat() if video.ready_at else None
    if not _may_change(video, caller):
        shown |= dict.fromkeys(("error", "error_code", "warning", "attempts", "source_uri"))
    return shown


def _segment(services: Services, moment: Moment, private: bool) -> dict[str, Any]:
    return {
        "segment_id": str(moment.id),
        "video_id": str(moment.video_id),
        "creator_id": str(moment.creator_id),
        "start_ms": moment.start_ms,
        "end_ms": moment.end_ms,
        "best_frame_ms": moment.best_frame_ms,
        "description": moment.description,
        "thumbnail_url": media.thumbnail_url(services, moment.id, private=private),
        "play_url": media.play_url(services, moment.video_id, moment.start_ms, moment.end_ms, private=private),
    }
