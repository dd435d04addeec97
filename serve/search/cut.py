"""The cut: which candidates are near enough to the query to be shown, and to earn. Changes neither order nor relevance.

A moment whose video has all words of the query is shown whatever its picture. Any other moment is shown only if it is
near enough to one of the query's parts, by the model's calibration (`pipelines.models.cutoff`) or by the least relevance
that the deployment sets. A caller who names a least relevance gets exactly the moments that reach it. A moment below the
cut earns nothing, whatever made it appear: no parameter raises what a moment earns. Where there is nothing to judge by,
because the encoder is away or nothing was ingested yet, nothing is cut.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from pipelines.index.fulltext import Named
from pipelines.models.cutoff import Cutoff
from serve.replica.encoder import EncoderInfo
from serve.search.cursors import Ranked
from serve.search.query import Query
from serve.search.relevance import Cosines, Part, QueryParts
from serve.settings import SearchSettings

CALIBRATED = -1  # as `relevance_min_ppm`: the model's own calibration decides


@dataclass(frozen=True)
class Passing:
    """The moments that are near enough to one part of a query."""

    part: Part
    moments: frozenset[int]  # segment ids


@dataclass(frozen=True)
class Cut:
    """The rule that decides which moments of one search are shown, and which may earn."""

    passing: tuple[Passing, ...] | None = None  # by part of the query; None where there is nothing to judge by
    named: frozenset[int] = frozenset()  # segment ids of the moments that stand for a video with all words
    least_ppm: int | None = None  # the least relevance that the caller names

    def is_near(self, segment_id: int) -> bool:
        """Return whether a moment is near enough to at least one part of the query (text, picture, moment).

        Parts of weight 0 do not count, unless all parts have weight 0.
        """
        parts = self.passing or ()
        weighed = any(each.part.weight > 0 for each in parts)
        return any(segment_id in each.moments for each in parts if each.part.weight > 0 or not weighed)

    def shows(self, ranked: Ranked) -> bool:
        """Return whether a candidate is shown."""
        if self.least_ppm is not None:
            return ranked.relevance_ppm >= self.least_ppm
        return self.passing is None or ranked.segment_id in self.named or self.is_near(ranked.segment_id)

    def pays(self, segment_id: int) -> bool:
        """Return whether a moment may earn: it is near enough to every part of the query.

        If there is nothing to judge by, return True; `answer.record` decides then.

        A moment that is shown only because its words match earns nothing, since a caller can choose which words match
        (by a language, a filter, a blend).
        """
        return self.passing is None or all(segment_id in each.moments for each in self.passing)


def of(search: SearchSettings, query: Query, words: Sequence[Named], passing: tuple[Passing, ...] | None) -> Cut:
    """Return the cut of a query.

    Args:
        search: the settings. `relevance_min_ppm` is the least relevance, 0 to show everything, or `CALIBRATED`.
        query: the checked query. For the early part of a stream nothing is measured, and only moments with all words of
            the query are shown.
        words: the moments that words have found.
        passing: the moments that are near enough, by part; None where there is nothing to judge by.

    Returns:
        The rule for all candidates of the query.
    """
    if search.relevance_min_ppm == 0:
        return Cut(least_ppm=query.relevance_min_ppm)
    named = frozenset(each.segment_id for each in words if each.is_complete)
    return Cut(() if query.is_early else passing, named, query.relevance_min_ppm)


def passing(
    search: SearchSettings, info: EncoderInfo, parts: QueryParts, cosines: Sequence[Cosines], unknown: Collection[int]
) -> tuple[Passing, ...]:
    """Return the moments that are near enough to each wanted part of a query.

    Args:
        search: whose `relevance_min_ppm` is the least relevance, or `CALIBRATED` for the model's own cutoff.
        info: the model's calibration and cutoff.
        parts: the parts of the query.
        cosines: the cosines with each wanted part, in order.
        unknown: segment ids of moments whose cosine could not be looked up; they pass.

    Returns:
        The passing moments of each wanted part, in order.
    """
    level = search.relevance_min_ppm
    cutoff = info.cutoff if level == CALIBRATED else Cutoff(level, level)
    passing_parts = []
    for part, known in zip(parts.wanted, cosines, strict=True):
        values = np.array(list(known.values()), np.float64)  # (moments,)
        passed = cutoff.passes(info.calibration, part.vector, values, asked_by_text=part.is_text)  # (moments,)
        near = {segment_id for segment_id, is_near in zip(known, passed.tolist(), strict=True) if is_near}
        passing_parts.append(Passing(part, frozenset(near.union(unknown))))
    return tuple(passing_parts)
