"""Adoption: after a restore, book again what the chain has paid and the restored journal does not know.

This happens only while payouts are frozen by a restore, and only for transactions that the treasury itself has signed
and that pay only our creators. All other unknown transactions stay unknown and need a person. A payment is booked as a
posted batch with its attempt, so that earnings, the audit and the next plan know it. A transaction that was signed
before the restore and is forgotten may still land: nothing is planned while one can (see `end`).
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import psycopg
from psycopg import Connection
from solders.pubkey import Pubkey
from solders.transaction import VersionedTransaction

from cluster.errors import Rejected, Temporary
from ledger.journal import book
from ledger.payouts import batches, planning, settling
from ledger.payouts.batches import Attempt, Batch
from ledger.payouts.owed import Due
from ledger.payouts.rail import ChainRail
from ledger.payouts.reconcile import Finding
from ledger.risk import stops
from ledger.solana import packing
from ledger.solana.chain import LIFE_BLOCKS, Blockhash, Effect

log = logging.getLogger(__name__)

OWNER_AT = slice(32, 64)  # in a token account's bytes
SEAT = """SELECT format('%s/%s/%s', (SELECT system_identifier FROM pg_control_system()),
                        left(pg_walfile_name(pg_current_wal_insert_lsn()), 8),
                        (SELECT oid FROM pg_database WHERE datname = current_database()))"""
# What a server raises that does not let the role read where the database lies, or has no such function.
UNSAID = (
    psycopg.errors.InsufficientPrivilege, psycopg.errors.UndefinedFunction, psycopg.errors.FeatureNotSupported
)  # fmt: skip
BATCH_ID = re.compile("[0-9a-f]{32}")
RESTORED = "restored from a backup: waiting until everything the chain has paid since is in the journal"


class Owner(NamedTuple):
    """A creator who is or was paid at a wallet. `owed_pix` is what they have payable now, in base units."""

    creator_id: int
    wallet: str
    is_current: bool
    account_id: int
    owed_pix: int


# ── How long payouts stay frozen ───────────────────────────────────────────────────────────────────────────────────────


def begin(connection: Connection[Any], detail: Mapping[str, Any]) -> None:
    """Freeze payouts after the database has gone back in time. Does not commit.

    If they are frozen for that already, the wait starts again.
    """
    stops.thaw(connection, RESTORED)
    stops.freeze(connection, RESTORED, detail)


def watch(connection: Connection[Any]) -> None:
    """Freeze payouts if the database is on another server or timeline than when it was last used. Commits.

    So a restore is also noticed if it was not made by `pixr restore`.
    """
    row = connection.execute("SELECT seat FROM ledger.chain").fetchone()
    seat = _seat(connection)
    if seat is not None and row is not None and row[0] not in (None, seat):
        log.error("the database was restored, or a standby has taken over", extra={"was": row[0], "is": seat})
        begin(connection, {"was": row[0], "is": seat})
    note_seat(connection)


def note_seat(connection: Connection[Any]) -> None:
    """Store on which server, timeline and database the ledger runs. Commits."""
    seat = _seat(connection)
    if seat is not None:
        connection.execute("UPDATE ledger.chain SET seat = %s WHERE seat IS DISTINCT FROM %s", (seat, seat))
    book.commit(connection)


def _seat(connection: Connection[Any]) -> str | None:
    """Return server, timeline and database as one text; None if the server does not let the role read them."""
    try:
        with connection.transaction():
            row = connection.execute(SEAT).fetchone()
    except UNSAID as error:
        log.warning("the server does not say where the database lies: %s", str(error).strip())
        return None
    return str(row[0]) if row else None


def end(rail: ChainRail, finding: Finding) -> bool:
    """End the freeze of a restore once journal and chain agree and no forgotten transaction can land.

    Returns whether the freeze was ended.

    A forgotten transaction that was signed before the restore can land until its blockhash expires. So two things are
    required: the finalized height is `LIFE_BLOCKS` past the highest one when this process first asked; and the freeze
    is `give_back_after_s` old by the database's clock, since heights are only what nodes report. Then `finding` must be
    of the slot at which both were seen to hold, or of a later one: a node that lags shows the treasury as it was
    before.
    """
    connection = rail.connection
    freeze = stops.age_of(connection, RESTORED)
    if freeze is None:
        return False
    number, age_s = freeze
    if rail.restored is None or rail.restored[0] != number:
        rail.restored = (number, rail.chain.highest(rail.opinions) + LIFE_BLOCKS, None)
    _, until, since_slot = rail.restored
    height, slot = rail.chain.finalized_height(rail.opinions)
    if height <= until or age_s < rail.settings.give_back_after_s:
        return False
    if since_slot is None:
        rail.restored = (number, until, slot)
        return False
    if not finding.conclusive or not finding.ok or finding.slot < since_slot:
        return False
    stops.thaw(connection, RESTORED)
    book.commit(connection)
    return True


def retry(rail: ChainRail) -> None:
    """Try again to adopt unknown transactions.

    These were read before the restore was declared, or at a time when something was missing.
    """
    connection = rail.connection
    rows = connection.execute(
        "SELECT t.signature, a.state FROM ledger.chain_transactions t"
        " LEFT JOIN ledger.attempts a ON a.signature = t.signature WHERE t.kind = 'unknown' ORDER BY t.slot, t.seen_at"
    ).fetchall()
    if not rows or not stops.is_frozen_for(connection, RESTORED):
        connection.commit()
        return
    for signature, state in rows:
        effect = rail.chain.effect(signature, rail.opinions)
        if effect is None or (state not in ("landed", "failed") and not adopt(rail, effect)):
            connection.rollback()
            continue
        connection.execute("UPDATE ledger.chain_transactions SET kind = 'attempt' WHERE signature = %s", (signature,))
        book.commit(connection)


# ── One transaction ────────────────────────────────────────────────────────────────────────────────────────────────


def adopt(rail: ChainRail, effect: Effect) -> bool:
    """Book a transaction of the treasury that belongs to no attempt in the database.

    Returns:
        Whether it was booked; False if it is not certain that the ledger made it.

    Raises:
        Temporary: nodes do not tell enough now, or some earnings that were due at the restore are not payable yet.
    """
    connection = rail.connection
    if not stops.is_frozen_for(connection, RESTORED):
        return False
    if batches.known(connection, [effect.signature]):
        return False  # it has landed after its batch had ended: to be resolved
    _require_payable(connection)
    try:
        transaction = VersionedTransaction.from_bytes(rail.chain.raw(effect.signature))
    except ValueError as error:
        raise Temporary(f"a node gives bytes for {effect.signature} that are no transaction: {error}") from error
    if str(transaction.signatures[0]) != effect.signature or not all(transaction.verify_with_results()):
        return False  # one node's word; signatures need no other
    message = transaction.message
    if rail.treasury.payer.treasury not in message.account_keys[: message.header.num_required_signatures]:
        return False
    try:
        with connection.transaction():
            return _book(rail, effect, transaction)
    except Rejected as refusal:
        log.warning("a payment on chain cannot be adopted: %s", refusal, extra={"signature": effect.signature})
        return False


def _require_payable(connection: Connection[Any]) -> None:
    """Require that all searches from before the restore was declared are folded, and all earnings due by then matured.

    Adopted payments are taken from these earnings. If these were not payable yet, the payments would be taken from the
    pool of rewards, and the same earnings would be paid again later.

    Raises:
        Temporary: some searches are not folded yet, or some earnings have not matured yet.
    """
    row = connection.execute(
        "SELECT EXISTS (SELECT FROM ledger.maturing WHERE matures_at <= f.placed_at AND matures_at <= now()),"
        " EXISTS (SELECT FROM ledger.unfolded i JOIN ledger.appearance_batches b ON b.incarnation = i.id"
        "         AND b.seq >= i.folded WHERE b.recorded_at <= f.placed_at)"
        " FROM ledger.freezes f WHERE f.reason = %s AND f.released_at IS NULL",
        (RESTORED,),
    ).fetchone()
    if row is not None and any(row):
        raise Temporary("what the chain has paid is adopted once all that was due is folded and payable")


def _book(rail: ChainRail, effect: Effect, transaction: VersionedTransaction) -> bool:
    """Book one transaction of the treasury: a payout, or if it paid nobody only its cost.

    Returns:
        False if a recipient is unknown, or if recipients got another sum than the treasury lost.

    Raises:
        Temporary: a batch of the backup that pays the same creators may still land.
        Rejected: the batch was to pay something else.
    """
    spent = -effect.tokens.get(rail.treasury.token_account, 0)
    if spent == 0 or effect.error is not None:
        lines = rail.cost_lines(effect)
        planning.post(
            rail.connection, f"adopt:{effect.signature}", "adopted_cost", lines, {"signature": effect.signature}
        )
        return True
    paid = {address: change for address, change in effect.tokens.items() if change > 0}
    wallets = _wallets(rail, paid.keys())
    owners = _owners(rail, wallets)
    if sum(paid.values()) != spent or not paid.keys() <= owners.keys():
        return False
    batch = _open_batch(rail, transaction)
    if batch is None:
        creators = [each.creator_id for several in owners.values() for each in several]
        replaced = dict.fromkeys((*_called_back(rail, transaction), *batches.open_of(rail.connection, creators)))
        for batch_id in replaced:  # nodes are asked before anything is written: the fold goes on beside this
            _require_expired(rail, batch_id)
        for batch_id in replaced:
            _give_back(rail, batch_id)
        batch = _forgotten(rail, effect, transaction, paid, wallets)
    _settle(rail, batch, effect, transaction)
    log.info("adopted a payment that the backup did not know", extra={"batch": batch.id, "pix": spent})
    return True


def _wallets(rail: ChainRail, addresses: Collection[str]) -> dict[str, str]:
    """Return the wallet of each of these token accounts; accounts whose wallet is not found are left out.

    Nodes report which wallet owns an account. They cannot invent one, since an account's address is derived from its
    wallet. If an account has been closed since, all wallets that creators have ever named are tried.
    """
    wallet_at = {rail.treasury.token_account_of(wallet): wallet for wallet in _told(rail, sorted(addresses))}
    if not wallet_at.keys() >= set(addresses):
        rows = rail.connection.execute("SELECT DISTINCT new_wallet FROM ledger.wallet_changes")
        wallet_at = {rail.treasury.token_account_of(wallet): wallet for (wallet,) in rows}
    return {address: wallet_at[address] for address in addresses if address in wallet_at}


def _told(rail: ChainRail, addresses: Sequence[str]) -> set[str]:
    """Return the wallets that own these token accounts, as reported by any node."""
    seen = rail.chain.seen_accounts(addresses, "confirmed", opinions=1)
    owners = {each.data[OWNER_AT] for accounts in seen for each in accounts if each is not None}
    return {str(Pubkey.from_bytes(owner)) for owner in owners if len(owner) == OWNER_AT.stop - OWNER_AT.start}


def _owners(rail: ChainRail, wallets: Mapping[str, str]) -> dict[str, list[Owner]]:
    """Map token accounts to the creators who are or were paid there; `wallets` maps the accounts to their wallets."""
    address_of = {wallet: address for address, wallet in wallets.items()}
    rows = rail.connection.execute(
        "SELECT DISTINCT c.creator_id, c.new_wallet, c.new_wallet IS NOT DISTINCT FROM w.wallet"
        " FROM ledger.wallet_changes c LEFT JOIN ledger.wallets w ON w.creator_id = c.creator_id"
        " WHERE c.new_wallet = ANY(%s) ORDER BY 1, 2",
        (list(address_of),),
    ).fetchall()
    accounts = book.accounts_of(rail.connection, "payable", "creator", [creator for creator, _, _ in rows])
    owners: dict[str, list[Owner]] = {}
    for creator, wallet, is_current in rows:
        account = accounts[creator]
        owed_pix = book.balance(rail.connection, account)
        owners.setdefault(address_of[wallet], []).append(Owner(creator, wallet, is_current, account, owed_pix))
    return owners


def _open_batch(rail: ChainRail, transaction: VersionedTransaction) -> Batch | None:
    """Return the open batch that a transaction belongs to, if the backup has it; its live attempt is given up.

    A transaction names its batch by the last marker that it makes, or by a memo. This transaction has landed, so no
    other one that was signed for the batch can.
    """
    open_batches = _open_markers(rail)
    *_, own_marker = _markers(transaction) or [""]
    batch_id = open_batches.get(own_marker) or _memo(transaction)
    return _expire_live(rail, batch_id) if batch_id in open_batches.values() else None


def _called_back(rail: ChainRail, transaction: VersionedTransaction) -> list[str]:
    """Return the open batches whose payouts this transaction repeats.

    They are open only because the backup is older than their end: after the backup they were given back, and their
    payouts planned again. So this transaction makes their markers before its own, to guard against them. Their money
    has to go back before the transaction is booked.
    """
    open_batches = _open_markers(rail)
    *guards, _ = _markers(transaction) or [""]
    return [open_batches[address] for address in guards if address in open_batches]


def _open_markers(rail: ChainRail) -> dict[str, str]:
    """Map the addresses of open payout batches' markers to the ids of the batches."""
    rows = rail.connection.execute("SELECT id FROM ledger.batches WHERE kind = 'payout' AND ended_at IS NULL")
    return {str(rail.treasury.marker(batch_id).address): batch_id for (batch_id,) in rows.fetchall()}


