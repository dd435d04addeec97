"""A replica's list of the newest `known_keys_max` API keys ever created: the first eight bytes of each digest.

Wrong keys from one caller empty the bucket for wrong keys of everyone behind the same address, e.g. an office or a
mobile network. A key on this list is looked up in the database even then. The list decides nothing else: only the
database says whether a key is valid.

Keys are only ever added, so a refresh reads those that were created since the last one. It runs once a second at most,
and all requests that wait for it share it. If the highest id is lower than before, the database was restored from a
backup, and all keys are read again.
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
OVERLAP_IDS = 1000  # ids that are read again, since a key with a lower id may be committed after one with a higher
EXPECTED = (Temporary, psycopg.Error)  # raised by a refresh, to each request that waits for it
NEWEST_ID = "SELECT coalesce(max(id), 0) FROM app.api_keys"
NEWEST = """
    SELECT id, substr(hash, 1, 8) FROM app.api_keys
    WHERE id > greatest(%s, (SELECT max(id) FROM app.api_keys) - %s) ORDER BY id LIMIT %s"""


class KnownKeys:
    """The list of one replica. For use inside one event loop."""

    def __init__(self, readers: Readers, search: SearchSettings, tasks: Tasks) -> None:
        self._readers, self._search, self._tasks = readers, search, tasks
        self._prefixes = np.zeros(0, np.uint64)  # (keys,), sorted
        self._last_id = 0
        self._refreshed_at_s = float("-inf")  # monotonic
        self._refresh: asyncio.Task[None] | None = None

    async def has(self, digest: bytes) -> bool:
        """Return whether a key with this digest (32 bytes) is on the list; refresh the list if it is not.

        A key that was created in the last second may be missing.

        Raises:
            Temporary: the database is away or too slow.
            psycopg.Error: the same, as psycopg reports it.
        """
        prefix = int.from_bytes(digest[:8], "big")
        if self._contains(prefix):
            return True
        if self._refresh is None or (self._refresh.done() and time.monotonic() - self._refreshed_at_s >= INTERVAL_S):
            with deadlines.unlimited():  # shared by several requests, so without the deadline of this one
                self._refresh = self._tasks.spawn("a look at the keys", self._read_new(), expected=EXPECTED)
        await deadlines.within(asyncio.shield(self._refresh), self._search.deadline_s)
        return self._contains(prefix)

    def _contains(self, prefix: int) -> bool:
        position = int(np.searchsorted(self._prefixes, np.uint64(prefix)))
        return position < len(self._prefixes) and int(self._prefixes[position]) == prefix

    async def _read_new(self) -> None:
        """Add the keys that were created since the last refresh."""
        try:
            if (await self._rows(NEWEST_ID))[0][0] < self._last_id:
                self._prefixes, self._last_id = self._prefixes[:0], 0
            after = self._last_id - OVERLAP_IDS
            for _ in range(self._search.known_keys_max // PAGE_ROWS + 1):
                rows = await self._rows(NEWEST, after, self._search.known_keys_max, PAGE_ROWS)
                if rows:
                    added = np.array([int.from_bytes(row[1], "big") for row in rows], np.uint64)  # (rows,)
                    self._prefixes = np.union1d(self._prefixes, added)
                    after = self._last_id = rows[-1][0]
                if len(rows) < PAGE_ROWS:
                    return
        finally:
            self._refreshed_at_s = time.monotonic()

    async def _rows(self, query: LiteralString, *values: int) -> list[tuple[Any, ...]]:
        async def read(connection: AsyncConnection[Any]) -> list[tuple[Any, ...]]:
            return await (await connection.execute(query, values)).fetchall()

        return await self._readers.primary(read)
