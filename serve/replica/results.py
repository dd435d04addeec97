"""Answers that are kept: first in this replica (bounded), then in Redis for all of them, by query and generation.

An answer is kept as the bytes that are sent, with what its appearances need; searches for the same at the same moment
are made once and shared. Nobody waits until Redis has an answer, and what is made within a moment is given to it
together. Only whole answers are kept, never degraded ones. Both copies are as old as the answer: after `result_cache_s`
it is made again, since its cursor and its links hold for a while only; an older one is shown when that fails. Knows
nothing of how an answer is made.
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
GATHER_S = 0.02  # for what is made, before Redis is given all of it
ANSWER_S = 0.2  # of a request's deadline, kept to answer with something else when the search is not made in time
EXPECTED = (PixrError, psycopg.Error)  # of the making of an answer; each caller who waits gets it


@dataclass(frozen=True)
class Shown:
    """A moment on the page, as far as money is concerned."""

    segment_id: int
    creator_id: int
    best_frame_ms: int
    relevance_ppm: int


@dataclass(frozen=True)
class ResultPage:
    """One page of an answer: its moments as JSON, and the rest of what is sent."""

    moments: bytes
    shown: tuple[Shown, ...]
    next_cursor: str | None
    degraded: tuple[str, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict, compare=False)  # by stage, of making it
    facets: Mapping[str, Any] | None = None  # of what was found, where they were asked for
    made_at_s: float = field(default_factory=time.time, compare=False)  # since 1970

    def tag(self, *, nothing_matches: bool) -> str:
        """The entity tag of an answer that shows this page, and says or does not say that nothing matches."""
        return self._tags[nothing_matches]

    @cached_property
    def _tags(self) -> tuple[str, str]:
        rest = [self.next_cursor, self.degraded, self.facets]
        said, unsaid = (manners.tag(self.moments, orjson.dumps([*rest, each])) for each in (False, True))
        return said, unsaid

    @property
    def is_empty(self) -> bool:
        return self.moments == b"[]" and self.next_cursor is None

    def dump(self) -> bytes:
        rows = [(each.segment_id, each.creator_id, each.best_frame_ms, each.relevance_ppm) for each in self.shown]
        return orjson.dumps([self.next_cursor, rows, self.facets, self.made_at_s]) + b"\n" + self.moments

    @classmethod
    def load(cls, data: bytes) -> ResultPage:
        head, _, moments = data.partition(b"\n")
        next_cursor, rows, *more = orjson.loads(head)
        facets, made_at_s = (*more, None, None)[:2]  # neither from a replica of the release before this one
        shown = tuple(Shown(*row) for row in rows)
        # Never of the future, by whatever clock: it would be kept for longer.
        return cls(moments, shown, next_cursor, facets=facets, made_at_s=min(made_at_s or time.time(), time.time()))


class Results:
    """One replica's answers. Used inside one event loop."""

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
        """The answer to a query, and where it comes from; one that is too old only where none can be made.

        Raises:
            Temporary: none can be made, and none was kept.
        """
        kept = self.kept(identity, generation)
        if kept is not None:
            return kept, REPLICA
        name = f"{PREFIX}{generation}:{identity}"
        task = self._making.get(name)
        if task is None:
            # Its time is its own: the first who asks may have little left, and those who join it more.
            with deadlines.limited(self._search.deadline_s):
                task = self.tasks.spawn("an answer", self._fetch(generation, identity, make), expected=EXPECTED)
            self._making[name] = task
            task.add_done_callback(lambda _: self._making.pop(name, None))
        # A caller who goes away, or whose time is over, does not take the answer from those who wait for it.
        try:
            return await deadlines.within(asyncio.shield(task), self._most_s())
        except Temporary:
            old = self._kept_since(identity, generation, self._search.result_cache_s + self._search.stale_max_s)
            if old is None:
                raise
            return old, REPLICA

    def _most_s(self) -> float:
        """How long an answer may take, so that there is time left to answer with what is popular."""
        most_s = deadlines.left_s(self._search.deadline_s)
        return max(most_s - ANSWER_S, most_s / 2)

    def kept(self, identity: str, generation: int) -> ResultPage | None:
        """What this replica has, and was made within `result_cache_s`."""
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
        """Remove every answer, here and in Redis; other replicas follow by the generation."""
        self._clear(self._generation)
        await self.shared()
        await self._store.forget(PREFIX)

    async def close(self) -> None:
        """Give Redis what it has not got yet, and end what is being made."""
        await self.shared()
        await self.tasks.close()

    async def shared(self) -> None:
        """Until Redis has, or has refused, what was made so far."""
        while self._sharing is not None:
            await asyncio.shield(self._sharing)  # who goes away does not take it from Redis, or from others who wait

    async def _fetch(
        self, generation: int, identity: str, make: Callable[[], Coroutine[Any, Any, ResultPage]]
    ) -> tuple[ResultPage, str]:
        name = f"{PREFIX}{generation}:{identity}"
        data = await self._store.get(name)
        if data is not None:
            page = ResultPage.load(data)
        else:
            page = await deadlines.within(make(), self._most_s())
        if page.degraded:
            return page, MADE
        if generation == self._generation:  # of the replica now, which may have moved on while this was made
            self._keep(identity, page)
        if data is not None:
            return page, SHARED
        self._unshared[name] = page
        if self._sharing is None:
            self._sharing = self.tasks.spawn("sharing", self._share())
        return page, MADE

    async def _share(self) -> None:
        """Give Redis what was made, and what is made meanwhile."""
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
