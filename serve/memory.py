"""Gives freed memory back to the system: glibc keeps what large bodies and decoded pictures took. Linux; else nothing.

What is freed includes what only refers to itself. An exception and the frames that it went through do, with the body in
them, and a collector that looks seldom (`app.GC_THRESHOLDS`) finds that late, or never once nobody asks any more.
"""

from __future__ import annotations

import ctypes
import gc
import threading
import time
from dataclasses import dataclass, field

INTERVAL_S = 1.0
QUIET_S = (
    5.0  # in which nobody asks, before all of a process is looked through, which holds it up for tens of milliseconds
)
YOUNG, ALL = 1, 2  # the generations that are looked through: while requests go on, what they made


@dataclass
class Trimming:
    """Releases what is free an interval after it was asked to, in a thread that ends when nobody has asked for a while.

    Who asks still holds, as a rule, what is to be released: the body in their hands, a picture on its way out. So each
    time is followed by one that begins later than whatever was asked; and it takes milliseconds, which no request waits for.
    """

    interval_s: float = INTERVAL_S
    quiet_s: float = QUIET_S
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _asked: threading.Event = field(default_factory=threading.Event)
    _runs: bool = False

    def ask(self) -> None:
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
    """Give back what is free now, also what refers to itself alone; of that, unless it is all, what is young."""
    gc.collect(ALL if all_of_it else YOUNG)
    trimmed = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trimmed is not None:
        trimmed(0)


def freeze() -> None:
    """Leave what is there for good: a process that is ready has a million objects, and need not look through them again."""
    gc.collect()
    gc.freeze()


_TRIMMING = Trimming()  # a process has one heap


def trim() -> None:
    """Have what is free released, and what becomes free in a moment; not more often than the interval."""
    _TRIMMING.ask()
