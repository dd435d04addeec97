"""What of a creator's day counts: a viewer is worth a bounded amount, and nothing that others do lowers it."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from ledger import pairs, vouching
from ledger.audience import Audience
from ledger.pairs import Pairs
from ledger.runfiles import Run, rows_of
from ledger.settings import Economics
from ledger.totals import Totals

DAY = 20_000
ECONOMICS = Economics()
Rows = list[tuple[int, int, int]]  # viewer, creator, what it was worth
# Sixty creators, each seen a little by ten viewers, who see fifteen of them.
WORLD: Rows = [(viewer, 100 + (viewer * 15 + n) % 60, 3_000) for viewer in range(40) for n in range(15)]


def as_pairs(rows: Rows) -> Pairs:
    viewers, creators, gross = (np.array(column) for column in zip(*rows, strict=True))
    days = np.full(len(rows), DAY, np.uint16)
    return Pairs(viewers.astype(np.uint64), creators.astype(np.int64), days, gross.astype(np.int64), gross * 9 // 10)


def reckoned(*pieces: Pairs, economics: Economics = ECONOMICS) -> Totals:
    """What the day comes to when these were shown one after another, with a review after each."""
    audience = Audience(economics)
    for number, piece in enumerate(pieces, 1):
        audience.accept(Run(rows_of((number, number)), pairs.columns_of(piece), is_sorted=False))
        judgement = audience.judge(DAY, DAY)
        assert judgement is not None
        audience.judged(judgement, Run(rows_of((number, number)), judgement.changed.columns))
    keys = np.unique(np.concatenate([run.keys for run in audience.totals.runs]))
    return Totals.of(audience.totals.runs, keys)


def earned(rows: Rows, economics: Economics = ECONOMICS, trusted: frozenset[int] = frozenset()) -> dict[int, int]:
    """What counts, by creator, of what these rows have earned."""
    totals = reckoned(as_pairs(rows), economics=economics)
    found = totals.earned(np.array(sorted(trusted), np.int64), economics)
    return dict(zip(totals.creators.tolist(), found.tolist(), strict=True))


def looks(viewers: range, creators: range, worth: int) -> Rows:
    return [(viewer, creator, worth) for viewer in viewers for creator in creators]


BOTS = range(1000, 1200)


def test_an_audience_earns_in_full() -> None:
    assert earned(WORLD)[100] == 10 * 3_000 * 9 // 10


def test_one_viewer_is_vouched_for_up_to_a_bound() -> None:
    rows = [*WORLD, *looks(BOTS, range(100, 103), 40_000)]  # a third each: captive to none of the three
    vouched, economics = 10 * 3_000 + len(BOTS) * 10_000, ECONOMICS
    assert earned(rows, economics)[100] == vouched * 12 // 10 * 9 // 10
    assert earned(rows, dataclasses.replace(economics, doubtful_share_ppm=0))[100] == (vouched + 100_000) * 9 // 10
    assert earned(rows, dataclasses.replace(economics, captive_share_ppm=0))[100] == (30_000 + 200 * 40_000) * 9 // 10


@pytest.mark.parametrize(("ring", "counts"), [(1, 100_000), (2, 100_000), (3, 100_000), (4, 200 * 10_000 * 12 // 10)])
def test_who_looks_at_few_is_captive_and_the_setting_says_how_many_are_few(ring: int, counts: int) -> None:
    rows = [*WORLD, *looks(BOTS, range(1, 1 + ring), 40_000)]
    got = earned(rows, dataclasses.replace(ECONOMICS, captive_creators=3))
    assert set(list(got.items())[:ring]) == {(1 + n, counts * 9 // 10) for n in range(ring)}


def test_no_more_than_the_setting_are_few_and_none_where_it_is_none() -> None:
    rows = [*WORLD, *looks(BOTS, range(1, 3), 40_000)]
    for most, counts in ((2, 100_000), (1, 2_400_000), (0, 2_400_000)):
        assert earned(rows, dataclasses.replace(ECONOMICS, captive_creators=most))[1] == counts * 9 // 10


def test_a_day_that_is_worth_little_makes_nobody_captive() -> None:
    for worth, counts in ((2_990, 2_990 * 200), (3_000, 100_000)):
        assert earned([*WORLD, *looks(BOTS, range(1, 2), worth)])[1] == counts * 9 // 10


def test_a_ring_of_any_size_is_worth_a_bounded_amount_for_each_viewer() -> None:
    for ring in (10, 40, 80):
        rows = [*WORLD, *looks(range(1000, 1020), range(1, 1 + ring), 20_000)]
        kept = sum(got for creator, got in earned(rows).items() if creator <= ring)
        most = 20 * (ECONOMICS.viewer_vouched_pix * 12 // 10 + ECONOMICS.viewer_free_pix)
        assert kept <= most * 9 // 10


def test_friends_count_in_any_case_up_to_a_bound_of_the_creators_and_one_of_each_viewers() -> None:
    friends = looks(range(1000, 1010), range(1, 2), 10_000)
    assert earned([*WORLD, *friends])[1] == 100_000 * 9 // 10
    assert earned([*WORLD, *friends, *looks(range(1010, 1011), range(1, 2), 10_000)])[1] == 100_000 * 9 // 10
    one = [*WORLD, *looks(range(1000, 1001), range(1, 4), 80_000)]  # one viewer for three creators
    for few, vouched in ((3, 0), (1, ECONOMICS.vouched_pix)):  # captive to all of them, or to none
        got = earned(one, dataclasses.replace(ECONOMICS, captive_creators=few))
        counts = (vouched + ECONOMICS.viewer_free_pix // 3) * 9 // 10
        assert [got[creator] for creator in (1, 2, 3)] == [pytest.approx(counts, abs=2)] * 3


def test_what_a_person_has_looked_at_is_believed_up_to_a_bound() -> None:
    rows = [*WORLD, *looks(BOTS, range(1, 2), 9_000), *looks(range(2000, 2200), range(2, 3), 90_000)]
    got = earned(rows, trusted=frozenset((1, 2)))
    assert (got[1], got[2]) == (200 * 9_000 * 9 // 10, 2_000_000 * 9 // 10)


def test_what_others_have_crowded_out_takes_the_place_of_what_does_not_count() -> None:
    """Bots have filled the creator's day; what people would have earned them meanwhile is known, and was not paid."""
    bots, people = looks(BOTS, range(1, 2), 25_000), looks(range(40), range(1, 2), 9_000)
    rows = as_pairs([*WORLD, *bots, *people])
    net = np.where((rows.creators == 1) & (rows.viewers < 1000), 0, rows.net)
    totals = reckoned(dataclasses.replace(rows, net=net))
    got = totals.earned(np.zeros(0, np.int64), ECONOMICS)
    vouched = 40 * 9_000
    assert got[totals.creators == 1] == [(vouched + 100_000) * 9 // 10]


def test_amounts_that_leave_64_bits_when_they_are_multiplied_count_exactly() -> None:
    boundless = dataclasses.replace(ECONOMICS, vouched_pix=2**62, viewer_vouched_pix=2**62, captive_creators=0)
    assert earned(looks(range(3), range(1, 2), 10**12), boundless) == {1: 3 * 10**12 * 9 // 10}
    bounded = dataclasses.replace(boundless, viewer_vouched_pix=10**12, viewer_free_pix=2**62)
    rows = looks(range(3), range(1, 3), 10**12)  # of each viewer's two there is one
    assert set(earned(rows, bounded).values()) == {3 * 5 * 10**11 * 12 // 10 * 9 // 10}


def test_of_nothing_nothing_counts() -> None:
    assert len(vouching.shares(np.zeros(0, np.bool_), np.zeros(0, np.int64), ECONOMICS).vouched) == 0


@pytest.mark.parametrize("trusted", [frozenset(), frozenset((100,))])
def test_one_viewer_adds_a_bounded_amount_also_to_who_earns_much(trusted: frozenset[int]) -> None:
    rows = looks(range(2000), range(100, 101), 3_000) + looks(range(2000), range(101, 111), 3_000)
    few, most = range(5000, 5010), ECONOMICS.vouched_pix + ECONOMICS.viewer_free_pix
    before, after = (
        earned([*rows, *looks(few, range(100, 101), each)], trusted=trusted)[100] for each in (1, 2_000_000)
    )
    assert 0 < after - before <= len(few) * most * 9 // 10


VIEWS = st.lists(st.tuples(st.integers(0, 30), st.integers(1, 6), st.integers(1, 60_000)), min_size=1, max_size=60)
STRANGERS = st.lists(st.tuples(st.integers(100, 130), st.integers(1, 200), st.integers(1, 60_000)), max_size=60)


@hypothesis_settings(deadline=None, max_examples=300)
@given(VIEWS, STRANGERS, st.booleans())
def test_nothing_that_other_viewers_do_lowers_what_counts(rows: Rows, strangers: Rows, is_trusted: bool) -> None:
    """Griefing is in vain: whatever strangers look at, nobody has less than without them."""
    trusted = frozenset((1,)) if is_trusted else frozenset()
    before, after = (earned(each, ECONOMICS, trusted) for each in (rows, [*rows, *strangers]))
    assert all(after[creator] >= amount for creator, amount in before.items())


@hypothesis_settings(deadline=None, max_examples=200)
@given(VIEWS)
def test_nobody_gets_more_than_was_earned(rows: Rows) -> None:
    whole = earned(rows, dataclasses.replace(ECONOMICS, captive_share_ppm=0))
    assert all(0 <= amount <= whole[creator] for creator, amount in earned(rows).items())


CROWDS = st.lists(st.tuples(st.integers(0, 12), st.integers(1, 90), st.integers(1, 60_000)), min_size=40, max_size=150)


@hypothesis_settings(deadline=None, max_examples=200)
@given(CROWDS, st.lists(st.integers(1, 149), max_size=4), st.integers(0, 5))
def test_what_comes_piece_by_piece_counts_as_what_comes_at_once(rows: Rows, cuts: list[int], most: int) -> None:
    """Whatever a review has already brought together."""
    economics = dataclasses.replace(ECONOMICS, captive_creators=most)
    bounds = [0, *sorted({cut for cut in cuts if cut < len(rows)}), len(rows)]
    pieces = [as_pairs(rows[start:end]) for start, end in itertools.pairwise(bounds)]
    whole, step_by_step = reckoned(as_pairs(rows), economics=economics), reckoned(*pieces, economics=economics)
    for name in ("keys", "net", "vouched", "doubtful", "free", "viewers"):
        assert getattr(whole, name).tolist() == getattr(step_by_step, name).tolist(), name
