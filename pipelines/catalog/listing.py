"""Lists of videos and creators, page by page: filtered, sorted, each page going on behind the last row of the one before.

Reads `media`, changes nothing. What a reader may see is said by the caller (`Seen`) and holds for every page anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, LiteralString

from psycopg import AsyncConnection
from psycopg.rows import class_row
from psycopg.sql import SQL

from cluster import characters
from pipelines.catalog.videos import VIDEO, VISIBLE, VideoDetails

TOTAL_MAX = 100_000  # rows that are counted
OF_EACH_MAX = 10_000  # videos that are counted of each creator of a page
# By name: the expression that is sorted by (as its index has it), and the type of a value of it that comes back in a cursor.
# Of texts the first 200 characters: an index, and a cursor, take no more of them.
VIDEO_SORTS: dict[str, tuple[LiteralString, LiteralString]] = {
    "created_at": ("v.created_at", "timestamptz"),
    "title": ("left(v.title, 200)", "text"),
    "duration": ("coalesce(v.duration_ms, -1)", "integer"),
}
CREATOR_SORTS: dict[str, tuple[LiteralString, LiteralString]] = {
    "name": ("left(c.name, 200)", "text"),
    "created_at": ("c.created_at", "timestamptz"),
}


OWN: LiteralString = "SELECT id FROM media.creators WHERE id = %(own)s OR handle = ANY(%(handles)s)"


@dataclass(frozen=True)
class Seen:
    """What a reader sees beside what is public and ready: everything, or all of one creator's and of those with `handles`."""

    everything: bool = False
    creator_id: int | None = None
    handles: tuple[str, ...] = ()

    @property
    def videos(self) -> LiteralString:
        """As a condition over `v`; the parameters are `asked`."""
        if self.everything:
            return "true"
        return f"({VISIBLE} OR v.creator_id IN ({OWN}))" if self.is_somebody else VISIBLE

    @property
    def is_somebody(self) -> bool:
        return self.creator_id is not None or bool(self.handles)

    @property
    def asked(self) -> dict[str, Any]:
        return {"own": self.creator_id, "handles": list(self.handles)}


@dataclass(frozen=True)
class Wanted:
    """Which videos; empty fields leave all. `creator` is an id, a public id or a handle; what was removed is asked for."""

    creator: str = ""
    status: str = ""
    visibility: str = ""
    tag: str = ""

    def condition(self) -> LiteralString:
        """Over `v`; the parameters are the fields."""
        parts: list[LiteralString] = ["v.status = %(status)s" if self.status else "v.status <> 'removed'"]
        if self.visibility:
            parts.append("v.visibility = %(visibility)s")
        if self.tag:
            parts.append("v.tags && %(tags)s::text[]")
        if self.creator:
            parts.append(
                "v.creator_id IN (SELECT id FROM media.creators"
                " WHERE id = %(number)s OR public_id = %(creator)s OR handle = %(creator)s)"
            )
        return " AND ".join(parts)

    @property
    def tags(self) -> list[str]:
        """The tag as it is given, which an older release may have kept so, and as it is kept now."""
        return [*dict.fromkeys((self.tag, characters.cleaned(self.tag)))]

    @property
    def number(self) -> int | None:
        return int(self.creator) if self.creator.isdecimal() and len(self.creator) < 19 else None


@dataclass(frozen=True)
class Creator:
    """A creator, with how many of their videos are public and ready, up to `OF_EACH_MAX`."""

    id: int
    public_id: str
    handle: str
    name: str
    created_at: datetime
    videos: int
    place: str = ""


