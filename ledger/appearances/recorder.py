"""The recorder: one replica's appearances, in its spool before a search is answered and in the database soon after.

`record` appends to the spool and returns. A background task *carries* searches into `ledger.appearance_batches`, in
batches of `flush_interval_ms` and at most `flush_searches_max`. While the database does not answer, the searches wait.
If the database has lost searches that were carried (a failover to a standby that lagged, a restored backup), they are
carried again from the spool. If no spool can be made, a search that has to be recorded is refused. The recorder decides
nothing about money, but leaves out appearances that must not earn: of the caller's own creators, and of segments that
the caller has invested in.
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

from cluster.database import database, logins
from cluster.errors import Temporary
from cluster.observability.seldom import Seldom
from cluster.resilience import backoff_s
from cluster.roles import SERVE
from cluster.settings import Settings
from cluster.tasks import Tasks
from ledger.appearances import spool
from ledger.appearances.appearances import BEGUN, CLOSED, RECORDED, Appearance, Hashes, adopt, parameters, search_record
from ledger.settings import LedgerSettings

log = logging.getLogger(__name__)

STAKES_INTERVAL_S = 30.0
RETRY_AFTER_S = 5.0
LATE_S = 1800.0  # half of what the fold accepts between a search and the recording of its batch (see `waiting`)
TASKS_CLOSE_S, FINISH_S = 1.0, 3.0  # together within the time that Serve gives a replica to end


@dataclass
class Incarnation:
    """One spool of this replica, and how many of its searches are known to be in the database."""

    id: UUID
    spool: spool.Spool
    recorded: int = 0
    began_at: float = field(default_factory=time.monotonic)


class Recorder:
    """Records one replica's appearances.

    Used inside one event loop: `await start()`, `record(…)`, `await close()`. Other threads must not call it.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings.section(LedgerSettings)
        self._url = logins.held(settings, SERVE)
        self._folder = settings.data_dir / "spool"
        self._hashes = Hashes(settings)
        self._seldom = Seldom(log)
        self._stakes: dict[int, frozenset[int]] = {}
        self._stakes_version = -1  # of the stakes that were read last
        self._waiting: deque[bytes] = deque()  # records in the spool and not in the database
        self._since: deque[float] = deque()  # monotonic time at which each of these was recorded
        self._waiting_bytes = 0
        self._moved_at = 0.0  # monotonic time of the last search carried, or of the first one that waits
        self._reason = ""  # the last error of carrying
        self._due = asyncio.Event()
        self._tasks = Tasks("recorder")
        self._connection: AsyncConnection[Any] | None = None
        self._is_placed = False  # whether this connection has been asked how many of our searches the database has
        self._begun: Incarnation | None = None
        self._unbegun = ""  # why there is no spool
        self.set_aside = 0  # damaged spools on this machine, when they were counted last
        self._try_to_begin()

    @property
    def hashes(self) -> Hashes:
        """The keyed hashes of this deployment."""
        return self._hashes

    @property
    def waiting(self) -> int:
        """How many searches are in the spool and not yet in the database."""
        return len(self._waiting)

    @property
    def is_full(self) -> bool:
        """Whether the waiting searches exceed `spool_backlog_max_mb`; then no more are recorded."""
        return self._waiting_bytes > self._settings.spool_backlog_max_mb << 20

    @property
    def failing(self) -> Mapping[str, str]:
        """What does not work at present, with the reason of each; empty if everything works."""
        failing = dict(self._tasks.failing)
        if self._begun is None:
            failing["spool"] = self._unbegun
        stalled_s = time.monotonic() - self._moved_at if self._waiting else 0.0
        if stalled_s > self._settings.carry_stalled_s:
            failing["carry"] = f"{self.waiting} searches wait, the oldest for {stalled_s:.0f} s: {self._reason}"
        return failing

    async def start(self) -> None:
        """Start the background tasks: carrying searches, and chores such as adopting the spools of dead replicas."""
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
        """Append one search to the spool. To be called before the search is answered.

        Args:
            appearances: the moments on its first page, all of one viewer.
            origin: the keyed hash of an anonymous viewer's network; `NO_ORIGIN` for a viewer with a key.
            idempotency_key: the client's Idempotency-Key, if it sent one.
            request: what the client asked for; tells a repeated request from another one with the same Idempotency-Key.
            principal_id: the principal of the viewer's key, None without a key. Segments that they have invested in
                earn nothing.
            own_creator_ids: creators of that principal; their moments earn nothing.

        Returns:
            How many appearances were recorded and may earn.

        Raises:
            Temporary: the spool is full because the database does not answer, or it cannot be written.
        """
        invested = self._stakes.get(principal_id, frozenset()) if principal_id is not None else frozenset()
        earning = [a for a in appearances if a.creator_id not in own_creator_ids and a.segment_id not in invested]
        if not earning:
            return 0
        if self.is_full:
            raise Temporary("the spool of appearances is full because the database is away", RETRY_AFTER_S)
        # Without a key the viewer stands for the principal; else one viewer's Idempotency-Key would suppress another's.
        principal = earning[0].viewer_hmac.hex() if principal_id is None else str(principal_id)
        key = self._hashes.key(principal, idempotency_key) if idempotency_key else spool.NO_KEY
        self._append(search_record(earning, key, self._hashes.request(request), int(time.time() * 1000), origin))
        return len(earning)

    def _append(self, record: bytes) -> None:
        try:
            self._current.spool.append(record)
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
        """Carry what waits, for a few seconds; what the database does not accept stays in the spool, to be adopted later.

        The lock on the spool is released in any case.
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
        if self._current.spool.size:
            await self._carry_all()
        await self._retire(self._current)

    # ── Carrying ───────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def _current(self) -> Incarnation:
        """The incarnation that records now; begins one if there is none.

        Raises:
            OSError: no spool can be made.
        """
        if self._begun is None:
            self._begun = self._new()
        return self._begun

    def _new(self) -> Incarnation:
        number = uuid4()
        return Incarnation(number, spool.Spool(self._folder, number))

    def _try_to_begin(self) -> None:
        """Begin an incarnation; if that fails, log it: a full disk must not keep a replica from starting and answering."""
        try:
            _ = self._current
        except OSError as error:
            self._unbegun = f"no spool can be begun in {self._folder}: {error}"
            log.error("appearances cannot be recorded: %s", self._unbegun)

    async def _carry(self) -> None:
        """Carry searches as they come, endlessly; after an error wait with backoff."""
        failures = 0
        if self._waiting:
            self._due.set()
        while True:
            await self._due.wait()
            self._due.clear()
            await asyncio.sleep(self._settings.flush_interval_ms / 1000)
            try:
                await self._carry_all()
                if self._current.spool.size > self._settings.spool_file_max_mb << 20:
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
        incarnation, batch = self._current, spool.pack(records)
        is_late = time.monotonic() - self._since[0] >= LATE_S
        cursor = await connection.execute(
            RECORDED, parameters(incarnation.id, incarnation.recorded, batch, adopted=is_late)
        )
        if cursor.rowcount == 1:
            self._forget(len(records))
        elif not await self._place(connection):
            raise Temporary("the database refuses a batch that follows on what it has")

    def _forget(self, searches: int) -> None:
        for _ in range(searches):
            self._waiting_bytes -= len(self._waiting.popleft())
            self._since.popleft()
        self._current.recorded += searches
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
        """Begin the incarnation in the database, and take over the number of its searches that the database has.

        Returns whether our own number was different. The database's is higher if the answer to an insert was lost or
        another process was quicker, and lower if the database has lost searches.
        """
        incarnation = self._current
        age_s = time.monotonic() - incarnation.began_at
        answer = await connection.execute(
            BEGUN, (incarnation.id, incarnation.spool.path.name, socket.gethostname(), age_s)
        )
        row = await answer.fetchone()
        if row is None or row[0] is None:
            raise Temporary("the database forgets as we speak")
        ahead = int(row[0]) - incarnation.recorded
        if ahead > 0:
            self._forget(ahead)
        elif ahead < 0:
            await self._take_back(-ahead)
        self._is_placed = incarnation is self._begun
        return ahead != 0

    async def _take_back(self, searches: int) -> None:
        """Queue the last `searches` that were carried to be carried once more; they are read from the spool."""
        incarnation = self._current
        try:
            records = await asyncio.to_thread(incarnation.spool.records)
        except OSError as error:
            log.error("a spool cannot be read: %s", error)
            records = []
        lost = records[incarnation.recorded - searches : incarnation.recorded]
        self._moved_at = time.monotonic()
        if len(lost) < searches:
            self._begin_after(incarnation, lost, searches - len(lost))
            return
        log.error("the database has forgotten searches; they are carried again", extra={"searches": searches})
        self._waiting.extendleft(reversed(lost))
        self._since.extendleft([incarnation.began_at] * len(lost))  # when they were made is not known any more
        self._waiting_bytes += sum(len(record) for record in lost)
        incarnation.recorded -= searches

    def _begin_after(self, damaged: Incarnation, lost: Sequence[bytes], unread: int) -> None:
        """Continue with a new spool; set the damaged one aside for a person.

        `lost` are the searches that the database has lost and that could be read from the damaged spool; `unread` is
        how many could not be read. The method does not await, so that the new spool has the searches in the order in
        which they wait.

        Raises:
            OSError: the new spool cannot be written; nothing has changed.
        """
        incarnation, waiting = self._new(), deque([*lost, *self._waiting])
        try:
            for record in waiting:
                incarnation.spool.append(record)
        except OSError:
            incarnation.spool.remove()
            raise
        incarnation.began_at = damaged.began_at
        self._begun, self._waiting = incarnation, waiting
        self._since.extendleft([incarnation.began_at] * len(lost))
        self._waiting_bytes += sum(len(record) for record in lost)
        path = spool.set_aside(damaged.spool.path)  # before its lock is let go of, or an heir would take it
        damaged.spool.close()
        fields = {"searches": unread, "spool": path.name}
        log.error("the database has forgotten searches that a spool does not have: it is set aside", extra=fields)

    async def _failed(self, error: Exception) -> None:
        """Handle an error of `_carry`: close the connection; force the spool to disk, as searches stay there longer."""
        self._reason = str(error).strip() or type(error).__name__
        log.warning("appearances wait in the spool: %s", error, extra={"searches": len(self._waiting)})
        await self._disconnect()
        try:
            await asyncio.to_thread(self._current.spool.sync)
        except OSError as unwritten:
            log.error("the spool is not on disk: %s", unwritten)

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    async def _rotate(self) -> None:
        """Begin another spool and retire the current one. The database must have all searches of the current one."""
        old, self._begun, self._is_placed = self._current, self._new(), False
        await self._retire(old)

    async def _retire(self, incarnation: Incarnation) -> None:
        """Close an incarnation; remove its spool if the database has all its searches.

        Otherwise the file is left for another process to adopt.
        """
        try:
            if incarnation.spool.size:
                connection = await self._connected()
                done = await (await connection.execute(CLOSED, (incarnation.id, incarnation.recorded))).fetchone()
                if done != (True,):
                    raise Temporary("the database has forgotten searches of the spool that ends")
            incarnation.spool.remove()
        finally:
            incarnation.spool.close()

    # ── Chores ─────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _do_chores(self) -> None:
        while True:
            try:
                await asyncio.to_thread(self._adopt_and_read_stakes)
            except (Temporary, psycopg.Error, OSError) as error:
                log.warning("the recorder could not look around: %s", error)
            if self._begun is None:
                self._try_to_begin()
            elif self._begun.recorded:  # while nobody searches, too, a database that has forgotten is noticed
                self._is_placed = False
                self._due.set()
            await asyncio.sleep(min(STAKES_INTERVAL_S, self._settings.adopt_interval_s))

    def _adopt_and_read_stakes(self) -> None:
        with database.connect(self._url, autocommit=True) as connection:
            adopt(connection, self._folder)
            self.set_aside = spool.count_set_aside(self._folder)
            self._read_stakes(connection)

    def _read_stakes(self, connection: Connection[Any]) -> None:
        """Read which segments each investor has a stake in, if stakes have changed since the last call.

        All replicas call this twice a minute.
        """
        row = connection.execute("SELECT version FROM ledger.stakes_version").fetchone()
        assert row is not None
        if row[0] == self._stakes_version:
            return
        rows = connection.execute(
            "SELECT investor_id, array_agg(segment_id) FROM ledger.segment_stakes GROUP BY investor_id"
        )
        self._stakes = {investor: frozenset(segments) for investor, segments in rows}
        self._stakes_version = row[0]  # read before the stakes: a change in between is read the next time
