"""Strategies: ways to earn from faked views, each with its means and with the tactics that it begins with.

Means are what costs something: networks, keys, and the time of a bot that searches once a minute. The rate limits allow
a far faster bot, which would take more in a world without rules and keep a smaller share of that under the rules.
Cookies, moments and creators cost nothing: a bot has as many as it can use, so only the rules limit what it takes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from benchmarks.economy.catalogue import PAGE
from benchmarks.economy.learning import Pace, Tactic
from ledger.accrual.vouching import USUAL_DAYS
from ledger.settings import PPM, Economics

SEARCHES_A_DAY = 1440  # of one network or key
LOOKS_A_DAY = SEARCHES_A_DAY * PAGE
RELEVANCE_PPM = 950_000  # bots ask for exactly what the farm's moments show
COPIES = 3  # of each page, where a strategy sends pages more than once
# Creators who are pushed in turn: one more than the days by whose mean a day may be measured. On the day of each nothing
# is in their own mean, and so all of the others' means counts beside it (see `vouching`).
IN_TURN = USUAL_DAYS + 1


@dataclass(frozen=True)
class Means:
    """What each cell of a farm has: networks, keys that are tied to no creator, and creators."""

    networks: int = 0
    keys: int = 0
    creators: int = 1

    @property
    def sources(self) -> int:
        return self.networks + self.keys


@dataclass(frozen=True)
class Strategy:
    """A way to earn from faked views: its means, and the tricks by which it uses them."""

    name: str
    means: Means
    sleeps: int = 0  # days in which bots look at others only
    is_ramp: bool = False  # begins with few bots, and more each day
    again: bool = False  # pages of before midnight once more after it
    copies: str = ""  # pages are sent COPIES times: with one "key", with "keys" of their own, or over other "replicas"
    wallets: bool = False  # another wallet, whenever something was paid
    deceives: bool = False  # a person releases the farm's holds, again and again
    is_believed: bool = False  # a person has looked at each creator's audience, and has believed it
    choice: str = (
        ""  # of creators: any; "turn": all bots look at one, each day at another; "own": each network has its own
    )
    pads: bool = False  # the creators have an audience of their own
    stuffs: bool = False  # no bots: moments that are found by words they do not show
    clones: int = 0  # with `stuffs`: copies of each video; they show what was asked for, and no words are stuffed

    def plain(self) -> Strategy:
        """Return this strategy without its tricks: in a world without rules they gain nothing and cost a bot's time."""
        return replace(self, sleeps=0, is_ramp=False, again=False, copies="", choice="", wallets=False, deceives=False,
                       is_believed=False)  # fmt: skip

    def pace(self, pace: Pace) -> Pace:
        """Return `pace` for this strategy: at most two cells if it pads, and tries of one day if it pads or sleeps."""
        cells = min(2, pace.cells) if self.pads else pace.cells
        return replace(pace, cells=cells, period=1 if self.pads or self.sleeps else pace.period)


# Those who pad the same creators have no economy together: four that follow each other are in one.
STRATEGIES = (
    Strategy("padding of what is popular", Means(networks=1), pads=True),
    Strategy("cookies of one network", Means(networks=1, creators=24)),
    Strategy("many networks, one creator", Means(networks=6)),
    Strategy("ring of two", Means(networks=3, creators=2)),
    Strategy("ring of five", Means(networks=3, creators=5)),
    Strategy("ring of many", Means(networks=2, creators=40)),
    Strategy("padding of what is popular by many networks", Means(networks=8), pads=True),
    Strategy("creators by the hundred", Means(networks=1, creators=200)),
    Strategy("one network a creator", Means(networks=6, creators=6), choice="own"),
    Strategy("creators in turn", Means(networks=2, creators=IN_TURN), choice="turn"),
    Strategy("creators in turn, by keys", Means(keys=2, creators=IN_TURN), choice="turn"),
    Strategy("creators in turn, believed", Means(networks=2, creators=IN_TURN), choice="turn", is_believed=True),
    Strategy("padding of a popular ring", Means(networks=1, creators=4), pads=True),
    Strategy("ramp", Means(networks=6, creators=3), is_ramp=True),
    Strategy("keys tied to no creator", Means(keys=2, creators=30)),
    Strategy("keys of a ring", Means(keys=2, creators=5)),
    Strategy("Idempotency-Keys", Means(networks=1, keys=1, creators=24), copies="key"),
    Strategy("repeats over replicas", Means(networks=1, keys=1, creators=24), copies="replicas"),
    Strategy("padding of a popular ring by many networks", Means(networks=8, creators=4), pads=True),
    Strategy("day boundary and rotation", Means(networks=1, keys=1, creators=24), again=True),
    Strategy("sleepers", Means(networks=2, creators=24), sleeps=6),
    Strategy("wallets", Means(networks=2, creators=24), wallets=True),
    Strategy("a person deceived", Means(networks=2, creators=24), deceives=True, is_believed=True),
    Strategy("holds of its own making, released", Means(networks=2, keys=2, creators=3), deceives=True),
    Strategy("stuffed words", Means(creators=8), stuffs=True),
    Strategy("copies of one video", Means(), stuffs=True, clones=6),
)
BY_NAME = {each.name: each for each in STRATEGIES}


def look_pix(economics: Economics) -> int:
    """Return what one look of a bot pays in base units of PIX, before it is divided between creator and others."""
    return RELEVANCE_PPM * economics.rate_pix // PPM


def openings(strategy: Strategy, economics: Economics) -> Sequence[Tactic]:
    """Return the tactics to begin with: the best response to the rules, the most a bot can do, and other plausible ones."""
    ring = strategy.means.creators
    worth, pair = _looks(economics.source_day_pix, economics), _looks(economics.beside_pair_pix, economics)
    share = economics.beside_share_ppm / PPM
    network = _looks(economics.address_day_max_pix, economics)
    day = min(network, _looks(economics.viewer_day_max_pix, economics))
    if (
        strategy.choice == "turn"
    ):  # the others' means are worth that much together, and a reserve for what is vouched for of it
        asides = [reserve * worth * share / USUAL_DAYS for reserve in (1.0, 1.5, 2.5)]
        return [
            Tactic(1.0, max(1.0, looks - aside * (ring - 1)), aside) for aside in asides for looks in (network, day)
        ]
    counted = min(LOOKS_A_DAY, math.ceil(worth * (1 + share)))  # of a source, where nobody else looks
    found = (
        _over(ring, min(LOOKS_A_DAY, worth + ring * pair) if strategy.pads else counted),
        _over(ring, LOOKS_A_DAY),
        _over(ring, day),
        _over(ring, network),
        _over(1, counted),
        replace(_over(ring, worth), cover=1.0),
    )
    if strategy.is_ramp:
        return (*(replace(found[0], growth=growth) for growth in (1.9, 4.5)), *found[:4])
    return found


def _over(creators: int, looks: int) -> Tactic:
    """Return the tactic that spreads a bot's `looks` evenly over the creators, or over some of them if the looks are fewer."""
    spread = max(1, min(creators, looks))
    return Tactic(float(spread), max(1.0, looks / spread))


def _looks(most_pix: int, economics: Economics) -> int:
    """Return how many looks of one bot in a day stay within a bound of `most_pix` base units (0: no bound)."""
    return min(LOOKS_A_DAY, most_pix // max(1, look_pix(economics))) if most_pix else LOOKS_A_DAY
