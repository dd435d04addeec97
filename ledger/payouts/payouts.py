"""The story of a payout: plan → sign → persist → send → settle. Exactly once, whatever breaks in between.

* Plan: money moves from `payable` to `in_flight`, in one transaction with the batch it goes out in.
* Sign, then persist: the transaction's name, its bytes and the time until which they can land are committed before a
  byte is sent.
* Send: the same bytes, again and again. A node's answer is a hint, never a fact.
* Settle: only a *final* transaction counts. It posts the transfers (or, if it failed, gives the money back).
* Expire, a part of settling: a batch is signed again only once it is proven that its earlier bytes will never land;
  otherwise both transactions could land, and we would pay twice. The proof on Solana: the finalized height is past the
  last one at which the bytes are valid. After that, at a slot at least as new, no node that answers knows their
  transaction, and `Rail.opinions` nodes remember the whole time since they were signed. And no node reports the batch's
  marker account.

A crash between any two steps loses nothing, since each step starts from what the database says. The marker is a second
protection against paying twice: an account that the transaction creates, so that a second transaction of the same batch
fails whole.

The rail decides how a batch becomes bytes and what proves its end (see `rail`).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from ledger.payouts import planning, resolving, settling, signing
from ledger.payouts.batches import Batch
from ledger.payouts.rail import UNREACHABLE, Rail
from ledger.risk import stops

log = logging.getLogger(__name__)


def run_once(rail: Rail, *, plan: bool = True) -> None:
    """Do one round on a rail: settle (and expire), resolve, plan, sign, send. Each step commits by itself.

    Args:
        rail: the rail that pays.
        plan: whether to plan and sign, too. While payouts are frozen, neither is done.

    Raises:
        Temporary, RpcRefusal: a step could not be done now; the other steps were done.
    """
    troubles: list[Exception] = []
    planned: list[Batch] = []  # in this round: their recipients are not looked at twice
    signed: list[str] = []
    with _step("settle", rail, troubles):
        settling.settle(rail)
    with _step("resolve", rail, troubles):
        resolving.resolve(rail)
    if plan and stops.frozen(rail.connection) is None:
        with _step("plan", rail, troubles):
            planned = planning.plan(rail)
    if plan and stops.frozen(rail.connection) is None:
        with _step("sign", rail, troubles):
            signed = signing.sign(rail, planned)
    with _step("send", rail, troubles):
        signing.send(rail, signed)
    if troubles:
        raise troubles[0]


@contextmanager
def _step(name: str, rail: Rail, troubles: list[Exception]) -> Iterator[None]:
    """Commit what the step in this context did.

    If the rail could not be reached, roll back what the step has not committed, and add the error to `troubles`.
    """
    try:
        yield
        rail.connection.commit()
    except UNREACHABLE as error:
        rail.connection.rollback()
        log.warning("payouts wait: %s", error, extra={"step": name})
        troubles.append(error)
