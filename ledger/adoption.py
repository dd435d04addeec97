"""Adoption: after a restored backup, what the chain has paid and the journal has forgotten is written down again.

Only while payouts are frozen by a restore, and only for transactions that the treasury itself has signed and whose
every recipient is a creator of ours; anything else stays unknown and needs a person. A payment becomes what it was: a
posted batch with its attempt, so that earnings, audit and the next plan know it.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from psycopg import Connection
from solders.pubkey import Pubkey
from solders.transaction import VersionedTransaction

from cluster.errors import Rejected, Temporary
from ledger import batches, book, packing, stops
from ledger.batches import Attempt, Batch
from ledger.chain import LIFE_BLOCKS, Blockhash, Effect
from ledger.owed import Due
from ledger.payouts import Payouts

log = logging.getLogger(__name__)

OWNER_AT = slice(32, 64)  # in a token account's bytes
RESTORED = "restored from a backup: waiting until everything the chain has paid since is in the journal"


def adopt(payouts: Payouts, effect: Effect) -> bool:
    """Book a transaction of the treasury's that no attempt knows; False when it is not surely ours."""
    connection = payouts.connection
    if not stops.is_frozen_for(connection, RESTORED):
        return False
    try:
        transaction = VersionedTransaction.from_bytes(payouts.chain.raw(effect.signature))
    except ValueError as error:
        raise Temporary(f"a node gives bytes for {effect.signature} that are no transaction: {error}") from error
    if str(transaction.signatures[0]) != effect.signature or not all(transaction.verify_with_results()):
        return False  # one node's word; signatures need no other
    message = transaction.message
    if payouts.treasury.payer.treasury not in message.account_keys[: message.header.num_required_signatures]:
        return False
    try:
        with connection.transaction():
            return _book(payouts, effect, transaction)
    except Rejected as refusal:
        log.warning("a payment on chain cannot be adopted: %s", refusal, extra={"signature": effect.signature})
        return False


def _book(payouts: Payouts, effect: Effect, transaction: VersionedTransaction) -> bool:
    spent = -effect.tokens.get(payouts.treasury.token_account, 0)
    if spent == 0 or effect.error is not None:
        lines = payouts._cost_lines(effect)
        payouts._post(f"adopt:{effect.signature}", "adopted_cost", lines, {"signature": effect.signature})
        return True
    paid = {address: change for address, change in effect.tokens.items() if change > 0}
    creators = _creators(payouts, list(paid))
    if sum(paid.values()) != spent or not paid.keys() <= creators.keys():
        return False
    batch = _open_batch(payouts, transaction) or _forgotten(payouts, effect, paid, creators)
    _settle(payouts, batch, effect, transaction)
    log.info("adopted a payment that the backup did not know", extra={"batch": batch.id, "pix": spent})
    return True


def _creators(payouts: Payouts, addresses: Sequence[str]) -> dict[str, tuple[int, str]]:
    """Creator and wallet by token account, of those that belong to a wallet there is or was.

    The chain says whose an account is, and the address follows from that: no node can make it up. Only where an account has
    been closed since is every wallet tried.
    """
    found = _of_wallets(payouts, _owners(payouts, addresses))
    if found.keys() == set(addresses):
        return found
    rows = payouts.connection.execute("SELECT DISTINCT creator_id, new_wallet FROM ledger.wallet_changes")
    return {payouts.treasury.token_account_of(wallet): (creator, wallet) for creator, wallet in rows}


def _owners(payouts: Payouts, addresses: Sequence[str]) -> set[str]:
    """Wallets that own these token accounts, by any node."""
    seen = payouts.chain.seen_accounts(addresses, "confirmed", opinions=1)
    told = {each.data[OWNER_AT] for accounts in seen for each in accounts if each is not None}
    return {str(Pubkey.from_bytes(owner)) for owner in told if len(owner) == OWNER_AT.stop - OWNER_AT.start}


def _of_wallets(payouts: Payouts, wallets: Collection[str]) -> dict[str, tuple[int, str]]:
    rows = payouts.connection.execute(
        "SELECT DISTINCT creator_id, new_wallet FROM ledger.wallet_changes WHERE new_wallet = ANY(%s)", (list(wallets),)
    )
    return {payouts.treasury.token_account_of(wallet): (creator, wallet) for creator, wallet in rows}


