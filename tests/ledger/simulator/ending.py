"""The end of a world: money is counted, what never ended is named, and the product's own audit has the last word."""

from __future__ import annotations

import hashlib
import random
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from ledger.audit import ages, audit
from ledger.settings import LedgerSettings
from ledger.solana.chain import Chain
from tests.ledger.chains import FINAL_BLOCKS
from tests.ledger.simulator import calm, counting, treasury
from tests.ledger.simulator.nodes import Node
from tests.ledger.simulator.truth import LEFT_OUT, Outcome, kinds_of

if TYPE_CHECKING:
    from tests.ledger.simulator.world import World

# What liars who agree can bring about.
BY_STORY = {"double", "phantom", "lost", "booked", "stuck", "rent", "audit", "over"}
COUNTED = """
    SELECT (SELECT count(*) FROM ledger.payouts), (SELECT count(*) FROM ledger.attempts),
           (SELECT count(*) FROM ledger.folds), (SELECT count(*) FROM ledger.freezes)"""
DIGESTED = """
    SELECT encode(hash, 'hex'), (SELECT coalesce(string_agg(signature, ',' ORDER BY signature), '')
                                 FROM ledger.attempts WHERE state = 'landed') FROM ledger.chain_head"""


def count(world: World) -> Outcome:
    """What came of it."""
    world.advance(FINAL_BLOCKS)
    counting.count_money(world)
    treasury.check_booked(world)
    left = {name: number for name, number in calm.still_open(world).items() if number}
    if left:
        _name_late(world, left)
    _count_rent(world)
    if not world.truth.problems:
        _audit(world)
    _excuse(world)
    return _outcome(world)


def _excuse(world: World) -> None:
    """While two of three nodes tell one story, what they say is booked; it is expected that payouts are frozen at the end,
    for the reason that is true; or that the audit names it, where no money is missing. Only what is wrong and silent is a
    problem, and what no node can bring about.
    """
    truth = world.truth
    if world.story is None or not world.story.is_told:
        return
    kinds = kinds_of(truth.problems)
    if kinds == {"audit"} or (kinds <= BY_STORY and calm.is_stopped_by_story(world)):
        truth.events["stopped, as a story demands"] += bool(truth.problems)
        truth.problems.clear()


def _name_late(world: World, left: dict[str, int]) -> None:
    """What never ends, and which of it the alarms know by now."""
    world.ground.clock += timedelta(days=8)
    admin: Any = world.ground.admin
    late = sorted(each.state for each in ages.measure(admin, world.settings.section(LedgerSettings)) if each.late)
    admin.commit()
    world.truth.found("stuck", f"{left}; alarms name {late}")


def _count_rent(world: World) -> None:
    """Every marker that our payouts have made is known, and is taken back in time: the chain holds none at the end."""
    if standing := calm.waiting(world):
        world.truth.found("rent", f"{len(standing)} markers are not taken back, as that of batch {standing[0]}")
    if not world.climate.is_marked or world.restores or world.truth.events["secret lost"]:
        return
    landed = {
        batch
        for signature, batch in world.truth.batch_of.items()
        if batch and (done := world.chain.store.transaction(signature)) is not None and done.error is None
    }
    for batch in sorted(landed):
        account = world.chain.svm.get_account(world.markers_of(batch)[0])
        if account is not None and account.lamports:
            world.truth.found(
                "rent", f"the marker of batch {batch} stands at the end, with {account.lamports} lamports"
            )


def _audit(world: World) -> None:
    rpc = Chain(
        [Node(name, world.chain, random.Random(name), lambda: None, slots=world.slots) for name in ("first", "second")]
    )
    admin = world.ground.admin
    admin.execute("SELECT 1")  # its next transaction is at the world's time
    admin.rollback()
    try:
        with patch.object(audit, "ATTEMPTS_MAX", 1), patch.object(audit, "PAUSE_S", 0.0):
            limits = world.settings.section(LedgerSettings)
            checks = audit.run(admin.raw, rpc, str(world.treasury.payer.gas), full=True, limits=limits)
    finally:
        admin.rollback()
        admin.raw.isolation_level = None
        rpc.close()
    for check in checks:
        if not check.ok and not _is_known(world, check):
            world.truth.found("audit", f"{check.name}: {check.detail}")


def _is_known(world: World, check: audit.Check) -> bool:
    """What the audit rightly names: what two liars have left out of the history, until it is read again."""
    is_left_out = all(
        each.endswith("the chain's history that was read has it not") for each in check.detail.split("; ")
    )
    return check.name == "attempts" and world.climate.liars > 1 and is_left_out


def _outcome(world: World) -> Outcome:
    rows = world.ground.rows("SELECT DISTINCT relation, field, was, became FROM sim.reached")
    states, transitions = world.ground.machine.reached(rows)
    head, landed = world.ground.rows(DIGESTED)[0]
    counted = world.ground.rows(COUNTED)[0]
    counts = dict(zip(("payouts", "attempts", "folds", "freezes"), counted, strict=True)) | dict(world.truth.events)
    if world.climate.left_out:
        counts[f"{LEFT_OUT}{world.climate.left_out}"] = 1
    return Outcome(
        world.seed,
        tuple(world.truth.problems),
        counts,
        frozenset(states),
        frozenset(transitions),
        hashlib.sha256(f"{head} {landed}".encode()).hexdigest()[:16],
        tuple(world.truth.traces),
    )
