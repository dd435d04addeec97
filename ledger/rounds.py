"""Rounds: what the ledger does again and again, in parts that share nothing but the database and the epoch.

Each part has a connection of its own, so that none waits for another. While a slow node, a chain that does not answer
or thousands of strangers' deposits keep one part busy, searches are still folded and payouts settled. Parts contend
only for the end of the journal, which is locked while entries are written. So no part asks a node in a transaction that
has written there. One part, which waits for nothing else, reports what has been open for too long.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import threading
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import psycopg
import redis
from psycopg import Connection

from cluster import cache, runtime, urls
from cluster.database import database, logins
from cluster.errors import Rejected, Temporary
from cluster.observability.seldom import Seldom
from cluster.resilience import Breaker, backoff_s
from cluster.roles import LEDGER
from cluster.settings import Settings
from cluster.storage import Storage
from ledger.accrual import fold
from ledger.accrual.fold import Fold, Folded
from ledger.accrual.shared_networks import SharedNetworks
from ledger.appearances import appearances
from ledger.audit.alarms import AgeAlarm
from ledger.audit.anchors import Anchoring
from ledger.creators import wallets
from ledger.creators.counters import Counters
from ledger.journal import book
from ledger.journal.book import Fenced
from ledger.orders import ordering
from ledger.payouts import adoption, payouts
from ledger.payouts.reconcile import Difference, Distrust, Finding, reconcile
from ledger.risk import review, stops
from ledger.settings import Economics, LedgerSettings
from ledger.solana.chain import Chain, Effect, HttpNode, RpcRefusal
from ledger.solana.treasury import OTHER_MARKS, Treasury, open_treasury
from ledger.solana_rail.solana_rail import SolanaRail

log = logging.getLogger(__name__)

WAITS_FOR_SAID_S = 60.0  # between two log lines about the same wait
LOCK_TIMEOUT_S = (
    5  # longer than any other process should lock what the ledger writes; after it the round is tried again
)
ADOPT_PAUSE_S = 15.0  # after a spool whose incarnation another transaction has locked
HISTORY_SHARE = (
    0.25  # of the requests a second to a node that may read the treasury's history: strangers can make it long
)
SEEN_FOLDER = "seen"  # in the data folder: a copy of what the database knows, which can be removed
SILENT_MAX_S = 600.0  # for which a round of another part may last before it is logged
SILENCE_SAID_S = 3600.0  # between two log lines about it
IDS_LOST = "the secret of the payouts' ids is another one"


class Epoch:
    """The epoch of a process, shared by all its connections: the first one takes it.

    If the database was restored since it was last used, payouts are frozen before any connection is used.
    """

    def __init__(self) -> None:
        self.number = 0
        self._lock = threading.Lock()

    def hold(self, connection: Connection[Any]) -> None:
        """Let a connection write under the epoch; take the epoch if this is the first."""
        with self._lock:
            if self.number:
                book.hold_epoch(connection, self.number)
            else:
                self.number = book.take_epoch(connection, f"{socket.gethostname()}:{os.getpid()}")
            adoption.watch(connection)


class Part(ABC):
    """One part of the ledger's work. `round` is called again and again, by one thread at a time."""

    name = ""

    def __init__(self, settings: Settings, epoch: Epoch) -> None:
        self.settings, self.epoch = settings, epoch
        self.own = settings.section(LedgerSettings)
        self.economics = settings.section(Economics)
        self.trouble = ""  # why it waits, while it does
        self.ended_at = time.monotonic()  # of its last round, successful or not
        self._connection: Connection[Any] | None = None

    @abstractmethod
    def work(self, connection: Connection[Any]) -> bool:
        """Do one round. Returns whether more work waits than one round takes."""

    def begin(self, connection: Connection[Any]) -> None:
        """Prepare a new connection: hold the epoch, and forget what an earlier connection has read."""
        self.epoch.hold(connection)

    def round(self) -> bool:
        """Do one round; connect first if needed. Returns whether more work waits than one round takes.

        Raises:
            Fenced: another writer has taken over. Any SQL statement of the round may reveal that.
        """
        try:
            if self._connection is None or self._connection.closed:
                self._connection = database.connect(logins.url(self.settings, LEDGER))
                self._connection.execute("SELECT set_config('lock_timeout', %s, false)", (f"{LOCK_TIMEOUT_S}s",))
                self._connection.commit()
                with book.refusals():
                    self.begin(self._connection)
            with book.refusals():
                return self.work(self._connection)
        finally:
            self.ended_at = time.monotonic()

    def close(self) -> None:
        """Close the connection; the next round makes another one."""
        if self._connection is not None:
            self._connection.close()
        self._connection = None


