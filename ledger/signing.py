"""Signing and sending: what is planned is simulated, signed and committed; only then do its bytes leave.

Simulations run at once, each by as many nodes as an end needs; signatures all use one blockhash. Sending hands the same bytes
to every node, again and again: what a node answers is a hint, never a fact. Decides nothing about how a payout ends.

What waited is asked about again: whoever was held, refused by the operator's screening or given another wallet since the
plan was made is not paid by it, nor is who has given their token account away. The plan is given back and the others are
planned anew. What is signed may be on its way already and is settled as it ends; of what was signed and, for all we know,
never sent nothing is sent any more.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from solders.pubkey import Pubkey
from solders.transaction import VersionedTransaction

from cluster.errors import Rejected, Temporary
from ledger import batches, book, holders, packing, screening, stops, verdict, wallets
from ledger.batches import Batch, Recipient
from ledger.chain import Account, RpcRefusal, Simulation
from ledger.packing import Instruction
from ledger.planning import Planning
from ledger.rail import PAID_UNKNOWN
from ledger.settings import PPM
from ledger.treasury import ACCOUNT_FROZEN, ACCOUNT_STATE_AT
from ledger.verdict import Fault

log = logging.getLogger(__name__)

FIRST = ("reclaim", "payout", "accounts")  # who brings lamports, and who takes fewest, before who takes most
GIVEN_AWAY = (
    "no longer owns its token account {}, which was given to another key:"
    " they name another wallet, or have its owner set back on chain before this is released"
)
NOT_SIGNED = "the signer refuses to sign a payout"
CLOSED = "who has closed the wallet's token account opens it again, or names another wallet, before this is released"
TREASURY_FROZEN = "the treasury's token account is frozen on chain"


class Signing(Planning):
    """The second step of a payout."""

    def sign(self) -> list[str]:
        """Sign what is planned, all with one blockhash, and commit it. Nothing is sent here."""
        waiting = self._let_through(batches.planned(self.connection, self.settings.batches_live_max))
        sized = self._simulated(self._affordable(waiting)) if waiting else []
        if not sized:
            return []
        blockhash = self.chain.latest_blockhash(self.opinions)
        signed: list[tuple[Batch, str, bytes]] = []
        for batch, instructions, units in sized:
            try:
                raw = self.treasury.signed(instructions, blockhash.hash, units)
            except Rejected as refusal:
                stops.freeze(self.connection, NOT_SIGNED, {"batch": batch.id, "reason": str(refusal)})
                break
            signed.append((batch, packing.signature_of(raw), raw))
        stopped = batches.stopped(self.connection, [batch.id for batch, _, _ in signed])  # while we signed
        known = batches.known(self.connection, [signature for _, signature, _ in signed])
        if known:  # with the hash of a transaction that was given up, and its very bytes: for the next one
            log.warning("a blockhash was named that has been used already")
        signed = [each for each in signed if each[0].id not in stopped and each[1] not in known]
        batches.persist(self.connection, signed, blockhash)
        book.commit(self.connection)
        self.signed_now = frozenset(signature for _, signature, _ in signed)
        return [signature for _, signature, _ in signed]

    def _let_through(self, waiting: Sequence[Batch]) -> list[Batch]:
        """Batches of which every recipient may still be paid as planned; the others are given back."""
        older, self.planned_now = [each for each in waiting if each.id not in self.planned_now], frozenset()
        self._screen(
            [screening.Recipient(each.creator_id, each.wallet, each.amount)
             for batch in older if batch.kind != "reclaim" for each in batch.recipients]
        )  # fmt: skip
        self._hold_unpayable(older)
        stopped = batches.stopped(self.connection, [each.id for each in older])
        for batch in older:
            if batch.id in stopped:
                self._call_back(batch, stopped[batch.id])
        book.commit(self.connection)
        return [each for each in waiting if each.id not in stopped]

    def _hold_unpayable(self, older: Sequence[Batch]) -> None:
        """Hold whose wallet a plan would pay though it cannot be paid: an earlier release let it in."""
        named = {
            each.creator_id: each.wallet for batch in older if batch.kind != "reclaim" for each in batch.recipients
        }
        for creator_id, why in wallets.unpayable_of(self.connection, named).items() if named else ():
            self._hold_wallet(creator_id, named[creator_id], why)

    def _call_back(self, batch: Batch, creators: set[int]) -> None:
        """Give back a plan some of whose recipients were stopped, and plan the others anew.

        One that was signed before waits until nothing of it can land any more, one whose marker is on chain for a person:
        if nothing of it was ever signed, then we have forgotten that it was paid.
        """
        try:
            is_over = self._is_over(batch)
        except (Temporary, RpcRefusal) as error:  # of one batch; the others go on
            log.warning("a batch cannot be called back now: %s", error, extra={"batch": batch.id})
            return
        if not is_over:
            return
        log.warning("batch is called back", extra={"batch": batch.id, "creators": sorted(creators)})
        batches.cancel(self.connection, batch)
        self._give_back(batch, f"void:{batch.id}", [], {"batch": batch.id, "stopped": sorted(creators)})
        self._plan_parts(batch, [[each for each in batch.recipients if each.creator_id not in creators]])

    def _is_over(self, batch: Batch) -> bool:
        """Whether no transaction that was signed for a batch can land, nor has one."""
        _, slot = self.chain.finalized_height(self.opinions)
        if self._never_paid(batch, slot):
            return True
        if not batch.attempts and self._marker_stands(batch):
            stops.freeze(self.connection, PAID_UNKNOWN, {"batch": batch.id})
        return False

    def _affordable(self, waiting: Sequence[Batch]) -> list[Batch]:
        """Those batches that the treasury can pay for; one that is too large for it keeps no other one waiting.

        Payouts come before openings: each costs the rent of one marker, an opening that of each recipient's account.
        """
        addresses = [self.treasury.token_account, str(self.treasury.payer.gas)]
        tokens, gas = self.chain.seen_accounts(addresses, opinions=self.opinions)
        if self._is_frozen(tokens):
            book.commit(self.connection)
            return []
        # By the node that says most: what is signed for too much fails and costs a fee, while one that says less than
        # there is would keep everybody waiting.
        pix = max(int.from_bytes(each.data[64:72], "little") if each else 0 for each in tokens)
        lamports = max(each.lamports if each else 0 for each in gas)
        for attempt in batches.live_attempts(self.connection):  # neither is gone from what was read, which is finalized
            pix -= attempt.batch.amount_pix
            lamports -= self._cost(attempt.batch)
        taken = []
        for batch in sorted(waiting, key=lambda each: FIRST.index(each.kind)):
            if pix < batch.amount_pix or lamports < self._cost(batch):
                log.warning("the treasury is short", extra={"batch": batch.id, "pix": pix, "lamports": lamports})
                continue
            pix -= batch.amount_pix
            lamports -= self._cost(batch)
            taken.append(batch)
        return taken

    def _is_frozen(self, seen: Sequence[Account | None]) -> bool:
        """Whether the treasury's account may pay nobody, by every node that answers: no recipient's fault, so that payouts
        are frozen instead.
        """
        frozen = bytes([ACCOUNT_FROZEN])
        if any(each is None or each.data[ACCOUNT_STATE_AT : ACCOUNT_STATE_AT + 1] != frozen for each in seen):
            return False
        about = {"account": self.treasury.token_account, "hint": "have the mint's authority thaw it, then release this"}
        stops.freeze(self.connection, TREASURY_FROZEN, about)
        return True

    def _treasury_is_frozen(self) -> bool:
        """Ask for the treasury's account as it is now, before a recipient is blamed."""
        address = self.treasury.token_account
        (seen,) = self.chain.seen_accounts([address], "confirmed", opinions=self.opinions)
        return self._is_frozen(seen)

    def _cost(self, batch: Batch) -> int:
        return self.treasury.cost_lamports(batch.kind, len(batch.recipients))

    def _simulated(self, waiting: Sequence[Batch]) -> list[tuple[Batch, list[Instruction], int]]:
        """Batches that would succeed, with their compute units and a margin; those that would fail are judged."""
        built = self._built(waiting)
        waiting = [each for each in waiting if each.id in built]
        raws = [self.treasury.unsigned(built[each.id]) for each in waiting]
        slot = batches.opened_slot(self.connection, [each.address for batch in waiting for each in batch.recipients])
        shown = [holders.paid_at(each) for each in waiting]
        found = self.chain.simulate_all(raws, slot, self.opinions, shown)
        sized, doubtful = [], []
        for batch, raw, simulation in zip(waiting, raws, found, strict=True):
            units: int | None = simulation.units
            if simulation.error is not None:
                units = self._judged(batch, raw, len(built[batch.id]), slot)
            if units is not None:
                room = units + units * self.settings.compute_margin_ppm // PPM + 300
                sized.append((batch, built[batch.id], min(room, packing.COMPUTE_UNITS_MAX)))
                doubtful += holders.in_doubt(batch, simulation.told, self.treasury.payer.mint, self.opinions)
        kept_back = self._of_other_owners(doubtful)
        return [each for each in sized if kept_back.isdisjoint(recipient.address for recipient in each[0].recipients)]

    def _of_other_owners(self, doubtful: Sequence[Recipient]) -> set[str]:
        """Token accounts that are not to be paid now: of those whose wallet no longer owns them, by as many nodes as an end
        needs and by more than say otherwise, who is to be paid is held; of others nodes differ.

        Nobody can be kept from giving theirs away between this look and the landing.
        """
        if not doubtful:
            return set()
        kept_back = set()
        found = self.chain.seen_accounts([each.address for each in doubtful], "confirmed", opinions=self.opinions)
        for each, accounts in zip(doubtful, found, strict=True):
            own = sum(holders.belongs(account, each.wallet, self.treasury.payer.mint) for account in accounts)
            others = sum(account is not None for account in accounts) - own
            if own >= self.opinions and 2 * own > len(accounts):
                continue
            kept_back.add(each.address)
            if others >= self.opinions and 2 * others > len(accounts):
                self._hold_wallet(each.creator_id, each.wallet, GIVEN_AWAY.format(each.address))
            else:
                log.warning("nodes differ on whose a token account is", extra={"address": each.address})
        book.commit(self.connection)
        return kept_back

    def _built(self, waiting: Sequence[Batch]) -> dict[str, list[Instruction]]:
        """What each batch does, by its id. One that does not fit beside the markers that guard it is cut into parts."""
        marked = self.settings.marker_accounts
        lineage = batches.lineage(self.connection, [each.id for each in waiting]) if marked else {}
        built: dict[str, list[Instruction]] = {}
        for batch in waiting:
            above = lineage.get(batch.id, [])
            if len(batch.recipients) <= self.treasury.capacity(batch.kind, len(above)):
                built[batch.id] = [*self._guards(batch, above), *self._instructions(batch)]
            else:  # of an earlier release or another version, or planned before what guards it was given up
                self._call_back(batch, set())
        book.commit(self.connection)
        return built

    def _judged(self, batch: Batch, raw: bytes, built: int, slot: int) -> int | None:
        try:
            return self._asked_again(batch, raw, built, slot)
        except (Temporary, RpcRefusal) as error:  # of one batch; the others go on
            log.warning("a batch cannot be judged now: %s", error, extra={"batch": batch.id})
            return None

    def _asked_again(self, batch: Batch, raw: bytes, built: int, slot: int) -> int | None:
        """A node says that the batch would fail: the compute units, if another one says that it would not.

        Going on is safe, for whatever has landed before: then the marker fails what is signed now. Giving back is not,
        and takes the word of every node that answers.
        """
        found = self.chain.simulations(raw, slot)
        units = max((each.units for each in found if each.error is None), default=None)
        if units is None and len(found) >= self.opinions:
            limits = verdict.limits_of(VersionedTransaction.from_bytes(raw))
            self._would_fail(batch, found, limits, built - len(batch.recipients))
        return units

    def _would_fail(self, batch: Batch, found: Sequence[Simulation], limits: int, guards: int) -> None:
        faults = {verdict.of(each.error, batch.kind, guards, limits) for each in found}
        about: dict[str, Any] = {"batch": batch.id, "errors": [str(each.error) for each in found]}
        if faults == {Fault.LINEAGE}:
            self._freeze_lineage(batch, about)
        if faults == {Fault.MARKER} and not batch.attempts:  # of one with attempts `settle` will find which has landed
            stops.freeze(self.connection, PAID_UNKNOWN, about)
        book.commit(self.connection)
        if faults != {Fault.RECIPIENT} or self._treasury_is_frozen():
            book.commit(self.connection)
            log.warning("a batch cannot be signed now", extra=about)
            return
        if not self._never_paid(batch, min(each.slot for each in found)):
            return
        log.warning("batch would fail", extra=about)
        error, is_gone = found[0].error, self._forget_gone(batch)
        batches.cancel(self.connection, batch)
        self._give_back(batch, f"void:{batch.id}", [], {"batch": batch.id, "error": error})
        if not is_gone:
            self._take_apart(batch, f"the chain refuses it: {error}; {CLOSED}")
        book.commit(self.connection)

    def _freeze_lineage(self, batch: Batch, about: dict[str, Any]) -> None:
        """What the batch may repeat has been paid, or a stranger has paid for its marker: a person has it resolved."""
        given_up = batches.lineage(self.connection, [batch.id])[batch.id]
        stops.freeze(self.connection, PAID_UNKNOWN, about | {"given_up": given_up})

    def _guards(self, batch: Batch, lineage: Sequence[str]) -> list[Instruction]:
        """What makes a transaction fail whole if the batch, or one whose payouts it may repeat, has been paid.

        Markers of earlier batches are made and emptied at once: that fails where there is one.
        """
        payer = self.treasury.payer
        if batch.kind != "payout":
            return []
        if not self.settings.marker_accounts:
            return [packing.memo(batch.id)]  # equal bytes would be one and the same transaction
        above = [self.treasury.marker(each) for each in lineage]
        checks = [make(payer, mark) for mark in above for make in (packing.create_marker, packing.reclaim_marker)]
        return [*checks, packing.create_marker(payer, self.treasury.marker(batch.id))]

    def _instructions(self, batch: Batch) -> list[Instruction]:
        """One for each recipient."""
        payer = self.treasury.payer
        if batch.kind == "accounts":
            return [packing.open_account(payer, Pubkey.from_string(each.wallet)) for each in batch.recipients]
        if batch.kind == "reclaim":
            marks = [(self.treasury.marker(each.wallet), each.amount) for each in batch.recipients]
            return [packing.reclaim_marker(payer, replace(mark, lamports=held)) for mark, held in marks]
        return [packing.pay(payer, Pubkey.from_string(each.address), each.amount) for each in batch.recipients]

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
