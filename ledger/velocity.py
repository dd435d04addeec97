"""Velocity: what a creator's day comes to above many times the days before is held until somebody has looked.

What is in proportion is paid as on any day, so that nobody is stopped by being pushed; whoever has found a way around the
other rules is paid little before somebody looks. Nothing is taken back. Knows earnings by day, nothing of who looked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ledger.settings import Economics

DAY_BITS = 17  # of a day since 1970, beside a creator's number
BEFORE_DAYS = 2  # the days before, the better one of which a day is measured by


@dataclass(frozen=True)
class Leap:
    """A creator's UTC day (days since 1970) that is out of all proportion."""

    day: int
    creator_id: int
    earned_pix: int
    above_pix: int  # what of it is above the proportion, and above what is looked at at all


def leaps(
    days: NDArray[np.integer[Any]],
    creators: NDArray[np.int64],
    earned: NDArray[np.int64],
    economics: Economics,
    today: int,
    since: int | None = None,
) -> list[Leap]:
    """Who has earned out of proportion on `today`, a UTC day, or on the day before, or since an earlier one.

    Each day and creator comes once, in any order. `since` is an earlier day that a backlog was folded of: then that day, the
    one before it and all later ones are judged.
    """
    if not economics.velocity_ratio:
        return []
    judged = (days <= today) & (days >= (today if since is None else min(today, since)) - 1)
    fast = np.flatnonzero(judged & (earned > economics.velocity_min_pix))
    found = []
    for row, best in zip(fast, _before(days, creators, earned, fast), strict=True):
        proportion = max(economics.velocity_ratio * int(best), economics.velocity_min_pix)
        if int(earned[row]) > proportion:
            found.append(Leap(int(days[row]), int(creators[row]), int(earned[row]), int(earned[row]) - proportion))
    return found


def _before(
    days: NDArray[np.integer[Any]], creators: NDArray[np.int64], earned: NDArray[np.int64], rows: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Of each of these rows the better one of the days before, 0 where there is none: looked up in one sort of all."""
    best = np.zeros(len(rows), np.int64)
    if not len(rows):
        return best
    kept = np.flatnonzero(np.isin(creators, creators[rows]))
    kept = kept[np.lexsort((days[kept], creators[kept]))]
    known = (creators[kept] << DAY_BITS) | days[kept].astype(np.int64)
    for earlier in range(1, BEFORE_DAYS + 1):
        wanted = (creators[rows] << DAY_BITS) | (days[rows].astype(np.int64) - earlier)
        place = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
        best = np.maximum(best, np.where(known[place] == wanted, earned[kept[place]], 0))
    return best
