"""Wallets: where a creator is paid. Owns `ledger.wallets`; the change log is kept by the database.

A manifest may claim a wallet only where there is none, and payouts wait for a while: who may ingest may name any creator.
A change needs the creator's own scope (or an administrator's) and holds payouts likewise, so that a stolen key does not
empty an account before its owner notices. A manifest's wallet that the creator confirms is paid at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import base58
from psycopg import Connection

from cluster.errors import Rejected
from ledger.settings import Economics


@dataclass(frozen=True)
class Wallet:
    """A creator's wallet; payouts wait until `hold_until` (RFC 3339), if that is set."""

    creator_id: int
    wallet: str
    set_by: str
    set_at: str
    hold_until: str | None


def check(wallet: str) -> str:
    """The wallet, if it is an address that can own a token account.

    Raises:
        Rejected: not base58, not 32 bytes, or the system program's own address.
    """
    try:
        raw = base58.b58decode(wallet)
    except ValueError as error:
        raise Rejected(f"wallet {wallet!r} is not base58", status=422, code="wallet-invalid") from error
    if len(raw) != 32 or raw == bytes(32):
        raise Rejected(f"wallet {wallet!r} is not the address of a wallet", status=422, code="wallet-invalid")
    return wallet


def of(connection: Connection[Any], creator_id: int) -> Wallet | None:
    row = connection.execute(
        "SELECT creator_id, wallet, set_by, set_at, CASE WHEN hold_until > now() THEN hold_until END"
        " FROM ledger.wallets WHERE creator_id = %s",
        (creator_id,),
    ).fetchone()
    if row is None:
        return None
    return Wallet(row[0], row[1], row[2], row[3].isoformat(), row[4].isoformat() if row[4] else None)


def claim(connection: Connection[Any], economics: Economics, creator_id: int, wallet: str) -> bool:
    """A manifest's claim: taken where there is no wallet, ignored where there is the same one. Payouts wait for a while.

    Raises:
        Rejected: the wallet is no address, or the creator has another one already.
    """
    check(wallet)
    done = connection.execute(
        "INSERT INTO ledger.wallets (creator_id, wallet, set_by, hold_until)"
        " VALUES (%s, %s, 'manifest', CASE WHEN %s > 0 THEN now() + make_interval(hours => %s) END)"
        " ON CONFLICT (creator_id) DO NOTHING",
        (creator_id, wallet, economics.manifest_wallet_hold_h, economics.manifest_wallet_hold_h),
    )
    if done.rowcount == 1:
        return True
    known = of(connection, creator_id)
    if known is not None and known.wallet != wallet:
        hint = "the creator changes it with a key of scope creator"
        raise Rejected(f"creator {creator_id} has another wallet already", status=409, code="wallet-taken", hint=hint)
    return False


def change(connection: Connection[Any], economics: Economics, creator_id: int, wallet: str, set_by: str) -> Wallet:
    """The creator's own change. Payouts are held for a while, unless there was no wallet before, or only a manifest's.

    That holds for the same wallet: a confirmation. Another one than the manifest's is a change like any other.

    Raises:
        Rejected: the wallet is no address.
    """
    check(wallet)
    connection.execute(
        "INSERT INTO ledger.wallets AS w (creator_id, wallet, set_by) VALUES (%s, %s, %s)"
        " ON CONFLICT (creator_id) DO UPDATE SET wallet = excluded.wallet, set_by = excluded.set_by, set_at = now(),"
        "   hold_until = CASE WHEN w.wallet <> excluded.wallet THEN now() + make_interval(secs => %s) END"
        " WHERE w.wallet <> excluded.wallet OR w.set_by = 'manifest'",
        (creator_id, wallet, set_by, economics.wallet_hold_s),
    )
    known = of(connection, creator_id)
    assert known is not None
    return known
