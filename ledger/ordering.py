"""Carrying out orders: adopt, book a withdrawal or a correction, take a new secret. See `orders` for who may ask.

Of what the chain did only finalized transactions count, by as many nodes as an end needs; amounts are the chain's, and an
order that names others is refused. A correction moves what the journal holds from one account to another, and nothing on chain.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from typing import Any

import psycopg
from psycopg import Connection

from cluster.errors import Rejected, Temporary
from ledger import adoption, batches, book, money, orders, stops, treasury
from ledger.chain import RpcRefusal
from ledger.orders import Order
from ledger.payouts import Payouts

log = logging.getLogger(__name__)

Conn = Connection[Any]
Outcome = tuple[str, int | None]  # in words, and the entry that was written

UNFIT = (
    Rejected,
    KeyError,
    TypeError,
    ValueError,
    ArithmeticError,
    psycopg.DataError,
)  # but the first: a body that no command has made
PAYERS = ("platform", "reward_pool")  # what a withdrawal may have been taken from
OWNER = re.compile(r"[1-9][0-9]{0,17}")
CORRECTED = ("chain", "reward_pool", "platform", "payable")  # buckets and transfers say what the other accounts hold


def carry_out(payouts: Payouts) -> None:
    """Carry out what is ordered; each order is answered, and what is booked for it is committed with the answer.

    But for an order to adopt: that asks nodes about one transaction after the other, so each is committed by itself (else
    the end of the journal would be locked meanwhile, and nothing folded), and one that is interrupted goes on later.
    """
    connection = payouts.connection
    waiting = orders.ready(connection, payouts.settings.orders_by_two)
    connection.commit()
    for order in waiting:
        try:
            if order.kind == orders.ADOPT:
                _adopt_since(payouts, order)
            with book.refusals(), connection.transaction():  # what is done and that it is done, or neither
                outcome, entry_id = WAYS[order.kind](payouts, order)
                orders.done(connection, order.id, True, outcome, entry_id)
        except UNFIT as refusal:
            connection.rollback()
            outcome = (
                str(refusal) if isinstance(refusal, Rejected) else f"the order does not say what it needs: {refusal!r}"
            )
            orders.done(connection, order.id, False, outcome, None)
            book.commit(connection)
        except (Temporary, RpcRefusal) as error:  # of one order, which waits; the others are carried out
            connection.rollback()
            log.warning("an order cannot be carried out now: %s", error, extra={"order": order.id})
            continue
        log.warning("an order", extra={"kind": order.kind, "outcome": outcome, **order.by})


# ── Adopt since ────────────────────────────────────────────────────────────────────────────────────────────────────

SINCE = "c.slot >= %(slot)s AND c.seen_at >= %(since)s::timestamptz"
STILL_UNKNOWN = f"""
    SELECT c.signature FROM ledger.chain_transactions c WHERE c.kind = 'unknown' AND {SINCE} ORDER BY c.slot, c.seen_at"""
# What was read as unknown and has an end of ours that is younger than that, and than the order.
ADOPTED = f"""
    SELECT count(*) FROM ledger.chain_transactions c WHERE c.kind <> 'unknown' AND {SINCE} AND (
        EXISTS (SELECT FROM ledger.attempts a
                WHERE a.signature = c.signature AND a.signed_at > greatest(c.seen_at, %(ordered_at)s))
        OR EXISTS (SELECT FROM ledger.entries e
                   WHERE e.key = 'adopt:' || c.signature AND e.recorded_at > greatest(c.seen_at, %(ordered_at)s)))"""


def _adopt_since(payouts: Payouts, order: Order) -> None:
    """Declare that the database has gone back, and adopt what was read as unknown since a slot, or a time it was read at.

    Raises:
        Temporary: nodes do not tell enough of one now; what comes before it is adopted.
    """
    connection = payouts.connection
    rows = connection.execute(STILL_UNKNOWN, _since(order)).fetchall()
    said = {str(wallet): int(creator) for wallet, creator in dict(order.body.get("wallets", {})).items()}
    if not stops.is_frozen_for(connection, adoption.RESTORED):
        with book.refusals():
            stops.freeze(connection, adoption.RESTORED, dict(order.by))  # also while what was paid cannot be read yet
    book.commit(connection)
    for (signature,) in rows:
        effect = payouts.chain.effect(signature, payouts.opinions)
        if effect is None:
            raise Temporary(f"nodes do not agree on transaction {signature}")
        if not batches.known(connection, [signature]) and adoption.adopt(payouts, effect, said):
            has_paid = effect.tokens.get(payouts.treasury.token_account, 0) != 0
            _mark_known(connection, signature, "attempt" if has_paid else "neutral", None)
        book.commit(connection)


def _adopted_since(payouts: Payouts, order: Order) -> Outcome:
    """What has come of an order to adopt."""
    connection, body = payouts.connection, order.body
    left = connection.execute(STILL_UNKNOWN, _since(order)).fetchall()
    adopted = connection.execute(ADOPTED, _since(order) | {"ordered_at": order.ordered_at}).fetchone()
    assert adopted is not None  # of a count
    since = f"slot {int(body['since_slot'])}" if "since_slot" in body else str(body["since"])
    signature, why = payouts.refused
    named = f", and {len(left)} not, as {left[-1][0]}" if left else ""
    named += f": {why}" if left and left[-1][0] == signature else ""
    return f"{adopted[0]} transactions since {since} are adopted{named}", None


def _since(order: Order) -> dict[str, Any]:
    """Since which slot and which time, as the queries name them."""
    body = order.body
    if not {"since_slot", "since"} & body.keys():
        raise _refused("it is not said since when")
    return {"slot": int(body.get("since_slot", 0)), "since": str(body.get("since", "-infinity"))}


# ── Withdrawals, corrections ───────────────────────────────────────────────────────────────────────────────────────


def _book_withdrawal(payouts: Payouts, order: Order) -> Outcome:
    """A transaction took money from the treasury on purpose: the journal follows."""
    connection, signature, payer = payouts.connection, str(order.body["signature"]), str(order.body["from"])
    if payer not in PAYERS:
        raise _refused(f"a withdrawal is from {' or '.join(PAYERS)}")
    row = connection.execute(
        "SELECT kind, delta_pix, delta_lamports FROM ledger.chain_transactions WHERE signature = %s", (signature,)
    ).fetchone()
    if row is None or row[0] != "unknown" or batches.known(connection, [signature]):
        raise _refused(f"the ledger has not read {signature} as an unknown transaction")
    effect = payouts.chain.effect(signature, payouts.opinions)
    if effect is None:
        raise Temporary(f"nodes do not agree on transaction {signature}")
    pix = effect.tokens.get(payouts.treasury.token_account, 0)
    lamports = effect.lamports.get(str(payouts.treasury.payer.gas), 0)
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


def _correct(payouts: Payouts, order: Order) -> Outcome:
    """Move an amount of the journal from one account to another."""
    connection = payouts.connection
    asset, amount = str(order.body["asset"]), money.amount(order.body["amount"])
    given, taken = (_account(connection, str(order.body[name]), asset) for name in ("to", "from"))
    if given == taken:
        raise _refused("a correction is from one account to another")
    lines = [(taken, -amount), (given, amount)]
    entry = book.post(connection, book.Entry("correction", f"order:{order.id}", lines, dict(order.by)))
    return f"booked: {amount} base units of {asset} from {order.body['from']} to {order.body['to']}", entry.id


def _account(connection: Conn, name: str, asset: str) -> int:
    """The account that `kind` or `payable:creator:NUMBER` names."""
    kind, *owner = name.split(":")
    if kind not in CORRECTED or (kind == "payable") != (len(owner) == 2):
        named = ", ".join(CORRECTED[:-1])
        raise _refused(f"no correction is about account {name!r}: name {named}, payable:creator:NUMBER")
    if not owner:
        return book.account(connection, kind, asset)
    party, number = owner
    if asset != "PIX" or party not in ("creator", "investor") or not OWNER.fullmatch(number):
        raise _refused(f"there is no account {name!r} in {asset}")
    if party == "creator":  # what is booked to nobody would be paid to whoever is given the number later
        stops.require_known(connection, int(number))
    return book.accounts_of(connection, kind, party, [int(number)])[int(number)]


def _keep_secret(_payouts: Payouts, _order: Order) -> Outcome:
    """The treasury is open, so its secret is the one that is known."""
    raise _refused("the ledger knows this secret of the batches: there is no other to take")


def _mark_known(connection: Conn, signature: str, kind: str, entry_id: int | None) -> None:
    with book.refusals():
        connection.execute(
            "UPDATE ledger.chain_transactions SET kind = %s, entry_id = %s WHERE signature = %s",
            (kind, entry_id, signature),
        )


WAYS: Mapping[str, Callable[[Payouts, Order], Outcome]] = {
    orders.ADOPT: _adopted_since,
    orders.WITHDRAWAL: _book_withdrawal,
    orders.CORRECTION: _correct,
    orders.SECRET: _keep_secret,
}


def take_new_secret(connection: Conn, secret: str, by_two: bool) -> bool:
    """Carry out the order that the secret of the batches, which was lost, is another one from now on; whether there was one.

    Markers of before are not found again by the new secret, and their rent is lost. So nothing that was signed under them
    may still be able to land, by the database's clock; until then the order is refused.
    """
    waiting = [each for each in orders.ready(connection, by_two) if each.kind == orders.SECRET]
    if not waiting:
        connection.commit()
        return False
    order = waiting[0]
    young = batches.young(connection)
    if young:
        said = (
            f"{young} transactions that were signed under the lost secret are younger than {batches.LINEAGE_DAYS} days"
        )
        orders.done(connection, order.id, False, f"{said}: put it back, or order again then", None)
    else:
        treasury.take_mark(connection, secret)
        orders.done(connection, order.id, True, "ids and markers of batches derive from the new secret", None)
    book.commit(connection)
    log.warning("an order", extra={"order": order.id, "kind": order.kind, "taken": not young, **order.by})
    return not young


def _refused(why: str) -> Rejected:
    return Rejected(why, status=409, code="order-refused")
