"""A localnet inside the caller's own process, for tests and benchmarks; it makes blocks when the caller asks for it.

Programs, signatures, fees and heights are the localnet's own (LiteSVM). Only HTTP is left out, and accounts are set
directly instead of being opened by transactions. Keys derive from words, so that runs repeat.
"""

from __future__ import annotations

import hashlib
from typing import Any

from solders.account import Account
from solders.keypair import Keypair
from solders.pubkey import Pubkey
from solders.token.state import Mint, TokenAccount, TokenAccountState

from ledger.solana import packing
from ledger.solana.chain import RpcRefusal
from ledger.solana.localnet import blocks
from ledger.solana.localnet.methods import RpcError, answer
from ledger.solana.localnet.store import LocalnetStore
from ledger.solana.treasury import Treasury

RENT = 1_488_440  # lamports of a token account and of a mint
DECIMALS = 6


class Key:
    """A signer whose key derives from a word."""

    def __init__(self, word: str) -> None:
        self._keypair = Keypair.from_seed(hashlib.sha256(word.encode()).digest())

    @property
    def pubkey(self) -> Pubkey:
        return self._keypair.pubkey()

    def sign(self, message: bytes) -> bytes:
        return bytes(self._keypair.sign_message(message))


class LocalNode:
    """An RPC node that calls a chain directly instead of over HTTP; `calls` records what it was asked."""

    def __init__(self, name: str, chain: blocks.LocalChain) -> None:
        self.name, self.chain = name, chain
        self.calls: list[str] = []

    async def call(self, method: str, params: list[Any]) -> Any:
        self.calls.append(method)
        try:
            return answer(self.chain, method, params)
        except RpcError as error:
            raise RpcRefusal(error.code, error.message, error.data) from error


def new_chain(seed: bytes = b"test") -> blocks.LocalChain:
    """Make a chain in memory; the same seed makes the same chain."""
    return blocks.LocalChain(LocalnetStore(":memory:"), seed=seed)


def advance(chain: blocks.LocalChain, count: int) -> None:
    """Make `count` blocks."""
    for _ in range(count):
        chain.produce(chain.height)


def token_account(mint: Pubkey, owner: Pubkey, amount: int = 0, *, frozen: bool = False) -> Account:
    """Make a token account as bytes on chain, with its rent.

    Args:
        mint: the token's mint.
        owner: who may spend from it.
        amount: what it holds, in base units.
        frozen: whether nothing may enter or leave it.

    Returns:
        The account.
    """
    state = TokenAccountState.Frozen if frozen else TokenAccountState.Initialized
    data = bytes(TokenAccount(mint, owner, amount, None, state, None, 0))
    return Account(RENT, data, packing.TOKEN_PROGRAM)


def put_treasury(
    chain: blocks.LocalChain,
    secret: str,
    pool_pix: int,
    gas_lamports: int,
    *,
    version: str = "v1",
    separate_gas: bool = False,
    word: str = "",
) -> Treasury:
    """Create a mint on a chain, and a treasury that holds all its tokens.

    Args:
        chain: the chain.
        secret: the secret from which ids and markers of batches derive.
        pool_pix: what the treasury holds, in base units.
        gas_lamports: what the payer of fees holds.
        version: the version of transactions: "legacy" or "v1".
        separate_gas: whether another key than the treasury's pays the fees.
        word: a prefix of the words that the keys derive from.

    Returns:
        The treasury, ready to pay.
    """
    owner, gas = Key(f"{word}treasury"), Key(f"{word}gas" if separate_gas else f"{word}treasury")
    mint = Key(f"{word}mint").pubkey
    account = packing.token_account(owner.pubkey, mint)
    payer = packing.Payer(gas.pubkey, owner.pubkey, account, mint, DECIMALS)
    rents = chain.svm.minimum_balance_for_rent_exemption(0), RENT
    minted = bytes(Mint(None, pool_pix, DECIMALS, True, mint))
    chain.svm.set_account(mint, Account(RENT, minted, packing.TOKEN_PROGRAM))
    chain.svm.set_account(account, token_account(mint, owner.pubkey, pool_pix))
    chain.svm.set_account(gas.pubkey, Account(gas_lamports, b"", packing.SYSTEM_PROGRAM))
    return Treasury(payer, (gas, owner) if separate_gas else (owner,), version, *rents, secret)