def _open_batch(payouts: Payouts, transaction: VersionedTransaction) -> Batch | None:
    """The batch that the backup still knows, by the marker that the transaction has made last: its own.

    What the batch had signed itself can never land any more. The markers before are of batches that were called back since
    the backup, whose payouts this one repeats: where the backup knows them as open, their money goes back first.
    """
    rows = payouts.connection.execute("SELECT id FROM ledger.batches WHERE kind = 'payout' AND ended_at IS NULL")
    known = {str(payouts.treasury.marker(number).address): number for (number,) in rows.fetchall()}
    *above, own = _markers(transaction) or [""]
    if own in known:
        return _given_up(payouts, known[own])
    for address in above:
        if address in known:
            batch = _given_up(payouts, known[address])
            batches.cancel(payouts.connection, batch)
            payouts._give_back(batch, f"void:{batch.id}", [], {"batch": batch.id, "restored": True})
    return None


def _given_up(payouts: Payouts, batch_id: str) -> Batch:
    """A batch of which nothing is live any more."""
    for attempt in batches.live_attempts(payouts.connection):
        if attempt.batch.id == batch_id:
            batches.expire(payouts.connection, attempt)
    return batches.one(payouts.connection, batch_id)


def _markers(transaction: VersionedTransaction) -> list[str]:
    """Accounts that a transaction makes with a seed, in its order."""
    message, kind = transaction.message, packing.CREATE_WITH_SEED.to_bytes(4, "little")
    return [
        str(message.account_keys[each.accounts[1]])
        for each in message.instructions
        if message.account_keys[each.program_id_index] == packing.SYSTEM_PROGRAM and each.data[:4] == kind
    ]


def _forgotten(
    payouts: Payouts, effect: Effect, paid: Mapping[str, int], creators: Mapping[str, tuple[int, str]]
) -> Batch:
    """A batch that was planned after the backup: made again, from what `payable` holds and else from `reward_pool`."""
    connection = payouts.connection
    accounts = book.accounts_of(connection, "payable", "creator", [creators[address][0] for address in paid])
    dues = [_due(connection, accounts, creators[address], address, amount) for address, amount in sorted(paid.items())]
    missing = [
        (each.account_id, each.amount_pix - held)
        for each in dues
        if (held := book.balance(connection, each.account_id)) < each.amount_pix
    ]
    if missing:  # earned after the backup, and lost with it
        lines = [(book.account(connection, "reward_pool"), -sum(amount for _, amount in missing)), *missing]
        payouts._post(f"adopt:{effect.signature}", "adopted_accrual", lines, {"signature": effect.signature})
    number = hashlib.sha256(effect.signature.encode()).hexdigest()[:32]
    recipients = tuple(batches.Recipient(d.creator_id, d.wallet, d.address or "", d.amount_pix) for d in dues)
    batch = Batch(number, "payout", "planned", sum(paid.values()), recipients)
    batches.add(connection, [batch])
    batches.pend(connection, [(batch, dues)])
    return batch


def _due(
    connection: Connection[Any], accounts: Mapping[int, int], creator: tuple[int, str], address: str, amount: int
) -> Due:
    row = connection.execute(
        "SELECT (now() AT TIME ZONE 'utc')::date, (SELECT count(*) FROM ledger.payouts p WHERE p.creator_id = %s"
        " AND p.period = (now() AT TIME ZONE 'utc')::date)::int",
        (creator[0],),
    ).fetchone()
    assert row is not None
    return Due(creator[0], accounts[creator[0]], creator[1], amount, row[0], row[1], address)


def _settle(payouts: Payouts, batch: Batch, effect: Effect, transaction: VersionedTransaction) -> None:
    raw, message = bytes(transaction), transaction.message
    blockhash = Blockhash(str(message.recent_blockhash), effect.slot + LIFE_BLOCKS, effect.slot)
    if not payouts._is_as_planned(batch, effect):
        raise Rejected(f"batch {batch.id} was to pay something else", status=409, code="batch-differs")
    batches.persist(payouts.connection, [(batch, effect.signature, raw)], blockhash)
    attempt = Attempt(batch, 1, effect.signature, raw, blockhash.last_valid_block_height)
    batches.land(payouts.connection, attempt, effect.slot, effect.fee)
    payouts._take_note(attempt, effect)
