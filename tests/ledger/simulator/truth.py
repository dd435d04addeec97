"""The truth of a world, kept beside its database: who has earned and been sent what, and what was found wrong.

What a restore makes the journal forget is not forgotten here. `found` collects what must never be, each with its kind:

* double: a creator's wallets hold more than was ever earned, or than the journal knows of; phantom: less than it calls paid;
* lost: units that are neither paid nor owed; over: more than a day's limit was planned;
* stopped: somebody was paid after they had been stopped, by bytes that left for the first time after that;
* stuck: something that never ends, and no alarm names it; unexplained: a freeze or a hold without a cause;
* rent: a marker that nobody takes back; audit: what the product's own audit finds; broken: the process ended on a bug;
* locked: somebody waits for what is locked while a node is asked.
"""

from __future__ import annotations

import json
import traceback
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from ledger import adoption, reconcile, review, settling, signing, wallets
from ledger.rail import PAID_UNKNOWN
from ledger.resolving import PAID_TWICE
from ledger.rounds import IDS_LOST
from tests.ledger.simulator.climate import NO_LIMIT_PIX
from tests.ledger.simulator.machine import State, Transition

if TYPE_CHECKING:
    from tests.ledger.simulator.world import World

KINDS = ("double", "phantom", "lost", "over", "stopped", "stuck", "unexplained", "rent", "audit", "broken", "locked")
FOUND_MAX = 20
ASKED, SCREENED, REFUSED, FAILED, ONE_ACCOUNT = (
    "asked", "screening: ", "the chain refuses it", "the transaction failed", "one token account was opened"
)  # fmt: skip
OTHERWISE = "a transaction did something else than was signed"


@dataclass(frozen=True)
class Outcome:
    """What one seed came to. `digest` is of the journal and of what has landed: the same seed has the same one."""

    seed: int
    problems: tuple[str, ...]
    counts: dict[str, int]
    states: frozenset[State]
    transitions: frozenset[Transition]
    digest: str
    traces: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        return not self.problems


@dataclass
class Kept:
    """What the database has to know: it goes back with it."""

    earned: dict[int, int] = field(default_factory=dict)
    shown: dict[tuple[int, int], datetime] = field(default_factory=dict)  # last time, by viewer and segment

    def copy(self) -> Kept:
        return Kept(dict(self.earned), dict(self.shown))


@dataclass
class Truth:
    """What is so, whatever the database says."""

    kept: Kept = field(default_factory=Kept)
    ever: Counter[int] = field(default_factory=Counter)  # earned, by creator
    wallets: dict[int, list[str]] = field(default_factory=dict)  # all that a creator has had, the last one now
    taken: Counter[str] = field(default_factory=Counter)  # out of token accounts that were closed, by address
    closed: set[str] = field(default_factory=set)  # wallets whose token account was closed by its owner
    sent: set[str] = field(default_factory=set)  # signatures whose bytes have left
    withdrawn: set[str] = field(default_factory=set)  # signatures of the treasury's owner
    prefunded: set[str] = field(default_factory=set)  # markers that strangers have paid for
    touched: set[int] = field(default_factory=set)  # creators whose token account was frozen or closed
    sanctioned: set[int] = field(default_factory=set)  # ever
    unpayable: set[int] = field(default_factory=set)  # creators who have had a wallet that cannot be paid
    moved: set[int] = field(default_factory=set)  # creators who have changed their wallet
    events: Counter[str] = field(default_factory=Counter)  # what has happened, by name
    problems: list[str] = field(default_factory=list)
    seen_stops: set[str] = field(default_factory=set)
    traces: list[str] = field(default_factory=list)

    def found(self, kind: str, what: str, error: BaseException | None = None) -> None:
        assert kind in KINDS
        if len(self.problems) < FOUND_MAX:
            self.problems.append(f"{kind}: {what}")
            if error is not None:
                self.traces.append("".join(traceback.format_exception(error)))

    def earn(self, creator: int, amount: int) -> None:
        self.kept.earned[creator] = self.kept.earned.get(creator, 0) + amount
        self.ever[creator] += amount

    def groups(self) -> list[list[int]]:
        """Creators who have ever been paid at one wallet, together."""
        of_wallet: dict[str, int] = {}
        leader = {creator: creator for creator in self.wallets}

        def led_by(creator: int) -> int:
            while leader[creator] != creator:
                creator = leader[creator]
            return creator

        for creator, named in self.wallets.items():
            for wallet in named:
                leader[led_by(creator)] = led_by(of_wallet.setdefault(wallet, creator))
        together: dict[int, list[int]] = {}
        for creator in self.wallets:
            together.setdefault(led_by(creator), []).append(creator)
        return list(together.values())


