"""A chain inside the test's own process, and a ledger that settles on it: blocks are made when the test says so.

The chain and its accounts are those of `ledger.solana.localnet.inside`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from psycopg import Connection
from solders.pubkey import Pubkey

from ledger.audit import audit
from ledger.journal import book
from ledger.payouts import batches
from ledger.payouts.batches import BatchLine
from ledger.payouts.payouts import Payouts
from ledger.settings import Economics, LedgerSettings
from ledger.solana import packing, treasury
from ledger.solana.chain import Chain
from ledger.solana.localnet import blocks, inside
from ledger.solana.localnet.inside import RENT, Key, LocalNode, new_chain, token_account
from ledger.solana.treasury import Treasury

__all__ = ["RENT", "Key", "LocalNode", "new_chain", "token_account"]

FINAL_BLOCKS = blocks.FINALITY_BLOCKS + 1
EXPIRED_BLOCKS = blocks.WINDOW_BLOCKS + FINAL_BLOCKS
POOL = 10**12
GAS = 10**11
SECRET = "a secret of the tests"
EAGER = LedgerSettings(resend_interval_s=1e-6, second_opinion=True, give_back_after_s=0, reclaim_pause_s=0)
SMALL = Economics(maturity_s=0, payout_min_pix=1)


def wallet_of(creator_id: int) -> str:
    return str(Key(f"creator {creator_id}").pubkey)


@dataclass
class Rig:
    """A funded treasury on a chain of its own, the ledger's connection, and the hands to move both."""

    connection: Connection[Any]
    chain: blocks.LocalChain
    nodes: Sequence[Any] = ()
    economics: Economics = SMALL
    settings: LedgerSettings = EAGER
    version: str = "v1"
    separate_gas: bool = False
    rpc: Chain = field(init=False)
    treasury: Treasury = field(init=False)
    payouts: Payouts = field(init=False)

    def __post_init__(self) -> None:
        self.rpc = Chain(list(self.nodes) or [LocalNode("a", self.chain), LocalNode("b", self.chain)])
        self.treasury = inside.put_treasury(
            self.chain, SECRET, POOL, GAS, version=self.version, separate_gas=self.separate_gas
        )
        self.advance(FINAL_BLOCKS)
        treasury.bind(self.connection, "genesis", self.treasury.payer, SECRET)
        self._deposit()
        self.payouts = self.fresh()

    def fresh(self, kind: Callable[..., Payouts] = Payouts) -> Payouts:
        """Payouts as a process that has just started has them."""
        return kind(self.connection, self.rpc, self.treasury, self.economics, self.settings)

    def _deposit(self) -> None:
        """The journal's side of what the treasury holds."""
        for asset, kind, amount in (("PIX", "reward_pool", POOL), ("SOL", "platform", GAS)):
            lines = [
                (book.account(self.connection, "chain", asset), -amount),
                (book.account(self.connection, kind, asset), amount),
            ]
            book.post(self.connection, book.Entry("deposit", f"deposit:genesis:{asset}", lines))
        book.commit(self.connection)

    # ── Hands ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def advance(self, count: int) -> None:
        inside.advance(self.chain, count)

    def creator(self, creator_id: int, amount: int, *, account: bool = True) -> int:
        """A creator with a wallet, who has earned `amount`."""
        wallet = wallet_of(creator_id)
        self.connection.execute(
            "INSERT INTO ledger.wallets (creator_id, wallet, set_by) VALUES (%s, %s, 'creator') ON CONFLICT DO NOTHING",
            (creator_id, wallet),
        )
        if account:
            self.put_account(creator_id)
            known = BatchLine(creator_id, wallet, str(self.address_of(creator_id)))
            batches.know_account(self.connection, self.treasury.mint, known, None)
        if amount:
            self.earn(creator_id, amount)
        self.connection.commit()
        return creator_id

    def earn(self, creator_id: int, amount: int, key: str = "") -> None:
        payable = book.accounts_of(self.connection, "payable", "creator", [creator_id])[creator_id]
        lines = [(book.account(self.connection, "reward_pool"), -amount), (payable, amount)]
        last = self.connection.execute("SELECT entry_id FROM ledger.chain_head").fetchone()
        assert last is not None
        book.post(self.connection, book.Entry("accrual", key or f"earned:{last[0]}", lines))
        book.commit(self.connection)

    def put_account(self, creator_id: int, amount: int = 0, *, frozen: bool = False) -> None:
        owner = Pubkey.from_string(wallet_of(creator_id))
        account = token_account(self.treasury.payer.mint, owner, amount, frozen=frozen)
        self.chain.svm.set_account(self.address_of(creator_id), account)
        self.advance(FINAL_BLOCKS)

    def put_frozen(self, creator_id: int) -> None:
        """The creator's token account is frozen from this moment on, without a block between."""
        owner = Pubkey.from_string(wallet_of(creator_id))
        frozen = token_account(self.treasury.payer.mint, owner, self.on_chain(creator_id), frozen=True)
        self.chain.svm.set_account(self.address_of(creator_id), frozen)

    def address_of(self, creator_id: int) -> Pubkey:
        return packing.token_account(Pubkey.from_string(wallet_of(creator_id)), self.treasury.payer.mint)

    def pay(self, rounds: int = 12) -> None:
        """Rounds of the ledger with enough blocks between them for everything to become final."""
        for _ in range(rounds):
            self.payouts.run_once()
            self.advance(FINAL_BLOCKS)

    # ── What is so ─────────────────────────────────────────────────────────────────────────────────────────────────

    def on_chain(self, creator_id: int) -> int:
        found = blocks.token_amount(self.chain.account(self.address_of(creator_id)))
        return found[2] if found else 0

    def balance(self, kind: str, creator_id: int | None = None, asset: str = "PIX") -> int:
        party, owner = ("creator", creator_id) if creator_id is not None else ("", 0)
        row = self.connection.execute(
            "SELECT balance FROM ledger.accounts WHERE (kind, party, owner, asset) = (%s, %s, %s, %s)",
            (kind, party, owner, asset),
        ).fetchone()
        return int(row[0]) if row else 0

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        found = self.connection.execute(query, values).fetchall()
        self.connection.commit()
        return found

    def states(self) -> dict[str, int]:
        """How many batches are in which state."""
        return dict(self.rows("SELECT state, count(*)::int FROM ledger.batches GROUP BY state"))  # type: ignore[arg-type]

    def holds(self) -> dict[int, str]:
        return dict(self.rows("SELECT creator_id, reason FROM ledger.holds WHERE released_at IS NULL"))  # type: ignore[arg-type]

    def freezes(self) -> list[str]:
        return [row[0] for row in self.rows("SELECT reason FROM ledger.freezes WHERE released_at IS NULL ORDER BY id")]


def assert_paid(rig: Rig, amounts: dict[int, int]) -> None:
    """On chain, in the journal and nowhere else."""
    assert {creator: rig.on_chain(creator) for creator in amounts} == amounts
    paid = dict(rig.rows("SELECT creator_id, coalesce(sum(on_chain_pix), 0)::bigint FROM ledger.payouts GROUP BY 1"))  # type: ignore[arg-type]
    assert {creator: paid.get(creator, 0) for creator in amounts} == amounts
    assert rig.balance("in_flight") == 0
    assert all(check.ok for check in audit.run(rig.connection, rig.rpc, str(rig.treasury.payer.gas), full=True))


def attempts(rig: Rig) -> list[tuple[Any, ...]]:
    return rig.rows("SELECT n, state, sends > 0 FROM ledger.attempts ORDER BY batch_id, n")
