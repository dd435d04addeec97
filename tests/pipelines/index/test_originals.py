"""Which of the moments that show the same pictures were there first."""

from __future__ import annotations

from pipelines.index import originals
from pipelines.index.vectors import MomentDetails


def test_of_alike_moments_the_first_video_s_earns_and_no_chain_of_likeness_is_one() -> None:
    moments = [
        MomentDetails(number, video, video, "", "") for number, video in ((1, 30), (2, 10), (3, 20), (4, 10), (5, 40))
    ]
    assert originals.of(moments, []) == {1, 2, 3, 4, 5}
    assert originals.of(moments, [(1, 2), (1, 3), (2, 3)]) == {2, 4, 5}
    assert originals.of(moments, [(2, 3), (1, 3)]) == {
        1,
        2,
        4,
        5,
    }  # 1 is like 3, which earns nothing, and not like 2
    assert originals.of(moments[::-1], [(2, 3), (1, 3)]) == {1, 2, 4, 5}  # in whichever order they are shown
    beside = MomentDetails(9, 15, 15, "", "")
    assert originals.of(moments, [(1, 9), (2, 9)], beside) == {2, 1, 3, 4, 5}
    assert originals.of(moments, [(3, 9)], beside) == {1, 2, 4, 5, 9}
