"""Carries the wallets that manifests claim from the catalogue to the ledger, which owns them. Safe to run at any time.

The catalogue and the ledger never meet; this floor knows both. A claim is taken only where a creator has no wallet. Why one is
refused is written beside it, so that it is said under the creator's jobs until they have a wallet.
"""

from __future__ import annotations

import logging
from functools import lru_cache
from typing import Any

from psycopg import Connection
from psycopg_pool import ConnectionPool

from cluster.errors import Rejected
from ledger import wallets
from ledger.settings import Economics

log = logging.getLogger(__name__)

PAGE_ROWS = 1000


def copy_claims(source: ConnectionPool[Any] | Connection[Any], economics: Economics) -> int:
    """Claim for every creator whose manifest names a wallet and who has none in the ledger. How many were new."""
    if isinstance(source, ConnectionPool):
        with source.connection() as connection:
            return copy_claims(connection, economics)
    taken, after = 0, 0
    while page := _page(source, after):
        said: dict[int, str] = {}
        for creator_id, wallet, before in page:
            why = _claim(source, economics, creator_id, wallet)
            taken += why is None
            if why and why != before:
                said[creator_id] = why
        source.commit()
        for creator_id, why in said.items():
            _note(source, creator_id, why)
        after = page[-1][0]
    _forget_mended(source)
    return taken


def _page(connection: Connection[Any], after: int) -> list[tuple[int, str, str | None]]:
    # An anti-join, since nearly every creator has been carried over before.
    return connection.execute(
        "SELECT c.id, c.wallet, c.wallet_refused FROM media.creators c WHERE c.wallet IS NOT NULL AND c.id > %s"
        " AND NOT EXISTS (SELECT FROM ledger.wallets w WHERE w.creator_id = c.id) ORDER BY c.id LIMIT %s",
        (after, PAGE_ROWS),
    ).fetchall()


def _claim(connection: Connection[Any], economics: Economics, creator_id: int, wallet: str) -> str | None:
    """Claim a wallet; why it is refused, empty where the same one was set meanwhile, None where it is taken."""
    try:
        return None if wallets.claim(connection, economics, creator_id, wallet) else ""
    except Rejected as error:
        _say_once(creator_id, str(error))
        return error.detail


def _note(connection: Connection[Any], creator_id: int, why: str) -> None:
    # A row a transaction: a job that registers creators meanwhile locks many, in an order of its own.
    connection.execute("UPDATE media.creators SET wallet_refused = %s WHERE id = %s", (why, creator_id))
    connection.commit()


def _forget_mended(connection: Connection[Any]) -> None:
    """Leave out what was refused of creators who have a wallet now."""
    rows = connection.execute(
        "SELECT c.id FROM media.creators c WHERE c.wallet_refused IS NOT NULL"
        " AND EXISTS (SELECT FROM ledger.wallets w WHERE w.creator_id = c.id) ORDER BY c.id LIMIT %s",
        (PAGE_ROWS,),
    ).fetchall()
    connection.commit()
    for (creator_id,) in rows:
        connection.execute("UPDATE media.creators SET wallet_refused = NULL WHERE id = %s", (creator_id,))
        connection.commit()


@lru_cache(maxsize=10_000)
def _say_once(creator_id: int, why: str) -> None:
    log.warning("claim not taken: %s", why, extra={"creator_id": creator_id})
