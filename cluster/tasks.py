"""Supervised background tasks of one event loop, and work that goes on when its caller is cancelled.

A bare `asyncio.create_task` fails silently: nothing logs the reason, nothing starts it again, and readiness stays
green. Here a task that is *kept* is logged when it ends, restarted with backoff, and listed by `failing` until it has
run well for a while; one that is *spawned* runs once, is held by a reference, and is logged when it fails. `close`
cancels them all.

`uncancelled` is for work that holds a shared resource (a connection, a lock): the caller may be cancelled at any await,
while the work runs to its end in a task of its own. Does not know what the tasks do.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar
from weakref import WeakSet

from cluster.observability.seldom import Seldom
from cluster.resilience import backoff_s

log = logging.getLogger(__name__)
seldom = Seldom(log)

Result = TypeVar("Result")

RESTART_BASE_S, RESTART_MAX_S = 0.1, 5.0
WELL_AFTER_S = 10.0  # how long a task that failed must run without failing to count as well again
CLOSE_TIMEOUT_S = 5.0


@dataclass
class _Kept:
    """The state of a kept task: why it last failed, how many failures in a row, when it was last started."""

    reason: str = ""
    failures: int = 0
    started_at: float = 0.0

    def is_well(self) -> bool:
        """Return whether the task has never failed, or has run for `WELL_AFTER_S` since."""
        return not self.reason or (self.started_at > 0 and time.monotonic() - self.started_at >= WELL_AFTER_S)


class Tasks:
    """The background tasks of one component. For use inside one event loop; `owner` names the component in logs."""

    def __init__(self, owner: str) -> None:
        self._owner = owner
        self._kept: dict[str, _Kept] = {}
        self._running: set[asyncio.Task[Any]] = set()
        self._closed = False
        _OWNERS.add(self)

    def __len__(self) -> int:
        """Return how many tasks are running."""
        return len(self._running)

    @property
    def failing(self) -> Mapping[str, str]:
        """The names of the kept tasks that failed and have not been well since, each with the reason."""
        return {name: kept.reason for name, kept in self._kept.items() if not kept.is_well()}

    def keep(self, name: str, work: Callable[[], Awaitable[None]]) -> asyncio.Task[None]:
        """Run `work()` until `close`: whenever it raises or returns, log that and start it again, with backoff."""
        self._kept[name] = _Kept()
        return self._started(name, self._for_good(name, work))

    def spawn(
        self, name: str, work: Coroutine[Any, Any, Result], *, expected: tuple[type[Exception], ...] = ()
    ) -> asyncio.Task[Result]:
        """Run `work` once, beside the caller; log a failure, except of the `expected` types, which its caller handles."""
        task = self._started(name, work)
        task.add_done_callback(lambda done: self._log_failure(done, expected))
        return task

    async def close(self, timeout_s: float = CLOSE_TIMEOUT_S) -> None:
        """Cancel all tasks and wait until they have ended; a task that still runs after `timeout_s` is logged and left."""
        self._closed = True
        for task in self._running:
            task.cancel()
        if self._running:
            _, unfinished = await asyncio.wait(set(self._running), timeout=timeout_s)
            for task in unfinished:
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
    """Return how many background tasks of all owners run in this process.

    The number is for a gauge, which must fall back after a load.
    """
    return sum(len(owner) for owner in _OWNERS)


async def ended(*tasks: asyncio.Future[Any]) -> None:
    """Cancel tasks and wait until they have ended, so that nothing goes on for a caller who was refused or has gone."""
    for each in tasks:
        each.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)  # a failure was reported already, or concerns nobody now


async def uncancelled(work: Coroutine[Any, Any, Result]) -> Result:
    """Await `work` in a task of its own, which runs to its end even when the caller is cancelled.

    The work must be bounded in time, because nothing can cancel it from outside. A failure after the caller was
    cancelled is logged.
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
_ORPHANS: set[asyncio.Task[Any]] = set()  # strong references; the event loop has only weak ones


def uncancelled_running() -> int:
    """Return how many calls of `uncancelled` run at present.

    The number is for a gauge, which must fall back to 0 after a load.
    """
    return len(_ORPHANS)


def _log_orphan(task: asyncio.Task[Any]) -> None:
    error = None if task.cancelled() else task.exception()
    if error is not None:
        seldom.warning(f"work whose caller has gone failed: {type(error).__name__}")
