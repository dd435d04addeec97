"""The rules of what counts, each with what switches it off: for the world without rules, and one by one as a control.

What defines an appearance is no rule here and always on: a viewer's repeat within a day, relevance, the size of a page.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ledger.settings import AMOUNT_MAX, Economics

NO_BOUND = AMOUNT_MAX // 10**6  # so large that a share of it can still be taken

# Each rule, and the settings that leave it out.
OFF: Mapping[str, Mapping[str, int]] = {
    "a viewer's day": {"viewer_day_max_pix": 0},
    "a network's day": {"address_day_max_pix": 0},
    "a moment's day": {"segment_day_max_pix": 0},
    "a creator's day": {"creator_day_max_pix": 0},
    "captive viewers": {"captive_min_pix": NO_BOUND},
    "what one viewer vouches for one creator": {"vouched_pix": NO_BOUND},
    "what one viewer vouches for all": {"viewer_vouched_pix": NO_BOUND},
    "a creator's circle": {"creator_free_pix": NO_BOUND},
    "a circle's viewer": {"viewer_free_pix": NO_BOUND},
    "vouching": {"captive_share_ppm": 0},
    "leaps": {"velocity_ratio": 0},
}
# Without any one of these a farm lives well. The others stand behind them: what they stop alone is no farm's best tactic.
HOLDING = ("what one viewer vouches for all", "a circle's viewer", "vouching")


def without(economics: Economics, *names: str) -> Economics:
    """The same economics without these rules."""
    changes: dict[str, Any] = {setting: value for name in names for setting, value in OFF[name].items()}
    return dataclasses.replace(economics, **changes)


def free(economics: Economics) -> Economics:
    """Without any rule."""
    return without(economics, *OFF)
