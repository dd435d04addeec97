"""Rails: the interface of a way of paying out, on which a payout can be planned, signed, sent and settled.

The steps of a payout use the interface `Rail`; `ledger.solana_rail` implements it for one treasury on Solana. The steps
know batches, money and states. The rail knows how a batch becomes bytes and what proves its end. Three rules hold for
any rail:

* The answer to `submit` is a hint. Only `outcome` and `effect` tell how an attempt ended; they may return None for
  days.
* A batch is signed again only if `expired` has proof that its last attempt can never pay: on Solana its expiry (see
  `evidence`), at a bank a rejection or a confirmed recall. Time alone is never enough. If the batch itself
  ends in the same database transaction, less proof is enough to give up its attempt: `may_expire_with_batch`,
  `require_expired` for a person's request, or that another transaction of the batch has landed (see `adoption`).
* Signing again must not be able to pay twice, even if something was overlooked. On Solana the marker ensures that; at a
  bank it would be an id under which a file is accepted only once.

Rows do not name their rail yet: all payouts of a database use the same one. For two at once, `ledger.batches` needs a
column, and there must be one open attempt per transfer instead of per batch.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from psycopg import Connection

from cluster.errors import Rejected, Temporary
from ledger.payouts.batches import Attempt, Batch, BatchLine
from ledger.payouts.owed import Due
from ledger.risk.screening import Screening
from ledger.settings import Economics, LedgerSettings
from ledger.solana.chain import Blockhash, Chain, Effect, RpcRefusal
from ledger.solana.treasury import Treasury
from ledger.solana.verdict import Fault

PAID_UNKNOWN = "the chain has paid what the ledger has not"
OPINIONS = 2  # nodes that must agree on an end, good or bad, where there are as many
UNREACHABLE = (Temporary, RpcRefusal)  # a rail cannot be asked now; it may be later


class Prepared(NamedTuple):
    """A batch that the rail would accept now, with what has to be signed for it, in the rail's own form."""

    batch: Batch
    content: Any


