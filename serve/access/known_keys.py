"""Which keys there are, as a replica knows it without asking for each: the first bytes of every key's digest.

One caller's wrong keys empty the bucket of all who share the address, an office or a mobile network. A key that stands
here is asked about all the same, so that it does not pay for its neighbours. Nothing is decided by that: whether a key
is good the database says. Keys are only ever added, so that a look asks for those since the last one; one a second at
most, shared by all who wait for it. Where the newest is older than it was, the database was restored: all are asked again.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any, LiteralString

import numpy as np
import psycopg
from psycopg import AsyncConnection

from cluster.errors import Temporary
from cluster.tasks import Tasks
from serve.http import deadlines
from serve.replica.readers import Readers
from serve.settings import SearchSettings

INTERVAL_S = 1.0
PAGE_ROWS = 20_000
OVERLAP_IDS = 1000  # a key of a lower id may be committed after one of a higher
EXPECTED = (Temporary, psycopg.Error)  # of a look; each who waits gets it
NEWEST_ID = "SELECT coalesce(max(id), 0) FROM app.api_keys"
NEWEST = """
    SELECT id, substr(hash, 1, 8) FROM app.api_keys
    WHERE id > greatest(%s, (SELECT max(id) FROM app.api_keys) - %s) ORDER BY id LIMIT %s"""


class KnownKeys:
    """One replica's, of the newest `known_keys_max` keys. Used inside one event loop."""

    def __init__(self, readers: Readers, search: SearchSettings, tasks: Tasks) -> None:
        self._readers, self._search, self._tasks = readers, search, tasks
        self._prefixes = np.zeros(0, np.uint64)  # sorted
        self._last_id = 0
        self._looked_at = float("-inf")
        self._look: asyncio.Task[None] | None = None

    async def has(self, digest: bytes) -> bool:
        """Was there ever a key of this digest? One that was made a moment ago may be missed.

        Raises:
            Temporary, psycopg.Error: the database does not say.
        """
        prefix = int.from_bytes(digest[:8], "big")
        if self._stands(prefix):
            return True
        if self._look is None or (self._look.done() and time.monotonic() - self._looked_at >= INTERVAL_S):
            with deadlines.unlimited():  # shared by all who ask, so that it is nobody's request
                self._look = self._tasks.spawn("a look at the keys", self._looked(), expected=EXPECTED)
        await deadlines.within(asyncio.shield(self._look), self._search.deadline_s)
        return self._stands(prefix)

    def _stands(self, prefix: int) -> bool:
        at = int(np.searchsorted(self._prefixes, np.uint64(prefix)))
        return at < len(self._prefixes) and int(self._prefixes[at]) == prefix

    async def _looked(self) -> None:
        """Add the keys that were made since the last look."""
        try:
            if (await self._rows(NEWEST_ID))[0][0] < self._last_id:
                self._prefixes, self._last_id = self._prefixes[:0], 0
            after = self._last_id - OVERLAP_IDS
            for _ in range(self._search.known_keys_max // PAGE_ROWS + 1):
                rows = await self._rows(NEWEST, after, self._search.known_keys_max, PAGE_ROWS)
                if rows:
                    added = np.array([int.from_bytes(row[1], "big") for row in rows], np.uint64)
                    self._prefixes = np.union1d(self._prefixes, added)
                    after = self._last_id = rows[-1][0]
                if len(rows) < PAGE_ROWS:
                    return
        finally:
            self._looked_at = time.monotonic()

    async def _rows(self, query: LiteralString, *values: int) -> list[tuple[Any, ...]]:
        async def look(connection: AsyncConnection[Any]) -> list[tuple[Any, ...]]:
            return await (await connection.execute(query, values)).fetchall()

        return await self._readers.primary(look)
