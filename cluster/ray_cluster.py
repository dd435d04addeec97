"""Access to the Ray cluster: its processes' environment, a driver's connection, and the use of its object store.

Knows no actor.
"""

from __future__ import annotations

import hashlib
import logging
import os

from cluster import runtime
from cluster.errors import Temporary
from cluster.settings import EMBEDDED, Settings

NAMESPACE = "pixr"
MEGABYTE = 1024 * 1024
STORE_TIMEOUT_S = 5.0
# Ports of Serve's replicas: below the kernel's range for outgoing connections, above Ray's own ports.
REPLICA_PORTS_FROM, REPLICA_PORTS_BLOCK, REPLICA_PORTS_BLOCKS = 23_000, 100, 90
PORT_QUARANTINE_S = 30  # before the port of a replica that has ended is given to another
MESSAGE_BYTES_MAX = (
    256 * 2**20
)  # largest message between two replicas of Serve; the size of a picture is bounded by `[search] image_max_bytes`
DRAIN_S = 1  # how long a replica that was told to end goes on answering; the door learns of it within a tenth of that


def environment(settings: Settings) -> dict[str, str]:
    """Return the variables for every process that starts or joins the cluster.

    On Linux, Ray replaces 127.0.0.1 by the interface's address unless RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER is 0, and turns
    token authentication on by itself when it finds a token file, unless RAY_AUTH_MODE is set. Ray starts its workers,
    replicas of Serve among them, with a niceness of 15 unless RAY_worker_niceness is set: searches would get only the
    CPU time that all other processes leave. Ingest jobs lower their own priority (`[ingest] niceness`).
    """
    variables = {
        "PIXR_CONFIG": str(settings.path),
        "PIXR_DATA_DIR": str(settings.data_dir),
        "RAY_AUTH_MODE": settings.ray.auth_mode,
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0" if settings.ray.address == EMBEDDED else "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_DEDUP_LOGS": "0",
        "RAY_worker_niceness": "0",
    }
    if settings.ray.auth_mode == "token" and settings.ray.address == EMBEDDED:
        variables["RAY_AUTH_TOKEN_PATH"] = str(runtime.secret_path(settings, "ray_token"))
    return variables | (_serve(settings) if settings.ray.address == EMBEDDED else {})


def _serve(settings: Settings) -> dict[str, str]:
    """Return the variables that make Serve run without its own proxy: each replica has an HTTP server for the door.

    Each deployment has its own block of a hundred ports, derived from its data folder, so that a door with an outdated
    list of replicas does not reach another deployment's. Uvicorn must not believe X-Forwarded-For (any process of the
    machine could forge it); the application determines the client's address itself (`serve.access.origins`).
    """
    digest = hashlib.sha256(str(settings.data_dir).encode()).digest()
    first = REPLICA_PORTS_FROM + int.from_bytes(digest[:4], "big") % REPLICA_PORTS_BLOCKS * REPLICA_PORTS_BLOCK
    return {
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_ENABLE_DIRECT_INGRESS": "1",
        "RAY_SERVE_CONTROLLER_CALLBACK_IMPORT_PATH": "cluster.door.direct:without_proxies",
        "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(first),
        "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(first + REPLICA_PORTS_BLOCK - 1),
        "RAY_SERVE_PORT_QUARANTINE_S": str(PORT_QUARANTINE_S),
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": str(DRAIN_S),
        "RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH": str(MESSAGE_BYTES_MAX),
        "FORWARDED_ALLOW_IPS": "none",
    }


def token(settings: Settings) -> str:
    """Return the cluster's token; empty if authentication is off.

    The token of an external cluster is read from the variable RAY_AUTH_TOKEN.
    """
    if settings.ray.auth_mode != "token" or settings.ray.address != EMBEDDED:
        return os.environ.get("RAY_AUTH_TOKEN", "")
    return runtime.secret(settings, "ray_token")


def connect(settings: Settings, namespace: str = NAMESPACE) -> None:
    """Join the cluster as a driver; does nothing when this process has joined already.

    Raises:
        Temporary: the cluster does not answer.
    """
    os.environ.update(environment(settings))
    import ray

    if ray.is_initialized():
        return
    address = runtime.endpoints(settings).ray_address
    try:
        ray.init(address=address, namespace=namespace, log_to_driver=False, logging_level=logging.WARNING)
    except ConnectionError as error:
        detail = f"the Ray cluster at {address} does not answer"
        raise Temporary(detail, 2.0, public="the Ray cluster does not answer") from error


class ObjectStore:
    """The use of Ray's object store, on all nodes together, over all calls of `measure`.

    `peak_share` is the highest share in use (0 to 1); `spilled_mb` is what was spilled to disk since the first
    measurement, in MiB.
    """

    def __init__(self) -> None:
        self._spilled_before: int | None = None
        self.peak_share = 0.0
        self.spilled_mb = 0.0

    def measure(self) -> None:
        """Measure how full the store is now and update the figures.

        Raises:
            Temporary: no node answers.
        """
        import grpc
        from ray._private import internal_api, state  # what `ray memory --stats-only` reads; there is no public way

        try:
            reply = internal_api.get_memory_info_reply(state.state, timeout_seconds=STORE_TIMEOUT_S)  # type: ignore[no-untyped-call]
        except grpc.RpcError as error:
            raise Temporary("the object store does not say how full it is") from error
        stats = reply.store_stats
        if self._spilled_before is None:
            self._spilled_before = stats.spilled_bytes_total
        if stats.object_store_bytes_avail:
            self.peak_share = max(self.peak_share, stats.object_store_bytes_used / stats.object_store_bytes_avail)
        self.spilled_mb = (stats.spilled_bytes_total - self._spilled_before) / MEGABYTE
