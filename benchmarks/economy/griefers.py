"""Griefers: they aim made views at an honest creator, so that it is held or taken back, or its day filled.

Each has a victim and means that it spends for some days; what it costs is counted in days of networks and keys and in
searches, what the victim loses in base units.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from benchmarks.economy.farms import FARM_RELEVANCE_PPM
from benchmarks.economy.people import PAGE, People, Viewer, amounts
from benchmarks.economy.platform import Ids, Searches

FIRST_DAY, DAYS = 8, 3
COOKIES_MAX = 5000


@dataclass(frozen=True)
class Attack:
    """What it does in the first hour of each of its days."""

    name: str
    victims: Callable[[People], Ids]
    networks: int
    looks: int  # of one network, at moments of the victim
    cookies: int = 1  # of each network, which take turns page by page
    cover: int = 0  # looks at others, beside each page
    theirs: str = ""  # it sits in the networks of honest people whose names begin so, instead of in some of its own


def _family(people: People) -> Ids:
    return np.array(people.families[:1])


def _known(people: People) -> Ids:
    spiking = {creator for creator, _, _ in people.spikes}
    return np.array([each for each in people.by_size()[20:40] if each not in spiking][:1])


def _small(people: People) -> Ids:
    """One with a family and few moments, all of which can be filled."""
    sizes = [len(people.catalogue.of(creator)) for creator in people.families[1:]]
    return np.array([people.families[1 + int(np.argmin(sizes))]])


def _everybody(people: People) -> Ids:
    return people.creators


ATTACKS = (
    Attack("viewers of nobody else, at a family's creator", _family, networks=30, looks=4),
    Attack("a flood from few networks, at a family's creator", _family, networks=3, looks=2000, cookies=100),
    Attack("a push, so that the day leaps", _known, networks=600, looks=12, cover=5),
    Attack("the day's bounds are filled first", _small, networks=16, looks=2000, cookies=400),
    Attack(
        "the bound of others' networks is used up", _everybody, networks=0, looks=2000, cookies=100, theirs="carrier"
    ),
)


class Griefer:
    """One attack in one economy."""

    def __init__(self, attack: Attack, party: int, people: People, seed: int) -> None:
        self.attack, self.party, self._people = attack, party, people
        self._rng = np.random.default_rng([seed, 4, party])
        self.victims = attack.victims(people)
        self.networks = [f"griefer {party} {number}" for number in range(attack.networks)]
        if attack.theirs:
            found = {viewer.network for viewer in people.viewers if viewer.network.startswith(attack.theirs)}
            self.networks = sorted(found)
        self.network_days = self.searches = 0

    def day(self, number: int, day: int) -> Searches | None:
        """What it sends in the first hour of a day."""
        if not FIRST_DAY <= number < FIRST_DAY + DAYS:
            return None
        attack, catalogue = self.attack, self._people.catalogue
        places = np.flatnonzero(np.isin(catalogue.creators, self.victims))
        pages = -(-attack.looks // min(PAGE, len(places), attack.looks))
        width = min(PAGE, len(places), attack.looks)
        viewers = [
            Viewer("cookie", f"{name} {page % attack.cookies}", name) for name in self.networks for page in range(pages)
        ]
        theirs = self._rng.permuted(np.tile(places, (len(viewers), 1)), axis=1)[:, :width]
        others = self._rng.integers(0, len(catalogue.segments), (len(viewers), attack.cover))
        flat = np.concatenate([theirs, others], axis=1).reshape(-1)
        self.network_days += len(self.networks)
        self.searches += len(viewers)
        hashes, origins = self._people.hashed(viewers, day)
        relevance = np.full(len(flat), FARM_RELEVANCE_PPM)
        return Searches(
            viewers=hashes, origins=origins, keys=np.zeros_like(hashes), counts=np.full(len(viewers), width + attack.cover),
            segments=catalogue.segments[flat], creators=catalogue.creators[flat],
            amounts=amounts(self._people.economics, relevance, np.ones(len(flat), np.bool_)),
        )  # fmt: skip
