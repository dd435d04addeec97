"""Relevance is the least that what was asked gives a moment, each part by the curve of its own kind."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import Rejected
from pipelines.models.relevance import general
from serve.replica.encoder import Vector
from serve.search import relevance
from serve.search.relevance import Measured, Part, QueryParts

EAST, NORTH = np.array([1, 0], np.float32), np.array([0, 1], np.float32)
CURVES = general()
COSINES = st.dictionaries(st.integers(1, 5), st.floats(-1, 1), max_size=5)


def part(vector: Vector = EAST, weight: float = 1.0, *, is_text: bool = True) -> Part:
    return Part(vector, weight, is_text)


def ppm(cosine: float, *, is_text: bool) -> int:
    return int(CURVES.ppm(np.array([cosine]), asked_by_text=is_text)[0])


@given(st.lists(st.tuples(COSINES, st.booleans(), st.floats(0, 100)), min_size=1, max_size=3))
def test_no_part_and_no_weight_raises_what_another_part_gives(
    asked: list[tuple[dict[int, float], bool, float]],
) -> None:
    parts = QueryParts(tuple(part(weight=weight, is_text=is_text) for _, is_text, weight in asked))
    measured = relevance.measured(CURVES, parts, [cosines for cosines, _, _ in asked])
    for segment_id in range(1, 7):
        given = [ppm(c[segment_id], is_text=is_text) if segment_id in c else 0 for c, is_text, _ in asked]
        assert measured.of(segment_id) == min(given)
        if segment_id in measured.cosines:
            deciding = measured.cosines[segment_id]
            assert measured.of(segment_id) in {ppm(deciding, is_text=is_text) for _, is_text, _ in asked}


def test_what_is_not_known_is_of_no_relevance() -> None:
    assert Measured().of(1) == 0
    assert relevance.measured(CURVES, QueryParts((part(),)), [{}]) == Measured()


def test_a_cosine_that_the_search_tells_is_believed_of_a_search_by_one_part_alone() -> None:
    near = {7: 0.9}
    assert relevance.known(QueryParts((part(),)), near) == [near]
    for blended in (
        QueryParts((part(), part(NORTH))),
        QueryParts((part(),), (part(NORTH),)),
        QueryParts((part(weight=0.0), part(NORTH, 0.0))),
        QueryParts((part(),), (part(NORTH, 0.0),)),
    ):
        assert relevance.known(blended, near) == [{} for _ in blended.wanted]


def test_the_wanted_parts_are_added_up_and_the_unwanted_ones_taken_away() -> None:
    assert QueryParts((part(weight=7.0),)).blended() is EAST
    assert QueryParts((part(), part(NORTH))).blended() == pytest.approx([0.5**0.5, 0.5**0.5])
    assert QueryParts((part(),), (part(NORTH),)).blended() == pytest.approx([0.5**0.5, -(0.5**0.5)])
    assert QueryParts((part(weight=3.0), part(NORTH, 4.0))).blended() == pytest.approx([0.6, 0.8])
    for nothing in (
        QueryParts((part(),), (part(),)),
        QueryParts((part(weight=0.0),)),
        QueryParts((part(),), (part(weight=0.995),)),
    ):
        with pytest.raises(Rejected, match="cancel each other out"):
            nothing.blended()
