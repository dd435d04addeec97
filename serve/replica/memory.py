"""Gives freed memory back to the system: glibc keeps the memory that large bodies and decoded pictures have used.

What is freed includes objects that only refer to themselves, as an exception and the frames it passed through do, with the body
in them: a collector that runs seldom (`app.GC_THRESHOLDS`) finds them late, or never once requests have stopped. Gives nothing
back on systems without glibc. Knows nothing of what used the memory.
"""

from __future__ import annotations

import ctypes
import gc
import threading
import time
from dataclasses import dataclass, field

INTERVAL_S = 1.0  # between two releases
QUIET_S = (
    5.0  # without a call, after which all generations are collected, which stops the process for tens of milliseconds
)
YOUNG, ALL = 1, 2  # the oldest generation that is collected; while requests go on, only that of their own objects


@dataclass
class Trimming:
    """Releases free memory an interval after it was asked to, in a thread that ends when nobody has asked for a while.

    A caller usually still holds what is to be released: a body, a picture on its way out. So each release begins later than
    the calls that it serves. It takes milliseconds, which no request waits for.
    """

    interval_s: float = INTERVAL_S
    quiet_s: float = QUIET_S
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _asked: threading.Event = field(default_factory=threading.Event)
    _runs: bool = False

    def ask(self) -> None:
        """Have memory released an interval from now."""
        with self._lock:
            self._asked.set()
            if self._runs:
                return
            self._runs = True
        threading.Thread(target=self._run, name="memory", daemon=True).start()

    def _run(self) -> None:
        while self._goes_on():
            time.sleep(self.interval_s)
            release()
            if not self._asked.wait(self.quiet_s):
                release(all_of_it=True)

    def _goes_on(self) -> bool:
        with self._lock:
            self._runs = self._asked.is_set()
            self._asked.clear()
            return self._runs


def release(*, all_of_it: bool = False) -> None:
    """Give back what is free now; collect garbage first, only young objects unless `all_of_it`."""
    gc.collect(ALL if all_of_it else YOUNG)
    trimmed = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trimmed is not None:
        trimmed(0)


def freeze() -> None:
    """Exempt all present objects from garbage collection: a process that is ready has a million of them, which stay."""
    gc.collect()
    gc.freeze()


_TRIMMING = Trimming()  # a process has one heap


def trim() -> None:
    """Have free memory released, also what becomes free in a moment; at most once in an interval."""
    _TRIMMING.ask()
