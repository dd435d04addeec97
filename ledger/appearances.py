"""Appearances: what was shown, to whom (as a keyed hash), and what it earns. Recorded before the search is answered.

`Recorder.record` appends to the spool and returns; a background task carries what has gathered in 10 ms, or 100
searches, into `ledger.appearance_batches`. A batch is inserted by compare-and-swap on the number of searches that the
incarnation has recorded, so nothing is recorded twice, whoever carries it: the replica, or whoever adopts its spool.
Knows no query, address or name; decides nothing about money beyond leaving out what a viewer may not earn for.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import socket
import time
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import numpy as np
import psycopg
from psycopg import AsyncConnection, Connection
from psycopg.pq import TransactionStatus

from cluster import database, runtime
from cluster.errors import Temporary
from cluster.resilience import backoff_s
from cluster.settings import Settings
from ledger import spool
from ledger.settings import LedgerSettings

log = logging.getLogger(__name__)

VIEWER_ROTATION_S = 30 * 86_400
STAKES_INTERVAL_S = 30.0
ADOPTED_BATCH_SEARCHES = 1000
RECORDED = """
    WITH moved AS (UPDATE ledger.incarnations SET recorded = recorded + %(searches)s
                   WHERE id = %(incarnation)s AND recorded = %(seq)s RETURNING id)
    INSERT INTO ledger.appearance_batches (incarnation, seq, searches, appearances, format, payload, sha256)
    SELECT id, %(seq)s, %(searches)s, %(appearances)s, %(format)s, %(payload)s, %(sha256)s FROM moved"""


@dataclass(frozen=True)
class Appearance:
    """One moment on the first page of a committed search."""

    viewer_hmac: bytes
    segment_id: int
    creator_id: int
    best_frame_ms: int
    relevance_ppm: int
    amount_pix: int

    def __post_init__(self) -> None:
        if len(self.viewer_hmac) != 16:
            raise ValueError(f"viewer_hmac has {len(self.viewer_hmac)} bytes, expected 16")
        if not 0 <= self.relevance_ppm <= 1_000_000:
            raise ValueError(f"relevance_ppm is {self.relevance_ppm}, expected 0 to 1,000,000")
        if not 0 <= self.amount_pix < 2**31:
            raise ValueError(f"amount_pix is {self.amount_pix}, expected 0 to 2^31 - 1")


class Hashes:
    """Keyed hashes that stand for viewers and keys; the viewers' change every 30 days."""

    def __init__(self, settings: Settings) -> None:
        self._secret = runtime.secret(settings, "appearances").encode()

    def viewer(self, kind: str, identity: str, at_s: float | None = None) -> bytes:
        """Sixteen bytes for a viewer; `kind` is "key", "cookie" or "address"."""
        period = int((time.time() if at_s is None else at_s) // VIEWER_ROTATION_S)
        return self._hash("viewer", str(period), kind, identity)

    def key(self, principal: str, idempotency_key: str) -> bytes:
        return self._hash("idempotency", principal, idempotency_key)

    def request(self, text: str) -> bytes:
        return self._hash("request", text)[:8]

    def _hash(self, *parts: str) -> bytes:
        return hmac.digest(self._secret, "\0".join(parts).encode(), "sha256")[:16]


def search_record(appearances: Sequence[Appearance], key: bytes, request: bytes, at_ms: int) -> bytes:
    """One search as it stands in the spool."""
    head = np.zeros(1, spool.SEARCH)
    viewer = appearances[0].viewer_hmac if appearances else spool.NO_KEY
    head[0] = (np.void(viewer), np.void(key), np.void(request), at_ms, len(appearances))
    rows = [(a.segment_id, a.creator_id, a.best_frame_ms, a.relevance_ppm, a.amount_pix) for a in appearances]
    return head.tobytes() + np.array(rows, spool.SHOWN).tobytes()


class Recorder:
    """Records one replica's appearances. Used inside one event loop: `await start()`, `record(…)`, `await close()`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings.section(LedgerSettings)
        self._url = runtime.endpoints(settings).postgres_url
        self._folder = settings.data_dir / "spool"
        self._hashes = Hashes(settings)
        self._stakes: dict[int, frozenset[int]] = {}
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._due = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._chores: asyncio.Task[None] | None = None
        self._connection: AsyncConnection[Any] | None = None
        self._closing = False
        self._begin()

    @property
    def hashes(self) -> Hashes:
        return self._hashes

    @property
    def waiting(self) -> int:
        """Searches that are in the spool and not yet in the database."""
        return len(self._waiting)

    async def start(self) -> None:
        """Begin to carry what is recorded; also look for the spools of dead replicas."""
        self._task = asyncio.create_task(self._carry())
        self._chores = asyncio.create_task(self._do_chores())

    def record(
        self,
        appearances: Sequence[Appearance],
        *,
        idempotency_key: str | None = None,
        request: str = "",
        principal_id: int | None = None,
        own_creator_ids: Collection[int] = (),
    ) -> int:
        """Append one search to the spool; to be called before it is answered. Returns how many may earn.

        The key's own creators and the segments it has invested in are left out. `request` is what the client asked
        for, so that its Idempotency-Key with another request can be told apart.

        Raises:
            Temporary: the database has been away for so long that the spool is full.
        """
        invested = self._stakes.get(principal_id, frozenset()) if principal_id is not None else frozenset()
        earning = [a for a in appearances if a.creator_id not in own_creator_ids and a.segment_id not in invested]
        if not earning:
            return 0
        if self._waiting_bytes > self._settings.spool_backlog_max_mb << 20:
            raise Temporary("the spool of appearances is full because the database is away", 5.0)
        principal = "" if principal_id is None else str(principal_id)
        key = self._hashes.key(principal, idempotency_key) if idempotency_key else spool.NO_KEY
        record = search_record(earning, key, self._hashes.request(request), int(time.time() * 1000))
        self._spool.append(record)
        self._waiting.append(record)
        self._waiting_bytes += len(record)
        self._due.set()
        return len(earning)

    async def close(self) -> None:
        """Carry what is left, if the database lets us; what it does not take stays in the spool for an heir."""
        self._closing = True
        self._due.set()
        if self._chores is not None:
            self._chores.cancel()
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=5.0)
            self._task.cancel()
        if not self._waiting and self._registered:
            try:
                await self._retire()
            except (psycopg.Error, OSError) as error:
                log.warning("the spool is left to an heir: %s", error)
        self._spool.close()
        if self._connection is not None:
            await self._connection.close()

    # ── Carrying ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _begin(self) -> None:
        self._incarnation = uuid4()
        self._spool = spool.Spool(self._folder, self._incarnation)
        self._recorded = 0
        self._registered = False

    async def _carry(self) -> None:
        failures = 0
        while not (self._closing and not self._waiting):
            await self._due.wait()
            self._due.clear()
            await asyncio.sleep(self._settings.flush_interval_ms / 1000)
            try:
                while self._waiting:
                    await self._carry_one()
                failures = 0
                if self._spool.size > self._settings.spool_file_max_mb << 20:
                    await self._retire()
                    self._begin()
            except (psycopg.Error, OSError) as error:
                await self._failed(error)
                if self._closing:
                    return
                await asyncio.sleep(backoff_s(failures, 0.05, 2.0))
                failures = min(failures + 1, 10)
                self._due.set()

    async def _carry_one(self) -> None:
        connection = await self._connected()
        records = list(self._waiting)[: self._settings.flush_searches_max]
        batch = spool.pack(records)
        cursor = await connection.execute(RECORDED, _parameters(self._incarnation, self._recorded, batch))
        if cursor.rowcount == 1:
            self._forget(len(records))
            return
        row = await (
            await connection.execute("SELECT recorded FROM ledger.incarnations WHERE id = %s", (self._incarnation,))
        ).fetchone()
        assert row is not None
        assert row[0] > self._recorded, "an incarnation went backwards"
        self._forget(row[0] - self._recorded)  # the answer to an earlier insert was lost, or an heir was quicker

    def _forget(self, searches: int) -> None:
        for _ in range(searches):
            self._waiting_bytes -= len(self._waiting.popleft())
        self._recorded += searches

    async def _connected(self) -> AsyncConnection[Any]:
        if self._connection is None or self._connection.closed:
            self._connection = await AsyncConnection.connect(
                self._url, autocommit=True, connect_timeout=database.CONNECT_TIMEOUT_S
            )
        if not self._registered:
            await self._connection.execute(
                "INSERT INTO ledger.incarnations (id, spool, machine) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING",
                (self._incarnation, self._spool.path.name, socket.gethostname()),
            )
            self._registered = True
        return self._connection

    async def _failed(self, error: Exception) -> None:
        """The database does not take it: the spool goes to disk instead, and the connection is made anew."""
        log.warning("appearances wait in the spool: %s", error, extra={"searches": len(self._waiting)})
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()
        await asyncio.to_thread(self._spool.sync)

    async def _retire(self) -> None:
        connection = await self._connected()
        await connection.execute("UPDATE ledger.incarnations SET closed_at = now() WHERE id = %s", (self._incarnation,))
        self._spool.remove()

    # ── Chores ─────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _do_chores(self) -> None:
        while True:
            try:
                self._stakes = await asyncio.to_thread(self._look_around)
            except (Temporary, psycopg.Error, OSError) as error:
                log.warning("the recorder could not look around: %s", error)
            await asyncio.sleep(min(STAKES_INTERVAL_S, self._settings.orphan_after_s))

    def _look_around(self) -> dict[int, frozenset[int]]:
        with database.connect(self._url, autocommit=True) as connection:
            adopt(connection, self._folder)
            rows = connection.execute(
                "SELECT investor_id, array_agg(segment_id) FROM ledger.segment_stakes GROUP BY investor_id"
            )
            return {investor: frozenset(segments) for investor, segments in rows}


def adopt(connection: Connection[Any], folder: Any) -> int:
    """Record what dead replicas of this machine had in their spools; returns how many searches that were.

    A spool is removed only when what it held is committed: the connection must not be in a transaction.
    """
    adopted = 0
    for orphan in spool.orphans(folder):
        try:
            adopted += _adopt_one(connection, orphan)
        except BaseException:
            orphan.close()
            raise
        orphan.remove()
    return adopted


def _adopt_one(connection: Connection[Any], orphan: spool.Orphan) -> int:
    """In one transaction that holds the incarnation: what the dead have sent and the database still writes is waited for."""
    assert connection.info.transaction_status == TransactionStatus.IDLE, "a spool would be removed before the commit"
    records, incarnation = orphan.records(), orphan.incarnation
    with connection.transaction():
        connection.execute(
            "INSERT INTO ledger.incarnations (id, spool, machine) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING",
            (incarnation, orphan.path.name, socket.gethostname()),
        )
        held = "SELECT recorded FROM ledger.incarnations WHERE id = %s FOR UPDATE"
        row = connection.execute(held, (incarnation,)).fetchone()
        assert row is not None
        first = at = int(row[0])
        while at < len(records):
            batch = spool.pack(records[at : at + ADOPTED_BATCH_SEARCHES])
            done = connection.execute(RECORDED, _parameters(incarnation, at, batch))
            assert done.rowcount == 1, "somebody has recorded for an incarnation that we hold"
            at += batch.searches
        connection.execute("UPDATE ledger.incarnations SET closed_at = now() WHERE id = %s", (incarnation,))
    if at > first:
        log.info("adopted the spool of a dead replica", extra={"searches": at - first})
    return at - first


def _parameters(incarnation: UUID, seq: int, batch: spool.Batch) -> dict[str, object]:
    return {
        "incarnation": incarnation,
        "seq": seq,
        "searches": batch.searches,
        "appearances": batch.appearances,
        "format": spool.FORMAT,
        "payload": batch.payload,
        "sha256": hashlib.sha256(batch.payload).digest(),
    }
