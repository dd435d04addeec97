"""Ids as callers write them: the number of a row, or a public id that nobody guesses. Both name the same thing.

What is unlisted has no number for those who do not own it: numbers can be counted through. Knows how names become
numbers; who may see what they name is decided where it is shown.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Path
from psycopg import AsyncConnection

from cluster.errors import Rejected
from pipelines.catalog import public_ids
from pipelines.index import vectors
from serve.search.context import SearchContext
from serve.search.query import ID_MAX, IDS, MOMENT_IDS, Body, Narrowing

NOBODY = "0"  # the number of no row
VideoId = Annotated[str, Path(pattern=IDS, examples=["1"], description="A number, or a public id.")]
CreatorId = Annotated[str, Path(pattern=IDS, examples=["1"], description="A number, or a public id.")]
SegmentId = Annotated[str, Path(pattern=MOMENT_IDS, examples=["1"], description="A number, or a public id.")]


def key(text: str) -> int | str:
    """What a row is looked up by: its number, or its public id.

    Raises:
        Rejected: the number is larger than any id.
    """
    if not text.isdecimal():
        return text
    if int(text) > ID_MAX:
        raise Rejected(f"{text} is no id", status=422, code="bad-id")
    return int(text)


async def moment(services: SearchContext, text: str) -> int:
    """The number of a moment.

    Raises:
        Rejected: 404, there is none of this public id.
    """
    found = key(text)
    if isinstance(found, int):
        return found
    number = await services.readers.ask(lambda connection: public_ids.moment(connection, found))
    if number is None:
        raise missing("segment", text)
    return number


async def creator(services: SearchContext, text: str) -> int:
    """The number of a creator.

    Raises:
        Rejected: 404, there is none of this public id.
    """
    found = key(text)
    if isinstance(found, int):
        return found
    numbers = await services.readers.primary(lambda connection: public_ids.creators(connection, [found]))
    if found not in numbers:
        raise missing("creator", text)
    return numbers[found]


async def resolved(services: SearchContext, body: Body) -> Body:
    """The same search with numbers in the place of public ids; a filter by what does not exist leaves nothing.

    Raises:
        Rejected: there is no such moment to find more of.
    """
    changed: dict[str, Any] = {}
    if body.segment_id is not None and not body.segment_id.isdecimal():
        changed["segment_id"] = str(await _searchable(services, body.segment_id))
    narrowing = body.filters
    if not all(each.isdecimal() for each in (*narrowing.creator_id, *narrowing.video_id)):
        changed["filters"] = await services.readers.ask(lambda connection: _narrowed(connection, narrowing))
    return body.model_copy(update=changed) if changed else body


async def _searchable(services: SearchContext, public_id: str) -> int:
    """The number of a moment that a search may begin with.

    Raises:
        Rejected: 404, there is none of this public id, or a search does not show it: its number is not said.
    """
    number = await moment(services, public_id)

    async def look(connection: AsyncConnection[Any]) -> bool:
        current = await vectors.redirected(connection, number)
        return current in await vectors.moment_details(connection, [current])

    if not await services.readers.ask(look):
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
    return Rejected(f"there is no {what} {name}", status=404, code="not-found")
