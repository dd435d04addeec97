"""Protocols that are known to be wrong: the simulation must catch each of them, or it proves nothing about ours."""

from __future__ import annotations

from collections.abc import Sequence

from ledger import batches, book, packing
from ledger.batches import Attempt
from ledger.chain import Effect, Look, _effect
from ledger.payouts import Payouts


class SendThenRecord(Payouts):
    """The bytes leave before they are written down: a crash between the two pays again."""

    def sign(self) -> list[str]:
        for batch in batches.planned(self.connection, self.settings.batches_live_max):
            for _, instructions, units in self._simulated([batch]):
                blockhash = self.chain.latest_blockhash()
                raw = self.treasury.signed(instructions, blockhash.hash, units)
                self.chain.send([raw])
                batches.persist(self.connection, [(batch, packing.signature_of(raw), raw)], blockhash)
                book.commit(self.connection)
        return []


class ExpiryAtConfirmed(Payouts):
    """Gives up at the confirmed height, and does not look again."""

    def _expire(self, unseen: Sequence[Attempt]) -> None:
        height = int(self.chain.ask("getEpochInfo", {"commitment": "confirmed"})["blockHeight"])
        for attempt in unseen:
            if height > attempt.last_valid_block_height:
                batches.expire(self.connection, attempt)
                book.commit(self.connection)


class DoneAtConfirmed(Payouts):
    """Takes a confirmed transaction for a fact: a fork undoes it."""

    def _finalized(self, attempt: Attempt, looks: Sequence[Look]) -> Effect | None:
        statuses = [status for look in looks if (status := look.statuses[attempt.signature]) is not None]
        if not any(status.level in ("confirmed", "finalized") for status in statuses):
            return None
        options = {"commitment": "confirmed", "encoding": "json", "maxSupportedTransactionVersion": 1}
        answer = self.chain.ask("getTransaction", attempt.signature, options)
        return _effect(attempt.signature, answer) if answer else None


WRONG = (SendThenRecord, ExpiryAtConfirmed, DoneAtConfirmed)
