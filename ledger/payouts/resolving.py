"""Resolving: on a person's request, end by evidence a batch that the ledger would never end by itself.

The evidence is what finalized transactions did, reported by as many nodes as are needed to end a payout. It is booked
recipient by recipient: what a recipient received counts as paid, and the rest goes back to where it came from. If the
evidence is not enough, nothing is booked and the answer says what is missing.

A request may also name a batch that has ended, if one of its transactions was given up (see `batches.lineage`). If that
transaction has landed nevertheless, what its recipients got is taken from what they are owed. If instead a stranger has
paid for the batch's marker, the marker no longer guards payouts; for this it is not enough that nodes do not know the
transaction.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from cluster.errors import Rejected
from ledger.journal import book
from ledger.payouts import batches, planning, resolutions, settling
from ledger.payouts.batches import Attempt, Batch, Payout
from ledger.payouts.rail import UNREACHABLE, Rail, not_proven
from ledger.risk import stops
from ledger.solana.chain import Effect

log = logging.getLogger(__name__)

Effects = Mapping[str, Effect | None]  # what each attempt did, by its name; None where it has not ended

LANDED_BESIDE = "landed beside another one of its batch"
PAID_TWICE = "creators were paid what they were not owed: it is the platform's loss"


def resolve(rail: Rail) -> None:
    """Carry out each waiting request and answer it, each in its own transaction."""
    waiting = resolutions.waiting(rail.connection)
    rail.connection.commit()
    for request in waiting:
        evidence: dict[str, Any] = {"nodes": rail.opinions, "attempts": {}}
        batch = batches.one(rail.connection, request.batch_id)
        try:
            with rail.connection.transaction():
                outcome = _end_by_evidence(rail, batch, evidence)
            ended = True
        except Rejected as refusal:
            outcome, ended = str(refusal), False
        except UNREACHABLE as error:  # of one request, which waits; the others are carried out
            log.warning("a batch cannot be ended now: %s", error, extra={"batch": request.batch_id})
            continue
        resolutions.answer(rail.connection, request.id, ended, outcome, evidence)
        book.commit(rail.connection)
        log.warning("a batch was asked to be ended by evidence", extra={"batch": request.batch_id, "outcome": outcome})


def _end_by_evidence(rail: Rail, batch: Batch, evidence: dict[str, Any]) -> str:
    """End one batch. Returns a description of what was done.

    Raises:
        Rejected: the evidence is not enough; the message says what is missing.
    """
    if batch.state in ("planned", "signed"):
        return _weigh(rail, batch, evidence)()
    attempts = batches.open_attempts(rail.connection, batch.id)
    if not attempts:
        return f"it had ended by itself: it is {batch.state}"
    return _end_given_up(rail, batch, attempts, evidence)


def _weigh(rail: Rail, batch: Batch, evidence: dict[str, Any], *, alone: bool = False) -> Callable[[], str]:
    """Decide how to end a batch that has not ended. Returns the function that books the end and describes what it did.

    Nodes are asked here; nothing is written before the returned function is called. With `alone`, the lineage of the
    batch (the batches whose payouts it may repeat) is not checked.
    """
    attempts = batches.open_attempts(rail.connection, batch.id)
    effects = _effects(rail, attempts, evidence)
    landed = _landed(attempts, effects)
    if landed is not None:
        return partial(_book_landed, rail, landed, attempts, effects)
    if not alone:
        _require_lineage_unpaid(rail, batch, evidence)
    height = rail.require_expired(batch, _without_effect(attempts, effects))
    rail.require_strangers(batch, evidence, held=rail.marker_lamports(batch))
    return partial(_book_never, rail, batch, attempts, effects, height)


def _effects(rail: Rail, attempts: Sequence[Attempt], evidence: dict[str, Any]) -> Effects:
    """Ask nodes what each attempt did, and add the answers to the evidence."""
    effects = {each.signature: rail.effect(each) for each in attempts}
    evidence["attempts"] |= {
        name: None if effect is None else {"slot": effect.slot, "error": effect.error, "tokens": dict(effect.tokens)}
        for name, effect in effects.items()
    }
    return effects


# ── It has landed ──────────────────────────────────────────────────────────────────────────────────────────────


def _book_landed(rail: Rail, attempt: Attempt, attempts: Sequence[Attempt], effects: Effects) -> str:
    """Book a transaction that has landed; end its batch's other live attempts. Returns what was done, in words."""
    effect = effects[attempt.signature]
    assert effect is not None
    for rival in attempts:
        if rival.signature != attempt.signature and rival.state == "live":
            _end_rival(rail, rival, effects[rival.signature])
    received = _received(rail, attempt.batch, effect)
    if attempt.state == "expired":
        batches.revive(rail.connection, attempt, effect.slot, effect.fee, None)
    else:
        batches.land(rail.connection, attempt, effect.slot, effect.fee)
    if attempt.batch.kind != "payout" or all(each.amount_pix == amount for each, amount in received):
        settling.book_landed(rail, attempt, effect)
        return f"transaction {attempt.signature} has landed at slot {effect.slot}: booked as it was planned"
    _post_received(rail, attempt, effect, received)
    other_amounts = sum(each.amount_pix != amount for each, amount in received)
    return f"transaction {attempt.signature} has landed at slot {effect.slot}; {other_amounts} recipients got another amount"


