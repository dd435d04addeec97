"""Trials: what a batch would do on chain, before it is signed: can the treasury pay for it, and would it succeed?

Simulations run at the same time, spread over the nodes. A batch is believed to fail only if every node that answers
reports that; then the error tells whether a recipient is at fault. Builds the instructions of each kind of batch; signs
nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from solders.pubkey import Pubkey
from solders.transaction import VersionedTransaction

from ledger.journal import book
from ledger.payouts import batches, planning, signing
from ledger.payouts.batches import Batch
from ledger.payouts.rail import PAID_UNKNOWN, UNREACHABLE, ChainRail, Prepared
from ledger.risk import stops
from ledger.settings import PPM
from ledger.solana import packing, verdict
from ledger.solana.chain import ACCOUNT_FROZEN, ACCOUNT_STATE_AT, Account, Simulation
from ledger.solana.packing import Instruction
from ledger.solana.verdict import Fault

log = logging.getLogger(__name__)

TREASURY_FROZEN = "the treasury's token account is frozen on chain"
UNITS_BESIDE = 300  # compute units of room beside the margin: instructions that set limits cost 150 each

# ── Can the treasury pay? ──────────────────────────────────────────────────────────────────────────────────────────


def affordable(rail: ChainRail, waiting: Sequence[Batch]) -> list[Batch]:
    """Return the batches that the treasury can pay for. A batch that is too expensive does not hold up the others."""
    addresses = [rail.treasury.token_account, str(rail.treasury.payer.gas)]
    tokens, gas = rail.chain.seen_accounts(addresses, opinions=rail.opinions)
    if _is_frozen(rail, tokens):
        book.commit(rail.connection)
        return []
    # By the node that says most: what is signed for too much fails and costs a fee, while one that says less than
    # there is would keep everybody waiting.
    pix = max(int.from_bytes(each.data[64:72], "little") if each else 0 for each in tokens)
    lamports = max(each.lamports if each else 0 for each in gas)
    for attempt in batches.live_attempts(rail.connection):  # neither is gone from what was read, which is finalized
        pix -= attempt.batch.amount_pix
        lamports -= _cost_lamports(rail, attempt.batch)
    taken = []
    for batch in waiting:
        if pix < batch.amount_pix or lamports < _cost_lamports(rail, batch):
            log.warning("the treasury is short", extra={"batch": batch.id, "pix": pix, "lamports": lamports})
            continue
        pix -= batch.amount_pix
        lamports -= _cost_lamports(rail, batch)
        taken.append(batch)
    return taken


def _cost_lamports(rail: ChainRail, batch: Batch) -> int:
    return rail.treasury.cost_lamports(batch.kind, len(batch.recipients))


def is_blocked(rail: ChainRail) -> bool:
    """Return whether the treasury's token account is frozen, by its state now; if so, freeze payouts.

    To be called before a recipient is blamed.
    """
    address = rail.treasury.token_account
    (seen,) = rail.chain.seen_accounts([address], "confirmed", opinions=rail.opinions)
    return _is_frozen(rail, seen)


def _is_frozen(rail: ChainRail, seen: Sequence[Account | None]) -> bool:
    """Whether every node that answers reports the treasury's token account as frozen; if so, freeze payouts.

    `seen` is the account as each node returns it.
    """
    frozen = bytes([ACCOUNT_FROZEN])
    if any(each is None or each.data[ACCOUNT_STATE_AT : ACCOUNT_STATE_AT + 1] != frozen for each in seen):
        return False
    about = {"account": rail.treasury.token_account, "hint": "have the mint's authority thaw it, then release this"}
    stops.freeze(rail.connection, TREASURY_FROZEN, about)
    return True


# ── Would it succeed? ──────────────────────────────────────────────────────────────────────────────────────────────


def simulated(rail: ChainRail, waiting: Sequence[Batch]) -> list[Prepared]:
    """Return the batches that would succeed, with instructions and a limit of compute units; handle the others."""
    built = build(rail, waiting)
    waiting = [each for each in waiting if each.id in built]
    raws = [rail.treasury.unsigned(built[each.id]) for each in waiting]
    slot = batches.opened_slot(rail.connection, [each.address for batch in waiting for each in batch.recipients])
    simulations = rail.chain.simulate_all(raws, slot)
    prepared = []
    for batch, raw, simulation in zip(waiting, raws, simulations, strict=True):
        units: int | None = simulation.units
        if simulation.error is not None:
            units = _judge(rail, batch, raw, len(built[batch.id]), slot)
        if units is not None:
            limit = units + units * rail.settings.compute_margin_ppm // PPM + UNITS_BESIDE
            prepared.append(Prepared(batch, (built[batch.id], min(limit, packing.COMPUTE_UNITS_MAX))))
    return prepared


def _judge(rail: ChainRail, batch: Batch, raw: bytes, built: int, slot: int) -> int | None:
    """Do `_asked_again`; return None also if the nodes cannot be asked now."""
    try:
        return _asked_again(rail, batch, raw, built, slot)
    except UNREACHABLE as error:  # of one batch; the others go on
        log.warning("a batch cannot be judged now: %s", error, extra={"batch": batch.id})
        return None


def _asked_again(rail: ChainRail, batch: Batch, raw: bytes, built: int, slot: int) -> int | None:
    """Ask every node about a batch that one node reports would fail.

    Returns the compute units if any node reports that it would succeed. Otherwise handles the failure (`_would_fail`),
    if enough nodes answer, and returns None. To sign the batch is safe, whatever has landed before, since the marker
    then makes the new transaction fail. To give it back is not, and needs the same report from every node that answers.

    Args:
        rail: the treasury and the nodes.
        batch: the batch that would fail.
        raw: its unsigned transaction.
        built: how many instructions the batch consists of, those of markers included.
        slot: the slot that a node must have reached to be asked.
    """
    simulations = rail.chain.simulations(raw, slot)
    units = next((each.units for each in simulations if each.error is None), None)
    if units is None and len(simulations) >= rail.opinions:
        limits = verdict.limits_of(VersionedTransaction.from_bytes(raw))
        _would_fail(rail, batch, simulations, limits, built - len(batch.recipients))
    return units


def _would_fail(rail: ChainRail, batch: Batch, simulations: Sequence[Simulation], limits: int, guards: int) -> None:
    """Handle a batch that fails on every node: give it back if a recipient is at fault; else freeze payouts, or wait.

    Args:
        rail: the treasury and the nodes.
        batch: the batch.
        simulations: what each node reports.
        limits: how many of its instructions set limits; they come first.
        guards: how many instructions guard with markers; they come next.
    """
    faults = {verdict.of(each.error, batch.kind, guards, limits) for each in simulations}
    about: dict[str, Any] = {"batch": batch.id, "errors": [str(each.error) for each in simulations]}
    if faults == {Fault.LINEAGE}:
        signing.freeze_lineage(rail.connection, batch, about)
    if faults == {Fault.MARKER} and not batch.attempts:  # of one with attempts `settle` will find which has landed
        stops.freeze(rail.connection, PAID_UNKNOWN, about)
    book.commit(rail.connection)
    if faults != {Fault.RECIPIENT} or rail.is_blocked():
        book.commit(rail.connection)
        log.warning("a batch cannot be signed now", extra=about)
        return
    if not rail.may_give_back(batch, min(each.slot for each in simulations)):
        return
    log.warning("batch would fail", extra=about)
    error, is_gone = simulations[0].error, rail.forget_gone(batch)
    batches.cancel(rail.connection, batch)
    planning.give_back(rail, batch, f"void:{batch.id}", [], {"batch": batch.id, "error": error})
    if not is_gone:
        planning.take_apart(rail, batch, f"the chain refuses it: {error}")
    book.commit(rail.connection)


# ── What it consists of ────────────────────────────────────────────────────────────────────────────────────────────


def build(rail: ChainRail, waiting: Sequence[Batch]) -> dict[str, list[Instruction]]:
    """Map each batch's id to its instructions; plan a batch again if it does not fit beside its lineage's markers."""
    lineage = batches.lineage(rail.connection, [each.id for each in waiting]) if rail.settings.marker_accounts else {}
    built: dict[str, list[Instruction]] = {}
    for batch in waiting:
        above = lineage.get(batch.id, [])
        if len(batch.recipients) <= rail.treasury.capacity(batch.kind, len(above)):
            built[batch.id] = [*guards_of(rail, batch, above), *instructions_of(rail, batch)]
        else:  # of an earlier release or another version, or planned before what guards it was given up
            signing.call_back(rail, batch, set())
    book.commit(rail.connection)
    return built


def guards_of(rail: ChainRail, batch: Batch, lineage: Sequence[str]) -> list[Instruction]:
    """Return instructions that let a transaction fail whole if its batch, or one whose payouts it may repeat, was paid.

    The markers of these earlier batches (`lineage` has the ids) are made and emptied at once, which fails if one
    exists. If `marker_accounts` is off, nothing guards: a payout only gets a memo that makes it unique.
    """
    payer = rail.treasury.payer
    if batch.kind != "payout":
        return []
    if not rail.settings.marker_accounts:
        return [packing.memo(batch.id)]  # equal bytes would be one and the same transaction
    above = [rail.treasury.marker(each) for each in lineage]
    checks = [make(payer, marker) for marker in above for make in (packing.create_marker, packing.reclaim_marker)]
    return [*checks, packing.create_marker(payer, rail.treasury.marker(batch.id))]


def instructions_of(rail: ChainRail, batch: Batch) -> list[Instruction]:
    """Return a batch's own instructions, one for each recipient."""
    payer = rail.treasury.payer
    if batch.kind == "accounts":
        return [packing.open_account(payer, Pubkey.from_string(each.wallet)) for each in batch.recipients]
    if batch.kind == "reclaim":
        markers = [(rail.treasury.marker(each.wallet), each.amount) for each in batch.recipients]
        return [packing.reclaim_marker(payer, replace(marker, lamports=held)) for marker, held in markers]
    return [packing.pay(payer, Pubkey.from_string(each.address), each.amount) for each in batch.recipients]
