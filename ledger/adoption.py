"""Adoption: after a restored backup, what the chain has paid and the journal has forgotten is written down again.

Only while payouts are frozen by a restore, and only for transactions that the treasury itself has signed, that do what the
ledger's own do and nothing else, and whose every recipient is surely known (see `attribution`); anything else stays unknown
and needs a person. A payment becomes what it was: a posted batch with its attempt, so that earnings, audit and the next
plan know it.

Who was paid by a transaction of an earlier release, whose id does not say it, is guessed of those who had named the wallet
before the restore, and only in a database that knows no id which says it. Else an administrator says it (`pixr payouts
order adopt --wallet`).

What was signed and is forgotten may still land: nothing new is planned before it no longer can (see `end`).
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import psycopg
from psycopg import Connection
from solders.pubkey import Pubkey
from solders.transaction import VersionedTransaction

from cluster.errors import Rejected, Temporary
from ledger import advances, attribution, batches, book, stops
from ledger.attribution import Read
from ledger.batches import Attempt, Batch
from ledger.chain import LIFE_BLOCKS, Blockhash, Effect
from ledger.owed import Due
from ledger.payouts import Payouts
from ledger.rail import is_over
from ledger.reconcile import Finding

log = logging.getLogger(__name__)

OWNER_AT = slice(32, 64)  # in a token account's bytes
SEAT = """SELECT format('%s/%s/%s', (SELECT system_identifier FROM pg_control_system()),
                        left(pg_walfile_name(pg_current_wal_insert_lsn()), 8),
                        (SELECT oid FROM pg_database WHERE datname = current_database()))"""
# Of a server that does not let its role ask, or knows no such place.
UNSAID = (
    psycopg.errors.InsufficientPrivilege, psycopg.errors.UndefinedFunction, psycopg.errors.FeatureNotSupported
)  # fmt: skip
RESTORED = advances.RESTORED
FORGOTTEN = (
    "what the backup does not know is forgotten: see whether orders, holds, revoked keys or new wallets are missing"
)


class Owner(NamedTuple):
    """A creator who is or was paid at a wallet. `owed_pix`: what they have payable now, in base units, or in a batch of the
    backup without an end, which goes back where the chain has paid it otherwise.

    `was_before`: they had named it before the database went back.
    """

    creator_id: int
    wallet: str
    is_current: bool
    was_before: bool
    account_id: int
    owed_pix: int


class Received(NamedTuple):
    """Who was paid how much, in base units. `is_told`: the batch's id, or an administrator, says that it was they."""

    owner: Owner
    address: str
    amount: int
    is_told: bool = False


# ── How long ───────────────────────────────────────────────────────────────────────────────────────────────────────


def begin(connection: Connection[Any], detail: Mapping[str, Any]) -> None:
    """Freeze payouts after the database has gone back; the wait begins anew where one was under way. Commits nothing."""
    stops.thaw(connection, RESTORED)
    stops.freeze(connection, RESTORED, {**detail, "hint": FORGOTTEN})


def watch(connection: Connection[Any]) -> None:
    """Freeze payouts where the database does not lie where it did, whoever has restored it; remember where it lies."""
    row = connection.execute("SELECT seat FROM ledger.chain").fetchone()
    seat = _seat(connection)
    if seat is not None and row is not None and row[0] not in (None, seat):
        log.error("the database was restored, or a standby has taken over", extra={"was": row[0], "is": seat})
        begin(connection, {"was": row[0], "is": seat})
    sit(connection)


def sit(connection: Connection[Any]) -> None:
    """Remember where the database lies."""
    seat = _seat(connection)
    if seat is not None:
        connection.execute("UPDATE ledger.chain SET seat = %s WHERE seat IS DISTINCT FROM %s", (seat, seat))
    book.commit(connection)


def _seat(connection: Connection[Any]) -> str | None:
    """Server, timeline and database; None where the server does not say."""
    try:
        with connection.transaction():
            row = connection.execute(SEAT).fetchone()
    except UNSAID as error:
        log.warning("the server does not say where the database lies: %s", str(error).strip())
        return None
    return str(row[0]) if row else None


