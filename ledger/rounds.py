"""What the ledger does round after round, in parts that share nothing but the database and the epoch.

Each part has a connection of its own, so that none waits for what another one waits for: a slow node, a chain that is away
or a thousand strangers' deposits keep no search from being folded and no payout from being settled. They meet at the end of
the journal alone, which is locked only while rows are written: no part asks a node in a transaction that has written there.
What is open for too long is said by a part that waits for nobody.
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
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import psycopg
import redis
from psycopg import Connection

from cluster import cache, database, logins, runtime, telemetry, urls
from cluster.errors import Rejected, Temporary
from cluster.resilience import Breaker, backoff_s
from cluster.roles import LEDGER
from cluster.seldom import Seldom
from cluster.settings import Settings
from cluster.storage import Storage
from ledger import adoption, ages, appearances, book, fold, ordering, review, stops, wallets
from ledger.alarms import AgeAlarm
from ledger.anchors import Anchoring
from ledger.book import Fenced
from ledger.chain import Chain, Effect, HttpNode, RpcRefusal
from ledger.counters import Counters
from ledger.fold import Fold, Folded
from ledger.payouts import Payouts
from ledger.reconcile import Difference, Distrust, Finding, reconcile
from ledger.settings import Economics, LedgerSettings
from ledger.shared_networks import SharedNetworks
from ledger.treasury import OTHER_MARKS, Treasury, open_treasury

log = logging.getLogger(__name__)

WAITS_FOR_SAID_S = 60.0
LOCK_TIMEOUT_S = 5  # nothing that the ledger writes is another's to hold for longer; a migration is waited for anew
ADOPT_PAUSE_S = 15.0  # after a spool whose incarnation another transaction holds
HISTORY_SHARE = 0.25  # of what a node is asked a second: for the treasury's history, which strangers can make long
SEEN_FOLDER = "seen"  # of the data folder: a copy of what the database knows, which can be removed
SILENT_MAX_S = 600.0  # that a round of another part may take before it is said
SILENT = f"one round takes longer than {SILENT_MAX_S:.0f} s"
SILENCE_SAID_S = 3600.0
IDS_LOST = "the secret of the payouts' ids is another one"


class Epoch:
    """The one epoch of a process: taken for the first connection, held by the others and by those that replace them.

    The first that is made after the database was restored says so, and payouts are frozen before any of them is used.
    """

    def __init__(self) -> None:
        self.number = 0
        self._lock = threading.Lock()

    def hold(self, connection: Connection[Any]) -> None:
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
        self.away = ""  # why its last round has ended its connection
        self.ended_at = time.monotonic()  # its last round, well or not
        self._connection: Connection[Any] | None = None

    @abstractmethod
    def work(self, connection: Connection[Any]) -> bool:
        """One round. Returns whether there was more than it took."""

    def begin(self, connection: Connection[Any]) -> None:
        """A connection was made: hold the epoch, and forget what was known by an earlier one."""
        self.epoch.hold(connection)

    def round(self) -> bool:
        """One round over a connection that is made where there is none.

        Raises:
            Fenced: another writer has taken over, whichever statement has heard of it.
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
        """Give the connection up; the next round makes another one."""
        if self._connection is not None:
            self._connection.close()
        self._connection = None


class Folding(Part):
    """What was shown becomes money: a sign of life, orphaned spools, the fold, the review and what has matured."""

    name = "fold"

    def __init__(self, settings: Settings, epoch: Epoch) -> None:
        super().__init__(settings, epoch)
        self._fold: Fold | None = None
        self._adopt_at = 0.0
        self._seldom = Seldom(log, WAITS_FOR_SAID_S)
        self._review_at, self._unreviewed = 0.0, True  # it weighs all that the last days have earned: not each round

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
        """What a replica has left is recorded here too; a spool that somebody holds keeps nothing else waiting."""
        if time.monotonic() < self._adopt_at:
            return
        try:
            appearances.adopt(connection, self.settings.data_dir / "spool")
        except psycopg.errors.LockNotAvailable as error:
            self._adopt_at = time.monotonic() + ADOPT_PAUSE_S
            self._seldom.warning(f"a spool is not adopted: another transaction holds its incarnation: {error}")
        connection.commit()

    def _has_room(self, accountant: Fold) -> bool:
        """Whether what the next fold remembers has a place; where not, spools and the database keep what waits for it."""
        self.trouble = accountant.why_full()
        if self.trouble:
            self._seldom.error(self.trouble)
        return not self.trouble

    def _folded(self, accountant: Fold) -> Folded | None:
        """One fold.

        Raises:
            Temporary: the pool was used up meanwhile, by what was adopted or lost: it is read again.
        """
        try:
            return accountant.run_once()
        except Rejected as refusal:
            if refusal.code != "balance-too-low":
                raise
            raise Temporary(f"the pool was used meanwhile: {refusal}") from refusal

    def _live(self, connection: Connection[Any]) -> None:
        """A sign of life; finding another epoch means that somebody else has taken over."""
        done = connection.execute("UPDATE ledger.fence SET seen_at = now() WHERE epoch = %s", (self.epoch.number,))
        connection.commit()
        if done.rowcount == 0:
            raise Fenced(f"epoch {self.epoch.number} has ended")


