"""Gives freed memory back to the system: glibc keeps the memory that large bodies and decoded pictures have used.

Only the garbage collector frees objects that refer to each other in a circle, such as an exception and the frames that
it has passed through, in which a request's body may be. The collector runs seldom (`app.GC_THRESHOLDS`), and not at all
once requests have stopped, so garbage is collected here before memory is given back. Without glibc that is all that
happens. Knows nothing of what used the memory.
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
    """Releases free memory some time after a request for it, in a thread that ends after a while without requests.

    The caller usually still holds what is to be released: a body, a picture on its way out. So a release begins
    `interval_s` after it was requested. It takes milliseconds, which no HTTP request waits for.
    """

    interval_s: float = INTERVAL_S
    quiet_s: float = QUIET_S
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _asked: threading.Event = field(default_factory=threading.Event)
    _runs: bool = False

    def ask(self) -> None:
        """Request a release, to be made `interval_s` from now."""
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
    """Collect garbage, then give free memory back to the system; without `all_of_it`, collect only young objects."""
    gc.collect(ALL if all_of_it else YOUNG)
    trimmed = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trimmed is not None:
        trimmed(0)


def freeze() -> None:
    """Exempt all present objects from garbage collection: a replica that is ready has a million objects that stay."""
    gc.collect()
    gc.freeze()


_TRIMMING = Trimming()  # a process has one heap


def trim() -> None:
    """Request that free memory be released about a second from now; requests in quick succession share one release."""
    _TRIMMING.ask()
