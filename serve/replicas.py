"""Which replicas Serve runs at present, and the door's knowledge of them.

Serve's controller is asked in one long call that returns when something has changed, so that a replica that comes or
goes is known at once and nothing is spent while none does. What it says goes to the door's file and to the running
door. Knows nothing of deploying.
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

LISTEN_TIMEOUT_S = 90.0  # Serve answers after 30 to 60 s, also when nothing changed
AGAIN_S = 0.5
NEVER = -1  # the number of no snapshot: Serve tells what it knows at once


class Replicas:
    """Follows one deployment, in a thread of its own."""

    def __init__(self, settings: Settings, app: str, deployment: str) -> None:
        self._settings = settings
        self._app, self._deployment = app, deployment
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._known: list[Backend] | None = None
        self._thread = threading.Thread(target=self._follow, name="replicas", daemon=True)

    def start(self) -> None:
        """Begin to follow; twice is no error."""
        if not self._thread.is_alive():
            self._thread.start()

    def end(self) -> None:
        self._ended.set()

    def feed(self) -> None:
        """Bring file and door to what is known, if anything is; a door that was started a moment ago may lag.

        Raises:
            Temporary: the door does not answer.
        """
        with self._lock:
            if self._known is not None:
                door.feed(self._settings, self._known)

    def _follow(self) -> None:
        snapshot = NEVER
        while not self._ended.is_set():
            try:
                snapshot = self._listen(snapshot)
            except Exception as error:  # noqa: BLE001  whatever it is, Serve is asked again; the keeper sees Ray's end
                log.warning("Serve does not say which replicas it has: %s", type(error).__name__)
                snapshot = NEVER
                self._ended.wait(AGAIN_S)

    def _listen(self, snapshot: int) -> int:
        """Wait for a change, pass it on; the number of the snapshot that is known then."""
        from ray.serve._private.common import DeploymentID
        from ray.serve._private.constants import SERVE_CONTROLLER_NAME, SERVE_NAMESPACE
        from ray.serve._private.long_poll import LongPollNamespace

        ray: Any = importlib.import_module("ray")
        controller = ray.get_actor(SERVE_CONTROLLER_NAME, namespace=SERVE_NAMESPACE)
        key = (LongPollNamespace.DEPLOYMENT_TARGETS, DeploymentID(self._deployment, self._app))
        answer = ray.get(controller.listen_for_change.remote({key: snapshot}), timeout=LISTEN_TIMEOUT_S)
        if not isinstance(answer, dict) or key not in answer:  # nothing changed for a while
            return snapshot
        self._changed(_backends(answer[key].object_snapshot.running_replicas))
        found: int = answer[key].snapshot_id
        return found

    def _changed(self, found: list[Backend]) -> None:
        log.info("replicas: %s", ", ".join(each.address for each in found) or "none")
        with self._lock:
            self._known = found
        try:
            self.feed()
        except Temporary as error:
            log.warning("%s", error)  # the keeper tells it again


def _backends(running: list[Any]) -> list[Backend]:
    """Replicas that are not about to end and have an HTTP server."""
    found = [
        Backend(each.replica_id.unique_id, f"{each.node_ip}:{each.backend_http_port}")
        for each in running
        if each.node_ip and each.backend_http_port
    ]
    return sorted(found, key=lambda each: each.address)
