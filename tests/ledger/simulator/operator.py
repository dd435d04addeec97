"""The operator: finds what is stopped, late or unknown, and ends it by the verbs that the product has, and by nothing else.

`look` does what a person would who reads `pixr payouts stops`, `pixr audit` and the log: each freeze has its way out.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from cluster.errors import Rejected
from ledger import adoption, orders, reconcile, resolutions, settling, signing, stops, wallets
from ledger.rail import PAID_UNKNOWN
from ledger.resolving import PAID_TWICE
from ledger.rounds import IDS_LOST
from ledger.stops import Stop
from tests.ledger.simulator import nature
from tests.ledger.simulator.causes import ONE_ACCOUNT, OTHERWISE

if TYPE_CHECKING:
    from tests.ledger.simulator.world import World

BY = "operator"
LIVES_S = 72 * 3600  # of an order
OPEN_BATCHES = """
    SELECT b.id FROM ledger.batches b WHERE b.ended_at IS NULL ORDER BY b.planned_at, b.id"""
GIVEN_UP = """
    SELECT DISTINCT b.id FROM ledger.batches b JOIN ledger.attempts a ON a.batch_id = b.id AND a.state = 'expired'
    WHERE b.ended_at IS NOT NULL ORDER BY 1"""
UNKNOWN = """
    SELECT c.signature, a.batch_id FROM ledger.chain_transactions c LEFT JOIN ledger.attempts a ON a.signature = c.signature
    WHERE c.kind = 'unknown' AND coalesce(a.state, '') NOT IN ('landed', 'failed') ORDER BY c.slot, c.signature"""

# As the chain and the journal were compared last, if nothing was corrected since.
COMPARED = """
    SELECT r.ok, r.chain_lamports - r.journal_lamports, r.chain_pix - r.journal_pix FROM ledger.reconciliations r
    WHERE NOT EXISTS (SELECT FROM ledger.orders o WHERE o.kind = 'correction' AND o.done_at >= r.at)
    ORDER BY r.id DESC LIMIT 1"""


def look(world: World) -> None:
    """One look at all that is stopped, and what can be done about it now."""
    own: Any = world.ground.operator
    approve(world)
    for stop in stops.in_force(own):
        own.commit()
        if stop.creator_id is None:
            VERBS.get(stop.reason, _wait)(world, stop)
        else:
            _end_hold(world, stop)
    own.commit()


def put_in_order(world: World) -> None:
    """Somebody has time in the midst of it all, and ends what they have understood."""
    own: Any = world.ground.operator
    approve(world)
    found = [each for each in stops.in_force(own) if each.creator_id is None]
    own.commit()
    if found:
        stop = world.rng.choice(found)
        VERBS.get(stop.reason, _wait)(world, stop)


def ask_about_open(world: World) -> None:
    """Have all that is open, and what was given up, ended by evidence."""
    for query in (OPEN_BATCHES, GIVEN_UP):
        for (batch,) in world.ground.rows(query):
            _ask(world, batch)


def ask_for_any(world: World) -> None:
    """A wish that comes at any time, whether it is sensible or not."""
    rows = [*world.ground.rows(OPEN_BATCHES), *world.ground.rows(GIVEN_UP)]
    if rows:
        _ask(world, world.rng.choice(rows)[0])


def order_any(world: World) -> None:
    """An order that may be of use, may be refused, or may never be approved."""
    amount = world.rng.randint(1, 500)
    bodies: list[tuple[str, dict[str, Any]]] = [
        (orders.CORRECTION, _moved(amount, "reward_pool", "platform")),
        (orders.CORRECTION, _moved(amount, "reward_pool", f"payable:creator:{world.rng.choice(world.creators)}")),
        (orders.CORRECTION, _moved(10**15, "platform", "reward_pool")),
        (orders.WITHDRAWAL, {"signature": "1" * 88, "from": "platform", "pix": 1, "lamports": 0}),
        (orders.SECRET, {}),
        (orders.ADOPT, {"since_slot": 0}),
    ]
    kind, body = world.rng.choice(bodies if world.rng.random() < 0.3 else bodies[:4])
    _place(world, kind, body)


def approve(world: World) -> None:
    """The second administrator approves what waits, where two are wanted."""
    own: Any = world.ground.operator
    if world.climate.by_two:
        rows = world.ground.rows(
            "SELECT id FROM ledger.orders WHERE done_at IS NULL AND approved_by IS NULL ORDER BY id"
        )
        for (number,) in rows:
            try:
                orders.approve(own, world.ground.keys[1], number)
                own.commit()
            except Rejected:  # it has expired meanwhile
                own.rollback()


# ── Ways out of a freeze ───────────────────────────────────────────────────────────────────────────────────────────


def _wait(_: World, __: Stop) -> None:
    """It ends by itself."""


def _release(world: World, stop: Stop) -> None:
    own: Any = world.ground.operator
    stops.release(own, stop.name, BY)
    own.commit()
    world.truth.events["released"] += 1


def _end_unknown(world: World, stop: Stop) -> None:
    """Each unknown transaction is somebody's: a withdrawal, one that was given up, or one that a restore has forgotten."""
    rows = world.ground.rows(UNKNOWN)
    for signature, batch in rows:
        if batch is not None:
            _ask(world, batch)
        elif signature in world.truth.withdrawn:
            _withdraw(world, signature)
        elif not _is_in_force(world, adoption.RESTORED):
            _place_once(world, orders.ADOPT, {"since_slot": 0})
    if not rows:
        _release(world, stop)


