"""Honest people: what they search for and what they are shown, day by day. All of it follows from a seed.

A viewer searches a few times on some days, and more often at the end of a week. A page shows twenty moments of a topic,
or some moments of a favourite creator. Some creators publish once a week. One creator has a good day, and another goes
viral. A day is made once and is the same in every world of its seed. Knows no farm and no ledger.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.economy import towns
from benchmarks.economy.catalogue import PAGE, SEGMENTS_MAX, Catalogue, Ids, Reals
from benchmarks.economy.platform import Bytes, Searches
from benchmarks.economy.towns import Town
from benchmarks.economy.viewers import NICHES_OF, Viewer, Viewers
from ledger import money
from ledger.accrual.caps import DAY_S
from ledger.appearances.appearances import Hashes
from ledger.settings import PPM, Economics

OWN_TOPICS = 0.75  # of what a viewer searches for
SEARCHES_MAX = 10  # a day
SLOTS = (0.2, 0.4, 0.4)  # when people search: the first hour of the day, before noon, before midnight
SHOWN_OF_EVENT = 3  # moments of a creator, on a page of those who come for them
SPIKE_TIMES = 9.0  # a usual day, of a creator who has a good one
WEEKLY_OF = 66  # of so many creators one publishes once a week
SHARED = ("carrier", "university", "office")  # networks of many people, by how their names begin


@dataclass(frozen=True)
class Event:
    """Additional looks at a creator: on one day of each week, or from the day `first` on, with fewer each following day."""

    creator: int
    first: int
    looks: float
    is_weekly: bool = False

    def looks_on(self, day: int) -> float:
        if day < self.first:
            return 0.0
        if self.is_weekly:
            return self.looks if (day - self.first) % len(towns.WEEK) == 0 else 0.0
        return float(self.looks * towns.VIRAL_DECAY ** (day - self.first))


@dataclass
class _Pages:
    """The pages of a day, added one by one: each page's viewer, number of moments, and their places in the catalogue."""

    who: list[Ids] = field(default_factory=list)
    counts: list[Ids] = field(default_factory=list)
    places: list[Ids] = field(default_factory=list)

    def add(self, who: Ids, places: Ids) -> None:
        """Add a page for each viewer in `who`, (pages,); `places` are its moments in the catalogue, (pages, moments)."""
        self.who.append(who)
        self.counts.append(np.full(len(who), places.shape[1]))
        self.places.append(places.reshape(-1))


