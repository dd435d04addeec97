"""Ranks are dense: equal values share one, and the next value has the next."""

from __future__ import annotations

from pipelines.index.ranks import dense_ranks


def test_equal_values_share_a_rank_and_none_is_left_out() -> None:
    assert dense_ranks([0.9, 0.9, 0.4, 0.4, 0.1]) == [1, 1, 2, 2, 3]


def test_a_list_that_found_nothing_has_no_ranks() -> None:
    assert dense_ranks([]) == []
