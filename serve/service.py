"""Serve as a service: how the supervisor starts it, and the keeper that deploys the application and watches over it.

`python -m serve.service` joins the Ray cluster, makes the first admin key known, deploys, tells the door which replicas
there are, and then looks every few seconds: an application that has disappeared is deployed again, new wallet claims
are carried to the ledger. It ends with Serve on SIGTERM, and with an error when Ray has gone, so that the supervisor
starts another. Replicas are restarted by Serve itself.
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

LOOPBACK, EVERYWHERE = "127.0.0.1", "0.0.0.0"  # noqa: S104  where replicas are on other machines, the door must reach them
RAY_ASKED_AFTER = 2  # looks in a row that found no replica
UNHEALTHY_MAX = 15  # looks in a row before Serve is deployed anew


@dataclass
class Serve:
    """The replicas, as the supervisor sees them: asked directly, so that a door that is away is not their fault."""

    settings: Settings
    name: str = "serve"
    needs: tuple[str, ...] = ("schema", "redis", "s3", "ray")
    lives_on: tuple[str, ...] = ("ray",)  # to start over while Ray does takes the CPU that Ray would start with
    start_timeout_s: float = 120.0
    check_failures_max: int = 60  # Serve replaces replicas by itself; a keeper that hangs too is ended after minutes
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
        """Alive; and at first also whole, and reached through the door, so that a search right after `pixr up` is."""
        url = self._living()
        if not self._was_ready:
            # An index that finds too little is built anew with the stack running.
            away = [f"{name}: {reason}" for name, reason in self._away(url).items() if name != "index"]
            if away:
                raise Temporary(f"Serve at {url} waits for {'; '.join(away)}")
            health.serve(runtime.serve_url(self.settings), certificate.trust(self.settings))
            self._was_ready = True

    def check_alive(self) -> None:
        """Return when a replica answers."""
        self._living()

    def address(self) -> str:
        return runtime.serve_url(self.settings)

    def degraded(self) -> tuple[str, ...]:
        """The dependencies that a replica lacks at present."""
        lacking = {name for url in self._urls() for name in self._away(url)}
        return tuple(sorted(lacking))

    def _urls(self) -> list[str]:
        return [f"http://{each.address}" for each in backends.read(door.backends_path(self.settings))]

    def _living(self) -> str:
        """The URL of a replica that answers."""
        reasons = ["no replica is ready"]
        for url in self._urls():
            try:
                health.serve(url)
            except Temporary as error:
                reasons = [*reasons[1:], str(error)]
            else:
                return url
        raise Temporary("; ".join(reasons))

    def _away(self, url: str) -> dict[str, str]:
        """What a replica says that it lacks, each with the reason."""
        headers = {config.SECRET_HEADER: runtime.secret(self.settings, door.SECRET)}
        try:
            found = httpx.get(f"{url}/readyz", timeout=health.TIMEOUT_S, headers=headers).json()["dependencies"]
        except (httpx.HTTPError, ValueError, KeyError) as error:
            raise Temporary(f"Serve at {url} is not ready: {error}") from error
        return {name: answer["reason"] for name, answer in found.items() if not answer["ok"]}


def service(settings: Settings) -> Serve:
    """For the entry point group `pixr.services`; Serve always runs on the cluster of the settings."""
    return Serve(settings)


def _check_deadlines(settings: Settings) -> None:
    """Refuse a door that would give up on a search before the search itself does.

    Raises:
        Rejected: [door] search_timeout_s is below [search] deadline_s.
    """
    from serve.settings import SearchSettings

    door_s, search_s = settings.door.search_timeout_s, settings.section(SearchSettings).deadline_s
    if door_s <= search_s:
        hint = "set it a second above"
        raise Rejected(f"[door] search_timeout_s is {door_s:g}, [search] deadline_s {search_s:g}", hint=hint)


class Keeper:
    """Deploys the application and keeps it there."""

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
        try:
            self._serve.check_alive()
            self._failures = 0
        except Temporary:
            self._failures += 1
            if self._failures >= UNHEALTHY_MAX:
                self._failures = 0
                self._deploy(anew=True)
            elif self._failures >= RAY_ASKED_AFTER:
                self._require_ray()
        self._replicas.feed()
        self._carry_wallets()

    def _require_ray(self) -> None:
        """Ask whether the cluster is there at all.

        Raises:
            ConnectionError: it is not.
        """
        try:
            health.ray(runtime.endpoints(self._settings).ray_dashboard_url, ray_cluster.token(self._settings))
        except Temporary as error:
            raise ConnectionError(str(error)) from error

    def _register_admin(self) -> None:
        from serve.access import keys

        with database.session(logins.url(self._settings, SERVE)) as connection:
            keys.ensure_admin(connection, runtime.secret(self._settings, "api_admin_key"))

    def _carry_wallets(self) -> None:
        from ledger.settings import Economics
        from serve.creators import wallets

        with database.session(logins.url(self._settings, SERVE)) as connection:
            wallets.copy_claims(connection, self._settings.section(Economics))

    def _deploy(self, *, anew: bool = False) -> None:
        """Deploy the application, unless it is there as it should be: to deploy it again replaces every replica.

        `anew`: also where Serve believes that it runs well; what it is still starting is left to start.
        """
        from ray import serve as ray_serve

        from serve import app

        host = LOOPBACK if self._settings.ray.address == EMBEDDED else EVERYWHERE
        # Replicas take this over, each with a port of its own; "HeadOnly" has them listen, and no proxy is started.
        ray_serve.start(proxy_location="HeadOnly", http_options={"host": host, "request_timeout_s": 60})
        self._replicas.start()  # a replica may be ready long before its encoder is
        if deployment.is_there(self._settings, app.APP, also_running=not anew):
            log.info("the application is there already")
            return
        deployment.remember(self._settings)  # before, or a keeper that ends meanwhile would have it started all over
        ray_serve.run(app.application(self._settings), name=app.APP, route_prefix="/", blocking=False)
        log.info("deployed behind %s", runtime.serve_url(self._settings))

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
