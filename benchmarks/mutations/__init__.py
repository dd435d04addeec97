"""Mutation testing of the ledger: would a test notice if the code that moves money did something else?

`make mutate` (or `pixr bench mutations`) draws mutants (`settings.toml`), runs the tests that may notice each and reports the
share that was noticed, module by module. It takes hours, can be ended at any time and goes on where it was.

None of the existing tools fits. cosmic-ray (8.7) and mutmut (3.8) change only Python, while half of what the ledger decides is
SQL in string literals; mutmut leaves out constants and everything with a decorator (every property); cosmic-ray runs a command
per mutant, in the checkout itself, without knowing which tests run a line. `operators.py` follows their operators.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.mutations.draw import Plan, equivalents
from benchmarks.mutations.operators import Mutant
from benchmarks.mutations.runner import Runner
from benchmarks.run import Figure
from cluster.settings import Settings

SCORE_MIN = 0.95


@dataclass(frozen=True)
class Score:
    """Counts of mutants by verdict.

    An undecided mutant counts as one that survived. An open mutant has no verdict yet and does not count.
    """

    killed: int
    survived: int
    undecided: int
    equivalent: int
    open: int

    @classmethod
    def of(cls, mutants: Sequence[Mutant], verdicts: Mapping[str, str], equivalent: frozenset[str]) -> Score:
        """Count verdicts; a mutant marked as equivalent that a test notices all the same counts as killed."""
        found = Counter(_became(each.key, verdicts, equivalent) for each in mutants)
        return cls(*(found[name] for name in ("killed", "survived", "undecided", "equivalent", "open")))

    @property
    def ratio(self) -> float | None:
        """The share of mutants with a verdict that a test has noticed, equivalent ones left out; None if there are none."""
        decided = self.killed + self.survived + self.undecided
        return self.killed / decided if decided else None

    def __str__(self) -> str:
        of = self.killed + self.survived + self.undecided
        more = "".join(
            f", {count} {name}" for name, count in (("equivalent", self.equivalent), ("not run", self.open)) if count
        )
        return f"{self.killed} of {of}{more}"


def _became(key: str, verdicts: Mapping[str, str], equivalent: frozenset[str]) -> str:
    verdict = verdicts.get(key)
    return "equivalent" if key in equivalent and verdict != "killed" else verdict or "open"


def run(settings: Settings) -> Iterator[Figure]:
    """Run all mutants that have no verdict yet, then report."""
    runner = Runner(Plan.load(), settings.data_dir / "mutations", print)
    runner.run(time.monotonic() + 10**9)
    yield from report(runner)


def report(runner: Runner) -> Iterator[Figure]:
    """Yield one figure: the score of all modules together, followed by the score of each module."""
    verdicts, equivalent = runner.session.verdicts(runner.hashes), frozenset(equivalents())
    modules = list(dict.fromkeys(each.module for each in runner.sample))
    scores = {module: Score.of([each for each in runner.sample if each.module == module], verdicts, equivalent)
              for module in modules}  # fmt: skip
    total = Score.of(runner.sample, verdicts, equivalent)
    each = "; ".join(f"{module} {score}" for module, score in scores.items())
    yield Figure(
        "mutants of the money modules that a test notices", f"{total} ({each})", f"{SCORE_MIN} wanted", total.ratio
    )


def survivors(runner: Runner) -> list[tuple[str, Mutant]]:
    """Return the mutants that no test has noticed and that are not marked as equivalent, each with its verdict."""
    verdicts, equivalent = runner.session.verdicts(runner.hashes), frozenset(equivalents())
    became = [(_became(each.key, verdicts, equivalent), each) for each in runner.sample]
    return [(name, each) for name, each in became if name in ("survived", "undecided")]
