"""A headline figure: which rows of LOG.md it is, and what it is held to. Knows neither rows nor which figures there are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

ANYTHING = r"(?P<value>.+)"


@dataclass(frozen=True)
class Bar:
    """What is wanted of a figure's first number, or of its ratio to the baseline: `limit` or better.

    Without a limit the row's baseline is the bar and its first number the limit (`3 ms wanted`). Without a text the row's
    baseline says what the bar is.
    """

    better: Literal["more", "less"]
    limit: float | None = None
    of: Literal["value", "ratio"] = "value"
    text: str = ""
    is_binding: bool = True  # else it only says which side of the baseline is the better one

    def is_met(self, number: float, limit: float) -> bool:
        """Compare a number with the limit."""
        return number >= limit if self.better == "more" else number <= limit


MORE, LESS = Bar("more"), Bar("less")  # the baseline is the bar
MORE_IS_BETTER = Bar("more", 1.0, of="ratio", is_binding=False)
LESS_IS_BETTER = Bar("less", 1.0, of="ratio", is_binding=False)


@dataclass(frozen=True)
class Suite:
    """What measures: its name in the table, and how the commands of its rows begin."""

    name: str
    commands: tuple[str, ...]


@dataclass(frozen=True)
class Headline:
    """A figure as readers know it, and its rows.

    Args:
        suite: What measures it.
        name: What the table calls it.
        figure: A regular expression over the figure's name in LOG.md.
        bar: What it is held to, or None where nothing is better or worse than its baseline.
        value: A regular expression over what follows the name, or nothing where `figure` is of the whole cell; one of them has
            a group `value`, which the table shows.
        baseline: A regular expression over the baseline, where a figure has stood beside several.
    """

    suite: Suite
    name: str
    figure: str
    bar: Bar | None = None
    value: str = ANYTHING
    baseline: str = ".*"

    @property
    def pattern(self) -> str:
        """A regular expression over the whole cell of LOG.md."""
        return f"{self.figure}: {self.value}" if self.value else self.figure
