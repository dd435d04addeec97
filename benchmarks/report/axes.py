"""Axes: round numbers for ticks, and where a value lies on paper. Knows no chart."""

from __future__ import annotations

import math
from dataclasses import dataclass

TICKS = 5  # about as many


@dataclass(frozen=True)
class Axis:
    """An axis: it maps values from the first to the last tick to coordinates from `start` to `stop`.

    There are at least two ticks, in rising order.
    """

    ticks: tuple[float, ...]
    start: float
    stop: float
    is_log: bool = False

    def place(self, value: float) -> float:
        """Return the coordinate of a value."""
        low, high, here = (math.log(each) if self.is_log else each for each in (self.ticks[0], self.ticks[-1], value))
        return self.start + (here - low) / (high - low) * (self.stop - self.start)


def linear_ticks(low: float, high: float) -> tuple[float, ...]:
    """Return round numbers in even steps, the first not above `low`, the last not below `high`; `low` < `high`."""
    rough = (high - low) / TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(each * power for each in (1, 2, 5, 10) if each * power >= rough)
    return tuple(round(n * step, 9) for n in range(math.floor(low / step), math.ceil(high / step) + 1))


def log_ticks(low: float, high: float) -> tuple[float, ...]:
    """Return 1, 2 and 5 times powers of ten, the first not above `low`, the last not below `high`; 0 < `low` < `high`."""
    powers = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
    numbers = [round(each * 10.0**power, 9) for power in powers for each in (1, 2, 5)]
    first, last = max(each for each in numbers if each <= low), min(each for each in numbers if each >= high)
    return tuple(each for each in numbers if first <= each <= last)


def short(value: float) -> str:
    """Write a number for a tick: `0.95`, `250`, `1.5 M`."""
    for size, letter in ((1e6, " M"), (1e3, " k")):
        if value >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"
