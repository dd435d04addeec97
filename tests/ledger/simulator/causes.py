"""Causes: each freeze, hold and reversal is explained by the very thing that has caused it, at its time.

A transaction by its signature, a difference by its sum, a batch by what stands at its marker, a creator by what was done to
them. What was explained once is not asked about again, also where a restore brings it back. In a world whose liars tell a
story what they say is believed, so that there a freeze needs no other cause than that they have told it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import date
from typing import TYPE_CHECKING, Any

from ledger import adoption, orders, reconcile, review, settling, signing, wallets
from ledger.rail import PAID_UNKNOWN
from ledger.resolving import PAID_TWICE
from ledger.rounds import IDS_LOST
from ledger.velocity import BEFORE_DAYS
from tests.ledger.simulator import nature, treasury
from tests.ledger.simulator.climate import LEAP_PIX, LEAP_RATIO

if TYPE_CHECKING:
    from tests.ledger.simulator.world import World

ASKED, SCREENED, REFUSED, FAILED, ONE_ACCOUNT = (
    "asked", "screening: ", "the chain refuses it", "the transaction failed", "one token account was opened"
)  # fmt: skip
OTHERWISE = "a transaction did something else than was signed"
FAN_IN, VELOCITY = review.FAN_IN.partition(":")[0], "velocity on "
EPOCH = date(1970, 1, 1)
STOPS = """
    SELECT 'freeze-' || id, 0, reason, detail::text, placed_at FROM ledger.freezes
    UNION ALL SELECT 'hold-' || id, creator_id, reason, '{}', placed_at FROM ledger.holds"""
CURSORS = "SELECT id, folded FROM ledger.unfolded"
LAST = """
    SELECT chain_pix - journal_pix, chain_lamports - journal_lamports FROM ledger.reconciliations
    WHERE NOT ok AND slot = %s"""
REVERSED = """
    SELECT a.owner, -sum(p.amount)::bigint FROM ledger.entries e JOIN ledger.postings p ON p.entry_id = e.id
    JOIN ledger.accounts a ON a.id = p.account_id
    WHERE e.kind IN ('reversal_fan_in', 'returned_fan_in') AND a.party = 'creator' GROUP BY 1"""
DECLARED = """
    SELECT (SELECT count(*) FROM ledger.freezes WHERE reason = %s), (SELECT count(*) FROM ledger.orders WHERE kind = %s)"""


def look_before(world: World) -> None:
    """What is so before a round, beside which its end is held."""
    world.truth.tick += 1
    world.booked_before = {row[0] for row in world.ground.rows(treasury.BOOKED)}
    if world.climate.is_folding:
        world.cursors_before = dict(world.ground.rows(CURSORS))
    if world.has_other_secret:
        world.truth.note("secret lost")
    _note_frozen(world)


def explain(world: World) -> None:
    """Each freeze and hold that was placed since has its cause, and no more was taken back than was bought."""
    _note_frozen(world)
    for name, creator, reason, detail, placed_at in world.ground.rows(STOPS):
        if (name, placed_at, reason) in world.truth.seen_stops:
            continue
        world.truth.seen_stops.add((name, placed_at, reason))
        explained = (
            _explains_hold(world, creator, reason) if creator else _explains_freeze(world, reason, json.loads(detail))
        )
        if not explained:
            world.truth.found("unexplained", f"{name}: {reason} {f'(creator {creator})' if creator else detail}")
    if world.climate.is_folding:
        _explain_reversals(world)


def _note_frozen(world: World) -> None:
    """Whether the treasury may not pay, in any block that a node can still be at."""
    if nature.is_frozen(world, world.treasury.payer.token_account):
        world.truth.note("treasury frozen")


# ── Creators ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _explains_hold(world: World, creator: int, reason: str) -> bool:
    truth = world.truth
    causes: Mapping[str, Callable[[], bool]] = {
        ASKED: lambda: truth.is_recent("asked", creator),
        SCREENED: lambda: truth.is_recent("screened", creator),
        wallets.UNPAYABLE: lambda: any(each in reason for each in truth.unpayable.get(creator, ())),
        ONE_ACCOUNT: lambda: creator in truth.moved,
        REFUSED: lambda: creator in truth.touched,
        FAILED: lambda: creator in truth.touched or _is_misled(world),
        FAN_IN: lambda: truth.bought[creator] > 0,
        VELOCITY: lambda: _has_leapt(world, creator, reason),
    }
    return next((is_so() for begins, is_so in causes.items() if reason.startswith(begins)), False)


def _has_leapt(world: World, creator: int, reason: str) -> bool:
    """Whether a creator's day came to many times what was folded of the best one of the days before.

    What was bought may not count on those.
    """
    kept, before = world.truth.kept, world.cursors_before
    day = (date.fromisoformat(reason.removeprefix(VELOCITY)[:10]) - EPOCH).days
    earned = kept.days[creator, day]
    best = max(kept.folded(before, creator, day - each) for each in range(1, BEFORE_DAYS + 1))
    return earned >= LEAP_PIX and earned > LEAP_RATIO * (best - world.truth.bought[creator])


def _explain_reversals(world: World) -> None:
    for creator, taken in world.ground.rows(REVERSED):
        bought = world.truth.bought[creator]
        if taken > bought and (creator, taken) not in world.said:
            world.said.add((creator, taken))
            world.truth.found(
                "unexplained", f"{taken} was taken back from creator {creator}, whose audience was bought for {bought}"
            )


# ── All payouts ────────────────────────────────────────────────────────────────────────────────────────────────────


def _explains_freeze(world: World, reason: str, detail: Mapping[str, Any]) -> bool:
    truth = world.truth
    causes: Mapping[str, Callable[[], bool]] = {
        adoption.RESTORED: lambda: _is_declared(world),
        reconcile.UNKNOWN: lambda: _is_misled(world) or _is_unknown(world, detail),
        reconcile.MISMATCH: lambda: _is_misled(world) or _is_difference(world, detail),
        settling.LANDED_LATE: lambda: _is_misled(world) or _is_late(world, detail.get("signature", "")),
        PAID_UNKNOWN: lambda: _is_misled(world) or any(_is_on_chain(world, each) for each in _batches(detail)),
        settling.IN_VAIN: lambda: _is_misled(world) or world.climate.liars > 1,
        signing.NOT_SIGNED: lambda: truth.is_recent("refused to sign"),
        signing.TREASURY_FROZEN: lambda: truth.is_recent("treasury frozen"),
        IDS_LOST: lambda: truth.is_recent("secret lost"),
        PAID_TWICE: lambda: _is_misled(world),
        OTHERWISE: lambda: False,
    }
    return reason in causes and causes[reason]()


def _is_misled(world: World) -> bool:
    return world.story is not None and world.story.is_told


def _is_declared(world: World) -> bool:
    """One for each restore, and one for each order that says there was one."""
    freezes, ordered = world.ground.rows(DECLARED, adoption.RESTORED, orders.ADOPT)[0]
    return bool(freezes <= world.restores + ordered)


def _is_ours_and_strange(world: World, signature: str) -> bool:
    """A transaction of the treasury's whose end the journal need not know."""
    is_forgotten = world.restores > 0 or world.climate.is_trusting
    return signature in world.truth.withdrawn or (signature in world.truth.batch_of and is_forgotten)


