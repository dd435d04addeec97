"""Velocity: a creator's day that is many times the days before is paid in part; the rest waits for a person.

What is in proportion to the days before is paid as on any day, so that nobody can stop a creator's payouts by driving
up their earnings. What is above the proportion is withheld until a person has looked: a farm that has found a way
around the other rules is paid little until then. Nothing is taken back. Knows earnings by day, not who looked at what.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ledger.accrual.groups import Places
from ledger.money import Amounts
from ledger.settings import Economics

BEFORE_DAYS = 8  # a day is compared with the best of this many days before: the same weekday of last week is among them


@dataclass(frozen=True)
class Leap:
    """A creator's UTC day (in days since 1970) that is out of proportion. Amounts are base units of PIX."""

    day: int
    creator_id: int
    earned_pix: int
    above_pix: int  # what of it is above the proportion, and so withheld


def candidates(earned: Amounts, economics: Economics) -> Places:
    """Return the rows large enough to be compared with the days before.

    Args:
        earned: int64, shape (days of creators,), base units of PIX. What counts of each day.
        economics: `velocity_min_pix`, and `velocity_ratio` (0: no day is compared) are read.

    Returns:
        int64, shape (candidates,): indices into `earned`, ascending.
    """
    if not economics.velocity_ratio:
        return np.zeros(0, np.int64)
    return np.flatnonzero(earned > economics.velocity_min_pix)


def leaps(days: Places, creators: Places, earned: Amounts, before: Amounts, economics: Economics) -> list[Leap]:
    """Return the days that are above `max(velocity_ratio * before, velocity_min_pix)`.

    With a ratio of 5 and a minimum of 1,000, a day of 9,000 after a best day of 300 is 7,500 above 1,500:

    >>> rules = Economics(velocity_ratio=5, velocity_min_pix=1_000)
    >>> leaps(np.array([20_000]), np.array([7]), np.array([9_000]), np.array([300]), rules)
    [Leap(day=20000, creator_id=7, earned_pix=9000, above_pix=7500)]

    Args:
        days: int64, shape (rows,). The UTC day of each row, in days since 1970.
        creators: int64, shape (rows,). The creator of each row.
        earned: int64, shape (rows,), base units of PIX. What counts of the creator's day.
        before: int64, shape (rows,), base units of PIX. The best of the `BEFORE_DAYS` days before it.
        economics: `velocity_ratio` (0: no day is compared) and `velocity_min_pix` are read.

    Returns:
        One leap for each row that is above, in the order of the rows.
    """
    found = []
    for row in candidates(earned, economics):
        proportion = max(economics.velocity_ratio * int(before[row]), economics.velocity_min_pix)
        if int(earned[row]) > proportion:
            found.append(Leap(int(days[row]), int(creators[row]), int(earned[row]), int(earned[row]) - proportion))
    return found
