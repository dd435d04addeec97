"""Gates: how much of a kind a replica does at once, how many wait for it, and who is sent away.

Each kind has its own gate (searches, streams, large bodies, pictures), so that one kind cannot take the places of
another. Serve's own bound on requests is above their sum: a full gate answers 503 with Retry-After, nothing queues
before it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, fields
from weakref import WeakValueDictionary

from cluster.errors import Temporary
from serve.settings import SearchSettings

RETRY_AFTER_S = 1.0


class _Share:
    """What one caller may have of a gate."""

    __slots__ = ("__weakref__", "places", "waiting", "waiting_max")

    def __init__(self, places_max: int, waiting_max: int) -> None:
        self.places, self.waiting, self.waiting_max = asyncio.Semaphore(places_max), 0, waiting_max


class Gate:
    """Places for one kind of work, of which one caller may have a part. Used inside one event loop."""

    def __init__(
        self, kind: str, places_max: int, waiting_max: int, wait_s: float | None = None, share_max: int | None = None
    ) -> None:
        self._kind = kind
        self._free = asyncio.Semaphore(places_max)
        self._places_max, self._waiting_max, self._wait_s = places_max, waiting_max, wait_s
        self._share_max = share_max or places_max
        self._shares: WeakValueDictionary[str, _Share] = WeakValueDictionary()
        self._waiting = self._held = 0

    @property
    def held(self) -> int:
        """How many places are taken; a gauge that must come back to 0."""
        return self._held

    @property
    def waiting(self) -> int:
        """How many wait for a place."""
        return self._waiting

    @asynccontextmanager
    async def passed(self, whose: str = "") -> AsyncIterator[None]:
        """Hold a place, after waiting for one if need be: first for one of the caller's share, where they are named.

        A caller who has as many as one may waits behind themselves alone, in at most half of the room to wait in.

        Raises:
            Temporary: too many are waiting, or no place became free in time.
        """
        share = self._share(whose)
        is_full = self._free.locked() and self._waiting >= self._waiting_max
        if is_full or (share.places.locked() and share.waiting >= share.waiting_max):
            raise self._full()
        self._waiting += 1
        share.waiting += 1
        try:
            async with asyncio.timeout(self._wait_s):
                await self._both(share)
        except TimeoutError as error:
            raise self._full() from error
        finally:
            self._waiting -= 1
            share.waiting -= 1
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1
            self._free.release()
            share.places.release()

    async def _both(self, share: _Share) -> None:
        """Take a place of the share's, then one of all."""
        await share.places.acquire()
        try:
            await self._free.acquire()
        except BaseException:
            share.places.release()
            raise

    def _share(self, whose: str) -> _Share:
        """A caller's own places; a caller without a name has as many as there are."""
        share = self._shares.get(whose) if whose else None
        if share is None:
            places_max = self._share_max if whose else self._places_max
            share = _Share(places_max, max(1, self._waiting_max // 2) if whose else self._waiting_max + 1)
            if whose:
                self._shares[whose] = share
        return share

    def _full(self) -> Temporary:
        return Temporary(f"too many {self._kind} at once", RETRY_AFTER_S)


class Shares:
    """Places of which one address may hold a part. Nobody waits."""

    def __init__(self, kind: str, places_max: int, address_max: int) -> None:
        self._kind = kind
        self._places_max, self._address_max = places_max, address_max
        self._by_address: Counter[str] = Counter()

    @property
    def held(self) -> int:
        return self._by_address.total()

    @contextmanager
    def passed(self, address: str) -> Iterator[None]:
        """Hold a place of an address.

        Raises:
            Temporary: the address, or all of them together, have as many as there are.
        """
        if self._by_address[address] >= self._address_max or self.held >= self._places_max:
            raise Temporary(f"too many {self._kind} at once", RETRY_AFTER_S)
        self._by_address[address] += 1
        try:
            yield
        finally:
            self._by_address[address] -= 1
            if not self._by_address[address]:
                del self._by_address[address]


@dataclass(frozen=True)
class Gates:
    """The gates of one replica beside that of its searches."""

    streams: Shares  # searches answered in parts
    bodies: Shares  # bodies on their way in
    large_shares: Shares  # of the large bodies, what one address may have
    large_bodies: Gate  # bodies above `json_max_bytes` in memory
    questions: Gate  # questions to the database whose key somebody has


def of(search: SearchSettings) -> Gates:
    return Gates(
        streams=Shares("streams", search.streams_max, search.streams_address_max),
        bodies=Shares("bodies", search.bodies_max, search.bodies_address_max),
        large_shares=Shares("large bodies", search.large_bodies_max * 3, search.large_bodies_address_max),
        large_bodies=Gate("large bodies", search.large_bodies_max, search.large_bodies_max * 2, search.deadline_s),
        questions=Gate("questions about keys", search.key_questions_max, search.waiting_max, search.deadline_s),
    )


def searches(search: SearchSettings) -> Gate:
    return Gate("searches", search.searches_max, search.waiting_max, share_max=search.searches_caller_max)


def places(gate: Gate, gates: Gates) -> dict[str, dict[str, float]]:
    """The places that are taken at each gate and the callers that wait there, by the gate's name."""
    named = {"searches": gate, **{field.name: getattr(gates, field.name) for field in fields(gates)}}
    return {name: {"taken": each.held, "waiting": getattr(each, "waiting", 0)} for name, each in named.items()}
