"""Equal values brought together: one sort, and what follows from it for several rules. Knows numbers and nothing else.

Sorting is what a fold spends its arithmetic on, so it sorts its rows twice, by what was seen and by segment, and works
on groups of rows from there on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Places = NDArray[np.int64]
Flags = NDArray[np.bool_]

DIGIT_BITS, DIGITS_MAX = 16, 3


def order_of(values: NDArray[Any]) -> Places:
    """Where whole numbers stand in ascending order, equal ones in the order they came."""
    if not len(values):
        return np.zeros(0, np.int64)
    least = values.min()
    bits = (int(values.max()) - int(least)).bit_length()
    if bits > DIGITS_MAX * DIGIT_BITS:
        return np.argsort(values, kind="stable")
    with np.errstate(over="ignore"):
        return _by_digits((values - least).astype(np.uint64), range(0, bits, DIGIT_BITS))


def order_of_hashes(hashes: NDArray[np.uint64]) -> Places:
    """The same where the leading bits nearly always decide: sorted by those, then looked at."""
    order = _by_digits(hashes, range(64 - DIGITS_MAX * DIGIT_BITS, 64, DIGIT_BITS))
    ordered = hashes[order]
    return order if bool((ordered[1:] >= ordered[:-1]).all()) else np.argsort(hashes, kind="stable")


def _by_digits(values: NDArray[np.uint64], shifts: range) -> Places:
    """Sorted digit by digit, the last first: numpy sorts 16 bits by counting, much quicker than it compares 64."""
    order = np.arange(len(values))
    for shift in shifts:
        digit = (values >> np.uint64(shift)).astype(np.uint16)
        order = order[np.argsort(digit[order], kind="stable")]
    return order


def changes(*columns: NDArray[Any]) -> Flags:
    """Rows at which a column has another value than in the row before; the first row is one."""
    found = np.zeros(len(columns[0]), np.bool_)
    found[:1] = True
    for column in columns:
        found[1:] |= column[1:] != column[:-1]
    return found


@dataclass(frozen=True)
class Groups:
    """Rows in groups: group i is `order[bounds[i]:bounds[i + 1]]`, or those rows themselves where there is no order."""

    order: Places | None
    bounds: Places  # one more than there are groups

    @classmethod
    def where(cls, order: Places, starts: Flags) -> Groups:
        """Groups of rows in an order, each beginning where `starts` says so."""
        return cls(order, np.append(np.flatnonzero(starts), len(order)))

    @property
    def sizes(self) -> Places:
        return np.diff(self.bounds)

    @property
    def firsts(self) -> Places:
        """The first row of each group; there is no empty one."""
        return self.bounds[:-1] if self.order is None else self.order[self.bounds[:-1]]

    def sums(self, amounts: NDArray[np.int64]) -> NDArray[np.int64]:
        """What the rows of each group come to, exactly; an empty group to nothing."""
        running = np.zeros(len(amounts) + 1, np.int64)
        np.cumsum(amounts if self.order is None else amounts[self.order], out=running[1:])
        return running[self.bounds[1:]] - running[self.bounds[:-1]]

    def rows(self, chosen: Places) -> tuple[Places, Places]:
        """Every row of the chosen groups, and the place in `chosen` of the group that it is of."""
        sizes = self.sizes[chosen]
        of = np.repeat(np.arange(len(chosen)), sizes)
        within = np.arange(len(of)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        places = self.bounds[:-1][chosen][of] + within
        return (places if self.order is None else self.order[places]), of
