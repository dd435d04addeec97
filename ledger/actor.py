"""The ledger at work: one loop that folds, matures, pays, settles and reconciles, at its own pace, in batches.

`Ledger` is a plain class: it opens its connection, takes the epoch and is then the only writer. On Ray it lives in a
detached actor in a namespace of its own; should two ever run, the database refuses the older one, which then stops.
Away databases and nodes are waited for; anything unexpected ends the process, and Ray starts it again from what the
database says.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import redis
from psycopg import Connection

from cluster import cache, database, logins, runtime, telemetry
from cluster import settings as settings_module
from cluster.errors import Rejected, Temporary
from cluster.resilience import Breaker, backoff_s
from cluster.roles import LEDGER
from cluster.seldom import Seldom
from cluster.settings import Settings
from ledger import adoption, appearances, book, fold, review, stops
from ledger.alarms import StuckAlarm
from ledger.book import Fenced
from ledger.chain import Chain, HttpNode, RpcRefusal
from ledger.counters import Counters
from ledger.fold import Fold
from ledger.payouts import Payouts
from ledger.reconcile import Finding, reconcile
from ledger.settings import Economics, LedgerSettings
from ledger.treasury import OTHER_MARKS, open_treasury

log = logging.getLogger(__name__)

NAMESPACE = "pixr-ledger"
NAME = "ledger"
CRASH_PAUSE_S = 1.0
NODE_SHARE = 0.001  # of `[ledger] node_resource`: it says where the actor may be, not how much it takes
WAITS_FOR_SAID_S = 60.0
IDS_LOST = "the secret of the payouts' ids is another one"


class Ledger:
    """The one writer of the ledger."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._own = settings.section(LedgerSettings)
        self._economics = settings.section(Economics)
        redis_client = cache.client(runtime.endpoints(settings).redis_url)
        self._counters = Counters(redis_client, secrets.token_hex(4), runtime.mark(settings))
        self._counting = Breaker("live counters", failures_max=1, reset_s=5.0)
        self._chain = open_chain(settings)
        self._connection: Connection[Any] | None = None
        self._payouts: Payouts | None = None
        self._fold: Fold | None = None
        self._reconcile_at = 0.0
        self._review_at, self._unreviewed = 0.0, True  # it weighs all that the last days have earned: not each round
        self._reconciled = False  # nothing new is begun before the chain and the journal agree
        self._stuck = StuckAlarm(self._own.batch_open_max_s)
        self._look_at = 0.0
        self._pay_at, self._pay_failures = 0.0, 0
        self._seldom = Seldom(log, WAITS_FOR_SAID_S)
        self.trouble = ""  # why payouts wait, while they do
        self.epoch = 0
        self.finding: Finding | None = None

    def open(self) -> None:
        """Connect and hold the epoch: a new one the first time, the same one after a lost connection."""
        self._connection = database.connect(logins.url(self._settings, LEDGER))
        if self.epoch:
            book.hold_epoch(self._connection, self.epoch)
        else:
            self.epoch = book.take_epoch(self._connection, f"{socket.gethostname()}:{os.getpid()}")
        adoption.watch(self._connection)
        self._fold = Fold(self._connection, self._economics, self._own)
        self._payouts = None
        self._reconciled, self._reconcile_at = False, 0.0
        self._unreviewed = True

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None

    def tick(self) -> bool:
        """One round. Returns whether there was something to fold, so that a backlog is not paced."""
        if self._connection is None or self._connection.closed:
            self.open()
        assert self._connection is not None
        assert self._fold is not None
        self._live(self._connection)
        self._adopt(self._connection)
        folded = self._fold.run_once()
        self._unreviewed |= folded is not None
        if self._unreviewed and time.monotonic() >= self._review_at:
            review.review(self._connection, self._fold.audience, self._economics)
            pause_s = min(self._own.review_interval_s, self._economics.maturity_s)
            # A day is judged when it is over, also where nothing was shown since.
            self._unreviewed, self._review_at = self._fold.audience.is_unjudged, time.monotonic() + pause_s
        self._count(self._connection)
        fold.mature(self._connection)
        self._try_to_pay(self._connection)
        return folded is not None

    def _try_to_pay(self, connection: Connection[Any]) -> None:
        """Pay, unless the chain is away or set up wrongly: folding does not wait for it, nor is the database left."""
        if time.monotonic() < self._pay_at:
            return
        try:
            self._pay(connection)
        except (Temporary, RpcRefusal) as error:
            connection.rollback()
            self._pay_failures += 1
            self._pay_at = time.monotonic() + max(0.1, backoff_s(min(self._pay_failures, 6), 0.1, 5.0))
            self.trouble = str(error)
            log.warning("payouts wait: %s", error)
        else:
            self._pay_failures, self.trouble = 0, ""

    def _pay(self, connection: Connection[Any]) -> None:
        if time.monotonic() >= self._look_at:  # before what may fail
            self._stuck.look(connection)
            self._look_at = time.monotonic() + self._own.reconcile_interval_s
        payouts = self._opened(connection)
        trouble: Exception | None = None
        try:
            payouts.run_once(plan=self._reconciled)
        except (Temporary, RpcRefusal) as error:
            trouble = error
        if time.monotonic() >= self._reconcile_at:
            self._reconcile(connection, payouts)
        if trouble is not None:
            raise trouble

    def _opened(self, connection: Connection[Any]) -> Payouts:
        """Payouts on the treasury, opened where it was not.

        Raises:
            Temporary: no node answers, or what is set up wrongly a person must mend.
        """
        if self._payouts is None:
            try:
                treasury = open_treasury(connection, self._chain, self._settings)
                self._payouts = Payouts(connection, self._chain, treasury, self._economics, self._own)
            except (Rejected, ValueError) as refusal:  # the latter of an address or key that is none
                connection.rollback()
                if isinstance(refusal, Rejected) and refusal.code == OTHER_MARKS:
                    stops.freeze(connection, IDS_LOST, {"reason": str(refusal)})
                    book.commit(connection)
                raise Temporary(f"payouts wait for a person: {refusal}") from refusal
        return self._payouts

    def _reconcile(self, connection: Connection[Any], payouts: Payouts) -> None:
        adopt = partial(adoption.adopt, payouts)
        adoption.retry(payouts)
        found = reconcile(connection, self._chain, payouts.treasury, adopt, payouts.opinions)
        if found.waits_for is not None:
            self._seldom.warning(f"the chain is not reconciled: transaction {found.waits_for} is waited for")
        adoption.end(payouts, found)
        pause_s = self._own.reconcile_interval_s if found.conclusive else self._own.tick_interval_s
        self._reconcile_at = time.monotonic() + pause_s
        self._reconciled = found.ok if found.conclusive else self._reconciled
        self.finding = found

    def _live(self, connection: Connection[Any]) -> None:
        """A sign of life; finding another epoch means that somebody else has taken over."""
        done = connection.execute("UPDATE ledger.fence SET seen_at = now() WHERE epoch = %s", (self.epoch,))
        connection.commit()
        if done.rowcount == 0:
            raise Fenced(f"epoch {self.epoch} has ended")

    def _count(self, connection: Connection[Any]) -> None:
        """Live counters follow; while Redis is away they stand still, and nothing else does."""
        if not self._counting.allow():
            return
        try:
            self._counters.follow(connection)
        except redis.RedisError as error:
            self._counting.failure()
            log.warning("live counters stand still: %s", type(error).__name__)
        else:
            self._counting.success()
        connection.commit()

    def _adopt(self, connection: Connection[Any]) -> None:
        appearances.adopt(connection, self._settings.data_dir / "spool")
        connection.commit()


