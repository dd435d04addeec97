"""Learning: how a farm finds its best tactic, from earnings that can no longer be taken back.

A farm begins with the tactics that a reader of the rules would choose. Its cells try each of these and variations of
the best ones. They see what a day has earned only when that is final, days later. From a given day on, all cells use
the tactic that has earned most. Knows no rule: it sees only money.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

AGAIN_SHARE = 0.2  # of tries: the best one once more, so that luck is found out
BEST = 2  # of which variations are tried
SIGMA_FIRST, SIGMA_LAST = 0.9, 0.25  # of a variation's logarithm, in the course of trying


@dataclass(frozen=True)
class Tactic:
    """What a cell's bots do on a day."""

    spread: float = 1.0  # own creators that each bot looks at
    depth: float = 20.0  # looks at each of these
    aside: float = 0.0  # looks at each other one of the cell's creators
    cover: float = 0.0  # looks at others for each look at an own creator
    active: float = 1.0  # of the bots
    growth: float = 100.0  # times as many bots each day, from one on

    def varied(self, rng: np.random.Generator, sigma: float) -> Tactic:
        """Return a random variation of this tactic; `sigma` is the spread of the log-normal factors."""
        factor = np.exp(rng.normal(0, sigma, 6))
        return Tactic(
            spread=float(np.clip(self.spread * factor[0], 1, 1000)),
            depth=float(np.clip(self.depth * factor[1], 1, 100_000)),
            cover=float(np.clip((self.cover + 0.05) * factor[2] - 0.05, 0, 6)),
            active=float(np.clip(self.active * factor[3], 0.05, 1)),
            growth=float(np.clip(self.growth * factor[4], 1.2, 100)),
            aside=float(np.clip(self.aside * factor[5], 0, 1000)),
        )


@dataclass(frozen=True)
class Pace:
    """How long a farm works, in days: it tries tactics until day `learned`; what it earns from then on is measured."""

    cells: int = 6
    days: int = 26
    learned: int = 18
    period: int = 2  # a try

    def __post_init__(self) -> None:
        if not 0 < self.learned < self.days:
            raise ValueError(f"learned is {self.learned}, expected 1 to {self.days - 1}")


@dataclass(eq=False)
class Trial:
    """A tactic and its results so far: `gain` base units, earned in `days` days of one cell each."""

    tactic: Tactic
    days: int = 0
    gain: int = 0

    @property
    def a_day(self) -> float:
        return self.gain / max(1, self.days)


@dataclass
class Learner:
    """Chooses the tactics of a farm's cells, day by day."""

    pace: Pace
    openings: Sequence[Tactic]
    rng: np.random.Generator
    trials: list[Trial] = field(default_factory=list)
    evaluations: int = 0  # tries whose outcome was known before the measured days
    _at_work: dict[tuple[int, int], int] = field(default_factory=dict)  # by cell and day, which trial

    def tactics(self, day: int) -> list[Tactic]:
        """Choose and return each cell's tactic for this day."""
        if day == 0 or (day <= self.pace.learned and day % self.pace.period == 0) or day == self.pace.learned:
            chosen = [self._choose(cell, day) for cell in range(self.pace.cells)]
        else:
            chosen = [self._at_work[cell, day - 1] for cell in range(self.pace.cells)]
        for cell, trial in enumerate(chosen):
            self._at_work[cell, day] = trial
        return [self.trials[trial].tactic for trial in chosen]

    def see(self, day: int, gains: NDArray[np.int64], *, is_in_time: bool) -> None:
        """Add the final earnings of each cell on a day, (cells,), to its tactic.

        `is_in_time` says that the measured days have not begun, so that these earnings can still decide a choice.
        """
        for cell, gain in enumerate(gains.tolist()):
            trial = self.trials[self._at_work[cell, day]]
            trial.days += 1
            trial.gain += gain
            self.evaluations += is_in_time and (day + 1) % self.pace.period == 0

    def best(self) -> Trial:
        """Return the trial with the largest gain a day; the first one while no gain is known."""
        known = [each for each in self.trials if each.days]
        return max(known, key=lambda each: each.a_day) if known else self.trials[0]

    def _choose(self, cell: int, day: int) -> int:
        if day >= self.pace.learned:
            return self.trials.index(self.best())
        if len(self.trials) < len(self.openings):
            return self._add(self.openings[len(self.trials)])
        known = sorted((each for each in self.trials if each.days), key=lambda each: -each.a_day)
        if known and self.rng.random() < AGAIN_SHARE:
            return self.trials.index(self.best())
        if not known:
            return cell % len(self.openings)
        like = known[int(self.rng.integers(0, min(BEST, len(known))))]
        sigma = SIGMA_FIRST + (SIGMA_LAST - SIGMA_FIRST) * day / self.pace.learned
        return self._add(like.tactic.varied(self.rng, sigma))

    def _add(self, tactic: Tactic) -> int:
        self.trials.append(Trial(tactic))
        return len(self.trials) - 1
