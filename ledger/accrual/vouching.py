"""Vouching: what of a creator's UTC day counts, by what each source has earned them of it.

A source is a key, or all viewers without one of a network. What it earns all creators together is vouched for up to W
(`source_day_pix`, for each of the people of a shared network), in proportion where it earns more. Of the rest of a creator's
day, of which one source brings a bounded amount, counts what is within a share b (`beside_share_ppm`) of what is vouched for:
of that day, or of the mean of the days before if that is more. Two bounds follow, whatever anybody looks at:

A source is worth at most (1 + b) W a day to those who own it, and (1 + 2b) W on a day on which they change the creators whom
they push. For what is vouched for of n sources comes to n W at most, for all creators whom nobody else looks at together; so
does the sum of these creators' means, of days that come to no more. Beside that counts b times the greater of the two for each
creator: b n W where no creator's mean is above their day, and never more than b times both sums. The b of creators
whom a person has believed for a while (`fan_in_trust_ppm`) is 1 at most: W beside W, where these stay the same.

Nothing that others do lowers what counts for a creator, but a neighbour without a key in the same network. For what is vouched
for of a source, and the rest, follow from its own day alone; looks of other sources add to either, and what counts grows with
both. A neighbour takes no more than the W of their network from all its creators, with b W beside it on that day, and b W over
the seven that are measured by it: what the network has brought beyond that counts by what others are vouched for. (That holds
while the network's day is within `address_day_max_pix`: beyond it nothing is funded, no matter for whom.)

Knows numbers, no account and no hold.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ledger.accrual.groups import Flags, Places
from ledger.money import Amounts
from ledger.settings import PPM, Economics

SCALED_MAX = 2**63 // PPM  # base units: what can be taken a share of
USUAL_DAYS = 7  # the days before, by the mean of which a day may be measured


@dataclass(frozen=True)
class Shares:
    """Parts of what each source's day with a creator is worth: `vouched` and `doubtful` are all of it.

    `beside` is what of the doubtful part may count at most.
    """

    vouched: Amounts
    doubtful: Amounts
    beside: Amounts


def shares(starts: Flags, gross: Amounts, people: Amounts, economics: Economics) -> Shares:
    """The parts of each row, of which one is what a source was worth to a creator on a day.

    `starts`: where another source's day begins, each creator of which comes once; `people`: of each of these sources.
    """
    if not economics.source_day_pix or not len(gross):
        return Shares(gross, np.zeros_like(gross), np.zeros_like(gross))
    most = min(economics.source_day_pix, SCALED_MAX) * people
    vouched = _within(gross, np.flatnonzero(starts), np.cumsum(starts) - 1, most)
    doubtful = gross - vouched
    bound = economics.beside_pair_pix
    return Shares(vouched, doubtful, np.minimum(doubtful, bound) if bound else doubtful)


def counts(vouched: Amounts, usual: Amounts, beside: Amounts, trusted: Flags, economics: Economics) -> Amounts:
    """What counts of each creator's day, by the sums of its parts; `usual` is the mean of what the days before are vouched for.

    For `trusted` creators the share is another: a person has looked, and it was nothing.
    """
    trust_ppm = max(economics.beside_share_ppm, economics.fan_in_trust_ppm)
    share = np.where(trusted, trust_ppm, economics.beside_share_ppm)
    return np.asarray(vouched + np.minimum(beside, _part(np.maximum(vouched, usual), share)), np.int64)


def _within(amounts: Amounts, firsts: Places, group: Places, most: Amounts) -> Amounts:
    """The same amounts, in proportion less where those of one source come to more than its `most`."""
    sums = np.add.reduceat(amounts, firsts)
    ppm = np.full(len(sums), PPM, np.int64)
    over = sums > most
    ppm[over] = np.minimum(most[over], SCALED_MAX) * PPM // sums[over]
    return _part(amounts, ppm[group])


def _part(amounts: Amounts, ppm: Amounts) -> Amounts:
    """That share of each amount, rounded down, without leaving 64 bits on the way."""
    return np.asarray(amounts // PPM * ppm + amounts % PPM * ppm // PPM, np.int64)
