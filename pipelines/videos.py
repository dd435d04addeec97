"""Videos and their moments as the HTTP door shows them. Reads `media`, changes nothing; knows nothing of who asks."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import class_row

SEGMENTS_MAX = 1000


@dataclass(frozen=True)
class Video:
    """One video, however far it has come."""

    id: int
    creator_id: int
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
    segments: int


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


@dataclass(frozen=True)
class Picture:
    """Where the thumbnail of a moment lies, and whether it may be shown."""

    uri: str | None
    visibility: str


async def get(connection: AsyncConnection[Any], video_id: int) -> Video | None:
    async with connection.cursor(row_factory=class_row(Video)) as cursor:
        await cursor.execute(
            "SELECT v.id, v.creator_id, c.handle AS creator, v.source_uri, v.playback_uri, v.content_hash, v.title,"
            " v.description, v.tags, v.language, v.duration_ms, v.width, v.height, v.fps, v.has_audio, v.visibility,"
            " v.status, v.attempts, v.error, v.error_code, v.warning, v.created_at, v.ready_at,"
            " (SELECT count(*) FROM media.segments s WHERE s.video_id = v.id) AS segments"
            " FROM media.videos v JOIN media.creators c ON c.id = v.creator_id WHERE v.id = %s",
            (video_id,),
        )
        return await cursor.fetchone()


async def segments(connection: AsyncConnection[Any], video_id: int, limit: int = SEGMENTS_MAX) -> list[Moment]:
    """The moments of a video in the order of time."""
    async with connection.cursor(row_factory=class_row(Moment)) as cursor:
        await cursor.execute(
            "SELECT id, video_id, creator_id, start_ms, end_ms, best_frame_ms, description FROM media.segments"
            " WHERE video_id = %s ORDER BY start_ms, id LIMIT %s",
            (video_id, min(limit, SEGMENTS_MAX)),
        )
        return await cursor.fetchall()


async def moment(connection: AsyncConnection[Any], segment_id: int) -> Moment | None:
    """One moment; an id that a later ingest has replaced leads to the moment that took over most of it."""
    async with connection.cursor(row_factory=class_row(Moment)) as cursor:
        await cursor.execute(
            "SELECT id, video_id, creator_id, start_ms, end_ms, best_frame_ms, description FROM media.segments"
            " WHERE id = coalesce((SELECT l.new_id FROM media.segment_lineage l WHERE l.old_id = %(id)s"
            " ORDER BY l.overlap DESC, l.new_id LIMIT 1), %(id)s)",
            {"id": segment_id},
        )
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
