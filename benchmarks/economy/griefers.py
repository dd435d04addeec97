"""Griefers aim faked views at honest creators, so that these lose earnings to holds, reversals or bounds.

Each has victims, days on which it attacks, and means that it spends. The cost of an attack is counted in searches and
in days of networks and keys, the victims' loss in base units of PIX. Some griefers look at creators of their own from a
network that they share with honest people: then the views of these people may no longer count, and every honest creator
is a victim.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from benchmarks.economy.catalogue import IDLE_CREATORS, PAGE, SEGMENTS_MAX
from benchmarks.economy.people import People, amounts
from benchmarks.economy.platform import Ids, Searches
from benchmarks.economy.strategies import RELEVANCE_PPM
from benchmarks.economy.viewers import Viewer


@dataclass(frozen=True)
class Attack:
    """What a griefer does in the first hour of each of its days."""

    name: str
    victims: Callable[[People], Ids]
    targets: Callable[[People], Ids]  # creators at whose moments it looks
    days: tuple[int, ...]
    networks: int = 0
    looks: int = 20  # of one network, at moments of the targets
    cookies: int = 1  # of each network, which take turns page by page
    cover: int = 0  # looks at others, beside each page
    theirs: str = ""  # it sits in the networks of honest people whose names begin so, instead of in some of its own
    keys: int = 0
    moments: int = 0  # of the targets, those that are found most; 0 is all

    @property
    def is_of_all(self) -> bool:
        """Whether it harms every honest creator; then it is the only attack on its days."""
        return self.victims is _everybody


def _family(people: People) -> Ids:
    return np.array(people.viewers.of_kind("family")[:1])


def _smallest(people: People) -> Ids:
    """Choose the creator with the fewest moments, so that an attack can reach all of them.

    Only creators with a family audience are considered, without the first, at whom another attack aims.
    """
    sizes = {creator: len(people.catalogue.of(creator)) for creator in people.viewers.of_kind("family")[1:]}
    return np.array([min(sizes, key=sizes.__getitem__)])


def _niche(people: People) -> Ids:
    return np.array(people.viewers.of_kind("niche")[:1])


def _known(people: People) -> Ids:
    """Choose a less popular creator whose days are all alike: there from the first day, and without a special audience."""
    smaller = people.catalogue.by_size()[people.town.creators // 2 :].tolist()
    there = [each for each in smaller if each not in people.kinds and not people.catalogue.begins[each]]
    return np.array(there[:1])


def _best_known(people: People) -> Ids:
    """Choose the most popular creator of those there from the first day: their moments leave the least room in a day."""
    there = [each for each in people.catalogue.by_size().tolist() if not people.catalogue.begins[each]]
    return np.array(there[:1])


def _everybody(people: People) -> Ids:
    return people.creators


def _idle(people: People) -> Ids:
    return people.town.creators + 1 + np.arange(IDLE_CREATORS)


def _own(_: People) -> Ids:
    """Return the griefer's own creators, whom the catalogue does not have and no honest viewer finds."""
    return np.arange(9_000_001, 9_000_151)


