"""Retries and circuit breakers, both bounded. Only `Temporary` is retried; any other exception passes through at once."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from cluster.errors import Temporary

Result = TypeVar("Result")


def backoff_s(attempt: int, base_s: float, max_s: float) -> float:
    """Return how long to wait before a retry: uniform between 0 and `min(max_s, base_s · 2^attempt)`.

    That is "full jitter" (AWS Architecture Blog, "Exponential Backoff and Jitter", 2015). `attempt` counts from 0.
    """
    return random.uniform(0.0, min(max_s, base_s * 2.0**attempt))


def retry(call: Callable[[], Result], *, attempts: int = 5, base_s: float = 0.1, max_s: float = 5.0) -> Result:
    """Call a function until it succeeds.

    Args:
        call: The function; `Temporary` means try again.
        attempts: How often it is called at most.
        base_s: The first backoff in seconds, at most; it doubles with each attempt.
        max_s: The longest backoff in seconds.

    Returns:
        What `call` returned.

    Raises:
        Temporary: the last attempt raised it.
    """
    for attempt in range(attempts - 1):
        try:
            return call()
        except Temporary:
            time.sleep(backoff_s(attempt, base_s, max_s))
    return call()


@dataclass
class Breaker:
    """A circuit breaker: closed, then open after `failures_max` failures in a row; a trial call may close it again.

    An open breaker allows one trial call every `reset_s` seconds. May be shared between threads: failures are counted
    under a lock, and of several threads that ask at once only one may make the trial call.
    """

    name: str
    failures_max: int = 3
    reset_s: float = 5.0
    clock: Callable[[], float] = time.monotonic
    _failures: int = field(default=0, init=False)
    _opened_at: float = field(default=0.0, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False, compare=False)

    @property
    def open(self) -> bool:
        """Whether calls are refused at present, except for a trial call now and then."""
        return self._failures >= self.failures_max

    def allow(self) -> bool:
        """Return whether a call may be made now. An open breaker allows one trial call every `reset_s` seconds."""
        if not self.open:
            return True
        with self._lock:
            now = self.clock()
            if now - self._opened_at < self.reset_s:
                return False
            self._opened_at = now
            return True

    def success(self) -> None:
        """Close the breaker after a call that succeeded."""
        with self._lock:
            self._failures = 0

    def failure(self) -> None:
        """Count a failed call; the failure number `failures_max` in a row opens the breaker."""
        with self._lock:
            self._failures += 1
            if self._failures == self.failures_max:
                self._opened_at = self.clock()
