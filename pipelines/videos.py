"""Videos and their moments as the HTTP door shows them. Reads `media`, changes nothing; knows nothing of who asks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, LiteralString

from psycopg import AsyncConnection
from psycopg.rows import class_row
from psycopg.sql import SQL

from pipelines import public_ids, reposts

SEGMENTS_MAX = 1000


VIDEO: LiteralString = (
    "SELECT v.id, v.public_id, v.creator_id, c.public_id AS creator_public_id, c.handle AS creator, v.source_uri,"
    " v.playback_uri, v.content_hash, v.title, v.description, v.tags, v.language, v.duration_ms, v.width, v.height, v.fps,"
    " v.has_audio, v.visibility, v.status, v.attempts, v.error, v.error_code, v.warning, v.created_at, v.ready_at,"
    f" v.repost_accepted, {reposts.OF} AS repost_of,"
    " (SELECT count(*) FROM media.segments s WHERE s.video_id = v.id) AS segments"
)
MOMENT: LiteralString = (
    "SELECT s.id, s.video_id, s.creator_id, s.start_ms, s.end_ms, s.best_frame_ms, s.description,"
    " v.public_id AS video_public_id, c.public_id AS creator_public_id FROM media.segments s"
    " JOIN media.videos v ON v.id = s.video_id JOIN media.creators c ON c.id = s.creator_id"
)


@dataclass(frozen=True)
class Video:
    """One video, however far it has come."""

    id: int
    public_id: str
    creator_id: int
    creator_public_id: str
    creator: str
    source_uri: str
    playback_uri: str | None
    content_hash: str | None
    title: str
    description: str
    tags: list[str]
    language: str
    duration_ms: int | None
    width: int | None
    height: int | None
    fps: float | None
    has_audio: bool | None
    visibility: str
    status: str
    attempts: int
    error: str | None
    error_code: str | None
    warning: str | None
    created_at: datetime
    ready_at: datetime | None
    repost_accepted: bool
    repost_of: str | None  # the first public video of another creator with the same file
    segments: int
    place: str = ""  # in a list: what it is sorted by


@dataclass(frozen=True)
class Moment:
    """One segment of a video."""

    id: int
    video_id: int
    creator_id: int
    start_ms: int
    end_ms: int
    best_frame_ms: int
    description: str
    video_public_id: str
    creator_public_id: str

    @property
    def public_id(self) -> str:
        return public_ids.of_moment(self.video_public_id, self.start_ms)


@dataclass(frozen=True)
class Picture:
    """Where the thumbnail of a moment lies, and whether it may be shown."""

    uri: str | None
    visibility: str


async def get(connection: AsyncConnection[Any], key: int | str) -> Video | None:
    """A video by its number or its public id."""
    named: LiteralString = "v.id" if isinstance(key, int) else "v.public_id"
    query: LiteralString = (
        f"{VIDEO} FROM media.videos v JOIN media.creators c ON c.id = v.creator_id WHERE {named} = %s"
    )
    async with connection.cursor(row_factory=class_row(Video)) as cursor:
        await cursor.execute(SQL(query), (key,))
        return await cursor.fetchone()


async def segments(
    connection: AsyncConnection[Any], video_id: int, limit: int = SEGMENTS_MAX, after: Sequence[int] = (-1, 0)
) -> list[Moment]:
    """The moments of a video in the order of time, behind a start and an id."""
    async with connection.cursor(row_factory=class_row(Moment)) as cursor:
        await cursor.execute(
            SQL(f"{MOMENT} WHERE s.video_id = %s AND (s.start_ms, s.id) > (%s, %s) ORDER BY s.start_ms, s.id LIMIT %s"),
            (video_id, *after, limit),
        )
        return await cursor.fetchall()


async def moment(connection: AsyncConnection[Any], segment_id: int) -> Moment | None:
    """One moment; an id that a later ingest has replaced leads to the moment that took over most of it."""
    led: LiteralString = (
        " WHERE s.id = coalesce((SELECT l.new_id FROM media.segment_lineage l WHERE l.old_id = %(id)s"
        " ORDER BY l.overlap DESC, l.new_id LIMIT 1), %(id)s)"
    )
    async with connection.cursor(row_factory=class_row(Moment)) as cursor:
        await cursor.execute(SQL(MOMENT + led), {"id": segment_id})
        return await cursor.fetchone()


async def picture(connection: AsyncConnection[Any], segment_id: int) -> Picture | None:
    """The thumbnail of a moment whose video is in the catalogue; a moment that went elsewhere leads there."""
    async with connection.cursor(row_factory=class_row(Picture)) as cursor:
        await cursor.execute(
            "SELECT s.thumbnail_uri AS uri, v.visibility FROM media.segments s JOIN media.videos v ON v.id = s.video_id"
            " WHERE v.status = 'ready' AND s.id = coalesce((SELECT l.new_id FROM media.segment_lineage l"
            " WHERE l.old_id = %(id)s ORDER BY l.overlap DESC LIMIT 1), %(id)s)",
            {"id": segment_id},
        )
        return await cursor.fetchone()
