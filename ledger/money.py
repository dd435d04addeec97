"""Money is a whole number of base units. Checks at the door, and splits that sum exactly.

A split gives every part its floor and hands the units left over to the largest remainders (Hamilton's method; ties go
to the earlier part), so that the parts always sum to the whole and none is off by one unit or more. Knows no account.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cluster.errors import Rejected
from ledger.settings import AMOUNT_MAX, PPM, Economics

Amounts = NDArray[np.int64]


def amount(value: object, what: str = "amount") -> int:
    """`value` as base units.

    Raises:
        Rejected: not a whole number, negative, or above 2^63 - 1.
    """
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise Rejected(f"{what} is {value!r}, expected a whole number of base units", code="amount-not-whole")
    if value < 0:
        raise Rejected(f"{what} is {value}, expected 0 or more", code="amount-negative")
    if value > AMOUNT_MAX:
        raise Rejected(f"{what} is {value}, more than 2^63 - 1", code="amount-too-large")
    return int(value)


def split(whole: int, weights: Sequence[int]) -> tuple[int, ...]:
    """`whole` in proportion to `weights`, exactly.

    Raises:
        Rejected: a weight is negative, or none is above zero.
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
    """Each of `wholes` in two, the first part being `share_ppm`; equal to `split` of each, without a loop."""
    millions = wholes // PPM  # dividing by a constant is quick in numpy, the rest of a division is not
    part = (wholes - millions * PPM) * share_ppm
    floor = part // PPM
    first = millions * share_ppm + floor + ((part - floor * PPM) * 2 >= PPM)
    return first, wholes - first


def appearance_amount(economics: Economics, relevance_ppm: int, *, anonymous: bool = False) -> int:
    """What one appearance of this relevance earns in all, before it is split."""
    whole = relevance_ppm * economics.rate_pix // PPM
    return whole * economics.anonymous_weight_ppm // PPM if anonymous else whole


def parts_of(economics: Economics, whole: int, stakes: Sequence[int] = ()) -> tuple[int, int, tuple[int, ...]]:
    """Creator's, platform's and investors' parts of one appearance; `stakes` are what the investors put in."""
    creator, rest = split(whole, (economics.creator_share_ppm, PPM - economics.creator_share_ppm))
    if not stakes or sum(stakes) <= 0:
        return creator, rest, ()
    platform, shared = split(rest, (PPM - economics.investors_share_ppm, economics.investors_share_ppm))
    return creator, platform, split(shared, stakes)