class Folding(Part):
    """The part that turns appearances into money: adopts spools, folds, reviews, and moves what has matured.

    It also notes that the process is alive.
    """

    name = "fold"

    def __init__(self, settings: Settings, epoch: Epoch) -> None:
        super().__init__(settings, epoch)
        self._fold: Fold | None = None
        self._adopt_at = 0.0
        self._seldom = Seldom(log, WAITS_FOR_SAID_S)
        self._review_at, self._unreviewed = 0.0, True  # a review weighs all earnings of some days: not in each round

    def begin(self, connection: Connection[Any]) -> None:
        super().begin(connection)
        self._end_fold()
        folder = self.settings.data_dir / SEEN_FOLDER
        networks = SharedNetworks.of(self.settings)
        review.begin(connection)
        self._fold, self._unreviewed = Fold(connection, self.economics, self.own, folder, networks), True

    def close(self) -> None:
        self._end_fold()
        super().close()

    def _end_fold(self) -> None:
        if self._fold is not None:
            self._fold.close()
        self._fold = None

    def work(self, connection: Connection[Any]) -> bool:
        assert self._fold is not None
        self._live(connection)
        self._adopt(connection)
        folded = self._folded(self._fold) if self._has_room(self._fold) else None
        self._unreviewed |= folded is not None
        if self._unreviewed and time.monotonic() >= self._review_at:
            review.review(connection, self._fold.audience, self.economics)
            pause_s = min(self.own.review_interval_s, self.economics.maturity_s)
            # A day is judged when it is over, also where nothing was shown since.
            self._unreviewed, self._review_at = self._fold.audience.is_unjudged, time.monotonic() + pause_s
        fold.mature(connection)
        return folded is not None

    def _adopt(self, connection: Connection[Any]) -> None:
        """Record what dead replicas have left in their spools.

        If a spool's incarnation is locked, this is tried again later, and nothing else waits for it.
        """
        if time.monotonic() < self._adopt_at:
            return
        try:
            appearances.adopt(connection, self.settings.data_dir / "spool")
        except psycopg.errors.LockNotAvailable as error:
            self._adopt_at = time.monotonic() + ADOPT_PAUSE_S
            self._seldom.warning(f"a spool is not adopted: another transaction holds its incarnation: {error}")
        connection.commit()

    def _has_room(self, accountant: Fold) -> bool:
        """Whether there is room for what the next fold has to remember. If not, searches wait in the database."""
        self.trouble = accountant.why_full()
        if self.trouble:
            self._seldom.error(self.trouble)
        return not self.trouble

    def _folded(self, accountant: Fold) -> Folded | None:
        """Fold once. Returns what was folded; None if nothing was waiting.

        Raises:
            Temporary: something else was paid from the pool meanwhile, so that its balance must be read again.
        """
        try:
            return accountant.run_once()
        except Rejected as refusal:
            if refusal.code != "balance-too-low":
                raise
            raise Temporary(f"the pool was used meanwhile: {refusal}") from refusal

    def _live(self, connection: Connection[Any]) -> None:
        """Note in the database that this process is alive.

        Raises:
            Fenced: another process has taken over the epoch.
        """
        done = connection.execute("UPDATE ledger.fence SET seen_at = now() WHERE epoch = %s", (self.epoch.number,))
        connection.commit()
        if done.rowcount == 0:
            raise Fenced(f"epoch {self.epoch.number} has ended")


