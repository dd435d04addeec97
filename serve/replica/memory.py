"""Gives freed memory back to the system: glibc keeps what large bodies and decoded pictures took. Linux; else nothing."""

from __future__ import annotations

import ctypes
import time

INTERVAL_S = 1.0

_trimmed_at = float("-inf")


def trim(interval_s: float = INTERVAL_S) -> None:
    """Release what is free, not more often than the interval: it takes milliseconds."""
    global _trimmed_at  # noqa: PLW0603  a process has one heap
    now_s = time.monotonic()
    if now_s - _trimmed_at >= interval_s:
        _trimmed_at = now_s
        release = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if release is not None:
            release(0)
