"""One economy: the same honest world twice, by itself and beside farms and griefers, and what everybody owns in the end."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from psycopg import Connection

from benchmarks.economy import farms, griefers
from benchmarks.economy.farms import Farm, Strategy, Tactic
from benchmarks.economy.griefers import Attack, Griefer
from benchmarks.economy.people import People
from benchmarks.economy.platform import HONEST, Ids, Platform, Searches, Sent, creators_part
from ledger.caps import DAY_S
from ledger.fold import Outcome
from ledger.settings import PPM, Economics
from pipelines import relevance

DAYS, DRAIN_DAYS = 30, 6  # the latter so that all has been judged and has matured
SLOT_ENDS_S = (50 * 60, 12 * 3600, DAY_S - 10 * 60)
NOON = 1
# On whose 16th day the hashes of all viewers change at one instant, or (from April 2027 on) those of a thirtieth of them.
START_DAYS = (690 * 30 - 15, 705 * 30 - 15)
SEARCHES_A_DAY = (
    1440  # of an unrestrained network or key: one a minute, a six-thousandth of what limits of rate let through
)
DECEIVED_ON = 10
STUFFED_SHARE = 0.05  # of honest pages, on which a stuffed moment is the last
STRANGER_COSINE, STRANGER_SPREAD = 0.15, 0.03  # of such a moment with what was asked, by models of pictures and texts
FARMS_EACH = 5  # of all strategies, in one economy
SMALL_PIX, TOLD_PIX = 1_000_000, 45_000  # of a small creator's whole time; less than the latter is no income


@dataclass(frozen=True)
class FarmResult:
    """What one farm has come to, in base units; `worth` is its creators' part of all its appearances."""

    strategy: str
    kept: int
    worth: int
    unrestrained: int  # what its networks and keys would have earned without bounds, one search a minute
    source_days: int
    creators: int
    stopped: dict[str, int]  # what of `worth` was not paid, and why
    best: dict[str, float]
    best_day: int  # what its best cell has brought in a day
    best_sources: int  # with so many networks and keys


@dataclass(frozen=True)
class GriefResult:
    """What one griefer has cost its victims, and what it has spent."""

    attack: str
    before: int  # what the victims own without any attack
    after: int
    lost: int  # by those who own less, since what some gain makes up for nobody's loss
    network_days: int
    searches: int


@dataclass
class Result:
    """One economy's numbers, as they are written down."""

    seed: int
    farms: list[FarmResult] = field(default_factory=list)
    griefs: list[GriefResult] = field(default_factory=list)
    honest_before: int = 0
    honest_lost: int = 0
    worst_lost_ppm: int = 0  # of one creator's income
    small_before: int = 0
    small_lost: int = 0
    held_honest: int = 0  # creators with a hold, of which partial ones
    held_honest_in_part: int = 0
    held_before: int = 0  # the same without an attack
    taken_before_ppm: int = 0  # what the rules take of honest creators without an attack, of what was funded


def strategies_of(seed: int) -> list[Strategy]:
    """Whose turn it is: each strategy as often as any other."""
    count = len(farms.STRATEGIES)
    return [farms.STRATEGIES[(seed * FARMS_EACH + number) % count] for number in range(FARMS_EACH)]


def run(
    connection: Connection[Any],
    seed: int,
    economics: Economics,
    strategies: Sequence[Strategy] | None = None,
    attacks: Sequence[Attack] = griefers.ATTACKS,
    days: int = DAYS,
) -> Result:
    """Both worlds of a seed; `connection` is to a database that is emptied."""
    chosen = strategies_of(seed) if strategies is None else strategies
    start_day = START_DAYS[seed % len(START_DAYS)]
    calm = _World(connection, seed, economics, start_day, days, (), ())
    calm.run()
    loud = _World(connection, seed, economics, start_day, days, chosen, attacks)
    loud.run()
    return _compare(seed, calm, loud)


