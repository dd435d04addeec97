"""One economy: four worlds of one seed, and what follows from comparing them.

Two worlds are without rules and two with rules; one world of each pair is attacked. Farms are at work in both attacked
worlds, griefers only in the one with rules. A farm has the same means in both attacked worlds and learns in each. Its
uncapped take is what its best tactic earns without rules; what it keeps is what it earns with rules.

The loss of an honest creator is what they earn without rules and attack, minus what they earn with rules. Of the two
worlds with rules, the one in which they earn less counts, so that earnings from faked views do not reduce a loss. The
part of a loss that occurs without an attack is caused by the rules alone. Withheld earnings do not count as earned.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from psycopg import Connection

from benchmarks.economy import griefers, rules, strategies, towns
from benchmarks.economy.farms import Farm
from benchmarks.economy.griefers import Attack, Griefer
from benchmarks.economy.learning import Pace
from benchmarks.economy.people import People
from benchmarks.economy.platform import FixedHashes
from benchmarks.economy.strategies import Strategy
from benchmarks.economy.towns import Town
from benchmarks.economy.world import World
from ledger.accrual.fold import Outcome
from ledger.settings import PIX, PPM, Economics

FARMS_EACH = 4  # of all strategies, in one economy
INCOME_PIX = PIX  # in all days of an economy without rules and attack: less is no income of which a share says anything


@dataclass(frozen=True)
class Paces:
    """How many days farms work in worlds with rules, and in those without, where they learn everything in a few days."""

    ruled: Pace = field(default_factory=Pace)
    free: Pace = field(default_factory=lambda: Pace(days=12, learned=8, period=1))


@dataclass(frozen=True)
class FarmResult:
    """One farm's result over the measured days, in base units a day."""

    strategy: str
    kept: int
    uncapped: int
    sources: int  # networks and keys
    evaluations: int  # tries whose outcome it knew when it chose
    best: dict[str, float]
    best_uncapped: dict[str, float]
    stopped: dict[str, int]  # of all that was ever sent in the world with rules: what was not paid and why

    @property
    def share(self) -> float:
        return self.kept / max(1, self.uncapped)


@dataclass(frozen=True)
class CreatorResult:
    """An honest creator's income over all days, in base units."""

    creator: int
    kind: str  # of their audience
    free: int  # without rules and without an attack
    calm: int  # with rules, without an attack
    loud: int  # with both
    behind_ppm: int  # the most by which an attack kept what they had been paid so far below what it would have been

    @property
    def lost(self) -> int:
        """The loss by rules and attacks together, in base units; earnings from faked views do not reduce it."""
        return max(0, self.free - min(self.calm, self.loud))

    @property
    def lost_by_rules(self) -> int:
        return max(0, self.free - self.calm)

    @property
    def lost_by_attack(self) -> int:
        return max(0, self.calm - self.loud)


@dataclass(frozen=True)
class GriefResult:
    """What one griefer has cost its victims, and what means it has spent."""

    attack: str
    base: int  # what the victims have without an attack; of one on a shared network, what its people earn creators
    lost: int  # by those who have less, since what some gain makes up for nobody's loss
    source_days: int
    searches: int


@dataclass(frozen=True)
class Result:
    """All numbers of one economy, in the form in which they are stored."""

    seed: int
    town: str
    farms: list[FarmResult] = field(default_factory=list)
    honest: list[CreatorResult] = field(default_factory=list)
    griefs: list[GriefResult] = field(default_factory=list)
    held_calm: int = 0  # honest creators with a hold in the end
    held_loud: int = 0


def strategies_of(seed: int) -> list[Strategy]:
    """Return the strategies of a seed's farms; over many seeds every strategy comes equally often in every town."""
    count = len(strategies.STRATEGIES)
    return [strategies.STRATEGIES[(seed * FARMS_EACH + number) % count] for number in range(FARMS_EACH)]


def run(
    connection: Connection[Any],
    seed: int,
    economics: Economics,
    chosen: Sequence[Strategy] | None = None,
    attacks: Sequence[Attack] = griefers.ATTACKS,
    paces: Paces | None = None,
    town: Town | None = None,
) -> Result:
    """Run the four worlds of a seed and compare them; `connection` is to a database that is emptied before each."""
    paces, free = paces or Paces(), rules.free(economics)
    people = people_of(seed, economics, paces, town or towns.of_seed(seed))
    farms = strategies_of(seed) if chosen is None else chosen
    attacks = [each for each in attacks if each.days[-1] < paces.ruled.days]
    free_calm = World(connection, seed, free, people, paces.ruled).run()
    calm = World(connection, seed, economics, people, paces.ruled).run()
    free_loud = _uncapped(connection, seed, free, people, paces, farms)
    loud = World(connection, seed, economics, people, paces.ruled, farms=farms, attacks=attacks).run()
    padded = {int(creator) for farm in loud.farms if farm.strategy.pads for creator in farm.creators}
    honest = [creator for creator in people.creators.tolist() if creator not in padded]
    return Result(
        seed, people.town.name,
        [_farm(one, (free_loud, free_calm), other, (loud, calm))
         for one, other in zip(free_loud.farms, loud.farms, strict=True)],
        _honest(honest, people, free_calm, calm, loud),
        [_grief(each, people, calm, loud) for each in loud.griefers],
        len((calm.held[0] | calm.held[1]) & set(honest)), len((loud.held[0] | loud.held[1]) & set(honest)),
    )  # fmt: skip


