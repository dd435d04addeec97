"""The end of a world: money is counted, what never ended is named, and the product's own audit has the last word."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from ledger import ages, audit
from ledger.chain import Chain
from ledger.localnet.inside import LocalNode
from ledger.settings import LedgerSettings
from tests.ledger.chains import FINAL_BLOCKS
from tests.ledger.simulator import calm, truth
from tests.ledger.simulator.truth import Outcome

if TYPE_CHECKING:
    from tests.ledger.simulator.world import World

COUNTED = """
    SELECT (SELECT count(*) FROM ledger.payouts), (SELECT count(*) FROM ledger.attempts),
           (SELECT count(*) FROM ledger.folds), (SELECT count(*) FROM ledger.freezes)"""
DIGESTED = """
    SELECT encode(hash, 'hex'), (SELECT coalesce(string_agg(signature, ',' ORDER BY signature), '')
                                 FROM ledger.attempts WHERE state = 'landed') FROM ledger.chain_head"""


def count(world: World) -> Outcome:
    """What came of it."""
    world.advance(FINAL_BLOCKS)
    truth.count_money(world)
    left = {name: number for name, number in calm.still_open(world).items() if number}
    if left:
        _name_late(world, left)
    _count_rent(world)
    if not world.truth.problems:
        _audit(world)
    return _outcome(world)


def _name_late(world: World, left: dict[str, int]) -> None:
    """What never ends, and which of it the alarms know by now."""
    world.ground.clock += timedelta(days=8)
    admin: Any = world.ground.admin
    late = sorted(each.state for each in ages.measure(admin, world.settings.section(LedgerSettings)) if each.late)
    admin.commit()
    world.truth.found("stuck", f"{left}; alarms name {late}")


def _count_rent(world: World) -> None:
    """Every marker that our payouts have made is known, and is taken back in time."""
    if standing := calm.standing(world):
        world.truth.found("rent", f"{len(standing)} markers are not taken back, as that of batch {standing[0]}")
    if not world.climate.is_marked or world.restores or world.truth.events["secret lost"]:
        return
    known = {row[0] for row in world.ground.rows("SELECT address FROM ledger.markers")}
    made = world.opened_treasury()
    for (batch,) in world.ground.rows("SELECT id FROM ledger.batches WHERE kind = 'payout' AND state = 'posted'"):
        address = made.marker(batch).address
        account = world.chain.svm.get_account(address)
        if account is not None and account.lamports and str(address) not in known:
            world.truth.found("rent", f"nobody knows the marker of batch {batch}")


def _audit(world: World) -> None:
    rpc = Chain([LocalNode(name, world.chain) for name in "ab"])
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
    return Outcome(
        world.seed,
        tuple(world.truth.problems),
        counts,
        frozenset(states),
        frozenset(transitions),
        hashlib.sha256(f"{head} {landed}".encode()).hexdigest()[:16],
        tuple(world.truth.traces),
    )
