"""What was deployed last: by which code and settings. A keeper that starts again leaves what is there as it is.

Serve gives every deployment a version of its own and replaces all replicas for it, so that a keeper that deployed at
each of its starts would take down what runs well. Knows nothing of how replicas are found or asked.
"""

from __future__ import annotations

import hashlib

from cluster import runtime
from cluster.settings import ROOT, Settings

PACKAGES = ("cluster", "pipelines", "ledger", "serve")


def is_there(settings: Settings, name: str, *, also_running: bool = True) -> bool:
    """Whether this cluster's Serve has the application of this code and these settings, or is starting it.

    `also_running`: whether one that Serve takes for running counts.
    """
    from ray import serve as ray_serve
    from ray.serve.schema import ApplicationStatus

    application = ray_serve.status().applications.get(name)
    counted = {ApplicationStatus.DEPLOYING} | ({ApplicationStatus.RUNNING} if also_running else set())
    path = runtime.private_path(settings, "deployed")
    return (
        application is not None
        and application.status in counted
        and path.exists()
        and path.read_text(encoding="ascii") == mark(settings)
    )


def remember(settings: Settings) -> None:
    """Note what is being deployed."""
    runtime.replace_private(runtime.private_path(settings, "deployed"), mark(settings))


def mark(settings: Settings) -> str:
    """A digest of the code and the settings that replicas run with."""
    digest = hashlib.sha256(repr((settings.path, settings.data_dir, settings.sections)).encode())
    for package in PACKAGES:
        for file in sorted((ROOT / package).rglob("*")):
            if file.is_file() and file.suffix != ".pyc":
                digest.update(file.read_bytes())
    return digest.hexdigest()
