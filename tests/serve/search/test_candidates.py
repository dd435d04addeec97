"""Lists are fused by reciprocal rank: monotone, fair to ties, and a list that cannot be made is named."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.index.vectors import Hit
from serve.search import candidates

RANKS = st.dictionaries(st.integers(1, 40), st.integers(1, 200), max_size=30)


def test_equal_values_share_a_rank() -> None:
    hits = [Hit(5, 0.9), Hit(6, 0.9), Hit(7, 0.4)]
    assert candidates.VectorList(hits=hits).ranks == {5: 1, 6: 1, 7: 2}


def test_the_score_is_the_weighted_sum_of_reciprocal_ranks() -> None:
    scores = candidates.fuse({"vector": {1: 1}, "text": {1: 3, 2: 1}}, {"vector": 1.0, "text": 0.5}, 60)
    assert scores == {1: pytest.approx(1 / 61 + 0.5 / 63), 2: pytest.approx(0.5 / 61)}


def test_a_list_of_no_weight_adds_nothing_to_the_answer() -> None:
    assert candidates.fuse({"vector": {1: 1}, "text": {2: 1}}, {"vector": 1.0, "text": 0.0}, 60).keys() == {1}


@given(RANKS, RANKS, st.floats(0.01, 10), st.floats(0.01, 10), st.integers(1, 200))
def test_who_is_before_another_in_both_lists_is_before_it_in_the_end(
    vector: dict[int, int], text: dict[int, int], first: float, second: float, k: int
) -> None:
    scores = candidates.fuse({"vector": vector, "text": text}, {"vector": first, "text": second}, k)
    assert scores.keys() == vector.keys() | text.keys()
    both = vector.keys() & text.keys()
    for one in both:
        for other in both:
            if vector[one] < vector[other] and text[one] < text[other]:
                assert scores[one] > scores[other]