class Rail(Protocol):
    """One way of paying out, with the settings and a connection that holds the epoch."""

    connection: Connection[Any]
    economics: Economics
    settings: LedgerSettings

    @property
    def screening(self) -> Screening:
        """The operator's own check of recipients."""

    @property
    def opinions(self) -> int:
        """How many sources must report the same before it is believed."""

    @property
    def asset(self) -> str:
        """What is paid in: on Solana the address of the mint."""

    @property
    def source_address(self) -> str:
        """The account that payouts leave from."""

    # ── Plan ───────────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def first_payout_min_pix(self) -> int:
        """The least amount of a first payout, in base units, if the platform pays for opening the account."""

    def capacity(self, guards: int) -> int:
        """Return how many payouts fit in one batch beside the markers of `guards` earlier batches."""

    def lineage_of(self, creator_ids: Collection[int]) -> Mapping[int, list[str]]:
        """Map each creator to the given-up batches that their next payout may repeat.

        The payout must fail if one of these batches has paid.
        """

    def id_of(self, text: str) -> str:
        """Derive the id of a batch from a text: 32 hexadecimal digits that cannot be guessed without the secret."""

    def with_free_ids(self, planned: Sequence[Batch]) -> list[Batch]:
        """Return the batches; each whose id was used on the rail already gets another id."""

    def find_accounts(self, missing: Sequence[Due]) -> None:
        """Find out where these creators can be paid; plan to open accounts for those who have none. Commits."""

    def open_accounts(self, recipients: Sequence[BatchLine], parent: str | None) -> None:
        """Plan batches that open accounts for these recipients; `parent` is the batch that they were in before."""

    def forget_gone(self, batch: Batch) -> bool:
        """Forget accounts of the batch's recipients that no longer exist. Returns whether any was forgotten."""

    def keep_up(self) -> None:
        """Plan what the rail itself needs besides payouts: on Solana, to take back the rent of markers."""

    # ── Sign, send ─────────────────────────────────────────────────────────────────────────────────────────────────

    def prepare(self, waiting: Sequence[Batch]) -> list[Prepared]:
        """Return the batches that can be paid now; give back, halve or let wait those that the rail would refuse."""

    def validity(self) -> Blockhash:
        """Return the limit until which attempts that are signed now can pay."""

    def sign_batch(self, prepared: Prepared, validity: Blockhash) -> tuple[str, bytes]:
        """Sign one batch. Returns the attempt's unique name (on Solana its signature) and the bytes to be sent.

        Raises:
            Rejected: the signer refuses.
        """

    def submit(self, raws: Sequence[bytes]) -> None:
        """Send signed bytes; sending the same bytes again must change nothing."""

    # ── Settle ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def look(self, attempts: Sequence[Attempt]) -> Any:
        """Ask once what is known about these attempts; the answer is passed to `outcome` and `is_unseen`."""

    def outcome(self, attempt: Attempt, seen: Any) -> Effect | None:
        """Return what an attempt did, if `seen` shows that it has ended and enough sources agree; else None."""

    def is_unseen(self, attempt: Attempt, seen: Any) -> bool:
        """Whether sources have answered and none of them knows the attempt. Only such an attempt may have expired."""

    def effect(self, attempt: Attempt) -> Effect | None:
        """Ask what an attempt did; return None while it has not ended, or enough sources do not report the same."""

    def expired(self, unseen: Sequence[Attempt]) -> Iterator[Attempt]:
        """Yield the attempts that are proven never to pay; their batches may be signed again.

        Each proof is completed just before its attempt is yielded.
        """

    def may_expire_with_batch(self, attempt: Attempt) -> bool:
        """Whether an attempt may be given up if its batch ends in the same database transaction.

        This is not enough to sign the batch again.
        """

    def may_give_back(self, batch: Batch, slot: int | None = None) -> bool:
        """Whether it is proven that no transaction of a batch has paid or can pay. Only then may its money go back.

        `slot` is the slot of the evidence that the batch cannot be paid as planned; None for the newest final slot.
        """

    def fault(self, attempt: Attempt, effect: Effect) -> Fault:
        """Return what the error of a failed attempt is about: a recipient, a marker or none of them."""

    def is_blocked(self) -> bool:
        """Whether the rail can pay nobody at present, so that no recipient is at fault. If so, payouts are frozen."""

    def cost_lines(self, effect: Effect) -> list[tuple[int, int]]:
        """Return the postings (account, amount) of what an attempt cost; the platform pays, never a creator."""

    def note_made(self, batch: Batch) -> None:
        """Store which accounts and markers a landed batch has made or emptied on the rail."""

    # ── Resolve ────────────────────────────────────────────────────────────────────────────────────────────────────

    def require_expired(self, batch: Batch, open_ended: Sequence[Attempt]) -> int:
        """Require proof that the attempts `open_ended`, whose effect is not known, have not paid and never can.

        Returns:
            The height that proves it.

        Raises:
            Rejected: that is not proven; the message says what is missing.
        """

    def marker_lamports(self, batch: Batch) -> int:
        """Return what the batch's marker holds, by finalized state; 0 if it does not exist."""

    def require_strangers(self, batch: Batch, evidence: dict[str, Any], *, held: int) -> None:
        """Require that nothing but the ledger's own transactions has paid under the batch's marker.

        Args:
            batch: the batch of the marker.
            evidence: gets what was found, under the key "marker".
            held: the lamports that the marker holds.

        Raises:
            Rejected: that is not proven; the message says what is missing.
        """


def not_proven(why: str) -> Rejected:
    """Return the error with which to refuse to end a batch whose end is not proven; `why` says what is missing."""
    return Rejected(f"not ended: {why}", status=409, code="evidence-missing")


class ChainRail(Rail, Protocol):
    """A rail whose payouts are transactions of Solana; adds what adoption, orders and the rail's own modules need."""

    chain: Chain
    treasury: Treasury
    # Since a restore: the number of its freeze, the height after which nothing signed before can land, a slot past that.
    restored: tuple[int, int, int | None] | None