# ── Stops ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def explain_stops(world: World) -> None:
    """Each freeze and hold that was placed has a cause that the world knows of."""
    seen = sorted(world.truth.seen_stops)
    rows = world.ground.rows(
        "SELECT * FROM (SELECT 'freeze-' || id AS name, 0, reason, detail::text FROM ledger.freezes"
        " UNION ALL SELECT 'hold-' || id, creator_id, reason, '{}' FROM ledger.holds) s WHERE name <> ALL(%s)",
        seen,
    )
    for name, creator, reason, detail in rows:
        world.truth.seen_stops.add(name)
        is_explained = (
            _explains_hold(world, creator, reason) if creator else _explains(world, reason, json.loads(detail))
        )
        if not is_explained:
            world.truth.found("unexplained", f"{name}: {reason} {detail if not creator else f'(creator {creator})'}")


def _explains_hold(world: World, creator: int, reason: str) -> bool:
    truth = world.truth
    causes = {
        ASKED: True,
        SCREENED: creator in truth.sanctioned,
        wallets.UNPAYABLE: creator in truth.unpayable,
        ONE_ACCOUNT: creator in truth.moved,
        REFUSED: creator in truth.touched,
        FAILED: creator in truth.touched,
        review.FAN_IN: world.climate.is_folding,
        "velocity on": world.climate.is_folding,
    }
    return next((is_so for begins, is_so in causes.items() if reason.startswith(begins)), False)


def _explains(world: World, reason: str, detail: Mapping[str, Any]) -> bool:
    truth, events = world.truth, world.truth.events
    has_gone_back = world.restores > 0 or events["order to adopt"] > 0
    is_strange = bool(truth.withdrawn) or has_gone_back or events["tamper"] > 0
    late = _has_landed_late(world)
    may_hide = world.climate.liars > 1  # from the history, for a while
    causes = {
        adoption.RESTORED: has_gone_back,
        reconcile.UNKNOWN: is_strange or late,
        reconcile.MISMATCH: is_strange or late or may_hide,
        settling.LANDED_LATE: world.climate.is_trusting
        and world.chain.store.transaction(detail.get("signature", "")) is not None,
        PAID_UNKNOWN: bool(truth.prefunded) or has_gone_back or late,
        signing.NOT_SIGNED: events["refuse to sign"] > 0,
        signing.TREASURY_FROZEN: events["freeze treasury"] > 0,
        IDS_LOST: events["secret lost"] > 0,
        PAID_TWICE: False,
        OTHERWISE: False,
    }
    return causes.get(reason, False)


def _has_landed_late(world: World) -> bool:
    """Whether a transaction that was given up is on chain, in a world where nodes can bring that about."""
    if not world.climate.is_trusting:
        return False
    rows = world.ground.rows("SELECT signature FROM ledger.attempts WHERE error = '\"expired\"' OR state = 'expired'")
    late = world.ground.rows("SELECT count(*) FROM ledger.freezes WHERE reason = %s", settling.LANDED_LATE)[0][0] > 0
    return late or any(world.chain.store.transaction(signature) is not None for (signature,) in rows)


# ── Money ──────────────────────────────────────────────────────────────────────────────────────────────────────────

OWNED = """
    SELECT owner, coalesce(sum(balance) FILTER (WHERE kind = 'payable'), 0)::bigint,
           coalesce(sum(balance) FILTER (WHERE kind = 'maturing'), 0)::bigint
    FROM ledger.accounts WHERE party = 'creator' GROUP BY owner"""
