"""Reaching the Ray cluster: the environment its processes need, and a driver's connection. Knows no actor."""

from __future__ import annotations

import logging
import os

from cluster import ingress, runtime
from cluster.errors import Temporary
from cluster.settings import EMBEDDED, Settings

NAMESPACE = "pixr"


def environment(settings: Settings) -> dict[str, str]:
    """Variables for every process that starts or joins the cluster.

    On Linux Ray replaces 127.0.0.1 by the interface's address unless RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER is 0, and turns
    token authentication on by itself when it finds a token file, unless RAY_AUTH_MODE is set.
    """
    variables = {
        "PIXR_CONFIG": str(settings.path),
        "PIXR_DATA_DIR": str(settings.data_dir),
        "RAY_AUTH_MODE": settings.ray.auth_mode,
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0" if settings.ray.address == EMBEDDED else "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_DEDUP_LOGS": "0",
    }
    if settings.ray.auth_mode == "token" and settings.ray.address == EMBEDDED:
        variables["RAY_AUTH_TOKEN_PATH"] = str(runtime.secret_path(settings, "ray_token"))
    return variables | ingress.environment(settings)


def token(settings: Settings) -> str:
    """The cluster's token, empty where authentication is off or somebody else's affair."""
    if settings.ray.auth_mode != "token" or settings.ray.address != EMBEDDED:
        return os.environ.get("RAY_AUTH_TOKEN", "")
    return runtime.secret(settings, "ray_token")


def connect(settings: Settings, namespace: str = NAMESPACE) -> None:
    """Join the cluster as a driver; joining twice is no error.

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
        raise Temporary(f"the Ray cluster at {address} does not answer", 2.0) from error
