"""Searches read from a replica that keeps up, from the primary when it lags, stops or dies, and from it again after.

The replica is a second server that streams from the test run's own.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from psycopg import AsyncConnection

from cluster.database import database
from cluster.errors import Temporary
from cluster.settings import Settings
from serve.replica.connections import Connections
from serve.replica.readers import Readers
from serve.settings import SearchSettings
from tests.conftest import free_port
from tests.replica import WITHIN_S, Replica, at_port, streaming

pytestmark = pytest.mark.filterwarnings("ignore:XDG_RUNTIME_DIR")  # said by the package that brings PostgreSQL
SEARCH = SearchSettings(connection_wait_s=0.5, replica_interval_s=0.05, replica_lag_max_s=0.5)


@pytest.fixture
def replica(ground: Settings, postgres_url: str, tmp_path: Path) -> Iterator[Replica]:
    with streaming(ground, tmp_path / "replica", at_port(postgres_url, ground, free_port())) as made:
        yield made


@pytest.fixture
async def readers(postgres_url: str, replica: Replica) -> AsyncIterator[Readers]:
    made = Readers(Connections(postgres_url, SEARCH), [Connections(replica.url, SEARCH)], SEARCH)
    await made.start()
    yield made
    await made.close()


async def on_replica(readers: Readers) -> bool:
    return await readers.ask(is_replica)


async def is_replica(connection: AsyncConnection[Any]) -> bool:
    row = await (await connection.execute("SELECT pg_is_in_recovery()")).fetchone()
    assert row is not None
    return bool(row[0])


async def process_of(connection: AsyncConnection[Any]) -> int:
    await connection.execute("SELECT 1")
    return connection.info.backend_pid


async def until(readers: Readers, where: bool) -> None:
    """Every look on the way gives a connection, whatever happens to the replica."""
    deadline = time.monotonic() + WITHIN_S
    while await on_replica(readers) is not where:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


async def test_a_replica_is_read_while_it_keeps_up_and_only_then(
    readers: Readers, replica: Replica, postgres_url: str
) -> None:
    await until(readers, where=True)
    replica.say("SELECT pg_wal_replay_pause()")
    with database.connect(postgres_url, autocommit=True) as primary:
        primary.execute("UPDATE media.generation SET value = value + 1")
    await until(readers, where=False)  # it streams and does not replay: behind by more and more
    replica.say("SELECT pg_wal_replay_resume()")
    await until(readers, where=True)
    await asyncio.to_thread(replica.kill)
    await until(readers, where=False)
    await asyncio.to_thread(replica.start)
    await until(readers, where=True)


async def test_a_question_under_which_a_replica_goes_away_is_answered_by_the_primary(
    readers: Readers, replica: Replica
) -> None:
    await until(readers, where=True)
    asked: list[bool] = []

    async def where(connection: AsyncConnection[Any]) -> bool:
        row = await (await connection.execute("SELECT pg_is_in_recovery()")).fetchone()
        assert row is not None
        asked.append(bool(row[0]))
        if row[0]:
            await asyncio.to_thread(replica.kill)
            await connection.execute("SELECT 1")
        return bool(row[0])

    assert await readers.ask(where) is False
    assert asked == [True, False]
    await asyncio.to_thread(replica.start)


async def test_a_connection_that_the_server_has_ended_is_not_given_out(postgres_url: str) -> None:
    one = dataclasses.replace(SEARCH, pool_max=1)
    readers = Readers(Connections(postgres_url, one), [], one)
    await readers.start()
    pids = [await readers.ask(process_of) for _ in range(2)]
    assert pids[0] == pids[1]  # idle and well: given out again
    with database.connect(postgres_url, autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(%s, 5000)", (pids[0],))
    assert await readers.ask(process_of) != pids[0]
    await readers.close()


async def test_without_any_server_it_is_said_at_once_when_the_breaker_knows() -> None:
    quick = dataclasses.replace(SEARCH, connection_wait_s=6.0)
    readers = Readers(Connections("postgresql://pixr@127.0.0.1:1/pixr", quick), [], quick)
    await readers.start()
    for _ in range(3):
        with pytest.raises(Temporary):
            await on_replica(readers)
    began = time.monotonic()
    with pytest.raises(Temporary):
        await on_replica(readers)
    assert time.monotonic() - began < quick.connection_wait_s / 2
    await readers.close()
