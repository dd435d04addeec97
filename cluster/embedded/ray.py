"""The embedded Ray head: on the loopback address, with ports, a folder and a token of its own.

Ray needs short paths without spaces; where the data folder's path is not like that, Ray's folder lies in /tmp. Knows no
actor.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from cluster import folders, ray_cluster, runtime
from cluster.embedded import leftovers
from cluster.observability import health
from cluster.runtime import LOOPBACK
from cluster.services import Command
from cluster.settings import Settings

PYTHON = "python"  # name of the link to the virtual environment, in Ray's folder in /tmp
SOCKET_PATH_MAX = 40  # characters of Ray's folder: Ray appends about 64, and a UNIX socket's path has at most 107


@dataclass
class Ray:
    """The service `ray`: the head node of the cluster."""

    settings: Settings
    name: str = "ray"
    needs: tuple[str, ...] = ()
    start_timeout_s: float = 90.0

    STOP_TIMEOUT_S: ClassVar[float] = 3.0

    # Below the kernel's range for outgoing connections, one of which might have the port when Ray restarts.
    PORTS: ClassVar[dict[str, int]] = {
        "ray": 6380,
        "ray-dashboard": 8265,
        "ray-agent": 21365,
        "ray-agent-grpc": 21465,
        "ray-metrics": 21565,
        "ray-runtime-env": 21665,
        "ray-node-manager": 21765,
        "ray-object-manager": 21865,
        "ray-client": 21965,
    }

    def prepare(self) -> None:
        for name, preferred in self.PORTS.items():
            runtime.port(self.settings, name, preferred)
        runtime.secret(self.settings, "ray_token")
        short = folders.short(self.settings.data_dir, "ray")
        leftovers.remove_stale(short.parent, f"{short.name.rpartition('-')[0]}-")
        old_folder = short.with_name(short.name.replace(f"-{os.geteuid()}-", "-"))  # of earlier releases, open to all
        shutil.rmtree(old_folder, ignore_errors=True)
        if self._folder.parent == short or self._python != Path(sys.executable):
            folders.make_private(short)
            leftovers.note(short, self.settings.data_dir)
        if self._python != Path(sys.executable):
            link = short / PYTHON
            link.unlink(missing_ok=True)
            link.symlink_to(sys.prefix)
        shutil.rmtree(self._folder, ignore_errors=True)  # nothing of earlier sessions is needed again
        self._folder.mkdir(mode=0o700)

    def tidy(self) -> None:
        leftovers.remove(folders.short(self.settings.data_dir, "ray"), self.settings.data_dir)

    @property
    def _folder(self) -> Path:
        """Ray's own folder. Ray opens it to every user (0777), so it lies in a folder that no other user can enter."""
        beside_data = self.settings.data_dir / "ray"
        fits = len(str(beside_data)) <= SOCKET_PATH_MAX and _is_one_word(beside_data)
        return beside_data if fits else folders.short(self.settings.data_dir, "ray") / "r"

    @property
    def _python(self) -> Path:
        """The interpreter's path without spaces: Ray starts processes by shell command lines and does not quote it."""
        python = Path(sys.executable)
        if _is_one_word(python):
            return python
        return folders.short(self.settings.data_dir, "ray") / PYTHON / python.relative_to(sys.prefix)

    def command(self) -> Command:
        number = {name: str(runtime.known_port(self.settings, name)) for name in self.PORTS}
        options = {
            "node-ip-address": LOOPBACK,
            "port": number["ray"],
            "dashboard-host": LOOPBACK,
            "dashboard-port": number["ray-dashboard"],
            "dashboard-agent-listen-port": number["ray-agent"],
            "dashboard-agent-grpc-port": number["ray-agent-grpc"],
            "metrics-export-port": number["ray-metrics"],
            "runtime-env-agent-port": number["ray-runtime-env"],
            "node-manager-port": number["ray-node-manager"],
            "object-manager-port": number["ray-object-manager"],
            "ray-client-server-port": number["ray-client"],
            "min-worker-port": "0",  # any free port: two clusters on one machine would share the default range
            "max-worker-port": "0",
            "num-cpus": str(self.settings.ray.cpus or max(os.cpu_count() or 1, 4)),
            "object-store-memory": str(self.settings.ray.object_store_mb << 20),
            "temp-dir": str(self._folder),
        }
        flags = tuple(f"--{key}={value}" for key, value in options.items())
        argv = (str(self._python), "-m", "ray.scripts.scripts", "start", "--head", "--block", *flags)
        argv = (*argv, "--disable-usage-stats")
        environment = ray_cluster.environment(self.settings) | {
            "RAY_idle_worker_killing_time_threshold_ms": str(round(self.settings.ray.idle_worker_s * 1000)),
        }
        # A short timeout: Ray would drain for half a minute, though all that ran on it was stopped before.
        return Command(argv, environment, stop_timeout_s=self.STOP_TIMEOUT_S)

    def check(self) -> None:
        dashboard_url = runtime.endpoints(self.settings).ray_dashboard_url
        health.ray(dashboard_url, ray_cluster.token(self.settings))

    def address(self) -> str:
        return f"http://{LOOPBACK}:{runtime.known_port(self.settings, 'ray-dashboard')}"


def _is_one_word(path: Path) -> bool:
    """Return whether a shell takes a path as one word without quotes."""
    return shlex.quote(str(path)) == str(path)
