"""Public ids: names of videos, creators and moments that cannot be guessed, in place of the numbers of rows.

A moment's public id is made of its video's public id and its start in milliseconds (`Vx3….3000`). So if the video is
ingested again, the id still names what is shown at that time. Knows nothing of who may see what a name stands for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from psycopg import AsyncConnection


def of_moment(video: str, start_ms: int) -> str:
    """Return the public id of the moment that starts at `start_ms` of a video with this public id."""
    return f"{video}.{start_ms}"


def parts_of_moment(name: str) -> tuple[str, int]:
    """Split a moment's public id into the public id of its video and its start in milliseconds."""
    video, _, start_ms = name.partition(".")
    return video, int(start_ms)


async def videos(connection: AsyncConnection[Any], names: Sequence[str]) -> dict[str, int]:
    """Map public ids to the numbers of videos; ids that name none are left out."""
    query = "SELECT public_id, id FROM media.videos WHERE public_id = ANY(%s)"
    return dict(await (await connection.execute(query, (list(names),))).fetchall())


async def creators(connection: AsyncConnection[Any], names: Sequence[str]) -> dict[str, int]:
    """Map public ids to the numbers of creators; ids that name none are left out."""
    query = "SELECT public_id, id FROM media.creators WHERE public_id = ANY(%s)"
    return dict(await (await connection.execute(query, (list(names),))).fetchall())


async def moment(connection: AsyncConnection[Any], name: str) -> int | None:
    """Return the number of the moment that is shown at the time in a moment's public id, or None."""
    video, start_ms = parts_of_moment(name)
    query = (
        "SELECT s.id FROM media.segments s JOIN media.videos v ON v.id = s.video_id WHERE v.public_id = %(video)s"
        " AND s.start_ms <= %(start_ms)s AND s.end_ms > %(start_ms)s"
        " ORDER BY s.start_ms DESC, s.pipeline_version DESC LIMIT 1"
    )
    row = await (await connection.execute(query, {"video": video, "start_ms": start_ms})).fetchone()
    return int(row[0]) if row is not None else None
