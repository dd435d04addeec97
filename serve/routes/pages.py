"""Pages of a list: each begins after the last row of the page before, which a signed cursor names.

A cursor also carries the filters, so others beside it are refused, as in a search. A cursor gives no rights: each page
checks what its caller may see. Lists that are open to all wait at a gate of their own, so that searches find
connections. Knows nothing of what is listed.
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
    """Where a page begins: the filters and order, and the sort key of the last row before it (() for page one)."""

    filters: Mapping[str, Any]
    after: Sequence[Any] = ()


class Pages:
    """Reads lists of one kind page by page: where a page begins, its rows, and the cursor of the next one."""

    def __init__(self, services: Services, name: str) -> None:
        self._services = services
        self._key, self._expires_s = services.cursor_key, services.search.cursor_expires_s
        self._name = name

    def start(self, cursor: str | None, filters: Mapping[str, Any] | None = None, of: object = "") -> PageStart:
        """Return where a page begins.

        Args:
            cursor: the cursor that the caller sent, if any.
            filters: the filters and order that the caller sent, by name; one that is None or "" was not sent.
            of: what the list belongs to, for instance the id of a video.

        Raises:
            Rejected: the cursor is not one of this list or has expired, or filters stand beside it.
        """
        stated = {name: value for name, value in (filters or {}).items() if value not in (None, "")}
        if cursor is None:
            return PageStart(stated)
        if stated:
            detail = f"a cursor carries its own filters, {next(iter(stated))} cannot stand beside it"
            raise Rejected(detail, status=422, code="bad-cursor", hint="give the cursor with limit alone")
        return PageStart(*cursors.unpack_place(self._name, str(of), cursor, self._key))

    async def read(
        self,
        request: Request,
        caller: Principal | None,
        look: Callable[[AsyncConnection[Any]], Awaitable[Found]],
    ) -> Found:
        """Ask the database for a list, once the caller has a place at the gate of lists.

        Args:
            request: the request, for its address.
            caller: who asks, if they sent a key.
            look: the question.

        Returns:
            What the question returns.

        Raises:
            Temporary: too many lists are read at once, or the database does not answer.
        """
        share = origins.share(request, caller.id if caller is not None else None)
        async with self._services.gates.lists.passed(share):
            return await self._services.readers.ask(look)

    def cut(self, rows: Sequence[Row], limit: int) -> tuple[Sequence[Row], bool]:
        """Return the first `limit` rows, and whether more follow; `rows` must have been asked for up to `limit` + 1."""
        return rows[:limit], len(rows) > limit

    def cursor_after(self, place: PageStart, after: Sequence[Any], of: object = "") -> str:
        """Return the cursor of the page after a row; `after` is the sort key of that row."""
        return cursors.pack_place(self._name, str(of), place.filters, after, self._key, self._expires_s)
