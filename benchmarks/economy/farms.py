"""Farms: strategies that live on made views, each with its means, and the tactic of each of its cells, which it adapts.

A farm has some cells, each with networks or keys and creators of its own. A cell's bots look at the farm's moments and, as
a cover, at other people's. Every few days the farm looks at what its cells have come to own (`earnings` would tell it as
much) and lets the worst one try a variation of what the best one does. One cell begins with what whoever has read the rules
would do. Knows no bound and no review: it sees money alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from benchmarks.economy.people import PAGE, SEGMENTS_MAX, People, Viewer, amounts
from benchmarks.economy.platform import Bytes, Ids, Searches
from ledger.settings import PIX, Economics

CELLS = 3
PERIOD_DAYS = 3  # after which a farm looks at what its cells own
LOOKS_MAX = 600  # of one network or key in a day: more than that any rule would stop
FARM_RELEVANCE_PPM = 950_000  # bots ask for exactly what the farm's moments show
OWN_SEGMENTS = 30  # moments of a farm's creator


@dataclass(frozen=True)
class Means:
    """What a cell has: networks with cookies, or keys that are tied to no creator, and creators."""

    networks: int = 0
    cookies: int = 1  # of each network
    keys: int = 0
    creators: int = 1

    @property
    def sources(self) -> int:
        return self.networks + self.keys


@dataclass(frozen=True)
class Tactic:
    """What a cell's bots do on a day."""

    spread: float = 1.0  # own creators that each bot looks at
    depth: float = 20.0  # looks at each of these
    cover: float = 0.0  # looks at others for each look at an own creator
    active: float = 1.0  # of the bots
    growth: float = 100.0  # times as many bots each day, from one on

    def varied(self, rng: np.random.Generator) -> Tactic:
        """One like it."""
        factor = np.exp(rng.normal(0, 0.5, 5))
        return Tactic(
            spread=float(np.clip(self.spread * factor[0], 1, 60)),
            depth=float(np.clip(self.depth * factor[1], 1, 400)),
            cover=float(np.clip((self.cover + 0.05) * factor[2] - 0.05, 0, 6)),
            active=float(np.clip(self.active * factor[3], 0.05, 1)),
            growth=float(np.clip(self.growth * factor[4], 1.2, 100)),
        )


@dataclass(frozen=True)
class Strategy:
    """A way to live on made views. `begin` are the tactics that cells start with, of whoever has read the economics."""

    name: str
    means: Means
    begin: Callable[[Economics, Means], Sequence[Tactic]]
    sleeps: int = 0  # days in which bots look at others only
    again: bool = False  # pages of before midnight once more after it
    copies: str = (
        ""  # each page is sent three times: with one "key", with "keys" of their own, or over other "replicas"
    )
    wallets: bool = False  # another wallet, whenever something was paid
    deceives: bool = False  # a person releases the farm's holds once
    pads: bool = False  # the creators have an audience of their own
    stuffs: bool = False  # no bots: moments that are found by words they do not show


def plain(economics: Economics, means: Means) -> Sequence[Tactic]:
    """One who tries everything, one who has read the rules, and one in between."""
    vouched = max(1.0, getattr(economics, "vouched_pix", 10_000) / economics.rate_pix)
    few = getattr(economics, "captive_creators", 1)
    ring = float(means.creators)
    cover = 0.0 if ring > 2 * few else 0.3
    return (
        Tactic(spread=ring, depth=60.0),
        Tactic(spread=ring, depth=vouched + 1, cover=cover),
        Tactic(spread=max(1.0, ring / 2), depth=vouched * 2, cover=1.0),
    )


def shallow(economics: Economics, means: Means) -> Sequence[Tactic]:
    """Below what makes a viewer's day worth judging, besides."""
    least = max(1.0, economics.captive_min_pix / economics.rate_pix - 1)
    return (*plain(economics, means)[:2], Tactic(spread=1.0, depth=least))


def ramp(economics: Economics, means: Means) -> Sequence[Tactic]:
    _, reader, _ = plain(economics, means)
    return tuple(replace(reader, growth=growth) for growth in (1.9, 4.5, 9.0))


