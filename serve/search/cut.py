"""The cut: which candidates are near enough to be shown. Changes neither order nor relevance.

A moment whose video has all words of the query, as they were asked, is shown whatever its picture; every other one only
if it is near enough to one of the parts that were asked for, by the model's calibration (`pipelines.models.cutoff`) or by the
least relevance that the deployment sets. A caller who names a least relevance gets just that of every moment. Below the
cut nothing earns, however it came to be shown: no parameter raises what a moment earns. Where there is nothing to judge
by, because the encoder is away or nothing was ingested yet, nothing is cut.
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

CALIBRATED = -1


@dataclass(frozen=True)
class Passing:
    """The moments that are near enough to one part of a query."""

    part: Part
    moments: frozenset[int]


@dataclass(frozen=True)
class Cut:
    """What decides about each moment. `passing`: by part, None where that was not asked. `named`: it has all words."""

    passing: tuple[Passing, ...] | None = None
    named: frozenset[int] = frozenset()
    least_ppm: int | None = None

    def is_near(self, segment_id: int) -> bool:
        """Whether it is near enough to one part. A part without weight does not count, beside others."""
        parts = self.passing or ()
        weighed = any(each.part.weight > 0 for each in parts)
        return any(segment_id in each.moments for each in parts if each.part.weight > 0 or not weighed)

    def shows(self, ranked: Ranked) -> bool:
        if self.least_ppm is not None:
            return ranked.relevance_ppm >= self.least_ppm
        return self.passing is None or ranked.segment_id in self.named or self.is_near(ranked.segment_id)

    def pays(self, segment_id: int) -> bool:
        """Whether it is near enough to each part. Words that match have it shown and no more: which words do depends on
        what a caller says beside the text (a language, a filter, a blend)."""
        return self.passing is None or all(segment_id in each.moments for each in self.passing)


def of(search: SearchSettings, query: Query, words: Sequence[Named], passing: tuple[Passing, ...] | None) -> Cut:
    """The cut of a query. The early part of a stream, of which nothing is measured, has what is shown in any case."""
    if search.relevance_min_ppm == 0:
        return Cut(least_ppm=query.relevance_min_ppm)
    named = frozenset(each.segment_id for each in words if each.is_complete)
    return Cut(() if query.is_early else passing, named, query.relevance_min_ppm)


def passing(
    search: SearchSettings, facts: EncoderInfo, parts: QueryParts, cosines: Sequence[Cosines], unknown: Collection[int]
) -> tuple[Passing, ...]:
    """By part, the moments that are near enough; what could not be looked up is given the benefit of the doubt."""
    level = search.relevance_min_ppm
    cutoff = facts.cutoff if level == CALIBRATED else Cutoff(level, level)
    found = []
    for part, known in zip(parts.wanted, cosines, strict=True):
        values = np.array(list(known.values()), np.float64)
        passed = cutoff.passes(facts.calibration, part.vector, values, asked_by_text=part.is_text)
        near = {segment_id for segment_id, is_near in zip(known, passed.tolist(), strict=True) if is_near}
        found.append(Passing(part, frozenset(near.union(unknown))))
    return tuple(found)
