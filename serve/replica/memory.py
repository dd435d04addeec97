"""Gives freed memory back to the system: glibc keeps the memory that large bodies and decoded pictures have used.

Does nothing on systems without glibc. Knows nothing of what used the memory.
"""

from __future__ import annotations

import ctypes
import time

INTERVAL_S = 1.0  # between two releases

_trimmed_at = float("-inf")


def trim(interval_s: float = INTERVAL_S) -> None:
    """Release free memory, at most once in `interval_s`, since it takes milliseconds."""
    global _trimmed_at  # noqa: PLW0603  a process has one heap
    now_s = time.monotonic()
    if now_s - _trimmed_at >= interval_s:
        _trimmed_at = now_s
        release = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if release is not None:
            release(0)
