"""Challenges: a proof that the caller who names a wallet holds its key. Owns `ledger.wallet_challenges`, `wallet_proofs`.

A challenge is a message to sign, in the format of Sign-In With Solana, so that wallet programs can show it and warn when its
domain is not that of the page. It is bound to the deployment's domain, the creator, the wallet and the caller; it can be
used once, within some minutes by the database's clock. The answer is only a signature: it is verified against the message
that was stored, never against one that the caller sends. Does not know what a proof is good for (see `wallets`).
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import Connection
from solders.pubkey import Pubkey
from solders.signature import Signature

from cluster.errors import Rejected
from ledger.creators import wallets
from ledger.settings import Economics

Conn = Connection[Any]

NONCE_BYTES = 16
AGAIN = "ask for another challenge"
MESSAGE = """\
{domain} wants you to sign in with your Solana account:
{wallet}

Be paid at this wallet as creator {creator_id}. It is set by the one who asked for this message.

URI: https://{domain}/v1/creators/{creator_id}/wallet
Version: 1
Nonce: {nonce}
Issued At: {issued_at}
Expiration Time: {expires_at}"""


@dataclass(frozen=True)
class Challenge:
    """A message to be signed by the key of `wallet`."""

    creator_id: int
    wallet: str
    nonce: str
    message: str  # its UTF-8 bytes are signed
    expires_at: str  # RFC 3339


@dataclass(frozen=True)
class Answer:
    """The answer to a challenge: the challenge's nonce, and the signature of its message."""

    nonce: str  # of the challenge
    signature: str  # of its message: 64 bytes in base58


def issue(connection: Conn, economics: Economics, creator_id: int, wallet: str, asked_by: str) -> Challenge:
    """Make a new challenge; an earlier one of the same caller for the same creator becomes void.

    Args:
        connection: in the caller's transaction.
        economics: `wallet_domain` and `wallet_challenge_s` are read.
        creator_id: the creator who is to be paid at the wallet.
        wallet: the address, base58.
        asked_by: the caller; nobody else can answer the challenge.

    Returns:
        The challenge.

    Raises:
        Rejected: the wallet cannot be paid, or `wallet_domain` is not set.
    """
    if not economics.wallet_domain:
        hint = "set [economics] wallet_domain to the name by which browsers know this deployment"
        raise Rejected("wallets cannot be proven here", status=409, code="no-wallet-domain", hint=hint)
    wallets.require_payable(connection, wallet)
    row = connection.execute(
        "SELECT now, now + make_interval(secs => %s) FROM clock_timestamp() AS now", (economics.wallet_challenge_s,)
    ).fetchone()
    assert row is not None
    issued_at, expires_at = row
    nonce = secrets.token_hex(NONCE_BYTES)
    message = MESSAGE.format(domain=economics.wallet_domain, wallet=wallet, creator_id=creator_id, nonce=nonce,
                             issued_at=_instant(issued_at), expires_at=_instant(expires_at))  # fmt: skip
    connection.execute(
        "INSERT INTO ledger.wallet_challenges (creator_id, asked_by, wallet, nonce, message, issued_at, expires_at)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s) ON CONFLICT (creator_id, asked_by) DO UPDATE SET wallet = excluded.wallet,"
        "   nonce = excluded.nonce, message = excluded.message, issued_at = excluded.issued_at,"
        "   expires_at = excluded.expires_at",
        (creator_id, asked_by, wallet, nonce, message, issued_at, expires_at),
    )
    return Challenge(creator_id, wallet, nonce, message, _instant(expires_at))


def prove(connection: Conn, creator_id: int, wallet: str, asked_by: str, answer: Answer) -> str:
    """Verify the answer to a challenge, use the challenge up and write the proof.

    Args:
        connection: in the caller's transaction. If that is rolled back after a refusal, the challenge stays open.
        creator_id: the creator who is to be paid at the wallet.
        wallet: the address, base58.
        asked_by: the caller; must be the one who asked for the challenge.
        answer: the nonce and the signature.

    Returns:
        The id of the proof, for `wallets.change`.

    Raises:
        Rejected: no such challenge is open for this caller, creator and wallet, it has expired, or the signature is not
            of its message by the wallet's key.
    """
    row = connection.execute(
        "DELETE FROM ledger.wallet_challenges WHERE nonce = %s AND creator_id = %s AND wallet = %s AND asked_by = %s"
        " RETURNING message, expires_at > clock_timestamp()",
        (answer.nonce, creator_id, wallet, asked_by),
    ).fetchone()
    if row is None:
        raise _refused("no such challenge is open for this creator, wallet and key")
    message, in_time = row
    if not in_time:
        raise _refused("the challenge has expired")
    if not verifies(wallet, message, answer.signature):
        raise _refused("the signature is not of the challenge's message by the key of this wallet")
    connection.execute(
        "INSERT INTO ledger.wallet_proofs (nonce, creator_id, asked_by, wallet, message, signature)"
        " VALUES (%s, %s, %s, %s, %s, %s)",
        (answer.nonce, creator_id, asked_by, wallet, message, answer.signature),
    )
    return answer.nonce


def verifies(wallet: str, message: str, signature: str) -> bool:
    """Return whether `signature` is the ed25519 signature of the message by the wallet's key.

    The check is strict: neither the key nor the point of the signature may be of small order, and the scalar must be
    below the order of the group. So nobody can derive a second valid signature from a first.
    """
    try:
        return Signature.from_string(signature).verify(Pubkey.from_string(wallet), message.encode())
    except ValueError:
        return False


def _instant(instant: datetime) -> str:
    return instant.isoformat(timespec="seconds").replace("+00:00", "Z")


def _refused(why: str) -> Rejected:
    return Rejected(why, status=422, code="proof-invalid", hint=AGAIN)
