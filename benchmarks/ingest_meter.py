"""CPU seconds of a Ray cluster's processes, in two sums: those that work for the job, and those that every cluster has.

They are read every second, since what a process used after its last reading is lost. Decoding children live too briefly
for that; their seconds are counted with the keeper process that waits for them.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import psutil

from cluster.embedded import supervisor
from cluster.settings import Settings

READ_INTERVAL_S = 1.0
PROBE_MAX_S = 0.5  # of CPU: a child of a keeper that takes more is one that decodes
KEEPER, DRIVER = "pipelines.sandbox.child", "pipelines.ingest"
STANDING = ("raylet", "gcs_server", "dashboard", "monitor", "runtime_env", "ray.scripts", "cluster.")


@dataclass(frozen=True)
class Used:
    """CPU seconds since the meter was made: of the job's processes, and of those that every cluster has."""

    job_s: float
    standing_s: float


class Meter(threading.Thread):
    """A thread that reads the CPU times of a cluster's processes every second until the `with` block is left."""

    def __init__(self, stack: Settings) -> None:
        super().__init__(name="meter", daemon=True)
        services: Any = supervisor.read_status(stack)["services"]
        self._head = psutil.Process(services["ray"]["pid"])
        self._latest: dict[tuple[int, float], float] = {}
        self._lines: dict[tuple[int, float], str] = {}
        self._over = threading.Event()
        self.decoding = False  # whether a decoder has been seen at work
        self._read()
        self._before = dict(self._latest)

    def __enter__(self) -> Meter:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._over.set()
        self.join()

    def run(self) -> None:
        while not self._over.wait(READ_INTERVAL_S):
            self._read()

    def used(self) -> Used:
        """Return the CPU seconds up to the last reading."""
        spent = {True: 0.0, False: 0.0}
        for key, seconds in list(self._latest.items()):
            standing = any(word in self._lines[key] for word in STANDING)
            spent[standing] += seconds - self._before.get(key, 0.0)
        return Used(spent[False], spent[True])

    def table(self) -> list[tuple[float, str]]:
        """Return the CPU seconds and the command line of each process, the busiest first."""
        rows = ((seconds - self._before.get(key, 0.0), self._lines[key]) for key, seconds in self._latest.items())
        return sorted(rows, reverse=True)

    def driver_lives(self) -> bool:
        return any(DRIVER in _line(process) for process in self._head.children(recursive=True))

    def _read(self) -> None:
        for process in [self._head, *self._head.children(recursive=True)]:
            key = (process.pid, process.create_time())
            line = _line(process) or self._lines.get(key, "")
            try:
                times = process.cpu_times()
            except psutil.NoSuchProcess:
                continue
            if not line:
                continue  # just begun, or just ended
            if KEEPER in line and KEEPER in _parent_line(process):
                self.decoding = self.decoding or times.user + times.system > PROBE_MAX_S
                continue
            below = times.children_user + times.children_system if KEEPER in line else 0.0
            self._lines[key] = line
            self._latest[key] = times.user + times.system + below


def idle(stack: Settings, seconds: float) -> float:
    """Return the CPU seconds per second that a cluster uses while it is idle, measured over `seconds`."""
    with Meter(stack) as meter:
        began = time.monotonic()
        time.sleep(seconds)
        used = meter.used()
        return (used.job_s + used.standing_s) / (time.monotonic() - began)


def _line(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""


def _parent_line(process: psutil.Process) -> str:
    try:
        parent = process.parent()
    except psutil.NoSuchProcess:
        return ""
    return _line(parent) if parent else ""
