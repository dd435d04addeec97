"""Signing and sending: what is planned is simulated, signed and committed; only then do its bytes leave.

Simulations run at once, spread over the nodes; signatures all use one blockhash. Sending hands the same bytes to every
node, again and again: what a node answers is a hint, never a fact. Decides nothing about how a payout ends.

What waited is asked about again: whoever was held, refused by the operator's screening or given another wallet since the
plan was made is not paid by it. The plan is given back and the others are planned anew. What is signed may be on its way
already and is settled as it ends; of what was signed and, for all we know, never sent nothing is sent any more.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from solders.pubkey import Pubkey

from cluster.errors import Rejected
from ledger import batches, book, packing, screening, stops
from ledger.batches import Batch
from ledger.packing import Instruction
from ledger.planning import Planning
from ledger.rail import PAID_UNKNOWN
from ledger.settings import PPM

log = logging.getLogger(__name__)

NOT_SIGNED = "the signer refuses to sign a payout"


class Signing(Planning):
    """The second step of a payout."""

    def sign(self) -> list[str]:
        """Sign what is planned, all with one blockhash, and commit it. Nothing is sent here."""
        limit = self.settings.batches_live_max - batches.signed_count(self.connection)
        waiting = self._let_through(batches.planned(self.connection, max(limit, 0)))
        sized = self._simulated(self._affordable(waiting)) if waiting else []
        if not sized:
            return []
        blockhash = self.chain.latest_blockhash()
        signed: list[tuple[Batch, str, bytes]] = []
        for batch, instructions, units in sized:
            try:
                raw = self.treasury.signed(instructions, blockhash.hash, units)
            except Rejected as refusal:
                stops.freeze(self.connection, NOT_SIGNED, {"batch": batch.id, "reason": str(refusal)})
                break
            signed.append((batch, packing.signature_of(raw), raw))
        stopped = batches.stopped(self.connection, [batch.id for batch, _, _ in signed])  # while we signed
        signed = [each for each in signed if each[0].id not in stopped]
        batches.persist(self.connection, signed, blockhash)
        book.commit(self.connection)
        self.signed_now = frozenset(signature for _, signature, _ in signed)
        return [signature for _, signature, _ in signed]

    def _let_through(self, waiting: Sequence[Batch]) -> list[Batch]:
        """Batches of which every recipient may still be paid as planned; the others are given back."""
        older, self.planned_now = [each for each in waiting if each.id not in self.planned_now], frozenset()
        self._screen(
            [screening.Recipient(each.creator_id, each.wallet, each.amount)
             for batch in older if batch.kind == "payout" for each in batch.recipients]
        )  # fmt: skip
        stopped = batches.stopped(self.connection, [each.id for each in older])
        for batch in older:
            if batch.id in stopped:
                self._call_back(batch, stopped[batch.id])
        book.commit(self.connection)
        return [each for each in waiting if each.id not in stopped]

    def _call_back(self, batch: Batch, creators: set[int]) -> None:
        """Give back a plan some of whose recipients were stopped, and plan the others anew.

        One that was signed before waits until nothing of it can land any more, one whose marker is on chain for a person.
        """
        if not self._is_over(batch):
            return
        log.warning("batch is called back", extra={"batch": batch.id, "creators": sorted(creators)})
        batches.cancel(self.connection, batch)
        self._give_back(batch, f"void:{batch.id}", [], {"batch": batch.id, "stopped": sorted(creators)})
        others = [each for each in batch.recipients if each.creator_id not in creators]
        if batch.kind == "accounts":
            self._open(others, batch.id)
        else:
            self._pay_again(batch, {each.creator_id for each in others})

    def _is_over(self, batch: Batch) -> bool:
        """Whether no transaction that was signed for a batch can land, nor has one: by height, then by the marker."""
        height, slot = self.chain.finalized_height(self.opinions)
        return height > batches.last_height(self.connection, batch) and not self._marker_exists(batch, slot)

    def _affordable(self, waiting: Sequence[Batch]) -> list[Batch]:
        """As many batches as the treasury can pay for; a short treasury is nobody else's fault."""
        _, (tokens, gas) = self.chain.accounts([self.treasury.token_account, str(self.treasury.payer.gas)])
        pix = int.from_bytes(tokens.data[64:72], "little") if tokens else 0
        lamports = gas.lamports if gas else 0
        pix -= sum(each.batch.amount_pix for each in batches.live_attempts(self.connection))
        taken = []
        for batch in waiting:
            pix -= batch.amount_pix
            lamports -= self.treasury.cost_lamports(batch.kind, len(batch.recipients))
            if pix < 0 or lamports < 0:
                log.warning("the treasury is short", extra={"batch": batch.id, "pix": pix, "lamports": lamports})
                break
            taken.append(batch)
        return taken

    def _simulated(self, waiting: Sequence[Batch]) -> list[tuple[Batch, list[Instruction], int]]:
        """Batches that would succeed, with their compute units and a margin; those that would fail are taken apart."""
        built = [self._instructions(batch) for batch in waiting]
        found = self.chain.simulate_all([self.treasury.unsigned(each) for each in built])
        sized = []
        for batch, instructions, (error, units) in zip(waiting, built, found, strict=True):
            if error is None:
                room = units + units * self.settings.compute_margin_ppm // PPM + 300
                sized.append((batch, instructions, min(room, packing.COMPUTE_UNITS_MAX)))
            else:
                self._would_fail(batch, error)
        return sized

    def _would_fail(self, batch: Batch, error: Any) -> None:
        if self._marker_exists(batch):
            if not batch.attempts:  # else an attempt of ours has landed, and `settle` will find it
                stops.freeze(self.connection, PAID_UNKNOWN, {"batch": batch.id})
                book.commit(self.connection)
            return
        log.warning("batch would fail", extra={"batch": batch.id, "error": str(error)})
        batches.cancel(self.connection, batch)
        self._give_back(batch, f"void:{batch.id}", [], {"batch": batch.id, "error": error})
        self._take_apart(batch, f"the chain refuses it: {error}")
        book.commit(self.connection)

    def _instructions(self, batch: Batch) -> list[Instruction]:
        payer = self.treasury.payer
        if batch.kind == "accounts":
            return [packing.open_account(payer, Pubkey.from_string(each.wallet)) for each in batch.recipients]
        if batch.kind == "reclaim":
            marks = [(self.treasury.marker(each.wallet), each.amount) for each in batch.recipients]
            return [packing.reclaim_marker(payer, replace(mark, lamports=held)) for mark, held in marks]
        pays = [packing.pay(payer, Pubkey.from_string(each.address), each.amount) for each in batch.recipients]
        if not self.settings.marker_accounts:
            return [packing.memo(batch.id), *pays]  # equal bytes would be one and the same transaction
        return [packing.create_marker(payer, self.treasury.marker(batch.id)), *pays]

    def send(self) -> int:
        """Hand the same bytes to every node, now and every so often until their end is known."""
        due = batches.due_to_send(self.connection, self.settings.resend_interval_s, self.signed_now)
        self.signed_now = frozenset()
        self.connection.commit()
        if due:
            self.chain.send([raw for _, raw in due])
            batches.sent(self.connection, [signature for signature, _ in due])
            book.commit(self.connection)
        return len(due)
