"""Velocity: what a creator's day comes to above many times the days before is held until somebody has looked.

What is in proportion is paid as on any day, so that nobody is stopped by being pushed; whoever has found a way around the
other rules is paid little before somebody looks. Nothing is taken back. Knows earnings by day, nothing of who looked.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ledger.accrual.groups import Places
from ledger.money import Amounts
from ledger.settings import Economics

BEFORE_DAYS = 8  # the days before, by the best one of which a day is measured: with the same day of last week


@dataclass(frozen=True)
class Leap:
    """A creator's UTC day (days since 1970) that is out of all proportion."""

    day: int
    creator_id: int
    earned_pix: int
    above_pix: int  # what of it is above the proportion, and above what is looked at at all


def fast(earned: Amounts, economics: Economics) -> Places:
    """Which days have come to so much that the days before are to be looked at."""
    if not economics.velocity_ratio:
        return np.zeros(0, np.int64)
    return np.flatnonzero(earned > economics.velocity_min_pix)


def leaps(days: Places, creators: Places, earned: Amounts, before: Amounts, economics: Economics) -> list[Leap]:
    """Which of these creators' days are out of proportion; `before` is the best one of the days before each."""
    found = []
    for row in fast(earned, economics):
        proportion = max(economics.velocity_ratio * int(before[row]), economics.velocity_min_pix)
        if int(earned[row]) > proportion:
            found.append(Leap(int(days[row]), int(creators[row]), int(earned[row]), int(earned[row]) - proportion))
    return found