def _require_expired(rail: ChainRail, batch_id: str) -> None:
    """Require that the live attempt of a batch, if it has one, is past its validity and that no node knows it.

    Raises:
        Temporary: the attempt may still land, or a node knows it: then settling has to end it first.
    """
    attempts = [each for each in batches.live_attempts(rail.connection) if each.batch.id == batch_id]
    if not all(rail.may_expire_with_batch(each) for each in attempts):
        raise Temporary(f"batch {batch_id} of the backup may still land, and its recipients have been paid since")


def _give_back(rail: ChainRail, batch_id: str) -> None:
    """Void a batch that was given back after the backup, or whose recipients another batch has paid since then."""
    batch = _expire_live(rail, batch_id)
    batches.cancel(rail.connection, batch)
    planning.give_back(rail, batch, f"void:{batch.id}", [], {"batch": batch.id, "restored": True})


def _expire_live(rail: ChainRail, batch_id: str) -> Batch:
    """Give up a batch's live attempt, if it has one; the caller ends the batch. Returns the batch in its new state."""
    for attempt in batches.live_attempts(rail.connection):
        if attempt.batch.id == batch_id:
            batches.expire(rail.connection, attempt)
    return batches.one(rail.connection, batch_id)


def _memo(transaction: VersionedTransaction) -> str:
    """Return the batch id in the memo of a transaction without a marker; empty if it has none."""
    message = transaction.message
    for each in message.instructions:
        if message.account_keys[each.program_id_index] == packing.MEMO_PROGRAM:
            text = bytes(each.data).decode("ascii", "replace")
            return text if BATCH_ID.fullmatch(text) else ""
    return ""