def _end_rival(rail: Rail, rival: Attempt, effect: Effect | None) -> None:
    """Book the failure of another live attempt (`rival`) of a batch that has landed.

    Raises:
        Rejected: the rival has not ended yet.
    """
    if effect is None:
        raise not_proven(f"transaction {rival.signature} of the same batch may still land")
    batches.fail_attempt(rail.connection, rival, effect.slot, effect.fee, effect.error)
    settling.book_cost(rail, rival, effect)


def _received(rail: Rail, batch: Batch, effect: Effect) -> list[tuple[Payout, int]]:
    """Return each payout with the base units that its recipient got; their sum must be what the treasury lost."""
    if batch.kind != "payout":
        return []
    source = rail.source_address
    address_of = {each.creator_id: each.address for each in batch.recipients}
    by_address: dict[str, list[Payout]] = {}
    for each in batches.payouts_of(rail.connection, batch):
        by_address.setdefault(address_of[each.creator_id], []).append(each)
    received: list[tuple[Payout, int]] = []
    for address, payouts in by_address.items():
        got = 0 if address == source else effect.tokens.get(address, 0)
        is_whole = got == sum(each.amount_pix for each in payouts)
        if not is_whole and (got < 0 or (got and len(payouts) > 1)):
            raise not_proven(f"account {address} of {len(payouts)} recipients changed by {got}")
        received += [(each, each.amount_pix if is_whole else got) for each in payouts]
    spent = -effect.tokens.get(source, 0)
    if spent != sum(amount for _, amount in received):
        raise not_proven(f"the treasury lost {spent}, recipients of the batch got another sum")
    return received


def _post_received(rail: Rail, attempt: Attempt, effect: Effect, received: Sequence[tuple[Payout, int]]) -> None:
    """Post what each recipient got as paid; give the rest back to where it came from."""
    planned, spent = sum(each.amount_pix for each, _ in received), sum(amount for _, amount in received)
    lines = [(book.account(rail.connection, "in_flight"), -planned)]
    lines += [(book.account(rail.connection, "chain"), spent)] if spent else []
    lines += [(each.source, each.amount_pix - got) for each, got in received if got != each.amount_pix]
    lines += rail.cost_lines(effect)
    proof = settling.proof_of(attempt, effect)
    entry = planning.post(rail.connection, f"resolve:{attempt.signature}", "payout_resolved", lines, proof)
    assert entry is not None
    batches.end_each(rail.connection, received, entry.id)
    rail.note_made(attempt.batch)


