"""Retries and circuit breakers, both bounded. Only `Temporary` is retried; anything else passes through at once."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

from cluster.errors import Temporary

Result = TypeVar("Result")


def backoff_s(attempt: int, base_s: float, max_s: float) -> float:
    """Full jitter: uniform between 0 and the capped exponential (AWS Architecture Blog, 2015)."""
    return random.uniform(0.0, min(max_s, base_s * 2.0**attempt))


def retry(call: Callable[[], Result], *, attempts: int = 5, base_s: float = 0.1, max_s: float = 5.0) -> Result:
    """Call until it succeeds, at most `attempts` times; the last `Temporary` is raised."""
    for attempt in range(attempts - 1):
        try:
            return call()
        except Temporary:
            time.sleep(backoff_s(attempt, base_s, max_s))
    return call()


async def aretry(
    call: Callable[[], Awaitable[Result]], *, attempts: int = 5, base_s: float = 0.1, max_s: float = 5.0
) -> Result:
    """`retry` for coroutines."""
    for attempt in range(attempts - 1):
        try:
            return await call()
        except Temporary:
            await asyncio.sleep(backoff_s(attempt, base_s, max_s))
    return await call()


@dataclass
class Breaker:
    """Closed, then open after `failures_max` failures in a row, then one trial call every `reset_s` seconds.

    Safe to share between threads: no failure is lost, and of many that ask at once one is let through as the trial.
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
        return self._failures >= self.failures_max

    def allow(self) -> bool:
        """May a call be made now? When open, one trial is let through each `reset_s` seconds."""
        if not self.open:
            return True
        with self._lock:
            now = self.clock()
            if now - self._opened_at < self.reset_s:
                return False
            self._opened_at = now
            return True

    def success(self) -> None:
        with self._lock:
            self._failures = 0

    def failure(self) -> None:
        with self._lock:
            self._failures += 1
            if self._failures == self.failures_max:
                self._opened_at = self.clock()

    def call(self, function: Callable[[], Result]) -> Result:
        """Run `function` under the breaker.

        Raises:
            Temporary: the breaker is open, or `function` raised it.
        """
        if not self.allow():
            raise Temporary(f"{self.name} is resting after {self._failures} failures", self.reset_s)
        try:
            result = function()
        except Temporary:
            self.failure()
            raise
        self.success()
        return result