class Counting(Part):
    """Live counters follow; while Redis is away they stand still, and nothing else does."""

    name = "counters"

    def __init__(self, settings: Settings, epoch: Epoch) -> None:
        super().__init__(settings, epoch)
        client = cache.client(runtime.endpoints(settings).redis_url)
        self._counters = Counters(client, secrets.token_hex(4), runtime.mark(settings))
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
    """What is open is measured, noted and said, the journal's head kept outside the database, and the other parts listened to.

    It asks no node, waits for no object store and takes no lock that others hold, so that it is heard whatever waits.
    """

    name = "watch"

    def __init__(self, settings: Settings, epoch: Epoch, others: Sequence[Part]) -> None:
        super().__init__(settings, epoch)
        due_s = max(self.own.due_open_max_s, float(self.economics.payout_interval_s))  # nobody is late before a payday
        self._ages, self._look_at = AgeAlarm(replace(self.own, due_open_max_s=due_s)), 0.0
        storage = Storage(runtime.endpoints(settings).s3)
        self._anchors = Anchoring(
            storage, settings.s3.bucket, lambda: runtime.secret(settings, "batches"), self.own.anchor_interval_s
        )
        self._others, self._seldom = others, Seldom(log, SILENCE_SAID_S)

    def work(self, connection: Connection[Any]) -> bool:
        self._listen()
        if time.monotonic() >= self._look_at:
            ages.note_waits(connection, self._waits())
            self._ages.look(connection)
            self._look_at = time.monotonic() + self.own.reconcile_interval_s
        self._anchors.look(connection)
        return False

    def close(self) -> None:
        self._anchors.close()
        super().close()

    def _listen(self) -> None:
        """Say which part is silent: it waits for an answer without an end, or its thread is gone."""
        for part in self._others:
            if _is_silent(part):
                self._seldom.error(f"the ledger's {part.name}: {SILENT}")

    def _waits(self) -> dict[str, str]:
        """What the parts wait for that do."""
        why = {part.name: SILENT if _is_silent(part) else part.away or part.trouble for part in self._others}
        return {name: telemetry.redact(said) for name, said in why.items() if said}


def _is_silent(part: Part) -> bool:
    return time.monotonic() - part.ended_at > SILENT_MAX_S


@dataclass
class Shared:
    """What paying and reconciling know of each other."""

    hands: threading.Lock = field(default_factory=threading.Lock)  # one of them at a time changes batches
    treasury: Treasury | None = None
    is_reconciled: bool = False  # nothing new is begun before the chain and the journal agree


