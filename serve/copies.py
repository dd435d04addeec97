"""Copies: of the moments of one answer that show the same pictures in several videos one earns, the one that was there first.

Which ones show the same is said by the model's own vectors (see `index.alike`), and says nothing of moments of one video:
a camera that stands still, or comes back to where it was, is no copy. Knows neither search nor money.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pipelines.index import Found


def first(moments: Sequence[Found], pairs: Iterable[tuple[int, int]], beside: Found | None = None) -> frozenset[int]:
    """Those of some moments that are no copies of another one, in whichever order they are shown.

    `pairs`, of two videos each, show the same pictures. `beside` is not shown, and has copies like any other.
    """
    alike: dict[int, set[int]] = {}
    for one, other in pairs:
        alike.setdefault(one, set()).add(other)
        alike.setdefault(other, set()).add(one)
    everything = [*moments, *([] if beside is None else [beside])]
    kept: set[int] = set()
    for each in sorted(everything, key=_age):
        if kept.isdisjoint(alike.get(each.segment_id, ())):
            kept.add(each.segment_id)
    return frozenset(kept)


def _age(moment: Found) -> tuple[float, int, int]:
    since_s = moment.shown_since.timestamp() if moment.shown_since else 0.0
    return since_s, moment.video_id, moment.segment_id
