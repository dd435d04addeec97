"""Strategies: ways to live on made views, each with its means, and the tactics that a reader of the rules would begin with.

Means are what costs something: networks, keys, and the time of a loop that searches once a minute, which is far below what
limits of rate let through; a faster one would make the uncapped take larger and what is kept a smaller part of it. Cookies,
moments and creators cost nothing: there are as many as the loop can use, so that nothing but rules keeps a take down.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from benchmarks.economy.catalogue import PAGE
from benchmarks.economy.learning import Pace, Tactic
from ledger.settings import PPM, Economics

SEARCHES_A_DAY = 1440  # of one network or key
LOOKS_A_DAY = SEARCHES_A_DAY * PAGE
RELEVANCE_PPM = 950_000  # bots ask for exactly what the farm's moments show
COPIES = 3  # of each page, where a strategy sends pages more than once
SHY = 0.8  # of the part of a day from which on a viewer is captive


@dataclass(frozen=True)
class Means:
    """What a cell has: networks, keys that are tied to no creator, and creators."""

    networks: int = 0
    keys: int = 0
    creators: int = 1

    @property
    def sources(self) -> int:
        return self.networks + self.keys


@dataclass(frozen=True)
class Strategy:
    """A way to live on made views."""

    name: str
    means: Means
    sleeps: int = 0  # days in which bots look at others only
    is_ramp: bool = False  # begins with few bots, and more each day
    again: bool = False  # pages of before midnight once more after it
    copies: str = ""  # pages are sent COPIES times: with one "key", with "keys" of their own, or over other "replicas"
    wallets: bool = False  # another wallet, whenever something was paid
    deceives: bool = False  # a person releases the farm's holds, again and again
    pads: bool = False  # the creators have an audience of their own
    stuffs: bool = False  # no bots: moments that are found by words they do not show

    def plain(self) -> Strategy:
        """The same means without the tricks, which cost a loop time and are good for nothing where no rule is."""
        return replace(self, sleeps=0, is_ramp=False, again=False, copies="", wallets=False, deceives=False)

    def pace(self, pace: Pace) -> Pace:
        """Honest creators who turn to it are few, who sleeps has less time: tries are shorter."""
        cells = min(2, pace.cells) if self.pads else pace.cells
        return replace(pace, cells=cells, period=1 if self.pads or self.sleeps else pace.period)


STRATEGIES = (
    Strategy("cookies of one network", Means(networks=1, creators=24)),
    Strategy("many networks, one creator", Means(networks=6)),
    Strategy("ring of two", Means(networks=3, creators=2)),
    Strategy("ring of five", Means(networks=3, creators=5)),
    Strategy("ring of many", Means(networks=2, creators=40)),
    Strategy("creators by the hundred", Means(networks=1, creators=200)),
    Strategy("captive audience", Means(networks=1, keys=1)),
    Strategy("ramp", Means(networks=6, creators=3), is_ramp=True),
    Strategy("keys tied to no creator", Means(keys=2, creators=30)),
    Strategy("keys of a ring", Means(keys=2, creators=5)),
    Strategy("Idempotency-Keys", Means(networks=1, keys=1, creators=24), copies="key"),
    Strategy("repeats over replicas", Means(networks=1, keys=1, creators=24), copies="replicas"),
    Strategy("day boundary and rotation", Means(networks=1, keys=1, creators=24), again=True),
    Strategy("sleepers", Means(networks=2, creators=24), sleeps=6),
    Strategy("wallets", Means(networks=2, creators=24), wallets=True),
    Strategy("a person deceived", Means(networks=2, creators=24), deceives=True),
    Strategy("holds of its own making, released", Means(networks=2, keys=2, creators=3), deceives=True),
    Strategy("padding of what is popular", Means(networks=2), pads=True),
    Strategy("padding of a popular ring", Means(networks=2, creators=4), pads=True),
    Strategy("stuffed words", Means(creators=8), stuffs=True),
)
BY_NAME = {each.name: each for each in STRATEGIES}


def look_pix(economics: Economics) -> int:
    """What one look of a bot pays, before shares."""
    return RELEVANCE_PPM * economics.rate_pix // PPM


def openings(strategy: Strategy, economics: Economics) -> Sequence[Tactic]:
    """All that a loop can do; the best response to the rules; and what else a reader of the rules would try."""
    ring, per_look = strategy.means.creators, look_pix(economics)
    vouched = max(1.0, economics.vouched_pix / per_look)  # looks at one creator which nobody doubts
    spread = float(min(ring, max(1, math.ceil(economics.viewer_vouched_pix / max(1, economics.vouched_pix)))))
    free = economics.viewer_free_pix / per_look
    day = min(LOOKS_A_DAY, (economics.viewer_day_max_pix or economics.address_day_max_pix or PPM**2) // per_look)
    network = min(LOOKS_A_DAY, (economics.address_day_max_pix or PPM**2) // per_look)
    cover = _cover(spread, economics)
    found = (
        Tactic(float(ring), LOOKS_A_DAY / ring),
        Tactic(spread, vouched + free / spread, cover),
        Tactic(float(ring), day / ring, _cover(ring, economics)),
        Tactic(float(ring), network / ring, _cover(ring, economics)),
        Tactic(1.0, max(1.0, economics.captive_min_pix / per_look - 1)),
        Tactic(spread, vouched + 1, 1.0),
    )
    if strategy.is_ramp:
        return (*(replace(found[1], growth=growth) for growth in (1.9, 4.5)), *found[:4])
    return found


def _cover(spread: float, economics: Economics) -> float:
    """Looks at others for each own one, so that the few who get most do not get what makes a viewer captive to them."""
    few, share = economics.captive_creators, SHY * economics.captive_share_ppm / PPM
    if not economics.captive_share_ppm or few / spread <= share:
        return 0.0
    return min(few, spread) / spread / share - 1