class _World:
    """A world that runs once; afterwards `owned` says what everybody has."""

    def __init__(
        self,
        connection: Connection[Any],
        seed: int,
        economics: Economics,
        start_day: int,
        days: int,
        strategies: Sequence[Strategy],
        attacks: Sequence[Attack],
    ) -> None:
        self.platform = Platform(connection, economics, seed, start_day)
        self.people = People(seed, economics, self.platform.hashes, days)
        self.farms = [Farm(each, 1 + number, self.people, seed) for number, each in enumerate(strategies)]
        self.griefers = [Griefer(each, 500 + number, self.people, seed) for number, each in enumerate(attacks)]
        self._rng = np.random.default_rng([seed, 5])
        self._start_day, self._days = start_day, days
        self.creators = np.unique(np.concatenate([self.people.creators, *(farm.creators for farm in self.farms)]))
        self.platform.sign_up(self.creators.tolist())
        for farm in self.farms:
            self.platform.sent[farm.party] = Sent(farm.creators)
        self.owned: dict[int, int] = {}
        self.held: tuple[set[int], set[int]] = (set(), set())
        self.taken: dict[int, int] = {}

    def run(self) -> None:
        for number in range(self._days + DRAIN_DAYS):
            self._day(number)
        self.owned = self.platform.owned(self.creators.tolist())
        self.held, self.taken = self.platform.held(), self.platform.taken_back()

    def _day(self, number: int) -> None:
        day = self._start_day + number
        slots: list[list[tuple[int, Searches]]] = [[], [], []]
        if number < self._days:
            self._fill(slots, number, day)
        for slot, parts in enumerate(slots):
            self.platform.pass_to(day * DAY_S + SLOT_ENDS_S[slot])
            self.platform.show(parts, self._rng)
            if slot == NOON:
                self.platform.pay()
                self._meddle(number)
        self.people.forget()
        if (number + 1) % farms.PERIOD_DAYS == 0 and number < self._days:
            for farm in self.farms:
                farm.look(self.platform.owned(farm.creators.tolist()))

    def _fill(self, slots: list[list[tuple[int, Searches]]], number: int, day: int) -> None:
        """What is shown on a day: griefers come first, farms before the honest."""
        for griefer in self.griefers:
            searches = griefer.day(number, day)
            if searches is not None:
                slots[0].append((griefer.party, searches))
        for farm in self.farms:
            for slot, parts in enumerate(farm.day(number, day)):
                slots[slot] += [(farm.party, part) for part in parts]
        for slot, searches in enumerate(self.people.day(number, day)):
            for farm in self.farms:
                if farm.strategy.stuffs:
                    searches = self._stuffed(searches, farm)
            slots[slot].append((HONEST, searches))

    def _stuffed(self, searches: Searches, farm: Farm) -> Searches:
        """The last moment of some pages is the farm's: its words were asked for, and what it shows was not."""
        ends = np.cumsum(searches.counts) - 1
        places = ends[self._rng.random(len(ends)) < STUFFED_SHARE]
        segments, creators, amounts = searches.segments.copy(), searches.creators.copy(), searches.amounts.copy()
        creators[places] = self._rng.choice(farm.creators, len(places))
        segments[places] = creators[places] * 1000 + self._rng.integers(0, farms.OWN_SEGMENTS, len(places))
        rate = self.platform.economics.rate_pix
        cosines = self._rng.normal(STRANGER_COSINE, STRANGER_SPREAD, len(places))
        amounts[places] = relevance.general().ppm(cosines) * rate // PPM
        sent = self.platform.sent[farm.party]
        worth = len(places) * farms.FARM_RELEVANCE_PPM * rate // PPM
        sent.by_outcome[Outcome.UNEARNED] = (
            sent.by_outcome.get(Outcome.UNEARNED, 0) + worth - int(amounts[places].sum())
        )
        sent.by_outcome[Outcome.FUNDED] = sent.by_outcome.get(Outcome.FUNDED, 0) + int(amounts[places].sum())
        return dataclasses.replace(searches, segments=segments, creators=creators, amounts=amounts)

    def _meddle(self, number: int) -> None:
        for farm in self.farms:
            if farm.strategy.wallets and number % farms.PERIOD_DAYS == 0:
                for creator in farm.creators.tolist():
                    self.platform.change_wallet(creator, number + 1)
            if farm.strategy.deceives and number == DECEIVED_ON:
                self.platform.release(farm.creators.tolist())


