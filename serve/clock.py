"""Where the time of a search goes: its stages, each with its seconds. Knows no stage by name."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Clock:
    """Of one answer while it is made. Stages may run side by side, so that their sum is more than the whole."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time what is done inside; also of what fails, and added up where a stage comes again."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - began


def server_timing(seconds: Mapping[str, float]) -> str:
    """As the header `Server-Timing` (W3C Server Timing), in milliseconds."""
    return ", ".join(f"{name};dur={1000 * spent:.1f}" for name, spent in seconds.items())
