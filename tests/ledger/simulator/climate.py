"""Climate: what a world is like. Drawn from its seed, or aimed at one kind of fault so that it comes soon.

Chances are of a round where a name says nothing else. `fierce` makes faults that many times as likely; what people do, and
how large a world is, stays the same.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from ledger.settings import Economics, LedgerSettings

CHANCE_MAX = 0.9
NO_LIMIT_PIX = 10**11  # a day
# What of a day counts by its source, and how much of one is a leap. Viewers of a world see little: what each of them earns
# all creators together comes to less than BOUGHT_PIX a day. An audience that is bought earns as much at each look.
BOUGHT_PIX, LEAP_PIX, LEAP_RATIO = 400_000, 2_000_000, 5
JUDGED: Mapping[str, int] = {
    "source_day_pix": BOUGHT_PIX,
    "velocity_ratio": LEAP_RATIO,
    "velocity_min_pix": LEAP_PIX,
}


class Restoring(StrEnum):
    """How a database goes back to an earlier moment."""

    NEVER = ""
    DOCUMENTED = "pixr restore"
    PLATFORM = "by the platform's own means: the database lies elsewhere"
    BY_HAND = "by hand: nothing says so"


@dataclass(frozen=True)
class Weather:
    """What may be wrong with a node, as chances a call; `lag_max` in blocks."""

    silent: float = 0.06
    refusing: float = 0.04
    dropping: float = 0.25
    delaying: float = 0.15
    losing: float = 0.12
    lagging: float = 0.5
    lag_max: int = 60
    lying: float = 0.5  # of a liar's answers
    lag_min: int = 0
    changing: float = 0.1  # of a node's answers: by another lag than its last one

    def times(self, factor: float) -> Weather:
        """The same, so many times as bad."""
        names = ("silent", "refusing", "dropping", "delaying", "losing")
        changed = {name: min(CHANCE_MAX, getattr(self, name) * factor) for name in names}
        most = changed["dropping"] + changed["delaying"]
        if most > CHANCE_MAX:  # some must arrive
            changed |= {name: changed[name] * CHANCE_MAX / most for name in ("dropping", "delaying")}
        return replace(self, **changed)  # type: ignore[arg-type]


CALM = Weather(0, 0, 0, 0, 0, 0, 0)
DROPPING = Weather(dropping=0.8, delaying=0.15)

# What happens, by name (see `nature`, `people` and `powers`), and how often in a round: faults, which `fierce` multiplies ...
FAULTS: Mapping[str, float] = {
    "leap": 0.2,  # many blocks at once
    "fork": 0.12,
    "jump": 0.03,  # of the database's clock
    "cheaper": 0.02,  # rent falls
    "dearer": 0.01,  # it rises
    "outage": 0.03,
    "stretch": 0.02,  # an outage of all nodes, of minutes
}
# ... and what strangers, creators, viewers and the operator do.
DEEDS: Mapping[str, float] = {
    "dust": 0.15,
    "deposit": 0.05,
    "touch": 0.05,
    "prefund": 0.06,
    "lamports": 0.08,
    "freeze account": 0.05,
    "close account": 0.03,
    "freeze treasury": 0.01,
    "withdraw": 0.02,
    "tamper": 0.01,
    "refuse to sign": 0.02,
    "earn": 0.5,
    "watch": 0.6,
    "come back": 0.15,
    "buy audience": 0.06,
    "begin": 0.15,
    "hold": 0.08,
    "release": 0.15,
    "sanction": 0.05,
    "pardon": 0.15,
    "screening away": 0.04,
    "new wallet": 0.08,
    "bad wallet": 0.02,
    "prove wallet": 0.05,
    "resolve": 0.06,
    "order": 0.05,
    "put in order": 0.08,
}


@dataclass(frozen=True)
class Climate:
    """One world's size, weather and powers."""

    rounds: int = 30
    creators: int = 5
    wallets: int = 5  # that creators share; fewer than creators: some of them have one together
    nodes: int = 3
    liars: int = 0
    forgetful: int = 0  # nodes that keep some hundred blocks
    is_marked: bool = True
    has_gas_key: bool = False
    version: str = "v1"
    maturity_s: int = 0
    is_folding: bool = False  # earnings come from searches
    is_screened: bool = False
    by_two: bool = False  # orders need a second administrator
    payout_max_pix: int = 10**10
    day_max_pix: int = NO_LIMIT_PIX
    batches_live_max: int = 6
    marker_retention_s: int = 300
    wallet_hold_s: int = 600
    plots: float = 0.0  # a round: every node tells the same lie
    plots_in_order: bool = False  # what is sent during one lands in its order; and the database's clock may help it
    tells_story: bool = False  # its liars have agreed on one lie, and tell all of it whenever they are asked
    hours: int = 0  # that pass in a round, of a world whose creators all earn much, each day as much
    loses_secret: bool = False
    restoring: Restoring = Restoring.NEVER
    keeping: float = 0.15  # a backup, in worlds that restore
    going_back: float = 0.06
    crashing: float = 0.003  # a step
    losing: float = 0.003  # a statement: the connection
    losing_unsent: float = 0.003  # the same, where something was signed a moment ago that was not sent yet
    switching: float = 0.12  # a step: another part goes on
    overlapping: float = 0.03  # a statement of a transaction that is open: the same
    haunting: float = 0.3  # a death: the old process was only slow
    weather: Weather = field(default_factory=Weather)
    chances: Mapping[str, float] = field(default_factory=dict)  # instead of the ones above
    judged: Mapping[str, int] = field(default_factory=dict)  # instead of JUDGED

    def chance(self, name: str) -> float:
        return self.chances.get(name, DEEDS.get(name, 0.0) + FAULTS.get(name, 0.0))

    @property
    def left_out(self) -> str:
        """What this world leaves out of what others have, so that its outcome is whole."""
        if not self.is_trusting:
            return ""
        return "no jump of the clock and no restore, with two liars or a plot"

    @property
    def is_trusting(self) -> bool:
        """Whether nodes can together make the ledger give up what lands: two liars, or a plot of all."""
        return self.liars > 1 or self.plots > 0

    def economics(self) -> Economics:
        """Bounds that nobody comes near, but for an audience that is bought."""
        return Economics(
            maturity_s=self.maturity_s,
            payout_min_pix=1,
            payout_max_pix=self.payout_max_pix,
            payout_day_max_pix=self.day_max_pix,
            viewer_day_max_pix=0,
            address_day_max_pix=0,
            segment_day_max_pix=0,
            creator_day_max_pix=0,
            search_appearances_max=0,
            search_amount_max_pix=0,
            wallet_hold_s=self.wallet_hold_s,
            manifest_wallet_hold_h=1,
            wallet_domain="pixr.test",
            **{**JUDGED, **self.judged},  # type: ignore[arg-type]
        )

    def settings(self, screening: str) -> LedgerSettings:
        return LedgerSettings(
            resend_interval_s=1e-6,
            reconcile_interval_s=1.0,
            review_interval_s=5.0,
            reclaim_pause_s=30.0,
            reclaim_min=1,
            marker_retention_s=self.marker_retention_s,
            marker_accounts=self.is_marked,
            batches_live_max=self.batches_live_max,
            orders_by_two=self.by_two,
            screening=screening if self.is_screened else "",
        )


