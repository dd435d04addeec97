"""Originals: of the moments of one answer that show the same pictures in several videos, the one that was there first.

Which moments show the same pictures is decided by the model's vectors (`vectors.alike`), and only between different videos:
a camera that stands still, or comes back to where it was, makes no copies. Knows neither SQL nor money.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pipelines.index.vectors import MomentDetails


def of(
    moments: Sequence[MomentDetails], pairs: Iterable[tuple[int, int]], beside: MomentDetails | None = None
) -> frozenset[int]:
    """Find the moments that are not copies, whatever the order in which an answer shows them.

    A moment is a copy if it shows the same pictures as an earlier moment that is not a copy itself.

    Args:
        moments: those that an answer shows.
        pairs: segment ids of two moments, of different videos, that show the same pictures.
        beside: a further moment that is compared too, such as the one to find more of.

    Returns:
        The segment ids of those moments, `beside` among them if it is not a copy.
    """
    alike: dict[int, set[int]] = {}
    for one, other in pairs:
        alike.setdefault(one, set()).add(other)
        alike.setdefault(other, set()).add(one)
    compared = [*moments, *([] if beside is None else [beside])]
    kept: set[int] = set()
    for each in sorted(compared, key=_age):
        if kept.isdisjoint(alike.get(each.segment_id, ())):
            kept.add(each.segment_id)
    return frozenset(kept)


def _age(moment: MomentDetails) -> tuple[float, int, int]:
    """Return a key that sorts moments by how long they have been there, the oldest first."""
    since_s = moment.shown_since.timestamp() if moment.shown_since else 0.0
    return since_s, moment.video_id, moment.segment_id
