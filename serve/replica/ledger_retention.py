"""What the ledger retains and what it has archived, as gauges for `/metrics`.

Reads what the ledger noted last, at most once in a few seconds. Knows nothing of how long anything is kept.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import psycopg
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from psycopg import AsyncConnection

from cluster.errors import Temporary
from ledger.archive.retention import NOTED
from serve.replica.readers import Readers

LOOK_S = 5.0
LIMIT_S = 0.5  # of the question, so that the other counters do not wait for it


class Row(NamedTuple):
    """What the ledger retains of one kind of rows, and what it has archived of them."""

    name: str
    keep_s: int  # 0: for ever
    oldest_s: float  # age of the oldest row; 0 without rows
    parts: int  # of the archive
    bytes: int  # in those parts, before compression


class RetentionCollector(Collector):
    """The gauges of retention; there are none before the database was asked."""

    def __init__(self) -> None:
        self._rows: Sequence[Row] = ()
        self._again_at = float("-inf")

    async def look(self, readers: Readers) -> None:
        """Bring the gauges up to date; they stay as they were while the database is away."""
        if time.monotonic() < self._again_at:
            return
        self._again_at = time.monotonic() + LOOK_S
        try:
            self.take(await readers.primary(_noted, limit_s=LIMIT_S))
        except (Temporary, psycopg.Error):
            return

    def take(self, rows: Sequence[Row]) -> None:
        """Store what the ledger noted last."""
        self._rows = rows

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield one gauge for each number in `Row`, labelled with the kind of rows."""
        documented: Mapping[str, tuple[str, int]] = {  # by name: help text, and the column of `Row`
            "pixr_ledger_keep_seconds": ("For how long rows of the ledger are kept (0: for ever).", 1),
            "pixr_ledger_oldest_seconds": ("Age of the oldest row that is there.", 2),
            "pixr_ledger_archive_parts": ("Parts of the archive.", 3),
            "pixr_ledger_archive_bytes": ("What they hold, before it is compressed.", 4),
        }
        for name, (documentation, column) in documented.items():
            family = GaugeMetricFamily(name, documentation, labels=("what",))
            for row in self._rows:
                family.add_metric((row.name,), float(row[column]))
            yield family


async def _noted(connection: AsyncConnection[Any]) -> list[Row]:
    return [Row(*row) for row in await (await connection.execute(NOTED)).fetchall()]
