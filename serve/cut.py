"""The cut: which candidates are near enough to be shown, and earn. Changes neither order nor relevance.

A moment whose video has all words of the query, as they were asked, is shown whatever its picture; every other one only
if it is near enough to what was asked for, by the model's calibration (`pipelines.cutoff`) or the least relevance that the
deployment sets. A caller who names a least relevance gets just that of every moment. Where there are no vectors
to judge by, because the encoder is away or nothing was ingested yet, nothing is cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipelines.fulltext import Named
from serve import relevance
from serve.cursors import Ranked
from serve.query import Query
from serve.relevance import Cosines, Measured, Parts
from serve.services import Facts
from serve.settings import SearchSettings

CALIBRATED = -1


@dataclass(frozen=True)
class Cut:
    """`above`: the moments that are near enough; None where that was not asked. `named`: those with all words."""

    named: frozenset[int] = frozenset()
    above: frozenset[int] | None = None
    least_ppm: int = 0

    def shows(self, each: Ranked) -> bool:
        if each.relevance_ppm < self.least_ppm:
            return False
        return self.above is None or each.segment_id in self.above or each.segment_id in self.named


def of(search: SearchSettings, query: Query, words: Sequence[Named], above: frozenset[int] | None) -> Cut:
    """The cut of a query: what it says itself goes before what the deployment says."""
    if query.relevance_min_ppm is not None:
        return Cut(above=None, least_ppm=query.relevance_min_ppm)
    if search.relevance_min_ppm == 0:
        return Cut()
    if query.is_early:  # nothing is measured yet: show what will be shown in any case
        above = frozenset()
    return Cut(frozenset(named.segment_id for named in words if named.is_complete), above)


def above(
    search: SearchSettings, facts: Facts, parts: Parts, cosines: Sequence[Cosines], measured: Measured
) -> frozenset[int]:
    """The moments, of those with known cosines, that are near enough to be shown."""
    least_ppm = search.relevance_min_ppm
    if least_ppm == CALIBRATED:
        return relevance.above(facts.cutoff, facts.calibration, parts, cosines)
    return frozenset(segment_id for segment_id, ppm in measured.ppm.items() if ppm >= least_ppm)