def drawn(seed: int, fierce: float = 1.0) -> Climate:
    """The climate of a seed.

    That nodes do not lie together and that the database's clock does not jump are two walls, of which a world takes one away:
    with both gone a payment that was given up can land after the one that was made instead.
    """
    rng = random.Random(f"climate of {seed}")
    marked = rng.random() < 0.75
    liars = rng.choice((1, 1, 2, 2, 2) if marked else (1,)) if rng.random() < 0.45 else 0
    nodes = rng.choice((3, 4)) if liars else rng.randint(1, 3)
    creators = rng.choice((1, 3, 4, 5, 6, 8, 12, 30))
    folding = rng.random() < 0.4
    restoring = (
        rng.choice([each for each in Restoring if each]) if liars < 2 and rng.random() < 0.3 else Restoring.NEVER
    )
    made = Climate(
        rounds=rng.randint(18, 36),
        creators=creators,
        wallets=creators if rng.random() < 0.6 else -(-creators // 2),
        nodes=nodes,
        liars=liars,
        forgetful=1 if nodes > 2 + liars and rng.random() < 0.4 else 0,
        is_marked=marked,
        has_gas_key=rng.random() < 0.3,
        version="legacy" if rng.random() < 0.15 else "v1",
        maturity_s=rng.choice((0, 600, 7200)) if folding else 0,
        is_folding=folding,
        is_screened=rng.random() < 0.4,
        by_two=rng.random() < 0.3,
        payout_max_pix=10**10 if folding else rng.choice((10**10, 10**10, 5_000)),
        day_max_pix=rng.choice((NO_LIMIT_PIX, NO_LIMIT_PIX, 5 * 10**6 if folding else 20_000)),
        batches_live_max=rng.choice((2, 6, 20)),
        marker_retention_s=rng.choice((60, 300, 30 * 86_400)),
        plots=0.06 if marked and not restoring and rng.random() < 0.25 else 0.0,
        loses_secret=not restoring and rng.random() < 0.04,
        plots_in_order=rng.random() < 0.5,
        restoring=restoring,
        tells_story=liars > 1 and rng.random() < STORIES,
    )
    if made.is_trusting:
        made = replace(made, chances={"jump": 0.0})
    elif folding and rng.random() < STEADY:
        made = steady(made)
    if rng.random() < THICK:
        made = replace(made, weather=DROPPING)
    if seed % CROWD_EVERY == CROWD_EVERY - 1:
        made = crowd(made)
    return fiercer(made, fierce)


CROWD_EVERY = 250
STORIES = 0.25  # of the worlds with two liars
STEADY = 0.15  # of the worlds that fold, and in which nodes do not lie together
THICK = 0.15  # of the worlds: little that is sent lands, so that attempts are given up


def steady(made: Climate) -> Climate:
    """Days of a world in which everybody earns much, and on each day as much."""
    return replace(
        made,
        rounds=36,
        hours=4,
        creators=6,
        wallets=6,
        payout_max_pix=10**10,
        day_max_pix=NO_LIMIT_PIX,
        chances={**made.chances, "jump": 0.0, "buy audience": 0.0},
    )


def crowd(made: Climate) -> Climate:
    """Thousands of creators, of whom many are paid at one wallet."""
    return replace(
        made,
        rounds=12,
        creators=2500,
        wallets=60,
        is_folding=True,
        maturity_s=0,
        payout_max_pix=10**10,
        day_max_pix=NO_LIMIT_PIX,
        batches_live_max=64,
        restoring=Restoring.NEVER,
        hours=0,
        tells_story=False,
    )


def fiercer(made: Climate, factor: float) -> Climate:
    """The same world with faults so many times as likely."""
    if factor == 1.0:
        return made
    faults = {name: min(CHANCE_MAX, made.chance(name) * factor) for name in FAULTS}
    return replace(
        made,
        crashing=made.crashing * factor,
        losing=made.losing * factor,
        losing_unsent=made.losing_unsent * factor,
        going_back=min(0.3, made.going_back * factor),
        weather=made.weather.times(factor),
        chances={**made.chances, **faults},
    )