def _markers(transaction: VersionedTransaction) -> list[str]:
    """Return the addresses of the accounts that a transaction creates with a seed, in order."""
    message, kind = transaction.message, packing.CREATE_WITH_SEED.to_bytes(4, "little")
    return [
        str(message.account_keys[each.accounts[1]])
        for each in message.instructions
        if message.account_keys[each.program_id_index] == packing.SYSTEM_PROGRAM and each.data[:4] == kind
    ]


def _forgotten(
    rail: ChainRail,
    effect: Effect,
    transaction: VersionedTransaction,
    paid: Mapping[str, int],
    wallets: Mapping[str, str],
) -> Batch:
    """Plan again a batch that was planned after the backup and is forgotten.

    Its money is taken from what its recipients are owed, and the rest from `reward_pool`.

    Args:
        rail: the treasury, and the ledger's connection.
        effect: what the transaction did.
        transaction: the transaction.
        paid: base units that the transaction has paid, by token account.
        wallets: the wallet of each of these accounts.

    Returns:
        The batch, planned and with its money in flight.
    """
    connection = rail.connection
    book.hold_end(connection)  # what they are owed stays what it is: the fold goes on beside this
    owners = _owners(rail, wallets)  # with what has just gone back
    dues = [
        _due(connection, owner, address, amount)
        for address, total in sorted(paid.items())
        for owner, amount in _shares(owners[address], total)
    ]
    missing = {each.account_id: each.amount_pix - book.balance(connection, each.account_id) for each in dues}
    early = _earned_again(connection, {each.creator_id: missing[each.account_id] for each in dues})
    for account, lines in early.items():
        missing[account] -= sum(amount for _, amount in lines)
        lines = [(maturing, -amount) for maturing, amount in lines] + [(account, sum(amount for _, amount in lines))]
        planning.post(
            connection, f"early:{effect.signature}:{account}", "maturity", lines, {"signature": effect.signature}
        )
    lost = [(account, amount) for account, amount in missing.items() if amount > 0]
    if lost:  # earned after the backup, and lost with it
        lines = [(book.account(connection, "reward_pool"), -sum(amount for _, amount in lost)), *lost]
        planning.post(
            connection, f"adopt:{effect.signature}", "adopted_accrual", lines, {"signature": effect.signature}
        )
    batch_id = _memo(transaction)
    if not batch_id or batches.is_known(connection, batch_id):  # the batch of the backup has gone back by now
        batch_id = hashlib.sha256(effect.signature.encode()).hexdigest()[:32]
    recipients = tuple(batches.BatchLine(d.creator_id, d.wallet, d.address or "", d.amount_pix) for d in dues)
    batch = Batch(batch_id, "payout", "planned", sum(paid.values()), recipients)
    batches.add(connection, [batch])
    batches.pend(connection, [(batch, dues)])
    *_, own_marker = _markers(transaction) or [""]
    if own_marker:
        batches.add_marker(connection, batch, own_marker, max(effect.lamports.get(own_marker, 0), 0))
    return batch