class Counting(Part):
    """The part that updates the live counters in Redis. While Redis does not answer, only the counters stand still."""

    name = "counters"

    def __init__(self, settings: Settings, epoch: Epoch) -> None:
        super().__init__(settings, epoch)
        client = cache.client(runtime.endpoints(settings).redis_url)
        self._counters = Counters(client, secrets.token_hex(4), runtime.redis_prefix(settings))
        self._breaker = Breaker("live counters", failures_max=1, reset_s=5.0)

    def work(self, connection: Connection[Any]) -> bool:
        if self._breaker.allow():
            try:
                self._counters.follow(connection)
            except redis.RedisError as error:
                self._breaker.failure()
                log.warning("live counters stand still: %s", type(error).__name__)
            else:
                self._breaker.success()
        connection.commit()
        return False


class Watching(Part):
    """The part that measures what is open and for how long, anchors the journal's head, and watches the other parts.

    It asks no node, waits for no object store and takes no lock that others hold, so that it can report while others wait.
    """

    name = "watch"

    def __init__(self, settings: Settings, epoch: Epoch, others: Sequence[Part]) -> None:
        super().__init__(settings, epoch)
        self._ages, self._look_at = AgeAlarm(self.own), 0.0
        storage = Storage(runtime.endpoints(settings).s3)
        self._anchors = Anchoring(storage, settings.s3.bucket, self.own.anchor_interval_s)
        self._others, self._seldom = others, Seldom(log, SILENCE_SAID_S)

    def work(self, connection: Connection[Any]) -> bool:
        self._listen()
        if time.monotonic() >= self._look_at:
            self._ages.look(connection)
            self._look_at = time.monotonic() + self.own.reconcile_interval_s
        self._anchors.look(connection)
        return False

    def close(self) -> None:
        self._anchors.close()
        super().close()

    def _listen(self) -> None:
        """Log the parts whose round takes longer than `SILENT_MAX_S`.

        They wait without a time limit, or their thread has ended.
        """
        for part in self._others:
            if time.monotonic() - part.ended_at > SILENT_MAX_S:
                self._seldom.error(f"the ledger's {part.name}: one round takes longer than {SILENT_MAX_S:.0f} s")


@dataclass
class Shared:
    """The state that the parts for paying and for reconciling share."""

    batches_lock: threading.Lock = field(default_factory=threading.Lock)  # held by the part that changes batches
    treasury: Treasury | None = None
    is_reconciled: bool = False  # nothing new is begun before the chain and the journal agree


class OnChain(Part):
    """A part that asks nodes. While they do not answer, or a setting is wrong, it waits and keeps its connection."""

    def __init__(self, settings: Settings, epoch: Epoch, shared: Shared, share: float) -> None:
        """Make the part with its pool of nodes.

        Args:
            settings: of the process.
            epoch: of the process.
            shared: what paying and reconciling share.
            share: which part of the allowed requests per second to each node this part may use, from 0 to 1.
        """
        super().__init__(settings, epoch)
        self.shared, self.chain = shared, open_chain(settings, share)
        self._again_at, self._failures = 0.0, 0

    @abstractmethod
    def ask(self, connection: Connection[Any]) -> None:
        """Do one round in which nodes are asked."""

    def work(self, connection: Connection[Any]) -> bool:
        if time.monotonic() < self._again_at:
            return False
        try:
            self.ask(connection)
        except (Temporary, RpcRefusal) as error:
            connection.rollback()
            self._failures += 1
            self._again_at = time.monotonic() + max(0.1, backoff_s(min(self._failures, 6), 0.1, 5.0))
            self.trouble = str(error)
            log.warning("%s waits: %s", self.name, error)
        else:
            connection.commit()  # of what was only read: no table stays locked until the next round
            self._failures, self.trouble = 0, ""
        return False


