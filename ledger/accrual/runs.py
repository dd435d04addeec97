"""Runs: what folds remember, one sorted run a fold, merged as they grow, so that a look searches a handful of them.

Merging takes from the newest backwards while the run before is not much larger than what is merged already: each number
is written again a logarithmic number of times, however long the history is. Knows sizes, not what is in a run.
"""

from __future__ import annotations

from collections.abc import Sequence

RUNS_MAX = 12
LARGER = 2  # a run this many times larger than what is merged stays as it is


def merged_from(sizes: Sequence[int], runs_max: int = RUNS_MAX) -> int | None:
    """From which run on all are to become one; None while there are few enough."""
    if len(sizes) <= runs_max:
        return None
    start, total = len(sizes) - 1, sizes[-1]
    while start and sizes[start - 1] < LARGER * total:
        start -= 1
        total += sizes[start]
    return start