def end(payouts: Payouts, finding: Finding) -> bool:
    """Let payouts go on after a restore, once the journal is the chain's again and will stay so; whether it was done.

    What was signed before the restore and forgotten can land until its blockhash is over: until the finalized height is
    that far past the one which the chain had when this process first asked, and, since heights are what nodes say, until
    the freeze is `give_back_after_s` old by the database's clock. The finding must be of a slot after that: nodes that lag
    show the treasury as the restored journal knows it.
    """
    connection = payouts.connection
    freeze = stops.age_of(connection, RESTORED)
    if freeze is None:
        return False
    number, age_s = freeze
    if payouts.restored is None or payouts.restored[0] != number:
        payouts.restored = (number, payouts.chain.highest(payouts.opinions) + LIFE_BLOCKS, None)
    _, until, since_slot = payouts.restored
    height, slot = payouts.chain.finalized_height(payouts.opinions)
    if height <= until or age_s < payouts.settings.give_back_after_s:
        return False
    if since_slot is None:
        payouts.restored = (number, until, slot)
        return False
    if not finding.conclusive or not finding.ok or finding.slot < since_slot:
        return False
    stops.thaw(connection, RESTORED)
    book.commit(connection)
    return True


def retry(payouts: Payouts) -> None:
    """Adopt what was unknown when it was read: before the restore was declared, or while something was missing."""
    connection = payouts.connection
    rows = connection.execute(
        "SELECT t.signature, a.state FROM ledger.chain_transactions t"
        " LEFT JOIN ledger.attempts a ON a.signature = t.signature WHERE t.kind = 'unknown' ORDER BY t.slot, t.seen_at"
    ).fetchall()
    if not rows or not stops.is_frozen_for(connection, RESTORED):
        connection.commit()
        return
    for signature, state in rows:
        effect = payouts.chain.effect(signature, payouts.opinions)
        if effect is None or (state not in ("landed", "failed") and not adopt(payouts, effect)):
            connection.rollback()
            continue
        connection.execute(
            "UPDATE ledger.chain_transactions SET kind = CASE WHEN delta_pix = 0 AND %s THEN 'neutral' ELSE 'attempt' END"
            " WHERE signature = %s",
            (state is None, signature),
        )
        book.commit(connection)


# ── One transaction ────────────────────────────────────────────────────────────────────────────────────────────────


def adopt(payouts: Payouts, effect: Effect, said: Mapping[str, int] | None = None) -> bool:
    """Book a transaction of the treasury's that no attempt knows; False when it is not surely ours.

    Args:
        said: by wallet, the creator who was paid there, as an administrator says; where one asks, `refused` of `payouts` also
            names creators who were paid at wallets that they have not named again.

    Raises:
        Temporary: nodes do not tell enough now, or not everything that is due is payable yet.
    """
    connection = payouts.connection
    if not stops.is_frozen_for(connection, RESTORED):
        return False
    if batches.known(connection, [effect.signature]):
        return False  # it has landed after its batch had ended: to be resolved
    _require_payable(connection)
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
            _book(payouts, effect, transaction, said)
    except (Rejected, psycopg.IntegrityError) as refusal:
        log.warning("a transaction on chain cannot be adopted: %s", refusal, extra={"signature": effect.signature})
        payouts.refused = (effect.signature, str(refusal))
        return False
    return True


