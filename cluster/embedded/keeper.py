"""A keeper: starts one service, checks it, restarts it when it dies, and stops it.

A small state machine that its owner advances by calling `step`. The processes of a service die with their keeper's
process (they carry a parent-death signal). Where another program has taken a service's port before its first start, the
service moves to another one. Knows other services by name only.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import logging
import os
import subprocess
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import psutil

from cluster import runtime
from cluster.errors import PixrError, Rejected
from cluster.observability import telemetry
from cluster.services import Command, Dependent, Patient, Service, Tidy
from cluster.settings import Settings, SupervisorSettings

log = logging.getLogger(__name__)

STARTING_CHECK_S = 0.5
FIRST_STARTS_MAX = 3
HEALTHY_AFTER_S = 60.0  # a service that lived this long is restarted with the shortest backoff
LOG_BYTES_MAX = 16 << 20
PR_SET_PDEATHSIG = 1

_libc = ctypes.CDLL(None, use_errno=True)


class State(StrEnum):
    """The state of one service, as the supervisor sees it."""

    WAITING = "waiting"
    STARTING = "starting"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
    DEAD = "dead"
    STOPPED = "stopped"


@dataclass
class Keeper:
    """One service, kept running by a state machine that `step` advances.

    `reason` says why the service is not healthy; `restarts` counts its deaths. Times are monotonic seconds.
    """

    service: Service
    settings: Settings
    state: State = State.WAITING
    reason: str = ""
    restarts: int = 0
    process: subprocess.Popen[bytes] | None = None
    _command: Command | None = None
    _started_at: float = 0.0
    _check_at: float = 0.0
    _restart_at: float = 0.0
    _address: str = ""
    _failed_checks: int = 0
    _quick_deaths: int = 0
    _ever_healthy: bool = False

    def step(self, now: float, healthy: set[str], known: set[str]) -> None:
        """Check the service if that is due, and start or restart it if it may start now.

        Args:
            now: Monotonic seconds.
            healthy: Names of the services that are healthy.
            known: Names of the services that run on this machine; needs that run elsewhere are ignored.
        """
        if self.process is not None and self.process.poll() is not None:
            self._died(now, f"ended with code {self.process.returncode}{self._last_words()}")
        may_start = all(need in healthy for need in self.service.needs if need in known)
        lives_on = self.service.lives_on if isinstance(self.service, Dependent) else ()
        may_live = now >= self._restart_at and all(need in healthy for need in lives_on if need in known)
        if (self.state is State.WAITING and may_start) or (self.state is State.DEAD and may_live):
            self._start(now)
        elif self.state in (State.STARTING, State.HEALTHY, State.UNHEALTHY) and now >= self._check_at:
            self._check(now)

    @property
    def failed_start(self) -> str:
        """The reason why the first start was given up; empty while it goes on or after it has succeeded."""
        if self._ever_healthy or self.state is not State.DEAD:
            return ""
        return self.reason if self._quick_deaths >= FIRST_STARTS_MAX else ""

    def _start(self, now: float) -> None:
        self.state, self._started_at, self._check_at, self._failed_checks = State.STARTING, now, now, 0
        try:
            if not self._ever_healthy:  # later its address must stay, since other processes know it
                _leave_taken_ports(self.settings, self.service.name)
            self.service.prepare()
            command = self.service.command()
            self.process = self._spawn(command) if command is not None else None
        except Rejected as error:
            self._quick_deaths = FIRST_STARTS_MAX  # a second try would be rejected too
            self._died(now, str(error))
        except (PixrError, OSError) as error:
            self._died(now, str(error))

    def _spawn(self, command: Command) -> subprocess.Popen[bytes]:
        self._command = command
        with open(self._log_path(), "ab") as output:
            return subprocess.Popen(
                command.argv,
                env={**os.environ, **command.env},
                cwd=command.cwd,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                preexec_fn=lambda: die_with_parent(command.stop_signal),
            )

    def _check(self, now: float) -> None:
        try:
            self.service.check()
        except PixrError as error:
            # `Rejected` too: another program's server that took the port first may refuse our key.
            self._check_failed(now, str(error))
        else:
            self.state, self.reason, self._failed_checks, self._ever_healthy = State.HEALTHY, "", 0, True
            self._check_at = now + self.settings.supervisor.check_interval_s
            self._address = self.service.address()

    @property
    def _start_timeout_s(self) -> float:
        """The service's start timeout in seconds, stretched if `[supervisor] start_timeout_s` is above its default."""
        factor = self.settings.supervisor.start_timeout_s / SupervisorSettings.start_timeout_s
        return self.service.start_timeout_s * max(1.0, factor)

    def _check_failed(self, now: float, reason: str) -> None:
        self.reason = reason
        if self.state is State.STARTING:
            self._check_at = now + STARTING_CHECK_S
            if now - self._started_at > self._start_timeout_s:
                self._quick_deaths = FIRST_STARTS_MAX
                self.kill()
                self._died(now, f"not healthy within {self._start_timeout_s:.0f} s: {reason}{self._last_words()}")
            return
        self.state, self._check_at = State.UNHEALTHY, now + self.settings.supervisor.check_interval_s
        self._failed_checks += 1
        patience = self.service.check_failures_max if isinstance(self.service, Patient) else 0
        if self._failed_checks >= max(patience, self.settings.supervisor.check_failures_max):
            self.kill()
            self._died(now, f"failed {self._failed_checks} health checks: {reason}")

    def _died(self, now: float, reason: str) -> None:
        self.kill()
        lived_s = now - self._started_at
        self._quick_deaths = 1 if lived_s > HEALTHY_AFTER_S else self._quick_deaths + 1
        backoff_s = min(self.settings.supervisor.backoff_max_s, 0.25 * 2.0 ** (self._quick_deaths - 1))
        self.state, self.reason, self._restart_at = State.DEAD, reason, now + backoff_s
        self.process, self.restarts = None, self.restarts + 1
        log.warning("%s %s; again in %.1f s", self.service.name, reason, backoff_s)

    def kill(self) -> None:
        """Kill the service's process and all its descendants."""
        if self.process is not None:
            kill_tree(self.process.pid)
            self.process.wait()

    def stop(self, timeout_s: float) -> None:
        """Send the stop signal, wait at most `timeout_s` seconds (or the command's own timeout), and kill what is left."""
        if self.process is not None and self._command is not None:
            timeout_s = min(timeout_s, self._command.stop_timeout_s or timeout_s)
            self.process.send_signal(self._command.stop_signal)
            try:
                self.process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                log.warning("%s did not stop within %.0f s and is killed", self.service.name, timeout_s)
            self.kill()
        self.process, self.state, self.reason = None, State.STOPPED, ""

    def tidy(self) -> None:
        """Remove what the service has left outside of the data folder; called after all services have stopped."""
        if isinstance(self.service, Tidy):
            try:
                self.service.tidy()
            except (PixrError, OSError) as error:
                log.warning("what %s has left outside of the data folder stays: %s", self.service.name, error)

    def row(self) -> dict[str, object]:
        """Return the service's row in `run/status.json`."""
        return {
            "state": self.state.value,
            "healthy": self.state is State.HEALTHY,
            "address": self._address,
            "pid": self.process.pid if self.process else None,
            "restarts": self.restarts,
            "reason": self.reason,
        }

    def _log_path(self) -> Path:
        """Return the path of the service's log; a log that has grown too large is renamed first."""
        path = self.settings.data_dir / "logs" / f"{self.service.name}.log"
        if path.exists() and path.stat().st_size > LOG_BYTES_MAX:
            path.replace(path.with_suffix(".log.1"))
        return path

    def _last_words(self) -> str:
        """Return the last line of the service's log, to append to an error."""
        path = self._log_path()
        if not path.exists():
            return ""
        with open(path, "rb") as handle:
            handle.seek(max(0, path.stat().st_size - 2000))
            lines = [line.strip() for line in handle.read().decode(errors="replace").splitlines() if line.strip()]
        last_line = telemetry.redact(lines[-1])[:300] if lines else ""
        return f": {last_line} (see {path})" if last_line else f" (see {path})"