def _shares(owners: Sequence[Owner], total: int) -> list[tuple[Owner, int]]:
    """Split what one wallet was paid among the creators who use or have used it, up to what each is owed.

    What they are owed is lowered by that; otherwise the wallet would be paid for the same earnings again. A creator who
    is owed exactly `total` is served first, then those who use the wallet now. A rest that exceeds what all are owed
    was earned after the backup, and goes to the first one.
    """
    queue = sorted(
        owners, key=lambda each: (each.owed_pix != total, not each.is_current, -each.owed_pix, each.creator_id)
    )
    shares: dict[Owner, int] = {}
    left = total
    for each in queue:
        if taken := min(each.owed_pix, left):
            shares[each] = taken
            left -= taken
    if left:
        shares[queue[0]] = shares.get(queue[0], 0) + left
    return list(shares.items())


def _earned_again(connection: Connection[Any], missing: Mapping[int, int]) -> dict[int, list[tuple[int, int]]]:
    """Take missing money from earnings that mature for a second time.

    These had matured and were paid before the restore, and were folded again after it. The money is taken from the
    earnings that mature last; at most what these folds have brought is taken.

    Args:
        connection: of the ledger; nothing is committed.
        missing: by creator, the base units that were paid beyond what the creator is owed.

    Returns:
        For each payable account, where the money was taken: a list of (maturing account, base units).
    """
    wanted = {creator: amount for creator, amount in missing.items() if amount > 0}
    rows = connection.execute(
        "WITH again AS (SELECT DISTINCT d.entry_id FROM ledger.freezes z JOIN ledger.folds d ON d.folded_at >= z.placed_at"
        "   JOIN ledger.outcomes o ON o.fold_id = d.id JOIN ledger.appearance_batches b USING (incarnation, seq)"
        "   WHERE z.reason = %(reason)s AND z.released_at IS NULL AND b.recorded_at <= z.placed_at)"
        " SELECT a.owner, a.id, least(a.balance, sum(p.amount))::bigint FROM ledger.accounts a"
        " JOIN ledger.postings p ON p.account_id = a.id JOIN again USING (entry_id)"
        " WHERE a.kind = 'maturing' AND a.party = 'creator' AND a.owner = ANY(%(creators)s) AND a.balance > 0"
        " GROUP BY a.owner, a.id ORDER BY a.owner",
        {"reason": RESTORED, "creators": list(wanted)},
    ).fetchall()
    payable = book.accounts_of(connection, "payable", "creator", [row[0] for row in rows])
    taken_by: dict[int, list[tuple[int, int]]] = {}
    for creator, maturing, most in rows:
        taken = _take_youngest(connection, maturing, min(most, wanted[creator]))
        if taken:
            taken_by[payable[creator]] = [(maturing, taken)]
    return taken_by


