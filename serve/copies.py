"""Copies: of the moments of one answer that show the same pictures one earns, the one whose video was there first.

Which ones show the same is said by the model's own vectors (see `index.alike`). Knows neither search nor money.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pipelines.index import Found


def first(moments: Sequence[Found], pairs: Iterable[tuple[int, int]], beside: Found | None = None) -> frozenset[int]:
    """Those of some moments, in the order in which they are shown, that are no copies of another one.

    `pairs` show the same pictures. `beside` is not shown, and has copies like any other.
    """
    alike: dict[int, set[int]] = {}
    for one, other in pairs:
        alike.setdefault(one, set()).add(other)
        alike.setdefault(other, set()).add(one)
    everything = [*moments, *([] if beside is None else [beside])]
    kept: set[int] = set()
    for each in sorted(everything, key=_age):  # of one video the first that is shown
        if kept.isdisjoint(alike.get(each.segment_id, ())):
            kept.add(each.segment_id)
    return frozenset(kept)


def _age(moment: Found) -> tuple[float, int]:
    return (moment.shown_since.timestamp() if moment.shown_since else 0.0, moment.video_id)
