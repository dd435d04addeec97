"""The gauges of a replica's means, as Prometheus reads them."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from prometheus_client import generate_latest
from psycopg_pool import AsyncConnectionPool

from cluster import tasks
from serve.metrics import Means, Metrics, pool_states


def sample(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


async def test_a_connection_that_is_held_is_counted_as_used_until_it_is_given_back(postgres_url: str) -> None:
    async with AsyncConnectionPool(postgres_url, min_size=2, max_size=2, open=False) as pool:
        await pool.wait()
        metrics = Metrics(dict, Means(pool=lambda: pool_states(pool.get_stats())))
        assert sample(metrics, "pixr_pool_connections", state="idle") == 2
        async with pool.connection():
            assert sample(metrics, "pixr_pool_connections", state="used") == 1
        assert sample(metrics, "pixr_pool_connections", state="used") == 0


async def test_a_call_whose_caller_has_gone_is_counted_until_it_ends() -> None:
    metrics, end = Metrics(dict), asyncio.Event()
    caller = asyncio.create_task(tasks.uncancelled(end.wait()))
    await asyncio.sleep(0)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert sample(metrics, "pixr_uncancelled_calls") == 1
    end.set()
    await asyncio.sleep(0.01)
    assert sample(metrics, "pixr_uncancelled_calls") == 0


def test_an_open_file_is_counted() -> None:
    metrics = Metrics(dict)
    before = sample(metrics, "pixr_open_descriptors")
    with Path(os.devnull).open(encoding="ascii"):
        assert before is not None
        assert sample(metrics, "pixr_open_descriptors") == before + 1
    assert sample(metrics, "pixr_open_descriptors") == before


def test_gates_tasks_and_memory_are_shown() -> None:
    metrics = Metrics(dict, Means(gates=lambda: {"searches": {"taken": 3, "waiting": 1}}, tasks=lambda: 7))
    assert sample(metrics, "pixr_gate_places", gate="searches", state="taken") == 3
    assert sample(metrics, "pixr_background_tasks") == 7
    assert (sample(metrics, "pixr_resident_bytes") or 0) > 10_000_000
    assert b'pixr_gate_places{gate="searches",state="waiting"} 1.0' in generate_latest(metrics.registry)