def _is_unknown(world: World, detail: Mapping[str, Any]) -> bool:
    change = treasury.effects(world).get(detail["signature"])
    return _is_ours_and_strange(world, detail["signature"]) and change == (detail["pix"], detail["lamports"])


def _is_difference(world: World, detail: Mapping[str, Any]) -> bool:
    """Whether transactions that were not booked before this round, and lamports that none has brought, come to it."""
    rows = world.ground.rows(LAST, detail["slot"])
    effects = treasury.effects(world)
    may_hide = world.climate.liars > 1
    parts = [
        change
        for signature, change in effects.items()
        if signature not in world.booked_before and (may_hide or _is_ours_and_strange(world, signature))
    ]
    left = world.truth.tampered - treasury.corrected(world)[1]
    others = {(0, left), (0, world.tampered_before), (0, 0)} if left or world.tampered_before else {(0, 0)}
    return any(difference != (0, 0) and treasury.is_sum_of(difference, parts, others) for difference in rows)


def _is_late(world: World, signature: str) -> bool:
    """Whether a transaction of ours that was given up is on chain, where nodes can bring that about."""
    is_there = world.chain.store.transaction(signature) is not None
    return is_there and signature in world.truth.batch_of and world.climate.is_trusting


def _batches(detail: Mapping[str, Any]) -> list[str]:
    return [*detail.get("given_up", ()), *([detail["batch"]] if "batch" in detail else ())]


def _is_on_chain(world: World, batch: str) -> bool:
    """Whether a stranger has paid for a batch's marker, or a transaction of it has landed that the journal need not know."""
    if any(str(address) in world.truth.prefunded for address in world.markers_of(batch)):
        return True
    signatures = [signature for signature, of in world.truth.batch_of.items() if of == batch]
    if not (world.restores or world.climate.is_trusting):
        return False
    found = [world.chain.store.transaction(each) for each in signatures]
    return any(each is not None and each.error is None for each in found)
