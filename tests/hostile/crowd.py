"""A crowd of strangers in one process of its own, whose CPU is therefore measured apart from everybody else's.

`python -m tests.hostile.crowd PLAN` starts strangers at a steady pace until it is told to end (SIGTERM) or its time is
over, then prints what they did and what they were answered. Kinds, addresses, keys and pauses are drawn from one seed:
the same plan sends the same things in the same order.
"""

from __future__ import annotations

import asyncio
import json
import random
import resource
import signal
import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.hostile.attacks import BEHAVIOURS, Stranger
from tests.hostile.programs import told
from tests.hostile.wire import Door

ENDED_WITHIN_S = 5.0
SPIN_EVERY_S, SPIN_MAX_S = 0.05, 0.04


@dataclass(frozen=True)
class Plan:
    """Who attacks what. `weights` says how often each kind of stranger is drawn, by its name in `attacks`."""

    host: str
    port: int
    seed: int
    weights: Mapping[str, float]
    starts_per_s: float
    at_once_max: int
    seconds_max: float
    addresses: tuple[str, ...] = ("127.0.0.2",)
    hold_s: tuple[float, float] = (1.0, 8.0)
    keys: tuple[str, ...] = ()
    links: tuple[str, ...] = ()
    cpu_share: float = 0.0  # of one core that the process takes at the least, whatever the server answers


@dataclass
class Report:
    """What a crowd did: strangers by kind, answers by kind and status, what the network said, CPU time."""

    started: Counter[str] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    connected: int = 0  # strangers who had a connection
    skipped: int = 0  # for so many were on their way already
    at_once: int = 0  # at the most
    seconds: float = 0.0
    cpu_s: float = 0.0

    @property
    def cpu_share(self) -> float:
        return self.cpu_s / max(self.seconds, 1e-9)


class Crowd:
    """Starts strangers and counts what becomes of them. Used inside one event loop."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._rng = random.Random(plan.seed)
        self._door = Door(plan.host, plan.port)
        self._running: set[asyncio.Task[None]] = set()
        self.report = Report()

    async def run(self, end: asyncio.Event) -> None:
        """Start one after the other on schedule until the end, then end all that are left."""
        loop, plan = asyncio.get_running_loop(), self._plan
        began_s = due_s = loop.time()
        while not end.is_set() and loop.time() < began_s + plan.seconds_max:
            if (wait_s := due_s - loop.time()) > 0:
                await asyncio.sleep(wait_s)
            self._start()
            due_s = max(due_s + 1 / plan.starts_per_s, loop.time() - 1)  # what is behind by more is not made up for
        await self._end()

    def _start(self) -> None:
        plan = self._plan
        kind = self._rng.choices(list(plan.weights), list(plan.weights.values()))[0]
        stranger = Stranger(
            self._door,
            self._rng.choice(plan.addresses),
            random.Random(self._rng.getrandbits(64)),
            self._rng.uniform(*plan.hold_s),
            plan.keys,
            plan.links,
        )
        if len(self._running) >= plan.at_once_max:
            self.report.skipped += 1
            return
        task = asyncio.create_task(self._counted(kind, stranger))
        self._running.add(task)
        self.report.started[kind] += 1
        self.report.at_once = max(self.report.at_once, len(self._running))
        task.add_done_callback(self._running.discard)

    async def _counted(self, kind: str, stranger: Stranger) -> None:
        try:
            await BEHAVIOURS[kind](stranger)
        except (OSError, ValueError, EOFError, asyncio.LimitOverrunError) as error:
            self.report.failures[f"{kind}: {type(error).__name__}"] += 1
        finally:
            self.report.connected += stranger.connections > 0
            self.report.answers.update({f"{kind}: {status}": n for status, n in stranger.statuses.items()})

    async def _end(self) -> None:
        for task in self._running:
            task.cancel()
        if self._running:
            await asyncio.wait(set(self._running), timeout=ENDED_WITHIN_S)


async def spin(share: float) -> None:
    """Burn CPU until this process has taken at least its share."""
    began_s, spent_s = time.monotonic(), time.process_time()
    while True:
        await asyncio.sleep(SPIN_EVERY_S)
        missing_s = share * (time.monotonic() - began_s) - (time.process_time() - spent_s)
        end_s = time.monotonic() + min(missing_s, SPIN_MAX_S)
        while time.monotonic() < end_s:
            pass


async def until_told(plan: Plan) -> Report:
    end, crowd, began_s = asyncio.Event(), Crowd(plan), time.monotonic()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, end.set)
    spinning = asyncio.create_task(spin(plan.cpu_share)) if plan.cpu_share else None
    print("started", flush=True)
    spent_s = time.process_time()
    await crowd.run(end)
    crowd.report.seconds, crowd.report.cpu_s = time.monotonic() - began_s, time.process_time() - spent_s
    if spinning:
        spinning.cancel()
    await end.wait()
    return crowd.report


def main() -> None:
    plan = Plan(**told(sys.argv))
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    print(json.dumps(vars(asyncio.run(until_told(plan)))), flush=True)


if __name__ == "__main__":
    main()
