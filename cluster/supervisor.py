"""The supervisor: one process that starts the services in the order of their needs and restarts what dies.

`pixr up` leaves it behind; `pixr down` sends it SIGTERM. It owns the lock `run/supervisor.lock`, so there is at most
one per data folder, and writes what it sees to `run/status.json`. Whatever it starts dies with it: children carry a
parent-death signal, and orphans are adopted (sub-reaper) and ended. Knows `Service`, nothing of what one does.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import IO

import psutil

from cluster import runtime, services, telemetry
from cluster import settings as settings_module
from cluster.errors import PixrError, Rejected, Temporary
from cluster.services import Command, Service
from cluster.settings import Settings

log = logging.getLogger(__name__)

TICK_S = 0.2
LOCK_TRIES_MAX, LOCK_WAIT_S = 10, 0.05
STARTING_CHECK_S = 0.5
FIRST_STARTS_MAX = 3
ORPHAN_GRACE_S = 3.0
ORPHAN_LOOK_S = 1.0
HEALTHY_AFTER_S = 60.0  # a service that lived this long starts again without backoff
LOG_BYTES_MAX = 16 << 20
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36

_libc = ctypes.CDLL(None, use_errno=True)


class State(StrEnum):
    """Of one service, as the supervisor sees it."""

    WAITING = "waiting"
    STARTING = "starting"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
    DEAD = "dead"
    STOPPED = "stopped"


@dataclass
class Keeper:
    """One service, kept running: a small state machine that `step` moves on."""

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
        """Look once at the service and do the one thing that is due."""
        if self.process is not None and self.process.poll() is not None:
            self._died(now, f"ended with code {self.process.returncode}{self._last_words()}")
        may_start = all(need in healthy for need in self.service.needs if need in known)
        if (self.state is State.WAITING and may_start) or (self.state is State.DEAD and now >= self._restart_at):
            self._start(now)
        elif self.state in (State.STARTING, State.HEALTHY, State.UNHEALTHY) and now >= self._check_at:
            self._check(now)

    @property
    def failed_start(self) -> str:
        """Why the first start is given up, or empty."""
        if self._ever_healthy or self.state is not State.DEAD:
            return ""
        return self.reason if self._quick_deaths >= FIRST_STARTS_MAX else ""

    def _start(self, now: float) -> None:
        self.state, self._started_at, self._check_at, self._failed_checks = State.STARTING, now, now, 0
        try:
            if not self._ever_healthy:  # later its address is known to others, and has to stay
                _leave_taken_ports(self.settings, self.service.name)
            self.service.prepare()
            command = self.service.command()
            self.process = self._spawn(command) if command is not None else None
        except Rejected as error:
            self._quick_deaths = FIRST_STARTS_MAX  # it will say the same again
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
                preexec_fn=lambda: _die_with_parent(command.stop_signal),
            )

    def _check(self, now: float) -> None:
        try:
            self.service.check()
        except Temporary as error:
            self._check_failed(now, str(error))
        else:
            self.state, self.reason, self._failed_checks, self._ever_healthy = State.HEALTHY, "", 0, True
            self._check_at = now + self.settings.supervisor.check_interval_s
            self._address = self.service.address()

    def _check_failed(self, now: float, reason: str) -> None:
        self.reason = reason
        if self.state is State.STARTING:
            self._check_at = now + STARTING_CHECK_S
            if now - self._started_at > self.service.start_timeout_s:
                self._quick_deaths = FIRST_STARTS_MAX
                self.kill()
                limit_s = self.service.start_timeout_s
                self._died(now, f"not healthy within {limit_s:.0f} s: {reason}{self._last_words()}")
            return
        self.state, self._check_at = State.UNHEALTHY, now + self.settings.supervisor.check_interval_s
        self._failed_checks += 1
        if self._failed_checks >= self.settings.supervisor.check_failures_max:
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
        """End the whole process group at once."""
        if self.process is not None:
            _kill_tree(self.process.pid)
            self.process.wait()

    def stop(self, timeout_s: float) -> None:
        """End it politely, then for certain."""
        if self.process is not None and self._command is not None:
            timeout_s = min(timeout_s, self._command.stop_timeout_s or timeout_s)
            self.process.send_signal(self._command.stop_signal)
            try:
                self.process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                log.warning("%s did not stop within %.0f s and is killed", self.service.name, timeout_s)
            self.kill()
        self.process, self.state, self.reason = None, State.STOPPED, ""

    def row(self) -> dict[str, object]:
        """What `run/status.json` says of it."""
        return {
            "state": self.state.value,
            "healthy": self.state is State.HEALTHY,
            "address": self._address,
            "pid": self.process.pid if self.process else None,
            "restarts": self.restarts,
            "reason": self.reason,
        }

    def _log_path(self) -> Path:
        path = self.settings.data_dir / "logs" / f"{self.service.name}.log"
        if path.exists() and path.stat().st_size > LOG_BYTES_MAX:
            path.replace(path.with_suffix(".log.1"))
        return path

    def _last_words(self) -> str:
        path = self._log_path()
        if not path.exists():
            return ""
        with open(path, "rb") as handle:
            handle.seek(max(0, path.stat().st_size - 2000))
            lines = [line.strip() for line in handle.read().decode(errors="replace").splitlines() if line.strip()]
        said = telemetry.redact(lines[-1])[:300] if lines else ""
        return f": {said} (see {path})" if said else f" (see {path})"


@dataclass
class Supervisor:
    """All keepers and the loop that steps them."""

    settings: Settings
    keepers: Sequence[Keeper]
    phase: str = "starting"
    detail: str = ""
    _stopping: bool = field(default=False, init=False)
    _orphans: dict[int, float] = field(default_factory=dict, init=False)
    _orphans_at: float = field(default=0.0, init=False)

    def run(self) -> bool:
        """Start everything, keep it running until told to stop; False when the start failed."""
        signal.signal(signal.SIGTERM, self._on_signal)
        signal.signal(signal.SIGINT, self._on_signal)
        failure = ""
        while not self._stopping and not failure:
            self._step(time.monotonic())
            failure = self._failed_start()
            time.sleep(TICK_S)
        self.phase = "stopping"
        self._write()
        self._stop_all()
        self.phase, self.detail = ("failed", failure) if failure else ("down", "")
        self._write()
        return not failure

    def _step(self, now: float) -> None:
        known = {keeper.service.name for keeper in self.keepers}
        for keeper in self.keepers:
            healthy = {each.service.name for each in self.keepers if each.state is State.HEALTHY}
            keeper.step(now, healthy, known)
        if self.phase == "starting" and all(keeper.state is State.HEALTHY for keeper in self.keepers):
            self.phase = "up"
            log.info("all %d services are healthy", len(self.keepers))
        self._end_orphans(now)
        self._write()

    def _failed_start(self) -> str:
        if self.phase != "starting":
            return ""
        for keeper in self.keepers:
            if keeper.failed_start:
                return f"{keeper.service.name} {keeper.failed_start}"
        return ""

    def _end_orphans(self, now: float) -> None:
        """Children of a service that died are ours now, and are ended after a moment's grace."""
        if now < self._orphans_at:
            return
        self._orphans_at = now + ORPHAN_LOOK_S
        own = {keeper.process.pid for keeper in self.keepers if keeper.process}
        adopted = {child.pid for child in psutil.Process().children() if child.pid not in own}
        self._orphans = {pid: self._orphans.get(pid, now) for pid in adopted}
        for pid, since in self._orphans.items():
            if now - since > ORPHAN_GRACE_S:
                _kill_tree(pid)
                _reap(pid)

    def _stop_all(self) -> None:
        for keeper in reversed(self.keepers):
            keeper.stop(self.settings.supervisor.stop_timeout_s)
            self._write()
        for _ in range(50):
            left = psutil.Process().children(recursive=True)
            if not left:
                return
            for child in left:
                _kill_tree(child.pid)
                _reap(child.pid)
            time.sleep(0.1)

    def _on_signal(self, _number: int, _frame: object) -> None:
        self._stopping = True

    def _write(self) -> None:
        status = {
            "pid": os.getpid(),
            "phase": self.phase,
            "detail": self.detail,
            "services": {keeper.service.name: keeper.row() for keeper in self.keepers},
        }
        path = status_path(self.settings)
        draft = path.with_suffix(".new")
        draft.write_text(json.dumps(status, indent=1), encoding="utf-8")
        draft.replace(path)


