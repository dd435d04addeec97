"""Rows grouped by equal values: sorted once, then summed and selected for several rules.

Sorting is most of the arithmetic of a fold. So a fold sorts its rows only twice, by (viewer, segment) and by segment, and
everything else works on the groups that result. Knows numbers only, not what they stand for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Places = NDArray[np.int64]  # indices of rows, or of groups
Flags = NDArray[np.bool_]

DIGIT_BITS, DIGITS_MAX = 16, 3


def order_of(values: NDArray[Any]) -> Places:
    """Return the stable ascending order of whole numbers.

    Args:
        values: any integer dtype, shape (rows,).

    Returns:
        int64, shape (rows,): indices such that `values[order]` ascends; equal values keep their order.
    """
    if not len(values):
        return np.zeros(0, np.int64)
    least = values.min()
    bits = (int(values.max()) - int(least)).bit_length()
    if bits > DIGITS_MAX * DIGIT_BITS:
        return np.argsort(values, kind="stable")
    with np.errstate(over="ignore"):
        return _order_by_digits((values - least).astype(np.uint64), range(0, bits, DIGIT_BITS))


def order_of_hashes(hashes: NDArray[np.uint64]) -> Places:
    """Return the stable ascending order of values that are spread evenly over 64 bits.

    Sorts by the leading 48 bits, which nearly always decide, then checks the result; whole hashes are sorted only if
    two that share these bits are out of order.

    Args:
        hashes: uint64, shape (rows,).

    Returns:
        int64, shape (rows,): indices such that `hashes[order]` ascends; equal hashes keep their order.
    """
    order = _order_by_digits(hashes, range(64 - DIGITS_MAX * DIGIT_BITS, 64, DIGIT_BITS))
    ordered = hashes[order]
    return order if bool((ordered[1:] >= ordered[:-1]).all()) else np.argsort(hashes, kind="stable")


def _order_by_digits(values: NDArray[np.uint64], shifts: range) -> Places:
    """Return the indices that sort `values` by the 16-bit digits at these shifts, the least significant first (a radix sort).

    numpy's stable sort of 16-bit numbers is a radix sort too, which is much quicker than comparing 64-bit numbers.
    """
    order = np.arange(len(values))
    for shift in shifts:
        digit = (values >> np.uint64(shift)).astype(np.uint16)
        order = order[np.argsort(digit[order], kind="stable")]
    return order


def changes(*columns: NDArray[Any]) -> Flags:
    """Return a flag for each row, shape (rows,): True on the first row and where a column differs from the row before.

    Each of `columns` has the shape (rows,).
    """
    starts = np.zeros(len(columns[0]), np.bool_)
    starts[:1] = True
    for column in columns:
        starts[1:] |= column[1:] != column[:-1]
    return starts


@dataclass(frozen=True)
class Groups:
    """Rows in groups. Group i holds the rows `order[bounds[i]:bounds[i + 1]]`.

    Without an `order` it holds the rows `bounds[i]` to `bounds[i + 1] - 1` themselves.
    """

    order: Places | None  # (rows,)
    bounds: Places  # (groups + 1,), ascending

    @classmethod
    def where(cls, order: Places, starts: Flags) -> Groups:
        """Make groups of rows that were sorted.

        Args:
            order: int64, shape (rows,). The rows in the order in which they are grouped.
            starts: bool, shape (rows,). True at each place of `order` where a group begins.

        Returns:
            The groups; each has a row at least.
        """
        return cls(order, np.append(np.flatnonzero(starts), len(order)))

    @property
    def sizes(self) -> Places:
        """The number of rows of each group, shape (groups,)."""
        return np.diff(self.bounds)

    @property
    def firsts(self) -> Places:
        """The first row of each group, shape (groups,). No group may be empty."""
        return self.bounds[:-1] if self.order is None else self.order[self.bounds[:-1]]

    def sums(self, amounts: NDArray[np.int64]) -> NDArray[np.int64]:
        """Sum amounts group by group.

        Args:
            amounts: int64, shape (rows,). The sum of all of them must fit 64 bits.

        Returns:
            int64, shape (groups,): the exact sum of each group's rows; 0 for an empty group.
        """
        running = np.zeros(len(amounts) + 1, np.int64)
        np.cumsum(amounts if self.order is None else amounts[self.order], out=running[1:])
        return running[self.bounds[1:]] - running[self.bounds[:-1]]

    def rows(self, chosen: Places) -> tuple[Places, Places]:
        """List the rows of some groups, group by group.

        Args:
            chosen: int64, shape (chosen,). The groups.

        Returns:
            Two int64 arrays of shape (rows of the chosen groups,): the rows, and for each the place in `chosen` of its
            group.
        """
        sizes = self.sizes[chosen]
        group = np.repeat(np.arange(len(chosen)), sizes)
        within = np.arange(len(group)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        places = self.bounds[:-1][chosen][group] + within
        return (places if self.order is None else self.order[places]), group
