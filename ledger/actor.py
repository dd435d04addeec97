"""The ledger at work: loops that fold, count, pay, reconcile, archive and watch, each at its own pace, in batches.

`Ledger` has the parts of the work (see `rounds` and `keeping`), all under one epoch. On Ray it lives in a detached
actor in a namespace of its own. If two ever run, the database refuses the writes of the older one, which then stops.
While a service does not answer, only the parts that need it wait. An unexpected error ends the process; Ray starts it
again, and it goes on from what the database says.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psycopg

from cluster import settings as settings_module
from cluster.errors import Temporary
from cluster.observability import telemetry
from cluster.resilience import backoff_s
from cluster.settings import Settings
from ledger.journal.book import Fenced
from ledger.keeping import Keeping
from ledger.rounds import Counting, Epoch, Folding, Part, Paying, Reconciling, Shared, Watching
from ledger.settings import LedgerSettings
from ledger.solana.chain import RpcRefusal

log = logging.getLogger(__name__)

NAMESPACE = "pixr-ledger"
NAME = "ledger"
CRASH_PAUSE_S = 1.0  # before a crashed process ends, so that restarts do not spin
NODE_SHARE = 0.001  # of `[ledger] node_resource`, which says on which machine the actor may run, not how much it takes


class Ledger:
    """The one writer of the ledger."""

    def __init__(self, settings: Settings) -> None:
        self._epoch, shared = Epoch(), Shared()
        self.folding = Folding(settings, self._epoch)
        self.paying = Paying(settings, self._epoch, shared)
        self.reconciling = Reconciling(settings, self._epoch, shared)
        self.keeping = Keeping(settings, self._epoch)
        others = (self.folding, Counting(settings, self._epoch), self.paying, self.reconciling, self.keeping)
        self.watching = Watching(settings, self._epoch, others)
        self.parts: tuple[Part, ...] = (*others, self.watching)

    @property
    def epoch(self) -> int:
        """The number of the epoch; 0 before the first connection."""
        return self._epoch.number

    @property
    def trouble(self) -> str:
        """Why payouts wait; empty while they do not."""
        return self.paying.trouble or self.reconciling.trouble

    def tick(self) -> bool:
        """Do a round of every part, one after the other. Returns whether anything was folded."""
        folded = self.folding.round()
        for part in self.parts[1:]:
            part.round()
        return folded

    def close(self) -> None:
        """Close the connections of all parts."""
        for part in self.parts:
            part.close()


class Loop:
    """A thread for each part of a Ledger, which does its rounds until told to stop or fenced out."""

    def __init__(self, settings: Settings) -> None:
        self._pace_s = settings.section(LedgerSettings).tick_interval_s
        self._ledger = Ledger(settings)
        self._stop = threading.Event()
        self._ticks = 0
        self._waiting: dict[str, str] = {}  # by part: why it waits for a service
        self._fenced_by = ""
        self._threads = [
            threading.Thread(target=self._run, args=(part,), name=f"ledger {part.name}", daemon=True)
            for part in self._ledger.parts
        ]
        for thread in self._threads:
            thread.start()

    def status(self) -> dict[str, Any]:
        """Return the state of the loops: starting, running, waiting (one of them, for a service), fenced or stopped."""
        details = [*dict(self._waiting).values(), *(part.trouble for part in self._ledger.parts)]
        detail = self._fenced_by or next((each for each in details if each), "")
        if self._fenced_by:
            state = "fenced"
        elif not any(thread.is_alive() for thread in self._threads):
            state, detail = "stopped", ""
        elif detail:
            state = "waiting"
        else:
            state = "running" if self._ticks else "starting"
        return {"state": state, "detail": telemetry.redact(detail), "epoch": self._ledger.epoch, "ticks": self._ticks}

    def stop(self, timeout_s: float = 8.0) -> None:
        """Let the rounds that are under way finish, then end; threads that take longer than `timeout_s` are left."""
        self._stop.set()
        deadline = time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _run(self, part: Part) -> None:
        """Do rounds until told to stop.

        If the part ends in any other way, end the process, so that no thread vanishes unnoticed.
        """
        try:
            self._rounds(part)
            part.close()
        except BaseException:
            log.exception("the ledger ends on an unexpected error in its part: %s", part.name)
            time.sleep(CRASH_PAUSE_S)
            os._exit(70)

    def _rounds(self, part: Part) -> None:
        failures = 0
        while not self._stop.is_set():
            try:
                has_more = part.round()
            except Fenced as error:
                self._fenced_by = str(error)
                self._stop.set()
                log.warning("stopped: %s", error)
                break
            except (Temporary, RpcRefusal, psycopg.OperationalError, OSError) as error:
                failures += 1
                self._waiting[part.name] = str(error)
                log.warning("the ledger's %s waits: %s", part.name, error)
                part.close()
                self._stop.wait(max(0.1, backoff_s(min(failures, 6), 0.1, 5.0)))
            else:
                failures = 0
                self._waiting.pop(part.name, None)
                self._ticks += part is self._ledger.folding
                self._stop.wait(0.0 if has_more else self._pace_s)


class Actor:
    """The Ray actor: a loop, and methods to query and stop it.

    It reads its settings itself, so that no secret is passed to it.
    """

    def __init__(self, config: str, data_dir: str) -> None:
        telemetry.configure("ledger")
        environ: Mapping[str, str] = {**os.environ, "PIXR_DATA_DIR": data_dir}
        self._loop = Loop(settings_module.load(Path(config), environ))

    def status(self) -> dict[str, Any]:
        """Return the state of the loop, as `Loop.status` does."""
        return self._loop.status()

    def stop(self) -> None:
        """Let the rounds that are under way finish, then end the loops."""
        self._loop.stop()


def get_or_create(settings: Settings) -> Any:
    """Return the actor's handle; start it detached if it does not exist. The driver must be connected to Ray."""
    import ray

    node_resource = settings.section(LedgerSettings).node_resource
    remote = ray.remote(Actor).options(
        name=NAME,
        namespace=NAMESPACE,
        lifetime="detached",
        get_if_exists=True,
        max_restarts=-1,
        max_concurrency=4,
        num_cpus=0,
        resources={node_resource: NODE_SHARE} if node_resource else None,
    )
    return remote.remote(str(settings.path), str(settings.data_dir))