ATTACKS = (
    Attack("viewers of nobody else, at a family's creator", _family, _family, (6, 7, 8), networks=30, looks=4),
    Attack("a flood from few networks, at a niche creator", _niche, _niche, (6, 7, 8), networks=3, looks=2000, cookies=100),
    Attack("the day's bounds are filled first", _smallest, _smallest, (6, 7, 8), networks=16, looks=2000, cookies=400),
    # Each a new cookie with every page: a moment's day is full with 5,300 looks, and a creator's with ten of those.
    Attack("one client fills a moment's day", _best_known, _best_known, (7, 8), networks=1, looks=6_000, cookies=6_000,
           moments=1),
    Attack("two clients fill a creator's day", _best_known, _best_known, (10, 11), networks=2, looks=31_000, cookies=3_100,
           moments=10),
    # Every third day, so that the days before are small again: what was earned before the first push waits too, or not.
    Attack("pushes, so that days leap", _known, _known, (6, 9, 12), networks=600, looks=12, cover=5),
    Attack("a stranger lets many more creators earn", _everybody, _idle, (15, 16), keys=1, looks=IDLE_CREATORS),
    Attack("a neighbour behind a carrier's NAT looks at own creators", _everybody, _own, (18,),
           looks=6000, cookies=100, theirs="carrier"),
    Attack("a neighbour in an office looks at own creators", _everybody, _own, (20,),
           looks=3000, cookies=100, theirs="office"),
    Attack("a neighbour behind a carrier's NAT floods everybody", _everybody, _everybody, (22, 23),
           looks=6000, cookies=400, theirs="carrier"),
    # More than a network's day (`address_day_max_pix`) lets through: nothing of it is funded for anybody any more.
    Attack("a neighbour behind a carrier's NAT fills the network's day", _everybody, _own, (25,),
           looks=40_000, cookies=600, theirs="carrier"),
)  # fmt: skip


class Griefer:
    """One attack of one griefer in an economy, day by day."""

    def __init__(self, attack: Attack, party: int, people: People, seed: int) -> None:
        self.attack, self._people = attack, people
        self.party = party
        self._rng = np.random.default_rng([seed, 4, party])
        self.victims = attack.victims(people)
        self._places = self._segments()
        own = [f"griefer {party} {number}" for number in range(attack.networks)]
        self.networks = people.networks(attack.theirs) if attack.theirs else own
        self.source_days = self.searches = 0

    def day(self, number: int, day: int) -> Searches | None:
        """Return what the griefer sends in the first hour of a day; None if it does not attack on that day."""
        attack, catalogue = self.attack, self._people.catalogue
        if number not in attack.days or not len(self._places):
            return None
        width = min(PAGE, len(self._places), attack.looks)
        pages = -(-attack.looks // width)
        viewers = [
            Viewer("cookie", f"griefer's {name} {page % attack.cookies}", name)
            for name in self.networks for page in range(pages)
        ] + [Viewer("key", f"griefer {self.party} {key}") for key in range(attack.keys) for _ in range(pages)]  # fmt: skip
        theirs = self._targets(len(viewers), width)
        others = catalogue.segments[catalogue.any_of(self._rng, number, len(viewers) * attack.cover)]
        flat = np.concatenate([theirs, others.reshape(len(viewers), attack.cover)], axis=1).reshape(-1)
        self.source_days += len(self.networks) + attack.keys
        self.searches += len(viewers)
        hashes, origins = self._people.hashed(viewers, day)
        keyless = np.repeat(np.array([viewer.kind != "key" for viewer in viewers]), width + attack.cover)
        return Searches(
            viewers=hashes, origins=origins, keys=np.zeros_like(hashes),
            counts=np.full(len(viewers), width + attack.cover), segments=flat, creators=flat // SEGMENTS_MAX,
            amounts=amounts(self._people.economics, np.full(len(flat), RELEVANCE_PPM), keyless),
        )  # fmt: skip

    def _segments(self) -> Ids:
        targets = self.attack.targets(self._people)
        if self.attack.targets is _own:
            return (targets[:, None] * SEGMENTS_MAX + np.arange(100)).reshape(-1)
        catalogue = self._people.catalogue
        places = np.flatnonzero(np.isin(catalogue.creators, targets))
        most = np.argsort(-catalogue.weights[places], kind="stable")[: self.attack.moments or None]
        found: Ids = catalogue.segments[places[np.sort(most)]]
        return found

    def _targets(self, pages: int, width: int) -> Ids:
        """Return moments of the targets, (pages, width); they repeat only after all have been used."""
        start = int(self._rng.integers(0, len(self._places)))
        order = self._rng.permutation(self._places)
        return order[(start + np.arange(pages * width)) % len(order)].reshape(pages, width)
