"""Many seeds: one after the other or side by side, noted as they end so that a run goes on where it was; and their sum."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any

from cluster.settings import ROOT
from tests.ledger.simulator.ground import Ground
from tests.ledger.simulator.machine import Machine, State, Transition
from tests.ledger.simulator.protocols import OURS, WRONG, Wrong
from tests.ledger.simulator.truth import KINDS, LEFT_OUT, Outcome
from tests.ledger.simulator.world import World

PROTOCOLS = {each.name: each for each in (OURS, *WRONG)}
COUNTED = (
    "payouts",
    "attempts",
    "folds",
    "crash",
    "overlap",
    "freezes",
    "released",
    "plot",
    "secret lost",
    "stopped, as a story demands",
)
SHARE_MIN = 0.95  # of the transitions
VERSIONED = ("ledger", "cluster", "tests/ledger")  # folders
LOCKS = ("constraints.txt", "pyproject.toml")  # what is installed
# Changes that one column does not make alone, and why: a row's guard asks for others beside it.
TOGETHER: Mapping[Transition, str] = {
    Transition("wallets", "held_for", "manifest", "change"): "the guard itself writes it where the wallet changes",
    Transition("wallets", "held_for", "no proof", "change"): "the guard itself writes it where the wallet changes",
    Transition("wallets", "held_for", "none", "change"): "the guard itself writes it where the wallet changes",
    Transition("wallets", "hold_until", "set", "none"): "a proof of the wallet ends the wait for one",
}


@dataclass(frozen=True)
class Job:
    """One seed under one protocol. `fierce`: how many times the faults; `weather`: the wrong protocol whose climate it has."""

    seed: int
    fierce: float = 1.0
    protocol: str = OURS.name
    weather: str = ""


@dataclass
class Tally:
    """The sum of the outcomes of many seeds."""

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
    def beyond(self) -> list[Transition]:
        """Return what was reached and is not in the machine: changes that triggers allow only together with others."""
        return sorted(self.transitions - self.machine.transitions - TOGETHER.keys())

    @property
    def share(self) -> float:
        """Return which of the machine's transitions were reached."""
        return len(self.machine.transitions & self.transitions) / max(1, len(self.machine.transitions))

    def is_covered(self) -> bool:
        """Whether all states and nearly all transitions were reached, and nothing that is unexplained."""
        return self.states >= self.machine.states and self.share >= SHARE_MIN and not self.beyond

    def coverage(self) -> str:
        """Return how much of the machine was reached, what was not, what was reached beside it, and what has no machine."""
        states, transitions = self.machine.states, self.machine.transitions
        missing = [*sorted(states - self.states), *sorted(transitions - self.transitions)]
        left = f"; not reached: {'; '.join(map(str, missing))}" if missing else ""
        beyond = f"; reached and not in the machine: {'; '.join(map(str, self.beyond))}" if self.beyond else ""
        return (
            f"{len(self.states & states)} of {len(states)} states, {len(self.transitions & transitions)} of"
            f" {len(transitions)} transitions ({100 * self.share:.0f} %){left}{beyond};"
            f" updated without a guard: {', '.join(self.machine.left_out)}"
        )

    def __str__(self) -> str:
        found = ", ".join(f"{self.kinds[kind]} {kind}" for kind in KINDS)
        counted = ", ".join(f"{self.counts[name]} {name}" for name in COUNTED)
        left_out = "".join(
            f"; {count} worlds with {name.removeprefix(LEFT_OUT)}"
            for name, count in sorted(self.counts.items())
            if name.startswith(LEFT_OUT)
        )
        return f"{self.seeds} seeds: {found}; {counted}{left_out}"


def run(ground: Ground, job: Job, wrong: Wrong | None = None) -> Outcome:
    """Run one seed on this ground."""
    protocol = wrong or PROTOCOLS[job.protocol]
    aimed_at = PROTOCOLS[job.weather] if job.weather else protocol
    climate = None if aimed_at is OURS else aimed_at.climate
    return World(ground, job.seed, climate, protocol, job.fierce).run()


def tally(ground: Ground, jobs: Iterable[Job]) -> Tally:
    found = Tally(ground.machine)
    for job in jobs:
        found.add(run(ground, job))
    return found


# ── Side by side ───────────────────────────────────────────────────────────────────────────────────────────────────

_GROUNDS: list[Ground] = []  # of a worker: one


def side_by_side(urls: Sequence[str], jobs: Sequence[Job], notes: Path | None = None) -> Iterator[tuple[Job, Outcome]]:
    """Run jobs, a process for each database, and yield them as they end; those that `notes` has are not run again."""
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
    """Return a fingerprint of the code that is simulated and that simulates: other code has other outcomes."""
    digest = hashlib.sha256()
    files = [
        file for folder in VERSIONED for file in sorted((ROOT / folder).rglob("*")) if file.suffix in (".py", ".sql")
    ]
    for file in [*files, *(ROOT / name for name in LOCKS if (ROOT / name).exists())]:
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def _note(notes: Path, job: Job, outcome: Outcome) -> None:
    row = {
        "seed": job.seed, "fierce": job.fierce, "protocol": job.protocol, "weather": job.weather,
        "problems": outcome.problems,
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
            Job(row["seed"], row["fierce"], row["protocol"], row["weather"]),
            Outcome(
                row["seed"],
                tuple(row["problems"]),
                row["counts"],
                frozenset(State(*each) for each in row["states"]),
                frozenset(Transition(*each) for each in row["transitions"]),
                row["digest"],
            ),
        )