# ── It never has ───────────────────────────────────────────────────────────────────────────────────────────────


def _book_never(rail: Rail, batch: Batch, attempts: Sequence[Attempt], effects: Effects, height: int) -> str:
    """Cancel a batch; none of its transactions may have landed or may still land. Returns what was done, in words."""
    for attempt in attempts:
        effect = effects[attempt.signature]
        if effect is not None:
            _book_failed(rail, attempt, effect)
        elif attempt.state == "live":
            batches.expire(rail.connection, attempt)
    batches.unsign(rail.connection, batch)
    batches.cancel(rail.connection, batch)
    planning.give_back(rail, batch, f"resolve:{batch.id}", [], {"batch": batch.id, "height": height})
    return f"nothing of it has landed or can at height {height}: what was to be paid is due again"


def _book_failed(rail: Rail, attempt: Attempt, effect: Effect) -> None:
    """Book that an attempt failed, whether it was live or given up."""
    if attempt.state == "expired":
        batches.revive(rail.connection, attempt, effect.slot, effect.fee, effect.error)
    else:
        batches.fail_attempt(rail.connection, attempt, effect.slot, effect.fee, effect.error)
    settling.book_cost(rail, attempt, effect)


# ── It had ended ───────────────────────────────────────────────────────────────────────────────────────────────


def _require_lineage_unpaid(rail: Rail, batch: Batch, evidence: dict[str, Any]) -> None:
    """Require that no batch of the lineage has paid, that is, none whose payouts this batch may repeat.

    Only then may the money of this batch go back.
    """
    if not rail.settings.marker_accounts:
        return
    for number in batches.lineage(rail.connection, [batch.id])[batch.id]:
        above = batches.one(rail.connection, number)
        attempts = batches.open_attempts(rail.connection, number)
        has_landed = _landed(attempts, _effects(rail, attempts, evidence)) is not None
        if has_landed or rail.marker_lamports(above) > 0:
            raise not_proven(f"batch {number}, whose payouts it may repeat, is on chain: have that one resolved first")


def _end_given_up(rail: Rail, batch: Batch, attempts: Sequence[Attempt], evidence: dict[str, Any]) -> str:
    """Book what became of the given-up transactions of a batch that has ended. Returns a description of what was done.

    Raises:
        Rejected: the evidence is not enough, or nothing is left to book.
    """
    effects = _effects(rail, attempts, evidence)
    if batch.kind != "payout":
        return _book_unpaid(rail, batch, attempts, effects)
    has_paid = batches.has_landed(rail.connection, batch.id)
    landed, failed = _landed(attempts, effects), [each for each in attempts if effects[each.signature] is not None]
    if landed is not None and has_paid:
        raise not_proven("two transactions of the batch have landed")
    if landed is not None:
        return _book_late(rail, landed, attempts, effects, evidence)
    if has_paid:  # its marker is its own
        return _book_unpaid(rail, batch, attempts, effects)
    rail.require_expired(batch, _without_effect(attempts, effects))
    held = rail.marker_lamports(batch)
    rail.require_strangers(batch, evidence, held=held)
    if not held and not failed:
        raise not_proven("nothing of it has landed, and its marker keeps nobody from being paid")
    for each in failed:
        effect = effects[each.signature]
        assert effect is not None
        _book_failed(rail, each, effect)
    if not held:
        return "its transaction has failed: what it cost is booked"
    return "a stranger has paid for its marker: nothing of it has landed or can, and it guards no payout any more"


