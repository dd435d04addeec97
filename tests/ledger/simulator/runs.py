"""Many seeds: one after the other or side by side, noted as they end so that a run goes on where it was; and their sum."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any

from cluster.settings import ROOT
from tests.ledger.simulator.ground import Ground
from tests.ledger.simulator.machine import Machine, State, Transition
from tests.ledger.simulator.protocols import OURS, WRONG, Wrong
from tests.ledger.simulator.truth import KINDS, Outcome
from tests.ledger.simulator.world import World

PROTOCOLS = {each.name: each for each in (OURS, *WRONG)}
COUNTED = ("payouts", "attempts", "folds", "crash", "freezes", "released", "plot", "secret lost")


@dataclass(frozen=True)
class Job:
    """One seed under one protocol. `fierce`: so many times the faults."""

    seed: int
    fierce: float = 1.0
    protocol: str = OURS.name


@dataclass
class Tally:
    """What many seeds came to."""

    machine: Machine = field(default_factory=Machine)
    seeds: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    failing: dict[int, tuple[str, ...]] = field(default_factory=dict)
    states: set[State] = field(default_factory=set)
    transitions: set[Transition] = field(default_factory=set)

    def add(self, outcome: Outcome) -> None:
        self.seeds += 1
        self.counts.update(outcome.counts)
        self.kinds.update({problem.partition(":")[0] for problem in outcome.problems})
        if not outcome.ok:
            self.failing[outcome.seed] = outcome.problems
        self.states |= outcome.states
        self.transitions |= outcome.transitions

    @property
    def all_transitions(self) -> frozenset[Transition]:
        """Those that the triggers allow when one column changes, and those that were seen when others changed with it."""
        return self.machine.transitions | self.transitions

    def coverage(self) -> str:
        """How much of the machine was reached, and what was not."""
        states, transitions = self.machine.states, self.all_transitions
        missing = [*sorted(states - self.states), *sorted(transitions - self.transitions)]
        share = 100 * len(self.transitions) // max(1, len(transitions))
        left = f"; not reached: {'; '.join(map(str, missing))}" if missing else ""
        return (
            f"{len(self.states)} of {len(states)} states, {len(self.transitions)} of {len(transitions)} transitions"
            f" ({share} %){left}"
        )

    def __str__(self) -> str:
        found = ", ".join(f"{self.kinds[kind]} {kind}" for kind in KINDS)
        counted = ", ".join(f"{self.counts[name]} {name}" for name in COUNTED)
        return f"{self.seeds} seeds: {found}; {counted}"


def run(ground: Ground, job: Job, wrong: Wrong | None = None) -> Outcome:
    """One seed on this ground."""
    protocol = wrong or PROTOCOLS[job.protocol]
    climate = None if protocol is OURS else protocol.climate
    return World(ground, job.seed, climate, protocol, job.fierce).run()


def tally(ground: Ground, jobs: Iterable[Job]) -> Tally:
    found = Tally(ground.machine)
    for job in jobs:
        found.add(run(ground, job))
    return found


# ── Side by side ───────────────────────────────────────────────────────────────────────────────────────────────────

_GROUNDS: list[Ground] = []  # of a worker: one


def side_by_side(urls: Sequence[str], jobs: Sequence[Job], notes: Path | None = None) -> Iterator[tuple[Job, Outcome]]:
    """Run these jobs, a process for each database; those that `notes` has are not run again. As they end."""
    done = dict(_noted(notes)) if notes is not None and notes.exists() else {}
    yield from ((job, done[job]) for job in jobs if job in done)
    left = [job for job in jobs if job not in done]
    context = get_context("spawn")
    given: Queue[str] = context.Queue()
    for url in urls:
        given.put(url)
    with context.Pool(len(urls), _begin, (given,)) as pool:
        for job, outcome in pool.imap_unordered(_work, left):
            if notes is not None:
                _note(notes, job, outcome)
            yield job, outcome


def _begin(given: Queue[str]) -> None:
    _GROUNDS.append(Ground(given.get()))


def _work(job: Job) -> tuple[Job, Outcome]:
    return job, run(_GROUNDS[0], job)


def version() -> str:
    """Of what is simulated and of what simulates: another one has other outcomes."""
    digest = hashlib.sha256()
    for folder in ("ledger", "tests/ledger"):
        for file in sorted((ROOT / folder).rglob("*")):
            if file.suffix in (".py", ".sql"):
                digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def _note(notes: Path, job: Job, outcome: Outcome) -> None:
    row = {
        "seed": job.seed, "fierce": job.fierce, "protocol": job.protocol, "problems": outcome.problems,
        "counts": outcome.counts, "digest": outcome.digest,
        "states": [(each.relation, each.field, each.value) for each in sorted(outcome.states)],
        "transitions": [(each.relation, each.field, each.was, each.became) for each in sorted(outcome.transitions)],
    }  # fmt: skip
    notes.parent.mkdir(parents=True, exist_ok=True)
    with notes.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def _noted(notes: Path) -> Iterator[tuple[Job, Outcome]]:
    for line in notes.read_text(encoding="utf-8").splitlines():
        row: dict[str, Any] = json.loads(line)
        yield (
            Job(row["seed"], row["fierce"], row["protocol"]),
            Outcome(
                row["seed"],
                tuple(row["problems"]),
                row["counts"],
                frozenset(State(*each) for each in row["states"]),
                frozenset(Transition(*each) for each in row["transitions"]),
                row["digest"],
            ),
        )