def _require_payable(connection: Connection[Any]) -> None:
    """That what was earned and due when the database was restored is payable, however long that takes.

    What is adopted is taken from there: else it would come from the pool of rewards, and be paid again once it is payable.
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


def _book(payouts: Payouts, effect: Effect, transaction: VersionedTransaction, said: Mapping[str, int] | None) -> None:
    """Book one.

    Raises:
        Rejected: it is not one of the ledger's own, or whom it has paid is not known.
    """
    found = attribution.read(payouts.treasury, _payers(payouts.connection), transaction)
    attribution.require_cost(payouts.treasury, effect, found)
    spent = -effect.tokens.get(payouts.treasury.token_account, 0)
    if spent == 0 or effect.error is not None:
        _require_named(payouts.connection, found.opened if effect.error is None else ())
        lines = payouts._cost_lines(effect)
        payouts._post(f"adopt:{effect.signature}", "adopted_cost", lines, {"signature": effect.signature})
        return
    received = {address: change for address, change in effect.tokens.items() if change > 0}
    if received != found.paid or sum(received.values()) != spent:
        raise Rejected("it has paid otherwise than its instructions say")
    known = _open_markers(payouts)
    number = _open_batch(known, found)
    if number is not None:
        batch = _given_up(payouts, number)
    else:
        paid = _recipients(payouts, effect, found, said)
        creators = [each.owner.creator_id for each in paid]
        called_back = [known[address] for address in found.markers[:-1] if address in known]
        numbers = dict.fromkeys((*called_back, *batches.open_of(payouts.connection, creators)))
        for each in numbers:  # nodes are asked before anything is written: the fold goes on beside this
            _require_over(payouts, each)
        for each in numbers:
            _give_back(payouts, each)
        batch = _forgotten(payouts, effect, found, paid)
    _settle(payouts, batch, effect, transaction)
    log.info("adopted a payment that the backup did not know", extra={"batch": batch.id, "pix": spent})


def _payers(connection: Connection[Any]) -> set[str]:
    """Who pays the fees of the ledger's transactions, and who has."""
    rows = connection.execute("SELECT address FROM ledger.own_addresses WHERE role IN ('payer of fees', 'treasury')")
    return {address for (address,) in rows}


def _require_named(connection: Connection[Any], opened: Sequence[str]) -> None:
    """That token accounts were opened for creators: a stranger who closes one keeps its rent.

    Raises:
        Rejected: nobody has named one of these wallets.
    """
    rows = connection.execute(
        "SELECT w FROM unnest(%s::text[]) w WHERE NOT EXISTS (SELECT FROM ledger.wallet_changes c WHERE c.new_wallet = w)",
        (list(opened),),
    ).fetchall()
    if rows:
        raise Rejected(f"it opens a token account of wallet {rows[0][0]}, which no creator has named")


# ── Whom it paid ───────────────────────────────────────────────────────────────────────────────────────────────────


def _recipients(payouts: Payouts, effect: Effect, found: Read, asked: Mapping[str, int] | None) -> list[Received]:
    """Whom a forgotten batch has paid, each once.

    Raises:
        Rejected: nobody has named a wallet that it paid, or it is not certain whose it was.
    """
    said, wallets = asked or {}, _wallets(payouts, found.paid)
    owners = _owners(payouts, wallets, effect.signature)
    choices = []
    for address, _ in found.payments:
        only = said.get(wallets.get(address, ""))
        able = [each for each in owners.get(address, []) if only in (None, each.creator_id)]
        choices.append(sorted(able, key=lambda each: (not each.is_current, each.creator_id)))
    if not all(choices):
        address = next(to for (to, _), some in zip(found.payments, choices, strict=True) if not some)
        whose = "" if asked is None else _unnamed(payouts, found, choices)
        raise Rejected(f"the creator who was paid at wallet {wallets.get(address, address)} has not named it{whose}")
    if found.is_sealed:
        numbers = [[each.creator_id for each in some] for some in choices]
        told = attribution.creators_of(payouts.treasury.secret, found.batch_id, numbers)
        if told is not None:
            by_creator = [{each.creator_id: each for each in some} for some in choices]
            return [
                Received(some[creator], *payment, is_told=True)
                for some, creator, payment in zip(by_creator, told, found.payments, strict=True)
            ]
    is_said = all(wallets[address] in said for address in found.paid)
    if not is_said and (found.is_sealed or batches.knows_sealed(payouts.connection)):
        who = "of none who have named its wallets that they were paid"
        raise Rejected(f"its id says {who}: an administrator may say it")
    return _guessed(found, dict(zip((each.address for each in found.payments), choices, strict=True)), said)


