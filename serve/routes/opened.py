"""Keeps the gauges of what the ledger has open (payouts, holds, orders …) up to date, for `/metrics`.

Reads what the ledger noted last, at most once in a few seconds. While the database is away the gauges stay as they were,
and `pixr_ledger_looked_seconds` tells their age. Measures nothing itself (`ledger.audit.ages`).
"""

from __future__ import annotations

import time
from typing import Any

import psycopg
from psycopg import AsyncConnection

from cluster.errors import Temporary
from ledger.audit import ages
from serve.metrics import Opened
from serve.replica.readers import Readers

LOOK_S = 5.0
LIMIT_S = 0.5  # of the question, so that the other counters do not wait for it


async def look(gauges: Opened, readers: Readers) -> None:
    """Bring a replica's gauges of the ledger up to date, at most once in `LOOK_S` seconds."""
    now_s = time.monotonic()
    if now_s < gauges.again_s:
        return
    gauges.again_s = now_s + LOOK_S
    try:
        rows = await readers.primary(_noted, limit_s=LIMIT_S)
    except (Temporary, psycopg.Error):
        return
    gauges.take(ages.noted(rows), min((row[-1] for row in rows), default=None))


async def _noted(connection: AsyncConnection[Any]) -> list[tuple[Any, ...]]:
    cursor = await connection.execute(ages.NOTED)
    return await cursor.fetchall()