def _compare(seed: int, calm: _World, loud: _World) -> Result:
    padded = {int(creator) for farm in loud.farms if farm.strategy.pads for creator in farm.creators}
    honest = [int(creator) for creator in calm.people.creators if int(creator) not in padded]
    losses = {creator: max(0, calm.owned[creator] - loud.owned[creator]) for creator in honest}
    before = {creator: calm.owned[creator] for creator in honest}
    small = [creator for creator in honest if before[creator] < SMALL_PIX]
    told = [creator for creator in honest if before[creator] >= TOLD_PIX]
    funded = max(1, sum(before.values()))
    result = Result(
        seed,
        honest_before=sum(before.values()),
        honest_lost=sum(losses.values()),
        worst_lost_ppm=max((losses[each] * PPM // before[each] for each in told), default=0),
        small_before=sum(before[each] for each in small),
        small_lost=sum(losses[each] for each in small),
        held_honest=len(loud.held[0] & set(honest)),
        held_honest_in_part=len(loud.held[1] & set(honest)),
        held_before=len((calm.held[0] | calm.held[1]) & set(honest)),
        taken_before_ppm=sum(calm.taken.get(each, 0) for each in honest) * PPM // funded,
    )
    result.farms += [_farm_result(farm, calm, loud) for farm in loud.farms]
    result.griefs += [_grief_result(griefer, calm, loud) for griefer in loud.griefers]
    return result


def _farm_result(farm: Farm, calm: _World, loud: _World) -> FarmResult:
    economics, creators = loud.platform.economics, farm.creators.tolist()
    sent = loud.platform.sent[farm.party]
    own = sum(calm.owned.get(creator, 0) for creator in creators)  # what an audience of their own has earned them
    kept = sum(loud.owned[creator] for creator in creators) - own
    taken = sum(loud.taken.get(creator, 0) for creator in creators)
    stopped = {
        outcome.name.lower(): creators_part(economics, sent.by_outcome.get(outcome, 0))
        for outcome in Outcome
        if outcome is not Outcome.FUNDED
    }
    paid = creators_part(economics, sent.by_outcome.get(Outcome.FUNDED, 0))
    stopped |= {"taken back": taken, "withheld": max(0, paid - taken - kept)}
    unrestrained = farms.worth_of_a_day(economics, SEARCHES_A_DAY)
    source_days = farm.sources * farm.days_at_work
    best = farm.best()
    return FarmResult(
        farm.strategy.name, kept, creators_part(economics, sent.worth), unrestrained * source_days, source_days,
        len(creators), stopped, _tactic(best[0]) if best else {}, best[1] if best else 0,
        len(farm.cells[0].sources),
    )  # fmt: skip


def _tactic(tactic: Tactic) -> dict[str, float]:
    return {name: round(value, 2) for name, value in dataclasses.asdict(tactic).items()}


def _grief_result(griefer: Griefer, calm: _World, loud: _World) -> GriefResult:
    victims: Ids = griefer.victims
    pairs = [(calm.owned[int(each)], loud.owned[int(each)]) for each in victims]
    return GriefResult(
        griefer.attack.name, sum(one for one, _ in pairs), sum(other for _, other in pairs),
        sum(max(0, one - other) for one, other in pairs), griefer.network_days, griefer.searches,
    )  # fmt: skip
