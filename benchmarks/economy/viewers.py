"""Viewers of an honest world: who they are to the ledger, how often they search, and for what.

Most search for their own topics, and some are fans of a creator. A few small creators have a family that looks at
hardly any other creator. A niche creator has twenty fans, most of whose searches are for this creator. One creator, a
lecturer, has the people of the universities as an audience. All of this follows from a seed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from benchmarks.economy import towns
from benchmarks.economy.catalogue import Catalogue, Ids, Reals
from benchmarks.economy.towns import Town

FAMILIES_OF, NICHES_OF = 25, 33  # of so many creators one has a family, or a niche
FAN_SHARE, FANS_SEARCH = 0.08, 0.35
FAMILY_PEOPLE = (4, 13)
FAMILY_RATE = 0.5  # searches a day
NICHE_PEOPLE, NICHE_RATE, NICHE_SEARCH = 20, 2.5, 0.7  # of a niche creator: fans, searches a day, for that creator
LECTURE_SEARCH = 0.15  # of what people of a university search for


class Viewer(NamedTuple):
    """A viewer as Serve identifies them: `kind` is "key" or "cookie"; `network` is the address prefix, empty for a key."""

    kind: str
    identity: str
    network: str = ""


@dataclass
class Viewers:
    """All viewers who are there on usual days, one row each."""

    people: list[Viewer]
    rates: Reals  # searches a day
    topics: Ids  # (viewers, 3)
    favourites: Ids  # a creator, or 0
    devotion: Reals  # how often a search is for the favourite's moments alone
    kinds: dict[int, str] = field(default_factory=dict)  # of creators with an audience of their own

    @classmethod
    def made(cls, rng: np.random.Generator, town: Town, catalogue: Catalogue, niches: Ids) -> Viewers:
        people = _people(rng, town)
        count = len(people)
        fans = rng.random(count) < FAN_SHARE
        popularity = catalogue.popularity
        favourites = np.where(
            fans, rng.choice(np.arange(1, town.creators + 1), count, p=popularity / popularity.sum()), 0
        )
        made = cls(
            people, rng.gamma(1.2, 1.2, count), rng.integers(0, town.topics, (count, 3)), favourites,
            np.where(fans, FANS_SEARCH, 0.0),
        )  # fmt: skip
        made._add_families(rng, catalogue, niches)
        made._add_niches(rng, catalogue, niches)
        made._teach(rng, catalogue)
        return made

    def of_kind(self, kind: str) -> list[int]:
        """Return the creators whose special audience is of this kind, such as "family" or "niche"."""
        return [creator for creator, each in self.kinds.items() if each == kind]

    def _add_families(self, rng: np.random.Generator, catalogue: Catalogue, but: Ids) -> None:
        small = np.setdiff1d(catalogue.by_size()[catalogue.found // 2 :], but)
        for creator in rng.choice(small, max(2, catalogue.found // FAMILIES_OF), replace=False).tolist():
            catalogue.begins[creator] = 0
            for member in range(int(rng.integers(*FAMILY_PEOPLE))):
                home = f"home {creator} {member // 2}"
                self._add(
                    catalogue, creator, "family", member, home, is_keyed=member % 3 == 0, rate=FAMILY_RATE, devotion=1.0
                )

    def _add_niches(self, rng: np.random.Generator, catalogue: Catalogue, niches: Ids) -> None:
        for creator in niches.tolist():
            for fan in range(NICHE_PEOPLE):
                is_keyed = bool(rng.random() < towns.KEYED_SHARE)
                home = f"fan's {creator} {fan}"
                self._add(
                    catalogue, creator, "niche", fan, home, is_keyed=is_keyed, rate=NICHE_RATE, devotion=NICHE_SEARCH
                )

    def _teach(self, rng: np.random.Generator, catalogue: Catalogue) -> None:
        """Choose a creator of usual size, and make all people of the universities look at them now and then."""
        middle = catalogue.by_size()[catalogue.found // 4 : catalogue.found // 2]
        known = [each for each in middle.tolist() if each not in self.kinds]
        lecturer = int(rng.choice(known))
        catalogue.begins[lecturer] = 0
        self.kinds[lecturer] = "lecturer"
        students = [row for row, each in enumerate(self.people) if each.network.startswith("university")]
        self.favourites[students], self.devotion[students] = lecturer, LECTURE_SEARCH

    def _add(
        self,
        catalogue: Catalogue,
        creator: int,
        kind: str,
        number: int,
        home: str,
        *,
        is_keyed: bool,
        rate: float,
        devotion: float,
    ) -> None:
        name = f"{kind} {creator} {number}"
        self.kinds[creator] = kind
        self.people.append(Viewer("key", name) if is_keyed else Viewer("cookie", name, home))
        self.rates = np.append(self.rates, rate)
        self.topics = np.concatenate([self.topics, np.full((1, 3), catalogue.topics[catalogue.of(creator)[0]])])
        self.favourites = np.append(self.favourites, creator)
        self.devotion = np.append(self.devotion, devotion)


def _people(rng: np.random.Generator, town: Town) -> list[Viewer]:
    people: list[Viewer] = []
    ends = np.cumsum([towns.CARRIER_SHARE, towns.UNIVERSITY_SHARE, towns.OFFICE_SHARE])
    for number in range(town.viewers):
        if rng.random() < towns.KEYED_SHARE:
            people.append(Viewer("key", f"person {number}"))
            continue
        place = int(np.searchsorted(ends, rng.random(), "right"))
        network = (
            f"carrier {number % town.carriers}", "university", f"office {number % town.offices}",
            f"household {number // 2}",
        )[place]  # fmt: skip
        people.append(Viewer("cookie", f"person {number}", network))
    return people
