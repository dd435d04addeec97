"""Money is a whole number of base units. Checks of amounts that come in, and splits whose parts sum exactly to the whole.

A split rounds every part down, then gives one more unit each to the parts with the largest remainders, until nothing is
left (Hamilton's method; of equal remainders the earlier part comes first). So each part is off by less than one unit.

    >>> split(100, (1, 1, 1))
    (34, 33, 33)

Knows no account.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cluster.errors import Rejected
from ledger.settings import AMOUNT_MAX, PPM, Economics

Amounts = NDArray[np.int64]  # base units of PIX


def amount(value: object, what: str = "amount") -> int:
    """Return `value` as base units; errors name it `what`.

    Raises:
        Rejected: it is not a whole number, is negative, or is above 2^63 - 1.
    """
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise Rejected(f"{what} is {value!r}, expected a whole number of base units", code="amount-not-whole")
    if value < 0:
        raise Rejected(f"{what} is {value}, expected 0 or more", code="amount-negative")
    if value > AMOUNT_MAX:
        raise Rejected(f"{what} is {value}, more than 2^63 - 1", code="amount-too-large")
    return int(value)


def split(whole: int, weights: Sequence[int]) -> tuple[int, ...]:
    """Split `whole` in proportion to `weights`; the parts sum to it.

    Raises:
        Rejected: `whole` is not an amount, a weight is negative, or no weight is above zero.
    """
    whole = amount(whole)
    total = sum(weights)
    if not weights or total <= 0 or min(weights) < 0:
        raise Rejected(f"weights {list(weights)} cannot divide an amount", code="weights-invalid")
    parts = [whole * weight // total for weight in weights]
    by_remainder = sorted(range(len(weights)), key=lambda i: (-(whole * weights[i] % total), i))
    for i in by_remainder[: whole - sum(parts)]:
        parts[i] += 1
    return tuple(parts)


def split_many(wholes: Amounts, share_ppm: int) -> tuple[Amounts, Amounts]:
    """Split each amount in two, as `split(whole, (share_ppm, PPM - share_ppm))` does.

    Args:
        wholes: int64, shape (rows,), base units of PIX, 0 or more.
        share_ppm: the share of the first part, 0 to 1,000,000.

    Returns:
        The first and the second parts: two int64 arrays of shape (rows,), base units of PIX.
    """
    millions = wholes // PPM  # numpy divides by a constant quickly, but has no quick remainder
    part = (wholes - millions * PPM) * share_ppm
    floor = part // PPM
    first = millions * share_ppm + floor + ((part - floor * PPM) * 2 >= PPM)
    return first, wholes - first


def appearance_amount(economics: Economics, relevance_ppm: int, *, anonymous: bool = False) -> int:
    """Return what one appearance earns in all, before it is split, in base units of PIX.

    This is relevance * `rate_pix`, rounded down. An anonymous viewer's appearance earns `anonymous_weight_ppm` of that,
    also rounded down.
    """
    whole = relevance_ppm * economics.rate_pix // PPM
    return whole * economics.anonymous_weight_ppm // PPM if anonymous else whole
