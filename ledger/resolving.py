"""Resolving: a batch that the ledger by itself would never end is ended by evidence, when a person asks for it.

The evidence is what finalized transactions did, by as many nodes as an end needs. What the chain did is booked, recipient
by recipient: what one received is paid, the rest goes back to where it came from. Where the chain does not say enough,
nothing is booked and the answer says what is missing.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from cluster.errors import Rejected
from ledger import batches, book, resolutions
from ledger.batches import Attempt, Batch, Payout
from ledger.chain import Effect
from ledger.settling import Settling

log = logging.getLogger(__name__)

Effects = Mapping[str, Effect | None]


class Resolving(Settling):
    """The way out of a payout that is stuck."""

    def resolve(self) -> None:
        """Carry out what was asked for; each wish is answered, in its own transaction."""
        waiting = resolutions.asked(self.connection)
        self.connection.commit()
        for wish in waiting:
            evidence: dict[str, Any] = {"nodes": self.opinions}
            batch = batches.one(self.connection, wish.batch_id)
            try:
                with self.connection.transaction():
                    outcome = self._end_by_evidence(batch, evidence)
                ended = True
            except Rejected as refusal:
                outcome, ended = str(refusal), False
            resolutions.done(self.connection, wish.id, ended, outcome, evidence)
            book.commit(self.connection)
            log.warning("a batch was asked to be ended by evidence", extra={"batch": wish.batch_id, "outcome": outcome})

    def _end_by_evidence(self, batch: Batch, evidence: dict[str, Any]) -> str:
        """What was done.

        Raises:
            Rejected: the evidence is not enough; the words say what is missing.
        """
        if batch.state not in ("planned", "held", "signed"):
            return f"it had ended by itself: it is {batch.state}"
        attempts = batches.open_attempts(self.connection, batch.id)
        effects = {each.signature: self.chain.effect(each.signature, self.opinions) for each in attempts}
        evidence["attempts"] = {
            name: None
            if effect is None
            else {"slot": effect.slot, "error": effect.error, "tokens": dict(effect.tokens)}
            for name, effect in effects.items()
        }
        landed = [each for each in attempts if (did := effects[each.signature]) is not None and did.error is None]
        if len(landed) > 1:
            raise _not_enough(f"{len(landed)} transactions of the batch have landed")
        if landed:
            return self._book_landed(landed[0], attempts, effects)
        return self._book_never(batch, attempts, effects, evidence)

    # ── It has landed ──────────────────────────────────────────────────────────────────────────────────────────────

    def _book_landed(self, attempt: Attempt, attempts: Sequence[Attempt], effects: Effects) -> str:
        effect = effects[attempt.signature]
        assert effect is not None
        for rival in attempts:
            if rival.signature != attempt.signature and rival.state == "live":
                self._end_rival(rival, effects[rival.signature])
        received = self._received(attempt.batch, effect)
        if attempt.state == "expired":
            batches.revive(self.connection, attempt, effect.slot, effect.fee, None)
        else:
            batches.land(self.connection, attempt, effect.slot, effect.fee)
        if attempt.batch.kind != "payout" or all(each.amount_pix == amount for each, amount in received):
            self._take_note(attempt, effect)
            return f"transaction {attempt.signature} has landed at slot {effect.slot}: booked as it was planned"
        self._post_received(attempt, effect, received)
        short = sum(each.amount_pix != amount for each, amount in received)
        return (
            f"transaction {attempt.signature} has landed at slot {effect.slot}; {short} recipients got another amount"
        )

    def _end_rival(self, rival: Attempt, effect: Effect | None) -> None:
        if effect is None:
            raise _not_enough(f"transaction {rival.signature} of the same batch may still land")
        batches.fail_attempt(self.connection, rival, effect.slot, effect.fee, effect.error)
        self._cost_only(rival, effect)

    def _received(self, batch: Batch, effect: Effect) -> list[tuple[Payout, int]]:
        """What each payout's recipient got, by the treasury's loss to the last unit."""
        if batch.kind != "payout":
            return []
        own = self.treasury.token_account
        address = {each.creator_id: each.address for each in batch.recipients}
        shared: dict[str, list[Payout]] = {}
        for each in batches.payouts_of(self.connection, batch):
            shared.setdefault(address[each.creator_id], []).append(each)
        received: list[tuple[Payout, int]] = []
        for place, payouts in shared.items():
            got = 0 if place == own else effect.tokens.get(place, 0)
            whole = got == sum(each.amount_pix for each in payouts)
            if not whole and (got < 0 or (got and len(payouts) > 1)):
                raise _not_enough(f"account {place} of {len(payouts)} recipients changed by {got}")
            received += [(each, each.amount_pix if whole else got) for each in payouts]
        spent = -effect.tokens.get(own, 0)
        if spent != sum(amount for _, amount in received):
            raise _not_enough(f"the treasury lost {spent}, recipients of the batch got another sum")
        return received

    def _post_received(self, attempt: Attempt, effect: Effect, received: Sequence[tuple[Payout, int]]) -> None:
        """What was received has left by the chain; the rest goes back to where it came from."""
        planned, spent = sum(each.amount_pix for each, _ in received), sum(amount for _, amount in received)
        lines = [(book.account(self.connection, "in_flight"), -planned)]
        lines += [(book.account(self.connection, "chain"), spent)] if spent else []
        lines += [(each.source, each.amount_pix - got) for each, got in received if got != each.amount_pix]
        lines += self._cost_lines(effect)
        entry = self._post(f"resolve:{attempt.signature}", "payout_resolved", lines, self._proof(attempt, effect))
        assert entry is not None
        batches.end_each(self.connection, received, entry.id)
        self._keep_marker(attempt.batch)

    # ── It never has ───────────────────────────────────────────────────────────────────────────────────────────────

    def _book_never(self, batch: Batch, attempts: Sequence[Attempt], effects: Effects, evidence: dict[str, Any]) -> str:
        """Nothing of the batch has landed or can, and no other transaction has paid under its marker."""
        height, slot = self.chain.finalized_height(self.opinions)
        open_ended = [each for each in attempts if effects[each.signature] is None]
        alive = [each for each in open_ended if each.last_valid_block_height >= height]
        if alive:
            raise _not_enough(f"transaction {alive[0].signature} may still land, until height is past its last one")
        looks = self._looks_since(open_ended, slot) if open_ended else []
        if not all(self._nobody_knows(each, looks) for each in open_ended):
            raise _not_enough("nodes do not agree that its transactions never landed")
        self._strangers_only(batch, evidence)
        for attempt in attempts:
            effect = effects[attempt.signature]
            if effect is not None:
                self._book_failed(attempt, effect)
            elif attempt.state == "live":
                batches.expire(self.connection, attempt)
        batches.unsign(self.connection, batch)
        batches.cancel(self.connection, batch)
        self._give_back(batch, f"resolve:{batch.id}", [], {"batch": batch.id, "height": height})
        return f"nothing of it has landed or can at height {height}: what was to be paid is due again"

    def _book_failed(self, attempt: Attempt, effect: Effect) -> None:
        if attempt.state == "expired":
            batches.revive(self.connection, attempt, effect.slot, effect.fee, effect.error)
        else:
            batches.fail_attempt(self.connection, attempt, effect.slot, effect.fee, effect.error)
        self._cost_only(attempt, effect)

    def _strangers_only(self, batch: Batch, evidence: dict[str, Any]) -> None:
        """Whoever has touched the batch's marker has not moved the treasury's tokens with it."""
        if batch.kind != "payout" or not self.settings.marker_accounts:
            return
        address = str(self.treasury.marker(batch.id).address)
        touched = self.chain.touched(address, self.opinions)
        evidence["marker"] = {"address": address, "transactions": touched}
        for signature in touched:
            effect = self.chain.effect(signature, self.opinions)
            if effect is None:
                raise _not_enough(f"nodes do not agree on transaction {signature}, which names the marker")
            if effect.error is None and effect.tokens.get(self.treasury.token_account, 0):
                raise _not_enough(f"transaction {signature}, which is none of ours, has paid under the marker")


def _not_enough(why: str) -> Rejected:
    return Rejected(f"not ended: {why}", status=409, code="evidence-missing")
