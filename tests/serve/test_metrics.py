"""The gauges of a replica's means, as Prometheus reads them."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from prometheus_client import generate_latest

from cluster import tasks
from cluster.tasks import Tasks
from serve.metrics import Metrics, ReplicaGauges, pool_states
from serve.replica.connections import Connections
from serve.replica.readers import Readers
from serve.settings import SearchSettings


def sample(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


async def test_a_connection_that_is_held_is_counted_as_used_until_it_is_given_back(postgres_url: str) -> None:
    readers = Readers(Connections(postgres_url, SearchSettings()), [], SearchSettings())
    await readers.start()
    metrics, held, go = (
        Metrics(dict, ReplicaGauges(pool=lambda: pool_states(readers.gauges()))),
        asyncio.Event(),
        asyncio.Event(),
    )

    async def hold(_: object) -> None:
        held.set()
        await go.wait()

    asking = asyncio.create_task(readers.ask(hold))
    await held.wait()
    assert sample(metrics, "pixr_pool_connections", state="used") == 1
    go.set()
    await asking
    assert sample(metrics, "pixr_pool_connections", state="used") == 0
    assert sample(metrics, "pixr_pool_connections", state="idle") == 1
    await readers.close()


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


async def test_a_background_task_is_counted_until_it_has_ended() -> None:
    metrics, owned, end = Metrics(dict), Tasks("test"), asyncio.Event()
    before = sample(metrics, "pixr_background_tasks")
    task = owned.spawn("waiting", end.wait())
    assert before is not None
    assert sample(metrics, "pixr_background_tasks") == before + 1
    end.set()
    await task
    await asyncio.sleep(0)
    assert sample(metrics, "pixr_background_tasks") == before


def test_gates_and_memory_are_shown() -> None:
    metrics = Metrics(dict, ReplicaGauges(gates=lambda: {"searches": {"taken": 3, "waiting": 1}}))
    assert sample(metrics, "pixr_gate_places", gate="searches", state="taken") == 3
    assert (sample(metrics, "pixr_resident_bytes") or 0) > 10_000_000
    assert b'pixr_gate_places{gate="searches",state="waiting"} 1.0' in generate_latest(metrics.registry)
