"""The ledger at work: loops that fold, count, pay, reconcile, archive and watch, each at its own pace, in batches.

`Ledger` is what there is to do, in parts (see `rounds`), all under one epoch. On Ray it lives in a detached actor in a
namespace of its own; should two ever run, the database refuses the older one, which then stops. Away databases and nodes
are waited for by the part that needs them. A part that meets something unexpected begins anew from what the database says,
as it does after a restart, and no other part notices: a stranger's bytes that break one keep no search from being folded.
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
from cluster import telemetry
from cluster.errors import Temporary
from cluster.resilience import backoff_s
from cluster.settings import Settings
from ledger.archive.keeping import Keeping
from ledger.book import Fenced
from ledger.chain import RpcRefusal
from ledger.rounds import Counting, Epoch, Folding, Part, Paying, Reconciling, Shared, Watching
from ledger.settings import LedgerSettings

log = logging.getLogger(__name__)

NAMESPACE = "pixr-ledger"
NAME = "ledger"
CRASH_PAUSE_S = 1.0
WAIT_MAX_S, UNEXPECTED_WAIT_MAX_S = 5.0, 60.0  # of a part, for what is away, and after what nobody has thought of
NODE_SHARE = 0.001  # of `[ledger] node_resource`: it says where the actor may be, not how much it takes


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
        return self._epoch.number

    @property
    def trouble(self) -> str:
        """Why payouts wait, while they do."""
        return self.paying.trouble or self.reconciling.trouble

    def tick(self) -> bool:
        """A round of every part, one after the other. Returns whether there was something to fold."""
        folded = self.folding.round()
        for part in self.parts[1:]:
            part.round()
        return folded

    def close(self) -> None:
        for part in self.parts:
            part.close()


class Loop:
    """Runs a Ledger, each of its parts in a thread, until it is told to stop or is fenced out."""

    def __init__(self, settings: Settings) -> None:
        self._pace_s = settings.section(LedgerSettings).tick_interval_s
        self._ledger = Ledger(settings)
        self._stop = threading.Event()
        self._ticks = 0
        self._waiting: dict[str, str] = {}  # parts that wait for a service that is away, and what they say of it
        self._fenced_by = ""
        self._threads = [
            threading.Thread(target=self._run, args=(part,), name=f"ledger {part.name}", daemon=True)
            for part in self._ledger.parts
        ]
        for thread in self._threads:
            thread.start()

    def status(self) -> dict[str, Any]:
        """Where the loops are: running, waiting (one of them, for a service that is away), fenced or stopped."""
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
        """Finish the rounds that are under way, then end."""
        self._stop.set()
        deadline = time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _run(self, part: Part) -> None:
        """Rounds until the end; a part that cannot even begin anew ends the process, for no thread is to be gone in silence."""
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
                more = part.round()
            except Fenced as error:
                self._fenced_by = str(error)
                self._stop.set()
                log.warning("stopped: %s", error)
                break
            except (Temporary, RpcRefusal, psycopg.OperationalError, OSError) as error:
                failures += 1
                log.warning("the ledger's %s waits: %s", part.name, error)
                self._rest(part, str(error), failures, WAIT_MAX_S)
            except Exception as error:
                failures += 1
                log.exception("the ledger's %s begins anew after an unexpected error", part.name)
                said = f"{part.name} begins anew after an unexpected error: {type(error).__name__}: {error}"
                self._rest(part, said, failures, UNEXPECTED_WAIT_MAX_S)
            else:
                failures, part.away = 0, ""
                self._waiting.pop(part.name, None)
                self._ticks += part is self._ledger.folding
                self._stop.wait(0.0 if more else self._pace_s)

    def _rest(self, part: Part, why: str, failures: int, most_s: float) -> None:
        """Give up what the part knows; its next round, a while later, begins with what the database says."""
        self._waiting[part.name] = part.away = why
        part.close()
        self._stop.wait(max(0.1, backoff_s(min(failures, 10), 0.1, most_s)))


class Actor:
    """What lives on Ray: a loop, and a door to ask after it. Settings are read where it runs; no secret travels."""

    def __init__(self, config: str, data_dir: str) -> None:
        telemetry.configure("ledger")
        environ: Mapping[str, str] = {**os.environ, "PIXR_DATA_DIR": data_dir}
        settings = settings_module.load(Path(config), environ)
        # Standard error is Ray's, in a session's folder.
        telemetry.keep("ledger", settings.data_dir / "logs" / "ledger.log")
        self._loop = Loop(settings)

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