def _book_unpaid(rail: Rail, batch: Batch, attempts: Sequence[Attempt], effects: Effects) -> str:
    """Book the cost and new accounts of given-up transactions that paid nobody. Returns a description of what was done.

    At most one attempt of a batch is in state `landed`. If a second transaction has landed as well (for example one
    that opens the same accounts again), it did nothing new, and only its cost is booked.
    """
    ended = [each for each in attempts if effects[each.signature] is not None]
    if not ended:
        raise not_proven("nothing of it is on chain that is not booked")
    for each in ended:
        effect = effects[each.signature]
        assert effect is not None
        if effect.error is not None:
            _book_failed(rail, each, effect)
        elif batches.has_landed(rail.connection, batch.id):
            batches.revive(rail.connection, each, effect.slot, effect.fee, LANDED_BESIDE)
            settling.book_cost(rail, each, effect)
        else:
            batches.find_landed(rail.connection, each, effect.slot, effect.fee)
            settling.book_landed(rail, each, effect)
    return f"{len(ended)} of its transactions that were given up are on chain: what they cost and made is booked"


def _book_late(
    rail: Rail, attempt: Attempt, attempts: Sequence[Attempt], effects: Effects, evidence: dict[str, Any]
) -> str:
    """Book a transaction that landed after its batch had ended; what recipients got is taken from what they are owed.

    Open batches that would pay them again are ended first. What recipients got beyond what they were owed is the
    platform's loss; payouts are then frozen so that a person learns of it. Returns a description of what was done.
    """
    batch, effect = attempt.batch, effects[attempt.signature]
    assert effect is not None
    guarded = [batches.one(rail.connection, number) for number in batches.guarded_by(rail.connection, batch.id)]
    for end in [_weigh(rail, each, evidence, alone=True) for each in guarded]:
        end()
    received = _received(rail, batch, effect)
    for other in attempts:
        other_effect = effects[other.signature]
        if other_effect is not None and other_effect.error is not None:
            _book_failed(rail, other, other_effect)
    batches.find_landed(rail.connection, attempt, effect.slot, effect.fee)
    spent = sum(got for _, got in received)
    owed = [(each.source, min(got, book.balance(rail.connection, each.source))) for each, got in received]
    lost = spent - sum(amount for _, amount in owed)
    lines = [(source, -amount) for source, amount in owed if amount] + _loss_lines(rail, lost)
    lines += [(book.account(rail.connection, "chain"), spent)] if spent else []
    lines += rail.cost_lines(effect)
    proof = settling.proof_of(attempt, effect)
    planning.post(rail.connection, f"resolve:{attempt.signature}", "payout_resolved", lines, proof)
    batches.receive_late(rail.connection, received)
    rail.note_made(batch)
    how = "booked out of what its recipients are owed"
    if lost:
        stops.freeze(rail.connection, PAID_TWICE, proof | {"pix": lost})
        how += f", and {lost} which they were not owed as the platform's loss"
    return f"transaction {attempt.signature} had landed at slot {effect.slot}: {how}"


def _loss_lines(rail: Rail, lost: int) -> list[tuple[int, int]]:
    """Return postings that take a loss from the platform's account, and what exceeds that from the reward pool."""
    lines: list[tuple[int, int]] = []
    for kind in ("platform", "reward_pool"):
        account = book.account(rail.connection, kind)
        taken = min(lost, book.balance(rail.connection, account))
        lines += [(account, -taken)] if taken else []
        lost -= taken
    if lost:
        raise not_proven(f"{lost} was paid twice and neither platform nor reward_pool holds it: fund the pool")
    return lines


def _without_effect(attempts: Sequence[Attempt], effects: Effects) -> list[Attempt]:
    return [each for each in attempts if effects[each.signature] is None]


def _landed(attempts: Sequence[Attempt], effects: Effects) -> Attempt | None:
    """Return the attempt that has landed; None if none has.

    Raises:
        Rejected: several attempts have landed.
    """
    landed = [each for each in attempts if (did := effects[each.signature]) is not None and did.error is None]
    if len(landed) > 1:
        raise not_proven(f"{len(landed)} transactions of the batch have landed")
    return landed[0] if landed else None
