"""One world: honest people, farms and griefers use one ledger, day by day; creators' final earnings are noted every day."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
from psycopg import Connection

from benchmarks.economy import strategies
from benchmarks.economy.catalogue import SEGMENTS_MAX
from benchmarks.economy.farms import MOMENTS, Farm
from benchmarks.economy.griefers import Attack, Griefer
from benchmarks.economy.learning import Pace
from benchmarks.economy.people import People
from benchmarks.economy.platform import HONEST, Ids, Platform, Searches, Sent
from benchmarks.economy.strategies import Strategy
from ledger.accrual.caps import DAY_S
from ledger.accrual.fold import Outcome
from ledger.settings import PPM, Economics
from pipelines.index import originals
from pipelines.index.vectors import MomentDetails
from pipelines.models import relevance

SLOT_ENDS_S = (50 * 60, 12 * 3600, DAY_S - 10 * 60)  # whole buckets of maturity
NOON = 1
# On whose 16th day the hashes of all viewers change at one instant, or (from April 2027 on) those of a thirtieth of them.
START_DAYS = (690 * 30 - 15, 705 * 30 - 15)
RESTART_DAYS = 5  # after which the ledger is started again
WALLET_DAYS, DECEIVED_DAYS = 3, 4  # between changes of a wallet, and between a person's mistakes
CLONED_MOMENTS = 1000  # of each copy of a video
STUFFED_SHARE = 0.05  # of honest pages, on which a stuffed moment is the last
STRANGER_COSINE, STRANGER_SPREAD = 0.15, 0.03  # of such a moment with what was asked, by models of pictures and texts


def final_after(economics: Economics) -> int:
    """Return after how many days a day's earnings can no longer be taken back."""
    return -(-economics.maturity_s // DAY_S)


class World:
    """A world that runs once.

    Afterwards `settled` has the final earnings of `creators` as they were at the end of each day, (days, creators).
    """

    def __init__(
        self,
        connection: Connection[Any],
        seed: int,
        economics: Economics,
        people: People,
        pace: Pace,
        *,
        farms: Sequence[Strategy] = (),
        attacks: Sequence[Attack] = (),
        has_people: bool = True,
    ) -> None:
        """Make a world that has not run yet; honest people search in it only if `has_people`."""
        self.economics, self.people, self.pace = economics, people, pace
        self.start_day = START_DAYS[seed % len(START_DAYS)]
        self.platform = Platform(connection, economics, seed, self.start_day)
        self.farms = [Farm(each, 1 + number, people, economics, seed, pace) for number, each in enumerate(farms)]
        self.griefers = [Griefer(each, 500 + number, people, seed) for number, each in enumerate(attacks)]
        self.creators: Ids = np.unique(np.concatenate([people.creators, *(farm.creators for farm in self.farms)]))
        self.platform.sign_up(self.creators.tolist())
        for farm in self.farms:
            self.platform.sent[farm.party] = Sent(farm.creators)
        self._rng = np.random.default_rng([seed, 5])
        self._has_people, self._lag = has_people, final_after(economics)
        self.settled = np.zeros((pace.days + self._lag, len(self.creators)), np.int64)  # (days, creators)
        self.held: tuple[set[int], set[int]] = (set(), set())
        self.taken: dict[int, int] = {}

    def run(self) -> World:
        for number in range(len(self.settled)):
            self._day(number)
        self.held, self.taken = self.platform.held(), self.platform.taken_back()
        return self

    def gained(self, creators: Ids, first: int, last: int) -> Ids:
        """Return the final earnings of each of these creators from the days `first` up to but not including `last`."""
        places = np.searchsorted(self.creators, creators)
        before = self.settled[first + self._lag - 1, places] if first else 0
        found: Ids = self.settled[last + self._lag - 1, places] - before
        return found

    def _day(self, number: int) -> None:
        day = self.start_day + number
        slots: list[list[tuple[int, Searches]]] = [[], [], []]
        if number < self.pace.days:
            self._fill(slots, number, day)
        for slot, parts in enumerate(slots):
            self.platform.pass_to(day * DAY_S + SLOT_ENDS_S[slot])
            self.platform.show(parts, self._rng)
            if slot == NOON:
                self.platform.pay()
                self._meddle(number)
        self.settled[number] = self.platform.settled(self.creators.tolist())
        if number >= self._lag:
            for farm in self.farms:
                places = np.searchsorted(self.creators, farm.creators)
                farm.see(self.settled[number, places], number - self._lag, is_in_time=number < farm.pace.learned)
        self.people.forget()
        self.platform.forget_folded()
        if number % RESTART_DAYS == RESTART_DAYS - 1:
            self.platform.restart()

    def _fill(self, slots: list[list[tuple[int, Searches]]], number: int, day: int) -> None:
        """Add a day's searches to its slots: griefers' first, then farms', then honest people's."""
        for griefer in self.griefers:
            searches = griefer.day(number, day)
            if searches is not None:
                slots[0].append((griefer.party, searches))
        for farm in self.farms:
            for slot, parts in enumerate(farm.day(number, day)):
                slots[slot] += [(farm.party, part) for part in parts]
        for slot, searches in enumerate(self.people.day(number, day) if self._has_people else ()):
            for farm in self.farms:
                if farm.strategy.stuffs:
                    add = self._cloned if farm.strategy.clones else self._stuffed
                    searches = add(searches, farm)
            slots[slot].append((HONEST, searches))

    def _stuffed(self, searches: Searches, farm: Farm) -> Searches:
        """Replace the last moment of some pages by one of the farm's.

        The words of that moment match the search; its picture does not.
        """
        ends = np.cumsum(searches.counts) - 1
        places = ends[self._rng.random(len(ends)) < STUFFED_SHARE]
        segments, creators, amounts = searches.segments.copy(), searches.creators.copy(), searches.amounts.copy()
        creators[places] = self._rng.choice(farm.creators, len(places))
        segments[places] = creators[places] * SEGMENTS_MAX + self._rng.integers(0, MOMENTS, len(places))
        cosines = self._rng.normal(STRANGER_COSINE, STRANGER_SPREAD, len(places))
        amounts[places] = relevance.general().ppm(cosines) * self.economics.rate_pix // PPM
        earned, worth = int(amounts[places].sum()), len(places) * strategies.look_pix(self.economics)
        outcomes = self.platform.sent[farm.party].by_outcome
        outcomes[Outcome.UNEARNED] = outcomes.get(Outcome.UNEARNED, 0) + worth - earned
        outcomes[Outcome.FUNDED] = outcomes.get(Outcome.FUNDED, 0) + earned
        return dataclasses.replace(searches, segments=segments, creators=creators, amounts=amounts)

    def _cloned(self, searches: Searches, farm: Farm) -> Searches:
        """Let some pages end with a moment of the farm and all its copies, of which one earns."""
        count, look = farm.strategy.clones, strategies.look_pix(self.economics)
        ends = np.cumsum(searches.counts)
        pages = np.flatnonzero((self._rng.random(len(ends)) < STUFFED_SHARE) & (searches.counts >= count))
        places = (ends[pages] - count)[:, None] + np.arange(count)  # (pages, copies)
        creator = int(farm.creators[0])
        shown = self._rng.integers(0, CLONED_MOMENTS, len(pages))[:, None] + np.arange(count) * CLONED_MOMENTS
        segments, creators, amounts = searches.segments.copy(), searches.creators.copy(), searches.amounts.copy()
        segments[places], creators[places] = creator * SEGMENTS_MAX + shown, creator
        moments = [MomentDetails(number, number, creator, "", "") for number in range(count)]
        earning = originals.of(moments, combinations(range(count), 2))
        amounts[places] = np.where(np.isin(np.arange(count), list(earning)), look, 0)
        outcomes, unearned = self.platform.sent[farm.party].by_outcome, count - len(earning)
        outcomes[Outcome.UNEARNED] = outcomes.get(Outcome.UNEARNED, 0) + len(pages) * unearned * look
        outcomes[Outcome.FUNDED] = outcomes.get(Outcome.FUNDED, 0) + len(pages) * len(earning) * look
        return dataclasses.replace(searches, segments=segments, creators=creators, amounts=amounts)

    def _meddle(self, number: int) -> None:
        for farm in self.farms:
            if farm.strategy.wallets and number % WALLET_DAYS == 0:
                for creator in farm.creators.tolist():
                    self.platform.change_wallet(creator, number + 1)
            if farm.strategy.is_believed and number == 0:
                self.platform.believe(farm.creators.tolist())
            if farm.strategy.deceives and number % DECEIVED_DAYS == DECEIVED_DAYS - 1:
                self.platform.release(farm.creators.tolist())
