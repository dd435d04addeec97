"""A rail: one treasury on a chain, written through the connection that holds the epoch; what all its work shares.

Planning, signing and settling stand on this, each in its module, each on the one before; `payouts` is the whole.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field
from typing import Any

from psycopg import Connection

from ledger import book, screening
from ledger.batches import Batch
from ledger.chain import Chain
from ledger.screening import Screening
from ledger.settings import Economics, LedgerSettings
from ledger.treasury import Treasury

PAID_UNKNOWN = "the chain has paid what the ledger has not"
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

    def __post_init__(self) -> None:
        self.screening = screening.load(self.settings.screening)

    @property
    def opinions(self) -> int:
        """How many nodes must say the same before it is believed."""
        return min(OPINIONS, len(self.chain.nodes)) if self.settings.second_opinion else 1

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

    def _post(self, key: str, kind: str, lines: list[tuple[int, int]], document: dict[str, Any]) -> book.Written | None:
        return book.post(self.connection, book.Entry(kind, key, lines, document)) if lines else None

    def _id(self, text: str) -> str:
        return hmac.digest(self.treasury.secret.encode(), text.encode(), hashlib.sha256).hex()[:32]
