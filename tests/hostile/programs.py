"""Programs of the tier beside the test: started with a plan, told to end, asked for what they saw. None outlives it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import psutil

from cluster.embedded import keeper
from cluster.settings import ROOT

END_TIMEOUT_S = 60.0


@dataclass
class Program:
    """One that runs. `first` is the line by which it said that it has started."""

    process: subprocess.Popen[str]
    first: str

    @property
    def cpu_s(self) -> float:
        times = psutil.Process(self.process.pid).cpu_times()
        return float(times.user + times.system)

    def result(self) -> Any:
        """Tell it to end; what it printed last."""
        self.process.terminate()
        out, _ = self.process.communicate(timeout=END_TIMEOUT_S)
        assert self.process.returncode == 0, f"{self.process.args} ended with {self.process.returncode}"
        return json.loads(out.strip().splitlines()[-1])


@contextmanager
def program(module: str, plan: Any) -> Iterator[Program]:
    """A module of this package that runs with a plan, in a process of its own."""
    argv = [sys.executable, "-m", f"tests.hostile.{module}", json.dumps(asdict(plan))]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        assert process.stdout is not None
        yield Program(process, process.stdout.readline().strip())
    finally:
        process.kill()
        process.wait(10)


def told(argv: Sequence[str]) -> dict[str, Any]:
    """Inside of a program: the fields of its plan. It ends with the test that started it."""
    keeper.die_with_parent(signal.SIGKILL)
    plan = json.loads(argv[1])
    return {name: tuple(value) if isinstance(value, list) else value for name, value in plan.items()}
