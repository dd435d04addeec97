"""Serve as a service: how the supervisor starts and checks it, and the deployer that deploys the application.

`python -m serve.service` is the deployer. It joins the Ray cluster, stores the first admin key, deploys, and tells the
door which replicas there are. Then, every few seconds, it deploys an application again that has disappeared, and copies
new wallet claims to the ledger. On SIGTERM it ends together with Serve; when Ray has gone it ends with an error, so
that the supervisor starts another one. Single replicas are restarted by Serve itself.
"""

from __future__ import annotations

import logging
import signal
import sys
import threading
from dataclasses import dataclass
from types import FrameType

import httpx

from cluster import ray_cluster, runtime
from cluster import settings as settings_module
from cluster.database import database, fingerprints, logins
from cluster.door import backends, certificate, config
from cluster.door import service as door
from cluster.errors import Rejected, Temporary
from cluster.observability import health, telemetry
from cluster.roles import SERVE
from cluster.services import Command
from cluster.settings import EMBEDDED, Settings
from serve import deployment
from serve.replicas import Replicas

log = logging.getLogger(__name__)

LOOPBACK, EVERYWHERE = "127.0.0.1", "0.0.0.0"  # noqa: S104  the door must reach replicas on other machines
RAY_ASKED_AFTER = 2  # checks in a row that found no replica, before Ray is checked
UNHEALTHY_MAX = 15  # checks in a row that found no replica, before Serve is deployed again


@dataclass
class Serve:
    """The service `serve`, as the supervisor runs it.

    Once it has started, replicas are checked by direct requests, so that a failure of the door is not taken for theirs.
    """

    settings: Settings
    name: str = "serve"
    needs: tuple[str, ...] = ("schema", "redis", "s3", "ray")
    lives_on: tuple[str, ...] = ("ray",)  # restarting while Ray restarts would take CPU that Ray needs
    start_timeout_s: float = 120.0
    check_failures_max: int = 60  # high, since Serve replaces replicas by itself; ends a deployer that hangs
    _was_ready: bool = False

    def prepare(self) -> None:
        for name in ("api_admin_key", "link_key", "cursor_key", "viewer_key", door.SECRET):
            runtime.secret(self.settings, name)
        _check_deadlines(self.settings)
        with database.session(logins.url(self.settings, SERVE)) as connection:
            fingerprints.note(connection, self.settings)

    def command(self) -> Command:
        return Command((sys.executable, "-m", "serve.service"), ray_cluster.environment(self.settings))

    def check(self) -> None:
        """Check that a replica answers.

        Until the first success, also check that the replica lacks nothing and is reached through the door. A search
        right after `pixr up` thus succeeds.
        """
        url = self._answering_url()
        if not self._was_ready:
            # Not for an index that finds too little: it is rebuilt while the stack runs.
            missing = [f"{name}: {reason}" for name, reason in self._missing(url).items() if name != "index"]
            if missing:
                raise Temporary(f"Serve at {url} waits for {'; '.join(missing)}")
            health.serve(runtime.serve_url(self.settings), certificate.trust(self.settings))
            self._was_ready = True

    def check_alive(self) -> None:
        """Check that a replica answers; raise `Temporary` if none does."""
        self._answering_url()

    def address(self) -> str:
        return runtime.serve_url(self.settings)

    def degraded(self) -> tuple[str, ...]:
        """Return the dependencies that a replica lacks at present."""
        return tuple(sorted({name for url in self._urls() for name in self._missing(url)}))

    def _urls(self) -> list[str]:
        """Return the replicas' URLs, from the door's file."""
        return [f"http://{replica.address}" for replica in backends.read(door.backends_path(self.settings))]

    def _answering_url(self) -> str:
        """Return the URL of a replica that answers; raise `Temporary` when none does."""
        reasons = ["no replica is ready"]
        for url in self._urls():
            try:
                health.serve(url)
            except Temporary as error:
                reasons = [*reasons[1:], str(error)]
            else:
                return url
        raise Temporary("; ".join(reasons))

    def _missing(self, url: str) -> dict[str, str]:
        """Return the dependencies that a replica lacks, each with the reason."""
        headers = {config.SECRET_HEADER: runtime.secret(self.settings, door.SECRET)}
        try:
            response = httpx.get(f"{url}/readyz", timeout=health.TIMEOUT_S, headers=headers)
            dependencies = response.json()["dependencies"]
        except (httpx.HTTPError, ValueError, KeyError) as error:
            raise Temporary(f"Serve at {url} is not ready: {error}") from error
        return {name: row["reason"] for name, row in dependencies.items() if not row["ok"]}


