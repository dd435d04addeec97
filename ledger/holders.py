"""Whose a token account is, by its bytes: its mint and its owner come first.

A wallet's token account can be given to another key (SetAuthority of the token program); it keeps its address, and whoever
has it gets what is paid there. Pure; knows no chain.
"""

from __future__ import annotations

from collections.abc import Sequence

from solders.pubkey import Pubkey

from ledger import packing
from ledger.batches import Batch, Recipient
from ledger.chain import Account

OWNER_ENDS = 64  # bytes: the mint's 32, then the owner's
PROGRAM = str(packing.TOKEN_PROGRAM)


def belongs(account: Account | None, wallet: str, mint: Pubkey) -> bool:
    """Whether it is a token account of this mint that the wallet owns."""
    if account is None or account.owner != PROGRAM:
        return False
    return account.data[:OWNER_ENDS] == bytes(mint) + bytes(Pubkey.from_string(wallet))


def paid_at(batch: Batch) -> list[str]:
    """The token accounts that a batch pays, each once."""
    return list(dict.fromkeys(each.address for each in batch.recipients)) if batch.kind == "payout" else []


def in_doubt(batch: Batch, told: Sequence[Sequence[Account | None]], mint: Pubkey, least: int) -> list[Recipient]:
    """Recipients of a payout of whom not every node has said that their wallet owns the token account.

    Args:
        batch: whose recipients they are.
        told: for each node the accounts of `paid_at`; of one that says otherwise nothing is believed.
        mint: of what is paid.
        least: so many nodes must have said anything.
    """
    addresses = paid_at(batch)
    if not addresses:
        return []
    if len(told) < least or any(len(accounts) != len(addresses) for accounts in told):
        return list(batch.recipients)
    place = {address: number for number, address in enumerate(addresses)}
    return [
        each
        for each in batch.recipients
        if not all(belongs(accounts[place[each.address]], each.wallet, mint) for accounts in told)
    ]
