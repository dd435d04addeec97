"""The ledger as a service: a foreground process that keeps the detached actor alive, and ends it on SIGTERM.

If this process dies, the actor goes on, and the next process finds it. If the actor is gone or fenced out, the process
starts a new one, which takes a new epoch. The service is healthy while the actor regularly notes in the database that
it is alive.
"""

from __future__ import annotations

import logging
import signal
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import psycopg

from cluster import ray_cluster, runtime
from cluster import settings as settings_module
from cluster.database import database, logins
from cluster.errors import Temporary
from cluster.observability import telemetry
from cluster.roles import READER
from cluster.services import Command, Service
from cluster.settings import Settings

log = logging.getLogger(__name__)

POLL_S = 2.0
ANSWER_TIMEOUT_S = 10.0
STOP_TIMEOUT_S = 8.0
SILENCE_MAX_S = 15.0
LOOKED_MAX_S = 600.0


@dataclass
class LedgerService:
    """The process `python -m ledger.service`."""

    settings: Settings
    name: str = "ledger"
    needs: tuple[str, ...] = ("schema", "solana", "ray")
    lives_on: tuple[str, ...] = ("ray",)
    start_timeout_s: float = 120.0

    def prepare(self) -> None:
        runtime.secret(self.settings, "batches")

    def command(self) -> Command:
        return Command((sys.executable, "-m", "ledger.service"), ray_cluster.environment(self.settings))

    def check(self) -> None:
        with database.session(logins.url(self.settings, READER)) as connection:
            row = connection.execute(
                "SELECT epoch, extract(epoch FROM now() - seen_at)::float, (SELECT treasury FROM ledger.chain)"
                " FROM ledger.fence"
            ).fetchone()
        if row is None or row[0] == 0:
            raise Temporary("the ledger has not started")
        if row[1] > SILENCE_MAX_S:
            raise Temporary(f"the ledger has been silent for {row[1]:.0f} s")
        if row[2] is None:
            raise Temporary("the ledger prepares its treasury")

    def notes(self) -> Mapping[str, str]:
        """Return what has been open for too long, one line each; and a line if the ledger no longer measures that."""
        from ledger.audit import ages  # imports numpy, which other commands do without

        try:
            with database.session(logins.url(self.settings, READER)) as connection:
                rows = connection.execute(ages.NOTED).fetchall()
        except psycopg.errors.UndefinedTable:  # the database is not of this release yet
            return {}
        lines = {f"open too long ({each.state})": str(each) for each in ages.noted(rows) if each.late}
        if rows and (since_s := min(row[-1] for row in rows)) > LOOKED_MAX_S:
            lines["open too long"] = f"the ledger has not looked for {since_s / 60:.0f} min"
        return lines

    def address(self) -> str:
        return "Ray actor ledger"


def service(settings: Settings) -> Service | None:
    """Return the service of the ledger, as the supervisor starts and checks it."""
    return LedgerService(settings)


def main() -> None:
    """Keep the actor alive until SIGTERM, then end it."""
    telemetry.configure("ledger-service")
    settings = settings_module.load()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    from ledger import actor

    ray_cluster.connect(settings, namespace=actor.NAMESPACE)
    handle = actor.get_or_create(settings)
    while not stop.wait(POLL_S):
        handle = _living(settings, handle)
    _end(handle)


def _living(settings: Settings, handle: Any) -> Any:
    """Return the handle of a live actor: the given one, or a new one if that is gone or fenced out."""
    import ray
    from ray.exceptions import GetTimeoutError, RayActorError

    from ledger import actor

    try:
        status = ray.get(handle.status.remote(), timeout=ANSWER_TIMEOUT_S)
    except GetTimeoutError:
        return handle  # restarting, or busy: its sign of life in the database tells
    except RayActorError as error:
        log.warning("the actor is gone, making another: %s", str(error).splitlines()[0])
        return actor.get_or_create(settings)
    if status["state"] in ("fenced", "stopped"):
        log.warning("the actor is %s, making another", status["state"])
        ray.kill(handle, no_restart=True)
        return actor.get_or_create(settings)
    return handle


def _end(handle: Any) -> None:
    """Let the actor finish its rounds, then end it."""
    import ray
    from ray.exceptions import RayError

    try:
        ray.get(handle.stop.remote(), timeout=STOP_TIMEOUT_S)
        ray.kill(handle, no_restart=True)
    except (RayError, TimeoutError) as error:
        log.warning("the actor did not end politely: %s", str(error).splitlines()[0])


if __name__ == "__main__":
    main()
