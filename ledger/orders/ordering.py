"""Carrying out orders: adopt, book a withdrawal or a correction, take a new secret. See `orders` for who may order.

Only finalized transactions count, and only if as many nodes report them as for the end of a payout. The chain's amounts
are booked; an order that states other amounts is refused. A correction moves money from one account of the journal to
another, and nothing on chain.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

import psycopg
from psycopg import Connection

from cluster.errors import Rejected, Temporary
from ledger import money
from ledger.journal import book
from ledger.orders import orders
from ledger.orders.orders import Order
from ledger.payouts import adoption, batches
from ledger.payouts.rail import UNREACHABLE, ChainRail
from ledger.risk import stops
from ledger.solana import treasury

log = logging.getLogger(__name__)

Conn = Connection[Any]
Outcome = tuple[str, int | None]  # what was done in words, and the entry that was written

UNFIT = (Rejected, KeyError, TypeError, ValueError, psycopg.DataError)  # all but the first: a body that no command made
PAYERS = ("platform", "reward_pool")  # what a withdrawal may have been taken from
# What a correction may name. What other accounts hold must equal `ledger.maturing` and pending transfers.
CORRECTED = ("chain", "reward_pool", "platform", "payable")


def carry_out(rail: ChainRail) -> None:
    """Carry out the orders that are ready. Each is booked and answered in one transaction.

    An order to adopt is an exception. It asks nodes about one transaction after the other, so each adoption is
    committed by itself; otherwise the end of the journal would be locked meanwhile, and nothing could be folded. If
    such an order is interrupted, a later round continues it.
    """
    connection = rail.connection
    waiting = orders.ready(connection, rail.settings.orders_by_two)
    connection.commit()
    for order in waiting:
        try:
            if order.kind == orders.ADOPT:
                _adopt_since(rail, order)
            with book.refusals(), connection.transaction():  # what is done and that it is done, or neither
                outcome, entry_id = WAYS[order.kind](rail, order)
                orders.answer(connection, order.id, True, outcome, entry_id)
        except UNFIT as refusal:
            connection.rollback()
            outcome = (
                str(refusal) if isinstance(refusal, Rejected) else f"the order does not say what it needs: {refusal!r}"
            )
            orders.answer(connection, order.id, False, outcome, None)
            book.commit(connection)
        except UNREACHABLE as error:  # of one order, which waits; the others are carried out
            connection.rollback()
            log.warning("an order cannot be carried out now: %s", error, extra={"order": order.id})
            continue
        log.warning("an order", extra={"kind": order.kind, "outcome": outcome, **order.by})


# ── Adopt since ────────────────────────────────────────────────────────────────────────────────────────────────────

SINCE = "c.slot >= %(slot)s AND c.seen_at >= %(since)s::timestamptz"
STILL_UNKNOWN = f"""
    SELECT c.signature FROM ledger.chain_transactions c WHERE c.kind = 'unknown' AND {SINCE} ORDER BY c.slot, c.seen_at"""
# Transactions that were read as unknown and have an attempt or an entry that is younger than that, and than the order.
ADOPTED = f"""
    SELECT count(*) FROM ledger.chain_transactions c WHERE c.kind <> 'unknown' AND {SINCE} AND (
        EXISTS (SELECT FROM ledger.attempts a
                WHERE a.signature = c.signature AND a.signed_at > greatest(c.seen_at, %(ordered_at)s))
        OR EXISTS (SELECT FROM ledger.entries e
                   WHERE e.key = 'adopt:' || c.signature AND e.recorded_at > greatest(c.seen_at, %(ordered_at)s)))"""


def _adopt_since(rail: ChainRail, order: Order) -> None:
    """Freeze payouts as after a restore, and adopt transactions that were read as unknown.

    The order names the first slot of these transactions, or the time since which they were read.

    Raises:
        Temporary: nodes do not tell enough about one of them now. Those before it are adopted.
    """
    connection = rail.connection
    rows = connection.execute(STILL_UNKNOWN, _since(order)).fetchall()
    if not stops.is_frozen_for(connection, adoption.RESTORED):
        with book.refusals():
            stops.freeze(connection, adoption.RESTORED, dict(order.by))  # also while what was paid cannot be read yet
    book.commit(connection)
    for (signature,) in rows:
        effect = rail.chain.effect(signature, rail.opinions)
        if effect is None:
            raise Temporary(f"nodes do not agree on transaction {signature}")
        if not batches.known(connection, [signature]) and adoption.adopt(rail, effect):
            has_paid = effect.tokens.get(rail.treasury.token_account, 0) != 0
            _mark_known(connection, signature, "attempt" if has_paid else "neutral", None)
        book.commit(connection)


def _adopted_since(rail: ChainRail, order: Order) -> Outcome:
    """Describe the result: how many transactions an order to adopt has adopted, and how many are still unknown."""
    connection, body = rail.connection, order.body
    unknown = connection.execute(STILL_UNKNOWN, _since(order)).fetchall()
    adopted = connection.execute(ADOPTED, _since(order) | {"ordered_at": order.ordered_at}).fetchone()
    assert adopted is not None  # of a count
    since = f"slot {int(body['since_slot'])}" if "since_slot" in body else str(body["since"])
    beside = f", and {len(unknown)} not, as {unknown[0][0]}" if unknown else ""
    return f"{adopted[0]} transactions since {since} are adopted{beside}", None


def _since(order: Order) -> dict[str, Any]:
    """Return the query parameters for the slot or time that an order to adopt names.

    Raises:
        Rejected: the order names neither.
    """
    body = order.body
    if not {"since_slot", "since"} & body.keys():
        raise _refused("it is not said since when")
    return {"slot": int(body.get("since_slot", 0)), "since": str(body.get("since", "-infinity"))}


# ── Withdrawals, corrections ───────────────────────────────────────────────────────────────────────────────────────


def _book_withdrawal(rail: ChainRail, order: Order) -> Outcome:
    """Book a transaction that took money from the treasury on purpose."""
    connection, signature, payer = rail.connection, str(order.body["signature"]), str(order.body["from"])
    if payer not in PAYERS:
        raise _refused(f"a withdrawal is from {' or '.join(PAYERS)}")
    row = connection.execute(
        "SELECT kind, delta_pix, delta_lamports FROM ledger.chain_transactions WHERE signature = %s", (signature,)
    ).fetchone()
    if row is None or row[0] != "unknown" or batches.known(connection, [signature]):
        raise _refused(f"the ledger has not read {signature} as an unknown transaction")
    effect = rail.chain.effect(signature, rail.opinions)
    if effect is None:
        raise Temporary(f"nodes do not agree on transaction {signature}")
    pix = effect.tokens.get(rail.treasury.token_account, 0)
    lamports = effect.lamports.get(str(rail.treasury.payer.gas), 0)
    if (pix, lamports) != (row[1], row[2]) or (-pix, -lamports) != (order.body["pix"], order.body["lamports"]):
        raise _refused(f"transaction {signature} took {-pix} base units and {-lamports} lamports, not what is ordered")
    lines: list[tuple[int, int]] = []
    for asset, kind, change in (("PIX", payer, pix), ("SOL", "platform", lamports)):
        if change:
            lines += [
                (book.account(connection, kind, asset), change),
                (book.account(connection, "chain", asset), -change),
            ]
    document = {**order.by, "signature": signature, "slot": effect.slot}
    entry = book.post(connection, book.Entry("withdrawal", f"withdrawal:{signature}", lines, document))
    _mark_known(connection, signature, "withdrawal", entry.id)
    return f"booked: {-pix} base units from {payer} and {-lamports} lamports from platform", entry.id


def _correct(rail: ChainRail, order: Order) -> Outcome:
    """Move an amount of the journal from one account to another."""
    connection = rail.connection
    asset, amount = str(order.body["asset"]), money.amount(order.body["amount"])
    target, source = (_account(connection, str(order.body[name]), asset) for name in ("to", "from"))
    if target == source:
        raise _refused("a correction is from one account to another")
    lines = [(source, -amount), (target, amount)]
    entry = book.post(connection, book.Entry("correction", f"order:{order.id}", lines, dict(order.by)))
    return f"booked: {amount} base units of {asset} from {order.body['from']} to {order.body['to']}", entry.id


def _account(connection: Conn, name: str, asset: str) -> int:
    """Return the account that `kind` or `payable:creator:NUMBER` names.

    Raises:
        Rejected: no account has this name, or corrections may not touch it.
    """
    kind, *owner = name.split(":")
    if kind not in CORRECTED or (kind == "payable") != (len(owner) == 2):
        named = ", ".join(CORRECTED[:-1])
        raise _refused(f"no correction is about account {name!r}: name {named}, payable:creator:NUMBER")
    if not owner:
        return book.account(connection, kind, asset)
    party, number = owner
    if asset != "PIX" or party not in ("creator", "investor") or not (number.isdecimal() and len(number) < 19):
        raise _refused(f"there is no account {name!r} in {asset}")
    return book.accounts_of(connection, kind, party, [int(number)])[int(number)]


def _keep_secret(_rail: ChainRail, _order: Order) -> Outcome:
    """Refuse an order for a new secret: the treasury could be opened, so the ledger has the secret already."""
    raise _refused("the ledger knows this secret of the batches: there is no other to take")


def _mark_known(connection: Conn, signature: str, kind: str, entry_id: int | None) -> None:
    with book.refusals():
        connection.execute(
            "UPDATE ledger.chain_transactions SET kind = %s, entry_id = %s WHERE signature = %s",
            (kind, entry_id, signature),
        )


WAYS: Mapping[str, Callable[[ChainRail, Order], Outcome]] = {
    orders.ADOPT: _adopted_since,
    orders.WITHDRAWAL: _book_withdrawal,
    orders.CORRECTION: _correct,
    orders.SECRET: _keep_secret,
}


def take_new_secret(connection: Conn, secret: str, by_two: bool) -> bool:
    """Carry out an order to use another secret for batches, since the old one was lost. Returns whether it was done.

    Markers of the lost secret cannot be derived again; their rent is lost. So the order is refused while a transaction
    that was signed under that secret can still land, by the database's clock.
    """
    secret_orders = [each for each in orders.ready(connection, by_two) if each.kind == orders.SECRET]
    if not secret_orders:
        connection.commit()
        return False
    order = secret_orders[0]
    young = batches.count_young(connection)
    if young:
        refusal = (
            f"{young} transactions that were signed under the lost secret are younger than {batches.LINEAGE_DAYS} days"
        )
        orders.answer(connection, order.id, False, f"{refusal}: put it back, or order again then", None)
    else:
        treasury.replace_secret(connection, secret)
        orders.answer(connection, order.id, True, "ids and markers of batches derive from the new secret", None)
    book.commit(connection)
    log.warning("an order", extra={"order": order.id, "kind": order.kind, "taken": not young, **order.by})
    return not young


def _refused(why: str) -> Rejected:
    return Rejected(why, status=409, code="order-refused")
