"""Upkeep: opening recipients' token accounts, and taking back the rent of markers.

A first payout needs a token account; the platform opens one for each creator, once. Each payout's transaction leaves a
marker; its rent is taken back after some days. Plans batches of kind `accounts` and `reclaim`; signs nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from cluster.errors import Temporary
from ledger.journal import book
from ledger.payouts import batches, owed, planning
from ledger.payouts.batches import Batch, BatchLine
from ledger.payouts.owed import Due
from ledger.payouts.rail import ChainRail
from ledger.risk import stops
from ledger.solana import packing

log = logging.getLogger(__name__)

RECLAIM_READ = 4  # times as many markers are read as one transaction empties
DOUBTED_S = 600.0  # before a marker of which nodes differ is looked at again

# ── Token accounts ─────────────────────────────────────────────────────────────────────────────────────────────────


def find_accounts(rail: ChainRail, missing: Sequence[Due]) -> None:
    """Look up the token accounts of new recipients; plan to open those that the chain does not have. Commits."""
    if not missing:
        return
    recipients = [BatchLine(d.creator_id, d.wallet, rail.treasury.token_account_of(d.wallet)) for d in missing]
    try:
        accounts = rail.chain.seen_accounts([each.address for each in recipients], opinions=rail.opinions)
    except Temporary as error:
        log.warning("no token account is looked up now: %s", error)
        return
    unknown, too_small = [], []
    opening_pix = rail.first_payout_min_pix
    for due, recipient, seen in zip(missing, recipients, accounts, strict=True):
        exists = [each is not None and each.owner == str(packing.TOKEN_PROGRAM) for each in seen]  # by node
        if all(exists):
            batches.know_account(rail.connection, rail.treasury.mint, recipient, None)
        elif any(exists):
            log.warning("nodes differ on a token account", extra={"address": recipient.address})
        elif due.amount_pix >= opening_pix:
            unknown.append(recipient)
        else:
            too_small.append(due.creator_id)
    owed.look_again(rail.connection, too_small)
    opened = batches.opened_for(rail.connection, [each.creator_id for each in unknown])
    for each in unknown:
        if opened.get(each.creator_id, each.wallet) != each.wallet:
            stops.hold(rail.connection, each.creator_id, "one token account was opened for this creator already")
    open_accounts(rail, _of_people(rail, [each for each in unknown if each.creator_id not in opened]))
    book.commit(rail.connection)


def _of_people(rail: ChainRail, recipients: Sequence[BatchLine]) -> list[BatchLine]:
    """Return the recipients whose wallet is owned by no program; hold the others.

    Returns none of them, and holds nobody, if too few nodes answer.
    """
    if not recipients:
        return []
    try:
        programs = rail.chain.not_wallets([each.wallet for each in recipients], rail.opinions)
    except Temporary as error:
        log.warning("no token account is opened now: %s", error)
        return []
    for each in recipients:
        if each.wallet in programs:
            why = f"belongs to the program {programs[each.wallet]}"
            planning.hold_wallet(rail.connection, each.creator_id, each.wallet, why)
    return [each for each in recipients if each.wallet not in programs]


def open_accounts(rail: ChainRail, recipients: Sequence[BatchLine], parent: str | None = None) -> None:
    """Plan batches that open these token accounts; `parent` is the batch that they were split from."""
    planned = []
    size = rail.treasury.capacity("accounts")
    for start in range(0, len(recipients), size):
        chunk = tuple(recipients[start : start + size])
        batch_id = _unused_id(rail, f"accounts|{','.join(each.address for each in chunk)}|{parent or ''}")
        planned.append(Batch(batch_id, "accounts", "planned", 0, chunk))
    batches.add(rail.connection, planned, parent)


def _unused_id(rail: ChainRail, text: str) -> str:
    """Derive an unused batch id from a text.

    The same text may come again, since accounts whose batch has failed are tried again: then the id is another one.
    """
    batch_id = rail.id_of(text)
    while batches.is_known(rail.connection, batch_id):
        batch_id = rail.id_of(batch_id)
    return batch_id


def forget_gone(rail: ChainRail, batch: Batch) -> bool:
    """Forget token accounts that a batch was to pay and that no longer exist, as every node that answers reports.

    Their owners have closed them; no creator is held for that. Only accounts that others than the platform have opened
    are forgotten. They are then opened like any missing account, but the platform opens only one per creator, ever.

    Returns:
        Whether any account was forgotten.
    """
    if batch.kind != "payout":
        return False
    addresses = batches.not_opened_by_us(rail.connection, [each.address for each in batch.recipients])
    accounts = rail.chain.seen_accounts(addresses, "confirmed", opinions=rail.opinions)
    gone = [address for address, seen in zip(addresses, accounts, strict=True) if all(each is None for each in seen)]
    batches.forget_accounts(rail.connection, gone)
    return bool(gone)


# ── Markers ────────────────────────────────────────────────────────────────────────────────────────────────────────


def reclaim(rail: ChainRail) -> None:
    """Plan to take back the rent of markers whose retention is over, if there are enough of them to be worth a fee."""
    size = rail.treasury.capacity("reclaim")
    least = min(rail.settings.reclaim_min, size)
    retention_s, pause_s = rail.settings.marker_retention_s, rail.settings.reclaim_pause_s
    rows = batches.reclaimable(rail.connection, retention_s, pause_s, RECLAIM_READ * size)
    if len(rows) < least:
        return
    recipients = _held_by_markers(rail, rows)[:size]
    if len(recipients) >= least:
        named = ",".join(each.wallet for each in recipients)
        batch_id = _unused_id(rail, f"reclaim|{named}|{batches.reclaims(rail.connection)}")
        batches.add(rail.connection, [Batch(batch_id, "reclaim", "planned", 0, tuple(recipients))])


def _held_by_markers(rail: ChainRail, rows: Sequence[tuple[str, str]]) -> list[BatchLine]:
    """Return the markers to empty, each with all the lamports that it holds; only those on which all nodes agree.

    A marker holds the rent at the time it was made, and whatever strangers have sent to it. A marker waits for another
    full retention if it is empty, or if its batch was adopted after a restore, so that its seed is not known. If nodes
    disagree, it waits for `DOUBTED_S`. So markers that cannot be emptied never delay those that can.
    """
    try:
        accounts = rail.chain.seen_accounts([address for _, address in rows], opinions=rail.opinions)
    except Temporary as error:
        log.warning("no marker is emptied now: %s", error)
        return []
    recipients, empty, doubted = [], [], []
    for (batch_id, address), seen in zip(rows, accounts, strict=True):
        if str(rail.treasury.marker(batch_id).address) != address:
            empty.append(batch_id)  # adopted after a restore, which forgot the id that its seed follows from
            continue
        lamports = [each.lamports if each is not None else 0 for each in seen]  # by node
        if not max(lamports):
            empty.append(batch_id)
        elif min(lamports) == max(lamports):
            recipients.append(BatchLine(0, batch_id, address, lamports[0]))
        else:
            doubted.append(batch_id)
    batches.look_later(rail.connection, empty)
    batches.look_later(rail.connection, doubted, max(0.0, rail.settings.marker_retention_s - DOUBTED_S))
    return recipients
