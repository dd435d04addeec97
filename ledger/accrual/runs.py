"""Which sorted runs to merge into one, so that a lookup searches at most a dozen of them.

Each fold adds one run. Merging starts at the newest run and goes on to the older ones while these are not much larger than
what is merged already (a log-structured merge tree, O'Neil et al. 1996). So each row is rewritten a logarithmic number of
times, however long the history is. Knows the sizes of runs, not what is in them.
"""

from __future__ import annotations

from collections.abc import Sequence

RUNS_MAX = 12
LARGER = 2  # a run this many times larger than all newer ones together stays as it is


def merged_from(sizes: Sequence[int], runs_max: int = RUNS_MAX) -> int | None:
    """Return the index of the first run to merge: it and all newer ones become one. None if there are at most `runs_max`.

    `sizes` are the numbers of rows of the runs, the oldest first.
    """
    if len(sizes) <= runs_max:
        return None
    start, total = len(sizes) - 1, sizes[-1]
    while start and sizes[start - 1] < LARGER * total:
        start -= 1
        total += sizes[start]
    return start