def _take_youngest(connection: Connection[Any], account: int, most: int) -> int:
    """Take up to `most` base units out of an account's earnings, from those that mature last. Returns how much was taken."""
    buckets = connection.execute(
        "SELECT matures_at, amount_pix FROM ledger.maturing WHERE account_id = %s AND amount_pix > 0"
        " ORDER BY matures_at DESC",
        (account,),
    ).fetchall()
    taken = 0
    for matures_at, amount in buckets:
        part = min(amount, most - taken)
        connection.execute(
            "UPDATE ledger.maturing SET amount_pix = amount_pix - %s WHERE account_id = %s AND matures_at = %s",
            (part, account, matures_at),
        )
        taken += part
    return taken


def _due(connection: Connection[Any], owner: Owner, address: str, amount: int) -> Due:
    """Make the line of a payout for a creator, as planning would."""
    row = connection.execute(
        "SELECT (now() AT TIME ZONE 'utc')::date, (SELECT count(*) FROM ledger.payouts p WHERE p.creator_id = %s"
        " AND p.period = (now() AT TIME ZONE 'utc')::date)::int",
        (owner.creator_id,),
    ).fetchone()
    assert row is not None
    return Due(owner.creator_id, owner.account_id, owner.wallet, amount, row[0], row[1], address)


def _settle(rail: ChainRail, batch: Batch, effect: Effect, transaction: VersionedTransaction) -> None:
    """Store a batch's transaction as its attempt, and end it as landed."""
    raw, message = bytes(transaction), transaction.message
    blockhash = Blockhash(str(message.recent_blockhash), effect.slot + LIFE_BLOCKS, effect.slot)
    if not settling.is_as_planned(rail, batch, effect):
        raise Rejected(f"batch {batch.id} was to pay something else", status=409, code="batch-differs")
    batches.persist(rail.connection, [(batch, effect.signature, raw)], blockhash)
    attempt = Attempt(batch, 1, effect.signature, raw, blockhash.last_valid_block_height)
    batches.land(rail.connection, attempt, effect.slot, effect.fee)
    settling.book_landed(rail, attempt, effect)
