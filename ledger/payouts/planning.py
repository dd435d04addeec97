"""Planning: puts what is due into batches and moves its money out of `payable`, in one transaction.

Missing token accounts are opened first, then payouts follow. A batch that the rail refuses is halved, and its halves
again, until the recipient at fault is alone in a batch; that creator is then held. Knows no signature and no chain.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from typing import Any

from psycopg import Connection

from cluster.errors import Temporary
from ledger.creators import wallets
from ledger.journal import book
from ledger.payouts import batches, owed
from ledger.payouts.batches import Batch, BatchLine
from ledger.payouts.owed import Due
from ledger.payouts.rail import Rail
from ledger.risk import screening, stops

log = logging.getLogger(__name__)


def plan(rail: Rail) -> list[Batch]:
    """Put what is due into batches, if it is payday: first those that open missing accounts, then payouts. Commits."""
    if not batches.is_payday(rail.connection, rail.economics):
        return []
    owed.fit(rail.connection, rail.economics.payout_min_pix, rail.first_payout_min_pix)
    wallets.release_mended(rail.connection, owed.wake(rail.connection))
    book.commit(rail.connection)
    room = rail.settings.batches_live_max - batches.live_count(rail.connection)
    planned: list[Batch] = []
    if room > 0 and left_today(rail) >= rail.economics.payout_min_pix:  # else nobody need be looked at
        ready, missing = _due(rail)
        book.commit(rail.connection)  # before nodes are asked
        rail.find_accounts(missing)
        planned = pend(rail, parts(rail, ready)[:room])
        book.commit(rail.connection)
    rail.keep_up()
    book.commit(rail.connection)
    return planned


def left_today(rail: Rail) -> int:
    """Return how much may still be planned on this UTC day, in base units."""
    return rail.economics.payout_day_max_pix - owed.planned_today(rail.connection)


# ── Who is due ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _due(rail: Rail, creators: Collection[int] | None = None) -> tuple[list[Due], list[Due]]:
    """Return the creators who are due: those with a token account, up to the day's limit, and those without one.

    With `creators`, only these are considered.
    """
    limit = rail.settings.payouts_per_plan_max
    wallets.release_mended(rail.connection, creators or ())
    owed_now, waiting = owed.look(rail.connection, rail.economics, rail.asset, limit, creators)
    owed.park(rail.connection, waiting)
    payable = _payable(rail, owed_now)
    refused = screen(rail, [screening.Recipient(each.creator_id, each.wallet, each.amount_pix) for each in payable])
    due = [each for each in payable if each.creator_id not in refused]
    left = left_today(rail)
    ready: list[Due] = []
    for each in due:
        if each.address is not None and each.amount_pix <= left:
            ready.append(each)
            left -= each.amount_pix
    return ready, [each for each in due if each.address is None]


def _payable(rail: Rail, due: Sequence[Due]) -> list[Due]:
    """Return those whose wallet can be paid; hold all others until they name another wallet."""
    reasons = wallets.unpayable_of(rail.connection, {each.creator_id: each.wallet for each in due})
    for each in due:
        if each.creator_id in reasons:
            hold_wallet(rail.connection, each.creator_id, each.wallet, reasons[each.creator_id])
    return [each for each in due if each.creator_id not in reasons]


def hold_wallet(connection: Connection[Any], creator_id: int, wallet: str, why: str) -> None:
    """Hold a creator whose wallet cannot be paid.

    Args:
        connection: of the ledger; nothing is committed.
        creator_id: who is held.
        wallet: the address that they have named.
        why: what is wrong with it, as a phrase that follows the address in a sentence.
    """
    stops.hold(connection, creator_id, f"{wallets.UNPAYABLE}: {wallet} {why}")


def screen(rail: Rail, recipients: Sequence[screening.Recipient]) -> set[int]:
    """Hold the creators whom the operator's screening rejects; return their ids."""
    reasons = screening.ask(rail.screening, recipients)
    for creator_id, reason in reasons.items():
        stops.hold(rail.connection, creator_id, f"screening: {reason}")
    return set(reasons)


# ── Into batches ───────────────────────────────────────────────────────────────────────────────────────────────────


def parts(rail: Rail, ready: Sequence[Due]) -> list[list[Due]]:
    """Divide recipients into batches: as many in each as fit beside the markers of its lineage (see `batches.lineage`).

    A creator is left out if their own lineage is too long for one transaction, until its batches are too old to matter.
    """
    lineage = rail.lineage_of([each.creator_id for each in ready])
    chunks: list[list[Due]] = []
    guards: set[str] = set()  # of the last chunk: given-up batches that its payouts may repeat
    for each in ready:
        above = set(lineage.get(each.creator_id, ()))
        if not rail.capacity(len(above)):
            log.error("too many transactions of a creator were given up", extra={"creator": each.creator_id})
            owed.look_again(rail.connection, [each.creator_id])
            continue
        guards |= above
        if not chunks or len(chunks[-1]) >= rail.capacity(len(guards)):
            chunks.append([])
            guards = above
        chunks[-1].append(each)
    return [sorted(chunk, key=lambda each: each.creator_id) for chunk in chunks]


