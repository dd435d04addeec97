"""Vouching: what of a creator's UTC day counts, by what each viewer has earned them of it.

What one viewer earns one creator is vouched for up to a bound, as is what one viewer earns all of them. The rest is
doubtful, and so is all that a *captive* viewer earns those they are captive to: one nearly all of whose day goes to as many
creators as a setting says. Of a creator's doubtful part, of which each viewer brings a bounded amount, as much counts as a
small circle of friends would earn them, or a share of what is vouched for, if that is more.

So a viewer is worth a bounded amount to whoever makes viewers, whatever these look at. And nothing that other viewers do
lowers what counts for a creator: nobody can be harmed by being looked at. But all without a key of one network are one viewer:
what one of them looks at is of the others' day, too. Knows numbers, no account and no hold.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ledger.groups import Flags, Places
from ledger.money import Amounts
from ledger.settings import PPM, Economics

SCALED_MAX = 2**63 // PPM  # base units: what can be taken a share of


@dataclass(frozen=True)
class Shares:
    """Parts of what each viewer's day with a creator is worth: `vouched` and `doubtful` are all of it.

    `free` is what of the doubtful part a small circle may bring: each viewer so much a day, whomever it is for.
    """

    vouched: Amounts
    doubtful: Amounts
    free: Amounts


def rules(economics: Economics) -> str:
    """What shares follow from; those of other rules are to be reckoned again."""
    of = economics
    return (
        f"captive {of.captive_share_ppm} of {of.captive_min_pix} to {of.captive_creators},"
        f" vouched {of.vouched_pix} of {of.viewer_vouched_pix}, free {of.viewer_free_pix}"
    )


def shares(starts: Flags, gross: Amounts, economics: Economics) -> Shares:
    """The parts of each row, of which one is what a viewer was worth to a creator on a day.

    `starts`: where another viewer's day begins, each creator of which comes once.
    """
    if not economics.captive_share_ppm or not len(gross):
        return Shares(gross, np.zeros_like(gross), np.zeros_like(gross))
    firsts, group = np.flatnonzero(starts), np.cumsum(starts) - 1
    captive = _captive(gross, firsts, group, economics)
    first = np.where(captive, 0, np.minimum(gross, economics.vouched_pix))
    vouched = _within(first, firsts, group, economics.viewer_vouched_pix)
    doubtful = gross - vouched
    return Shares(vouched, doubtful, _within(doubtful, firsts, group, economics.viewer_free_pix))


def counts(vouched: Amounts, doubtful: Amounts, free: Amounts, trusted: Flags, economics: Economics) -> Amounts:
    """What counts of each creator's day, by the sums of its parts.

    Of `trusted` creators' doubtful parts more counts: a person has looked, and it was nothing.
    """
    most = max(economics.creator_free_pix, economics.fan_in_trust_pix)
    circle = np.where(trusted, most, economics.creator_free_pix)
    beside = _part(vouched, economics.doubtful_share_ppm)
    return np.asarray(vouched + np.minimum(np.minimum(free, doubtful), np.maximum(circle, beside)), np.int64)


def _captive(gross: Amounts, firsts: Places, group: Places, economics: Economics) -> Flags:
    """Rows of viewers with the creators that they are captive to: the few who get most of their day."""
    order = np.lexsort((-gross, group))  # groups follow each other already, so this keeps their places
    best = np.zeros(len(gross), np.bool_)
    best[order] = np.arange(len(gross)) - firsts[group] < economics.captive_creators
    whole, most = np.add.reduceat(gross, firsts), np.add.reduceat(np.where(best, gross, 0), firsts)
    is_captive = (whole >= economics.captive_min_pix) & (most >= _part(whole, economics.captive_share_ppm))
    return np.asarray(best & is_captive[group], np.bool_)


def _within(amounts: Amounts, firsts: Places, group: Places, most: int) -> Amounts:
    """The same amounts, in proportion less where those of one viewer come to more than `most`."""
    sums = np.add.reduceat(amounts, firsts)
    ppm = np.full(len(sums), PPM, np.int64)
    over = sums > most
    ppm[over] = min(most, SCALED_MAX) * PPM // sums[over]
    return _part(amounts, ppm[group])


def _part(amounts: Amounts, ppm: Amounts | int) -> Amounts:
    """That share of each amount, rounded down, without leaving 64 bits on the way."""
    return np.asarray(amounts // PPM * ppm + amounts % PPM * ppm // PPM, np.int64)