class OnChain(Part):
    """A part that asks nodes: while they are away, or what is set up is wrong, it waits and keeps its connection."""

    def __init__(self, settings: Settings, epoch: Epoch, shared: Shared, share: float) -> None:
        super().__init__(settings, epoch)
        self.shared, self.chain = shared, open_chain(settings, share)
        self._again_at, self._failures = 0.0, 0

    @abstractmethod
    def ask(self, connection: Connection[Any]) -> None:
        """The round of a time at which nodes may be asked."""

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
    """What was ordered is carried out, and what is owed reaches the chain: settle, resolve, plan, sign, send."""

    name = "payouts"

    def __init__(self, settings: Settings, epoch: Epoch, shared: Shared) -> None:
        super().__init__(settings, epoch, shared, 1 - HISTORY_SHARE)
        self._payouts: Payouts | None = None

    def begin(self, connection: Connection[Any]) -> None:
        super().begin(connection)
        wallets.note_rules(connection, self.economics)
        book.commit(connection)
        self._payouts, self.shared.treasury, self.shared.is_reconciled = None, None, False

    def ask(self, connection: Connection[Any]) -> None:
        payouts = self._opened(connection)
        with self.shared.hands:
            ordering.carry_out(payouts)
            payouts.run_once(plan=self.shared.is_reconciled)

    def _opened(self, connection: Connection[Any]) -> Payouts:
        """Payouts on the treasury, opened where it was not.

        Raises:
            Temporary: no node answers, or what is set up wrongly a person must mend.
        """
        if self._payouts is None:
            try:
                treasury = open_treasury(connection, self.chain, self.settings)
                self._payouts = Payouts(connection, self.chain, treasury, self.economics, self.own)
            except (Rejected, ValueError) as refusal:  # the latter of an address or key that is none
                connection.rollback()
                if isinstance(refusal, Rejected) and refusal.code == OTHER_MARKS:
                    self._ids_are_lost(connection, refusal)
                raise Temporary(f"payouts wait for a person: {refusal}") from refusal
            self.shared.treasury = treasury
        return self._payouts

    def _ids_are_lost(self, connection: Connection[Any], refusal: Rejected) -> None:
        """Freeze payouts, until the secret is back or an administrator has ordered that there is a new one."""
        secret = runtime.secret(self.settings, "batches")
        if ordering.take_new_secret(connection, secret, self.own.orders_by_two):
            stops.thaw(connection, IDS_LOST)
        else:
            stops.freeze(connection, IDS_LOST, {"reason": str(refusal)})
        book.commit(connection)


class Reconciling(OnChain):
    """The treasury's history is read and booked, and the journal compared with the chain."""

    name = "reconciliation"

    def __init__(self, settings: Settings, epoch: Epoch, shared: Shared) -> None:
        super().__init__(settings, epoch, shared, HISTORY_SHARE)
        self._payouts: Payouts | None = None  # that adopts, over this part's connection
        self._reconcile_at = 0.0
        self._seldom = Seldom(log, WAITS_FOR_SAID_S)
        self.finding: Finding | None = None
        self._difference, self._distrust = Difference(), Distrust()

    def begin(self, connection: Connection[Any]) -> None:
        super().begin(connection)
        self._payouts, self._reconcile_at, self.shared.is_reconciled = None, 0.0, False

    def ask(self, connection: Connection[Any]) -> None:
        treasury = self.shared.treasury
        if treasury is None:
            return
        if self._payouts is None or self._payouts.treasury is not treasury:  # nothing is planned before this has looked
            self._payouts = Payouts(connection, self.chain, treasury, self.economics, self.own)
            self._reconcile_at = 0.0
        if time.monotonic() < self._reconcile_at:
            return
        adopt = partial(self._adopt, self._payouts)
        with self.shared.hands:
            adoption.retry(self._payouts)
        opinions = self._payouts.opinions
        found = reconcile(connection, self.chain, treasury, adopt, opinions, self._difference, self._distrust)
        if found.waits_for is not None:
            self._seldom.warning(f"the chain is not reconciled: transaction {found.waits_for} is waited for")
        with self.shared.hands:  # an order to adopt is not let go on half of the way
            adoption.end(self._payouts, found)
        pause_s = self.own.reconcile_interval_s if found.conclusive else self.own.tick_interval_s
        self._reconcile_at = 0.0 if found.has_more else time.monotonic() + pause_s
        if found.conclusive and self.shared.treasury is treasury:
            self.shared.is_reconciled = found.ok
        self.finding = found

    def _adopt(self, payouts: Payouts, effect: Effect) -> bool:
        with self.shared.hands:
            return adoption.adopt(payouts, effect)


def open_chain(settings: Settings, share: float = 1.0) -> Chain:
    """The nodes of these settings; `share`: of the requests a second that they allow."""
    own = settings.section(LedgerSettings)
    shown: Counter[str] = Counter()
    nodes = []
    for url in dict.fromkeys(runtime.endpoints(settings).solana_urls):
        shown[urls.shown(url)] += 1
        number = shown[urls.shown(url)]
        nodes.append(HttpNode(url, own.rpc_timeout_s, own.rpc_requests_per_s * share, number))
    return Chain(nodes)
