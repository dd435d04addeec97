"""Gates: how much of a kind a replica does at once, how many wait for it, and who is sent away.

Each kind has its own gate (searches, lists, streams, large bodies, pictures), so that one kind cannot take the places of
another. Serve's own bound on requests is above their sum: a full gate answers 503 with Retry-After, nothing queues
before it.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, fields

from cluster.errors import Temporary
from serve.settings import SearchSettings

RETRY_AFTER_S = 1.0
CALLERS_MAX = 4096  # whose turns are remembered
CREDIT_TURNS = 1  # by which one who has been here, and asks for less than others, goes before them
STRANGER = 1.0  # the weight of who has no key
ROOM_LEFT = 8  # the part of the room to wait in that those of less weight keep: one in so many


_CALLER: ContextVar[tuple[str, float]] = ContextVar("pixr_caller", default=("", STRANGER))


@contextmanager
def asked_by(whose: str, weight: float) -> Iterator[None]:
    """What is done and begun inside is done for this caller, also where nobody passes on who that is."""
    token = _CALLER.set((whose, weight))
    try:
        yield
    finally:
        _CALLER.reset(token)


def asker() -> tuple[str, float]:
    """For whom this is done, and their weight; a stranger without a name where nobody has said."""
    return _CALLER.get()


class _Rank:
    """All callers of one weight: how much they have had together, as a turn, and the turn of theirs that was served last.

    `held` are the places they have now, of `places_max` that they may have.
    """

    __slots__ = ("held", "places_max", "served", "turn", "weight")

    def __init__(self, weight: float, places_max: int) -> None:
        self.weight, self.places_max = weight, places_max
        self.turn, self.served, self.held = 0.0, 0, 0


class _Caller:
    """What one caller has of a gate: the places held, who waits for another, and how much came before, as a turn."""

    __slots__ = ("held", "places_max", "queue", "rank", "turn", "waiting_max")

    def __init__(self, rank: _Rank, places_max: int, waiting_max: int) -> None:
        self.rank, self.places_max, self.waiting_max = rank, places_max, waiting_max
        self.held, self.turn = 0, rank.served
        self.queue: deque[asyncio.Future[None]] = deque()

    @property
    def may(self) -> bool:
        """Is there a place that this caller may have, once one is free?"""
        return self.held < self.places_max and self.rank.held < self.rank.places_max


class Gate:
    """Places for one kind of work, of which one caller may have a part. Used inside one event loop.

    A place that becomes free goes to the rank that has had the least by its weight, and in it to the caller who has had
    the fewest (self-clocked fair queueing, Golestani 1994, twice): who asks for less than a fair share waits for none of
    the many requests of others, and however many names strangers come by, those of more weight have their part. Newcomers
    start at the turn that was served last. Who has waited for `wait_s` is sent away: what is begun too late is work for
    nothing. Where places are held for long, so that turns come too late, `kept` of them are for those with a key alone, and
    a name of strangers has at most `stranger_max`.
    """

    def __init__(
        self,
        kind: str,
        places_max: int,
        waiting_max: int,
        wait_s: float | None = None,
        share_max: int | None = None,
        kept: int = 0,
        stranger_max: int | None = None,
    ) -> None:
        self._kind, self._strangers_max = kind, max(1, places_max - kept)
        self._places_max, self._waiting_max, self._wait_s = places_max, waiting_max, wait_s
        self._share_max = share_max or places_max
        self._stranger_max = stranger_max or self._share_max
        self._ranks: dict[float, _Rank] = {}
        self._callers: dict[str, _Caller] = {}
        self._queued: dict[_Caller, None] = {}  # those who wait, by how long their first has waited
        self._waiting = self._held = 0
        self._turn = 0.0

    @property
    def held(self) -> int:
        """How many places are taken; a gauge that must come back to 0."""
        return self._held

    @property
    def waiting(self) -> int:
        """How many wait for a place."""
        return self._waiting

    @asynccontextmanager
    async def passed(self, whose: str = "", weight: float = STRANGER) -> AsyncIterator[None]:
        """Hold a place, after waiting for one if need be; callers without a name are each their own.

        All callers of weight 8 have eight times as many places together as all of weight 1, while both wait.

        A caller waits in at most half of the room to wait in. When it is full, the last of the caller who has most there
        gives way to one who has less.

        Raises:
            Temporary: too many are waiting, others wait who had less, or no place became free in time.
        """
        caller = self._caller(whose, weight)
        if self._held < self._places_max and caller.may:
            self._take(caller)
        else:
            await self._place(caller)
        try:
            yield
        finally:
            self._give_back(caller)

    async def _place(self, caller: _Caller) -> None:
        """Wait in the caller's queue until a place is handed over."""
        none_is_free = self._held >= self._places_max or caller.rank.held >= caller.rank.places_max
        is_full = none_is_free and self._waiting >= self._waiting_max
        if len(caller.queue) >= caller.waiting_max or (is_full and not self._has_made_room(caller)):
            raise self._full()
        place = asyncio.get_running_loop().create_future()
        caller.queue.append(place)
        self._queued.setdefault(caller)
        self._waiting += 1
        try:
            async with asyncio.timeout(self._wait_s):
                await place
        except BaseException as error:
            if place.done() and not place.cancelled():
                if place.exception() is None:  # handed over in the same moment
                    self._give_back(caller)
            elif place in caller.queue:
                self._leave(caller, place)
            if isinstance(error, TimeoutError):
                raise self._full() from error
            raise

    def _has_made_room(self, caller: _Caller) -> bool:
        """Send away the last in the longest queue of less weight, while such have more than a part of the room; else in
        the longest of equal weight, if that is longer than the caller's will be."""
        last_first = list(reversed(self._queued))
        lighter = [each for each in last_first if each.rank.weight < caller.rank.weight]
        if sum(len(each.queue) for each in lighter) <= self._waiting_max // ROOM_LEFT:
            lighter = []
        equal = (each for each in last_first if each.rank is caller.rank)
        longest = max(lighter or equal, key=lambda each: len(each.queue), default=None)
        if longest is None or (not lighter and len(longest.queue) <= len(caller.queue) + 1):
            return False
        place = longest.queue[-1]
        self._leave(longest, place)
        if not place.cancelled():  # by a caller who has gone and not yet run to here
            place.set_exception(self._full())
        return True

    def _take(self, caller: _Caller) -> None:
        rank = caller.rank
        self._held += 1
        caller.held += 1
        rank.held += 1
        caller.turn += 1
        rank.served = max(rank.served, caller.turn)
        rank.turn += 1 / rank.weight
        self._turn = max(self._turn, rank.turn)

    def _give_back(self, caller: _Caller) -> None:
        self._held -= 1
        caller.held -= 1
        caller.rank.held -= 1
        self._hand_over()

    def _hand_over(self) -> None:
        """Give what is free to those who wait."""
        while self._held < self._places_max:
            may = (each for each in self._queued if each.may)
            served = min(may, key=_order, default=None)
            if served is None:
                return
            place = served.queue[0]
            self._leave(served, place)
            if not place.cancelled():  # by a caller who has gone and not yet run to here
                self._take(served)
                place.set_result(None)

    def _leave(self, caller: _Caller, place: asyncio.Future[None]) -> None:
        """Take one who waits out of the queue; behind the first, the caller's next has waited less than others' first."""
        was_first = caller.queue[0] is place
        caller.queue.remove(place)
        self._waiting -= 1
        if was_first:
            del self._queued[caller]
            if caller.queue:
                self._queued[caller] = None

    def _caller(self, whose: str, weight: float) -> _Caller:
        if weight not in self._ranks:
            self._ranks[weight] = _Rank(weight, self._places_max if weight > STRANGER else self._strangers_max)
        rank = self._ranks[weight]
        if not any(each.rank is rank for each in self._queued):
            rank.turn = max(rank.turn, self._turn - CREDIT_TURNS)
        caller = self._callers.get(whose) if whose else None
        if caller is None or caller.rank is not rank:
            share_max = self._share_max if weight > STRANGER else self._stranger_max
            places_max = share_max if whose else self._places_max
            caller = _Caller(rank, places_max, max(1, self._waiting_max // 2) if whose else self._waiting_max + 1)
            if whose:
                self._forget()
                self._callers[whose] = caller
        caller.turn = max(caller.turn, rank.served - CREDIT_TURNS)
        return caller

    def _forget(self) -> None:
        """Drop those who have nothing and want nothing, once they are many: they come back as newcomers."""
        if len(self._callers) >= CALLERS_MAX:
            self._callers = {whose: each for whose, each in self._callers.items() if each.held or each.queue}

    def _full(self) -> Temporary:
        return Temporary(f"too many {self._kind} at once", RETRY_AFTER_S)


def _order(caller: _Caller) -> tuple[float, int, int]:
    """Who is served next: by where a place would take the rank, then by how much the caller has had, and has now."""
    return caller.rank.turn + 1 / caller.rank.weight, caller.turn, caller.held


class Shares:
    """Places of which one caller may hold a part, one with a key `keyed_max`. Nobody waits; the last `kept` are for keys."""

    def __init__(self, kind: str, places_max: int, share_max: int, kept: int = 0, keyed_max: int | None = None) -> None:
        self._kind = kind
        self._places_max, self._share_max, self._kept = places_max, share_max, kept
        self._keyed_max = keyed_max or share_max
        self._by_caller: Counter[str] = Counter()

    @property
    def held(self) -> int:
        return self._by_caller.total()

    @contextmanager
    def passed(self, whose: str, weight: float = STRANGER) -> Iterator[None]:
        """Hold a place of a caller.

        Raises:
            Temporary: the caller, or all of them together, have as many as there are for such.
        """
        is_stranger = weight <= STRANGER
        places_max = self._places_max - (self._kept if is_stranger else 0)
        share_max = self._share_max if is_stranger else self._keyed_max
        if self._by_caller[whose] >= share_max or self.held >= places_max:
            raise Temporary(f"too many {self._kind} at once", RETRY_AFTER_S)
        self._by_caller[whose] += 1
        try:
            yield
        finally:
            self._by_caller[whose] -= 1
            if not self._by_caller[whose]:
                del self._by_caller[whose]


@dataclass(frozen=True)
class Gates:
    """The gates of one replica beside that of its searches."""

    pictures: Gate  # searches by a picture, each before that of searches
    lists: Gate  # pages of lists that anybody may read
    streams: Shares  # searches answered in parts
    bodies: Shares  # bodies on their way in
    large_shares: Shares  # of the large bodies, what one key or address may have there or let wait
    large_bodies: Gate  # bodies above `json_max_bytes` in memory
    questions: Gate  # questions to the database whose key somebody has


def of(search: SearchSettings) -> Gates:
    lists = Gate("lists", search.lists_max, search.waiting_max, search.gate_wait_s, search.lists_caller_max)
    large_max, own_max, part = search.large_bodies_max, search.large_bodies_address_max, search.kept_part
    return Gates(
        pictures=_picture_searches(search),
        lists=lists,
        streams=Shares("streams", search.streams_max, search.streams_address_max, search.streams_max // part),
        bodies=Shares("bodies", search.bodies_max, search.bodies_address_max, search.bodies_max // part),
        # A key may have more wait behind those that are read.
        large_shares=Shares("large bodies", large_max * 3, own_max, large_max * 3 // part, keyed_max=large_max * 2),
        large_bodies=Gate(
            "large bodies",
            large_max,
            large_max * 2,
            search.gate_wait_s,
            share_max=own_max,
            kept=large_max // part,
            stranger_max=min(own_max, max(1, large_max // 2)),  # of a network
        ),
        questions=Gate("questions about keys", search.key_questions_max, search.waiting_max, search.gate_wait_s),
    )


def _picture_searches(search: SearchSettings) -> Gate:
    """Of searches that look at a picture, which takes an encoder as long as twenty texts.

    They have a place here before they ask for one of searches, and half of those at most, whoever asks and by however many
    names: a text waits for no more of them than that, and has the other half.
    """
    most, waiting_max = search.pictures_at_once_max, search.pictures_waiting_max
    return Gate("pictures", most, waiting_max, search.gate_wait_s, search.images_caller_max, most // search.kept_part)


def pictures(search: SearchSettings) -> Gate:
    """Of those on their way to the encoder, where each is held for long."""
    most = search.images_max
    return Gate("pictures", most, most * 2, search.gate_wait_s, search.images_caller_max, most // search.kept_part)


def searches(search: SearchSettings) -> Gate:
    return Gate(
        "searches", search.searches_max, search.waiting_max, search.gate_wait_s, share_max=search.searches_caller_max
    )


def places(gate: Gate, gates: Gates) -> dict[str, dict[str, float]]:
    """The places that are taken at each gate and the callers that wait there, by the gate's name."""
    named = {"searches": gate, **{field.name: getattr(gates, field.name) for field in fields(gates)}}
    return {name: {"taken": each.held, "waiting": getattr(each, "waiting", 0)} for name, each in named.items()}
