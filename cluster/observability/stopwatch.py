"""A stopwatch that adds up time by stage of some work. Knows no stage by name."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager


class Stopwatch:
    """Seconds spent, by stage. Stages may overlap, so their sum may be more than the time that passed."""

    def __init__(self) -> None:
        self.spent_s: defaultdict[str, float] = defaultdict(float)

    @contextmanager
    def time(self, stage: str) -> Iterator[None]:
        """Add the time spent inside the block to a stage, also when the block raises."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.spent_s[stage] += time.perf_counter() - began
