"""Serve as a service: how the supervisor starts it, and the keeper that deploys the application and watches over it.

`python -m serve.service` joins the Ray cluster, makes the first admin key known, deploys, and then looks every few
seconds: an application that has disappeared is deployed again, new wallet claims are carried to the ledger. It ends
with Serve on SIGTERM, and with an error when Ray has gone, so that the supervisor starts it anew. Replicas are
restarted by Serve itself.
"""

from __future__ import annotations

import logging
import signal
import sys
import threading
from dataclasses import dataclass
from types import FrameType

import httpx

from cluster import database, health, ray_cluster, runtime, telemetry
from cluster import settings as settings_module
from cluster.errors import Temporary
from cluster.services import Command
from cluster.settings import Settings

log = logging.getLogger(__name__)

UNHEALTHY_MAX = 15  # looks in a row before Serve is deployed anew


@dataclass
class Serve:
    """The HTTP door, as the supervisor sees it."""

    settings: Settings
    name: str = "serve"
    needs: tuple[str, ...] = ("schema", "redis", "s3", "ray")
    start_timeout_s: float = 120.0
    _was_ready: bool = False

    def prepare(self) -> None:
        runtime.port(self.settings, "serve", self.settings.serve.port)
        for name in ("api_admin_key", "link_key", "cursor_key", "viewer_key"):
            runtime.secret(self.settings, name)

    def command(self) -> Command:
        return Command((sys.executable, "-m", "serve.service"), ray_cluster.environment(self.settings))

    def check(self) -> None:
        """Alive; and at first also whole, so that a search right after `pixr up` is not a degraded one."""
        url = runtime.serve_url(self.settings)
        health.serve(url)
        if not self._was_ready:
            _require_dependencies(url)
            self._was_ready = True

    def address(self) -> str:
        return runtime.serve_url(self.settings)


def service(settings: Settings) -> Serve:
    """For the entry point group `pixr.services`; Serve always runs on the cluster of the settings."""
    return Serve(settings)


def _require_dependencies(url: str) -> None:
    try:
        found = httpx.get(f"{url}/readyz", timeout=health.TIMEOUT_S).json()["dependencies"]
    except (httpx.HTTPError, ValueError, KeyError) as error:
        raise Temporary(f"Serve at {url} is not ready: {error}") from error
    # An index that finds too little is built anew with the stack running.
    away = [f"{name}: {answer['reason']}" for name, answer in found.items() if not answer["ok"] and name != "index"]
    if away:
        raise Temporary(f"Serve at {url} waits for {'; '.join(away)}")


class Keeper:
    """Deploys the application and keeps it there."""

    def __init__(self, settings: Settings) -> None:
        from serve.settings import SearchSettings

        self._settings = settings
        self._interval_s = settings.section(SearchSettings).keep_interval_s
        self._ended = threading.Event()
        self._failures = 0

    def end(self, _number: int, _frame: FrameType | None) -> None:
        self._ended.set()

    def run(self) -> int:
        """Until told to end (0), or until Ray is gone (1)."""
        self._register_admin()
        ray_cluster.connect(self._settings)
        self._deploy()
        while not self._ended.wait(self._interval_s):
            try:
                self._step()
            except Temporary as error:
                log.warning("%s", error)
            except ConnectionError as error:
                log.error("Ray is gone: %s", error)
                return 1
        self._shut_down()
        return 0

    def _step(self) -> None:
        self._carry_wallets()
        try:
            health.serve(runtime.serve_url(self._settings))
            self._failures = 0
        except Temporary:
            self._failures += 1
            if self._failures >= UNHEALTHY_MAX:
                self._failures = 0
                self._deploy()

    def _register_admin(self) -> None:
        from serve import keys

        with database.session(runtime.endpoints(self._settings).postgres_url) as connection:
            keys.ensure_admin(connection, runtime.secret(self._settings, "api_admin_key"))

    def _carry_wallets(self) -> None:
        from serve import wallets

        url = runtime.endpoints(self._settings).postgres_url
        with database.session(url) as connection:
            wallets.copy_claims(connection)

    def _deploy(self) -> None:
        from ray import serve as ray_serve

        from serve import app

        port = runtime.port(self._settings, "serve", self._settings.serve.port)
        ray_serve.start(
            proxy_location="HeadOnly",
            http_options={"host": self._settings.serve.host, "port": port, "request_timeout_s": 60},
        )
        ray_serve.run(app.application(self._settings), name=app.APP, route_prefix="/", blocking=False)
        log.info("deployed on %s", runtime.serve_url(self._settings))

    def _shut_down(self) -> None:
        from ray import serve as ray_serve

        ray_serve.shutdown()  # type: ignore[no-untyped-call]


def main() -> int:
    """The keeper's process."""
    telemetry.configure("serve-keeper")
    keeper = Keeper(settings_module.load())
    signal.signal(signal.SIGTERM, keeper.end)
    signal.signal(signal.SIGINT, keeper.end)
    return keeper.run()


if __name__ == "__main__":
    sys.exit(main())