def service(settings: Settings) -> Serve:
    """Return the service, for the entry point group `pixr.services`; it runs on the cluster of the settings."""
    return Serve(settings)


def _check_deadlines(settings: Settings) -> None:
    """Check that the door waits longer for a search than the search may take.

    Raises:
        Rejected: `[door] search_timeout_s` is not above `[search] deadline_s`.
    """
    from serve.settings import SearchSettings

    door_s, search_s = settings.door.search_timeout_s, settings.section(SearchSettings).deadline_s
    if door_s <= search_s:
        hint = "set it a second above"
        raise Rejected(f"[door] search_timeout_s is {door_s:g}, [search] deadline_s {search_s:g}", hint=hint)


class Deployer:
    """Deploys the application, deploys it again when it disappears, and tells the door about its replicas."""

    def __init__(self, settings: Settings) -> None:
        from serve import app
        from serve.settings import SearchSettings

        self._settings = settings
        self._interval_s = settings.section(SearchSettings).keep_interval_s
        self._ended = threading.Event()
        self._failures = 0
        self._serve = Serve(settings)
        self._replicas = Replicas(settings, app.APP, app.INGRESS)

    def end(self, _number: int, _frame: FrameType | None) -> None:
        """Make `run` return. Used as a signal handler."""
        self._ended.set()

    def run(self) -> int:
        """Keep the application deployed; return 0 after `end`, 1 when Ray has gone."""
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
        """Check that a replica answers; deploy the application again after many failures in a row.

        Then tell the door which replicas there are, and copy new wallet claims to the ledger.

        Raises:
            ConnectionError: Ray has gone.
            Temporary: a step cannot be done at present.
        """
        try:
            self._serve.check_alive()
            self._failures = 0
        except Temporary:
            self._failures += 1
            if self._failures >= UNHEALTHY_MAX:
                self._failures = 0
                self._deploy(even_if_running=True)
            elif self._failures >= RAY_ASKED_AFTER:
                self._require_ray()
        self._replicas.feed()
        self._copy_wallets()

    def _require_ray(self) -> None:
        """Check that the cluster is there.

        Raises:
            ConnectionError: the cluster is not there.
        """
        try:
            health.ray(runtime.endpoints(self._settings).ray_dashboard_url, ray_cluster.token(self._settings))
        except Temporary as error:
            raise ConnectionError(str(error)) from error

    def _register_admin(self) -> None:
        from serve.access import keys

        with database.session(logins.url(self._settings, SERVE)) as connection:
            keys.ensure_admin(connection, runtime.secret(self._settings, "api_admin_key"))

    def _copy_wallets(self) -> None:
        from ledger.settings import Economics
        from serve.creators import wallets

        with database.session(logins.url(self._settings, SERVE)) as connection:
            wallets.copy_claims(connection, self._settings.section(Economics))

    def _deploy(self, *, even_if_running: bool = False) -> None:
        """Deploy the application unless Serve has it already, since deploying again replaces every replica.

        With `even_if_running`, deploy it also if Serve says that it runs, but not while it is starting.
        """
        from ray import serve as ray_serve

        from serve import app

        host = LOOPBACK if self._settings.ray.address == EMBEDDED else EVERYWHERE
        # Replicas use these options, each with its own port. "HeadOnly" makes them listen; `cluster.door.direct` keeps
        # Serve from starting a proxy.
        ray_serve.start(proxy_location="HeadOnly", http_options={"host": host, "request_timeout_s": 60})
        self._replicas.start()  # before deploying: a replica may be ready long before its encoder is
        if deployment.is_there(self._settings, app.APP, also_running=not even_if_running):
            log.info("the application is there already")
            return
        deployment.remember(self._settings)  # first, or one that ends in between would make the next deploy again
        ray_serve.run(app.application(self._settings), name=app.APP, route_prefix="/", blocking=False)
        log.info("deployed behind %s", runtime.serve_url(self._settings))

    def _shut_down(self) -> None:
        from ray import serve as ray_serve

        ray_serve.shutdown()  # type: ignore[no-untyped-call]


def main() -> int:
    """Run the deployer's process; return its exit code."""
    telemetry.configure("serve-keeper")
    deployer = Deployer(settings_module.load())
    signal.signal(signal.SIGTERM, deployer.end)
    signal.signal(signal.SIGINT, deployer.end)
    return deployer.run()


if __name__ == "__main__":
    sys.exit(main())
