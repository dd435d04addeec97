"""Farms: bots of one strategy at work in one world. A farm has cells, each with networks or keys and creators of its own.

A cell's bots look at the farm's moments and, as a cover, at other people's. What the farm's creators have finally
earned tells it which tactic is best (see `learning`). A farm learns in the same way in a world without rules. Knows no
bound and no review.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from benchmarks.economy.catalogue import PAGE, SEGMENTS_MAX
from benchmarks.economy.learning import Learner, Pace, Tactic
from benchmarks.economy.people import People, amounts
from benchmarks.economy.platform import Bytes, Ids, Searches
from benchmarks.economy.strategies import COPIES, LOOKS_A_DAY, RELEVANCE_PPM, Strategy, openings
from benchmarks.economy.viewers import Viewer
from ledger.settings import Economics

MOMENTS = 8_000  # of a farm's creator: ten hours of shots of a few seconds
PAGES_A_COOKIE = 4
SLEEPER_LOOKS = 20  # a day, at others
SKEWS_MS = (0, 2 * 86_400_000, -86_400_000)  # of replicas over which the same page is sent
CREATORS_MAX = 300  # of a cell: how a farm's creators are numbered


@dataclass
class Cell:
    """A part of a farm with its own creators, networks and keys."""

    creators: Ids
    networks: list[str]
    keys: list[Viewer]
    slot: int  # of a day, in which its bots search
    yesterday: tuple[Searches, list[Viewer]] | None = None

    @property
    def sources(self) -> int:
        return len(self.networks) + len(self.keys)


class Farm:
    """The bots of one strategy in one world; `party` distinguishes their searches from others'."""

    def __init__(
        self, strategy: Strategy, party: int, people: People, economics: Economics, seed: int, pace: Pace
    ) -> None:
        """Make a farm that has not begun yet; `economics` are those of its world."""
        self.strategy, self.party, self._people = strategy, party, people
        self._rng = np.random.default_rng([seed, 3, party])
        self.pace, self._sleeps = strategy.pace(pace), strategy.sleeps
        sleeps = strategy.sleeps
        awake = replace(self.pace, days=self.pace.days - sleeps, learned=self.pace.learned - sleeps)
        self.learner = Learner(awake, openings(strategy, economics), self._rng)
        self.cells = [self._cell(number) for number in range(self.pace.cells)]
        self._settled = np.zeros(len(self.creators), np.int64)

    @property
    def creators(self) -> Ids:
        return np.concatenate([cell.creators for cell in self.cells])

    @property
    def sources(self) -> int:
        return sum(cell.sources for cell in self.cells)

    def see(self, settled: Ids, number: int, *, is_in_time: bool) -> None:
        """Note what the farm's creators have earned, once the earnings of the day `number` are final."""
        gains = np.add.reduceat(settled - self._settled, np.arange(0, len(settled), len(self.cells[0].creators)))
        self._settled = settled
        if number >= self._sleeps and not self.strategy.stuffs:
            self.learner.see(number - self._sleeps, gains, is_in_time=is_in_time)

    def day(self, number: int, day: int) -> list[list[Searches]]:
        """Return the farm's searches of a day, slot by slot."""
        slots: list[list[Searches]] = [[], [], []]
        if self.strategy.stuffs:
            return slots
        age = number - self._sleeps
        tactics = self.learner.tactics(age) if age >= 0 else [Tactic()] * len(self.cells)
        for cell, tactic in zip(self.cells, tactics, strict=True):
            if cell.yesterday is not None:
                before, viewers = cell.yesterday
                hashes, origins = self._people.hashed(viewers, day)
                slots[0].append(replace(before, viewers=hashes, origins=origins))
            searches, viewers = self._searches(cell, tactic, age, number, day)
            cell.yesterday = (searches, viewers) if self.strategy.again else None
            slots[2 if self.strategy.again else cell.slot] += self._copies(searches)
        return slots

    # ── Bots ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def _searches(self, cell: Cell, tactic: Tactic, age: int, number: int, day: int) -> tuple[Searches, list[Viewer]]:
        """Return the searches of a cell's bots on a day, and the viewer of each search."""
        spread, deep, aside, cover = self._looks(cell, tactic, age)
        grown = tactic.growth ** min(age + 1, 30) if age >= 0 else np.inf
        bots = max(1, round(min(cell.sources * tactic.active, grown)))
        chosen = self._rng.permutation(cell.sources)[:bots]
        sizes = self._moments_of(cell)
        segments = np.concatenate([
            self._own(cell, sizes, spread, deep, aside, chosen, max(age, 0)),
            self._people.catalogue.segments[
                self._people.catalogue.any_of(self._rng, number, bots * cover)
            ].reshape(bots, cover),
        ], axis=1)  # fmt: skip
        width = int(min(PAGE, *sizes))
        pages = -(-segments.shape[1] // width)
        viewers = [self._viewer(cell, int(bot), page, number) for bot in chosen for page in range(pages)]
        counts = np.full(pages, width)
        counts[-1] = segments.shape[1] - width * (pages - 1)
        hashes, origins = self._people.hashed(viewers, day)
        counts, flat = np.tile(counts, bots), segments.reshape(-1)
        keyless = np.repeat(np.array([viewer.kind != "key" for viewer in viewers]), counts)
        return Searches(
            viewers=hashes, origins=origins, keys=np.zeros_like(hashes), counts=counts, segments=flat,
            creators=flat // SEGMENTS_MAX,
            amounts=amounts(self._people.economics, np.full(len(flat), RELEVANCE_PPM), keyless),
        ), viewers  # fmt: skip

    def _looks(self, cell: Cell, tactic: Tactic, age: int) -> tuple[int, int, int, int]:
        """Return how a bot spends its looks of a day.

        Returns:
            The number of own creators that it looks at in depth; its looks at all these together; its looks at each other
            creator of its cell; its looks at creators of other people.
        """
        most = LOOKS_A_DAY // (COPIES if self.strategy.copies else 1)
        spread = 1 if self.strategy.choice == "turn" else min(round(tactic.spread), len(cell.creators))
        if age < 0:
            return spread, 0, 0, SLEEPER_LOOKS
        others = len(cell.creators) - spread
        aside = min(round(tactic.aside), (most - spread) // others) if others else 0
        deep = min(spread * round(tactic.depth), most - others * aside)
        own = deep + others * aside
        return spread, deep, aside, min(round(own * tactic.cover), most - own)

    def _own(self, cell: Cell, sizes: Ids, spread: int, deep: int, aside: int, bots: Ids, age: int) -> Ids:
        """Return the moments of the farm's own creators at which each bot looks, (bots, own).

        A bot looks at `deep` moments of the first `spread` creators of its order, shared evenly, and at `aside` moments
        of each other creator. A day begins with the moments that follow those of the day before.
        """
        count = len(cell.creators)
        depth = -(-deep // spread) if deep else 0
        rows = []
        for bot in bots.tolist():
            order = self._order(bot, count, age)
            chosen, others = order[:spread], order[spread:]
            begins = age * (depth + aside)
            few = (begins + np.arange(aside)[:, None]) % sizes[others]
            many = (begins + aside + np.arange(depth)[:, None]) % sizes[chosen]
            looked = [
                cell.creators[those] * SEGMENTS_MAX + numbers for those, numbers in ((others, few), (chosen, many))
            ]
            rows.append(np.concatenate([looked[0].reshape(-1), looked[1].reshape(-1)[:deep]]))
        found: Ids = np.stack(rows)
        return found

    def _order(self, bot: int, count: int, age: int) -> Ids:
        """Return a cell's creators in order; a bot looks at the first ones in depth."""
        if not self.strategy.choice:
            return self._rng.permutation(count)
        return (np.arange(count) + (age if self.strategy.choice == "turn" else bot)) % count

    def _moments_of(self, cell: Cell) -> Ids:
        """Return the number of moments of each of a cell's creators."""
        if self.strategy.pads:
            return np.array([len(self._people.catalogue.of(each)) for each in cell.creators])
        return np.full(len(cell.creators), MOMENTS)

    def _viewer(self, cell: Cell, bot: int, page: int, number: int) -> Viewer:
        """Return the viewer of a bot's page: a key of the cell, or a cookie on the bot's network; cookies are new every day."""
        if bot >= len(cell.networks):
            return cell.keys[bot - len(cell.networks)]
        cookie = page if self.strategy.pads else page // PAGES_A_COOKIE
        return Viewer("cookie", f"{cell.networks[bot]} {number} {cookie}", cell.networks[bot])

    def _copies(self, searches: Searches) -> list[Searches]:
        if not self.strategy.copies:
            return [searches]
        if self.strategy.copies == "replicas":
            return [replace(searches, skew_ms=skew_ms) for skew_ms in SKEWS_MS]
        one = self._keys(searches)
        return [replace(searches, keys=one), replace(searches, keys=one), replace(searches, keys=self._keys(searches))]

    def _keys(self, searches: Searches) -> Bytes:
        """Return random hashes in place of the searches' Idempotency-Keys, uint8 (searches, 16)."""
        return self._rng.integers(0, 256, (len(searches), 16)).astype(np.uint8)

    # ── Means ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def _cell(self, number: int) -> Cell:
        name, means = f"farm {self.party} {number}", self.strategy.means
        first = 10_000 * self.party + CREATORS_MAX * number + 1
        creators = np.arange(first, first + means.creators)
        if self.strategy.pads:  # a single one is the best known, rings are of those behind
            catalogue = self._people.catalogue
            by_size = [each for each in catalogue.by_size().tolist() if not catalogue.begins[each]]
            first = means.creators * number + (0 if means.creators == 1 else self.pace.cells)
            creators = np.array(by_size[first : first + means.creators])
        networks = [f"{name} {network}" for network in range(means.networks)]
        keys = [Viewer("key", f"{name} key {key}") for key in range(means.keys)]
        return Cell(creators, networks, keys, int(self._rng.integers(3)))
