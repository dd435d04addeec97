"""A rail: one treasury on a chain, written through the connection that holds the epoch; what all its work shares.

Planning, signing and settling stand on this, each in its module, each on the one before; `payouts` is the whole.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from psycopg import Connection

from ledger import batches, book, screening
from ledger.batches import Attempt, Batch
from ledger.chain import Chain, Look
from ledger.screening import Screening
from ledger.settings import Economics, LedgerSettings
from ledger.treasury import Treasury

PAID_UNKNOWN = "the chain has paid what the ledger has not"
DAY_S = 86_400
OPINIONS = 2  # that an end needs, good or bad, where there are as many nodes


@dataclass
class Rail:
    """Where money goes out."""

    connection: Connection[Any]
    chain: Chain
    treasury: Treasury
    economics: Economics
    settings: LedgerSettings
    screening: Screening = field(init=False)
    planned_now: frozenset[str] = field(init=False, default=frozenset())  # batches whose recipients were just looked at
    signed_now: frozenset[str] = field(init=False, default=frozenset())  # signatures likewise
    # Since a restore: the number of its freeze, the height after which nothing signed before can land, a slot past that.
    restored: tuple[int, int, int | None] | None = field(init=False, default=None)
    # By batch: a slot at which it could not land any more.
    over: dict[str, int] = field(init=False, default_factory=dict)
    refused: tuple[str, str] = field(init=False, default=("", ""))  # the last that was not adopted, and why

    def __post_init__(self) -> None:
        self.screening = screening.load(self.settings.screening)

    @property
    def opinions(self) -> int:
        """How many nodes must say the same before it is believed."""
        return min(OPINIONS, len(self.chain.nodes)) if self.settings.second_opinion else 1

    def _never_paid(self, batch: Batch, slot: int) -> bool:
        """Whether it is proven that no transaction of the batch has landed or can: only then does its money go back.

        Of what was given up, the finalized height must be past the last one at which it could land, and looks and the
        marker's answer, both finalized, must be from after that. `slot` is of the evidence that the batch cannot land now.
        Heights are what nodes say: the database's clock must say as well that its time is over (`give_back_after_s`).
        """
        given_up = [each for each in batches.given_up(self.connection) if each.batch.id == batch.id]
        if not given_up:
            return not self._marker_exists(batch, slot)
        height, at = self.chain.finalized_height(self.opinions)
        if not all(is_over(each, height) for each in given_up) or not self._is_long_ago(given_up):
            return False
        looks = self._looks_since(given_up, max(at, slot))
        unknown = all(self._nobody_knows(each, looks) for each in given_up)
        return unknown and not self._marker_exists(batch, at, "finalized")

    def _is_long_ago(self, attempts: Sequence[Attempt]) -> bool:
        """Whether the youngest of these was signed so long ago that it lands no more, whatever nodes say of heights."""
        return min(each.age_s for each in attempts) >= self.settings.give_back_after_s

    def _looks_since(self, attempts: Sequence[Attempt], slot: int) -> list[Look]:
        """Looks at these attempts by nodes that have reached the slot."""
        looks = self.chain.looks([each.signature for each in attempts], reach=True)
        return [look for look in looks if look.slot >= slot]

    def _nobody_knows(self, attempt: Attempt, looks: Sequence[Look]) -> bool:
        """Whether enough nodes remember the time since the attempt was signed, and none of those that look knows it."""
        remembering = [look for look in looks if look.first_slot <= attempt.context_slot]
        return len(remembering) >= self.opinions and all(look.statuses[attempt.signature] is None for look in looks)

    def _marker_exists(self, batch: Batch, slot: int, commitment: str = "confirmed") -> bool:
        """Whether the chain holds the batch's marker, by any node: at `confirmed` one that may yet vanish counts.

        Answers from before `slot` count as yes, to be safe.
        """
        if batch.kind != "payout" or not self.settings.marker_accounts:
            return False
        address = str(self.treasury.marker(batch.id).address)
        answers = self.chain.all_accounts([address], commitment, opinions=self.opinions)
        return any(account is not None or at < slot for at, (account,) in answers)

    def _marker_stands(self, batch: Batch) -> bool:
        """Whether a node says that the batch's marker is on chain for good; what one has not come to yet does not count."""
        return self._marker_lamports(batch) > 0

    def _marker_lamports(self, batch: Batch) -> int:
        """What the batch's marker holds on chain for good, by the node that says most; 0 where no node knows it."""
        if batch.kind != "payout" or not self.settings.marker_accounts:
            return 0
        address = str(self.treasury.marker(batch.id).address)
        answers = self.chain.all_accounts([address], opinions=self.opinions)
        return max(account.lamports if account is not None else 0 for _, (account,) in answers)

    def _post(self, key: str, kind: str, lines: list[tuple[int, int]], document: dict[str, Any]) -> book.Written | None:
        return book.post(self.connection, book.Entry(kind, key, lines, document)) if lines else None

    def _id(self, text: str) -> str:
        return hmac.digest(self.treasury.secret.encode(), text.encode(), hashlib.sha256).hex()[:32]


def is_over(attempt: Attempt, height: int) -> bool:
    """Whether its last block is past, by the finalized height; or it is so old that no chain takes it.

    The last height is what nodes said once; an earlier release believed it of one node alone, whatever it was.
    """
    return height > attempt.last_valid_block_height or attempt.age_s > batches.LINEAGE_DAYS * DAY_S
