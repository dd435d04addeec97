"""The catalogue of an honest world: moments, their creators, and how often each is found. All of it follows from a seed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.economy.towns import Town

Ids = NDArray[np.int64]
Reals = NDArray[np.float64]

PAGE = 20
IDLE_CREATORS = 300  # whom nobody finds: the long tail
NEW_SHARE = 0.1
SEGMENTS_MAX = 10_000  # of a creator: how segments are numbered
NEVER = 10**6  # a day


@dataclass(frozen=True)
class Catalogue:
    """All moments of a world, one row each; only those of the first `found` creators are ever found."""

    segments: Ids
    creators: Ids
    topics: Ids
    weights: Reals
    begins: Ids  # by creator: the day of their first moment
    found: int  # how many creators somebody finds: those with the lowest numbers

    @classmethod
    def made(cls, rng: np.random.Generator, town: Town, days: int, large: Ids) -> Catalogue:
        """Make a catalogue; `large` are creators who are there from the first day and have more than a hundred moments."""
        count = town.creators + IDLE_CREATORS
        sizes = np.clip(rng.lognormal(np.log(18), 0.6, count), 4, 60).astype(np.int64)
        sizes[large - 1] = rng.integers(150, 300, len(large))
        sizes[town.creators :] = 1
        popularity = rng.lognormal(0, 1.2, count)
        creators = np.repeat(np.arange(1, count + 1), sizes)
        numbers = np.arange(len(creators)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        weights = np.repeat(popularity / sizes, sizes) * rng.lognormal(0, 0.7, len(creators))
        begins = np.zeros(count + 1, np.int64)
        new = np.setdiff1d(1 + np.flatnonzero(rng.random(town.creators) < NEW_SHARE), large)
        begins[new] = rng.integers(2, max(3, days * 2 // 3), len(new))
        begins[town.creators + 1 :] = NEVER
        return cls(creators * SEGMENTS_MAX + numbers, creators, creators % town.topics, weights, begins, town.creators)

    @property
    def popularity(self) -> Reals:
        """The popularity of each creator who can be found, (found,), in the order of their numbers."""
        found: Reals = np.bincount(self.creators, self.weights).astype(np.float64)[1 : self.found + 1]
        return found

    def by_size(self) -> Ids:
        """Return the creators who can be found, the most popular first."""
        return np.argsort(-self.popularity) + 1

    def of(self, creator: int) -> Ids:
        """Return the places of a creator's moments in the catalogue's arrays."""
        return np.flatnonzero(self.creators == creator)

    def page(self, rng: np.random.Generator, day: int, searches: int, topic: int | None = None) -> Ids:
        """Draw the moments that each search shows, popular ones more often.

        Returns:
            Places in the catalogue's arrays, (searches, PAGE) or fewer columns if the topic has fewer moments on that day.
        """
        there = self.begins[self.creators] <= day
        pool = np.flatnonzero(there if topic is None else there & (self.topics == topic))
        if len(pool) <= PAGE:
            return np.tile(pool, (searches, 1))
        noise = rng.gumbel(size=(searches, len(pool))) + np.log(self.weights[pool])
        found: Ids = pool[np.argpartition(-noise, PAGE, axis=1)[:, :PAGE]]
        return found

    def any_of(self, rng: np.random.Generator, day: int, count: int) -> Ids:
        """Draw places of moments that are there on a day, (count,), popular ones more often; places may repeat."""
        pool = np.flatnonzero(self.begins[self.creators] <= day)
        ends = np.cumsum(self.weights[pool])
        found: Ids = pool[np.searchsorted(ends, rng.random(count) * ends[-1])]
        return found
