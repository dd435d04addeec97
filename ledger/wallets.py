"""Wallets: where a creator is paid. Owns `ledger.wallets`; the database keeps the change log and the least hold of a change.

A manifest may claim a wallet only where there is none, and payouts wait for a while: who may ingest may name any creator.
A change needs the creator's own scope (or an administrator's) and holds payouts likewise, so that a stolen key does not
empty an account before its owner notices; a proof (see `challenges`) says who holds the new wallet's key, not that the
creator wanted it, and shortens no such hold. A first wallet that is proven is paid at once, and so is a manifest's that the
creator confirms; a first one without a proof, as of an exchange, waits as a change does.

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


FIELD = 2**255 - 19
# The y of the points whose order divides 8: a signature by such a key can be made by anybody.
OF_ORDER_8 = 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826
SMALL_ORDER = frozenset((0, 1, FIELD - 1, OF_ORDER_8, FIELD - OF_ORDER_8))


@dataclass(frozen=True)
class Wallet:
    """A creator's wallet; payouts wait until `hold_until` (RFC 3339), if that is set.

    `proven`: its key has signed that it is the creator's.
    """

    creator_id: int
    wallet: str
    set_by: str
    set_at: str
    hold_until: str | None
    proven: bool = False


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
    """Tell the database for how long a change holds payouts, and a first wallet at most, whatever a replica is made to say."""
    connection.execute(
        "UPDATE ledger.wallet_rules SET change_hold_s = %(change)s, manifest_hold_s = %(first)s"
        " WHERE (change_hold_s, manifest_hold_s) <> (%(change)s, %(first)s)",
        {"change": economics.wallet_hold_s, "first": economics.manifest_wallet_hold_h * 3600},
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
    if not key.is_on_curve():
        return "has no key of its own (a program's or a token account's address)"
    y = int.from_bytes(bytes(key), "little") % 2**255
    return "has a key that everybody holds" if y >= FIELD or y in SMALL_ORDER else None


def require_payable(connection: Connection[Any], wallet: str) -> None:
    """Refuse a wallet that cannot be paid.

    Raises:
        Rejected: no pair of keys has that address, or it is the platform's own.
    """
    check(wallet)
    why = unpayable(connection, [wallet]).get(wallet)
    if why is not None:
        raise Rejected(f"wallet {wallet!r} {why}", status=422, code="wallet-invalid", hint="name a wallet of your own")


def of(connection: Connection[Any], creator_id: int) -> Wallet | None:
    row = connection.execute(
        "SELECT creator_id, wallet, set_by, set_at, CASE WHEN hold_until > now() THEN hold_until END, proof IS NOT NULL"
        " FROM ledger.wallets WHERE creator_id = %s",
        (creator_id,),
    ).fetchone()
    if row is None:
        return None
    return Wallet(row[0], row[1], row[2], row[3].isoformat(), row[4].isoformat() if row[4] else None, row[5])


def claim(connection: Connection[Any], economics: Economics, creator_id: int, wallet: str) -> bool:
    """A manifest's claim: taken where there is no wallet, ignored where there is the same one. Payouts wait for a while.

    Raises:
        Rejected: the wallet cannot be paid, or the creator has another one already.
    """
    require_payable(connection, wallet)
    done = connection.execute(
        "INSERT INTO ledger.wallets (creator_id, wallet, set_by, held_for, hold_until)"
        " VALUES (%s, %s, 'manifest', 'manifest', CASE WHEN %s > 0 THEN now() + make_interval(hours => %s) END)"
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


def change(
    connection: Connection[Any],
    economics: Economics,
    creator_id: int,
    wallet: str,
    set_by: str,
    proof: str | None = None,
) -> Wallet:
    """The creator's own change. Payouts are held for a while, unless a first wallet is proven or a manifest's confirmed.

    The same wallet again changes nothing, but where the one that stands is a manifest's, or waits for a proof that is
    there now. Another one than the manifest's is a change like any other.

    Args:
        proof: the id that `challenges.prove` has given for this creator and wallet.

    Raises:
        Rejected: the wallet cannot be paid.
    """
    require_payable(connection, wallet)
    connection.execute(
        "INSERT INTO ledger.wallets AS w (creator_id, wallet, set_by, proof, held_for, hold_until)"
        " VALUES (%(creator)s, %(wallet)s, %(by)s, %(proof)s,"
        "         CASE WHEN %(proof)s::text IS NULL THEN 'no proof' END,"
        "         CASE WHEN %(proof)s::text IS NULL AND %(hold_s)s > 0 THEN now() + make_interval(secs => %(hold_s)s) END)"
        " ON CONFLICT (creator_id) DO UPDATE SET wallet = excluded.wallet,"
        "   set_by = excluded.set_by, set_at = now(),"
        "   proof = CASE WHEN w.wallet = excluded.wallet THEN coalesce(excluded.proof, w.proof) ELSE excluded.proof END,"
        "   held_for = CASE WHEN w.wallet <> excluded.wallet THEN 'change' WHEN w.held_for = 'change' THEN 'change' END,"
        "   hold_until = CASE WHEN w.wallet <> excluded.wallet THEN now() + make_interval(secs => %(hold_s)s)"
        "                     WHEN w.set_by = 'manifest' OR w.held_for = 'no proof' THEN NULL ELSE w.hold_until END"
        " WHERE w.wallet <> excluded.wallet OR w.set_by = 'manifest' OR excluded.proof IS NOT NULL",
        {"creator": creator_id, "wallet": wallet, "by": set_by, "proof": proof, "hold_s": economics.wallet_hold_s},
    )
    known = of(connection, creator_id)
    assert known is not None
    return known
