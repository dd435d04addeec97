"""What the ledger keeps and what it has archived, for `/metrics`: as it noted it last, read at most once in a few seconds."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import psycopg
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from psycopg import AsyncConnection

from cluster.errors import Temporary
from serve.replica.readers import Readers

LOOK_S = 5.0
LIMIT_S = 0.5  # of the question; counters are not kept waiting for it
QUERY = """SELECT name, keep_d * 86400, coalesce(extract(epoch FROM now() - oldest_at), 0)::float, parts, bytes
    FROM ledger.retention ORDER BY name"""


class Row(NamedTuple):
    """One kind of what the ledger holds."""

    name: str
    keep_s: int  # 0: for ever
    oldest_s: float
    parts: int
    bytes: int


class Kept(Collector):
    """Gauges of it; none before the database was asked."""

    def __init__(self) -> None:
        self._rows: Sequence[Row] = ()
        self._again_at = float("-inf")

    async def look(self, readers: Readers) -> None:
        """Bring the gauges up to date; while the database is away they stand still."""
        if time.monotonic() < self._again_at:
            return
        self._again_at = time.monotonic() + LOOK_S
        try:
            self._rows = await readers.primary(_noted, limit_s=LIMIT_S)
        except (Temporary, psycopg.Error):
            return

    def collect(self) -> Iterator[GaugeMetricFamily]:
        said: Mapping[str, tuple[str, int]] = {
            "pixr_ledger_keep_seconds": ("For how long rows of the ledger are kept (0: for ever).", 1),
            "pixr_ledger_oldest_seconds": ("Age of the oldest row that is there.", 2),
            "pixr_ledger_archive_parts": ("Parts of the archive.", 3),
            "pixr_ledger_archive_bytes": ("What they hold, before it is compressed.", 4),
        }
        for name, (documentation, column) in said.items():
            family = GaugeMetricFamily(name, documentation, labels=("what",))
            for row in self._rows:
                family.add_metric((row.name,), float(row[column]))
            yield family


async def _noted(connection: AsyncConnection[Any]) -> list[Row]:
    return [Row(*row) for row in await (await connection.execute(QUERY)).fetchall()]
