"""Evidence: what the chain must report before an attempt is given up as expired, or a batch's money goes back.

If an attempt were given up too early, it and the one that is signed in its place could both land. So three things must
hold. The finalized height is past the last one at which the attempt can land. At a later slot no node that answers
knows the attempt, and enough nodes remember the whole time since it was signed. And the batch's marker does not exist.
Each function answers one question:

    expired                 which attempts may be given up, and their batches signed again? settling
    may_expire_with_batch   may an attempt be given up if its batch ends at the same time?  settling, adoption
    may_give_back           may a batch's money go back, to be planned again?               settling, signing, trials
    require_expired         may a person's request end a batch whose end is not known?      resolving

Decides nothing, writes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from solders.transaction import VersionedTransaction

from ledger.payouts import batches
from ledger.payouts.batches import Attempt, Batch
from ledger.payouts.rail import ChainRail, not_proven
from ledger.solana.chain import Look

DAY_S = 86_400
NAMED_MAX = 100  # transactions of strangers that the evidence names


def is_past_validity(attempt: Attempt, height: int) -> bool:
    """Whether an attempt is past its validity: by the finalized height, or so old that no chain accepts it.

    This alone proves no expiry, since the attempt may have landed before. Age counts, too, because the last valid
    height is only what nodes once reported, and an earlier release believed a single node. An attempt with a height
    that is never reached would otherwise stay open for ever.
    """
    return height > attempt.last_valid_block_height or attempt.age_s > batches.LINEAGE_DAYS * DAY_S


def expired(rail: ChainRail, unseen: Sequence[Attempt]) -> Iterator[Attempt]:
    """Yield the attempts that are proven to have expired: their batches may be signed again.

    The proof has three parts, in this order: the finalized height; the answers of nodes that have reached its slot;
    and, for each attempt just before it is yielded, the absence of its batch's marker. If markers are off (`[ledger]
    marker_accounts`), the first two are enough.

    Args:
        rail: the treasury and the nodes.
        unseen: live attempts that no node knew a moment ago.
    """
    height, slot = rail.chain.finalized_height(rail.opinions)
    past = [each for each in unseen if is_past_validity(each, height)]
    if not past:
        return
    looks = looks_since(rail, past, slot)
    for attempt in past:
        if nobody_knows(rail, attempt, looks) and not marker_exists(rail, attempt.batch, slot):
            yield attempt


def may_expire_with_batch(rail: ChainRail, attempt: Attempt) -> bool:
    """Whether an attempt is past its validity, and no node that was asked after that knows it (see `nobody_knows`).

    This is not enough to sign the batch again (see `expired`), since the marker is not checked: a transaction that has
    landed may have made it. So the caller must end the batch in the same database transaction.
    """
    height, slot = rail.chain.finalized_height(rail.opinions)
    return is_past_validity(attempt, height) and nobody_knows(rail, attempt, looks_since(rail, [attempt], slot))


def may_give_back(rail: ChainRail, batch: Batch, slot: int | None) -> bool:
    """Whether it is proven that no transaction of the batch has landed or can land. Only then may its money go back.

    If transactions of the batch were given up, all of this must hold:

    * The finalized height is past the validity of each.
    * They were signed `give_back_after_s` ago by the database's clock, since heights are only what nodes report.
    * Nobody knows them (`nobody_knows`), as reported by nodes that have reached that height's slot and `slot`.
    * The marker does not exist at `finalized`, as reported by nodes that have reached that height's slot.

    If none was given up, it is enough that the marker does not exist.

    Args:
        rail: the treasury and the nodes.
        batch: the batch whose money would go back.
        slot: the slot of the evidence that the batch cannot land as it is; None for the newest finalized slot.
    """
    if slot is None:
        _, slot = rail.chain.finalized_height(rail.opinions)
    given_up = [each for each in batches.expired_attempts(rail.connection) if each.batch.id == batch.id]
    if not given_up:
        return not marker_exists(rail, batch, slot)
    height, height_slot = rail.chain.finalized_height(rail.opinions)
    if not all(is_past_validity(each, height) for each in given_up) or not _is_long_ago(rail, given_up):
        return False
    looks = looks_since(rail, given_up, max(height_slot, slot))
    is_unknown = all(nobody_knows(rail, each, looks) for each in given_up)
    return is_unknown and not marker_exists(rail, batch, height_slot, "finalized")


def require_expired(rail: ChainRail, batch: Batch, open_ended: Sequence[Attempt]) -> int:
    """Require proof that the attempts `open_ended`, whose effect is not known, have not landed and never can.

    Returns:
        The finalized height that proves it.

    Raises:
        Rejected: that is not proven; the message says what is missing.
    """
    height, slot = rail.chain.finalized_height(rail.opinions)
    alive = [each for each in open_ended if not is_past_validity(each, height)]
    if alive:
        raise not_proven(f"transaction {alive[0].signature} may still land, until height is past its last one")
    if open_ended and not _is_long_ago(rail, open_ended):
        wait_s = rail.settings.give_back_after_s
        raise not_proven(f"its last transaction may still land: it was signed less than {wait_s:g} s ago")
    looks = looks_since(rail, open_ended, slot) if open_ended else []
    is_unknown = all(nobody_knows(rail, each, looks) for each in open_ended)
    if not is_unknown and not _marker_tells(rail, batch, open_ended, looks, slot):
        raise not_proven("nodes do not agree that its transactions never landed")
    return height


# ── What nodes remember ────────────────────────────────────────────────────────────────────────────────────────────


def _is_long_ago(rail: ChainRail, attempts: Sequence[Attempt]) -> bool:
    """Whether even the youngest attempt was signed at least `give_back_after_s` ago, whatever heights nodes report."""
    return min(each.age_s for each in attempts) >= rail.settings.give_back_after_s


def looks_since(rail: ChainRail, attempts: Sequence[Attempt], slot: int) -> list[Look]:
    """Ask nodes what they know of these attempts and how far back they remember; ignore answers from before `slot`."""
    looks = rail.chain.looks([each.signature for each in attempts], reach=True)
    return [look for look in looks if look.slot >= slot]


def nobody_knows(rail: ChainRail, attempt: Attempt, looks: Sequence[Look]) -> bool:
    """Whether enough nodes remember the whole time since the attempt was signed, and no node that answered knows it."""
    remembering = [look for look in looks if look.first_slot <= attempt.context_slot]
    return len(remembering) >= rail.opinions and all(look.statuses[attempt.signature] is None for look in looks)


# ── Markers on chain ───────────────────────────────────────────────────────────────────────────────────────────────


def marker_exists(rail: ChainRail, batch: Batch, slot: int, commitment: str = "confirmed") -> bool:
    """Whether any node reports that the batch's marker exists.

    Args:
        rail: the treasury and the nodes.
        batch: the batch of the marker; False for a batch that makes none.
        slot: the slot that a node must have reached for its "no" to count.
        commitment: the level at which nodes look: "confirmed" or "finalized". A marker that is only confirmed may still
            vanish.

    Returns:
        True if a node reports the marker, or, to be safe, if a node has not reached `slot`.
    """
    if batch.kind != "payout" or not rail.settings.marker_accounts:
        return False
    address = str(rail.treasury.marker(batch.id).address)
    answers = rail.chain.all_accounts([address], commitment, opinions=rail.opinions)
    return any(account is not None or seen_slot < slot for seen_slot, (account,) in answers)


def marker_lamports(rail: ChainRail, batch: Batch) -> int:
    """Return the lamports that the batch's marker holds at `finalized`, by the highest report; 0 if none knows it."""
    if batch.kind != "payout" or not rail.settings.marker_accounts:
        return 0
    address = str(rail.treasury.marker(batch.id).address)
    answers = rail.chain.all_accounts([address], opinions=rail.opinions)
    return max(account.lamports if account is not None else 0 for _, (account,) in answers)


def _marker_tells(rail: ChainRail, batch: Batch, attempts: Sequence[Attempt], looks: Sequence[Look], slot: int) -> bool:
    """Whether the absence of the marker proves that none of these attempts landed, even if nodes have forgotten them.

    Nodes forget transactions but not accounts. Each attempt would have made the batch's marker, and at `slot`, when
    none of them can land any more, the marker does not exist. Batches other than payouts need no marker, since they
    move no tokens. False if any node knows one of the attempts.
    """
    if any(look.statuses[each.signature] is not None for each in attempts for look in looks):
        return False
    if batch.kind != "payout":
        return True  # it moves no money, and may be done twice
    marker = rail.treasury.marker(batch.id).address
    make_it = all(marker in VersionedTransaction.from_bytes(each.raw).message.account_keys for each in attempts)
    return rail.settings.marker_accounts and make_it and not marker_exists(rail, batch, slot, "finalized")


def require_strangers(rail: ChainRail, batch: Batch, evidence: dict[str, Any], *, held: int) -> None:
    """Require that no transaction that names the batch's marker has moved the treasury's tokens.

    All that the marker holds must have been paid by transactions that nodes still know. Otherwise a transaction that
    nodes have forgotten has paid to it, and that may be one of ours. `evidence` also records whether the marker exists:
    it then no longer guards payouts (see `batches.lineage`).

    Args:
        rail: the treasury and the nodes.
        batch: the batch of the marker.
        evidence: gets the transactions, under the key "marker".
        held: the lamports that the marker holds.

    Raises:
        Rejected: that is not proven; the message says what is missing.
    """
    if batch.kind != "payout" or not rail.settings.marker_accounts:
        return
    address = str(rail.treasury.marker(batch.id).address)
    touched = rail.chain.touched(address, rail.opinions)
    if touched is None:
        raise not_proven(f"more transactions name the marker {address} than are read")
    evidence["marker"] = {
        "address": address,
        "stands": held > 0,
        "count": len(touched),
        "transactions": touched[:NAMED_MAX],
    }
    guarded = batches.of_other_batches(
        rail.connection, batch.id, touched
    )  # these name it to make sure that it does not exist
    brought = 0
    for signature in touched:
        if signature in guarded:
            continue
        effect = rail.chain.effect(signature, rail.opinions)
        if effect is None:
            raise not_proven(f"nodes do not agree on transaction {signature}, which names the marker")
        if effect.error is None and effect.tokens.get(rail.treasury.token_account, 0):
            raise not_proven(f"transaction {signature}, which is none of ours, has paid under the marker")
        brought += effect.lamports.get(address, 0) if effect.error is None else 0
    if held > brought:
        raise not_proven(f"the marker {address} is on chain, and no node says which transaction made it")
