"""Carries the wallets that manifests claim from the catalogue to the ledger, which owns them. Safe to run at any time.

The catalogue and the ledger never meet; this floor knows both. A claim is taken only where a creator has no wallet.
"""

from __future__ import annotations

import logging
from functools import lru_cache
from typing import Any

from psycopg import Connection
from psycopg_pool import ConnectionPool

from cluster.errors import Rejected
from ledger.creators import wallets
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
        for creator_id, wallet in page:
            taken += _claim(source, economics, creator_id, wallet)
        after = page[-1][0]
    source.commit()
    return taken


def _page(connection: Connection[Any], after: int) -> list[tuple[int, str]]:
    # An anti-join, since nearly every creator has been carried over before.
    return connection.execute(
        "SELECT c.id, c.wallet FROM media.creators c WHERE c.wallet IS NOT NULL AND c.id > %s"
        " AND NOT EXISTS (SELECT FROM ledger.wallets w WHERE w.creator_id = c.id) ORDER BY c.id LIMIT %s",
        (after, PAGE_ROWS),
    ).fetchall()


def _claim(connection: Connection[Any], economics: Economics, creator_id: int, wallet: str) -> bool:
    try:
        return wallets.claim(connection, economics, creator_id, wallet)
    except Rejected as error:
        _say_once(creator_id, str(error))
        return False


@lru_cache(maxsize=10_000)
def _say_once(creator_id: int, why: str) -> None:
    log.warning("claim not taken: %s", why, extra={"creator_id": creator_id})
