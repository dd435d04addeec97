"""Velocity: a creator whose day comes to many times what the days before came to is held until somebody has looked.

Whoever is found by everybody over night is glad to wait for a look; whoever has found a way around the other rules is
stopped before his earnings are paid. Nothing is taken back. Knows earnings by day, nothing of who looked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ledger.settings import Economics


@dataclass(frozen=True)
class Leap:
    """A creator's UTC day (days since 1970) that is out of all proportion."""

    day: int
    creator_id: int
    earned_pix: int
    before_pix: int  # the better one of the two days before


def leaps(
    days: NDArray[np.integer[Any]], creators: NDArray[np.int64], earned: NDArray[np.int64], economics: Economics
) -> list[Leap]:
    """Who earns out of proportion on the newest day; each day and creator comes once, in any order."""
    if not economics.velocity_ratio or not len(days):
        return []
    newest = days.max()
    fast = np.flatnonzero((days == newest) & (earned >= max(economics.velocity_min_pix, 1)))
    found = []
    for row in fast:
        before = earned[(creators == creators[row]) & (days < newest)].max(initial=0)
        if int(earned[row]) > economics.velocity_ratio * int(before):
            found.append(Leap(int(newest), int(creators[row]), int(earned[row]), int(before)))
    return found
