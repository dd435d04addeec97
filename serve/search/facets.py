"""Facets: how many of the moments that a search has found belong to each creator and each tag.

All candidates that pass the filters and the cut are counted (`[search] candidates_max` at most), also those on further
pages. So a count says how many moments of this answer a filter by that creator or tag would leave. Asks no database.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel

from pipelines.index.vectors import MomentDetails

FACETS_MAX = 20  # of a kind, the most frequent ones


class CreatorFacet(BaseModel):
    creator_id: str
    creator_public_id: str
    creator: str
    moments: int
    videos: int


class TagFacet(BaseModel):
    tag: str
    moments: int
    videos: int


class Facets(BaseModel):
    """How many moments and videos were found: in all, by creator and by tag. The most frequent come first."""

    moments: int
    videos: int
    creators: list[CreatorFacet]
    tags: list[TagFacet]


def of(details: Iterable[MomentDetails]) -> dict[str, Any]:
    """Return the document that `Facets` describes."""
    moments = list(details)
    named = {moment.creator_id: moment for moment in moments}
    creators = [
        {"creator_id": str(key), "creator_public_id": named[key].creator_public_id, "creator": named[key].creator}
        | counts
        for key, counts in _counted((moment.creator_id, moment) for moment in moments)
    ]
    tags = [
        {"tag": tag} | counts
        for tag, counts in _counted((tag, moment) for moment in moments for tag in set(moment.tags))
    ]
    videos = len({moment.video_id for moment in moments})
    return {"moments": len(moments), "videos": videos, "creators": creators, "tags": tags}


def _counted(pairs: Iterable[tuple[Any, MomentDetails]]) -> list[tuple[Any, dict[str, int]]]:
    """Count the moments and videos of each key, at most `FACETS_MAX` keys.

    The key with the most moments comes first; keys with equally many are in ascending order.
    """
    moments: dict[Any, int] = {}
    videos: dict[Any, set[int]] = {}
    for key, moment in pairs:
        moments[key] = moments.get(key, 0) + 1
        videos.setdefault(key, set()).add(moment.video_id)
    ordered = sorted(moments, key=lambda key: (-moments[key], key))[:FACETS_MAX]
    return [(key, {"moments": moments[key], "videos": len(videos[key])}) for key in ordered]