def status_path(settings: Settings) -> Path:
    return settings.data_dir / "run" / "status.json"


def read_status(settings: Settings) -> dict[str, object]:
    """What the supervisor last wrote; `phase` is "down" when none runs."""
    path = status_path(settings)
    status: dict[str, object] = {"phase": "starting", "detail": "", "services": {}}
    if path.exists():
        status = json.loads(path.read_text(encoding="utf-8"))
    if not running(settings) and status.get("phase") != "failed":
        status |= {"phase": "down", "pid": None}
    return status


def running(settings: Settings) -> bool:
    """Does a supervisor hold this data folder?"""
    path = _lock_path(settings)
    if not path.exists():
        return False
    with open(path, "a", encoding="ascii") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def start(settings: Settings, only: Sequence[str] = ()) -> subprocess.Popen[bytes]:
    """Leave a supervisor behind, in a session of its own."""
    folder = settings.data_dir
    for name in ("run", "logs"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    _require_space(settings)
    status_path(settings).unlink(missing_ok=True)
    argv = [sys.executable, "-m", "cluster.supervisor", *only]
    environment = {**os.environ, "PIXR_CONFIG": str(settings.path), "PIXR_DATA_DIR": str(folder)}
    with open(folder / "logs" / "supervisor.log", "ab") as output:
        return subprocess.Popen(
            argv, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )


def stop(settings: Settings, timeout_s: float = 60.0) -> bool:
    """Stop the supervisor and all it started; False when none ran.

    Raises:
        Temporary: it is still there after `timeout_s`.
    """
    if not running(settings):
        return False
    pid = json.loads(_lock_path(settings).read_text(encoding="ascii") or "0")
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + timeout_s
    while running(settings):
        if time.monotonic() > deadline:
            raise Temporary(f"the supervisor (pid {pid}) has not stopped within {timeout_s:.0f} s")
        time.sleep(0.1)
    return True


def owner_of(port: int) -> str:
    """`pid 123 (python)` of who listens on a port, as far as this user may know."""
    pid = _listener(port)
    return f"pid {pid} ({psutil.Process(pid).name()})" if pid else "another user's process"


def _listener(port: int) -> int | None:
    for connection in psutil.net_connections("tcp"):
        local: tuple[str, int] | tuple[()] = connection.laddr
        if connection.status == psutil.CONN_LISTEN and local and local[1] == port and connection.pid:
            return connection.pid
    return None


def _lock_path(settings: Settings) -> Path:
    return settings.data_dir / "run" / "supervisor.lock"


def _lock(settings: Settings) -> IO[str]:
    """The lock of this data folder; whoever asks `running` holds it for a moment, so one refusal means nothing."""
    handle = open(_lock_path(settings), "a+", encoding="ascii")  # noqa: SIM115  held for the process's life
    for _ in range(LOCK_TRIES_MAX):
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            time.sleep(LOCK_WAIT_S)
    else:
        raise Rejected(f"a supervisor already runs in {settings.data_dir}", hint="see `pixr status`")
    handle.truncate(0)
    handle.write(str(os.getpid()))
    handle.flush()
    return handle


def _require_space(settings: Settings) -> None:
    free_mb, needed_mb = shutil.disk_usage(settings.data_dir).free >> 20, settings.s3.free_space_min_mb
    if free_mb < needed_mb:
        hint = "free some, or choose another folder with PIXR_DATA_DIR"
        raise Rejected(f"no space left in {settings.data_dir}: {free_mb} MB free, {needed_mb} MB needed", hint=hint)


def _leave_taken_ports(settings: Settings, service: str) -> None:
    """Give a service that is about to start other ports where strangers have taken its own.

    A port that was free when it was chosen can be taken by now, by another Pixr that starts at the same time.
    """
    path = settings.data_dir / "run" / "ports.json"
    ports: dict[str, int] = json.loads(path.read_text(encoding="ascii")) if path.exists() else {}
    for name, number in ports.items():
        if not (name == service or name.startswith(f"{service}-")) or runtime.port_is_free(number):
            continue
        pid = _listener(number)
        if pid not in {child.pid for child in psutil.Process().children(recursive=True)}:
            owner, moved_to = owner_of(number), runtime.move_port(settings, name)
            log.warning("port %d is taken by %s; %s moves to %d", number, owner, name, moved_to)


def _die_with_parent(stop_signal: int) -> None:
    _libc.prctl(PR_SET_PDEATHSIG, stop_signal, 0, 0, 0)


def _kill_tree(pid: int) -> None:
    try:
        root = psutil.Process(pid)
        family = [*root.children(recursive=True), root]
    except psutil.NoSuchProcess:
        return
    for process in family:
        with contextlib.suppress(psutil.NoSuchProcess):  # it ended by itself between the look and the signal
            process.kill()


def _reap(pid: int) -> None:
    with contextlib.suppress(ChildProcessError):  # somebody nearer has reaped it
        os.waitpid(pid, os.WNOHANG)


def main(only: Sequence[str]) -> int:
    """Run as the supervisor; `only` restricts it to some services (tests)."""
    telemetry.configure("supervisor")
    settings = settings_module.load()
    lock = _lock(settings)
    _libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    wanted = services.all_services(settings, only)
    succeeded = Supervisor(settings, [Keeper(service, settings) for service in wanted]).run()
    lock.close()
    return 0 if succeeded else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
