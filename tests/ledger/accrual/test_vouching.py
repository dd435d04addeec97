"""What of a creator's day counts: a source is worth a bounded amount, and nothing that others do lowers it."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from ledger.accrual import pairs, vouching
from ledger.accrual.audience import Audience
from ledger.accrual.pairs import Pairs
from ledger.accrual.runfiles import Run, rows_of
from ledger.accrual.totals import Totals
from ledger.settings import PPM, Economics

DAY = 20_000
ECONOMICS = Economics()
W, SHARE, NET = ECONOMICS.source_day_pix, ECONOMICS.beside_share_ppm, ECONOMICS.creator_share_ppm
Rows = list[tuple[int, int, int]]  # source, creator, what it was worth
# Sixty creators, each seen by ten people, who see fifteen of them.
WORLD: Rows = [(source, 100 + (source * 15 + n) % 60, 3_000) for source in range(40) for n in range(15)]


def as_pairs(rows: Rows, day: int = DAY) -> Pairs:
    sources, creators, gross = (np.array(column, np.int64) for column in zip(*rows, strict=True))
    days = np.full(len(rows), day, np.uint16)
    return Pairs(sources.astype(np.uint64), creators, days, gross, gross * 9 // 10)


def reckoned(*pieces: Pairs, economics: Economics = ECONOMICS, day: int = DAY) -> Totals:
    """What the day comes to when these were shown one after another, with a review after each."""
    audience = Audience(economics)
    for number, piece in enumerate(pieces, 1):
        audience.accept(Run(rows_of((number, number)), pairs.columns_of(piece), is_sorted=False))
        judgement = audience.judge(day, day)
        assert judgement is not None
        audience.judged(judgement, Run(rows_of((number, number)), judgement.changed.columns))
    keys = np.unique(np.concatenate([run.keys for run in audience.totals.runs]))
    totals = Totals.of(audience.totals.runs, keys, 0)
    of_day = totals.days == day
    return Totals(*(getattr(totals, field.name)[of_day] for field in dataclasses.fields(Totals)))


def counted(totals: Totals, trusted: frozenset[int] = frozenset(), economics: Economics = ECONOMICS) -> dict[int, int]:
    found = totals.earned(np.array(sorted(trusted), np.int64), economics)
    return dict(zip(totals.creators.tolist(), found.tolist(), strict=True))


def earned(rows: Rows, economics: Economics = ECONOMICS, trusted: frozenset[int] = frozenset()) -> dict[int, int]:
    """What counts, by creator, of what these rows have earned."""
    return counted(reckoned(as_pairs(rows), economics=economics), trusted, economics)


def looks(sources: range, creators: range, worth: int) -> Rows:
    return [(source, creator, worth) for source in sources for creator in creators]


def test_an_audience_earns_in_full() -> None:
    assert earned(WORLD)[100] == 10 * 3_000 * 9 // 10


def test_what_one_source_earns_all_creators_is_vouched_for_up_to_a_bound_and_in_proportion() -> None:
    alone = dataclasses.replace(ECONOMICS, beside_share_ppm=0)
    assert earned([(1, 1, W)], alone) == {1: W * 9 // 10}
    assert earned([(1, 1, W), (1, 2, 3 * W)], alone) == {1: W // 4 * 9 // 10, 2: W * 3 // 4 * 9 // 10}


def test_of_the_rest_counts_a_share_of_what_others_are_vouched_for() -> None:
    """Of a network of many people all counts for creators whom people elsewhere look at, too."""
    crowd = [(1000, creator, 10_000) for creator in range(100, 160)]  # 600,000 of one network, a third vouched for
    assert earned([*WORLD, *crowd])[100] == 40_000 * 9 // 10
    liked_there_alone = [(1000, 1, 400_000)]
    assert earned([*WORLD, *liked_there_alone])[1] == W * (PPM + SHARE) // PPM * 9 // 10


def test_of_the_rest_one_source_brings_a_creator_a_bounded_amount() -> None:
    popular = looks(range(2000), range(100, 101), 3_000)
    before, after = (earned([*popular, *((9000 + n, 100, worth) for n in range(3))])[100] for worth in (10, 10**7))
    assert (before, after) == ((6_000_000 + 30) * 9 // 10, (6_000_000 + 3 * (W + ECONOMICS.beside_pair_pix)) * 9 // 10)


@pytest.mark.parametrize(("days", "usual"), [(0, 0), (1, 10_000), (7, 70_000), (12, 70_000)])
def test_a_day_is_measured_by_the_mean_of_the_seven_before_if_that_is_more(days: int, usual: int) -> None:
    """On Sunday fewer people look from elsewhere, and as many from home."""
    earlier = [as_pairs([(source, 1, 7_000) for source in range(10)], DAY - ago) for ago in range(1, days + 1)]
    today = as_pairs([(1000, 1, W // 100), (1000, 2, W * 99 // 100 * 10), (1000, 1, W // 100 * 9)])
    got = counted(reckoned(*earlier, today))[1]
    vouched = W * PPM // (W // 10 + W * 99 // 100 * 10) * (W // 10) // PPM
    assert got == (vouched + min(W // 10 - vouched, max(usual, vouched) * SHARE // PPM)) * 9 // 10


def test_the_mean_is_of_days_of_which_all_is_known() -> None:
    audience = Audience(ECONOMICS)
    piece = [as_pairs([(1, 1, 70_000)], DAY - ago) for ago in (1, 2, 3)]
    for number, each in enumerate([*piece, as_pairs([(1, 1, 1)])], 1):
        audience.accept(Run(rows_of((number, number)), pairs.columns_of(each), is_sorted=False))
        judgement = audience.judge(DAY, DAY)
        assert judgement is not None
        audience.judged(judgement, Run(rows_of((number, number)), judgement.changed.columns))
    keys = np.unique(np.concatenate([run.keys for run in audience.totals.runs]))
    for whole_from, usual in ((0, 30_000), (DAY - 3, 70_000), (DAY - 2, 70_000), (DAY, 0), (DAY + 1, 0)):
        assert Totals.of(audience.totals.runs, keys, whole_from).usual[-1] == usual


def test_what_a_person_has_looked_at_is_believed_up_to_another_share() -> None:
    rows = [*WORLD, *looks(range(1000, 1100), range(1, 3), W)]
    got = earned(rows, trusted=frozenset((1,)))
    vouched = 100 * W // 2
    assert (got[1], got[2]) == (vouched * 18 // 10 * 9 // 10, vouched * 14 // 10 * 9 // 10)


def test_what_others_have_crowded_out_takes_the_place_of_what_does_not_count() -> None:
    """Bots have filled the creator's day; what people would have earned them meanwhile is known, and was not paid."""
    bots, people = [(1000, 1, 5_000_000)], looks(range(40), range(1, 2), 9_000)
    rows = as_pairs([*WORLD, *bots, *people])
    net = np.where((rows.creators == 1) & (rows.viewers < 1000), 0, rows.net)
    vouched = 40 * 9_000 + W
    assert counted(reckoned(dataclasses.replace(rows, net=net)))[1] == (vouched + vouched * SHARE // PPM) * 9 // 10


def test_amounts_that_leave_64_bits_when_they_are_multiplied_count_exactly() -> None:
    boundless = dataclasses.replace(ECONOMICS, source_day_pix=2**62)
    assert earned(looks(range(3), range(1, 2), 10**12), boundless) == {1: 3 * 10**12 * 9 // 10}
    bounded = dataclasses.replace(boundless, source_day_pix=10**12, beside_pair_pix=0)
    rows = looks(range(3), range(1, 3), 10**12)  # of each source's two there is one
    assert set(earned(rows, bounded).values()) == {3 * 5 * 10**11 * 14 // 10 * 9 // 10}


def test_of_nothing_nothing_counts() -> None:
    nothing = np.zeros(0, np.int64)
    assert len(vouching.shares(np.zeros(0, np.bool_), nothing, nothing, ECONOMICS).vouched) == 0


FARMS = st.lists(
    st.tuples(st.integers(0, 7), st.integers(0, 4), st.integers(1, 30), st.integers(1, 2_000_000)),
    min_size=1,
    max_size=60,
)


@hypothesis_settings(deadline=None, max_examples=200)
@given(FARMS, st.booleans())
def test_a_source_is_worth_a_bounded_amount_whatever_it_looks_at(
    shown: list[tuple[int, int, int, int]], is_trusted: bool
) -> None:
    """To those who own it and the creators: on one day, and by the day where these are the same every day."""
    trusted = frozenset(range(1, 31)) if is_trusted else frozenset[int]()
    share = ECONOMICS.fan_in_trust_ppm if is_trusted else SHARE
    pieces = [as_pairs([row[1:] for row in shown if row[0] == day], DAY - day)
              for day in sorted({row[0] for row in shown}, reverse=True)]  # fmt: skip
    sources = len({row[1] for row in shown})
    today = sum(counted(reckoned(*pieces), trusted).values())
    assert today <= sources * W * (PPM + 2 * share) // PPM * NET // PPM
    same = [row[1:] for row in shown]
    every_day = reckoned(*(as_pairs(same, DAY - ago) for ago in (3, 2, 1, 0)))
    assert sum(counted(every_day, trusted).values()) <= sources * W * (PPM + share) // PPM * NET // PPM


VIEWS = st.lists(st.tuples(st.integers(0, 30), st.integers(1, 6), st.integers(1, 400_000)), min_size=1, max_size=60)
STRANGERS = st.lists(st.tuples(st.integers(100, 130), st.integers(1, 200), st.integers(1, 400_000)), max_size=60)


@hypothesis_settings(deadline=None, max_examples=300)
@given(VIEWS, STRANGERS, st.booleans())
def test_nothing_that_other_sources_do_lowers_what_counts(rows: Rows, strangers: Rows, is_trusted: bool) -> None:
    """Griefing is in vain: whatever strangers look at, nobody has less than without them."""
    trusted = frozenset((1,)) if is_trusted else frozenset[int]()
    before, after = (earned(each, ECONOMICS, trusted) for each in (rows, [*rows, *strangers]))
    assert all(after[creator] >= amount for creator, amount in before.items())


@hypothesis_settings(deadline=None, max_examples=200)
@given(VIEWS, st.lists(st.tuples(st.integers(0, 1), st.integers(1, 200), st.integers(1, 4_000_000)), max_size=60))
def test_neighbours_in_a_network_take_no_more_than_what_it_is_vouched_for(rows: Rows, neighbours: Rows) -> None:
    """And what counts beside that; here in two networks."""
    before, after = (earned(each) for each in (rows, [*rows, *neighbours]))
    lost = sum(max(0, amount - after[creator]) for creator, amount in before.items())
    assert lost <= (2 * W * (PPM + SHARE) // PPM + 100) * NET // PPM  # of every pair a unit is lost in rounding


@hypothesis_settings(deadline=None, max_examples=200)
@given(VIEWS)
def test_nobody_gets_more_than_was_earned(rows: Rows) -> None:
    whole = earned(rows, dataclasses.replace(ECONOMICS, source_day_pix=0))
    assert all(0 <= amount <= whole[creator] for creator, amount in earned(rows).items())


CROWDS = st.lists(st.tuples(st.integers(0, 12), st.integers(1, 90), st.integers(1, 60_000)), min_size=40, max_size=150)


@hypothesis_settings(deadline=None, max_examples=200)
@given(CROWDS, st.lists(st.integers(1, 149), max_size=4))
def test_what_comes_piece_by_piece_counts_as_what_comes_at_once(rows: Rows, cuts: list[int]) -> None:
    """Whatever a review has already brought together."""
    bounds = [0, *sorted({cut for cut in cuts if cut < len(rows)}), len(rows)]
    pieces = [as_pairs(rows[start:end]) for start, end in itertools.pairwise(bounds)]
    whole, step_by_step = reckoned(as_pairs(rows)), reckoned(*pieces)
    for field in dataclasses.fields(Totals):
        assert getattr(whole, field.name).tolist() == getattr(step_by_step, field.name).tolist(), field.name
