"""Wallets: where a creator is paid. Owns `ledger.wallets`; the database keeps the change log and the least hold of a change.

A manifest may claim a wallet only where there is none, and payouts wait for a while: who may ingest may name any creator.
A change needs the creator's own scope (or an administrator's) and holds payouts likewise, so that a stolen key does not
empty an account before its owner notices. A manifest's wallet that the creator confirms is paid at once.

A wallet must be payable: the public key of a pair of keys, and neither a program's address nor one of the platform's own.
That is asked when it is set and again whenever a payout is planned, since rules grow and older wallets stay.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from psycopg import Connection
from solders.pubkey import Pubkey

from cluster.errors import Rejected
from ledger.settings import Economics

UNPAYABLE = "the wallet cannot be paid"  # how the reason of such a hold begins
ONES = "1" * 12  # of no key in base 58, except by choice: the chain's own programs and settings are named so
PROGRAMS = frozenset((
    "TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA",
    "TokenzQdBNbLqP5VEhdkAS6EPFLC1PHnBqCXEpPxuEb",
    "ATokenGPvbdGVxr1b2hvZbsiqW5xWH25efTNsLJA8knL",
    "MemoSq4gqABAXKb96qnH8TysNcWxMyWCqXgDLGmfcHr",
    "Memo1UhkJRfHyvLMcVucJwxXeuD728EqVDDwQDxFMNo",
))  # fmt: skip


@dataclass(frozen=True)
class Wallet:
    """A creator's wallet; payouts wait until `hold_until` (RFC 3339), if that is set."""

    creator_id: int
    wallet: str
    set_by: str
    set_at: str
    hold_until: str | None


def check(wallet: str) -> str:
    """The wallet, if it is an address that a pair of keys can have.

    Raises:
        Rejected: it is not base58, not 32 bytes, not on the curve (a program's or a token account's address), or the
            address of a program or a setting of the chain.
    """
    why = _unfit(wallet)
    if why is not None:
        raise Rejected(
            f"wallet {wallet!r} {why}", status=422, code="wallet-invalid", hint="name the address of a wallet"
        )
    return wallet


def unpayable(connection: Connection[Any], wallets: Iterable[str]) -> dict[str, str]:
    """Of these wallets those that cannot be paid, each with the reason."""
    asked = set(wallets)
    rows = connection.execute(
        "SELECT address, role FROM ledger.own_addresses WHERE address = ANY(%(all)s) UNION ALL"
        " SELECT address, 'marker' FROM ledger.markers WHERE address = ANY(%(all)s)",
        {"all": list(asked)},
    )
    own = {address: f"is the platform's own ({role})" for address, role in rows}
    return {wallet: why for wallet in asked if (why := _unfit(wallet) or own.get(wallet)) is not None}


def unpayable_of(connection: Connection[Any], wallets: Mapping[int, str]) -> dict[int, str]:
    """Of these creators' wallets those that cannot be paid, by creator, each with the reason.

    Asked are those that were not before, and those that have become the platform's own since.
    """
    rows = connection.execute(
        "SELECT creator_id, wallet FROM ledger.checked_wallets WHERE creator_id = ANY(%s)", (list(wallets),)
    )
    checked: dict[int, str] = dict(rows.fetchall())
    own = {address for (address,) in connection.execute("SELECT address FROM ledger.own_addresses")}
    doubtful = {
        creator: wallet for creator, wallet in wallets.items() if checked.get(creator) != wallet or wallet in own
    }
    why = unpayable(connection, doubtful.values()) if doubtful else {}
    fit = {creator: wallet for creator, wallet in doubtful.items() if wallet not in why}
    connection.execute(
        "INSERT INTO ledger.checked_wallets (creator_id, wallet) SELECT * FROM unnest(%s::bigint[], %s::text[])"
        " ON CONFLICT (creator_id) DO UPDATE SET wallet = excluded.wallet",
        (list(fit), list(fit.values())),
    )
    return {creator: why[wallet] for creator, wallet in doubtful.items() if wallet in why}


def note_rules(connection: Connection[Any], economics: Economics) -> None:
    """Tell the database for how long a change holds payouts at least, whatever a replica is made to say."""
    connection.execute(
        "UPDATE ledger.wallet_rules SET change_hold_s = %(hold)s WHERE change_hold_s <> %(hold)s",
        {"hold": economics.wallet_hold_s},
    )


def release_mended(connection: Connection[Any], creators: Collection[int]) -> None:
    """End the holds on these creators that a wallet was the reason of, where they have named another one since."""
    if not creators:
        return
    connection.execute(
        "UPDATE ledger.holds h SET released_at = now(), released_by = 'ledger' FROM ledger.wallets w"
        " WHERE w.creator_id = h.creator_id AND h.released_at IS NULL AND starts_with(h.reason, %s)"
        "   AND position(w.wallet IN h.reason) = 0 AND h.creator_id = ANY(%s)",
        (UNPAYABLE, list(creators)),
    )


def _unfit(wallet: str) -> str | None:
    """Why no pair of keys has this address; None when one may."""
    try:
        key = Pubkey.from_string(wallet)
    except ValueError:
        return "is not 32 bytes in base58"
    if ONES in wallet or wallet in PROGRAMS:
        return "is the address of a program of the chain"
    return None if key.is_on_curve() else "has no key of its own (a program's or a token account's address)"


def _payable(connection: Connection[Any], wallet: str) -> None:
    check(wallet)
    why = unpayable(connection, [wallet]).get(wallet)
    if why is not None:
        raise Rejected(f"wallet {wallet!r} {why}", status=422, code="wallet-invalid", hint="name a wallet of your own")


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
        Rejected: the wallet cannot be paid, or the creator has another one already.
    """
    _payable(connection, wallet)
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
        Rejected: the wallet cannot be paid.
    """
    _payable(connection, wallet)
    connection.execute(
        "INSERT INTO ledger.wallets AS w (creator_id, wallet, set_by) VALUES (%s, %s, %s)"
        " ON CONFLICT (creator_id) DO UPDATE SET wallet = excluded.wallet,"
        "   set_by = excluded.set_by, set_at = now(),"
        "   hold_until = CASE WHEN w.wallet <> excluded.wallet THEN now() + make_interval(secs => %s) END"
        " WHERE w.wallet <> excluded.wallet OR w.set_by = 'manifest'",
        (creator_id, wallet, set_by, economics.wallet_hold_s),
    )
    known = of(connection, creator_id)
    assert known is not None
    return known
