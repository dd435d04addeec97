"""Moments: what an answer shows, as the HTTP contract names it. Ids are strings, offsets are milliseconds.

Takes ranked candidates and what the index knows of them, and adds signed links. Ranks and fetches nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from pydantic import BaseModel, Field

from cluster.settings import Settings
from pipelines.catalog import public_ids
from pipelines.index.vectors import MomentDetails
from serve.media import links
from serve.search.candidates import Candidates
from serve.search.cursors import Ranked
from serve.search.facets import Facets
from serve.search.query import GroupBy

OTHERS_MAX = 5  # further moments of one video, where an answer is grouped by video


class Explanation(BaseModel):
    """Why a moment has its place in an answer."""

    ranks: dict[str, int] = Field(description="Its place in each list, from 1.")
    cosine: float | None = Field(
        description="Between its vector and the part of the query that its relevance comes from."
    )
    mode: str | None = Field(description="How vectors were compared: exact, index, or both one after another.")
    rows: int | None = Field(description="About how many rows passed the filters.")
    above_cut: bool | None = Field(
        description="Whether it is near enough to be shown for its vector; if not, all words of the query are its own. "
        "Null where that was not asked."
    )


class Highlight(BaseModel):
    """A word of the query in what is shown: characters `start` to `end` (exclusive, Unicode code points) of a field."""

    field: Literal["title", "tags", "description"]
    index: int = Field(description="Which of the tags, from 0; 0 elsewhere.")
    start: int
    end: int
    text: str


class Span(BaseModel):
    """Another moment of the same video (`group_by=video`)."""

    segment_id: str
    public_id: str
    start_ms: int
    end_ms: int
    relevance_ppm: int


class Segment(BaseModel):
    """One moment of a video."""

    segment_id: str
    public_id: str
    video_id: str
    video_public_id: str
    creator_id: str
    creator_public_id: str
    start_ms: int
    end_ms: int
    best_frame_ms: int
    description: str
    thumbnail_url: str
    play_url: str


class Moment(Segment):
    """One moment of an answer. `score` ranks moments within one answer; `relevance_ppm` is comparable across answers.

    Relevance (0 to 1,000,000) is the calibrated cosine with the text, picture or moment that was asked for, whatever
    the weights. If several were asked for, it is the least of their values. It is 0 if the cosine is not known.
    """

    creator: str
    title: str
    tags: list[str]
    score: float
    relevance_ppm: int
    matched: list[Literal["vector", "text", "some_words"]] = Field(
        description="`vector`: it is among the moments nearest to the query. `text`: it stands for a video that has all "
        "words of the query as it asks for them, with its phrases, or one side of an `or`; such moments are shown "
        "whatever their cosine. `some_words`: it stands for a video that has some of them, which alone shows nothing."
    )
    others: list[Span] | None = None
    highlights: list[Highlight] | None = Field(
        default=None, description="The first 50; null where `degraded` names highlights."
    )
    explain: Explanation | None = None


class Answer(BaseModel):
    """The answer to a search. `degraded` names what could not be asked.

    If it names only "highlights" or "facets", the answer is complete but for these. `nothing_matches`: everything was
    asked, no moment has all the words, and none is near enough to be shown. It is false in a degraded answer, and in an
    answer to a search that leaves a list out (a weight of 0).
    """

    query: str
    moments: list[Moment]
    next_cursor: str | None = None
    degraded: list[str] = []
    nothing_matches: bool = False
    facets: Facets | None = None
    took_ms: float
    model_config = {
        "json_schema_extra": {
            "examples": [
                {
                    "query": "asdfghjkl",
                    "moments": [],
                    "next_cursor": None,
                    "degraded": [],
                    "nothing_matches": True,
                    "took_ms": 7.4,
                }
            ]
        }
    }


@dataclass(frozen=True)
class MomentLinks:
    """How an answer links to moments: by signed links that expire."""

    thumbnail_url: Callable[[int], str]  # of (segment_id)
    play_url: Callable[[int, int, int], str]  # of (video_id, start_ms, end_ms)

    @classmethod
    def of(cls, settings: Settings) -> MomentLinks:
        """Return the link makers of a deployment."""
        return cls(partial(links.thumbnail_url, settings), partial(links.play_url, settings))


def of(linked: MomentLinks, ranked: Ranked, details: MomentDetails) -> dict[str, Any]:
    """Return the document of a moment, as `Moment` describes it."""
    return {
        "segment_id": str(details.segment_id),
        "public_id": public_ids.of_moment(details.video_public_id, details.start_ms),
        "video_id": str(details.video_id),
        "video_public_id": details.video_public_id,
        "creator_id": str(details.creator_id),
        "creator_public_id": details.creator_public_id,
        "creator": details.creator,
        "title": details.title,
        "description": details.description,
        "tags": details.tags,
        "start_ms": details.start_ms,
        "end_ms": details.end_ms,
        "best_frame_ms": details.best_frame_ms,
        "score": round(ranked.score, 6),
        "relevance_ppm": ranked.relevance_ppm,
        "thumbnail_url": linked.thumbnail_url(details.segment_id),
        "play_url": linked.play_url(details.video_id, details.start_ms, details.end_ms),
        "matched": list(ranked.matched),
    }


def grouped(ranked: Sequence[Ranked], details: Mapping[int, MomentDetails], group_by: GroupBy) -> list[list[Ranked]]:
    """Group the candidates that are in `details`, each by itself or by video, best first; leave out the others."""
    visible = [each for each in ranked if each.segment_id in details]
    if group_by is GroupBy.MOMENT:
        return [[each] for each in visible]
    groups: dict[int, list[Ranked]] = {}
    for each in visible:
        groups.setdefault(details[each.segment_id].video_id, []).append(each)
    return list(groups.values())


def span(ranked: Ranked, details: MomentDetails) -> dict[str, Any]:
    """Return the document of a further moment of a video, as `Span` describes it."""
    return {
        "segment_id": str(details.segment_id),
        "public_id": public_ids.of_moment(details.video_public_id, details.start_ms),
        "start_ms": details.start_ms,
        "end_ms": details.end_ms,
        "relevance_ppm": ranked.relevance_ppm,
    }


def explanation(candidates: Candidates, segment_id: int) -> dict[str, Any]:
    """Return why a moment has its place in an answer, as `Explanation` describes it."""
    cosine = candidates.cosines.get(segment_id)
    return {
        "ranks": {name: places[segment_id] for name, places in candidates.ranks.items() if segment_id in places},
        "cosine": round(cosine, 6) if cosine is not None else None,
        "mode": candidates.vector_hits.mode if candidates.vector_hits else None,
        "rows": candidates.vector_hits.rows if candidates.vector_hits else None,
        "above_cut": candidates.cut.is_near(segment_id) if candidates.cut.passing is not None else None,
    }