def farms_only(
    connection: Connection[Any],
    seed: int,
    economics: Economics,
    chosen: Sequence[Strategy],
    paces: Paces,
    *without: Sequence[str],
    town: Town = towns.TOWNS[0],
) -> list[list[FarmResult]]:
    """Measure what farms keep: first with all rules, then once for each set of rules in `without`, with these switched off.

    If a farm pads, the honest people of `town` take part; else only farms do.
    """
    people = people_of(seed, economics, paces, town)
    uncapped = _uncapped(connection, seed, rules.free(economics), people, paces, chosen)
    has_people, found = any(each.pads for each in chosen), []
    for names in ((), *without):
        ruled, there = rules.without(economics, *names), people
        if rules.NETWORKS in names:
            there = people_of(seed, economics, paces, town, has_networks=False)
        before = World(connection, seed, ruled, there, paces.ruled).run() if has_people else None
        world = World(connection, seed, ruled, there, paces.ruled, farms=chosen, has_people=has_people).run()
        pairs = zip(uncapped.farms, world.farms, strict=True)
        found.append([_farm(one, (uncapped, None), other, (world, before)) for one, other in pairs])
    return found


def people_of(seed: int, economics: Economics, paces: Paces, town: Town, *, has_networks: bool = True) -> People:
    return People(seed, economics, FixedHashes(seed, has_networks=has_networks), paces.ruled.days, town)


def _uncapped(
    connection: Connection[Any],
    seed: int,
    free: Economics,
    people: People,
    paces: Paces,
    farms: Sequence[Strategy],
) -> World:
    """Run the world without rules, in which each farm learns what its means can earn, unaffected by the other farms."""
    needed = any(each.pads or each.stuffs for each in farms)
    plain = [each.plain() for each in farms]
    return World(connection, seed, free, people, paces.free, farms=plain, has_people=needed).run()


def _farm(
    free: Farm, uncapped: tuple[World, World | None], ruled: Farm, kept: tuple[World, World | None]
) -> FarmResult:
    """Make the result of a farm.

    `free` and `ruled` are the farm in the worlds without and with rules. `uncapped` and `kept` are pairs of worlds,
    without and with rules: one in which the farm works, and the same world without any farm (None if it is not needed).
    """
    sent = kept[0].platform.sent[ruled.party]
    stopped = {
        outcome.name.lower(): amount for outcome, amount in sent.by_outcome.items() if outcome is not Outcome.FUNDED
    }
    stopped |= {"all": sent.worth, "taken back": sum(kept[0].taken.get(each, 0) for each in ruled.creators.tolist())}
    worth = _a_day(free, *uncapped)
    if ruled.strategy.stuffs:
        worth = sent.worth * kept[0].economics.creator_share_ppm // PPM // kept[0].pace.days
    gained = _a_day(ruled, *kept)
    if ruled.strategy.clones:  # one of them is theirs
        due = worth // ruled.strategy.clones
        gained, worth = max(0, gained - due), worth - due
    return FarmResult(
        ruled.strategy.name, gained, worth, ruled.sources, ruled.learner.evaluations,
        _best(ruled), _best(free), stopped,
    )  # fmt: skip


def _a_day(farm: Farm, world: World, without: World | None) -> int:
    """Return what a farm earns on an average measured day, in base units.

    If it pads, what the same creators earn in the world `without` the farm is subtracted.
    """
    first, last = farm.pace.learned, farm.pace.days
    gained = int(world.gained(farm.creators, first, last).sum())
    if farm.strategy.pads and without is not None:
        gained -= int(without.gained(farm.creators, first, last).sum())
    return gained // (last - first)


def _best(farm: Farm) -> dict[str, float]:
    if farm.strategy.stuffs:
        return {}
    return {name: round(value, 2) for name, value in dataclasses.asdict(farm.learner.best().tactic).items()}


def _honest(creators: list[int], people: People, free: World, calm: World, loud: World) -> list[CreatorResult]:
    columns = [world.settled[:, np.searchsorted(world.creators, creators)] for world in (free, calm, loud)]
    behind = (columns[1] - columns[2]) * PPM // np.maximum(columns[1], INCOME_PIX)
    found = []
    for row, creator in enumerate(creators):
        ends = [int(each[-1, row]) for each in columns]
        kind, most = people.kinds.get(creator, "usual"), max(0, int(behind[:, row].max()))
        found.append(CreatorResult(creator, kind, ends[0], ends[1], ends[2], most))
    return found


def _grief(griefer: Griefer, people: People, calm: World, loud: World) -> GriefResult:
    attack = griefer.attack
    first, last = (attack.days[0], attack.days[-1] + 1) if attack.is_of_all else (0, calm.pace.days)
    before, after = (world.gained(griefer.victims, first, last) for world in (calm, loud))
    base = int(before.sum())
    if attack.theirs:
        base = sum(people.through[number, attack.theirs] for number in attack.days)
    lost = int(np.maximum(0, before - after).sum())
    return GriefResult(attack.name, base, lost, griefer.source_days, griefer.searches)
