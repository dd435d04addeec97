"""The rail of Solana: one treasury on the chain, written through the connection that holds the epoch.

Implements the interface that the steps of a payout use (`payouts.rail`). `upkeep` plans what the rail needs besides
payouts, `trials` finds out what a batch would do, and `evidence` proves how a batch has ended.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from psycopg import Connection
from solders.transaction import VersionedTransaction

from ledger.journal import book
from ledger.payouts import batches
from ledger.payouts.batches import Attempt, Batch, BatchLine
from ledger.payouts.owed import Due
from ledger.payouts.rail import OPINIONS, Prepared
from ledger.risk import screening
from ledger.risk.screening import Screening
from ledger.settings import Economics, LedgerSettings
from ledger.solana import packing, verdict
from ledger.solana.chain import Blockhash, Chain, Effect, Look
from ledger.solana.treasury import Treasury, opening_cost_pix
from ledger.solana.verdict import Fault
from ledger.solana_rail import evidence, trials, upkeep


@dataclass
class SolanaRail:
    """One treasury on Solana, as a rail of payouts."""

    connection: Connection[Any]
    chain: Chain
    treasury: Treasury
    economics: Economics
    settings: LedgerSettings
    screening: Screening = field(init=False)
    # Since a restore: the number of its freeze, the height after which nothing signed before can land, a slot past that.
    restored: tuple[int, int, int | None] | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.screening = screening.load(self.settings.screening)

    @property
    def opinions(self) -> int:
        """How many nodes must report the same before it is believed."""
        return min(OPINIONS, len(self.chain.nodes)) if self.settings.second_opinion else 1

    @property
    def asset(self) -> str:
        """The address of the mint."""
        return self.treasury.mint

    @property
    def source_address(self) -> str:
        """The treasury's token account."""
        return self.treasury.token_account

    # ── Plan ───────────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def first_payout_min_pix(self) -> int:
        """The price of opening a token account, in base units of PIX."""
        return opening_cost_pix(self.economics, self.treasury.account_rent)

    def capacity(self, guards: int) -> int:
        return self.treasury.capacity("payout", guards)

    def lineage_of(self, creator_ids: Collection[int]) -> Mapping[int, list[str]]:
        return batches.lineage_of(self.connection, creator_ids) if self.settings.marker_accounts else {}

    def id_of(self, text: str) -> str:
        return hmac.digest(self.treasury.secret.encode(), text.encode(), hashlib.sha256).hex()[:32]

    def with_free_ids(self, planned: Sequence[Batch]) -> list[Batch]:
        """Return the batches; each whose marker is or was on chain gets another id.

        The old id is that of a batch that a restore has forgotten.
        """
        taken = self._marked(planned)
        while taken:
            planned = [
                replace(each, id=self.id_of(each.id)) if self._marker_address(each) in taken else each
                for each in planned
            ]
            taken = self._marked(planned)
        return list(planned)

    def _marked(self, planned: Sequence[Batch]) -> set[str]:
        return batches.marked(self.connection, [self._marker_address(each) for each in planned])

    def _marker_address(self, batch: Batch) -> str:
        return str(self.treasury.marker(batch.id).address)

    def find_accounts(self, missing: Sequence[Due]) -> None:
        upkeep.find_accounts(self, missing)

    def open_accounts(self, recipients: Sequence[BatchLine], parent: str | None) -> None:
        upkeep.open_accounts(self, recipients, parent)

    def forget_gone(self, batch: Batch) -> bool:
        return upkeep.forget_gone(self, batch)

    def keep_up(self) -> None:
        """Plan to take back the rent of old markers."""
        upkeep.reclaim(self)

    # ── Sign, send ─────────────────────────────────────────────────────────────────────────────────────────────────

    def prepare(self, waiting: Sequence[Batch]) -> list[Prepared]:
        return trials.simulated(self, trials.affordable(self, waiting))

    def validity(self) -> Blockhash:
        return self.chain.latest_blockhash(self.opinions)

    def sign_batch(self, prepared: Prepared, validity: Blockhash) -> tuple[str, bytes]:
        instructions, units = prepared.content
        raw = self.treasury.signed(instructions, validity.hash, units)
        return packing.signature_of(raw), raw

    def submit(self, raws: Sequence[bytes]) -> None:
        """Send signed transactions to every node."""
        self.chain.send(raws)

    # ── Settle ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def look(self, attempts: Sequence[Attempt]) -> list[Look]:
        return self.chain.looks([each.signature for each in attempts])

    def outcome(self, attempt: Attempt, seen: Sequence[Look]) -> Effect | None:
        """Return what the transaction did, if a node reports it as finalized and enough nodes agree on its effect."""
        statuses = [status for look in seen if (status := look.statuses[attempt.signature]) is not None]
        if not any(status.level == "finalized" for status in statuses):
            return None
        return self.effect(attempt)

    def is_unseen(self, attempt: Attempt, seen: Sequence[Look]) -> bool:
        return bool(seen) and all(look.statuses[attempt.signature] is None for look in seen)

    def effect(self, attempt: Attempt) -> Effect | None:
        return self.chain.effect(attempt.signature, self.opinions)

    def expired(self, unseen: Sequence[Attempt]) -> Iterator[Attempt]:
        return evidence.expired(self, unseen)

    def may_expire_with_batch(self, attempt: Attempt) -> bool:
        return evidence.may_expire_with_batch(self, attempt)

    def may_give_back(self, batch: Batch, slot: int | None = None) -> bool:
        return evidence.may_give_back(self, batch, slot)

    def fault(self, attempt: Attempt, effect: Effect) -> Fault:
        transaction = VersionedTransaction.from_bytes(attempt.raw)
        limits = verdict.limits_of(transaction)
        guards = len(transaction.message.instructions) - limits - len(attempt.batch.recipients)
        return verdict.of(effect.error, attempt.batch.kind, guards, limits)

    def is_blocked(self) -> bool:
        """Whether the treasury's token account is frozen on chain; payouts are frozen then."""
        return trials.is_blocked(self)

    def cost_lines(self, effect: Effect) -> list[tuple[int, int]]:
        """Return the postings (account, lamports) of fee and rent: the platform pays, never a creator."""
        change = effect.lamports.get(str(self.treasury.payer.gas), 0)
        if change == 0:
            return []
        platform = book.account(self.connection, "platform", "SOL")
        return [(platform, change), (book.account(self.connection, "chain", "SOL"), -change)]

    def note_made(self, batch: Batch) -> None:
        """Store the marker that a payout has made, markers that a reclaim has emptied, or accounts that were opened."""
        if batch.kind == "payout" and self.settings.marker_accounts:  # its rent is to be taken back in time
            marker = self.treasury.marker(batch.id)
            batches.add_marker(self.connection, batch, str(marker.address), marker.lamports)
        if batch.kind == "reclaim":
            batches.reclaimed(self.connection, batch)
        if batch.kind == "accounts":
            for each in batch.recipients:
                batches.know_account(self.connection, self.treasury.mint, each, batch.id)

    # ── Resolve ────────────────────────────────────────────────────────────────────────────────────────────────────

    def require_expired(self, batch: Batch, open_ended: Sequence[Attempt]) -> int:
        return evidence.require_expired(self, batch, open_ended)

    def marker_lamports(self, batch: Batch) -> int:
        return evidence.marker_lamports(self, batch)

    def require_strangers(self, batch: Batch, found: dict[str, Any], *, held: int) -> None:
        evidence.require_strangers(self, batch, found, held=held)