def pend(rail: Rail, chunks: Sequence[Sequence[Due]], parent: str | None = None) -> list[Batch]:
    """Plan a batch for each chunk and move its money to `in_flight`; `parent` is the batch that was split into them."""
    planned = rail.with_free_ids([payout_batch(rail, chunk, tag=parent or "") for chunk in chunks])
    batches.add(rail.connection, planned, parent)
    batches.pend(rail.connection, list(zip(planned, chunks, strict=True)))
    most = owed.payable_max_pix(rail.economics)  # who is paid this much may be owed more
    paid_in_part = [each.creator_id for chunk in chunks for each in chunk if each.amount_pix >= most]
    owed.stand_behind(rail.connection, paid_in_part)
    return planned


def payout_batch(rail: Rail, dues: Sequence[Due], tag: str = "") -> Batch:
    """Make the batch that pays these creators.

    Its id derives from the secret, the day, the creators, their payout numbers and `tag`.
    """
    named = ",".join(f"{each.creator_id}:{each.seq}" for each in dues)
    batch_id = rail.id_of(f"payout|{dues[0].period}|{named}|{tag}")
    recipients = tuple(BatchLine(d.creator_id, d.wallet, d.address or "", d.amount_pix) for d in dues)
    return Batch(batch_id, "payout", "planned", sum(each.amount_pix for each in dues), recipients)


# ── Taking back ────────────────────────────────────────────────────────────────────────────────────────────────────


def give_back(rail: Rail, batch: Batch, key: str, lines: list[tuple[int, int]], document: dict[str, Any]) -> None:
    """Void a batch: its money returns to where it came from. The platform pays the fees, if there were any.

    Args:
        rail: the rail on which it was to go out.
        batch: the batch, already in its new state.
        key: the idempotency key of the entry.
        lines: further postings (account, amount in base units): what the batch has cost.
        document: what the entry states beside its amounts.
    """
    if batch.kind == "payout":
        back = batches.payable_lines(rail.connection, batch)
        in_flight = book.account(rail.connection, "in_flight")
        lines = [(in_flight, -batch.amount_pix), *back, *lines]
    entry = post(rail.connection, key, f"{batch.kind}_voided", lines, document)
    if batch.kind == "payout" and entry is not None:
        batches.end_transfers(rail.connection, batch, "voided", entry.id)


def post(
    connection: Connection[Any], key: str, kind: str, lines: list[tuple[int, int]], document: dict[str, Any]
) -> book.Written | None:
    """Write an entry; do nothing if `lines` is empty.

    Args:
        connection: of the ledger; nothing is committed.
        key: the idempotency key.
        kind: the kind of entry.
        lines: postings (account, amount in base units), which sum to zero.
        document: what the entry states beside its amounts.

    Returns:
        The entry; None if `lines` is empty.
    """
    return book.post(connection, book.Entry(kind, key, lines, document)) if lines else None


def take_apart(rail: Rail, batch: Batch, reason: str) -> None:
    """Plan both halves of a refused batch again, to find the recipient at fault; a lone recipient is held for `reason`.

    Does nothing for a reclaim.
    """
    if batch.kind == "reclaim":
        return  # nobody's fault; the markers are tried again
    if len(batch.recipients) == 1:
        stops.hold(rail.connection, batch.recipients[0].creator_id, reason)
        return
    middle = len(batch.recipients) // 2
    for half in (batch.recipients[:middle], batch.recipients[middle:]):
        plan_again(rail, batch, half)


def plan_again(rail: Rail, parent: Batch, recipients: Sequence[BatchLine]) -> None:
    """Plan payouts to `recipients` of a given-back batch again, if all rules of a payout allow it now.

    Recipients who are left out will be due as usual. The limit of waiting batches does not apply; otherwise a part that
    it left out would later be planned together with the recipient at fault.
    """
    if parent.kind == "accounts":
        rail.open_accounts(recipients, parent.id)
        return
    if not batches.is_payday(rail.connection, rail.economics):
        return
    try:
        ready, _ = _due(rail, {each.creator_id for each in recipients})
    except Temporary:  # nobody is paid unscreened, and what has ended is booked all the same
        return
    pend(rail, parts(rail, ready), parent.id)
