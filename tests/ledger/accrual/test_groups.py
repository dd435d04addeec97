"""Groups of rows agree with what plain Python makes of the same rows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.accrual.caps import Tally
from ledger.accrual.groups import Groups, changes, order_of, order_of_hashes
from ledger.accrual.runs import LARGER, RUNS_MAX, merged_from

WORDS = st.integers(0, 2**64 - 1)
NUMBERS = st.one_of(
    st.lists(st.integers(-(2**63), 2**63 - 1), max_size=50),
    st.lists(st.integers(-5, 5), max_size=50),
    st.lists(st.integers(2**40, 2**40 + 2**20), max_size=50),
)


@given(NUMBERS)
def test_an_order_is_ascending_and_stable(values: list[int]) -> None:
    order = order_of(np.array(values, np.int64))
    assert order.tolist() == sorted(range(len(values)), key=lambda each: values[each])


@given(st.lists(st.one_of(WORDS, st.integers(0, 3), st.integers(2**63, 2**63 + 3)), max_size=50))
def test_hashes_that_share_their_leading_bits_are_in_order_too(values: list[int]) -> None:
    order = order_of_hashes(np.array(values, np.uint64))
    assert order.tolist() == sorted(range(len(values)), key=lambda each: values[each])


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 1000)), min_size=1, max_size=40))
def test_sums_and_first_rows_of_groups_are_those_of_their_rows(rows: list[tuple[int, int]]) -> None:
    keys, amounts = (np.array(column, np.int64) for column in zip(*rows, strict=True))
    order = order_of(keys)
    groups = Groups.where(order, changes(keys[order]))
    assert keys[groups.firsts].tolist() == sorted(set(keys.tolist()))
    assert groups.sums(amounts).tolist() == [int(amounts[keys == key].sum()) for key in keys[groups.firsts]]
    rows_of, place = groups.rows(np.arange(len(groups.sizes)))
    assert rows_of.tolist() == order.tolist()
    assert place.tolist() == np.searchsorted(keys[groups.firsts], keys[order]).tolist()


def test_an_empty_group_comes_to_nothing() -> None:
    groups = Groups(None, np.array([0, 0, 2, 2]))
    assert groups.sums(np.array([3, 4], np.int64)).tolist() == [0, 7, 0]


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2), st.integers(0, 1)), min_size=1, max_size=40),
    st.sets(st.integers(0, 8), min_size=1),
)
def test_the_rows_of_a_key_come_in_the_order_they_were_shown(
    rows: list[tuple[int, int, int]], chosen: set[int]
) -> None:
    """Subject and day may be spread over several parts, whose rows interleave."""
    segment, creator, day = (np.array(column, np.int64) for column in zip(*rows, strict=True))
    order = order_of(segment)
    parts = Groups.where(order, changes(segment[order], creator[order], day[order]))
    firsts = parts.firsts
    tally = Tally.of(parts, creator[firsts], day[firsts].astype(np.uint16))
    picked = np.array(sorted(each % len(tally.keys) for each in chosen), np.int64)
    found, place = tally.rows(np.unique(picked))
    for number, key in enumerate(np.unique(picked)):
        of = tally.groups.firsts[key]
        same = [i for i, (_, c, d) in enumerate(rows) if (c, d) == (creator[firsts][of], day[firsts][of])]
        assert found[place == number].tolist() == same


@pytest.mark.parametrize("folds", [13, 100, 1000])
def test_runs_stay_few_and_each_number_is_written_again_a_few_times(folds: int) -> None:
    sizes: list[int] = []
    written = 0
    for _ in range(folds):
        sizes.append(1)
        start = merged_from(sizes)
        if start is not None:
            sizes[start:] = [sum(sizes[start:])]
        written += sizes[-1]
        assert len(sizes) <= RUNS_MAX + folds.bit_length()
    assert sum(sizes) == folds
    assert written <= folds * LARGER * folds.bit_length()
