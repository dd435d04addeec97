"""Velocity: a creator whose day comes to many times what the days before came to is held until somebody has looked.

Whoever is found by everybody over night is glad to wait for a look; whoever has found a way around the other rules is
stopped before his earnings are paid. Nothing is taken back. Knows earnings by day, nothing of who looked.
"""

from __future__ import annotations

from dataclasses import dataclass

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
    days: NDArray[np.int64],
    creators: NDArray[np.int64],
    earned: NDArray[np.int64],
    before: NDArray[np.int64],
    economics: Economics,
) -> list[Leap]:
    """Which of these creators' days are out of proportion; `before` is the better one of the two days before each."""
    if not economics.velocity_ratio:
        return []
    fast = np.flatnonzero(earned >= max(economics.velocity_min_pix, 1))
    return [
        Leap(int(days[row]), int(creators[row]), int(earned[row]), int(before[row]))
        for row in fast
        if int(earned[row]) > economics.velocity_ratio * int(before[row])
    ]