STRATEGIES = (
    Strategy("cookies of one network", Means(networks=1, cookies=300, creators=12), shallow),
    Strategy("many networks", Means(networks=24, cookies=4, creators=1), shallow),
    Strategy("ring of two", Means(networks=24, cookies=4, creators=2), plain),
    Strategy("ring of many", Means(networks=16, cookies=4, creators=40), plain),
    Strategy("many creators, few networks", Means(networks=3, cookies=100, creators=60), plain),
    Strategy("captive audience", Means(networks=12, keys=12, creators=1), plain),
    Strategy("ramp", Means(networks=32, cookies=4, creators=3), ramp),
    Strategy("keys tied to no creator", Means(keys=24, creators=8), plain),
    Strategy("Idempotency-Keys", Means(networks=8, keys=8, creators=4), plain, copies="key"),
    Strategy("repeats over replicas", Means(networks=8, keys=8, creators=4), plain, copies="replicas"),
    Strategy("day boundary and rotation", Means(networks=8, cookies=4, keys=8, creators=6), plain, again=True),
    Strategy("sleepers", Means(networks=24, cookies=4, creators=4), plain, sleeps=12),
    Strategy("wallets", Means(networks=24, cookies=4, creators=4), plain, wallets=True),
    Strategy("a person deceived", Means(networks=24, cookies=4, creators=2), plain, deceives=True),
    Strategy("padding of what is popular", Means(networks=24, cookies=4, creators=1), plain, pads=True),
    Strategy("stuffed words", Means(networks=0, creators=8), plain, stuffs=True),
)


@dataclass
class Cell:
    """A part of a farm with means and a tactic of its own."""

    creators: Ids
    sources: list[list[Viewer]]  # of each network its cookies; a key is one of its own
    tactic: Tactic
    owned: int = 0  # when the farm looked last
    tried: list[tuple[Tactic, int]] = field(default_factory=list)  # tactics, and what each has brought a day
    yesterday: Searches | None = None


