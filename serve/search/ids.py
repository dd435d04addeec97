"""Ids as callers write them: the number of a row, or a public id that cannot be guessed. Both name the same thing.

An unlisted video is found only by its public id, unless its owner asks, since row numbers can be guessed. Knows how ids
become numbers; who may see what they name is decided where it is shown.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Path
from psycopg import AsyncConnection

from cluster.errors import Rejected
from pipelines.catalog import public_ids
from pipelines.index import vectors
from serve.replica.readers import Readers
from serve.search.query import ID_MAX, IDS, MOMENT_IDS, Body, Narrowing

NOBODY = "0"  # the number of no row
VideoId = Annotated[str, Path(pattern=IDS, examples=["1"], description="A number, or a public id.")]
CreatorId = Annotated[str, Path(pattern=IDS, examples=["1"], description="A number, or a public id.")]
SegmentId = Annotated[str, Path(pattern=MOMENT_IDS, examples=["1"], description="A number, or a public id.")]


def key(text: str) -> int | str:
    """Return what a row is looked up by: its number as an int, or its public id as it is.

    Raises:
        Rejected: the number is larger than any id.
    """
    if not text.isdecimal():
        return text
    if int(text) > ID_MAX:
        raise Rejected(f"{text} is no id", status=422, code="bad-id")
    return int(text)


async def moment(readers: Readers, text: str) -> int:
    """Return a moment's number; if the text is a public id, look it up.

    Raises:
        Rejected: 404, no moment has this public id.
    """
    number_or_name = key(text)
    if isinstance(number_or_name, int):
        return number_or_name
    number = await readers.ask(lambda connection: public_ids.moment(connection, number_or_name))
    if number is None:
        raise missing("segment", text)
    return number


async def creator(readers: Readers, text: str) -> int:
    """Return a creator's number; if the text is a public id, look it up on the primary.

    Raises:
        Rejected: 404, no creator has this public id.
    """
    number_or_name = key(text)
    if isinstance(number_or_name, int):
        return number_or_name
    numbers = await readers.primary(lambda connection: public_ids.creators(connection, [number_or_name]))
    if number_or_name not in numbers:
        raise missing("creator", text)
    return numbers[number_or_name]


async def resolved(readers: Readers, body: Body) -> Body:
    """Return the same search with numbers in place of public ids.

    With a filter by a public id that does not exist, the search finds nothing.

    Raises:
        Rejected: 404, the moment to find more of does not exist.
    """
    changed: dict[str, Any] = {}
    if body.segment_id is not None and not body.segment_id.isdecimal():
        changed["segment_id"] = str(await _searchable(readers, body.segment_id))
    narrowing = body.filters
    if not all(each.isdecimal() for each in (*narrowing.creator_id, *narrowing.video_id)):
        changed["filters"] = await readers.ask(lambda connection: _narrowed(connection, narrowing))
    return body.model_copy(update=changed) if changed else body


async def _searchable(readers: Readers, public_id: str) -> int:
    """Return the number of a moment that a search may begin with.

    Raises:
        Rejected: 404, no moment has this public id, or it has one but searches may not show it.
    """
    number = await moment(readers, public_id)

    async def look(connection: AsyncConnection[Any]) -> bool:
        current = await vectors.redirected(connection, number)
        return current in await vectors.moment_details(connection, [current])

    if not await readers.ask(look):
        raise missing("segment", public_id)
    return number


async def _narrowed(connection: AsyncConnection[Any], narrowing: Narrowing) -> Narrowing:
    numbers = {
        "creator_id": await public_ids.creators(connection, narrowing.creator_id),
        "video_id": await public_ids.videos(connection, narrowing.video_id),
    }
    update = {
        name: tuple(each if each.isdecimal() else str(known.get(each, NOBODY)) for each in getattr(narrowing, name))
        for name, known in numbers.items()
    }
    return narrowing.model_copy(update=update)


def missing(what: str, name: int | str) -> Rejected:
    """Return the error (404) for a video, segment … (`what`) that does not exist, or that the caller may not see."""
    return Rejected(f"there is no {what} {name}", status=404, code="not-found")
