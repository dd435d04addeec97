"""Background tasks: what fails is started again and said, what is cancelled holds nothing, what is closed has ended."""

from __future__ import annotations

import asyncio

import pytest

from cluster import tasks
from cluster.tasks import Tasks


async def test_a_kept_task_that_fails_is_started_again_and_named_until_it_is_well(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tasks, "WELL_AFTER_S", 0.2)
    monkeypatch.setattr(tasks, "RESTART_BASE_S", 0.001)
    runs, owned = 0, Tasks("test")

    async def work() -> None:
        nonlocal runs
        runs += 1
        if runs < 3:
            raise ValueError("not yet")
        await asyncio.sleep(60)

    owned.keep("worker", work)
    while runs < 3:  # noqa: ASYNC110  what runs is counted, not told
        await asyncio.sleep(0.005)
    assert owned.failing == {"worker": "ValueError: not yet"}
    await asyncio.sleep(0.25)
    assert owned.failing == {}
    await owned.close()
    assert len(owned) == 0


async def test_a_kept_task_that_returns_is_a_failure_and_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "RESTART_BASE_S", 0.001)
    runs, owned = 0, Tasks("test")

    async def work() -> None:
        nonlocal runs
        runs += 1

    owned.keep("worker", work)
    while runs < 3:  # noqa: ASYNC110  what runs is counted, not told
        await asyncio.sleep(0.005)
    assert "ended" in owned.failing["worker"]
    await owned.close()
    seen = runs
    await asyncio.sleep(0.05)
    assert runs == seen


async def test_a_spawned_task_that_fails_is_logged_and_let_go(caplog: pytest.LogCaptureFixture) -> None:
    owned = Tasks("test")

    async def work() -> None:
        raise ValueError("broken")

    owned.spawn("once", work())
    await asyncio.sleep(0.01)
    assert len(owned) == 0
    assert "test: once failed" in caplog.text


async def test_uncancelled_work_goes_on_to_its_end_when_the_caller_is_cancelled() -> None:
    held = ["connection"]

    async def work() -> None:
        try:
            await asyncio.sleep(0.05)
        finally:
            await asyncio.sleep(0.01)  # giving back takes an await, in which a cancellation would lose the resource
            held.clear()

    caller = asyncio.create_task(tasks.uncancelled(work()))
    await asyncio.sleep(0.01)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert held
    assert tasks.uncancelled_running() == 1
    await asyncio.sleep(0.1)
    assert not held
    assert tasks.uncancelled_running() == 0


async def test_uncancelled_work_gives_its_result_and_its_error() -> None:
    async def add(a: int, b: int) -> int:
        await asyncio.sleep(0)
        if a < 0:
            raise ValueError("negative")
        return a + b

    assert await tasks.uncancelled(add(1, 2)) == 3
    with pytest.raises(ValueError, match="negative"):
        await tasks.uncancelled(add(-1, 2))