PAID = """
    SELECT p.creator_id, coalesce(sum(p.amount_pix) FILTER (WHERE t.state = 'posted'), 0)::bigint,
           coalesce(sum(p.on_chain_pix) FILTER (WHERE t.state = 'voided'), 0)::bigint,
           coalesce(sum(p.amount_pix) FILTER (WHERE t.state = 'pending'), 0)::bigint
    FROM ledger.payouts p JOIN ledger.transfers t ON t.id = p.transfer_id GROUP BY 1"""
ADDED = """
    SELECT a.owner, sum(p.amount)::bigint FROM ledger.entries e JOIN ledger.postings p ON p.entry_id = e.id
    JOIN ledger.accounts a ON a.id = p.account_id
    WHERE e.kind IN ('adopted_accrual', 'correction', 'reversal_fan_in') AND a.party = 'creator' GROUP BY 1"""
ADOPTED = ADDED.replace("IN ('adopted_accrual', 'correction', 'reversal_fan_in')", "= 'adopted_accrual'")
CORRECTED = ADDED.replace("IN ('adopted_accrual', 'correction', 'reversal_fan_in')", "= 'correction'")
LOST = """
    SELECT coalesce(-sum(p.amount), 0)::bigint FROM ledger.entries e JOIN ledger.postings p ON p.entry_id = e.id
    JOIN ledger.accounts a ON a.id = p.account_id
    WHERE e.kind = 'payout_resolved' AND a.kind IN ('platform', 'reward_pool') AND a.asset = 'PIX'"""


def count_money(world: World) -> None:
    """Every unit that was earned is paid or owed, once; and what the journal calls paid is on chain."""
    rows, truth = world.ground.rows, world.truth
    owned = {owner: payable + maturing for owner, payable, maturing in rows(OWNED)}
    paid = {creator: (posted + late, pending) for creator, posted, late, pending in rows(PAID)}
    added, adopted, corrected = (dict[int, int](rows(query)) for query in (ADDED, ADOPTED, CORRECTED))  # type: ignore[arg-type]
    for group in truth.groups():
        landed = sum(
            world.on_chain(wallet) for wallet in sorted({each for one in group for each in truth.wallets[one]})
        )
        posted, pending = (sum(paid.get(each, (0, 0))[n] for each in group) for n in (0, 1))
        most = sum(truth.ever[each] + corrected.get(each, 0) for each in group)
        said = f"creators {_named(group)}: {landed} on chain, {posted} paid, {pending} in flight, {most} ever earned"
        if landed > most or landed > posted + pending:
            truth.found("double", said)
        if posted > landed:
            truth.found("phantom", said)
        if sum(truth.kept.earned.get(each, 0) + adopted.get(each, 0) for each in group) > most:
            truth.found("double", f"creators {_named(group)} were credited more than they have ever earned")
    wrong = []
    for creator in truth.wallets:
        earned = truth.kept.earned.get(creator, 0) + added.get(creator, 0)
        posted, pending = paid.get(creator, (0, 0))
        if earned != posted + pending + owned.get(creator, 0):
            wrong.append(
                f"creator {creator} earned {earned}, {posted} paid, {pending} in flight, {owned.get(creator, 0)} owed"
            )
    if wrong and not rows(LOST)[0][0]:
        truth.found("lost", "; ".join(wrong[:3]))


def _named(group: Sequence[int]) -> str:
    return ", ".join(map(str, group[:5])) + (" …" if len(group) > 5 else "")


def check_days(world: World) -> None:
    """No day's payouts come to more than its limit, but for what a restore has made known again."""
    if world.climate.day_max_pix == NO_LIMIT_PIX or world.restores or world.truth.events["order to adopt"]:
        return
    rows = world.ground.rows(
        "SELECT p.period::text, sum(p.amount_pix)::bigint FROM ledger.payouts p"
        " JOIN ledger.transfers t ON t.id = p.transfer_id WHERE t.state IN ('pending', 'posted') GROUP BY 1"
        " HAVING sum(p.amount_pix) > %s",
        world.climate.day_max_pix,
    )
    for day, planned in rows:
        world.truth.found("over", f"payouts of {day} come to {planned}, the limit is {world.climate.day_max_pix}")
