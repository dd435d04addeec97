"""Searches read from a replica that keeps up, from the primary when it lags, stops or dies, and from it again after.

The replica is a second server that streams from the test run's own.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from cluster import database, embedded, health, runtime
from cluster.errors import Temporary
from cluster.settings import Settings
from serve.readers import Readers, pool
from serve.settings import SearchSettings

pytestmark = pytest.mark.filterwarnings("ignore:XDG_RUNTIME_DIR")  # said by the package that brings PostgreSQL
SEARCH = SearchSettings(connection_wait_s=0.5, replica_interval_s=0.05, replica_lag_max_s=0.5)
WITHIN_S = 30.0


@dataclass
class Replica:
    """A streaming replica in a folder of its own."""

    folder: Path
    port: int
    url: str
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        flags = (
            "--listen-addresses=127.0.0.1",
            "--unix-socket-directories=",
            f"--port={self.port}",
            "--shared-buffers=16MB",
            "--fsync=off",
            "--max-connections=120",  # no fewer than the primary's
        )
        postgres = str(embedded._postgres_binary("postgres"))
        self.process = subprocess.Popen(embedded._as_unprivileged((postgres, "-D", str(self.folder), *flags)))
        deadline = time.monotonic() + WITHIN_S
        while True:
            try:
                health.postgres(self.url)
                return
            except Temporary:
                assert self.process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.05)

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGQUIT)
        self.process.wait(20)

    def say(self, statement: str) -> None:
        with database.connect(self.url, autocommit=True) as connection:
            connection.execute(statement)  # type: ignore[arg-type]


@pytest.fixture
def replica(ground: Settings, postgres_url: str, tmp_path: Path) -> Iterator[Replica]:
    folder = tmp_path / "replica"
    folder.mkdir(mode=0o700)
    for parent in (tmp_path, *tmp_path.parents[:2]):
        parent.chmod(0o755)
    if os.geteuid() == 0:
        user = embedded._unprivileged()
        os.chown(folder, user.pw_uid, user.pw_gid)
    argv = (str(embedded._postgres_binary("pg_basebackup")), "--dbname", runtime.postgres_url(ground, "postgres"))
    argv += ("--pgdata", str(folder), "--write-recovery-conf", "--wal-method=stream", "--checkpoint=fast", "--no-sync")
    done = subprocess.run(embedded._as_unprivileged(argv), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    primary = str(runtime.known_port(ground, "postgres"))
    made = Replica(folder, port, postgres_url.replace(f":{primary}/", f":{port}/"))
    made.start()
    yield made
    made.kill()
    shutil.rmtree(folder)


@pytest.fixture
async def readers(postgres_url: str, replica: Replica) -> AsyncIterator[Readers]:
    made = Readers(pool(postgres_url, SEARCH), [pool(replica.url, SEARCH)], SEARCH)
    await made.start()
    yield made
    await made.close()


async def on_replica(readers: Readers) -> bool:
    async with readers.connection() as connection:
        row = await (await connection.execute("SELECT pg_is_in_recovery()")).fetchone()
    assert row is not None
    return bool(row[0])


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


async def test_a_connection_that_the_server_has_ended_is_not_given_out(postgres_url: str) -> None:
    one = dataclasses.replace(SEARCH, pool_max=1)
    readers = Readers(pool(postgres_url, one), [], one)
    await readers.start()
    pids = []
    for _ in range(2):
        async with readers.connection() as connection:
            pids.append(connection.info.backend_pid)
    assert pids[0] == pids[1]  # idle and well: given out again
    with database.connect(postgres_url, autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(%s, 5000)", (pids[0],))
    async with readers.connection() as connection:
        assert connection.info.backend_pid != pids[0]
        await connection.execute("SELECT 1")
    await readers.close()


async def test_without_any_server_it_is_said_at_once_when_the_breaker_knows() -> None:
    quick = dataclasses.replace(SEARCH, connection_wait_s=0.05)
    readers = Readers(pool("postgresql://pixr@127.0.0.1:1/pixr", quick), [], quick)
    await readers.start()
    for _ in range(3):
        with pytest.raises(Temporary):
            await on_replica(readers)
    began = time.monotonic()
    with pytest.raises(Temporary):
        await on_replica(readers)
    assert time.monotonic() - began < 0.05
    await readers.close()