def owner_of(port: int) -> str:
    """Return `pid 123 (python)` of the process that listens on a port, as far as this user may see."""
    pid = _listener(port)
    return f"pid {pid} ({psutil.Process(pid).name()})" if pid else "another user's process"


def _listener(port: int) -> int | None:
    """Return the pid of the process that listens on a port; None where this user may not see it."""
    for connection in psutil.net_connections("tcp"):
        local: tuple[str, int] | tuple[()] = connection.laddr
        if connection.status == psutil.CONN_LISTEN and local and local[1] == port and connection.pid:
            return connection.pid
    return None


def _leave_taken_ports(settings: Settings, service: str) -> None:
    """Move a service that is about to start to other ports, where other programs have taken its own.

    A port that was free when it was chosen can be taken by now, e.g. by another deployment that starts at the same
    time.
    """
    path = settings.data_dir / "run" / "ports.json"
    ports: dict[str, int] = json.loads(path.read_text(encoding="ascii")) if path.exists() else {}
    for name, number in ports.items():
        owner = runtime.OWNERS.get(name, name)
        if not (owner == service or owner.startswith(f"{service}-")) or runtime.port_is_free(number):
            continue
        pid = _listener(number)
        if pid not in {child.pid for child in psutil.Process().children(recursive=True)}:
            owner, moved_to = owner_of(number), runtime.move_port(settings, name)
            log.warning("port %d is taken by %s; %s moves to %d", number, owner, name, moved_to)


def die_with_parent(stop_signal: int) -> None:
    """Make the kernel send this process a signal when its parent ends; the setting survives an `exec`."""
    _libc.prctl(PR_SET_PDEATHSIG, stop_signal, 0, 0, 0)


def kill_tree(pid: int) -> None:
    """Kill a process and all its descendants."""
    try:
        root = psutil.Process(pid)
        family = [*root.children(recursive=True), root]
    except psutil.NoSuchProcess:
        return
    for process in family:
        with contextlib.suppress(psutil.NoSuchProcess):  # it has ended since it was listed
            process.kill()