class People:
    """The honest world of one seed. `day` gives the searches of a day, slot by slot."""

    def __init__(self, seed: int, economics: Economics, hashes: Hashes, days: int, town: Town) -> None:
        self.economics, self.hashes, self.town = economics, hashes, town
        self._seed = seed
        rng = np.random.default_rng([seed, 1])
        niches = np.sort(1 + rng.choice(town.creators, max(1, town.creators // NICHES_OF), replace=False))
        self.catalogue = Catalogue.made(rng, town, days, niches)
        self.viewers = Viewers.made(rng, town, self.catalogue, niches)
        self.kinds = dict(self.viewers.kinds)
        self.events = self._plan(rng, days)
        self.through: dict[tuple[int, str], int] = {}  # by day and kind of network: the creators' part of what it earns
        self._days: dict[int, list[Searches]] = {}
        self._hashes_of: dict[tuple[Viewer, int], bytes] = {}

    @property
    def creators(self) -> Ids:
        return np.arange(1, self.town.creators + 1)

    def networks(self, kind: str) -> list[str]:
        """Return the shared networks whose names begin with `kind`."""
        return sorted({each.network for each in self.viewers.people if each.network.startswith(kind)})

    def hashed(self, viewers: list[Viewer], day: int) -> tuple[Bytes, Bytes]:
        """Return the keyed hashes of viewers and of their networks on a day, uint8 (viewers, 16) each."""
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
        """Drop the hashes of days that are over."""
        self._hashes_of.clear()

    def day(self, number: int, day: int) -> list[Searches]:
        """Return what people search for on a day, slot by slot.

        `number` counts the days of the simulation from 0; `day` is the same day as the ledger numbers it, since 1970.
        """
        if number not in self._days:
            self._days[number] = self._made(number, day)
        return self._days[number]

    def _made(self, number: int, day: int) -> list[Searches]:
        rng = np.random.default_rng([self._seed, 2, number])
        pages, people = _Pages(), list(self.viewers.people)
        self._usual(rng, number, pages)
        self._eventful(rng, number, pages, people)
        who = np.concatenate(pages.who)
        known, place = np.unique(who, return_inverse=True)
        there = [people[each] for each in known.tolist()]
        viewers, origins = (each[place] for each in self.hashed(there, day))
        counts, places = np.concatenate(pages.counts), np.concatenate(pages.places)
        keyless = np.array([each.kind != "key" for each in there], np.bool_)[place]
        relevance = (rng.uniform(0.35, 1.0, len(places)) * PPM).astype(np.int64)
        shown = Searches(
            viewers=viewers, origins=origins, keys=np.zeros((len(who), 16), np.uint8), counts=counts,
            segments=self.catalogue.segments[places], creators=self.catalogue.creators[places],
            amounts=amounts(self.economics, relevance, np.repeat(keyless, counts)),
        )  # fmt: skip
        self._note_shared(number, there, np.repeat(place, counts), shown)
        slots = rng.choice(len(SLOTS), len(who), p=SLOTS)
        return [shown.where(slots == slot) for slot in range(len(SLOTS))]

    def _note_shared(self, number: int, there: list[Viewer], viewer: Ids, shown: Searches) -> None:
        """Store in `through` what creators earn on a day from the viewers on each kind of shared network.

        A moment counts once for each viewer who has seen it.
        """
        first = np.unique(viewer * (2 * SEGMENTS_MAX * len(self.catalogue.begins)) + shown.segments, return_index=True)[
            1
        ]
        by_viewer = np.bincount(viewer[first], shown.amounts[first], len(there))
        for kind in SHARED:
            some = sum(by_viewer[row] for row, each in enumerate(there) if each.network.startswith(kind))
            self.through[number, kind] = int(some) * self.economics.creator_share_ppm // PPM

    # ── Pages ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def _usual(self, rng: np.random.Generator, number: int, pages: _Pages) -> None:
        """Add the pages of the usual viewers who search on this day; events add other people's pages."""
        viewers = self.viewers
        rates = viewers.rates * towns.WEEK[number % len(towns.WEEK)]
        are_there = rng.random(len(rates)) < 0.2 + 0.6 * np.minimum(viewers.rates / 2, 1)
        searches = np.where(are_there, np.minimum(rng.poisson(rates) + 1, SEARCHES_MAX), 0)
        who = np.repeat(np.arange(len(rates)), searches)
        favourites = viewers.favourites[who]
        is_devoted = (favourites > 0) & (rng.random(len(who)) < viewers.devotion[who])
        for viewer, creator in zip(who[is_devoted].tolist(), favourites[is_devoted].tolist(), strict=True):
            if self.catalogue.begins[creator] <= number:
                own = rng.permutation(self.catalogue.of(creator))[: int(rng.integers(4, PAGE + 1))]
                pages.add(np.array([viewer]), own[None, :])
        others = who[~is_devoted]
        own_topics = viewers.topics[others, rng.integers(0, viewers.topics.shape[1], len(others))]
        wanted = np.where(
            rng.random(len(others)) < OWN_TOPICS, own_topics, rng.integers(0, self.town.topics, len(others))
        )
        for topic in range(self.town.topics):
            some = others[wanted == topic]
            if len(some):
                pages.add(some, self.catalogue.page(rng, number, len(some), topic))

    def _eventful(self, rng: np.random.Generator, number: int, pages: _Pages, people: list[Viewer]) -> None:
        """Add the pages of people who come for the creator of an event; the pages show other creators' moments too."""
        for event in self.events:
            count = int(event.looks_on(number) / SHOWN_OF_EVENT)
            if not count:
                continue
            own = self.catalogue.of(event.creator)
            theirs = rng.permuted(np.tile(own, (count, 1)), axis=1)[:, :SHOWN_OF_EVENT]
            beside = PAGE - SHOWN_OF_EVENT
            others = self.catalogue.any_of(rng, number, count * beside).reshape(count, beside)
            pages.add(np.arange(len(people), len(people) + count), np.concatenate([theirs, others], axis=1))
            people += self._guests(rng, event, number, count)

    def _guests(self, rng: np.random.Generator, event: Event, number: int, count: int) -> list[Viewer]:
        """Return the viewers of an event: the same people each time if it is weekly, else new ones.

        The shares of people who have keys, and of those behind carriers, are the usual ones.
        """
        name = f"regular {event.creator}" if event.is_weekly else f"stranger {event.creator} {number}"
        kinds = rng.random(count)
        carrier = (1 - towns.KEYED_SHARE) * towns.CARRIER_SHARE
        return [
            Viewer("key", f"{name} {row}") if kind < towns.KEYED_SHARE
            else Viewer("cookie", f"{name} {row}", f"carrier {row % self.town.carriers}")
            if kind < towns.KEYED_SHARE + carrier
            else Viewer("cookie", f"{name} {row}", f"{name} {row}")
            for row, kind in enumerate(kinds.tolist())
        ]  # fmt: skip

    def _plan(self, rng: np.random.Generator, days: int) -> list[Event]:
        """Choose the creators who have a good day, go viral, or publish once a week; return these events."""
        count = self.town.creators
        middle = self.catalogue.by_size()[count // 8 : count // 2]
        known = [each for each in middle.tolist() if each not in self.kinds]
        chosen = rng.choice(known, 2 + max(1, count // WEEKLY_OF), replace=False).tolist()
        self.catalogue.begins[chosen] = 0
        popularity: Reals = self.catalogue.popularity
        a_day = PAGE * float(self.viewers.rates.sum())
        usual = a_day * popularity / popularity.sum()
        first = rng.integers(days // 4, days * 3 // 4, 2).tolist()
        good, viral, *weekly = chosen
        self.kinds |= {good: "good day", viral: "viral"} | dict.fromkeys(weekly, "weekly")
        return [
            Event(good, first[0], (SPIKE_TIMES - 1) * max(float(usual[good - 1]), PAGE)),
            Event(viral, first[1], towns.VIRAL_SHARE * a_day),
            *(Event(each, number, towns.WEEKLY_TIMES * float(usual[each - 1]), is_weekly=True)
              for number, each in enumerate(weekly)),
        ]  # fmt: skip


def amounts(economics: Economics, relevance_ppm: Ids, anonymous: NDArray[np.bool_]) -> Ids:
    """Return what appearances of these relevances earn, as replicas compute it: int64 base units of PIX, (rows,)."""
    rule: Callable[..., Any] = money.appearance_amount  # of whole numbers, and so of arrays of them
    keyed, keyless = (rule(economics, relevance_ppm, anonymous=each) for each in (False, True))
    found: Ids = np.where(anonymous, keyless, keyed).astype(np.int64)
    return found