def _unnamed(payouts: Payouts, found: Read, choices: Sequence[Sequence[Owner]]) -> str:
    """Who was paid at wallets that nobody has named, where the batch's id says it: asked of all creators."""
    rows = payouts.connection.execute(
        "SELECT DISTINCT owner FROM ledger.accounts WHERE party = 'creator' ORDER BY 1 LIMIT %s",
        (attribution.TRIED_MAX,),
    ).fetchall()
    everybody = [creator for (creator,) in rows]
    numbers = [[each.creator_id for each in some] or everybody for some in choices]
    try:
        told = attribution.creators_of(payouts.treasury.secret, found.batch_id, numbers) if found.is_sealed else None
    except Rejected:  # too many to try
        told = None
    if told is None:
        return ""
    unnamed = [str(creator) for creator, some in zip(told, choices, strict=True) if not some]
    return f": by its id creators {', '.join(unnamed)} were paid at wallets that they have not named"


def _guessed(found: Read, owners: Mapping[str, Sequence[Owner]], said: Mapping[str, int]) -> list[Received]:
    """Whom a transaction of an earlier release has paid, or one of which an administrator says it.

    Nobody who has named a wallet only since, nor at a former wallet who is paid at another one of the same transaction.
    """
    at = {each.creator_id: address for address, some in owners.items() for each in some if each.is_current}
    received: list[Received] = []
    for address, some in owners.items():
        amounts = [amount for to, amount in found.payments if to == address]
        able = [
            each
            for each in some
            if each.wallet in said or (each.was_before and at.get(each.creator_id, address) == address)
        ]
        received += [Received(owner, address, amount, owner.wallet in said) for owner, amount in _shares(able, amounts)]
    if len({each.owner.creator_id for each in received}) < len(found.payments):
        raise Rejected("whom it has paid is not certain: an administrator may say it")
    return received


def _shares(owners: Sequence[Owner], amounts: Sequence[int]) -> list[tuple[Owner, int]]:
    """Who was paid at one wallet, one for each amount: those who are owed it, so that nobody is paid for the same again.

    Who is paid there now comes before who was once; what nobody is owed was earned after the backup. Amounts are in the order
    of creators' numbers.
    """
    queue = sorted(
        owners, key=lambda each: (each.owed_pix not in amounts, not each.is_current, -each.owed_pix, each.creator_id)
    )
    taken = sorted(queue[: len(amounts)], key=lambda each: each.creator_id)
    return list(zip(taken, amounts, strict=False))


def _wallets(payouts: Payouts, addresses: Collection[str]) -> dict[str, str]:
    """The wallet of each of these token accounts, of those there are or were.

    The chain says whose an account is, and the address follows from that: no node can make it up. Only where an account has
    been closed since is every wallet tried.
    """
    told = _told(payouts, sorted(addresses))
    found = {payouts.treasury.token_account_of(wallet): wallet for wallet in told}
    if not found.keys() >= set(addresses):
        rows = payouts.connection.execute("SELECT DISTINCT new_wallet FROM ledger.wallet_changes")
        found = {payouts.treasury.token_account_of(wallet): wallet for (wallet,) in rows}
    return {address: found[address] for address in addresses if address in found}


def _told(payouts: Payouts, addresses: Sequence[str]) -> set[str]:
    """Wallets that own these token accounts, by any node."""
    seen = payouts.chain.seen_accounts(addresses, "confirmed", opinions=1)
    told = {each.data[OWNER_AT] for accounts in seen for each in accounts if each is not None}
    return {str(Pubkey.from_bytes(owner)) for owner in told if len(owner) == OWNER_AT.stop - OWNER_AT.start}


def _owners(payouts: Payouts, wallets: Mapping[str, str], signature: str) -> dict[str, list[Owner]]:
    """Who is or was paid at these token accounts, by address. `wallets`: of each address."""
    address_of = {wallet: address for address, wallet in wallets.items()}
    rows = payouts.connection.execute(
        "SELECT c.creator_id, c.new_wallet, c.new_wallet IS NOT DISTINCT FROM w.wallet, min(c.set_at) < b.at"
        " FROM ledger.wallet_changes c LEFT JOIN ledger.wallets w ON w.creator_id = c.creator_id,"
        "  (SELECT least((SELECT placed_at FROM ledger.freezes WHERE reason = %s AND released_at IS NULL),"
        "                (SELECT seen_at FROM ledger.chain_transactions WHERE signature = %s)) AS at) b"
        " WHERE c.new_wallet = ANY(%s) GROUP BY c.creator_id, c.new_wallet, w.wallet, b.at ORDER BY 1, 2",
        (RESTORED, signature, list(address_of)),
    ).fetchall()
    accounts = book.accounts_of(payouts.connection, "payable", "creator", sorted({row[0] for row in rows}))
    pending = batches.open_pix(payouts.connection, list(accounts))
    found: dict[str, list[Owner]] = {}
    for creator, wallet, is_now, was_before in rows:
        owed = book.balance(payouts.connection, accounts[creator]) + pending.get(creator, 0)
        owner = Owner(creator, wallet, is_now, was_before, accounts[creator], owed)
        found.setdefault(address_of[wallet], []).append(owner)
    return found