def _withdraw(world: World, signature: str) -> None:
    pix, lamports = world.ground.rows(
        "SELECT -delta_pix, -delta_lamports FROM ledger.chain_transactions WHERE signature = %s", signature
    )[0]
    payer = world.rng.choice(("platform", "reward_pool", "reward_pool", "reward_pool"))
    _place_once(world, orders.WITHDRAWAL, {"signature": signature, "from": payer, "pix": pix, "lamports": lamports})


def _end_mismatch(world: World, stop: Stop) -> None:
    """Once the journal and the chain agree again. What has come without a transaction is a person's to explain: that, to the
    last lamport, and no other difference.
    """
    if world.ground.rows(UNKNOWN):
        return
    rows = world.ground.rows(COMPARED)
    if rows and rows[0][0]:
        _release(world, stop)
    elif rows and rows[0][2] == 0 and rows[0][1] == world.left_by_tampering() != 0:
        more = rows[0][1]
        given, taken = ("platform", "chain") if more > 0 else ("chain", "platform")
        _place_once(world, orders.CORRECTION, _moved(abs(more), taken, given, "SOL"))


def _end_paid_unknown(world: World, stop: Stop) -> None:
    """What the batch may repeat is resolved first, then the batch itself."""
    about = json.loads(stop.detail)
    named = [*about.get("given_up", ()), *([about["batch"]] if "batch" in about else ())]
    waiting = [batch for batch in named if _is_open(world, batch)]
    for batch in waiting:
        _ask(world, batch)
    if not waiting:
        _release(world, stop)


def _end_otherwise(world: World, stop: Stop) -> None:
    batch = json.loads(stop.detail)["batch"]
    if _is_open(world, batch):
        _ask(world, batch)
    else:
        _release(world, stop)


def _end_not_signed(world: World, stop: Stop) -> None:
    world.refuses_to_sign = False
    _release(world, stop)


def _end_frozen(world: World, stop: Stop) -> None:
    nature.set_frozen(world, world.treasury.payer.token_account, frozen=False)
    _release(world, stop)


def _end_lost_ids(world: World, stop: Stop) -> None:
    """The secret is found, or it is ordered that there is another one."""
    if world.is_secret_found:
        world.find_secret()
        _release(world, stop)
    else:
        _place_once(world, orders.SECRET, {})


VERBS: Mapping[str, Callable[[World, Stop], None]] = {
    reconcile.UNKNOWN: _end_unknown,
    reconcile.MISMATCH: _end_mismatch,
    settling.LANDED_LATE: _release,
    settling.IN_VAIN: _release,
    PAID_UNKNOWN: _end_paid_unknown,
    PAID_TWICE: _release,
    OTHERWISE: _end_otherwise,
    signing.NOT_SIGNED: _end_not_signed,
    signing.TREASURY_FROZEN: _end_frozen,
    IDS_LOST: _end_lost_ids,
}


def _end_hold(world: World, stop: Stop) -> None:
    """Somebody has looked, and what it was for is over; a wallet that cannot be paid is the creator's to change."""
    if stop.reason.startswith(wallets.UNPAYABLE):
        return
    if stop.reason.startswith(ONE_ACCOUNT):
        assert stop.creator_id is not None
        world.open_account(stop.creator_id)
    _release(world, stop)


# ── Verbs ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _ask(world: World, batch: str) -> None:
    own: Any = world.ground.operator
    try:
        resolutions.ask(own, batch, BY)
        own.commit()
        world.truth.events["asked"] += 1
    except Rejected:  # it has ended
        own.rollback()


def _place(world: World, kind: str, body: dict[str, Any]) -> None:
    own: Any = world.ground.operator
    orders.place(own, world.ground.keys[0], kind, body, "in the simulation", LIVES_S)
    own.commit()
    world.truth.events[f"order to {kind}"] += 1


def _place_once(world: World, kind: str, body: dict[str, Any]) -> None:
    """Unless one of the kind waits for the ledger, or for a second administrator."""
    open_ones = world.ground.rows(
        "SELECT count(*) FROM ledger.orders WHERE kind = %s AND done_at IS NULL AND expires_at > sim.now()"
        " AND (kind <> 'withdrawal' OR body->>'signature' = %s)",
        kind, body.get("signature", ""),
    )[0][0]  # fmt: skip
    if not open_ones:
        _place(world, kind, body)


def _moved(amount: int, taken: str, given: str, asset: str = "PIX") -> dict[str, Any]:
    return {"from": taken, "to": given, "amount": amount, "asset": asset}


def _is_open(world: World, batch: str) -> bool:
    """Whether a batch has no end, or one of its transactions was given up and may still guard or have landed."""
    rows = world.ground.rows(
        "SELECT b.ended_at IS NULL, EXISTS (SELECT FROM ledger.attempts a WHERE a.batch_id = b.id AND a.state = 'expired')"
        " AND NOT EXISTS (SELECT FROM ledger.resolutions r WHERE r.batch_id = b.id AND r.ended AND r.asked_at >= b.ended_at)"
        " FROM ledger.batches b WHERE b.id = %s",
        batch,
    )
    return bool(rows) and any(rows[0])


def _is_in_force(world: World, reason: str) -> bool:
    return bool(world.ground.rows("SELECT 1 FROM ledger.freezes WHERE reason = %s AND released_at IS NULL", reason))