class Farm:
    """One strategy at work in one economy. `party` tells its searches from others'."""

    def __init__(self, strategy: Strategy, party: int, people: People, seed: int) -> None:
        self.strategy, self.party, self._people = strategy, party, people
        self._rng = np.random.default_rng([seed, 3, party])
        tactics = strategy.begin(people.economics, strategy.means)
        own = self._own_creators()
        self.cells = [
            Cell(own[number], self._sources(number), tactics[number % len(tactics)])
            for number in range(1 if strategy.pads or strategy.stuffs else CELLS)
        ]
        if strategy.pads:
            self.cells[0].tactic = tactics[1]
        self.days_at_work = 0

    @property
    def creators(self) -> Ids:
        return np.concatenate([cell.creators for cell in self.cells])

    @property
    def sources(self) -> int:
        return sum(len(cell.sources) for cell in self.cells)

    def best(self) -> tuple[Tactic, int] | None:
        """The tactic that has brought most in a day, and how much."""
        tried = [each for cell in self.cells for each in cell.tried]
        return max(tried, key=lambda each: each[1]) if tried else None

    def look(self, owned: dict[int, int]) -> None:
        """Compare what the cells have come to own; the worst tries what the best does, a little otherwise."""
        gains = []
        for cell in self.cells:
            now = sum(owned[int(creator)] for creator in cell.creators)
            cell.tried.append((cell.tactic, (now - cell.owned) // PERIOD_DAYS))
            gains.append(now - cell.owned)
            cell.owned = now
        best = self.cells[int(np.argmax(gains))]
        record = max((each for each in best.tried), key=lambda each: each[1])[0]
        if len(self.cells) == 1:
            best.tactic = record.varied(self._rng)
        else:
            self.cells[int(np.argmin(gains))].tactic = record.varied(self._rng)

    def day(self, number: int, day: int) -> list[list[Searches]]:
        """What it sends on a day, slot by slot."""
        slots: list[list[Searches]] = [[], [], []]
        if self.strategy.stuffs:
            return slots
        self.days_at_work += number >= self.strategy.sleeps
        for cell in self.cells:
            searches = self._searches(cell, number, day)
            if cell.yesterday is not None:
                slots[0].append(self._as_of(cell.yesterday, cell, day))
                cell.yesterday = None
            if searches is None:
                continue
            slot = 2 if self.strategy.again else int(self._rng.integers(3))
            slots[slot] += self._copies(searches)
            if self.strategy.again:
                cell.yesterday = searches
        return slots

    # ── Bots ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def _searches(self, cell: Cell, number: int, day: int) -> Searches | None:
        """A day of a cell's bots: for each its looks, in pages of twenty, one cookie after the other."""
        tactic, rng, is_asleep = cell.tactic, self._rng, number < self.strategy.sleeps
        grown = min(tactic.growth ** (number - self.strategy.sleeps + 1), 1e6) if not is_asleep else 1e6
        bots = min(len(cell.sources) * tactic.active, max(1.0, grown))
        chosen = rng.permutation(len(cell.sources))[: max(1, round(bots))]
        spread, depth = min(round(tactic.spread), len(cell.creators)), round(tactic.depth)
        own = 0 if is_asleep else min(spread * depth, LOOKS_MAX)
        cover = 20 if is_asleep else min(round(spread * depth * tactic.cover), LOOKS_MAX - own)
        if own + cover == 0:
            return None
        segments = np.zeros((len(chosen), own + cover), np.int64)
        for row in range(len(chosen)):
            segments[row, :own] = self._own_looks(cell, spread, depth)[:own]
        segments[:, own:] = self._people.catalogue.segments[
            self._people.page(rng, number, -(-len(chosen) * max(cover, 1) // PAGE)).reshape(-1)
        ][: len(chosen) * cover].reshape(len(chosen), cover)
        segments = rng.permuted(segments, axis=1)
        return self._pages(cell, chosen, segments, day)

    def _own_looks(self, cell: Cell, spread: int, depth: int) -> Ids:
        """Looks of one bot at own moments: of some creators, from some moment on, over and over where there are few."""
        creators = self._rng.permutation(cell.creators)[:spread]
        first = self._rng.integers(0, SEGMENTS_MAX, spread)
        size = np.array(
            [len(self._people.catalogue.of(each)) if self.strategy.pads else OWN_SEGMENTS for each in creators]
        )
        numbers = (first[:, None] + np.arange(depth)) % size[:, None]
        found: Ids = (creators[:, None] * SEGMENTS_MAX + numbers).reshape(-1)
        return found

    def _pages(self, cell: Cell, chosen: Ids, segments: Ids, day: int) -> Searches:
        """`segments` of each chosen bot as searches of its cookies in turn."""
        width = segments.shape[1]
        pages = -(-width // PAGE)
        viewers = [cell.sources[bot][page % len(cell.sources[bot])] for bot in chosen for page in range(pages)]
        hashes, origins = self._people.hashed(viewers, day)
        sizes = np.full(pages, PAGE)
        sizes[-1] = width - PAGE * (pages - 1)
        flat = segments.reshape(-1)
        counts = np.tile(sizes, len(chosen))
        keyless = np.repeat(np.array([viewer.kind != "key" for viewer in viewers]), counts)
        relevance = np.full(len(flat), FARM_RELEVANCE_PPM)
        return Searches(
            viewers=hashes, origins=origins, keys=np.zeros_like(hashes), counts=counts, segments=flat,
            creators=flat // SEGMENTS_MAX, amounts=amounts(self._people.economics, relevance, keyless),
        )  # fmt: skip

    def _as_of(self, searches: Searches, cell: Cell, day: int) -> Searches:
        """The same pages by the same viewers a day later, whose hashes may be others by then."""
        of = {bytes(one): viewer for viewers in cell.sources for viewer, one in zip(
            viewers, self._people.hashed(viewers, day - 1)[0], strict=True)}  # fmt: skip
        viewers = [of[bytes(each)] for each in searches.viewers]
        hashes, origins = self._people.hashed(viewers, day)
        return replace(searches, viewers=hashes, origins=origins)

    def _copies(self, searches: Searches) -> list[Searches]:
        kind = self.strategy.copies
        if not kind:
            return [searches]
        if kind == "replicas":
            return [replace(searches, skew_ms=skew_ms) for skew_ms in (0, 2 * 86_400_000, -86_400_000)]
        one = self._keys(searches)
        return [replace(searches, keys=one), replace(searches, keys=one), replace(searches, keys=self._keys(searches))]

    def _keys(self, searches: Searches) -> Bytes:
        """Idempotency-Keys that were used for nothing yet, as keyed hashes: any sixteen bytes."""
        return self._rng.integers(0, 256, (len(searches), 16)).astype(np.uint8)

    # ── Means ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def _own_creators(self) -> list[Ids]:
        means = self.strategy.means
        if self.strategy.pads:
            return [self._people.by_size()[: means.creators]]
        first = 10_000 * self.party
        return [np.arange(first + 1, first + 1 + means.creators) + 100 * number for number in range(CELLS)]

    def _sources(self, cell: int) -> list[list[Viewer]]:
        name, means = f"farm {self.party} {cell}", self.strategy.means
        networks = [
            [Viewer("cookie", f"{name} {number} {cookie}", f"{name} {number}") for cookie in range(means.cookies)]
            for number in range(means.networks)
        ]
        return networks + [[Viewer("key", f"{name} key {number}")] for number in range(means.keys)]


def worth_of_a_day(economics: Economics, searches: int) -> int:
    """What a network or key that is not restrained by anything earns its farm in a day of so many searches."""
    per_look = FARM_RELEVANCE_PPM * economics.rate_pix // PIX
    return searches * PAGE * per_look * economics.creator_share_ppm // PIX
