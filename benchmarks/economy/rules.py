"""The rules that decide which views count, each with the settings that switch it off.

A free world has all rules switched off; a control has one switched off, to show what that rule is good for. The
definition of an appearance is not among these rules and always holds: a viewer's repeats within a day do not count, a
moment earns by its relevance, and the size of a page is bounded.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ledger.settings import PPM, Economics

# Each rule, and the settings that leave it out.
OFF: Mapping[str, Mapping[str, int]] = {
    "a viewer's day": {"viewer_day_max_pix": 0},
    "a network's day": {"address_day_max_pix": 0},
    "a moment's day": {"segment_day_max_pix": 0},
    "a creator's day": {"creator_day_max_pix": 0},
    "what one source is worth": {"source_day_pix": 0},
    "what counts beside it": {"beside_share_ppm": PPM},
    "what one source brings a creator beside it": {"beside_pair_pix": 0},
    "leaps": {"velocity_ratio": 0},
}
NETWORKS = "viewers without a key are one source a network"  # no setting: a replica that sees no address leaves it out
RULES = (*OFF, NETWORKS)
# The rules that matter most: if one of the first is switched off, farms with creators of their own earn much; without the
# last, farms that pad popular creators do. No farm's best tactic is stopped by one of the other rules alone.
HOLDING = ("what one source is worth", NETWORKS)
HOLDING_POPULAR = ("what one source brings a creator beside it",)


def without(economics: Economics, *names: str) -> Economics:
    """Return the economics with the named rules switched off."""
    changes: dict[str, Any] = {setting: value for name in names for setting, value in OFF.get(name, {}).items()}
    return dataclasses.replace(economics, **changes)


def free(economics: Economics) -> Economics:
    """Return the economics with all rules switched off."""
    return without(economics, *OFF)
