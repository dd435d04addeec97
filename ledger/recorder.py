"""The recorder: one replica's appearances, in its spool before a search is answered and in the database soon after.

`record` appends to the spool and returns; a background task carries what has gathered in 10 ms, or 100 searches, into
`ledger.appearance_batches`. Where the database is away it waits; where the database has forgotten (a failover to a
standby that lagged, a restored backup) what was carried is carried again, from the spool. Where no spool can be begun
nothing is recorded, and a search that must be is refused. Decides nothing about money beyond leaving out what a viewer
may not earn for.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import socket
import time
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import psycopg
from psycopg import AsyncConnection, Connection

from cluster import database, logins
from cluster.errors import Temporary
from cluster.resilience import backoff_s
from cluster.roles import SERVE
from cluster.seldom import Seldom
from cluster.settings import Settings
from cluster.tasks import Tasks
from ledger import spool
from ledger.appearances import BEGUN, CLOSED, RECORDED, Appearance, Hashes, adopt, parameters, search_record
from ledger.settings import LedgerSettings

log = logging.getLogger(__name__)

STAKES_INTERVAL_S = 30.0
RETRY_AFTER_S = 5.0
LATE_S = 1800.0  # half of what the fold believes of a batch that is not late (see `waiting`)
TASKS_CLOSE_S, FINISH_S = 1.0, 3.0  # within the time that Serve gives a replica to end


@dataclass
class Incarnation:
    """One spool, and how many of its searches are in the database as far as we know."""

    id: UUID
    spool: spool.Spool
    recorded: int = 0
    began_at: float = field(default_factory=time.monotonic)


class Recorder:
    """Records one replica's appearances. Used inside one event loop: `await start()`, `record(…)`, `await close()`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings.section(LedgerSettings)
        self._url = logins.held(settings, SERVE)
        self._folder = settings.data_dir / "spool"
        self._hashes = Hashes(settings)
        self._seldom = Seldom(log)
        self._stakes: dict[int, frozenset[int]] = {}
        self._stakes_version = -1  # of what was read last
        self._waiting: deque[bytes] = deque()
        self._since: deque[float] = deque()  # when each of these began to wait, by the monotonic clock
        self._waiting_bytes = 0
        self._moved_at = 0.0  # when something was carried last, or began to wait
        self._reason = ""  # why nothing could be carried last
        self._due = asyncio.Event()
        self._tasks = Tasks("recorder")
        self._connection: AsyncConnection[Any] | None = None
        self._is_placed = False  # do we know where the database stands?
        self._begun: Incarnation | None = None
        self._unbegun = ""  # why there is no spool
        self.set_aside = 0  # damaged spools of this machine, when it was looked last
        self._try_to_begin()

    @property
    def hashes(self) -> Hashes:
        return self._hashes

    @property
    def waiting(self) -> int:
        """Searches that are in the spool and not yet in the database."""
        return len(self._waiting)

    @property
    def is_full(self) -> bool:
        """Does so much wait that nothing more is taken?"""
        return self._waiting_bytes > self._settings.spool_backlog_max_mb << 20

    @property
    def failing(self) -> Mapping[str, str]:
        """What does not work at present, each with the reason; empty where all is well."""
        found = dict(self._tasks.failing)
        if self._begun is None:
            found["spool"] = self._unbegun
        stalled_s = time.monotonic() - self._moved_at if self._waiting else 0.0
        if stalled_s > self._settings.carry_stalled_s:
            found["carry"] = f"{self.waiting} searches wait, the oldest for {stalled_s:.0f} s: {self._reason}"
        return found

    async def start(self) -> None:
        """Begin to carry what is recorded; also look for the spools of dead replicas."""
        self._tasks.keep("carry", self._carry)
        self._tasks.keep("chores", self._do_chores)

    def record(
        self,
        appearances: Sequence[Appearance],
        *,
        origin: bytes = spool.NO_ORIGIN,
        idempotency_key: str | None = None,
        request: str = "",
        principal_id: int | None = None,
        own_creator_ids: Collection[int] = (),
    ) -> int:
        """Append one search to the spool; to be called before it is answered. Returns how many may earn.

        The key's own creators and the segments it has invested in are left out. `request` is what the client asked
        for, so that its Idempotency-Key with another request can be told apart; `origin` is the keyed hash of an
        anonymous viewer's network.

        Raises:
            Temporary: the database has been away for so long that the spool is full, or the disk is.
        """
        invested = self._stakes.get(principal_id, frozenset()) if principal_id is not None else frozenset()
        earning = [a for a in appearances if a.creator_id not in own_creator_ids and a.segment_id not in invested]
        if not earning:
            return 0
        if self.is_full:
            raise Temporary("the spool of appearances is full because the database is away", RETRY_AFTER_S)
        # Of anybody without a key the viewer, or a stranger's key would silence theirs.
        principal = earning[0].viewer_hmac.hex() if principal_id is None else str(principal_id)
        key = self._hashes.key(principal, idempotency_key) if idempotency_key else spool.NO_KEY
        self._append(search_record(earning, key, self._hashes.request(request), int(time.time() * 1000), origin))
        return len(earning)

    def _append(self, record: bytes) -> None:
        try:
            self._own.spool.append(record)
        except OSError as error:
            self._seldom.error(f"appearances cannot be recorded: {error}")
            raise Temporary(
                f"appearances cannot be recorded: {error.strerror or type(error).__name__}", RETRY_AFTER_S
            ) from error
        if not self._waiting:
            self._moved_at = time.monotonic()
        self._waiting.append(record)
        self._since.append(time.monotonic())
        self._waiting_bytes += len(record)
        self._due.set()

    async def close(self) -> None:
        """Carry what is left, if the database lets us; what it does not take stays in the spool for an heir.

        Whatever happens meanwhile, the lock on the spool is let go.
        """
        try:
            await self._tasks.close(TASKS_CLOSE_S)
            async with asyncio.timeout(FINISH_S):
                await self._finish()
        except (Temporary, TimeoutError, psycopg.Error, OSError) as error:
            log.warning("the spool is left to an heir: %s", error or type(error).__name__)
        finally:
            if self._begun is not None:
                self._begun.spool.close()
            await self._disconnect()

    async def _finish(self) -> None:
        if self._tasks:
            raise Temporary("a task of the recorder does not end")
        if self._begun is None:
            return
        if self._own.spool.size:
            await self._carry_all()
        await self._retire(self._own)

    # ── Carrying ───────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def _own(self) -> Incarnation:
        """What is recorded into, begun now where it could not be before.

        Raises:
            OSError: nor can it be now.
        """
        if self._begun is None:
            self._begun = self._new()
        return self._begun

    def _new(self) -> Incarnation:
        number = uuid4()
        return Incarnation(number, spool.Spool(self._folder, number))

    def _try_to_begin(self) -> None:
        """A disk that is full or read-only must not keep a replica from starting, answering and saying so."""
        try:
            _ = self._own
        except OSError as error:
            self._unbegun = f"no spool can be begun in {self._folder}: {error}"
            log.error("appearances cannot be recorded: %s", self._unbegun)

    async def _carry(self) -> None:
        """Carry what is due, for good; what the database does not take waits, with backoff."""
        failures = 0
        if self._waiting:
            self._due.set()
        while True:
            await self._due.wait()
            self._due.clear()
            await asyncio.sleep(self._settings.flush_interval_ms / 1000)
            try:
                await self._carry_all()
                if self._own.spool.size > self._settings.spool_file_max_mb << 20:
                    await self._rotate()
                failures = 0
            except (Temporary, psycopg.Error, OSError) as error:
                await self._failed(error)
                await asyncio.sleep(backoff_s(failures, 0.05, 2.0))
                failures = min(failures + 1, 10)
                self._due.set()

    async def _carry_all(self) -> None:
        connection = await self._connected()
        while self._waiting:
            await self._carry_one(connection)
            connection = await self._connected()

    async def _carry_one(self, connection: AsyncConnection[Any]) -> None:
        records = list(itertools.islice(self._waiting, self._settings.flush_searches_max))
        own, batch = self._own, spool.pack(records)
        is_late = time.monotonic() - self._since[0] >= LATE_S
        cursor = await connection.execute(RECORDED, parameters(own.id, own.recorded, batch, adopted=is_late))
        if cursor.rowcount == 1:
            self._forget(len(records))
        elif not await self._place(connection):
            raise Temporary("the database refuses a batch that follows on what it has")

    def _forget(self, searches: int) -> None:
        for _ in range(searches):
            self._waiting_bytes -= len(self._waiting.popleft())
            self._since.popleft()
        self._own.recorded += searches
        self._moved_at = time.monotonic()

    async def _connected(self) -> AsyncConnection[Any]:
        if self._connection is None or self._connection.closed:
            self._connection = await AsyncConnection.connect(
                self._url, autocommit=True, connect_timeout=database.CONNECT_TIMEOUT_S
            )
            self._is_placed = False
        if not self._is_placed:
            await self._place(self._connection)
        return self._connection

    async def _place(self, connection: AsyncConnection[Any]) -> bool:
        """Learn how many of our searches the database has, and go on from there; False if we knew already.

        More than we think: the answer to an insert was lost, or an heir was quicker. Fewer: the database has forgotten.
        """
        own = self._own
        age_s = time.monotonic() - own.began_at
        asked = await connection.execute(BEGUN, (own.id, own.spool.path.name, socket.gethostname(), age_s))
        row = await asked.fetchone()
        if row is None or row[0] is None:
            raise Temporary("the database forgets as we speak")
        ahead = int(row[0]) - own.recorded
        if ahead > 0:
            self._forget(ahead)
        elif ahead < 0:
            await self._take_back(-ahead)
        self._is_placed = own is self._begun
        return ahead != 0

    async def _take_back(self, searches: int) -> None:
        """The last searches that were carried wait again, from the spool."""
        own = self._own
        try:
            records = await asyncio.to_thread(own.spool.records)
        except OSError as error:
            log.error("a spool cannot be read: %s", error)
            records = []
        lost = records[own.recorded - searches : own.recorded]
        self._moved_at = time.monotonic()
        if len(lost) < searches:
            self._begin_after(own, lost, searches - len(lost))
            return
        log.error("the database has forgotten searches; they are carried again", extra={"searches": searches})
        self._waiting.extendleft(reversed(lost))
        self._since.extendleft([own.began_at] * len(lost))  # when they were made is not known any more
        self._waiting_bytes += sum(len(record) for record in lost)
        own.recorded -= searches

    def _begin_after(self, damaged: Incarnation, lost: Sequence[bytes], unread: int) -> None:
        """Go on in another spool with what can still be carried; the damaged one is set aside, for a person to look at.

        `lost` is what the database has forgotten and could be read. Without a pause for others, since what is recorded
        must stand in the spool in the order in which it waits.

        Raises:
            OSError: no other spool can be written; all is as before.
        """
        own, waiting = self._new(), deque([*lost, *self._waiting])
        try:
            for record in waiting:
                own.spool.append(record)
        except OSError:
            own.spool.remove()
            raise
        own.began_at = damaged.began_at
        self._begun, self._waiting = own, waiting
        self._since.extendleft([own.began_at] * len(lost))
        self._waiting_bytes += sum(len(record) for record in lost)
        path = spool.set_aside(damaged.spool.path)  # before its lock is let go of, or an heir would take it
        damaged.spool.close()
        said = {"searches": unread, "spool": path.name}
        log.error("the database has forgotten searches that a spool does not have: it is set aside", extra=said)

    async def _failed(self, error: Exception) -> None:
        """The database does not take it: the spool goes to disk instead, and the connection is made again."""
        self._reason = str(error).strip() or type(error).__name__
        log.warning("appearances wait in the spool: %s", error, extra={"searches": len(self._waiting)})
        await self._disconnect()
        try:
            await asyncio.to_thread(self._own.spool.sync)
        except OSError as unwritten:
            log.error("the spool is not on disk: %s", unwritten)

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    async def _rotate(self) -> None:
        """Begin another spool, now that all of this one is carried: what is recorded meanwhile is in the new one."""
        old, self._begun, self._is_placed = self._own, self._new(), False
        await self._retire(old)

    async def _retire(self, own: Incarnation) -> None:
        """Remove a spool all of which the database has; if that is not sure, let go of it, for an heir to look."""
        try:
            if own.spool.size:
                connection = await self._connected()
                done = await (await connection.execute(CLOSED, (own.id, own.recorded))).fetchone()
                if done != (True,):
                    raise Temporary("the database has forgotten searches of the spool that ends")
            own.spool.remove()
        finally:
            own.spool.close()

    # ── Chores ─────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _do_chores(self) -> None:
        while True:
            try:
                await asyncio.to_thread(self._look_around)
            except (Temporary, psycopg.Error, OSError) as error:
                log.warning("the recorder could not look around: %s", error)
            if self._begun is None:
                self._try_to_begin()
            elif self._begun.recorded:  # while nobody searches, too, a database that has forgotten is noticed
                self._is_placed = False
                self._due.set()
            await asyncio.sleep(min(STAKES_INTERVAL_S, self._settings.adopt_interval_s))

    def _look_around(self) -> None:
        with database.connect(self._url, autocommit=True) as connection:
            adopt(connection, self._folder)
            self.set_aside = spool.count_set_aside(self._folder)
            self._read_stakes(connection)

    def _read_stakes(self, connection: Connection[Any]) -> None:
        """Who has a stake in what; read only when it has changed, since all replicas ask every half minute."""
        row = connection.execute("SELECT version FROM ledger.stakes_version").fetchone()
        assert row is not None
        if row[0] == self._stakes_version:
            return
        rows = connection.execute(
            "SELECT investor_id, array_agg(segment_id) FROM ledger.segment_stakes GROUP BY investor_id"
        )
        self._stakes = {investor: frozenset(segments) for investor, segments in rows}
        self._stakes_version = row[0]  # of before they were read: a change meanwhile is read the next time
