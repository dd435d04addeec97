"""Pages of a list: each goes on behind the last row of the one before, by a signed cursor that carries what was asked.

A cursor stands alone: filters beside it are refused, as beside that of a search. Whose cursor it was says nothing of what
its bearer may see, which each page decides anew. What anybody may list waits at a gate of its own, so that it leaves the
connections to searches. Knows nothing of what is listed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from fastapi import Query, Request
from psycopg import AsyncConnection

from cluster.errors import Rejected
from serve.access import origins
from serve.access.keys import Principal
from serve.routes.services import Services
from serve.search import cursors

Row = TypeVar("Row")
Found = TypeVar("Found")
Cursor = Annotated[
    str | None, Query(max_length=4096, description="Of an earlier answer; carries its filters and its order.")
]


@dataclass(frozen=True)
class PageStart:
    """Where a page begins: what was asked, and what the last row before it was sorted by; nothing at the start."""

    asked: Mapping[str, Any]
    after: Sequence[Any] = ()


class Pages:
    """The pages of one kind of list."""

    def __init__(self, services: Services, name: str) -> None:
        self._services = services
        self._key, self._expires_s = services.cursor_key, services.search.cursor_expires_s
        self._name = name

    def begun(self, cursor: str | None, asked: Mapping[str, Any] | None = None, of: object = "") -> PageStart:
        """Where to begin; `of` is what the list belongs to.

        Raises:
            Rejected: the cursor is not one of this list, has expired, or something stands beside it.
        """
        given = {name: value for name, value in (asked or {}).items() if value not in (None, "")}
        if cursor is None:
            return PageStart(given)
        if given:
            said = f"a cursor carries its own filters, {next(iter(given))} cannot stand beside it"
            raise Rejected(said, status=422, code="bad-cursor", hint="give the cursor with limit alone")
        return PageStart(*cursors.unpack_place(self._name, str(of), cursor, self._key))

    async def read(
        self,
        request: Request,
        caller: Principal | None,
        look: Callable[[AsyncConnection[Any]], Awaitable[Found]],
    ) -> Found:
        """What a look finds, once the caller has a place at the gate of lists.

        Raises:
            Temporary: too many lists are read at once, or the database does not answer.
        """
        share = origins.share(request, caller.id if caller is not None else None)
        async with self._services.gates.lists.passed(share):
            return await self._services.readers.ask(look)

    def cut(self, rows: Sequence[Row], limit: int) -> tuple[Sequence[Row], bool]:
        """The rows of a page, of one more that were asked for; and whether more follow."""
        return rows[:limit], len(rows) > limit

    def next(self, place: PageStart, after: Sequence[Any], of: object = "") -> str:
        """The cursor of what follows a row."""
        return cursors.pack_place(self._name, str(of), place.asked, after, self._key, self._expires_s)
