"""Gates: how many operations of a kind a replica runs at once, how many requests wait, and which are refused.

Each kind has its own gate (searches, lists, streams, large bodies, pictures), so that one kind cannot take the places
of another. Serve's own limit on requests is above the sum of all gates: a full gate answers 503 with Retry-After, and
nothing queues before it. Does not know what the operations do.
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
CALLERS_MAX = 4096  # callers whose turns are remembered
CREDIT_TURNS = 1  # by how many turns a caller who asks for less than others goes before them
STRANGER = 1.0  # the weight of callers without a key
ROOM_LEFT = 8  # callers of less weight keep one in eight of the places to wait


_CALLER: ContextVar[tuple[str, float]] = ContextVar("pixr_caller", default=("", STRANGER))


@contextmanager
def on_behalf_of(name: str, weight: float) -> Iterator[None]:
    """Run the block, and all tasks started in it, on behalf of a caller.

    `current_caller` returns their `name` and `weight` there.
    """
    token = _CALLER.set((name, weight))
    try:
        yield
    finally:
        _CALLER.reset(token)


def current_caller() -> tuple[str, float]:
    """Return the caller on whose behalf this code runs, and their weight; ("", STRANGER) where none is set."""
    return _CALLER.get()


class _Rank:
    """All callers of one weight.

    `turn` is the number of places that the rank has had, divided by its weight. When a request comes while none of its
    callers waits, `turn` is raised to the gate's turn less `CREDIT_TURNS`, if it is lower. `served` is the highest turn
    of a caller of the rank who was served. `held` is the number of places that the rank holds now, at most
    `places_max`.
    """

    __slots__ = ("held", "places_max", "served", "turn", "weight")

    def __init__(self, weight: float, places_max: int) -> None:
        self.weight, self.places_max = weight, places_max
        self.turn, self.served, self.held = 0.0, 0, 0


class _CallerShare:
    """One caller's part of a gate.

    It consists of the places that they hold, a future for each waiting request, and how many places they have had
    (`turn`).
    """

    __slots__ = ("held", "places_max", "queue", "rank", "turn", "waiting_max")

    def __init__(self, rank: _Rank, places_max: int, waiting_max: int) -> None:
        self.rank, self.places_max, self.waiting_max = rank, places_max, waiting_max
        self.held, self.turn = 0, rank.served
        self.queue: deque[asyncio.Future[None]] = deque()

    @property
    def may(self) -> bool:
        """Whether this caller may have a further place, once one is free."""
        return self.held < self.places_max and self.rank.held < self.rank.places_max


class Gate:
    """Places for one kind of work, shared fairly between callers. For use inside one event loop.

    Callers of the same weight are a rank. A free place goes to the rank that has had the fewest places for its weight,
    and within the rank to the caller who has had the fewest: self-clocked fair queueing (Golestani 1994), applied twice.
    So a caller with few requests does not wait for the many requests of another caller, and callers without a key, who
    can appear under many names, do not take the part of a rank of more weight. A new caller counts as having had as many
    places as the one who was served last. A request that has waited for `wait_s` is refused, since work that starts too
    late is useless.
    """

    def __init__(
        self,
        kind: str,
        places_max: int,
        waiting_max: int,
        wait_s: float | None = None,
        share_max: int | None = None,
        for_keys: int = 0,
        stranger_max: int | None = None,
    ) -> None:
        """Make a gate.

        Args:
            kind: The plural noun that refusals use, e.g. `searches`.
            places_max: How many operations run at once.
            waiting_max: How many requests wait for a place.
            wait_s: How many seconds a request waits; None: without a limit.
            share_max: Places that one caller may hold; None: all.
            for_keys: Places for callers with a key only; for work that takes long, where fair turns would come too
                late.
            stranger_max: Places that one caller without a key may hold; None: `share_max`.
        """
        self._kind, self._strangers_max = kind, max(1, places_max - for_keys)
        self._places_max, self._waiting_max, self._wait_s = places_max, waiting_max, wait_s
        self._share_max = share_max or places_max
        self._stranger_max = stranger_max or self._share_max
        self._ranks: dict[float, _Rank] = {}
        self._callers: dict[str, _CallerShare] = {}
        self._queued: dict[_CallerShare, None] = {}  # callers with waiting requests, the longest waiting first
        self._waiting = self._held = 0
        self._turn = 0.0

    @property
    def held(self) -> int:
        """How many places are taken; 0 when no request is at work."""
        return self._held

    @property
    def waiting(self) -> int:
        """How many requests wait for a place."""
        return self._waiting

    @asynccontextmanager
    async def passed(self, name: str = "", weight: float = STRANGER) -> AsyncIterator[None]:
        """Wait for a place if necessary, and hold it while the block runs.

        While both wait, all callers of weight 8 together get eight times as many places as all callers of weight 1.

        A caller may take at most half of the waiting places. When all waiting places are taken, a new request of a
        caller with few waiting requests replaces the last request of the caller with the most.

        Args:
            name: The caller's; each request without one counts as a caller of its own.
            weight: The caller's weight.

        Yields:
            Nothing; the place is held until the block ends.

        Raises:
            Temporary: too many requests wait, or no place became free in time.
        """
        caller = self._caller(name, weight)
        if self._held < self._places_max and caller.may:
            self._take(caller)
        else:
            await self._place(caller)
        try:
            yield
        finally:
            self._give_back(caller)

    async def _place(self, caller: _CallerShare) -> None:
        """Wait in the caller's queue until a place is handed over."""
        is_taken = self._held >= self._places_max or caller.rank.held >= caller.rank.places_max
        is_full = is_taken and self._waiting >= self._waiting_max
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
                if place.exception() is None:  # the place was handed over at the same moment
                    self._give_back(caller)
            elif place in caller.queue:
                self._leave(caller, place)
            if isinstance(error, TimeoutError):
                raise self._full() from error
            raise

    def _has_made_room(self, caller: _CallerShare) -> bool:
        """Refuse another caller's waiting request to make room for this caller's; return False if none has to give way.

        Callers of less weight keep one in `ROOM_LEFT` of the waiting places. If they have more, the last request of the
        longest queue among them is refused. Otherwise the callers of the same weight are compared: the last request of
        the longest queue is refused, if that queue is longer than this caller's would be with the new request.
        """
        last_first = list(reversed(self._queued))
        lighter = [share for share in last_first if share.rank.weight < caller.rank.weight]
        if sum(len(share.queue) for share in lighter) <= self._waiting_max // ROOM_LEFT:
            lighter = []
        equal = (share for share in last_first if share.rank is caller.rank)
        longest = max(lighter or equal, key=lambda share: len(share.queue), default=None)
        if longest is None or (not lighter and len(longest.queue) <= len(caller.queue) + 1):
            return False
        place = longest.queue[-1]
        self._leave(longest, place)
        if not place.cancelled():  # by a request that was cancelled and has not left its queue yet
            place.set_exception(self._full())
        return True

    def _take(self, caller: _CallerShare) -> None:
        """Give a caller a place, and count it in the turns of the caller, of its rank and of the gate."""
        rank = caller.rank
        self._held += 1
        caller.held += 1
        rank.held += 1
        caller.turn += 1
        rank.served = max(rank.served, caller.turn)
        rank.turn += 1 / rank.weight
        self._turn = max(self._turn, rank.turn)

    def _give_back(self, caller: _CallerShare) -> None:
        self._held -= 1
        caller.held -= 1
        caller.rank.held -= 1
        self._hand_over()

    def _hand_over(self) -> None:
        """Give free places to waiting requests."""
        while self._held < self._places_max:
            eligible = (share for share in self._queued if share.may)
            next_caller = min(eligible, key=_order, default=None)
            if next_caller is None:
                return
            place = next_caller.queue[0]
            self._leave(next_caller, place)
            if not place.cancelled():  # by a request that was cancelled and has not left its queue yet
                self._take(next_caller)
                place.set_result(None)

    def _leave(self, caller: _CallerShare, place: asyncio.Future[None]) -> None:
        """Take a waiting request out of its caller's queue.

        If it was the first, the caller moves to the end of `_queued`, since their next request has not waited as long.
        """
        was_first = caller.queue[0] is place
        caller.queue.remove(place)
        self._waiting -= 1
        if was_first:
            del self._queued[caller]
            if caller.queue:
                self._queued[caller] = None

    def _caller(self, name: str, weight: float) -> _CallerShare:
        """Return a caller's share, made at their first request.

        If the turns of the caller or of their rank are too far behind the others', they are raised.
        """
        if weight not in self._ranks:
            self._ranks[weight] = _Rank(weight, self._places_max if weight > STRANGER else self._strangers_max)
        rank = self._ranks[weight]
        if not any(each.rank is rank for each in self._queued):
            rank.turn = max(rank.turn, self._turn - CREDIT_TURNS)
        caller = self._callers.get(name) if name else None
        if caller is None or caller.rank is not rank:
            share_max = self._share_max if weight > STRANGER else self._stranger_max
            places_max = share_max if name else self._places_max
            caller = _CallerShare(rank, places_max, max(1, self._waiting_max // 2) if name else self._waiting_max + 1)
            if name:
                self._forget()
                self._callers[name] = caller
        caller.turn = max(caller.turn, rank.served - CREDIT_TURNS)
        return caller

    def _forget(self) -> None:
        """Drop callers that hold nothing and wait for nothing, once there are many; they may return as new ones."""
        if len(self._callers) >= CALLERS_MAX:
            self._callers = {name: share for name, share in self._callers.items() if share.held or share.queue}

    def _full(self) -> Temporary:
        return Temporary(f"too many {self._kind} at once", RETRY_AFTER_S)


def _order(caller: _CallerShare) -> tuple[float, int, int]:
    """Return a caller's sort key; the caller with the least key is served next.

    It consists of the turn that the caller's rank would have with one more place, the caller's turn, and the places
    held.
    """
    return caller.rank.turn + 1 / caller.rank.weight, caller.turn, caller.held


class Shares:
    """Places of which one caller may hold a part. Nothing waits: a request beyond the limit is refused at once."""

    def __init__(
        self, kind: str, places_max: int, share_max: int, for_keys: int = 0, keyed_max: int | None = None
    ) -> None:
        """Make the places.

        Args:
            kind: The plural noun that refusals use, e.g. `streams`.
            places_max: How many are held at once.
            share_max: How many one caller without a key may hold.
            for_keys: How many of them are for callers with a key only.
            keyed_max: How many one caller with a key may hold; None: `share_max`.
        """
        self._kind = kind
        self._places_max, self._share_max, self._for_keys = places_max, share_max, for_keys
        self._keyed_max = keyed_max or share_max
        self._by_caller: Counter[str] = Counter()

    @property
    def held(self) -> int:
        """How many places are taken."""
        return self._by_caller.total()

    @contextmanager
    def passed(self, name: str, weight: float = STRANGER) -> Iterator[None]:
        """Hold a place for a caller while the block runs.

        Raises:
            Temporary: the caller, or all callers together, hold as many as they may.
        """
        is_stranger = weight <= STRANGER
        places_max = self._places_max - (self._for_keys if is_stranger else 0)
        share_max = self._share_max if is_stranger else self._keyed_max
        if self._by_caller[name] >= share_max or self.held >= places_max:
            raise Temporary(f"too many {self._kind} at once", RETRY_AFTER_S)
        self._by_caller[name] += 1
        try:
            yield
        finally:
            self._by_caller[name] -= 1
            if not self._by_caller[name]:
                del self._by_caller[name]


@dataclass(frozen=True)
class Gates:
    """The gates of one replica, besides the one for searches."""

    pictures: Gate  # searches by a picture, which pass it before the gate of searches
    lists: Gate  # pages of public lists
    streams: Shares  # searches answered in parts
    bodies: Shares  # bodies that are being received
    large_shares: Shares  # large bodies that one key or address holds or has waiting
    large_bodies: Gate  # bodies above `json_max_bytes` in memory
    questions: Gate  # lookups of API keys in the database


def of(search: SearchSettings) -> Gates:
    """Return the gates with the limits of the settings."""
    lists = Gate("lists", search.lists_max, search.waiting_max, search.gate_wait_s, search.lists_caller_max)
    large_max, address_max, part = search.large_bodies_max, search.large_bodies_address_max, search.kept_part
    return Gates(
        pictures=_picture_searches(search),
        lists=lists,
        streams=Shares("streams", search.streams_max, search.streams_address_max, search.streams_max // part),
        bodies=Shares("bodies", search.bodies_max, search.bodies_address_max, search.bodies_max // part),
        # Three times `large_max`: bodies that wait for a place in `large_bodies` count here too. A key may have more waiting.
        large_shares=Shares("large bodies", large_max * 3, address_max, large_max * 3 // part, keyed_max=large_max * 2),
        large_bodies=Gate(
            "large bodies",
            large_max,
            large_max * 2,
            search.gate_wait_s,
            share_max=address_max,
            for_keys=large_max // part,
            stranger_max=min(address_max, max(1, large_max // 2)),  # callers without a key count by network here
        ),
        questions=Gate("questions about keys", search.key_questions_max, search.waiting_max, search.gate_wait_s),
    )


def _picture_searches(search: SearchSettings) -> Gate:
    """Make the gate of searches by a picture, each of which takes an encoder as long as twenty texts.

    Searches by a picture pass this gate before the gate of searches. However many callers there are, these searches
    take at most half of the places there, and texts have the other half.
    """
    most, waiting_max = search.pictures_at_once_max, search.pictures_waiting_max
    return Gate("pictures", most, waiting_max, search.gate_wait_s, search.images_caller_max, most // search.kept_part)


def pictures(search: SearchSettings) -> Gate:
    """Return the gate where pictures wait to be sent to the encoder, which takes long for each picture."""
    places_max = search.images_max
    return Gate(
        "pictures",
        places_max,
        places_max * 2,
        search.gate_wait_s,
        share_max=search.images_caller_max,
        for_keys=places_max // search.kept_part,
    )


def searches(search: SearchSettings) -> Gate:
    """Return the gate for searches."""
    return Gate(
        "searches", search.searches_max, search.waiting_max, search.gate_wait_s, share_max=search.searches_caller_max
    )


def places(gate: Gate, gates: Gates) -> dict[str, dict[str, float]]:
    """Map the name of each gate to how many places are taken there and how many requests wait."""
    by_name = {"searches": gate, **{field.name: getattr(gates, field.name) for field in fields(gates)}}
    return {name: {"taken": gate.held, "waiting": getattr(gate, "waiting", 0)} for name, gate in by_name.items()}
