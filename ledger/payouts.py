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

import hashlib
import hmac
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from psycopg import Connection
from solders.pubkey import Pubkey

from cluster.errors import Rejected
from ledger import batches, book, packing
from ledger.batches import Attempt, Batch, Due, Recipient
from ledger.chain import Chain, Effect, Look
from ledger.settings import PPM, Economics, LedgerSettings
from ledger.treasury import Treasury, opening_cost_pix

log = logging.getLogger(__name__)

PAID_UNKNOWN = "the chain has paid what the ledger has not"
OPINIONS = 2  # that an end needs, good or bad, where there are as many nodes
NOT_SIGNED = "the signer refuses to sign a payout"
LANDED_LATE = "a transaction that was given up has landed: a node cannot be trusted"


@dataclass
class Payouts:
    """One rail: a treasury on a chain, written through the connection that holds the epoch."""

    connection: Connection[Any]
    chain: Chain
    treasury: Treasury
    economics: Economics
    settings: LedgerSettings

    @property
    def opinions(self) -> int:
        """How many nodes must say the same before it is believed."""
        return min(OPINIONS, len(self.chain.nodes)) if self.settings.second_opinion else 1

    def run_once(self, *, plan: bool = True) -> None:
        """One round at our own pace. Each step commits for itself. `plan`: also begin something new."""
        self.settle()
        if plan and batches.frozen(self.connection) is None:
            self.plan()
            self.sign()
        self.connection.commit()
        self.send()

    # ── Plan ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def plan(self) -> list[Batch]:
        """Put what is due into batches: first open the token accounts that are missing, then pay."""
        room = self.settings.batches_live_max - batches.live_count(self.connection)
        ready, missing = self._due()
        self._find_accounts(missing)
        made: list[Batch] = []
        size = self.treasury.capacity("payout")
        for start in range(0, len(ready), size):
            if len(made) >= room:
                break
            chunk = sorted(ready[start : start + size], key=lambda each: each.creator_id)
            batch = self.payout_batch(chunk)
            batches.add(self.connection, batch)
            batches.pend(self.connection, batch, chunk)
            made.append(batch)
        self._reclaim()
        book.commit(self.connection)
        return made

    def _reclaim(self) -> None:
        """Take back the rent of markers that have done their duty, once a transaction is worth its fee."""
        size = self.treasury.capacity("reclaim")
        rows = batches.reclaimable(self.connection, self.settings.marker_retention_s, size)
        if len(rows) >= min(self.settings.reclaim_min, size):
            recipients = tuple(Recipient(0, batch_id, address, lamports) for batch_id, address, lamports in rows)
            named = ",".join(each.wallet for each in recipients)
            number = self._id(f"reclaim|{named}|{batches.reclaims(self.connection)}")
            batches.add(self.connection, Batch(number, "reclaim", "planned", 0, recipients))

    def payout_batch(self, dues: Sequence[Due], tag: str = "") -> Batch:
        """The batch that pays these creators; its id follows from who, when and which, and the secret."""
        named = ",".join(f"{each.creator_id}:{each.seq}" for each in dues)
        number = self._id(f"payout|{dues[0].period}|{named}|{tag}")
        recipients = tuple(Recipient(d.creator_id, d.wallet, d.address or "", d.amount_pix) for d in dues)
        return Batch(number, "payout", "planned", sum(each.amount_pix for each in dues), recipients)

    def _due(self) -> tuple[list[Due], list[Due]]:
        """Who is due: those with a token account, within the day's limit, and those without one."""
        limit = self.settings.payouts_per_plan_max
        due = batches.due(self.connection, self.economics, self.treasury.mint, limit)
        left = self.economics.payout_day_max_pix - batches.planned_today(self.connection)
        ready: list[Due] = []
        for each in due:
            if each.address is not None and each.amount_pix <= left:
                ready.append(each)
                left -= each.amount_pix
        return ready, [each for each in due if each.address is None]

    def _find_accounts(self, missing: Sequence[Due]) -> None:
        """Look up the token accounts of new recipients; open those that the chain does not have."""
        if not missing:
            return
        recipients = [Recipient(d.creator_id, d.wallet, self.treasury.token_account_of(d.wallet)) for d in missing]
        _, found = self.chain.accounts([each.address for each in recipients])
        unknown = []
        for due, recipient, account in zip(missing, recipients, found, strict=True):
            if account is not None and account.owner == str(packing.TOKEN_PROGRAM):
                batches.know_account(self.connection, self.treasury.mint, recipient, None)
            elif due.amount_pix >= opening_cost_pix(self.economics, self.treasury.account_rent):
                unknown.append(recipient)
        taken = batches.opened_for(self.connection, [each.creator_id for each in unknown])
        for each in unknown:
            if taken.get(each.creator_id, each.wallet) != each.wallet:
                batches.hold(self.connection, each.creator_id, "one token account was opened for this creator already")
        self._open([each for each in unknown if each.creator_id not in taken])
        book.commit(self.connection)

    def _open(self, recipients: Sequence[Recipient], parent: str | None = None) -> None:
        size = self.treasury.capacity("accounts")
        for start in range(0, len(recipients), size):
            chunk = tuple(recipients[start : start + size])
            number = self._id(f"accounts|{','.join(each.address for each in chunk)}|{parent or ''}")
            batches.add(self.connection, Batch(number, "accounts", "planned", 0, chunk), parent)

    # ── Sign and persist ───────────────────────────────────────────────────────────────────────────────────────────

    def sign(self) -> list[str]:
        """Sign what is planned, all with one blockhash, and commit it. Nothing is sent here."""
        waiting = batches.planned(self.connection, self.settings.batches_live_max)
        if not waiting:
            return []
        waiting = self._affordable(waiting)
        sized = [(batch, units) for batch in waiting if (units := self._simulated(batch)) is not None]
        if not sized:
            return []
        blockhash = self.chain.latest_blockhash()
        signatures = []
        for batch, units in sized:
            try:
                raw = self.treasury.signed(self._instructions(batch), blockhash.hash, units)
            except Rejected as refusal:
                batches.freeze(self.connection, NOT_SIGNED, {"batch": batch.id, "reason": str(refusal)})
                break
            signatures.append(packing.signature_of(raw))
            batches.persist(self.connection, batch, signatures[-1], raw, blockhash)
        book.commit(self.connection)
        return signatures

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

    def _simulated(self, batch: Batch) -> int | None:
        """Compute units with a margin; None when the batch would fail, and has been taken apart."""
        raw = self.treasury.unsigned(self._instructions(batch))
        error, units = self.chain.simulate(raw)
        if error is None:
            return min(units + units * self.settings.compute_margin_ppm // PPM + 300, packing.COMPUTE_UNITS_MAX)
        if self._marker_exists(batch):
            if not batch.attempts:  # else an attempt of ours has landed, and `settle` will find it
                batches.freeze(self.connection, PAID_UNKNOWN, {"batch": batch.id})
                book.commit(self.connection)
            return None
        log.warning("batch would fail", extra={"batch": batch.id, "error": str(error)})
        batches.cancel(self.connection, batch)
        self._give_back(batch, f"void:{batch.id}", [], {"batch": batch.id, "error": error})
        self._take_apart(batch, f"the chain refuses it: {error}")
        book.commit(self.connection)
        return None

    def _instructions(self, batch: Batch) -> list[packing.Instruction]:
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

    # ── Send ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def send(self) -> int:
        """Hand the same bytes to every node, now and every so often until their end is known."""
        due = batches.due_to_send(self.connection, self.settings.resend_interval_s)
        self.connection.commit()
        if due:
            self.chain.send([raw for _, raw in due])
            batches.sent(self.connection, [signature for signature, _ in due])
            book.commit(self.connection)
        return len(due)

    # ── Settle ─────────────────────────────────────────────────────────────────────────────────────────────────────

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
        unseen = []
        for attempt in live:
            effect = self._finalized(attempt, looks)
            if effect is not None:
                self._ended(attempt, effect)
            elif looks and all(look.statuses[attempt.signature] is None for look in looks):
                unseen.append(attempt)
        if unseen:
            self._expire(unseen)

    def _finalized(self, attempt: Attempt, looks: Sequence[Look]) -> Effect | None:
        """What the transaction did, if a node says that it is final and enough of them agree on the effect."""
        statuses = [status for look in looks if (status := look.statuses[attempt.signature]) is not None]
        if not any(status.level == "finalized" for status in statuses):
            return None
        return self.chain.effect(attempt.signature, self.opinions)

    def _revive(self, attempt: Attempt, effect: Effect, live: Sequence[Attempt]) -> bool:
        """We gave it up and the chain did not. If it paid, a later attempt of the batch can only fail at the marker.

        False while such an attempt has not ended, or (without markers) has paid as well, which it then ends as.
        """
        batches.freeze(self.connection, LANDED_LATE, self._proof(attempt, effect))
        rivals = [each for each in live if each.batch.id == attempt.batch.id and effect.error is None]
        for rival in rivals:
            ended = self.chain.effect(rival.signature, self.opinions)
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

    def _cost_only(self, attempt: Attempt, effect: Effect) -> None:
        """The attempt failed and its batch goes on: only the fee is booked."""
        key, proof = f"fail:{attempt.signature}", self._proof(attempt, effect)
        self._post(key, f"{attempt.batch.kind}_late", self._cost_lines(effect), proof)

    def _ended(self, attempt: Attempt, effect: Effect) -> None:
        """One transaction of ours: the attempt, the money and what it cost, together."""
        if effect.error is not None and self._marker_exists(attempt.batch):
            if attempt.n == 1:  # else an earlier attempt has paid: it is found among those given up
                batches.freeze(self.connection, PAID_UNKNOWN, self._proof(attempt, effect))
        elif effect.error is not None:
            batches.fail(self.connection, attempt, effect.slot, effect.fee, effect.error)
            self._give_back(
                attempt.batch, f"fail:{attempt.signature}", self._cost_lines(effect), self._proof(attempt, effect)
            )
            self._take_apart(attempt.batch, f"the transaction failed: {effect.error}")
        elif not self._is_as_planned(attempt.batch, effect):
            batches.freeze(
                self.connection, "a transaction did something else than was signed", self._proof(attempt, effect)
            )
        else:
            batches.land(self.connection, attempt, effect.slot, effect.fee)
            self._take_note(attempt, effect)
        book.commit(self.connection)

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
            if self.settings.marker_accounts:
                mark = self.treasury.marker(batch.id)
                batches.add_marker(self.connection, batch, str(mark.address), mark.lamports)
        if batch.kind == "reclaim":
            batches.reclaimed(self.connection, batch)
        if batch.kind == "accounts":
            for each in batch.recipients:
                batches.know_account(self.connection, self.treasury.mint, each, batch.id)

    def _is_as_planned(self, batch: Batch, effect: Effect) -> bool:
        if batch.kind != "payout":
            return all(change == 0 for change in effect.tokens.values())
        wanted = {self.treasury.token_account: -batch.amount_pix}
        for each in batch.recipients:
            wanted[each.address] = wanted.get(each.address, 0) + each.amount
        return {address: change for address, change in effect.tokens.items() if change} == wanted

    def _give_back(self, batch: Batch, key: str, lines: list[tuple[int, int]], document: dict[str, Any]) -> None:
        """Void a batch: its money returns to where it came from. Fees, if any, are the platform's."""
        if batch.kind == "payout":
            back = batches.payable_lines(self.connection, batch)
            in_flight = book.account(self.connection, "in_flight")
            lines = [(in_flight, -batch.amount_pix), *back, *lines]
        entry = self._post(key, f"{batch.kind}_voided", lines, document)
        if batch.kind == "payout" and entry is not None:
            batches.end_transfers(self.connection, batch, "voided", entry.id)

    def _take_apart(self, batch: Batch, reason: str) -> None:
        """Find the recipient at fault by halving; a batch of one names its culprit, who is held."""
        if batch.kind == "reclaim":
            return  # nobody's fault; the markers are tried again
        if len(batch.recipients) == 1:
            batches.hold(self.connection, batch.recipients[0].creator_id, reason[:500])
            return
        middle = len(batch.recipients) // 2
        for half in (batch.recipients[:middle], batch.recipients[middle:]):
            if batch.kind == "accounts":
                self._open(half, batch.id)
            else:
                self._pay_again(batch, {each.creator_id for each in half})

    def _pay_again(self, parent: Batch, creators: set[int]) -> None:
        limit = self.settings.payouts_per_plan_max
        due = batches.due(self.connection, self.economics, self.treasury.mint, limit)
        chosen = sorted((d for d in due if d.creator_id in creators and d.address), key=lambda each: each.creator_id)
        if chosen:
            child = self.payout_batch(chosen, tag=parent.id)
            batches.add(self.connection, child, parent.id)
            batches.pend(self.connection, child, chosen)

    # ── Expire ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _expire(self, unseen: Sequence[Attempt]) -> None:
        """Give up bytes that can never land: finalized height first, then a later look, then the marker."""
        height, slot = self.chain.finalized_height(self.opinions)
        past = [each for each in unseen if height > each.last_valid_block_height]
        if not past:
            return
        looks = [look for look in self.chain.looks([each.signature for each in past]) if look.slot >= slot]
        for attempt in past:
            if self._nobody_knows(attempt, looks) and not self._marker_exists(attempt.batch, slot):
                batches.expire(self.connection, attempt)
                book.commit(self.connection)
                log.info("attempt expired", extra={"batch": attempt.batch.id, "n": attempt.n})

    def _nobody_knows(self, attempt: Attempt, looks: Sequence[Look]) -> bool:
        return len(looks) >= self.opinions and all(look.statuses[attempt.signature] is None for look in looks)

    def _marker_exists(self, batch: Batch, slot: int = 0) -> bool:
        """Whether the chain holds the batch's marker, by any node, at `confirmed`: a marker that may yet vanish counts.

        Answers from before `slot` count as yes, to be safe.
        """
        if batch.kind != "payout" or not self.settings.marker_accounts:
            return False
        address = str(self.treasury.marker(batch.id).address)
        options = {"commitment": "confirmed", "encoding": "base64"}
        answers = self.chain.ask_all("getMultipleAccounts", [address], options, least=self.opinions)
        return any(answer["value"][0] is not None or int(answer["context"]["slot"]) < slot for answer in answers)

    # ── Entries ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _post(self, key: str, kind: str, lines: list[tuple[int, int]], document: dict[str, Any]) -> book.Written | None:
        return book.post(self.connection, book.Entry(kind, key, lines, document)) if lines else None

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

    def _id(self, text: str) -> str:
        return hmac.digest(self.treasury.secret.encode(), text.encode(), hashlib.sha256).hex()[:32]
