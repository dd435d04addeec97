"""Lists of videos and creators for the HTTP interface, filtered and sorted; a page continues after the last row shown.

Reads the schema `media` and changes nothing. The caller says what a reader may see (`Seen`); every page checks it
again.
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

TOTAL_MAX = 100_000  # rows that a total counts at most
OF_EACH_MAX = 10_000  # videos that are counted of each creator at most
# For each sort order: the SQL expression, exactly as its index has it, and the SQL type of a value that a cursor carries.
# Texts are sorted by their first 200 characters, the longest that the index and the cursors hold.
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
    """What a reader may see besides public, ready videos."""

    everything: bool = False
    creator_id: int | None = None  # all videos of this creator
    handles: tuple[str, ...] = ()  # all videos of the creators with these handles

    @property
    def videos(self) -> LiteralString:
        """The SQL condition for a row `v` of videos that the reader may see; `asked` has the values of its placeholders."""
        if self.everything:
            return "true"
        return f"({VISIBLE} OR v.creator_id IN ({OWN}))" if self.is_somebody else VISIBLE

    @property
    def is_somebody(self) -> bool:
        """Whether the reader stands for any creator."""
        return self.creator_id is not None or bool(self.handles)

    @property
    def asked(self) -> dict[str, Any]:
        """The values of the placeholders in the SQL condition `videos`."""
        return {"own": self.creator_id, "handles": list(self.handles)}


@dataclass(frozen=True)
class Wanted:
    """The filter of a list of videos; an empty field filters nothing.

    Removed videos are listed only if `status` is "removed".
    """

    creator: str = ""  # an id, a public id or a handle
    status: str = ""
    visibility: str = ""
    tag: str = ""

    def condition(self) -> LiteralString:
        """The SQL condition for a row `v` of videos that pass the filter.

        Its placeholders have the names of the fields and of the properties `tags` and `number`.
        """
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
        """Both forms in which the tag may be stored: as given (by earlier releases) and cleaned (by this one)."""
        return [*dict.fromkeys((self.tag, characters.cleaned(self.tag)))]

    @property
    def number(self) -> int | None:
        """`creator` as a number, if it is one that fits a bigint."""
        return int(self.creator) if self.creator.isdecimal() and len(self.creator) < 19 else None


@dataclass(frozen=True)
class Creator:
    """A creator, with the number of their public and ready videos, counted up to `OF_EACH_MAX`."""

    id: int
    public_id: str
    handle: str
    name: str
    created_at: datetime
    videos: int
    place: str = ""  # in a list: the value sorted by, as the cursor carries it


async def videos(
    connection: AsyncConnection[Any], wanted: Wanted, seen: Seen, *, sort: str, after: Sequence[Any], limit: int
) -> tuple[list[VideoDetails], int]:
    """Return a page of videos and how many there are in all.

    Args:
        connection: Connection to the primary or a standby.
        wanted: Filter of the list.
        seen: What the reader may see.
        sort: A key of `VIDEO_SORTS`, with "-" before it for descending order.
        after: Sort value and id of the last row of the page before; empty for the first page.
        limit: Rows of the page at most.

    Returns:
        The page, and the number of videos that match, counted up to `TOTAL_MAX`.
    """
    expression, kind = VIDEO_SORTS[sort.removeprefix("-")]
    where: LiteralString = f"{seen.videos} AND {wanted.condition()}"
    parameters = {
        **vars(wanted),
        "number": wanted.number,
        "tags": wanted.tags,
        **seen.asked,
        "limit": limit,
        "most": TOTAL_MAX,
    }
    parameters |= _behind(after)
    query: LiteralString = f"{VIDEO}, {expression}::text AS place FROM media.videos v JOIN media.creators c"
    query += f" ON c.id = v.creator_id WHERE {where}{_page(expression, kind, 'v.id', sort, after)}"
    async with connection.cursor(row_factory=class_row(VideoDetails)) as cursor:
        page = await (await cursor.execute(SQL(query), parameters)).fetchall()
    return page, await _total(connection, f"SELECT FROM media.videos v WHERE {where}", parameters)


async def creators(
    connection: AsyncConnection[Any], seen: Seen, *, sort: str, after: Sequence[Any], limit: int
) -> tuple[list[Creator], int]:
    """Return a page of the creators with a video that the reader may see, and how many such creators there are.

    Args:
        connection: Connection to the primary or a standby.
        seen: What the reader may see.
        sort: A key of `CREATOR_SORTS`, with "-" before it for descending order.
        after: Sort value and id of the last row of the page before; empty for the first page.
        limit: Rows of the page at most.

    Returns:
        The page, and the number of creators, counted up to `TOTAL_MAX`.
    """
    expression, kind = CREATOR_SORTS[sort.removeprefix("-")]
    where: LiteralString = _has_videos(seen)
    parameters = {**seen.asked, "limit": limit, "most": TOTAL_MAX, "most_of_each": OF_EACH_MAX, **_behind(after)}
    query: LiteralString = f"{CREATOR}, {expression}::text AS place FROM media.creators c WHERE {where}"
    query += _page(expression, kind, "c.id", sort, after)
    async with connection.cursor(row_factory=class_row(Creator)) as cursor:
        page = await (await cursor.execute(SQL(query), parameters)).fetchall()
    return page, await _total(connection, f"SELECT FROM media.creators c WHERE {where}", parameters)


async def creator(connection: AsyncConnection[Any], key: int | str, seen: Seen) -> Creator | None:
    """Return a creator by number, if the reader may see a video of theirs, or by public id, which anyone may read."""
    is_number = isinstance(key, int)
    where: LiteralString = f"c.id = %(key)s AND {_has_videos(seen)}" if is_number else "c.public_id = %(key)s"
    async with connection.cursor(row_factory=class_row(Creator)) as cursor:
        parameters = {"key": key, "most_of_each": OF_EACH_MAX, **seen.asked}
        await cursor.execute(SQL(f"{CREATOR} FROM media.creators c WHERE {where}"), parameters)
        return await cursor.fetchone()


CREATOR: LiteralString = (
    "SELECT c.id, c.public_id, c.handle, c.name, c.created_at,"
    " (SELECT count(*) FROM (SELECT FROM media.videos v"
    f" WHERE v.creator_id = c.id AND {VISIBLE} LIMIT %(most_of_each)s) counted) AS videos"
)


def _has_videos(seen: Seen) -> LiteralString:
    """Return the SQL condition that a reader may see a video of the creator in row `c`, or stands for that creator."""
    if seen.everything:
        return "true"
    visible: LiteralString = f"EXISTS (SELECT FROM media.videos v WHERE v.creator_id = c.id AND {VISIBLE})"
    return f"({visible} OR c.id = %(own)s OR c.handle = ANY(%(handles)s))" if seen.is_somebody else visible


def _behind(after: Sequence[Any]) -> dict[str, Any]:
    """Return the query parameters of a page that continues after a row, given as sort value and id."""
    return {"after": after[0], "after_id": after[1]} if after else {}


def _page(
    expression: LiteralString, kind: LiteralString, key: LiteralString, sort: str, after: Sequence[Any]
) -> LiteralString:
    """Return the clauses that end a query: only rows after the last one shown, their order, and the limit."""
    is_descending = sort.startswith("-")
    direction: LiteralString = "DESC" if is_descending else "ASC"
    comparison: LiteralString = "<" if is_descending else ">"
    behind: LiteralString = (
        f" AND ({expression}, {key}) {comparison} (%(after)s::{kind}, %(after_id)s)" if after else ""
    )
    return f"{behind} ORDER BY {expression} {direction}, {key} {direction} LIMIT %(limit)s"


async def _total(connection: AsyncConnection[Any], rows: LiteralString, parameters: dict[str, Any]) -> int:
    """Count the rows of a query, up to `TOTAL_MAX`."""
    cursor = await connection.execute(SQL(f"SELECT count(*) FROM ({rows} LIMIT %(most)s) AS counted"), parameters)
    row = await cursor.fetchone()
    assert row is not None  # a count returns a row
    return int(row[0])
