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

BEFORE_DAYS = 2  # the days before, the better one of which a day is measured by


@dataclass(frozen=True)
class Leap:
    """A creator's UTC day (days since 1970) that is out of all proportion."""

    day: int
    creator_id: int
    earned_pix: int
    before_pix: int  # the better one of the two days before


def leaps(
    days: NDArray[np.integer[Any]],
    creators: NDArray[np.int64],
    earned: NDArray[np.int64],
    economics: Economics,
    today: int,
    since: int | None = None,
) -> list[Leap]:
    """Who earns out of proportion today or did so yesterday, of which the last minutes are judged after midnight.

    `today` is the UTC day of the database's clock; each day and creator comes once, in any order. `since` is an earlier day
    that a backlog was folded of: then that day, the one before it and all later ones are judged.
    """
    if not economics.velocity_ratio:
        return []
    judged = (days <= today) & (days >= (today if since is None else min(today, since)) - 1)
    fast = np.flatnonzero(judged & (earned >= max(economics.velocity_min_pix, 1)))
    found = []
    for row in fast:
        day = int(days[row])
        earlier = (creators == creators[row]) & (days < day) & (days >= day - BEFORE_DAYS)
        before = earned[earlier].max(initial=0)
        if int(earned[row]) > economics.velocity_ratio * int(before):
            found.append(Leap(day, int(creators[row]), int(earned[row]), int(before)))
    return found
