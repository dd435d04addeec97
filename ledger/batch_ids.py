"""Ids of payout batches: each says whom the batch pays, to whoever holds the secret of the batches.

An id is a letter, 15 digits that follow from who is paid, when and for which time, and 16 that seal them with the
creators. On chain it stands in the batch's memo or, enciphered, in its marker's seed. So the id of a transaction that a
restored database has forgotten can be read, and of the creators who may have been paid by it those be told who were. No
amount is part of it: whom the chain has paid for that time once it pays no other amount. Ids of earlier releases are 32
digits that say nothing. Knows no database and no chain.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Sequence

SEALED = "p"  # how an id begins that says whom it pays
BATCH_ID = re.compile("[0-9a-f]{32}|p[0-9a-f]{31}")
OWN_DIGITS, SEAL_DIGITS = 15, 16
HALF_BITS, TURNS = 62, 4  # of the cipher: a Feistel network over the 31 digits


def sealed(secret: str, text: str, creators: Sequence[int]) -> str:
    """The id that follows from `text`, of a batch that pays these creators in this order."""
    own = _digest(secret, "id", text)[:OWN_DIGITS]
    return SEALED + own + _seal(secret, own, creators)


def is_of(secret: str, batch_id: str, creators: Sequence[int]) -> bool:
    """Whether an id says that these creators are paid, in this order."""
    own, seal = batch_id[1 : 1 + OWN_DIGITS], batch_id[1 + OWN_DIGITS :]
    return batch_id.startswith(SEALED) and hmac.compare_digest(seal, _seal(secret, own, creators))


def seed(secret: str, batch_id: str) -> str:
    """The seed of a batch's marker: 32 characters that say nothing without the secret, and cannot be foretold."""
    if not batch_id.startswith(SEALED):
        return hashlib.sha256(f"{batch_id}|{secret}".encode()).hexdigest()[:32]
    left, right = divmod(int(batch_id[1:], 16), 1 << HALF_BITS)
    for turn in range(TURNS):
        left, right = right, left ^ _mixed(secret, turn, right)
    return f"{SEALED}{left << HALF_BITS | right:031x}"


def of_seed(secret: str, found: str) -> str | None:
    """The id that a marker's seed is of; None where it is an earlier release's, which cannot be read back."""
    if not found.startswith(SEALED) or BATCH_ID.fullmatch(found) is None:
        return None
    left, right = divmod(int(found[1:], 16), 1 << HALF_BITS)
    for turn in reversed(range(TURNS)):
        left, right = right ^ _mixed(secret, turn, left), left
    return f"{SEALED}{left << HALF_BITS | right:031x}"


def _mixed(secret: str, turn: int, half: int) -> int:
    return int(_digest(secret, f"seed {turn}", str(half))[:16], 16) >> (64 - HALF_BITS)


def _seal(secret: str, own: str, creators: Sequence[int]) -> str:
    return _digest(secret, "recipients", f"{own}|{','.join(map(str, creators))}")[:SEAL_DIGITS]


def _digest(secret: str, purpose: str, text: str) -> str:
    return hmac.digest(secret.encode(), f"{purpose}|{text}".encode(), "sha256").hex()
