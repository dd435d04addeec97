"""Copies the wallets that manifests claim from the catalogue to the ledger, which decides whether to accept them.

The catalogue and the ledger do not import each other; this package knows both. A claim counts only for a creator
without a wallet, so that copying again changes nothing.
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
from pipelines.catalog.creators import CLAIMED_WALLETS

log = logging.getLogger(__name__)

PAGE_ROWS = 1000
# One query with an anti-join across both packages' tables, since nearly every claim has been copied before.
PAGE = f"{CLAIMED_WALLETS} AND c.id > %s AND {wallets.HAS_NO_WALLET} ORDER BY c.id LIMIT %s"


def copy_claims(source: ConnectionPool[Any] | Connection[Any], economics: Economics) -> int:
    """Copy wallets from manifests to the ledger, for creators without one there; return how many were new."""
    if isinstance(source, ConnectionPool):
        with source.connection() as connection:
            return copy_claims(connection, economics)
    claimed, after_id = 0, 0
    while page := source.execute(PAGE, (after_id, PAGE_ROWS)).fetchall():
        for creator_id, wallet in page:
            claimed += _claim(source, economics, creator_id, wallet)
        after_id = page[-1][0]
    source.commit()
    return claimed


def _claim(connection: Connection[Any], economics: Economics, creator_id: int, wallet: str) -> bool:
    """Claim one wallet; return False, and log it once, where the ledger refuses it."""
    try:
        return wallets.claim(connection, economics, creator_id, wallet)
    except Rejected as error:
        _log_once(creator_id, str(error))
        return False


@lru_cache(maxsize=10_000)
def _log_once(creator_id: int, reason: str) -> None:
    log.warning("claim not taken: %s", reason, extra={"creator_id": creator_id})
