"""Amounts are checked where they come in, and the parts of a split sum exactly to the whole."""

from __future__ import annotations

import doctest

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import Rejected
from ledger import money
from ledger.settings import AMOUNT_MAX, PPM, Economics

AMOUNTS = st.integers(0, AMOUNT_MAX)
WEIGHTS = st.lists(st.integers(0, 10**12), min_size=1, max_size=12).filter(sum)


def test_the_worked_example_in_the_docstring_is_right() -> None:
    found = doctest.testmod(money)
    assert found.attempted > 0
    assert found.failed == 0


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (-1, "amount-negative"),
        (1.5, "amount-not-whole"),
        (1.0, "amount-not-whole"),
        ("5", "amount-not-whole"),
        (True, "amount-not-whole"),
        (None, "amount-not-whole"),
        (2**63, "amount-too-large"),
    ],
)
def test_a_value_that_is_not_an_amount_is_refused_by_name(value: object, code: str) -> None:
    with pytest.raises(Rejected) as refusal:
        money.amount(value)
    assert refusal.value.code == code


@pytest.mark.parametrize("value", [0, 1, AMOUNT_MAX, np.int64(7)])
def test_whole_numbers_up_to_the_largest_are_amounts(value: int) -> None:
    assert money.amount(value) == value


@given(AMOUNTS, WEIGHTS)
def test_parts_sum_to_the_whole_and_none_is_off_by_a_unit(whole: int, weights: list[int]) -> None:
    parts = money.split(whole, weights)
    assert sum(parts) == whole
    assert all(
        abs(part * sum(weights) - whole * weight) < sum(weights) for part, weight in zip(parts, weights, strict=True)
    )


@given(AMOUNTS, st.lists(st.integers(0, 1), min_size=2, max_size=5).filter(sum))
def test_a_part_without_weight_gets_nothing(whole: int, weights: list[int]) -> None:
    assert all(part == 0 for part, weight in zip(money.split(whole, weights), weights, strict=True) if not weight)


@pytest.mark.parametrize("weights", [[], [0, 0], [3, -1]])
def test_weights_that_divide_nothing_are_refused(weights: list[int]) -> None:
    with pytest.raises(Rejected) as refusal:
        money.split(10, weights)
    assert refusal.value.code == "weights-invalid"


@given(st.lists(AMOUNTS, min_size=1, max_size=20), st.integers(0, PPM))
def test_splitting_many_is_splitting_each(wholes: list[int], share_ppm: int) -> None:
    first, rest = money.split_many(np.array(wholes, np.int64), share_ppm)
    assert list(zip(first.tolist(), rest.tolist(), strict=True)) == [
        money.split(whole, (share_ppm, PPM - share_ppm)) for whole in wholes
    ]


def test_an_appearance_earns_by_relevance_and_an_anonymous_one_by_weight() -> None:
    economics = Economics(anonymous_weight_ppm=250_000)
    assert money.appearance_amount(economics, 999_999) == 999
    assert money.appearance_amount(economics, 800_000, anonymous=True) == 200
