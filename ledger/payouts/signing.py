"""Signing and sending: planned batches are simulated, signed and committed; only then are their bytes sent.

All signatures of a round share one validity. The same bytes are sent again and again; a node's answer is a hint, never
a fact. Decides nothing about how a payout ends.

Batches that have waited since an earlier round are checked again. If a recipient was held, refused by the operator's
screening or given another wallet since then, the batch is given back and the other recipients are planned again. A
signed batch may have been sent already, so it is not given back: it ends as its transaction ends. If it was never sent,
as far as is known, it is not sent from then on.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from typing import Any

from psycopg import Connection

from cluster.errors import Rejected
from ledger.creators import wallets
from ledger.journal import book
from ledger.payouts import batches, planning
from ledger.payouts.batches import Batch
from ledger.payouts.rail import PAID_UNKNOWN, UNREACHABLE, Rail
from ledger.risk import screening, stops

log = logging.getLogger(__name__)

NOT_SIGNED = "the signer refuses to sign a payout"


def sign(rail: Rail, just_planned: Sequence[Batch] = ()) -> list[str]:
    """Sign planned batches, all with one validity, and commit. Nothing is sent here.

    `just_planned` are the batches of this round; their recipients are not checked again. Returns the attempts' names.
    """
    limit = rail.settings.batches_live_max - batches.signed_count(rail.connection)
    waiting = let_through(rail, batches.planned(rail.connection, max(limit, 0)), just_planned)
    prepared = rail.prepare(waiting) if waiting else []
    if not prepared:
        return []
    validity = rail.validity()
    signed: list[tuple[Batch, str, bytes]] = []
    for each in prepared:
        try:
            signature, raw = rail.sign_batch(each, validity)
        except Rejected as refusal:
            stops.freeze(rail.connection, NOT_SIGNED, {"batch": each.batch.id, "reason": str(refusal)})
            break
        signed.append((each.batch, signature, raw))
    stopped = batches.stopped(rail.connection, [batch.id for batch, _, _ in signed])  # while we signed
    known = batches.known(rail.connection, [signature for _, signature, _ in signed])
    if known:  # with the hash of a transaction that was given up, and its very bytes: for the next one
        log.warning("a blockhash was named that has been used already")
    signed = [each for each in signed if each[0].id not in stopped and each[1] not in known]
    batches.persist(rail.connection, signed, validity)
    book.commit(rail.connection)
    return [signature for _, signature, _ in signed]


def send(rail: Rail, just_signed: Collection[str] = ()) -> int:
    """Send the bytes of live attempts, and again after each interval until their end is known.

    `just_signed` are the attempts of this round; their recipients are not checked again. Returns how many were sent.
    """
    due = batches.due_to_send(rail.connection, rail.settings.resend_interval_s, just_signed)
    rail.connection.commit()
    if due:
        rail.submit([raw for _, raw in due])
        batches.sent(rail.connection, [signature for signature, _ in due])
        book.commit(rail.connection)
    return len(due)


# ── What has waited ────────────────────────────────────────────────────────────────────────────────────────────────


def let_through(rail: Rail, waiting: Sequence[Batch], just_planned: Sequence[Batch]) -> list[Batch]:
    """Return the batches that may still be paid as planned to all their recipients; give back the others. Commits.

    The recipients of batches in `just_planned` are not checked again.
    """
    fresh = {each.id for each in just_planned}
    older = [each for each in waiting if each.id not in fresh]
    planning.screen(
        rail,
        [screening.Recipient(each.creator_id, each.wallet, each.amount)
         for batch in older if batch.kind != "reclaim" for each in batch.recipients],
    )  # fmt: skip
    _hold_unpayable(rail, older)
    stopped = batches.stopped(rail.connection, [each.id for each in older])
    for batch in older:
        if batch.id in stopped:
            call_back(rail, batch, stopped[batch.id])
    book.commit(rail.connection)
    return [each for each in waiting if each.id not in stopped]


def _hold_unpayable(rail: Rail, older: Sequence[Batch]) -> None:
    """Hold creators whose planned payout goes to a wallet that cannot be paid.

    Earlier releases planned payouts without checking wallets.
    """
    named = {each.creator_id: each.wallet for batch in older if batch.kind != "reclaim" for each in batch.recipients}
    for creator_id, why in wallets.unpayable_of(rail.connection, named).items() if named else ():
        planning.hold_wallet(rail.connection, creator_id, named[creator_id], why)


def call_back(rail: Rail, batch: Batch, creators: set[int]) -> None:
    """Give back a batch in which these creators were stopped, and plan its other recipients again. Commits.

    If the batch was signed before, it waits until none of its transactions can land any more. If its marker is on chain
    although none of its transactions was ever signed, the database has forgotten that it was paid: then it waits for a
    person.
    """
    try:
        may_call_back = _may_call_back(rail, batch)
    except UNREACHABLE as error:  # of one batch; the others go on
        log.warning("a batch cannot be called back now: %s", error, extra={"batch": batch.id})
        return
    if not may_call_back:
        return
    log.warning("batch is called back", extra={"batch": batch.id, "creators": sorted(creators)})
    batches.cancel(rail.connection, batch)
    document = {"batch": batch.id, "stopped": sorted(creators)}
    planning.give_back(rail, batch, f"void:{batch.id}", [], document)
    planning.plan_again(rail, batch, [each for each in batch.recipients if each.creator_id not in creators])
    book.commit(rail.connection)  # before nodes are asked about the next one: the fold writes to the same journal


def _may_call_back(rail: Rail, batch: Batch) -> bool:
    """Whether none of the transactions that were signed for a batch has landed or can land.

    Freezes payouts if the batch's marker exists although nothing was ever signed for it.
    """
    if rail.may_give_back(batch):
        return True
    if not batch.attempts and rail.marker_lamports(batch) > 0:
        stops.freeze(rail.connection, PAID_UNKNOWN, {"batch": batch.id})
    return False


def freeze_lineage(connection: Connection[Any], batch: Batch, about: dict[str, Any]) -> None:
    """Freeze payouts until a person resolves this: a given-up batch that `batch` may repeat has a marker on chain.

    Either that batch has paid, or a stranger has paid for its marker.
    """
    given_up = batches.lineage(connection, [batch.id])[batch.id]
    stops.freeze(connection, PAID_UNKNOWN, about | {"given_up": given_up})
