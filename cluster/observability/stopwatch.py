"""A stopwatch with a column for each stage of some work. Knows no stage by name."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager


class Stopwatch:
    """Seconds by stage, added up. Stages may run side by side, so that their sum is more than the whole."""

    def __init__(self) -> None:
        self.spent_s: defaultdict[str, float] = defaultdict(float)

    @contextmanager
    def time(self, stage: str) -> Iterator[None]:
        """Time what is done inside, also of what fails."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.spent_s[stage] += time.perf_counter() - began
