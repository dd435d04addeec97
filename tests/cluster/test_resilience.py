"""Retries and breakers are bounded, and touch nothing but `Temporary`."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Barrier, BrokenBarrierError

import pytest

from cluster.errors import Rejected, Temporary
from cluster.resilience import Breaker, backoff_s, retry


class Flaky:
    """Fails `failures` times, then answers."""

    def __init__(self, failures: int) -> None:
        self.calls, self.failures = 0, failures

    def __call__(self) -> str:
        self.calls += 1
        if self.calls <= self.failures:
            raise Temporary("not yet")
        return "done"


def test_a_retry_ends_with_the_first_success() -> None:
    flaky = Flaky(2)
    assert (retry(flaky, attempts=5, base_s=0.0), flaky.calls) == ("done", 3)


def test_a_retry_gives_up_after_its_attempts() -> None:
    flaky = Flaky(9)
    with pytest.raises(Temporary):
        retry(flaky, attempts=3, base_s=0.0)
    assert flaky.calls == 3


def test_a_rejection_is_not_retried() -> None:
    calls = []
    with pytest.raises(Rejected):
        retry(lambda: (calls.append(1), (_ for _ in ()).throw(Rejected("no")))[1], attempts=5)
    assert len(calls) == 1


def test_backoff_stays_within_its_bound() -> None:
    assert all(0.0 <= backoff_s(attempt, 0.1, 2.0) <= 2.0 for attempt in range(50))


def test_a_breaker_opens_lets_one_trial_through_and_closes_again() -> None:
    now = [0.0]
    breaker = Breaker("it", failures_max=2, reset_s=10.0, clock=lambda: now[0])
    for _ in range(2):
        assert breaker.allow()
        breaker.failure()
    assert not breaker.allow()
    now[0] = 11.0
    assert [breaker.allow(), breaker.allow()] == [True, False]
    breaker.success()
    assert not breaker.open
    assert breaker.allow()


def test_a_breaker_that_threads_share_loses_no_failure() -> None:
    breaker, clock = Breaker("shared", failures_max=8 * 5000 + 1, reset_s=0.0, clock=lambda: 1.0), Barrier(8)

    def fail() -> None:
        clock.wait()
        for _ in range(5000):
            breaker.failure()

    with ThreadPoolExecutor(8) as executor:
        list(executor.map(lambda _: fail(), range(8)))
    assert not breaker.open
    breaker.failure()
    assert breaker.open


def test_of_threads_that_ask_a_resting_breaker_at_the_same_moment_one_makes_the_trial() -> None:
    together = Barrier(2)

    def now() -> float:
        """The time, at which both threads look if nothing keeps the second one out."""
        with suppress(BrokenBarrierError):
            together.wait(0.3)
        return 100.0

    resting = Breaker("resting", failures_max=1, reset_s=60.0, clock=lambda: 0.0)
    resting.failure()
    resting.clock = now
    with ThreadPoolExecutor(2) as executor:
        assert sorted(executor.map(lambda _: resting.allow(), range(2))) == [False, True]
