"""Chaos: while jobs run, one of their processes after the other is killed; the tables end as if nothing had happened."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest
from psycopg import Connection

from cluster.settings import Settings
from pipelines.jobs import jobs, watch
from tests.pipelines.test_ingest import WHOLE, multiplied, processes, rows, submit, wait

KILLS, INTERVAL_S = 20, 30.0
COPIES = 12  # of each file
VICTIMS = (
    "pipelines.ingest --job",
    "EmbedBatches",
    "ray::Map",
    "ray::FlatMap",
    "pipelines.sandbox.child",
    "child of a keeper",
)
DRIVER_KILLS_MAX = 3  # a job's driver may die five times


@pytest.fixture
def many(clips: Path, tmp_path: Path) -> Path:
    return multiplied(tmp_path / "many", [clips / name for name in WHOLE if name.endswith(".mp4")], COPIES)


class Killer:
    """Kills one process of a job at a time, no sooner than `INTERVAL_S` after the last."""

    def __init__(self, settings: Settings, connection: Connection, seed: int) -> None:
        self._settings, self._connection = settings, connection
        self._rng = random.Random(seed)
        self._due = 0.0
        self.killed: Counter[str] = Counter()
        self.drivers = 0  # of this job

    def look(self) -> None:
        if time.monotonic() >= self._due:
            victims = list(VICTIMS) if self.drivers < DRIVER_KILLS_MAX else list(VICTIMS[1:])
            self._rng.shuffle(victims)
            for name in victims:
                if self._kill(name):
                    self._due = time.monotonic() + INTERVAL_S
                    break
        watch.look(self._settings, self._connection)

    def _kill(self, name: str) -> bool:
        found = self._find(name)
        if not found:
            return False
        victim = self._rng.choice(found)
        try:
            victim.send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            return False
        self.killed[name] += 1
        self.drivers += name == VICTIMS[0]
        return True

    def _find(self, name: str) -> list[psutil.Process]:
        if name != "child of a keeper":
            return processes(self._settings, name) or self._unmarked(name)
        return [child for keeper in self._unmarked("pipelines.sandbox.child") for child in _children(keeper)]

    def _unmarked(self, name: str) -> list[psutil.Process]:
        """Processes without our variables in their environment, as keepers are: by their ancestors."""
        if name != "pipelines.sandbox.child":
            return []
        workers = processes(self._settings, "ray::")
        return [child for worker in workers for child in _children(worker) if _is(child, name)]


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children()
    except psutil.NoSuchProcess:
        return []


def _is(process: psutil.Process, words: str) -> bool:
    try:
        return words in " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return False


@pytest.mark.slow
@pytest.mark.timeout(7000)
def test_twenty_kills_at_random_change_nothing(deployment: Settings, connection: Connection, many: Path) -> None:
    wait(connection, submit(deployment, connection, many), timeout_s=1500)
    expected = rows(connection)
    assert {row[1] for row in expected} == {"ready"}
    killer = Killer(deployment, connection, seed=5)
    while sum(killer.killed.values()) < KILLS:
        connection.execute("TRUNCATE media.embeddings, media.segments, media.videos, media.jobs CASCADE")
        killer.drivers = 0
        job = wait(connection, submit(deployment, connection, many), killer.look, timeout_s=1500)
        assert job["status"] == "succeeded", (job["error"], killer.killed)
        assert rows(connection) == expected, killer.killed
        assert jobs.get(connection, job["id"])["videos"]["quarantined"] == 0
    print(dict(killer.killed))
    assert len(killer.killed) >= 4, "too few kinds of processes were hit"
