"""Resolving: a batch that the ledger by itself would never end is ended by evidence, when a person asks for it.

The evidence is what finalized transactions did, by as many nodes as an end needs. What the chain did is booked, recipient
by recipient: what one received is paid, the rest goes back to where it came from. Where the chain does not say enough,
nothing is booked and the answer says what is missing.

A batch whose money went back once, since a transaction of it was given up, can be asked for too (see `batches.lineage`): it
has landed all the same, and its recipients are paid out of what they are owed; or a stranger has paid for its marker, and
it guards their payouts no longer. That nodes have not seen it is no reason to take its guard away.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from solders.transaction import VersionedTransaction

from cluster.errors import Rejected, Temporary
from ledger import batches, book, resolutions, stops
from ledger.batches import Attempt, Batch, Payout
from ledger.chain import Effect, Look, RpcRefusal, Unreadable
from ledger.rail import is_over
from ledger.settling import Settling

log = logging.getLogger(__name__)

Effects = Mapping[str, Effect | None]


LANDED_BESIDE = "landed beside another one of its batch"
NAMED_MAX = 100  # transactions of strangers that the evidence names
PAID_TWICE = "creators were paid what they were not owed: it is the platform's loss"


class Resolving(Settling):
    """The way out of a payout that is stuck."""

    def resolve(self) -> None:
        """Carry out what was asked for; each wish is answered, in its own transaction."""
        waiting = resolutions.asked(self.connection)
        self.connection.commit()
        for wish in waiting:
            evidence: dict[str, Any] = {"nodes": self.opinions, "attempts": {}}
            batch = batches.one(self.connection, wish.batch_id)
            try:
                with self.connection.transaction():
                    outcome = self._end_by_evidence(batch, evidence)
                ended = True
            except Rejected as refusal:
                outcome, ended = str(refusal), False
            except (Temporary, RpcRefusal) as error:  # of one wish, which waits; the others are carried out
                log.warning("a batch cannot be ended now: %s", error, extra={"batch": wish.batch_id})
                continue
            resolutions.done(self.connection, wish.id, ended, outcome, evidence)
            book.commit(self.connection)
            log.warning("a batch was asked to be ended by evidence", extra={"batch": wish.batch_id, "outcome": outcome})

    def _end_by_evidence(self, batch: Batch, evidence: dict[str, Any]) -> str:
        """What was done.

        Raises:
            Rejected: the evidence is not enough; the words say what is missing.
        """
        if batch.state in ("planned", "signed"):
            return self._weighed(batch, evidence)()
        attempts = batches.open_attempts(self.connection, batch.id)
        if not attempts:
            return f"it had ended by itself: it is {batch.state}"
        return self._end_given_up(batch, attempts, evidence)

    def _weighed(self, batch: Batch, evidence: dict[str, Any], *, alone: bool = False) -> Callable[[], str]:
        """How a batch that has not ended is ended. All that nodes say is asked here, nothing is written before that is called.

        `alone`: whatever has become of those whose payouts it may repeat.
        """
        attempts = batches.open_attempts(self.connection, batch.id)
        effects = self._effects(attempts, evidence)
        landed = _landed(attempts, effects)
        if landed is not None:
            return partial(self._book_landed, landed, attempts, effects)
        if not alone:
            self._require_lineage_unpaid(batch, evidence)
        height, slot = self._require_never(batch, attempts, effects)
        self._require_strangers(batch, evidence, held=self._marker_lamports(batch), slot=slot)
        return partial(self._book_never, batch, attempts, effects, height)

    def _effects(self, attempts: Sequence[Attempt], evidence: dict[str, Any]) -> Effects:
        effects = {each.signature: self.chain.effect(each.signature, self.opinions) for each in attempts}
        evidence["attempts"] |= {
            name: None
            if effect is None
            else {"slot": effect.slot, "error": effect.error, "tokens": dict(effect.tokens)}
            for name, effect in effects.items()
        }
        return effects

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

    def _book_never(self, batch: Batch, attempts: Sequence[Attempt], effects: Effects, height: int) -> str:
        """Nothing of the batch has landed or can, and no other transaction has paid under its marker."""
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

    def _require_never(self, batch: Batch, attempts: Sequence[Attempt], effects: Effects) -> tuple[int, int]:
        """That none of these transactions without an effect has landed or can: the finalized height and slot that say so."""
        height, slot = self.chain.finalized_height(self.opinions)
        open_ended = [each for each in attempts if effects[each.signature] is None]
        alive = [each for each in open_ended if not is_over(each, height)]
        if alive:
            raise _not_enough(f"transaction {alive[0].signature} may still land, until height is past its last one")
        if open_ended and not self._is_long_ago(open_ended):
            wait_s = self.settings.give_back_after_s
            raise _not_enough(f"its last transaction may still land: it was signed less than {wait_s:g} s ago")
        looks = self._looks_since(open_ended, slot) if open_ended else []
        remembered = all(self._nobody_knows(each, looks) for each in open_ended)
        if not remembered and not self._marker_tells(batch, open_ended, looks, slot):
            raise _not_enough("nodes do not agree that its transactions never landed")
        return height, slot

    def _marker_tells(self, batch: Batch, attempts: Sequence[Attempt], looks: Sequence[Look], slot: int) -> bool:
        """Whether the chain itself says that none of these landed, which are older than what nodes remember.

        An account is not forgotten: each makes the batch's marker, and at `slot`, when none can land any more, there is none.
        """
        if any(look.statuses[each.signature] is not None for each in attempts for look in looks):
            return False
        if batch.kind != "payout":
            return True  # it moves no money, and may be done twice
        marker = self.treasury.marker(batch.id).address
        makes = all(marker in VersionedTransaction.from_bytes(each.raw).message.account_keys for each in attempts)
        return self.settings.marker_accounts and makes and not self._marker_exists(batch, slot, "finalized")

    # ── It had ended ───────────────────────────────────────────────────────────────────────────────────────────────

    def _require_lineage_unpaid(self, batch: Batch, evidence: dict[str, Any]) -> None:
        """That no batch whose payouts this one may repeat has paid, so that its money may go back."""
        if not self.settings.marker_accounts:
            return
        for number in batches.lineage(self.connection, [batch.id])[batch.id]:
            above = batches.one(self.connection, number)
            attempts = batches.open_attempts(self.connection, number)
            has_landed = _landed(attempts, self._effects(attempts, evidence)) is not None
            if has_landed or self._marker_stands(above):
                raise _not_enough(
                    f"batch {number}, whose payouts it may repeat, is on chain: have that one resolved first"
                )

    def _end_given_up(self, batch: Batch, attempts: Sequence[Attempt], evidence: dict[str, Any]) -> str:
        """What became of a batch that has ended after a transaction of it was given up."""
        effects = self._effects(attempts, evidence)
        if batch.kind != "payout":
            return self._book_unpaid(batch, attempts, effects)
        has_paid = batches.has_landed(self.connection, batch.id)
        landed, failed = _landed(attempts, effects), [each for each in attempts if effects[each.signature] is not None]
        if landed is not None and has_paid:
            raise _not_enough("two transactions of the batch have landed")
        if landed is not None:
            return self._book_late(landed, attempts, effects, evidence)
        if has_paid:  # its marker is its own
            return self._book_unpaid(batch, attempts, effects)
        _, slot = self._require_never(batch, attempts, effects)
        held = self._marker_lamports(batch)
        self._require_strangers(batch, evidence, held=held, slot=slot)
        if not held and not failed:
            raise _not_enough("nothing of it has landed, and its marker keeps nobody from being paid")
        for each in failed:
            effect = effects[each.signature]
            assert effect is not None
            self._book_failed(each, effect)
        if not held:
            return "its transaction has failed: what it cost is booked"
        return "a stranger has paid for its marker: nothing of it has landed or can, and it guards no payout any more"

    def _book_unpaid(self, batch: Batch, attempts: Sequence[Attempt], effects: Effects) -> str:
        """What transactions that were given up have cost and made on chain, which have paid nobody.

        One batch has one transaction that landed. Another that opens accounts, say, lands beside it and does nothing new.
        """
        ended = [each for each in attempts if effects[each.signature] is not None]
        if not ended:
            raise _not_enough("nothing of it is on chain that is not booked")
        for each in ended:
            effect = effects[each.signature]
            assert effect is not None
            if effect.error is not None:
                self._book_failed(each, effect)
            elif batches.has_landed(self.connection, batch.id):
                batches.revive(self.connection, each, effect.slot, effect.fee, LANDED_BESIDE)
                self._cost_only(each, effect)
            else:
                batches.find_landed(self.connection, each, effect.slot, effect.fee)
                self._take_note(each, effect)
        return f"{len(ended)} of its transactions that were given up are on chain: what they cost and made is booked"

    def _book_late(
        self, attempt: Attempt, attempts: Sequence[Attempt], effects: Effects, evidence: dict[str, Any]
    ) -> str:
        """Its recipients have been paid out of what they are owed; what would pay them again is ended first.

        Who is owed less has been paid twice. That is the platform's loss, and a person hears of it.
        """
        batch, effect = attempt.batch, effects[attempt.signature]
        assert effect is not None
        guarded = [batches.one(self.connection, number) for number in batches.guarded_by(self.connection, batch.id)]
        for end in [self._weighed(each, evidence, alone=True) for each in guarded]:
            end()
        received = self._received(batch, effect)
        for other in attempts:
            did = effects[other.signature]
            if did is not None and did.error is not None:
                self._book_failed(other, did)
        batches.find_landed(self.connection, attempt, effect.slot, effect.fee)
        spent = sum(got for _, got in received)
        owed = [(each.source, min(got, book.balance(self.connection, each.source))) for each, got in received]
        lost = spent - sum(amount for _, amount in owed)
        lines = [(source, -amount) for source, amount in owed if amount] + self._loss_lines(lost)
        lines += [(book.account(self.connection, "chain"), spent)] if spent else []
        lines += self._cost_lines(effect)
        proof = self._proof(attempt, effect)
        self._post(f"resolve:{attempt.signature}", "payout_resolved", lines, proof)
        batches.receive_late(self.connection, received)
        self._keep_marker(batch)
        how = "booked out of what its recipients are owed"
        if lost:
            stops.freeze(self.connection, PAID_TWICE, proof | {"pix": lost})
            how += f", and {lost} which they were not owed as the platform's loss"
        return f"transaction {attempt.signature} had landed at slot {effect.slot}: {how}"

    def _loss_lines(self, lost: int) -> list[tuple[int, int]]:
        """Who bears what was paid twice: the platform's share, and the pool of rewards where that is too small."""
        lines: list[tuple[int, int]] = []
        for kind in ("platform", "reward_pool"):
            account = book.account(self.connection, kind)
            taken = min(lost, book.balance(self.connection, account))
            lines += [(account, -taken)] if taken else []
            lost -= taken
        if lost:
            raise _not_enough(f"{lost} was paid twice and neither platform nor reward_pool holds it: fund the pool")
        return lines

    def _require_strangers(self, batch: Batch, evidence: dict[str, Any], *, held: int, slot: int) -> None:
        """That whoever has touched the batch's marker has not moved the treasury's tokens with it.

        `held`: the lamports that it holds on chain. Transactions that nodes still know must have brought all of them: else
        one that they have forgotten has made it, which may be ours. The evidence keeps whether there are any, for then it
        guards no payout any more (see `batches.lineage`). Where strangers have named it more often than is read, or in a way
        that cannot be read, the treasury itself is asked; `slot`: at which nothing of the batch could land any more.
        """
        if batch.kind != "payout" or not self.settings.marker_accounts:
            return
        address = str(self.treasury.marker(batch.id).address)
        touched = self.chain.touched(address, self.opinions)
        named = touched if touched is not None else []
        evidence["marker"] = {
            "address": address,
            "stands": held > 0,
            "count": len(named),
            "transactions": named[:NAMED_MAX],
        }
        if touched is None:
            self._require_unpaid(batch, evidence, slot, f"more transactions name the marker {address} than are read")
            return
        guarded = batches.of_others(self.connection, batch.id, touched)  # these name it to make sure that there is none
        strange = [signature for signature in touched if signature not in guarded]
        brought = 0
        effects = self.chain.effects(strange, self.opinions, mint=self.treasury.mint)
        for signature, effect in zip(strange, effects, strict=True):
            if isinstance(effect, Unreadable):
                self._require_unpaid(batch, evidence, slot, str(effect))
                return
            if isinstance(effect, Temporary):
                raise effect
            if effect is None:
                raise _not_enough(f"nodes do not agree on transaction {signature}, which names the marker")
            if effect.error is None and effect.tokens.get(self.treasury.token_account, 0):
                raise _not_enough(f"transaction {signature}, which is none of ours, has paid under the marker")
            brought += effect.lamports.get(address, 0) if effect.error is None else 0
        if held > brought:
            raise _not_enough(f"the marker {address} is on chain, and no node says which transaction made it")

    def _require_unpaid(self, batch: Batch, evidence: dict[str, Any], slot: int, why: str) -> None:
        """That the treasury holds what the journal says, which has not booked the batch as paid: at a slot after which nothing
        of it could land, with all of its history read up to there. Strangers add nothing to that.

        An order may have made them agree: then nothing is known.

        Raises:
            Temporary: the chain and the journal were not compared since.
            Rejected: they differ, or an order has moved what the journal says of the chain.
        """
        since = self.over.setdefault(batch.id, slot)
        row = self.connection.execute(
            "SELECT ok, slot, (SELECT min(o.id) FROM ledger.orders o JOIN ledger.postings p ON p.entry_id = o.entry_id"
            "   JOIN ledger.accounts a ON a.id = p.account_id AND a.kind = 'chain' AND a.asset = 'PIX'"
            "   WHERE o.done_at >= (SELECT planned_at FROM ledger.batches WHERE id = %s))"
            " FROM ledger.reconciliations WHERE slot >= %s ORDER BY id DESC LIMIT 1",
            (batch.id, since),
        ).fetchone()
        if row is None:
            raise Temporary(f"{why}: the treasury itself has not been compared with the journal since slot {since}")
        is_ok, compared, order = row
        if not is_ok:
            raise _not_enough(f"{why}, and the chain and the journal differ")
        if order is not None:
            raise _not_enough(f"{why}, and order {order} has moved what the journal says of the chain")
        evidence["treasury"] = {"why": why, "agreed_slot": compared}


def _landed(attempts: Sequence[Attempt], effects: Effects) -> Attempt | None:
    """The one that has paid, if any.

    Raises:
        Rejected: there are several.
    """
    landed = [each for each in attempts if (did := effects[each.signature]) is not None and did.error is None]
    if len(landed) > 1:
        raise _not_enough(f"{len(landed)} transactions of the batch have landed")
    return landed[0] if landed else None


def _not_enough(why: str) -> Rejected:
    return Rejected(f"not ended: {why}", status=409, code="evidence-missing")
