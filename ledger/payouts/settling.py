"""Settling: end attempts by final transactions: post the transfers if one succeeded, give the money back if it failed.

Bytes that never landed are given up as expired only if the rail has proof that they never will (see `Rail.expired`).
Without that proof, both they and the bytes that are signed in their place could land, and we would pay twice.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from ledger.journal import book
from ledger.payouts import batches, planning, signing
from ledger.payouts.batches import Attempt, Batch
from ledger.payouts.rail import PAID_UNKNOWN, UNREACHABLE, Rail
from ledger.risk import stops
from ledger.solana.chain import Effect
from ledger.solana.verdict import Fault

log = logging.getLogger(__name__)

LANDED_LATE = "a transaction that was given up has landed: a node cannot be trusted"


def settle(rail: Rail) -> None:
    """End every attempt whose end is certain, each in its own commit.

    If an attempt that was given up has ended after all, only that one is booked; all others wait for the next round.
    """
    live, given_up = batches.live_attempts(rail.connection), batches.expired_attempts(rail.connection)
    rail.connection.commit()
    if not live and not given_up:
        return
    seen = rail.look([*given_up, *live])
    for attempt in given_up:
        effect = rail.outcome(attempt, seen)
        if effect is not None and _revive(rail, attempt, effect, live):
            return  # what was read of the others may be about the same batch
    unseen = [attempt for attempt in live if _is_unseen(rail, attempt, seen)]
    for attempt in rail.expired(unseen) if unseen else ():
        batches.expire(rail.connection, attempt)
        book.commit(rail.connection)
        log.info("attempt expired", extra={"batch": attempt.batch.id, "n": attempt.n})


def _is_unseen(rail: Rail, attempt: Attempt, seen: Any) -> bool:
    """Book the attempt's end if it has one; else return whether all nodes that answered do not know the attempt.

    Returns:
        False if the end was booked, or cannot be booked now.
    """
    try:
        effect = rail.outcome(attempt, seen)
        if effect is not None:
            _end(rail, attempt, effect)
            return False
    except UNREACHABLE as error:  # of one attempt; the others are settled
        rail.connection.rollback()
        log.warning("an attempt cannot be settled now: %s", error, extra={"batch": attempt.batch.id})
        return False
    return rail.is_unseen(attempt, seen)


def _end(rail: Rail, attempt: Attempt, effect: Effect) -> None:
    """Book the end of one attempt in one commit: its state, its money and its cost.

    If it did something else than its batch says, payouts are frozen instead.
    """
    if effect.error is not None:
        _fail(rail, attempt, effect)
    elif not is_as_planned(rail, attempt.batch, effect):
        reason = "a transaction did something else than was signed"
        stops.freeze(rail.connection, reason, proof_of(attempt, effect))
    else:
        batches.land(rail.connection, attempt, effect.slot, effect.fee)
        book_landed(rail, attempt, effect)
    book.commit(rail.connection)


def is_as_planned(rail: Rail, batch: Batch, effect: Effect) -> bool:
    """Whether a transaction that succeeded moved exactly what its batch was to move."""
    if batch.kind != "payout":
        return all(change == 0 for change in effect.tokens.values())
    source = rail.source_address
    if any(each.address == source for each in batch.recipients):
        return False  # planned by a release that let it in: less has left than the plan says
    wanted = {source: -batch.amount_pix}
    for each in batch.recipients:
        wanted[each.address] = wanted.get(each.address, 0) + each.amount
    return {address: change for address, change in effect.tokens.items() if change} == wanted


def _fail(rail: Rail, attempt: Attempt, effect: Effect) -> None:
    """Book that an attempt failed. It moved nothing, so its money goes back once no other attempt of its batch can pay.

    If the error is about the batch's own marker, it proves that another attempt has paid.
    """
    batch, fault = attempt.batch, rail.fault(attempt, effect)
    if fault is Fault.MARKER:
        if attempt.n == 1:  # else an earlier attempt has paid: it is found among those given up
            stops.freeze(rail.connection, PAID_UNKNOWN, proof_of(attempt, effect))
        return
    if fault is Fault.LINEAGE and batches.lineage(rail.connection, [batch.id])[batch.id]:  # else it was a stranger's
        signing.freeze_lineage(rail.connection, batch, proof_of(attempt, effect))
        return
    if not rail.may_give_back(batch, effect.slot):
        return
    is_recipients = fault is Fault.RECIPIENT and not rail.is_blocked()
    is_gone = is_recipients and rail.forget_gone(batch)
    batches.fail(rail.connection, attempt, effect.slot, effect.fee, effect.error)
    proof = proof_of(attempt, effect)
    planning.give_back(rail, batch, f"fail:{attempt.signature}", rail.cost_lines(effect), proof)
    if is_recipients and not is_gone:
        planning.take_apart(rail, batch, f"the transaction failed: {effect.error}")


# ── Given up, and landed all the same ──────────────────────────────────────────────────────────────────────────────


def _revive(rail: Rail, attempt: Attempt, effect: Effect, live: Sequence[Attempt]) -> bool:
    """Freeze payouts, and book an attempt that was given up and is final after all.

    If the attempt has paid, later attempts of its batch (`live` has them) must end first. They can only fail, at the
    marker. Returns False, without booking the attempt, while a later one may still land, or if a later one has paid as
    well (possible only without markers): that one is settled first. A later attempt that can never land is given up
    without checking the marker, since the first attempt has made it.
    """
    stops.freeze(rail.connection, LANDED_LATE, proof_of(attempt, effect))
    # And before nodes are asked: what is written meanwhile would keep the fold waiting.
    book.commit(rail.connection)
    rivals = [each for each in live if each.batch.id == attempt.batch.id and effect.error is None]
    ends = [(rival, rail.effect(rival)) for rival in rivals]
    over = {rival.signature for rival, ended in ends if ended is None and rail.may_expire_with_batch(rival)}
    for rival, ended in ends:
        if rival.signature in over:
            batches.expire(rail.connection, rival)
            continue
        if ended is None or ended.error is None:
            book.commit(rail.connection)
            return False
        batches.fail_attempt(rail.connection, rival, ended.slot, ended.fee, ended.error)
        book_cost(rail, rival, ended)
    batches.revive(rail.connection, attempt, effect.slot, effect.fee, effect.error)
    if effect.error is None:
        book_landed(rail, attempt, effect)
    else:
        book_cost(rail, attempt, effect)
    book.commit(rail.connection)
    return True


# ── Entries ────────────────────────────────────────────────────────────────────────────────────────────────────────


def book_landed(rail: Rail, attempt: Attempt, effect: Effect) -> None:
    """Post the transfers of a batch that has landed, book its cost, and store what it has made on the rail."""
    batch, lines = attempt.batch, rail.cost_lines(effect)
    if batch.kind == "payout":
        in_flight, chain = book.account(rail.connection, "in_flight"), book.account(rail.connection, "chain")
        lines = [(in_flight, -batch.amount_pix), (chain, batch.amount_pix), *lines]
    key, kind = f"settle:{attempt.signature}", f"{batch.kind}_settled"
    entry = planning.post(rail.connection, key, kind, lines, proof_of(attempt, effect))
    if batch.kind == "payout":
        assert entry is not None  # it has lines
        batches.end_transfers(rail.connection, batch, "posted", entry.id)
        batches.received(rail.connection, batch)
    rail.note_made(batch)


def book_cost(rail: Rail, attempt: Attempt, effect: Effect) -> None:
    """Book only the cost of an attempt, for a batch that goes on or has ended in another way."""
    key, kind = f"fail:{attempt.signature}", f"{attempt.batch.kind}_late"
    planning.post(rail.connection, key, kind, rail.cost_lines(effect), proof_of(attempt, effect))


def proof_of(attempt: Attempt, effect: Effect) -> dict[str, Any]:
    """Return the details of a transaction, to be stored as proof with an entry or a freeze."""
    proof = {"batch": attempt.batch.id, "signature": attempt.signature, "slot": effect.slot, "fee": effect.fee}
    return proof | ({"error": effect.error} if effect.error is not None else {})