class Paying(OnChain):
    """The part that carries out orders and pays what is owed: settle, resolve, plan, sign, send."""

    name = "payouts"

    def __init__(self, settings: Settings, epoch: Epoch, shared: Shared) -> None:
        super().__init__(settings, epoch, shared, 1 - HISTORY_SHARE)
        self._rail: SolanaRail | None = None

    def begin(self, connection: Connection[Any]) -> None:
        super().begin(connection)
        wallets.note_rules(connection, self.economics)
        book.commit(connection)
        self._rail, self.shared.treasury, self.shared.is_reconciled = None, None, False

    def ask(self, connection: Connection[Any]) -> None:
        rail = self._opened(connection)
        with self.shared.batches_lock:
            ordering.carry_out(rail)
            payouts.run_once(rail, plan=self.shared.is_reconciled)

    def _opened(self, connection: Connection[Any]) -> SolanaRail:
        """Return the rail of the treasury; the first call opens the treasury.

        Raises:
            Temporary: no node answers, or a person must correct a setting or key.
        """
        if self._rail is None:
            try:
                treasury = open_treasury(connection, self.chain, self.settings)
                self._rail = SolanaRail(connection, self.chain, treasury, self.economics, self.own)
            except (Rejected, ValueError) as refusal:  # ValueError: a text is not an address or key
                connection.rollback()
                if isinstance(refusal, Rejected) and refusal.code == OTHER_MARKS:
                    self._ids_are_lost(connection, refusal)
                raise Temporary(f"payouts wait for a person: {refusal}") from refusal
            self.shared.treasury = treasury
        return self._rail

    def _ids_are_lost(self, connection: Connection[Any], refusal: Rejected) -> None:
        """Handle a secret that is not the database's: use it if an administrator has ordered that, else freeze payouts.

        Once the new secret is used, the freeze ends. If the old secret is put back instead, a person has to release the
        freeze.
        """
        secret = runtime.secret(self.settings, "batches")
        if ordering.take_new_secret(connection, secret, self.own.orders_by_two):
            stops.thaw(connection, IDS_LOST)
        else:
            stops.freeze(connection, IDS_LOST, {"reason": str(refusal)})
        book.commit(connection)


class Reconciling(OnChain):
    """The part that books the treasury's history and compares the journal with the chain."""

    name = "reconciliation"

    def __init__(self, settings: Settings, epoch: Epoch, shared: Shared) -> None:
        super().__init__(settings, epoch, shared, HISTORY_SHARE)
        self._rail: SolanaRail | None = None  # for adoption, over this part's connection
        self._reconcile_at = 0.0
        self._seldom = Seldom(log, WAITS_FOR_SAID_S)
        self.finding: Finding | None = None
        self._difference, self._distrust = Difference(), Distrust()

    def begin(self, connection: Connection[Any]) -> None:
        super().begin(connection)
        self._rail, self._reconcile_at, self.shared.is_reconciled = None, 0.0, False

    def ask(self, connection: Connection[Any]) -> None:
        treasury = self.shared.treasury
        if treasury is None:
            return
        if self._rail is None or self._rail.treasury is not treasury:  # nothing is planned before this is reconciled
            self._rail = SolanaRail(connection, self.chain, treasury, self.economics, self.own)
            self._reconcile_at = 0.0
        if time.monotonic() < self._reconcile_at:
            return
        adopt = partial(self._adopt, self._rail)
        with self.shared.batches_lock:
            adoption.retry(self._rail)
        opinions = self._rail.opinions
        finding = reconcile(connection, self.chain, treasury, adopt, opinions, self._difference, self._distrust)
        if finding.waits_for is not None:
            self._seldom.warning(f"the chain is not reconciled: transaction {finding.waits_for} is waited for")
        with self.shared.batches_lock:  # not while an order to adopt is half done
            adoption.end(self._rail, finding)
        pause_s = self.own.reconcile_interval_s if finding.conclusive else self.own.tick_interval_s
        self._reconcile_at = 0.0 if finding.has_more else time.monotonic() + pause_s
        if finding.conclusive and self.shared.treasury is treasury:
            self.shared.is_reconciled = finding.ok
        self.finding = finding

    def _adopt(self, rail: SolanaRail, effect: Effect) -> bool:
        with self.shared.batches_lock:
            return adoption.adopt(rail, effect)


def open_chain(settings: Settings, share: float = 1.0) -> Chain:
    """Open a pool of the nodes that the settings name, which may use `share` (0 to 1) of the allowed requests per second."""
    ledger_settings = settings.section(LedgerSettings)
    shown: Counter[str] = Counter()
    nodes = []
    for url in dict.fromkeys(runtime.endpoints(settings).solana_urls):
        shown[urls.shown(url)] += 1
        number = shown[urls.shown(url)]
        nodes.append(HttpNode(url, ledger_settings.rpc_timeout_s, ledger_settings.rpc_requests_per_s * share, number))
    return Chain(nodes)
