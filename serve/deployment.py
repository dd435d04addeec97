"""A note of the code and settings that were deployed last, so that a restarted deployer leaves the application running.

Serve gives every deployment a new version and replaces all replicas for it: a deployer that deployed at each start
would take down replicas that work. Does not know how replicas are found or checked.
"""

from __future__ import annotations

import hashlib

from cluster import runtime
from cluster.settings import ROOT, Settings

PACKAGES = ("cluster", "pipelines", "ledger", "serve")


def is_there(settings: Settings, name: str, *, also_running: bool = True) -> bool:
    """Return whether Serve runs, or is starting, the application with this code and these settings.

    With `also_running` False, an application counts only while it is starting.
    """
    from ray import serve as ray_serve
    from ray.serve.schema import ApplicationStatus

    application = ray_serve.status().applications.get(name)
    accepted = {ApplicationStatus.DEPLOYING} | ({ApplicationStatus.RUNNING} if also_running else set())
    path = runtime.private_path(settings, "deployed")
    return (
        application is not None
        and application.status in accepted
        and path.exists()
        and path.read_text(encoding="ascii") == fingerprint(settings)
    )


def remember(settings: Settings) -> None:
    """Note the code and settings that are being deployed."""
    runtime.replace_private(runtime.private_path(settings, "deployed"), fingerprint(settings))


def fingerprint(settings: Settings) -> str:
    """Return a digest of the code and the settings that replicas run with."""
    digest = hashlib.sha256(repr((settings.path, settings.data_dir, settings.sections)).encode())
    for package in PACKAGES:
        for file in sorted((ROOT / package).rglob("*")):
            if file.is_file() and file.suffix != ".pyc":
                digest.update(file.read_bytes())
    return digest.hexdigest()
