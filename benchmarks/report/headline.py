"""A headline figure: the patterns that find its rows in LOG.md, and its bar. Knows no rows and no particular figure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

ANYTHING = r"(?P<value>.+)"


@dataclass(frozen=True)
class Bar:
    """The bar that a figure must reach: its value (or, if `of` is "ratio", its ratio to the baseline) at `limit` or better.

    If `limit` is None, the limit is the first number of the row's baseline (`3 ms wanted`). `text` is what the table
    shows as the bar; if it is empty, the table shows the row's baseline.
    """

    better: Literal["more", "less"]
    limit: float | None = None
    of: Literal["value", "ratio"] = "value"
    text: str = ""
    is_binding: bool = True  # else it only says which side of the baseline is the better one

    def is_met(self, number: float, limit: float) -> bool:
        """Whether a number is at the limit or on its better side."""
        return number >= limit if self.better == "more" else number <= limit


MORE, LESS = Bar("more"), Bar("less")  # the baseline is the bar
MORE_IS_BETTER = Bar("more", 1.0, of="ratio", is_binding=False)
LESS_IS_BETTER = Bar("less", 1.0, of="ratio", is_binding=False)


@dataclass(frozen=True)
class Suite:
    """A benchmark suite: its name in the table, and the texts with which the commands of its rows in LOG.md begin."""

    name: str
    commands: tuple[str, ...]


@dataclass(frozen=True)
class Headline:
    """A figure under the name that readers know, and the patterns that find its rows in LOG.md.

    Args:
        suite: What measures it.
        name: What the table calls it.
        figure: A regular expression over the figure's name in LOG.md.
        bar: The bar that it must reach; None if it has none.
        value: A regular expression over the text that follows the name and `: ` in the same cell; empty if `figure` is
            over the whole cell. One of the two has a group `value`, which the table shows.
        baseline: A regular expression over the cell of the baseline, for a figure that was measured beside several.
    """

    suite: Suite
    name: str
    figure: str
    bar: Bar | None = None
    value: str = ANYTHING
    baseline: str = ".*"

    @property
    def pattern(self) -> str:
        """A regular expression over the whole figure cell of a row in LOG.md: the figure's name and its value."""
        return f"{self.figure}: {self.value}" if self.value else self.figure
