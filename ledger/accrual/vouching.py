"""Vouching: how much of a creator's UTC day counts, given what each source has earned them.

A *source* is one API key, or all viewers without a key in one network. All amounts are base units of PIX before the
creator's share is taken ("gross"). Take one source and one UTC day, and let `g(c)` be what the source's appearances
earned creator `c` on it. With

    W  `source_day_pix` times the number of people behind the source (1, or as `shared_networks` says)
    m  `beside_pair_pix`; 0 means no bound
    b  `beside_share_ppm` as a fraction; for trusted creators `fan_in_trust_ppm`, if that is more

what the source earned creator c is divided into two parts, and the second one is bounded (`shares`):

    vouched(c)  = g(c) * min(1, W / sum of g over all creators)
    doubtful(c) = g(c) - vouched(c)
    beside(c)   = min(doubtful(c), m)

Summed over all sources this gives each creator `V` (vouched) and `B` (beside) of the day. With `U`, the mean of V over
the seven days before, what counts of the creator's day is (`counts`)

    counts = V + min(B, b * max(V, U))

Example. W is 80,000 and b is 60 %. Source 1 earns creator A 40,000 and creator B 120,000: together twice W, so half of
each is vouched for. Source 2 earns A 10,000, which is below W. Neither creator had earnings on the days before (U = 0).

    creator A: V = 20,000 + 10,000, B = 20,000, counts = 30,000 + min(20,000, 18,000) = 48,000 of 50,000
    creator B: V = 60,000,          B = 60,000, counts = 60,000 + min(60,000, 36,000) = 96,000 of 120,000

Three bounds follow from the formulas. `tests/ledger/accrual/test_vouching.py` checks them.

1. Farms. n sources that look only at creators of their owner, at whom nobody else looks, are worth at most (1 + b) n W
   a day if these creators stay the same, and at most (1 + 2b) n W on a day on which they are others than before (on
   every day, if the owner takes eight creators in turn). Proof: the V of all these creators sum to at most n W, since
   each source vouches for at most W; so do their U, which are means of such days. At most b max(V, U) counts in
   addition to V, which is at most b V + b U. For trusted creators b is at most 1.
2. Creators whom others look at, too. A source earns them W together, and each of them up to m more, within their own
   b max(V, U). The more such creators a farm pushes, the more it earns them. No rule can prevent this that lets the
   people of an unknown shared network count, since one automated client cannot be told from such a network.
3. Griefing. Nothing that other sources do lowers what counts for a creator: a source's parts follow from its own day
   alone, and what counts never falls when V, B or U rise. The one exception is a neighbour, a viewer without a key in
   the same network, who is part of the same source. Neighbours take at most W from all creators of the network
   together, another b W on the same day, and b W over the seven days whose U contains that day. (This holds while the
   network stays within `address_day_max_pix` on the day; appearances beyond that are not funded for any creator.)

Knows numbers only: no account, no hold, no SQL.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ledger.accrual.groups import Flags, Places
from ledger.money import Amounts
from ledger.settings import PPM, Economics

SCALED_MAX = 2**63 // PPM  # base units of PIX: the largest amount that can be multiplied by PPM in 64 bits
USUAL_DAYS = 7  # days before a day whose mean is U


@dataclass(frozen=True)
class Shares:
    """The parts of what each source has earned each creator on one day: gross = `vouched` + `doubtful`.

    Each part is an int64 array of shape (rows,), in base units of PIX. `beside` is the most of `doubtful` that may
    count.
    """

    vouched: Amounts
    doubtful: Amounts
    beside: Amounts


def shares(starts: Flags, gross: Amounts, people: Amounts, economics: Economics) -> Shares:
    """Divide what each source earned each creator on a day into its parts.

    The example of the module, two sources and three rows (source 1 with A and B, source 2 with A):

    >>> rules = Economics(source_day_pix=80_000, beside_share_ppm=600_000, beside_pair_pix=0)
    >>> starts, people = np.array([True, False, True]), np.array([1, 1])
    >>> parts = shares(starts, np.array([40_000, 120_000, 10_000]), people, rules)
    >>> parts.vouched.tolist(), parts.beside.tolist()
    ([20000, 60000, 10000], [20000, 60000, 0])

    Args:
        starts: bool, shape (rows,). True where the day of another source begins. Rows of one source's day stand
            together, one row for each creator.
        gross: int64, shape (rows,), base units of PIX. What the source earned the creator.
        people: int64, shape (source days,): as many as `starts` has True. How many people are behind each source.
        economics: `source_day_pix` (0: everything is vouched for) and `beside_pair_pix` (0: no bound) are read.

    Returns:
        The parts of each row, in the order of the rows.
    """
    if not economics.source_day_pix or not len(gross):
        return Shares(gross, np.zeros_like(gross), np.zeros_like(gross))
    vouched_max = min(economics.source_day_pix, SCALED_MAX) * people  # (source days,)
    vouched = _scaled_down(gross, np.flatnonzero(starts), np.cumsum(starts) - 1, vouched_max)  # (rows,)
    doubtful = gross - vouched
    pair_max = economics.beside_pair_pix
    return Shares(vouched, doubtful, np.minimum(doubtful, pair_max) if pair_max else doubtful)


def counts(vouched: Amounts, usual: Amounts, beside: Amounts, trusted: Flags, economics: Economics) -> Amounts:
    """Return what counts of creators' days: `vouched + min(beside, b * max(vouched, usual))`.

    The example of the module, creators A and B:

    >>> rules = Economics(beside_share_ppm=600_000)
    >>> vouched, beside, nothing = np.array([30_000, 60_000]), np.array([20_000, 60_000]), np.array([0, 0])
    >>> counts(vouched, nothing, beside, np.array([False, False]), rules).tolist()
    [48000, 96000]

    Args:
        vouched: int64, shape (days of creators,), base units of PIX, as all others. V: the sum over all sources.
        usual: int64, same shape. U: the mean of V over the `USUAL_DAYS` days before.
        beside: int64, same shape. B: the sum over all sources.
        trusted: bool, same shape. True where a person has released a hold of the creator: they have looked at the
            audience and accepted it.
        economics: `beside_share_ppm` and `fan_in_trust_ppm` are read.

    Returns:
        int64, same shape, base units of PIX: at least `vouched`, at most `vouched + beside`.
    """
    trust_ppm = max(economics.beside_share_ppm, economics.fan_in_trust_ppm)
    share_ppm = np.where(trusted, trust_ppm, economics.beside_share_ppm)
    return np.asarray(vouched + np.minimum(beside, _part(np.maximum(vouched, usual), share_ppm)), np.int64)


def _scaled_down(amounts: Amounts, firsts: Places, source_of_row: Places, sums_max: Amounts) -> Amounts:
    """Scale down the amounts of each source in proportion if their sum is above the source's `sums_max`.

    `amounts` and `source_of_row` are (rows,); `firsts`, the first row of each source, and `sums_max` are (source
    days,).
    """
    sums = np.add.reduceat(amounts, firsts)  # (source days,)
    ppm = np.full(len(sums), PPM, np.int64)
    above = sums > sums_max
    ppm[above] = np.minimum(sums_max[above], SCALED_MAX) * PPM // sums[above]
    return _part(amounts, ppm[source_of_row])


def _part(amounts: Amounts, ppm: Amounts) -> Amounts:
    """Return amounts * ppm / PPM, rounded down; no intermediate value exceeds 64 bits."""
    return np.asarray(amounts // PPM * ppm + amounts % PPM * ppm // PPM, np.int64)
