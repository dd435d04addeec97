"""Wallets: where a creator is paid. Owns `ledger.wallets`; the database writes the log of changes and enforces their hold.

How long payouts wait after a wallet is set:

    by a manifest, for a creator without one   `manifest_wallet_hold_h`, or until the creator confirms it, since anybody
                                               who may ingest may name any creator
    first wallet with a proof                  not at all (see `challenges`)
    first wallet without a proof               `wallet_hold_s`; for example an exchange's wallet, whose key the creator
                                               does not hold
    change to another wallet                   `wallet_hold_s`, with a proof or without: a thief of the creator's API
                                               key can prove that they hold the new wallet's key

A wallet must be payable: it is the public key of a key pair, and not an address of a program or of the platform. This
is checked when the wallet is set, and again when a payout is planned, since the rules may have become stricter in
between.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, LiteralString

from psycopg import Connection
from solders.pubkey import Pubkey

from cluster.errors import Rejected
from ledger.settings import Economics

UNPAYABLE = "the wallet cannot be paid"  # how the reason of such a hold begins
# SQL fragment: whether the creator `c` of the query around it has no wallet.
HAS_NO_WALLET: LiteralString = "NOT EXISTS (SELECT FROM ledger.wallets w WHERE w.creator_id = c.id)"
ONES = "1" * 12  # in base58 no random key contains this; the chain's own programs and settings do
PROGRAMS = frozenset((
    "TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA",
    "TokenzQdBNbLqP5VEhdkAS6EPFLC1PHnBqCXEpPxuEb",
    "ATokenGPvbdGVxr1b2hvZbsiqW5xWH25efTNsLJA8knL",
    "MemoSq4gqABAXKb96qnH8TysNcWxMyWCqXgDLGmfcHr",
    "Memo1UhkJRfHyvLMcVucJwxXeuD728EqVDDwQDxFMNo",
))  # fmt: skip


FIELD = 2**255 - 19
# The y coordinates of the points whose order divides 8: anyone can make a signature by such a key.
OF_ORDER_8 = 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826
SMALL_ORDER = frozenset((0, 1, FIELD - 1, OF_ORDER_8, FIELD - OF_ORDER_8))


@dataclass(frozen=True)
class Wallet:
    """A creator's wallet."""

    creator_id: int
    wallet: str  # address, base58
    set_by: str
    set_at: str  # RFC 3339
    hold_until: str | None  # RFC 3339: payouts wait until then; None: they do not wait
    proven: bool = False  # whether its key has signed that it is the creator's


def check(wallet: str) -> str:
    """Return the wallet if it is an address that a key pair can have.

    Raises:
        Rejected: it is not base58, not 32 bytes, not on the curve (as addresses of token accounts and of accounts that
            programs own), or the address of one of the chain's own programs or settings.
    """
    why = _unfit(wallet)
    if why is not None:
        raise Rejected(
            f"wallet {wallet!r} {why}", status=422, code="wallet-invalid", hint="name the address of a wallet"
        )
    return wallet


def unpayable(connection: Connection[Any], wallets: Iterable[str]) -> dict[str, str]:
    """Return the wallets that cannot be paid, each with the reason."""
    addresses = set(wallets)
    rows = connection.execute(
        "SELECT address, role FROM ledger.own_addresses WHERE address = ANY(%(all)s) UNION ALL"
        " SELECT address, 'marker' FROM ledger.markers WHERE address = ANY(%(all)s)",
        {"all": list(addresses)},
    )
    own = {address: f"is the platform's own ({role})" for address, role in rows}
    return {wallet: why for wallet in addresses if (why := _unfit(wallet) or own.get(wallet)) is not None}


def unpayable_of(connection: Connection[Any], wallets: Mapping[int, str]) -> dict[int, str]:
    """Return the creators whose wallet cannot be paid, each with the reason.

    Wallets that were found payable before are in `ledger.checked_wallets`. Of these only the platform's own addresses
    are looked for, since a wallet may have become one of them.
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
    """Write to the database how long a change of wallet holds payouts at least.

    So a replica that an attacker controls cannot shorten the wait.
    """
    connection.execute(
        "UPDATE ledger.wallet_rules SET change_hold_s = %(hold)s WHERE change_hold_s <> %(hold)s",
        {"hold": economics.wallet_hold_s},
    )


def release_mended(connection: Connection[Any], creators: Collection[int]) -> None:
    """Release the holds of creators whose wallet could not be paid and who have named another one since."""
    if not creators:
        return
    connection.execute(
        "UPDATE ledger.holds h SET released_at = now(), released_by = 'ledger' FROM ledger.wallets w"
        " WHERE w.creator_id = h.creator_id AND h.released_at IS NULL AND starts_with(h.reason, %s)"
        "   AND position(w.wallet IN h.reason) = 0 AND h.creator_id = ANY(%s)",
        (UNPAYABLE, list(creators)),
    )


def _unfit(wallet: str) -> str | None:
    """Return why an address cannot be that of a key pair; None if it can."""
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
        Rejected: no key pair can have that address, or it is the platform's own.
    """
    check(wallet)
    why = unpayable(connection, [wallet]).get(wallet)
    if why is not None:
        raise Rejected(f"wallet {wallet!r} {why}", status=422, code="wallet-invalid", hint="name a wallet of your own")


def of(connection: Connection[Any], creator_id: int) -> Wallet | None:
    """Return a creator's wallet; None if they have not named one."""
    row = connection.execute(
        "SELECT creator_id, wallet, set_by, set_at, CASE WHEN hold_until > now() THEN hold_until END, proof IS NOT NULL"
        " FROM ledger.wallets WHERE creator_id = %s",
        (creator_id,),
    ).fetchone()
    if row is None:
        return None
    return Wallet(row[0], row[1], row[2], row[3].isoformat(), row[4].isoformat() if row[4] else None, row[5])


def claim(connection: Connection[Any], economics: Economics, creator_id: int, wallet: str) -> bool:
    """Set the wallet that a manifest claims for a creator who has none; payouts wait for `manifest_wallet_hold_h`.

    Args:
        connection: in the caller's transaction.
        economics: `manifest_wallet_hold_h` is read.
        creator_id: the creator.
        wallet: the address, base58.

    Returns:
        Whether it was set; False if the creator has this wallet already.

    Raises:
        Rejected: the wallet cannot be paid, or the creator has another one.
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
    """Set a creator's wallet on behalf of the creator, and hold payouts as the module's table says.

    If the creator has this wallet already, nothing changes, with two exceptions. Its hold ends if the wallet came from
    a manifest, since it is confirmed now; and it ends if the wallet waited for a proof and `proof` is given.

    Args:
        connection: in the caller's transaction.
        economics: `wallet_hold_s` is read.
        creator_id: the creator.
        wallet: the address, base58.
        set_by: who sets it, for the log of changes.
        proof: the id that `challenges.prove` has returned for this creator and wallet.

    Returns:
        The wallet after the change.

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
