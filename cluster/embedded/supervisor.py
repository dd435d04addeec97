"""The supervisor: one process that starts the services in the order of their needs and restarts those that die.

`pixr up` starts it in the background; `pixr down` sends it SIGTERM. It holds the lock `run/supervisor.lock`, so there
is at most one per data folder, and writes the state of all services to `run/status.json`. All processes that it starts
die with it: children carry a parent-death signal, and orphans are adopted (as a sub-reaper) and ended. Knows the
interface `Service`, not what a service does.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import psutil

from cluster import folders
from cluster import settings as settings_module
from cluster.embedded import factories, leftovers
from cluster.embedded.keeper import Keeper, State, kill_tree
from cluster.errors import Rejected, Temporary
from cluster.observability import telemetry
from cluster.settings import Settings

log = logging.getLogger(__name__)

TICK_S = 0.2
LOCK_TRIES_MAX, LOCK_WAIT_S = 10, 0.05
ORPHAN_GRACE_S = 3.0
ORPHAN_CHECK_S = 1.0
PR_SET_CHILD_SUBREAPER = 36

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass
class Supervisor:
    """The keepers of all services, and the loop that advances them."""

    settings: Settings
    keepers: Sequence[Keeper]
    phase: str = "starting"
    detail: str = ""
    _stopping: bool = field(default=False, init=False)
    _orphans: dict[int, float] = field(default_factory=dict, init=False)
    _orphans_at: float = field(default=0.0, init=False)

    def run(self) -> bool:
        """Start all services and keep them running until a signal comes; return False when the start failed."""
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
            healthy = {other.service.name for other in self.keepers if other.state is State.HEALTHY}
            keeper.step(now, healthy, known)
        if self.phase == "starting" and all(keeper.state is State.HEALTHY for keeper in self.keepers):
            self.phase = "up"
            log.info("all %d services are healthy", len(self.keepers))
        self._end_orphans(now)
        self._write()

    def _failed_start(self) -> str:
        """Return why the first start of a service was given up; empty otherwise."""
        if self.phase != "starting":
            return ""
        for keeper in self.keepers:
            if keeper.failed_start:
                return f"{keeper.service.name} {keeper.failed_start}"
        return ""

    def _end_orphans(self, now: float) -> None:
        """End processes that were adopted because a service died, `ORPHAN_GRACE_S` after they were first seen."""
        if now < self._orphans_at:
            return
        self._orphans_at = now + ORPHAN_CHECK_S
        kept_pids = {keeper.process.pid for keeper in self.keepers if keeper.process}
        adopted = {child.pid for child in psutil.Process().children() if child.pid not in kept_pids}
        self._orphans = {pid: self._orphans.get(pid, now) for pid in adopted}
        for pid, since in self._orphans.items():
            if now - since > ORPHAN_GRACE_S:
                kill_tree(pid)
                _reap(pid)

    def _stop_all(self) -> None:
        """Stop the services in reverse order, end remaining descendants, and remove their files outside the data folder."""
        for keeper in reversed(self.keepers):
            keeper.stop(self.settings.supervisor.stop_timeout_s)
            self._write()
        for _ in range(50):
            descendants = psutil.Process().children(recursive=True)
            if not descendants:
                break
            for child in descendants:
                kill_tree(child.pid)
                _reap(child.pid)
            time.sleep(0.1)
        for keeper in self.keepers:
            keeper.tidy()

    def _on_signal(self, _number: int, _frame: object) -> None:
        self._stopping = True

    def _write(self) -> None:
        """Write `run/status.json` atomically."""
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
    """Return what the supervisor wrote last; `phase` is "down" when none runs (or "failed", when its start failed)."""
    path = status_path(settings)
    status: dict[str, object] = {"phase": "starting", "detail": "", "services": {}}
    if path.exists():
        status = json.loads(path.read_text(encoding="utf-8"))
    if not running(settings) and status.get("phase") != "failed":
        status |= {"phase": "down", "pid": None}
    return status


def running(settings: Settings) -> bool:
    """Return whether a supervisor holds the lock of this data folder.

    Raises:
        Rejected: this user may not use the data folder.
    """
    try:
        return leftovers.is_locked(leftovers.lock_path(settings.data_dir))
    except PermissionError as error:
        raise folders.refusal(settings.data_dir) from error


def require_running(settings: Settings) -> None:
    """Refuse to use the addresses of a deployment that is down: another deployment may have its ports by now.

    Raises:
        Rejected: no supervisor holds the lock of this data folder.
    """
    if not running(settings):
        hint = "start it with `pixr up`, or name another data folder with PIXR_DATA_DIR"
        raise Rejected(f"Pixr is down in {settings.data_dir}", code="not-running", hint=hint)


def start(settings: Settings, only: Sequence[str] = ()) -> subprocess.Popen[bytes]:
    """Start a supervisor in the background, in a session of its own; close the data folder to other users first.

    `only` restricts it to some services (tests). Returns its process.

    Raises:
        Rejected: the data folder cannot be used, or its disk is almost full.
    """
    folder = settings.data_dir
    folders.close_data_folder(folder)
    for name in ("run", "logs"):
        (folder / name).mkdir(exist_ok=True)
        (folder / name).chmod(0o700)
    folders.require_space(settings.data_dir, settings.s3.free_space_min_mb)
    _tidy(settings)
    status_path(settings).unlink(missing_ok=True)
    argv = [sys.executable, "-m", "cluster.embedded.supervisor", *only]
    environment = {**os.environ, "PIXR_CONFIG": str(settings.path), "PIXR_DATA_DIR": str(folder)}
    with open(folder / "logs" / "supervisor.log", "ab", opener=folders.opener) as output:
        return subprocess.Popen(
            argv, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )


def stop(settings: Settings, timeout_s: float = 60.0) -> bool:
    """Stop the supervisor and all that it started; return False when none was running.

    Raises:
        Temporary: it still runs after `timeout_s`, or has not written its pid by then.
    """
    pid: int | None = None
    deadline = time.monotonic() + timeout_s
    while running(settings):
        if pid is None and (pid := _holder(settings)) is not None:
            with contextlib.suppress(ProcessLookupError):  # it has ended by itself
                os.kill(pid, signal.SIGTERM)
        if time.monotonic() > deadline:
            if pid is None:
                path = leftovers.lock_path(settings.data_dir)
                raise Temporary(f"{path} is locked, but its process has not written its pid within {timeout_s:.0f} s")
            raise Temporary(f"the supervisor (pid {pid}) has not stopped within {timeout_s:.0f} s")
        time.sleep(0.1)
    if pid is None:
        _tidy(settings)
    return pid is not None


def _holder(settings: Settings) -> int | None:
    """Return the pid in the lock file, if its process has the file open; None otherwise.

    A supervisor takes the lock before it writes its pid. Meanwhile the file is empty or names the supervisor before it,
    whose pid may be another program's by now. A pid of 0 or less is not valid: it would name a group of processes, ours
    or all.
    """
    path = leftovers.lock_path(settings.data_dir)
    try:
        pid = int(path.read_text(encoding="ascii"))
        is_open = pid > 0 and any(each.samefile(path) for each in Path(f"/proc/{pid}/fd").iterdir())
    except (OSError, ValueError):  # not written, or written by one that has ended
        return None
    return pid if is_open else None


def _tidy(settings: Settings) -> None:
    """Remove what a killed stack has left outside of its data folder."""
    if leftovers.lock_path(settings.data_dir).exists() and not running(settings):
        for service in factories.all_services(settings):
            Keeper(service, settings).tidy()


def _lock(settings: Settings) -> IO[str]:
    """Take the lock of this data folder and write this process's pid into it.

    Tries several times, because a process that calls `running` holds the lock for a moment.

    Raises:
        Rejected: another supervisor holds the lock.
    """
    handle = open(leftovers.lock_path(settings.data_dir), "a+", encoding="ascii")  # noqa: SIM115  held for the process's life
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


def _reap(pid: int) -> None:
    with contextlib.suppress(ChildProcessError):  # its own parent has reaped it
        os.waitpid(pid, os.WNOHANG)


def main(only: Sequence[str]) -> int:
    """Run as the supervisor and return the exit code; `only` restricts it to some services (tests)."""
    telemetry.configure("supervisor")
    os.umask(folders.UMASK)  # inherited by all services
    settings = settings_module.load()
    lock = _lock(settings)
    _libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    services = factories.all_services(settings, only)
    succeeded = Supervisor(settings, [Keeper(service, settings) for service in services]).run()
    lock.close()
    return 0 if succeeded else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
