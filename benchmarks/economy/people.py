"""Honest people: creators with audiences of very different size, and viewers with habits. All of it follows from a seed.

A viewer searches a few times on some days, mostly for their own topics; a page shows twenty moments of a topic, popular
ones more often. Some are fans of a creator, small creators have a family that looks at hardly anything else, two creators
are found by everybody over night, and new ones begin. Viewers have a key or come without one, from a household, an office
or a carrier's network. Knows no farm and no ledger.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.economy.platform import Bytes, Ids, Searches
from ledger import money
from ledger.appearances import Hashes
from ledger.caps import DAY_S
from ledger.settings import PPM, Economics

Reals = NDArray[np.float64]

PAGE = 20
CREATORS, TOPICS, VIEWERS = 200, 10, 420
FAMILIES = 8
NEW_SHARE = 0.1
KEYED_SHARE = 0.4
FAN_SHARE, FANS_SEARCH = 0.08, 0.35
OWN_TOPICS = 0.75  # of what a viewer searches for
SEARCHES_MAX = 10  # a day
SLOTS = (0.2, 0.4, 0.4)  # when people search: the first hour of the day, before noon, before midnight
SPIKES = (9.0, 20.0)  # times a usual day, of two creators
SPIKE_DECAY = 0.6  # a day
SHOWN_OF_SPIKE = 3  # moments on a page of those who come for it
SEGMENTS_MAX = 1000  # of a creator: how segments are numbered


class Viewer(NamedTuple):
    """As Serve sees them: `kind` is "key" or "cookie", `network` names the address prefix of the latter."""

    kind: str
    identity: str
    network: str = ""


@dataclass(frozen=True)
class Catalogue:
    """What can be found: moments with their creator, topic and popularity."""

    segments: Ids
    creators: Ids
    topics: Ids
    weights: Reals
    begins: Ids  # by creator: the day of their first moment

    def of(self, creator: int) -> Ids:
        return self.segments[self.creators == creator]


class People:
    """The honest world of one seed. `day` gives the searches of a day, slot by slot; the same for the same seed."""

    def __init__(self, seed: int, economics: Economics, hashes: Hashes, days: int) -> None:
        self.economics, self.hashes = economics, hashes
        self._seed = seed
        rng = np.random.default_rng([seed, 1])
        self.catalogue = _catalogue(rng, days)
        self.viewers, self._rates = _viewers(rng)
        self._own_topics = [rng.choice(TOPICS, rng.integers(1, 4), replace=False) for _ in self.viewers]
        self._favourites = self._fans(rng)
        self.families = self._add_families(rng)
        self.spikes = self._plan_spikes(rng, days)
        self._log_weights = np.log(self.catalogue.weights)
        self._hashes_of: dict[tuple[Viewer, int], bytes] = {}

    @property
    def creators(self) -> Ids:
        return np.arange(1, CREATORS + 1)

    def by_size(self) -> Ids:
        """Creators, the most popular first."""
        weights = np.bincount(self.catalogue.creators, self.catalogue.weights, CREATORS + 1)[1:]
        return np.argsort(-weights) + 1

    def hashed(self, viewers: list[Viewer], day: int) -> tuple[Bytes, Bytes]:
        """Of each viewer on a day the keyed hashes of themselves and of their network."""
        text: list[bytes] = []
        for viewer in viewers:
            known = self._hashes_of.get((viewer, day))
            if known is None:
                at_s = day * DAY_S
                origin = self.hashes.origin(viewer.network, at_s) if viewer.network else bytes(16)
                known = self._hashes_of[viewer, day] = self.hashes.viewer(viewer.kind, viewer.identity, at_s) + origin
            text.append(known)
        found = np.frombuffer(b"".join(text), np.uint8).reshape(len(viewers), 2, 16)
        return np.ascontiguousarray(found[:, 0]), np.ascontiguousarray(found[:, 1])

    def forget(self) -> None:
        """Hashes of days that are over."""
        self._hashes_of.clear()

    def day(self, number: int, day: int) -> list[Searches]:
        """What people search for on a day, the `number`th of the economy, slot by slot."""
        rng = np.random.default_rng([self._seed, 2, number])
        pages, who = self._usual(rng, number)
        more, strangers = self._spike(rng, number)
        viewers = [*(self.viewers[each] for each in who), *strangers]
        pages += more
        slots = rng.choice(len(SLOTS), len(pages), p=SLOTS)
        hashed = self.hashed(viewers, day)
        return [
            self._searches(pages, viewers, hashed, np.flatnonzero(slots == slot), rng) for slot in range(len(SLOTS))
        ]

    # ── Pages ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def page(self, rng: np.random.Generator, number: int, searches: int, topic: int | None = None) -> Ids:
        """For each search the places in the catalogue of what it shows, most popular moments more often."""
        there = self.catalogue.begins[self.catalogue.creators] <= number
        pool = np.flatnonzero(there if topic is None else there & (self.catalogue.topics == topic))
        noise = rng.gumbel(size=(searches, len(pool))) + self._log_weights[pool]
        return pool[np.argpartition(-noise, PAGE, axis=1)[:, :PAGE]]

    def _usual(self, rng: np.random.Generator, number: int) -> tuple[list[Ids], list[int]]:
        """The pages of those who are always there, and who they are."""
        searches = np.minimum(rng.poisson(self._rates) + (self._rates > 0), SEARCHES_MAX) * (
            rng.random(len(self._rates)) < 0.2 + 0.6 * np.minimum(self._rates / 2, 1)
        )
        pages: list[Ids] = []
        who: list[int] = []
        wanted: dict[int, list[int]] = {}
        for viewer in np.flatnonzero(searches):
            for _ in range(searches[viewer]):
                favourite = self._favourites.get(int(viewer))
                if favourite is not None and rng.random() < favourite[1]:
                    if self.catalogue.begins[favourite[0]] <= number:
                        pages.append(self._filtered(rng, favourite[0]))
                        who.append(int(viewer))
                else:
                    own = rng.random() < OWN_TOPICS
                    topic = rng.choice(self._own_topics[viewer]) if own else rng.integers(TOPICS)
                    wanted.setdefault(int(topic), []).append(int(viewer))
        for topic, viewers in sorted(wanted.items()):
            pages += list(self.page(rng, number, len(viewers), topic))
            who += viewers
        return pages, who

    def _filtered(self, rng: np.random.Generator, creator: int) -> Ids:
        """A page of one creator's moments."""
        own = np.flatnonzero(self.catalogue.creators == creator)
        return rng.permutation(own)[: int(rng.integers(4, PAGE + 1))]

    def _spike(self, rng: np.random.Generator, number: int) -> tuple[list[Ids], list[Viewer]]:
        """Strangers who come for a creator that everybody talks about, and see others beside."""
        pages: list[Ids] = []
        strangers: list[Viewer] = []
        for creator, first, looks in self.spikes:
            count = int(looks * SPIKE_DECAY ** (number - first) / SHOWN_OF_SPIKE) if number >= first else 0
            if count:
                own = np.flatnonzero(self.catalogue.creators == creator)
                for row, page in enumerate(self.page(rng, number, count)):
                    pages.append(np.append(rng.permutation(own)[:SHOWN_OF_SPIKE], page[SHOWN_OF_SPIKE:]))
                    name = f"stranger {creator} {number} {row}"
                    strangers.append(Viewer("cookie", name, name))
        return pages, strangers

    def _searches(
        self,
        pages: list[Ids],
        viewers: list[Viewer],
        hashed: tuple[Bytes, Bytes],
        rows: Ids,
        rng: np.random.Generator,
    ) -> Searches:
        counts = np.array([len(pages[row]) for row in rows], np.int64)
        places = np.concatenate([pages[row] for row in rows]) if len(rows) else np.zeros(0, np.int64)
        anonymous = np.repeat(np.array([viewers[row].kind != "key" for row in rows], np.bool_), counts)
        relevance = (rng.uniform(0.35, 1.0, len(places)) * PPM).astype(np.int64)
        return Searches(
            viewers=hashed[0][rows], origins=hashed[1][rows], keys=np.zeros((len(rows), 16), np.uint8), counts=counts,
            segments=self.catalogue.segments[places], creators=self.catalogue.creators[places],
            amounts=amounts(self.economics, relevance, anonymous),
        )  # fmt: skip

    # ── Who there is ───────────────────────────────────────────────────────────────────────────────────────────────

    def _fans(self, rng: np.random.Generator) -> dict[int, tuple[int, float]]:
        """Viewers who often look for one creator."""
        fans = np.flatnonzero(rng.random(len(self.viewers)) < FAN_SHARE)
        weights = np.bincount(self.catalogue.creators, self.catalogue.weights, CREATORS + 1)[1:]
        favourites = rng.choice(self.creators, len(fans), p=weights / weights.sum())
        return {int(fan): (int(creator), FANS_SEARCH) for fan, creator in zip(fans, favourites, strict=True)}

    def _add_families(self, rng: np.random.Generator) -> list[int]:
        """Small creators with relatives and friends who look at them and at nobody else; returns these creators."""
        small = self.by_size()[CREATORS // 2 :]
        chosen = [int(each) for each in rng.choice(small, FAMILIES, replace=False)]
        self.catalogue.begins[chosen] = 0
        for creator in chosen:
            for member in range(int(rng.integers(4, 13))):
                name = f"family {creator} {member}"
                network = f"home {creator} {member // 2}"
                self.viewers.append(Viewer("key", name) if member % 3 == 0 else Viewer("cookie", name, network))
                self._rates = np.append(self._rates, 0.5)
                self._own_topics.append(np.array([0]))
                self._favourites[len(self.viewers) - 1] = creator, 1.0
        return chosen

    def _plan_spikes(self, rng: np.random.Generator, days: int) -> list[tuple[int, int, float]]:
        """Creators who are found by everybody on some day: creator, day, and by how many more looks."""
        chosen = rng.choice(self.by_size()[CREATORS // 8 : CREATORS // 3], len(SPIKES), replace=False)
        self.catalogue.begins[chosen] = 0
        weights = np.bincount(self.catalogue.creators, self.catalogue.weights, CREATORS + 1)
        looks = PAGE * self._rates.sum() * weights / weights.sum()
        return [
            (int(creator), int(rng.integers(days // 4, days * 3 // 4)), float((times - 1) * max(looks[creator], 20.0)))
            for creator, times in zip(chosen, SPIKES, strict=True)
        ]


def amounts(economics: Economics, relevance_ppm: Ids, anonymous: NDArray[np.bool_]) -> Ids:
    """What appearances of this relevance are worth, as replicas compute it."""
    rule: Callable[..., Any] = money.appearance_amount  # of whole numbers, and so of arrays of them
    keyed, keyless = (rule(economics, relevance_ppm, anonymous=each) for each in (False, True))
    return np.where(anonymous, keyless, keyed).astype(np.int64)


def _catalogue(rng: np.random.Generator, days: int) -> Catalogue:
    sizes = np.clip(rng.lognormal(np.log(18), 0.6, CREATORS), 4, 60).astype(np.int64)
    popularity = rng.lognormal(0, 1.2, CREATORS)
    creators = np.repeat(np.arange(1, CREATORS + 1), sizes)
    numbers = np.concatenate([np.arange(size) for size in sizes])
    weights = np.repeat(popularity / sizes, sizes) * rng.lognormal(0, 0.7, len(creators))
    begins = np.zeros(CREATORS + 1, np.int64)
    new = rng.random(CREATORS + 1) < NEW_SHARE
    begins[new] = rng.integers(2, max(3, days * 2 // 3), int(new.sum()))
    return Catalogue(creators * SEGMENTS_MAX + numbers, creators, creators % TOPICS, weights, begins)


def _viewers(rng: np.random.Generator) -> tuple[list[Viewer], Reals]:
    """Viewers and how often each searches a day."""
    rates = rng.gamma(1.2, 1.2, VIEWERS)
    viewers: list[Viewer] = []
    for number in range(VIEWERS):
        if rng.random() < KEYED_SHARE:
            viewers.append(Viewer("key", f"person {number}"))
            continue
        kind = rng.random()
        network = (
            f"household {number // 2}"
            if kind < 0.8
            else f"office {number % 6}"
            if kind < 0.95
            else f"carrier {number % 2}"
        )
        viewers.append(Viewer("cookie", f"person {number}", network))
    return viewers, rates
