"""Settling: only a finalized transaction counts. It posts the transfers or, if it failed, gives the money back.

Bytes that never landed are given up only once it is proven that they never will: the finalized height is past their
last, and a look made after that, at a slot at least as new, by every node that is asked, finds nothing, nor does the
batch's marker account exist. Before that both could land, and we would pay twice.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from solders.transaction import VersionedTransaction

from cluster.errors import Temporary
from ledger import batches, book, stops, verdict
from ledger.batches import Attempt, Batch
from ledger.chain import Effect, Look, RpcRefusal
from ledger.rail import PAID_UNKNOWN, is_over
from ledger.signing import CLOSED, Signing
from ledger.verdict import Fault

log = logging.getLogger(__name__)

IN_VAIN = "transactions fail on chain again and again, and no recipient is at fault"
IN_VAIN_S = 86_400.0  # in which signings are counted of which a transaction has failed so
IN_VAIN_HINT = (
    "ask each RPC node for unitsConsumed of simulateTransaction and for what the treasury holds: take the one that names too"
    " few or too much out of [solana] urls, then release this"
)
LANDED_LATE = "a transaction that was given up has landed: a node cannot be trusted"


class Settling(Signing):
    """The last step of a payout."""

    def settle(self) -> None:
        """End every attempt whose end is certain."""
        live, given_up = batches.live_attempts(self.connection), batches.given_up(self.connection)
        self.connection.commit()
        if not live and not given_up:
            return
        looks = self.chain.looks([each.signature for each in (*given_up, *live)])
        for attempt in given_up:
            effect = self._finalized(attempt, looks)
            if effect is not None and self._revive(attempt, effect, live):
                return  # what was read of the others may be about the same batch
        unseen = [attempt for attempt in live if self._is_unseen(attempt, looks)]
        if unseen:
            self._expire(unseen)

    def _is_unseen(self, attempt: Attempt, looks: Sequence[Look]) -> bool:
        """End an attempt whose end is certain; whether no node knows it."""
        try:
            effect = self._finalized(attempt, looks)
            if effect is not None:
                self._ended(attempt, effect)
                return False
        except (Temporary, RpcRefusal) as error:  # of one attempt; the others are settled
            self.connection.rollback()
            log.warning("an attempt cannot be settled now: %s", error, extra={"batch": attempt.batch.id})
            return False
        return bool(looks) and all(look.statuses[attempt.signature] is None for look in looks)

    def _finalized(self, attempt: Attempt, looks: Sequence[Look]) -> Effect | None:
        """What the transaction did, if a node says that it is final and enough of them agree on the effect."""
        statuses = [status for look in looks if (status := look.statuses[attempt.signature]) is not None]
        if not any(status.level == "finalized" for status in statuses):
            return None
        return self.chain.effect(attempt.signature, self.opinions)

    def _revive(self, attempt: Attempt, effect: Effect, live: Sequence[Attempt]) -> bool:
        """We gave it up and the chain did not. If it paid, a later attempt of the batch can only fail at the marker.

        False while such an attempt may still land, or (without markers) has paid as well, which it then ends as. One that
        can never land is given up: that the batch has paid is known here, so that its marker, which stands, says nothing.
        """
        stops.freeze(self.connection, LANDED_LATE, self._proof(attempt, effect))
        book.commit(
            self.connection
        )  # and before nodes are asked: what is written meanwhile would keep the fold waiting
        rivals = [each for each in live if each.batch.id == attempt.batch.id and effect.error is None]
        ends = [(rival, self.chain.effect(rival.signature, self.opinions)) for rival in rivals]
        over = {rival.signature for rival, ended in ends if ended is None and self._can_never_land(rival)}
        for rival, ended in ends:
            if rival.signature in over:
                batches.expire(self.connection, rival)
                continue
            if ended is None or ended.error is None:
                book.commit(self.connection)
                return False
            batches.fail_attempt(self.connection, rival, ended.slot, ended.fee, ended.error)
            self._cost_only(rival, ended)
        batches.revive(self.connection, attempt, effect.slot, effect.fee, effect.error)
        if effect.error is None:
            self._take_note(attempt, effect)
        else:
            self._cost_only(attempt, effect)
        book.commit(self.connection)
        return True

    def _can_never_land(self, attempt: Attempt) -> bool:
        """Whether the finalized height is past its last, and no node that has looked since then knows it."""
        height, slot = self.chain.finalized_height(self.opinions)
        return is_over(attempt, height) and self._nobody_knows(attempt, self._looks_since([attempt], slot))

    def _cost_only(self, attempt: Attempt, effect: Effect) -> None:
        """The attempt failed and its batch goes on: only the fee is booked."""
        key, proof = f"fail:{attempt.signature}", self._proof(attempt, effect)
        self._post(key, f"{attempt.batch.kind}_late", self._cost_lines(effect), proof)

    def _ended(self, attempt: Attempt, effect: Effect) -> None:
        """One transaction of ours: the attempt, the money and what it cost, together."""
        if effect.error is not None:
            self._failed(attempt, effect)
        elif not self._is_as_planned(attempt.batch, effect):
            stops.freeze(
                self.connection, "a transaction did something else than was signed", self._proof(attempt, effect)
            )
        else:
            batches.land(self.connection, attempt, effect.slot, effect.fee)
            self._take_note(attempt, effect)
        book.commit(self.connection)

    def _failed(self, attempt: Attempt, effect: Effect) -> None:
        """It moved nothing. Failing at the marker proves that another one has; else the money goes back once none can."""
        batch = attempt.batch
        fault = _fault(attempt.raw, batch.kind, len(batch.recipients), effect.error)
        if fault is Fault.MARKER:
            if attempt.n == 1:  # else an earlier attempt has paid: it is found among those given up
                stops.freeze(self.connection, PAID_UNKNOWN, self._proof(attempt, effect))
            return
        if (
            fault is Fault.LINEAGE and batches.lineage(self.connection, [batch.id])[batch.id]
        ):  # else it was a stranger's
            self._freeze_lineage(batch, self._proof(attempt, effect))
            return
        if not self._never_paid(batch, effect.slot):
            return
        is_recipients = fault is Fault.RECIPIENT and not self._treasury_is_frozen()
        is_gone = is_recipients and self._forget_gone(batch)
        batches.fail(self.connection, attempt, effect.slot, effect.fee, effect.error)
        proof = self._proof(attempt, effect)
        self._give_back(batch, f"fail:{attempt.signature}", self._cost_lines(effect), proof)
        if is_recipients and not is_gone:
            self._take_apart(batch, f"the transaction failed: {effect.error}; {CLOSED}")
        if fault is Fault.NOBODY:
            self._stop_in_vain()

    def _stop_in_vain(self) -> None:
        """Freeze payouts where signing after signing has failed of late through nobody's fault: what went back is planned
        again, and each of them costs a fee.

        A signing counts once, however many of its transactions fail; none counts that ended before such a freeze did.
        """
        failed: dict[str, batches.Failed] = {}
        for each in batches.failed_since(self.connection, IN_VAIN, IN_VAIN_S):
            if each.signed_at in failed or _fault(each.raw, each.kind, each.recipients, each.error) is not Fault.NOBODY:
                continue
            failed[each.signed_at] = each
            if len(failed) >= self.settings.failed_signings_day_max:
                errors = {each.batch_id: each.error for each in failed.values()}
                stops.freeze(self.connection, IN_VAIN, {"failed": errors, "hint": IN_VAIN_HINT})
                return

    def _take_note(self, attempt: Attempt, effect: Effect) -> None:
        """A batch has landed: post its transfers, and remember what it has made on chain."""
        batch, lines = attempt.batch, self._cost_lines(effect)
        if batch.kind == "payout":
            in_flight, chain = book.account(self.connection, "in_flight"), book.account(self.connection, "chain")
            lines = [(in_flight, -batch.amount_pix), (chain, batch.amount_pix), *lines]
        entry = self._post(f"settle:{attempt.signature}", f"{batch.kind}_settled", lines, self._proof(attempt, effect))
        if batch.kind == "payout" and entry is not None:
            batches.end_transfers(self.connection, batch, "posted", entry.id)
            batches.received(self.connection, batch)
            self._keep_marker(batch)
        if batch.kind == "reclaim":
            batches.reclaimed(self.connection, batch)
        if batch.kind == "accounts":
            for each in batch.recipients:
                batches.know_account(self.connection, self.treasury.mint, each, batch.id)

    def _keep_marker(self, batch: Batch) -> None:
        """Its rent is to be taken back in time."""
        if self.settings.marker_accounts:
            mark = self.treasury.marker(batch.id)
            batches.add_marker(self.connection, batch, str(mark.address), mark.lamports)

    def _is_as_planned(self, batch: Batch, effect: Effect) -> bool:
        if batch.kind != "payout":
            return all(change == 0 for change in effect.tokens.values())
        own = self.treasury.token_account
        if any(each.address == own for each in batch.recipients):
            return False  # planned by a release that let it in: less has left than the plan says
        wanted = {own: -batch.amount_pix}
        for each in batch.recipients:
            wanted[each.address] = wanted.get(each.address, 0) + each.amount
        return {address: change for address, change in effect.tokens.items() if change} == wanted

    # ── Expire ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _expire(self, unseen: Sequence[Attempt]) -> None:
        """Give up bytes that can never land: finalized height first, then a later look, then the marker."""
        height, slot = self.chain.finalized_height(self.opinions)
        past = [each for each in unseen if is_over(each, height)]
        if not past:
            return
        looks = self._looks_since(past, slot)
        for attempt in past:
            if self._nobody_knows(attempt, looks) and not self._marker_exists(attempt.batch, slot):
                batches.expire(self.connection, attempt)
                book.commit(self.connection)
                log.info("attempt expired", extra={"batch": attempt.batch.id, "n": attempt.n})

    # ── Entries ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _cost_lines(self, effect: Effect) -> list[tuple[int, int]]:
        """Fee and rent, in lamports: the platform pays, never a creator."""
        change = effect.lamports.get(str(self.treasury.payer.gas), 0)
        if change == 0:
            return []
        platform = book.account(self.connection, "platform", "SOL")
        return [(platform, change), (book.account(self.connection, "chain", "SOL"), -change)]

    def _proof(self, attempt: Attempt, effect: Effect) -> dict[str, Any]:
        proof = {"batch": attempt.batch.id, "signature": attempt.signature, "slot": effect.slot, "fee": effect.fee}
        return proof | ({"error": effect.error} if effect.error is not None else {})


def _fault(raw: bytes, kind: str, recipients: int, error: Any) -> Fault:
    """Whom the error of a signed transaction is about, which has so many recipients."""
    transaction = VersionedTransaction.from_bytes(raw)
    limits = verdict.limits_of(transaction)
    return verdict.of(error, kind, len(transaction.message.instructions) - limits - recipients, limits)
