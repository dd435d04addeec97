"""Background tasks of one event loop, under supervision; and work that a caller's cancellation does not reach.

A bare `asyncio.create_task` dies in silence: nobody logs why, nobody starts it again, and readiness stays green. Here a
task that is *kept* is logged when it ends, started again with backoff, and named by `failing` until it has been well
for a while; one that is *spawned* runs once, is held by a reference and logged when it fails. `close` ends them all.

`uncancelled` is for whatever holds a resource of others (a connection, a lock): the caller may go away at any await, the
work goes on in a task of its own to its own end. Knows nothing of what the tasks do.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar
from weakref import WeakSet

from cluster.resilience import backoff_s
from cluster.seldom import Seldom

log = logging.getLogger(__name__)
seldom = Seldom(log)

Result = TypeVar("Result")

RESTART_BASE_S, RESTART_MAX_S = 0.1, 5.0
WELL_AFTER_S = 10.0  # of running without a failure
CLOSE_TIMEOUT_S = 5.0


@dataclass
class _Kept:
    """One task that is kept: why it failed last, how often in a row, and since when it runs."""

    reason: str = ""
    failures: int = 0
    started_at: float = 0.0

    def is_well(self) -> bool:
        return not self.reason or (self.started_at > 0 and time.monotonic() - self.started_at >= WELL_AFTER_S)


class Tasks:
    """The background tasks of one component. Used inside one event loop."""

    def __init__(self, owner: str) -> None:
        self._owner = owner
        self._kept: dict[str, _Kept] = {}
        self._running: set[asyncio.Task[Any]] = set()
        self._closed = False
        _OWNERS.add(self)

    def __len__(self) -> int:
        """How many run at present."""
        return len(self._running)

    @property
    def failing(self) -> Mapping[str, str]:
        """The kept tasks that failed and have not been well since, each with the reason."""
        return {name: kept.reason for name, kept in self._kept.items() if not kept.is_well()}

    def keep(self, name: str, work: Callable[[], Awaitable[None]]) -> asyncio.Task[None]:
        """Run `work()` for good: whenever it raises or returns it is logged and started again, with backoff."""
        self._kept[name] = _Kept()
        return self._started(name, self._for_good(name, work))

    def spawn(
        self, name: str, work: Coroutine[Any, Any, Result], *, expected: tuple[type[Exception], ...] = ()
    ) -> asyncio.Task[Result]:
        """Run `work` once, beside the caller; a failure is logged, but for those `expected` by a caller who awaits it."""
        task = self._started(name, work)
        task.add_done_callback(lambda done: self._log_failure(done, expected))
        return task

    async def close(self, timeout_s: float = CLOSE_TIMEOUT_S) -> None:
        """Cancel what runs and wait for its end; what is still there after `timeout_s` is logged and left."""
        self._closed = True
        for task in self._running:
            task.cancel()
        if self._running:
            _, left = await asyncio.wait(set(self._running), timeout=timeout_s)
            for task in left:
                log.error("%s does not end", task.get_name())

    def _started(self, name: str, work: Coroutine[Any, Any, Result]) -> asyncio.Task[Result]:
        task = asyncio.create_task(work, name=f"{self._owner}: {name}")
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    async def _for_good(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        kept = self._kept[name]
        while not self._closed:
            kept.started_at = time.monotonic()
            try:
                await work()
                kept.reason = "it ended although it should run for good"
                log.error("%s: %s %s", self._owner, name, kept.reason)
            except Exception as error:
                kept.reason = f"{type(error).__name__}: {str(error).strip()[:200]}"
                log.exception("%s: %s failed", self._owner, name)
            ran_s, kept.started_at = time.monotonic() - kept.started_at, 0.0
            kept.failures = 0 if ran_s >= WELL_AFTER_S else kept.failures + 1
            await asyncio.sleep(backoff_s(min(kept.failures, 10), RESTART_BASE_S, RESTART_MAX_S))

    def _log_failure(self, task: asyncio.Task[Any], expected: tuple[type[Exception], ...]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, expected):
            log.error("%s failed", task.get_name(), exc_info=error)


def running() -> int:
    """How many background tasks run in this process, of all owners; a gauge that must come back."""
    return sum(len(owner) for owner in _OWNERS)


async def ended(*tasks: asyncio.Future[Any]) -> None:
    """End these, and wait until they have: so that nothing works on for a caller who was refused, or has gone."""
    for each in tasks:
        each.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)  # what went wrong in one was said, or is nobody's concern


async def uncancelled(work: Coroutine[Any, Any, Result]) -> Result:
    """Await `work` in a task of its own, which goes on to its end also when the caller is cancelled.

    The work itself must be bounded in time: nobody can end it from outside. A failure after the caller has gone is
    logged.
    """
    task = asyncio.create_task(work)
    _ORPHANS.add(task)
    task.add_done_callback(_ORPHANS.discard)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        if not task.done():
            task.add_done_callback(_log_orphan)
        raise


_OWNERS: WeakSet[Tasks] = WeakSet()
_ORPHANS: set[asyncio.Task[Any]] = set()  # the loop itself holds tasks weakly


def uncancelled_running() -> int:
    """How many calls of `uncancelled` run at present; a gauge that must come back to 0."""
    return len(_ORPHANS)


def _log_orphan(task: asyncio.Task[Any]) -> None:
    error = None if task.cancelled() else task.exception()
    if error is not None:
        seldom.warning(f"work whose caller has gone failed: {type(error).__name__}")
