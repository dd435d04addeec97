"""Candidates become moments in their order; those that may no longer be shown fall out, videos gather theirs."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pipelines.index.vectors import MomentDetails
from serve.search import moments
from serve.search.cursors import Ranked
from serve.search.query import GroupBy


def ranked(*ids: int) -> list[Ranked]:
    return [Ranked(each, 1.0 / place, 500_000, ("vector",)) for place, each in enumerate(ids, 1)]


def found(**videos: int) -> dict[int, MomentDetails]:
    """`_7=1`: moment 7 is of video 1."""
    return {int(name[1:]): MomentDetails(int(name[1:]), video, 1, "", "") for name, video in videos.items()}


def test_each_moment_stands_for_itself() -> None:
    groups = moments.grouped(ranked(7, 8, 9), found(_7=1, _8=1, _9=2), GroupBy.MOMENT)
    assert [[each.segment_id for each in group] for group in groups] == [[7], [8], [9]]


def test_a_video_stands_where_its_best_moment_is() -> None:
    groups = moments.grouped(ranked(7, 8, 9, 6), found(_7=1, _8=2, _9=1, _6=2), GroupBy.VIDEO)
    assert [[each.segment_id for each in group] for group in groups] == [[7, 9], [8, 6]]


@given(st.lists(st.integers(1, 50), unique=True), st.sets(st.integers(1, 50)), st.sampled_from(GroupBy))
def test_what_may_not_be_shown_is_left_out_and_the_rest_keeps_its_order(
    ids: list[int], visible: set[int], group_by: GroupBy
) -> None:
    known = {each: MomentDetails(each, each % 5, 1, "", "") for each in visible}
    groups = moments.grouped(ranked(*ids), known, group_by)
    assert sorted(each.segment_id for group in groups for each in group) == sorted(set(ids) & visible)
    firsts = [group[0].score for group in groups]
    assert firsts == sorted(firsts, reverse=True)
