"""The replicas that Serve runs at present, passed on to the door.

Serve's controller is asked by a long poll, which returns when something has changed: a replica that starts or ends is
known at once, and waiting costs nothing. The list is written to the door's file and applied to the running door. Knows
nothing of deploying.
"""

from __future__ import annotations

import importlib
import logging
import threading
from typing import Any

from cluster.door import service as door
from cluster.door.backends import Backend
from cluster.errors import Temporary
from cluster.settings import Settings

log = logging.getLogger(__name__)

LISTEN_TIMEOUT_S = 90.0  # Serve answers after 30 to 60 s even when nothing has changed
AGAIN_S = 0.5  # after an error
NEVER = -1  # a snapshot number that Serve never uses, so that it answers at once


class Replicas:
    """Watches which replicas one deployment has, in a thread of its own, and tells the door."""

    def __init__(self, settings: Settings, app: str, deployment: str) -> None:
        self._settings = settings
        self._app, self._deployment = app, deployment
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._backends: list[Backend] | None = None
        self._thread = threading.Thread(target=self._follow, name="replicas", daemon=True)

    def start(self) -> None:
        """Start watching; starting twice does nothing more."""
        if not self._thread.is_alive():
            self._thread.start()

    def end(self) -> None:
        """Stop watching."""
        self._ended.set()

    def feed(self) -> None:
        """Write the known replicas to the door's file and to the running door, which may have been restarted since.

        Raises:
            Temporary: the door does not answer.
        """
        with self._lock:
            if self._backends is not None:
                door.feed(self._settings, self._backends)

    def _follow(self) -> None:
        snapshot = NEVER
        while not self._ended.is_set():
            try:
                snapshot = self._listen(snapshot)
            except Exception as error:  # noqa: BLE001  Serve is asked again; when Ray has ended, the deployer notices
                log.warning("Serve does not say which replicas it has: %s", type(error).__name__)
                snapshot = NEVER
                self._ended.wait(AGAIN_S)

    def _listen(self, snapshot: int) -> int:
        """Wait for a change and pass it on; return the number of the snapshot that is known now."""
        from ray.serve._private.common import DeploymentID
        from ray.serve._private.constants import SERVE_CONTROLLER_NAME, SERVE_NAMESPACE
        from ray.serve._private.long_poll import LongPollNamespace

        ray: Any = importlib.import_module("ray")
        controller = ray.get_actor(SERVE_CONTROLLER_NAME, namespace=SERVE_NAMESPACE)
        key = (LongPollNamespace.DEPLOYMENT_TARGETS, DeploymentID(self._deployment, self._app))
        reply = ray.get(controller.listen_for_change.remote({key: snapshot}), timeout=LISTEN_TIMEOUT_S)
        if not isinstance(reply, dict) or key not in reply:  # nothing has changed for a while
            return snapshot
        self._change(_backends(reply[key].object_snapshot.running_replicas))
        number: int = reply[key].snapshot_id
        return number

    def _change(self, backends: list[Backend]) -> None:
        """Take a new list of replicas and pass it on to the door."""
        log.info("replicas: %s", ", ".join(backend.address for backend in backends) or "none")
        with self._lock:
            self._backends = backends
        try:
            self.feed()
        except Temporary as error:
            log.warning("%s", error)  # the deployer calls `feed` again


def _backends(replicas: list[Any]) -> list[Backend]:
    """Return the replicas that have an HTTP server, ordered by address."""
    backends = [
        Backend(replica.replica_id.unique_id, f"{replica.node_ip}:{replica.backend_http_port}")
        for replica in replicas
        if replica.node_ip and replica.backend_http_port
    ]
    return sorted(backends, key=lambda backend: backend.address)