async def videos(
    connection: AsyncConnection[Any], wanted: Wanted, seen: Seen, *, sort: str, after: Sequence[Any], limit: int
) -> tuple[list[VideoDetails], int]:
    """A page of videos, and how many there are in all, up to `TOTAL_MAX`; `after` is the place of the last one."""
    expression, kind = VIDEO_SORTS[sort.removeprefix("-")]
    where: LiteralString = f"{seen.videos} AND {wanted.condition()}"
    asked = {
        **vars(wanted),
        "number": wanted.number,
        "tags": wanted.tags,
        **seen.asked,
        "limit": limit,
        "most": TOTAL_MAX,
    }
    asked |= _behind(after)
    query: LiteralString = f"{VIDEO}, {expression}::text AS place FROM media.videos v JOIN media.creators c"
    query += f" ON c.id = v.creator_id WHERE {where}{_page(expression, kind, 'v.id', sort, after)}"
    async with connection.cursor(row_factory=class_row(VideoDetails)) as cursor:
        found = await (await cursor.execute(SQL(query), asked)).fetchall()
    return found, await _total(connection, f"SELECT FROM media.videos v WHERE {where}", asked)


async def creators(
    connection: AsyncConnection[Any], seen: Seen, *, sort: str, after: Sequence[Any], limit: int
) -> tuple[list[Creator], int]:
    """A page of the creators who have something that the reader sees, and how many there are."""
    expression, kind = CREATOR_SORTS[sort.removeprefix("-")]
    where: LiteralString = _has_videos(seen)
    asked = {**seen.asked, "limit": limit, "most": TOTAL_MAX, "most_of_each": OF_EACH_MAX, **_behind(after)}
    query: LiteralString = f"{CREATOR}, {expression}::text AS place FROM media.creators c WHERE {where}"
    query += _page(expression, kind, "c.id", sort, after)
    async with connection.cursor(row_factory=class_row(Creator)) as cursor:
        found = await (await cursor.execute(SQL(query), asked)).fetchall()
    return found, await _total(connection, f"SELECT FROM media.creators c WHERE {where}", asked)


async def creator(connection: AsyncConnection[Any], key: int | str, seen: Seen) -> Creator | None:
    """One creator: by number if the reader sees something of theirs, by public id whoever reads."""
    is_number = isinstance(key, int)
    where: LiteralString = f"c.id = %(key)s AND {_has_videos(seen)}" if is_number else "c.public_id = %(key)s"
    async with connection.cursor(row_factory=class_row(Creator)) as cursor:
        asked = {"key": key, "most_of_each": OF_EACH_MAX, **seen.asked}
        await cursor.execute(SQL(f"{CREATOR} FROM media.creators c WHERE {where}"), asked)
        return await cursor.fetchone()


CREATOR: LiteralString = (
    "SELECT c.id, c.public_id, c.handle, c.name, c.created_at,"
    " (SELECT count(*) FROM (SELECT FROM media.videos v"
    f" WHERE v.creator_id = c.id AND {VISIBLE} LIMIT %(most_of_each)s) counted) AS videos"
)


def _has_videos(seen: Seen) -> LiteralString:
    if seen.everything:
        return "true"
    visible: LiteralString = f"EXISTS (SELECT FROM media.videos v WHERE v.creator_id = c.id AND {VISIBLE})"
    return f"({visible} OR c.id = %(own)s OR c.handle = ANY(%(handles)s))" if seen.is_somebody else visible


def _behind(after: Sequence[Any]) -> dict[str, Any]:
    return {"after": after[0], "after_id": after[1]} if after else {}


def _page(
    expression: LiteralString, kind: LiteralString, key: LiteralString, sort: str, after: Sequence[Any]
) -> LiteralString:
    """The end of a query: what is behind a place, in order, as much as is wanted."""
    falls = sort.startswith("-")
    direction: LiteralString = "DESC" if falls else "ASC"
    than: LiteralString = "<" if falls else ">"
    behind: LiteralString = f" AND ({expression}, {key}) {than} (%(after)s::{kind}, %(after_id)s)" if after else ""
    return f"{behind} ORDER BY {expression} {direction}, {key} {direction} LIMIT %(limit)s"


async def _total(connection: AsyncConnection[Any], rows: LiteralString, asked: dict[str, Any]) -> int:
    cursor = await connection.execute(SQL(f"SELECT count(*) FROM ({rows} LIMIT %(most)s) AS counted"), asked)
    row = await cursor.fetchone()
    assert row is not None  # of a count
    return int(row[0])
