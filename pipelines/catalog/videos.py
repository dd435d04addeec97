"""Videos and their moments as the HTTP interface shows them, and the condition for being visible to a search.

Reads the schema `media`, changes nothing, and does not know who asks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, LiteralString

from psycopg import AsyncConnection
from psycopg.rows import class_row
from psycopg.sql import SQL

from pipelines.catalog import public_ids, reposts

# The one definition of what a search may find, on a row `v` of videos.
VISIBLE: LiteralString = "v.status = 'ready' AND v.visibility = 'public'"
SEGMENTS_MAX = 1000  # segments of a video on one page

# Fragments for the feed, which composes them with what viewers have watched.
# Whether the segment `segment_id` may be seen; looked up row by row, which the OFFSET keeps the planner from changing.
SEGMENT_IS_VISIBLE: LiteralString = f"""EXISTS (
            SELECT FROM media.segments s JOIN media.videos v ON v.id = s.video_id
            WHERE s.id = segment_id AND {VISIBLE} OFFSET 0)"""
# The first segments of the newest visible videos, as rows (segment_id), %(most)s at most.
NEWEST_SEGMENTS: LiteralString = f"""SELECT first.id AS segment_id FROM
            (SELECT v.id FROM media.videos v WHERE {VISIBLE} ORDER BY v.created_at DESC, v.id DESC LIMIT %(most)s) video
            CROSS JOIN LATERAL (SELECT id FROM media.segments WHERE video_id = video.id ORDER BY start_ms LIMIT 1) first"""
# Joins the segments `s` and videos `v` of candidates `c`.
OF_CANDIDATES: LiteralString = "JOIN media.segments s ON s.id = c.segment_id JOIN media.videos v ON v.id = s.video_id"
# The segment %(segment_id)s as a row (id, lasts_ms), if its video is ready and has one of %(visibilities)s.
SEGMENT_LENGTH: LiteralString = """SELECT s.id, s.end_ms - s.start_ms AS lasts_ms
        FROM media.segments s JOIN media.videos v ON v.id = s.video_id WHERE s.id = %(segment_id)s
            AND v.status = 'ready' AND v.visibility = ANY(%(visibilities)s)"""

VIDEO: LiteralString = (
    "SELECT v.id, v.public_id, v.creator_id, c.public_id AS creator_public_id, c.handle AS creator, v.source_uri,"
    " v.playback_uri, v.content_hash, v.title, v.description, v.tags, v.language, v.duration_ms, v.width, v.height, v.fps,"
    " v.has_audio, v.visibility, v.status, v.attempts, v.error, v.error_code, v.warning, v.created_at, v.ready_at,"
    f" v.repost_accepted, {reposts.REPOST_OF} AS repost_of,"
    " (SELECT count(*) FROM media.segments s WHERE s.video_id = v.id) AS segments"
)
MOMENT: LiteralString = (
    "SELECT s.id, s.video_id, s.creator_id, s.start_ms, s.end_ms, s.best_frame_ms, s.description,"
    " v.public_id AS video_public_id, c.public_id AS creator_public_id FROM media.segments s"
    " JOIN media.videos v ON v.id = s.video_id JOIN media.creators c ON c.id = s.creator_id"
)


@dataclass(frozen=True)
class VideoDetails:
    """One video with everything the HTTP interface shows, in any status."""

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
    repost_of: str | None  # public id of the first public video with the same file, if that is another creator's
    segments: int
    place: str = ""  # in a list: the value sorted by, as the cursor carries it


@dataclass(frozen=True)
class Moment:
    """One segment of a video; times are in milliseconds of the video."""

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
        """The public id, made of the video's public id and the start."""
        return public_ids.of_moment(self.video_public_id, self.start_ms)


@dataclass(frozen=True)
class ThumbnailLocation:
    """The URI of a moment's thumbnail, and the visibility of its video."""

    uri: str | None
    visibility: str


async def get(connection: AsyncConnection[Any], key: int | str) -> VideoDetails | None:
    """Return a video by its number or its public id, or None."""
    named: LiteralString = "v.id" if isinstance(key, int) else "v.public_id"
    query: LiteralString = (
        f"{VIDEO} FROM media.videos v JOIN media.creators c ON c.id = v.creator_id WHERE {named} = %s"
    )
    async with connection.cursor(row_factory=class_row(VideoDetails)) as cursor:
        await cursor.execute(SQL(query), (key,))
        return await cursor.fetchone()


async def segments(
    connection: AsyncConnection[Any], video_id: int, limit: int = SEGMENTS_MAX, after: Sequence[int] = (-1, 0)
) -> list[Moment]:
    """Return moments of a video in the order of time.

    Args:
        connection: Connection to the primary or a standby.
        video_id: Number of the video.
        limit: Moments at most.
        after: `start_ms` and id of the last moment of the page before; the default begins at the first.

    Returns:
        The moments, by start and id.
    """
    async with connection.cursor(row_factory=class_row(Moment)) as cursor:
        await cursor.execute(
            SQL(f"{MOMENT} WHERE s.video_id = %s AND (s.start_ms, s.id) > (%s, %s) ORDER BY s.start_ms, s.id LIMIT %s"),
            (video_id, *after, limit),
        )
        return await cursor.fetchall()


async def moment(connection: AsyncConnection[Any], segment_id: int) -> Moment | None:
    """Return a moment by its segment id, or None.

    If a later ingest has replaced the segment, return the moment that overlaps most of it.
    """
    where: LiteralString = (
        " WHERE s.id = coalesce((SELECT l.new_id FROM media.segment_lineage l WHERE l.old_id = %(id)s"
        " ORDER BY l.overlap DESC, l.new_id LIMIT 1), %(id)s)"
    )
    async with connection.cursor(row_factory=class_row(Moment)) as cursor:
        await cursor.execute(SQL(MOMENT + where), {"id": segment_id})
        return await cursor.fetchone()


async def picture(connection: AsyncConnection[Any], segment_id: int) -> ThumbnailLocation | None:
    """Return where a moment's thumbnail is, or None if its video is not ready.

    If a later ingest has replaced the segment, use the moment that overlaps most of it.
    """
    async with connection.cursor(row_factory=class_row(ThumbnailLocation)) as cursor:
        await cursor.execute(
            "SELECT s.thumbnail_uri AS uri, v.visibility FROM media.segments s JOIN media.videos v ON v.id = s.video_id"
            " WHERE v.status = 'ready' AND s.id = coalesce((SELECT l.new_id FROM media.segment_lineage l"
            " WHERE l.old_id = %(id)s ORDER BY l.overlap DESC LIMIT 1), %(id)s)",
            {"id": segment_id},
        )
        return await cursor.fetchone()
