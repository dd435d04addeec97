"""A driver's heartbeat outlives everything but the end of its job, and a driver that has lost its job stops."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator

import pytest
from psycopg import Connection

from cluster.database import database
from pipelines.ingest import Heartbeat

WAIT_S = 60.0


@pytest.fixture
def connection(postgres_url: str) -> Iterator[Connection]:
    with database.connect(postgres_url, autocommit=True) as opened:
        opened.execute("INSERT INTO media.jobs (id, source, status, submissions) VALUES ('j', 's3://b', 'running', 1)")
        yield opened


def heart(url: str, also: Callable[[Connection], None] = lambda _: None, stop_s: float = WAIT_S) -> Heartbeat:
    return Heartbeat(url, "j", 1, "j/1", lease_s=2, also=also, stop_s=stop_s)


def until(what: Callable[[], bool]) -> None:
    end = time.monotonic() + WAIT_S
    while not what():
        assert time.monotonic() < end
        time.sleep(0.05)


def beats_again(connection: Connection) -> None:
    connection.execute("UPDATE media.jobs SET heartbeat_at = NULL")
    until(lambda: connection.execute("SELECT heartbeat_at IS NOT NULL FROM media.jobs").fetchone() == (True,))


def lose_the_job(connection: Connection) -> None:
    """To another driver, and wait: the interrupt may come as soon as the statement has taken effect."""
    connection.execute("UPDATE media.jobs SET submissions = 2")
    time.sleep(WAIT_S)


def test_a_heartbeat_outlives_whatever_goes_wrong_beside_it(connection: Connection, postgres_url: str) -> None:
    def broken(_: Connection) -> None:
        raise RuntimeError("Ray's own affairs")

    with heart(postgres_url, broken) as beating:
        for _ in range(3):
            beats_again(connection)
        assert not beating.stopped


def test_a_heartbeat_outlives_a_question_that_the_database_refuses(connection: Connection, postgres_url: str) -> None:
    with heart(postgres_url) as beating:
        beats_again(connection)
        connection.execute("ALTER TABLE media.jobs RENAME COLUMN heartbeat_at TO gone")  # no OperationalError
        time.sleep(2)
        connection.execute("ALTER TABLE media.jobs RENAME COLUMN gone TO heartbeat_at")
        beats_again(connection)
        assert not beating.stopped


def test_a_driver_whose_job_another_one_has_is_ended_though_it_waits(connection: Connection, postgres_url: str) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # as a driver does
    try:
        with heart(postgres_url, stop_s=1) as beating:
            beats_again(connection)
            with pytest.raises(KeyboardInterrupt):
                lose_the_job(connection)
            assert beating.stopped
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_driver_that_stops_by_itself_is_left_alone(connection: Connection, postgres_url: str) -> None:
    with heart(postgres_url, stop_s=WAIT_S / 5) as beating:  # a shorter one may end pytest itself on a busy machine
        connection.execute("UPDATE media.jobs SET cancel = true")
        until(lambda: beating.stopped)
    until(lambda: not beating.is_alive())