# ── Batches ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _open_batch(known: Mapping[str, str], found: Read) -> str | None:
    """The batch that the backup still knows, by the marker that the transaction has made last, or its memo: its own.

    What the batch had signed itself can never land any more. The markers that it makes before its own are of batches that the
    backup knows as open and that were called back since, whose payouts it repeats: their money goes back first.
    """
    number = known.get(found.markers[-1]) if found.markers else found.batch_id
    return number if number in known.values() else None


def _open_markers(payouts: Payouts) -> dict[str, str]:
    """The payout batches without an end, by the addresses of their markers."""
    rows = payouts.connection.execute("SELECT id FROM ledger.batches WHERE kind = 'payout' AND ended_at IS NULL")
    return {str(payouts.treasury.marker(number).address): number for (number,) in rows.fetchall()}


def _require_over(payouts: Payouts, batch_id: str) -> None:
    """That what a batch has signed is past its last block and unseen; else settling ends it first.

    Raises:
        Temporary: it may still land.
    """
    attempts = [each for each in batches.live_attempts(payouts.connection) if each.batch.id == batch_id]
    if attempts:
        height, slot = payouts.chain.finalized_height(payouts.opinions)
        looks = payouts._looks_since(attempts, slot)
        if not all(is_over(each, height) and payouts._nobody_knows(each, looks) for each in attempts):
            raise Temporary(f"batch {batch_id} of the backup may still land, and its recipients have been paid since")


def _give_back(payouts: Payouts, batch_id: str) -> None:
    """The chain shows that its recipients were paid otherwise since the backup, or that it was called back: void it."""
    batch = _given_up(payouts, batch_id)
    batches.cancel(payouts.connection, batch)
    payouts._give_back(batch, f"void:{batch.id}", [], {"batch": batch.id, "restored": True})


def _given_up(payouts: Payouts, batch_id: str) -> Batch:
    """A batch of which nothing is live any more."""
    for attempt in batches.live_attempts(payouts.connection):
        if attempt.batch.id == batch_id:
            batches.expire(payouts.connection, attempt)
    return batches.one(payouts.connection, batch_id)


def _forgotten(payouts: Payouts, effect: Effect, found: Read, paid: Sequence[Received]) -> Batch:
    """A batch that was planned after the backup: made again, from what its recipients are owed and else `reward_pool`."""
    connection = payouts.connection
    number = _unused(connection, effect, found, paid)
    book.hold_end(connection)  # what they are owed stays what it is: the fold goes on beside this
    dues = [_due(connection, each) for each in paid]
    missing = {each.account_id: each.amount_pix - book.balance(connection, each.account_id) for each in dues}
    early = _earned_again(connection, {each.creator_id: missing[each.account_id] for each in dues})
    for account, lines in early.items():
        missing[account] -= sum(amount for _, amount in lines)
        lines = [(maturing, -amount) for maturing, amount in lines] + [(account, sum(amount for _, amount in lines))]
        payouts._post(f"early:{effect.signature}:{account}", "maturity", lines, {"signature": effect.signature})
    lost = [(account, amount) for account, amount in missing.items() if amount > 0]
    if lost:  # earned after the backup, and lost with it
        lines = [(book.account(connection, "reward_pool"), -sum(amount for _, amount in lost)), *lost]
        payouts._post(f"adopt:{effect.signature}", "adopted_accrual", lines, {"signature": effect.signature})
        paid_to = {each.owner.account_id: each for each in paid}
        given = [(paid_to[account], amount) for account, amount in lost]
        advances.give(
            connection, [(to.owner.creator_id, "" if to.is_told else to.owner.wallet, pix) for to, pix in given]
        )
    recipients = tuple(batches.Recipient(d.creator_id, d.wallet, d.address or "", d.amount_pix) for d in dues)
    batch = Batch(number, "payout", "planned", sum(each.amount for each in paid), recipients)
    batches.add(connection, [batch])
    batches.pend(connection, [(batch, dues)])
    if found.markers:
        own = found.markers[-1]
        batches.add_marker(connection, batch, own, max(effect.lamports.get(own, 0), 0))
    return batch


