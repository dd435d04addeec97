"""The story of a payout: plan → sign → persist → send → settle. Exactly once, whatever breaks in between.

* Plan: money moves from `payable` to `in_flight`, in one transaction with the batch it goes out in.
* Sign, then persist: signature, bytes and the last height at which they can land are committed before a byte is sent.
* Send: the same bytes, again and again, to every node. What a node answers is a hint, never a fact.
* Settle: only a *finalized* transaction counts. It posts the transfers (or, if it failed, gives the money back).
* Expire: bytes that never landed are signed anew only once it is proven that they never will: the finalized height is
  past their last, and a look made after that, at a slot at least as new, by every node that is asked, finds nothing,
  nor does the batch's marker account exist. Before that both could land, and we would pay twice.

A crash between any two lines loses nothing: each step starts from what the database says. The second wall is the
marker: an account whose creation is part of the transaction, so that a second one for the same batch fails whole.
"""

from __future__ import annotations

import logging

from cluster.errors import Temporary
from ledger.payouts.resolving import Resolving
from ledger.risk import stops
from ledger.solana.chain import RpcRefusal

log = logging.getLogger(__name__)


class Payouts(Resolving):
    """The whole of it: one round is settle, resolve, plan, sign, send."""

    def run_once(self, *, plan: bool = True) -> None:
        """One round at our own pace. Each step commits for itself. `plan`: also begin something new.

        Raises:
            Temporary, RpcRefusal: a step could not be done now; the others were.
        """
        trouble: Exception | None = None
        self.planned_now = frozenset()  # what a round has planned and not signed waited, and is asked about again
        for step in (self.settle, self.resolve, self.plan, self.sign, self.send):
            begins = step in (self.plan, self.sign)
            if begins and not (plan and stops.frozen(self.connection) is None):
                continue
            try:
                step()
                self.connection.commit()
            except (Temporary, RpcRefusal) as error:
                self.connection.rollback()
                log.warning("payouts wait: %s", error, extra={"step": step.__name__})
                trouble = trouble or error
        if trouble is not None:
            raise trouble
