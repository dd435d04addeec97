"""Pages that are kept, by query and generation: first in this replica (bounded), then in Redis for all replicas.

A page is kept as the bytes that are sent, with what its appearances need. For equal searches at the same time the page
is made once and shared. No caller waits until Redis has a page; pages that are made within a moment are sent to it
together. Degraded pages are never kept. A page is made again after `result_cache_s`, since its cursor and its links
expire; an older one is shown when making it fails. Knows nothing of how a page is made.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import orjson
import psycopg

from cluster.errors import PixrError, Temporary
from cluster.tasks import Tasks
from serve.http import deadlines, manners
from serve.replica.store import Store
from serve.settings import SearchSettings

MADE, REPLICA, SHARED = "miss", "replica", "redis"
PREFIX = "result:"
GATHER_S = 0.02  # during which pages are gathered before they are sent to Redis together
ANSWER_S = 0.2  # of a request's deadline, left to answer with something else when the page is not made in time
EXPECTED = (PixrError, psycopg.Error)  # that making a page may raise; every caller who waits gets the error


@dataclass(frozen=True)
class Shown:
    """A moment that is shown on a page and may earn, with the values that its appearance records."""

    segment_id: int
    creator_id: int
    best_frame_ms: int
    relevance_ppm: int


@dataclass(frozen=True)
class ResultPage:
    """One page of an answer: its moments as JSON, and everything else that is sent."""

    moments: bytes  # a JSON array
    shown: tuple[Shown, ...]  # the moments that may earn
    next_cursor: str | None
    degraded: tuple[str, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict, compare=False)  # that each stage of making it took
    facets: Mapping[str, Any] | None = None  # None where they were not asked for
    made_at_s: float = field(default_factory=time.time, compare=False)  # since 1970

    def tag(self, *, nothing_matches: bool) -> str:
        """Return the entity tag of an answer that shows this page and states `nothing_matches`."""
        return self._tags[nothing_matches]

    @cached_property
    def _tags(self) -> tuple[str, str]:
        """The entity tags of answers with `nothing_matches` False and True."""
        stated = [self.next_cursor, self.degraded, self.facets]
        matching, nothing = (manners.tag(self.moments, orjson.dumps([*stated, each])) for each in (False, True))
        return matching, nothing

    @property
    def is_empty(self) -> bool:
        """Whether neither this page nor a further one shows a moment."""
        return self.moments == b"[]" and self.next_cursor is None

    def dump(self) -> bytes:
        """Return the bytes that stand for this page in Redis: a line of JSON, then the moments."""
        rows = [(each.segment_id, each.creator_id, each.best_frame_ms, each.relevance_ppm) for each in self.shown]
        return orjson.dumps([self.next_cursor, rows, self.facets, self.made_at_s]) + b"\n" + self.moments

    @classmethod
    def load(cls, data: bytes) -> ResultPage:
        """Return the page that `dump` has written, here or in a replica of the release before this one."""
        head, _, moments = data.partition(b"\n")
        next_cursor, rows, *added = orjson.loads(head)
        facets, made_at_s = (*added, None, None)[:2]  # which an earlier release did not write
        shown = tuple(Shown(*row) for row in rows)
        # A time in the future, by another machine's clock, would keep the page for longer.
        return cls(moments, shown, next_cursor, facets=facets, made_at_s=min(made_at_s or time.time(), time.time()))


class Results:
    """The pages that one replica keeps. Used inside one event loop."""

    def __init__(self, store: Store, search: SearchSettings) -> None:
        self._store = store
        self._search = search
        self._kept: OrderedDict[str, ResultPage] = OrderedDict()
        self._bytes = 0
        self._generation = 0
        self._making: dict[str, asyncio.Task[tuple[ResultPage, str]]] = {}
        self._unshared: dict[str, ResultPage] = {}
        self._sharing: asyncio.Task[None] | None = None
        self.tasks = Tasks("results")

    async def get(
        self, identity: str, generation: int, make: Callable[[], Coroutine[Any, Any, ResultPage]]
    ) -> tuple[ResultPage, str]:
        """Return the page of a query: kept, shared with an equal search that is being made, or made.

        Args:
            identity: the identity of the query.
            generation: the generation of the catalogue.
            make: makes the page.

        Returns:
            The page and where it comes from; a page older than `result_cache_s` only if no new one can be made.

        Raises:
            Temporary: no page can be made in time, and none is kept that may still be shown.
        """
        page = self.kept(identity, generation)
        if page is not None:
            return page, REPLICA
        name = f"{PREFIX}{generation}:{identity}"
        task = self._making.get(name)
        if task is None:
            # With a deadline of its own: the first caller may have little time left, and those who join more.
            with deadlines.limited(self._search.deadline_s):
                task = self.tasks.spawn("an answer", self._fetch(generation, identity, make), expected=EXPECTED)
            self._making[name] = task
            task.add_done_callback(lambda _: self._making.pop(name, None))
        # A caller who goes away, or whose time is over, does not end the search for others who wait for it.
        try:
            return await deadlines.within(asyncio.shield(task), self._most_s())
        except Temporary:
            page = self._kept_since(identity, generation, self._search.result_cache_s + self._search.stale_max_s)
            if page is None:
                raise
            return page, REPLICA

    def _most_s(self) -> float:
        """Return how many seconds making a page may take; the rest of the time is kept for an answer from the feed."""
        most_s = deadlines.left_s(self._search.deadline_s)
        return max(most_s - ANSWER_S, most_s / 2)

    def kept(self, identity: str, generation: int) -> ResultPage | None:
        """Return the page that this replica has made or loaded within `result_cache_s`; None if there is none."""
        if generation != self._generation:
            self._clear(generation)
        return self._kept_since(identity, generation, self._search.result_cache_s)

    def _kept_since(self, identity: str, generation: int, age_max_s: float) -> ResultPage | None:
        page = self._kept.get(identity) if generation == self._generation else None
        if page is None or time.time() - page.made_at_s >= age_max_s:
            return None
        self._kept.move_to_end(identity)
        return page

    async def forget(self) -> None:
        """Remove every page, here and in Redis; other replicas drop theirs when they see a new generation."""
        self._clear(self._generation)
        await self.shared()
        await self._store.forget(PREFIX)

    async def close(self) -> None:
        """Send Redis the pages that it has not got yet; stop making further ones."""
        await self.shared()
        await self.tasks.close()

    async def shared(self) -> None:
        """Wait until Redis has, or has refused, the pages that were made so far."""
        while self._sharing is not None:
            await asyncio.shield(self._sharing)  # a caller who is cancelled does not end the sharing

    async def _fetch(
        self, generation: int, identity: str, make: Callable[[], Coroutine[Any, Any, ResultPage]]
    ) -> tuple[ResultPage, str]:
        """Load a page from Redis, or make and keep it."""
        name = f"{PREFIX}{generation}:{identity}"
        data = await self._store.get(name)
        if data is not None:
            page = ResultPage.load(data)
        else:
            page = await deadlines.within(make(), self._most_s())
        if page.degraded:
            return page, MADE
        if generation == self._generation:  # the replica may have moved on while the page was made
            self._keep(identity, page)
        if data is not None:
            return page, SHARED
        self._unshared[name] = page
        if self._sharing is None:
            self._sharing = self.tasks.spawn("sharing", self._share())
        return page, MADE

    async def _share(self) -> None:
        """Send Redis the pages that were made, and those that are made meanwhile."""
        try:
            while self._unshared:
                await asyncio.sleep(GATHER_S)
                pages, self._unshared = self._unshared, {}
                dumped = {name: page.dump() for name, page in pages.items()}
                await self._store.put_all(dumped, self._search.result_cache_s)
        finally:
            self._sharing = None

    def _keep(self, identity: str, page: ResultPage) -> None:
        before = self._kept.pop(identity, None)
        self._kept[identity] = page
        self._bytes += len(page.moments) - (len(before.moments) if before is not None else 0)
        while len(self._kept) > self._search.cache_entries_max or self._bytes > self._search.cache_max_mb << 20:
            _, old = self._kept.popitem(last=False)
            self._bytes -= len(old.moments)

    def _clear(self, generation: int) -> None:
        self._kept.clear()
        self._bytes, self._generation = 0, generation