def open_chain(settings: Settings) -> Chain:
    own = settings.section(LedgerSettings)
    urls = dict.fromkeys(runtime.endpoints(settings).solana_urls)
    return Chain([HttpNode(url, own.rpc_timeout_s, own.rpc_requests_per_s) for url in urls])


class Loop:
    """Runs a Ledger in a thread until it is told to stop or is fenced out."""

    def __init__(self, settings: Settings) -> None:
        self._pace_s = settings.section(LedgerSettings).tick_interval_s
        self._ledger = Ledger(settings)
        self._stop = threading.Event()
        self._state = "starting"
        self._detail = ""
        self._ticks = 0
        self._thread = threading.Thread(target=self._run, name="ledger", daemon=True)
        self._thread.start()

    def status(self) -> dict[str, Any]:
        """Where the loop is: running, waiting (for a service that is away), fenced or stopped."""
        return {"state": self._state, "detail": self._detail, "epoch": self._ledger.epoch, "ticks": self._ticks}

    def stop(self, timeout_s: float = 8.0) -> None:
        """Finish the round that is under way, then end."""
        self._stop.set()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        failures = 0
        while not self._stop.is_set():
            try:
                more = self._ledger.tick()
            except Fenced as error:
                self._note("fenced", str(error))
                log.warning("stopped: %s", error)
                break
            except (Temporary, RpcRefusal, psycopg.OperationalError, OSError) as error:
                failures += 1
                self._note("waiting", str(error))
                log.warning("the ledger waits: %s", error)
                self._ledger.close()
                self._stop.wait(max(0.1, backoff_s(min(failures, 6), 0.1, 5.0)))
            except BaseException:
                log.exception("the ledger ends on an unexpected error")
                time.sleep(CRASH_PAUSE_S)
                os._exit(70)
            else:
                failures, self._ticks = 0, self._ticks + 1
                self._note("waiting" if self._ledger.trouble else "running", self._ledger.trouble)
                self._stop.wait(0.0 if more else self._pace_s)
        self._ledger.close()
        if self._state != "fenced":
            self._note("stopped", "")

    def _note(self, state: str, detail: str) -> None:
        self._state, self._detail = state, telemetry.redact(detail)


class Actor:
    """What lives on Ray: a loop, and a door to ask after it. Settings are read where it runs; no secret travels."""

    def __init__(self, config: str, data_dir: str) -> None:
        telemetry.configure("ledger")
        environ: Mapping[str, str] = {**os.environ, "PIXR_DATA_DIR": data_dir}
        self._loop = Loop(settings_module.load(Path(config), environ))

    def status(self) -> dict[str, Any]:
        return self._loop.status()

    def stop(self) -> None:
        self._loop.stop()


def get_or_create(settings: Settings) -> Any:
    """The actor's handle; made detached where there is none. The driver must be connected to Ray."""
    import ray

    there = settings.section(LedgerSettings).node_resource
    remote = ray.remote(Actor).options(
        name=NAME,
        namespace=NAMESPACE,
        lifetime="detached",
        get_if_exists=True,
        max_restarts=-1,
        max_concurrency=4,
        num_cpus=0,
        resources={there: NODE_SHARE} if there else None,
    )
    return remote.remote(str(settings.path), str(settings.data_dir))