def _unused(connection: Connection[Any], effect: Effect, found: Read, paid: Sequence[Received]) -> str:
    """The batch's id that stands in its transaction; another one where none does, or where that has gone back by now.

    Raises:
        Rejected: the batch has been paid, or was to pay something else: whoever has the treasury's key has used its id again.
    """
    if found.batch_id and not batches.is_known(connection, found.batch_id):
        return found.batch_id
    if found.batch_id:
        plan = batches.gone_back(connection, found.batch_id)
        same = {(each.owner.creator_id, each.owner.wallet, each.address, each.amount) for each in paid}
        if plan is None or {tuple(each) for each in plan} != same:
            raise Rejected(f"batch {found.batch_id} has been paid already, or was to pay something else")
    return hashlib.sha256(effect.signature.encode()).hexdigest()[:32]


def _earned_again(connection: Connection[Any], missing: Mapping[int, int]) -> dict[int, list[tuple[int, int]]]:
    """What of these creators' missing money matures only later, because it was folded again after the restore, or came back
    with a spool since.

    It had matured in the time that is forgotten, and was paid. Taken from the youngest earnings, and from no more than what
    folds have brought of what was shown before the restore; by the account that it is payable at, as (maturing account,
    amount).
    """
    wanted = {creator: amount for creator, amount in missing.items() if amount > 0}
    again = advances.folded_again(connection, list(wanted))
    rows = connection.execute(
        "SELECT owner, id, balance FROM ledger.accounts WHERE kind = 'maturing' AND party = 'creator' AND owner = ANY(%s)"
        " AND balance > 0 ORDER BY owner",
        (list(again),),
    ).fetchall()
    payable = book.accounts_of(connection, "payable", "creator", [row[0] for row in rows])
    found: dict[int, list[tuple[int, int]]] = {}
    for creator, maturing, balance in rows:
        taken = _take_youngest(connection, maturing, min(balance, again[creator], wanted[creator]))
        if taken:
            advances.take_again(connection, creator, taken)
            found[payable[creator]] = [(maturing, taken)]
    return found


def _take_youngest(connection: Connection[Any], account: int, most: int) -> int:
    """Take this much out of an account's earnings that mature last; returns how much there was."""
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


def _due(connection: Connection[Any], paid: Received) -> Due:
    row = connection.execute(
        "SELECT (now() AT TIME ZONE 'utc')::date, (SELECT count(*) FROM ledger.payouts p WHERE p.creator_id = %s"
        " AND p.period = (now() AT TIME ZONE 'utc')::date)::int",
        (paid.owner.creator_id,),
    ).fetchone()
    assert row is not None
    owner = paid.owner
    return Due(owner.creator_id, owner.account_id, owner.wallet, paid.amount, row[0], row[1], paid.address)


def _settle(payouts: Payouts, batch: Batch, effect: Effect, transaction: VersionedTransaction) -> None:
    raw, message = bytes(transaction), transaction.message
    blockhash = Blockhash(str(message.recent_blockhash), effect.slot + LIFE_BLOCKS, effect.slot)
    if not payouts._is_as_planned(batch, effect):
        raise Rejected(f"batch {batch.id} was to pay something else", status=409, code="batch-differs")
    batches.persist(payouts.connection, [(batch, effect.signature, raw)], blockhash)
    attempt = Attempt(batch, 1, effect.signature, raw, blockhash.last_valid_block_height)
    batches.land(payouts.connection, attempt, effect.slot, effect.fee)
    payouts._take_note(attempt, effect)
