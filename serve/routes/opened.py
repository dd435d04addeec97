"""What the ledger has found open, for `/metrics`: read from the database, at most once in a few seconds.

While the database is away the last that was known is shown, with its age growing (`pixr_ledger_looked_seconds`).
"""

from __future__ import annotations

import time
from typing import Any

import psycopg
from psycopg import AsyncConnection

from cluster.errors import Temporary
from ledger.audit import ages
from serve.routes.services import Services

LOOK_S = 5.0
LIMIT_S = 0.5  # of the question; counters are not kept waiting for it


async def look(services: Services) -> None:
    """Bring a replica's gauges of the ledger up to date."""
    gauges = services.metrics.open
    now_s = time.monotonic()
    if now_s < gauges.again_s:
        return
    gauges.again_s = now_s + LOOK_S
    try:
        rows = await services.readers.primary(_noted, limit_s=LIMIT_S)
    except (Temporary, psycopg.Error):
        return
    gauges.take(ages.noted(rows), min((row[-1] for row in rows), default=None))


async def _noted(connection: AsyncConnection[Any]) -> list[tuple[Any, ...]]:
    cursor = await connection.execute(ages.NOTED)
    return await cursor.fetchall()
