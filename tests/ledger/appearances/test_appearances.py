"""What is shown is in the spool before it is answered, and in the database once, whoever carries it."""

from __future__ import annotations

import asyncio
import itertools
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg import Connection

from cluster.database import database
from cluster.errors import Temporary
from cluster.settings import Settings
from ledger.appearances import appearances, spool
from ledger.appearances.appearances import Appearance, Hashes
from ledger.appearances.recorder import Recorder
from ledger.settings import LedgerSettings
from tests.ledger.accrual.test_fold import shown


def recorded(settings: Settings) -> list[int]:
    """The segments of every appearance in the database, in order."""
    with database.connect(settings.postgres.url) as connection:
        rows = connection.execute("SELECT payload, format FROM ledger.appearance_batches ORDER BY incarnation, seq")
        return [int(each["segment_id"]) for payload, form in rows for each in spool.unpack(bytes(payload), form)[1]]


def left(folder: Path) -> list[list[bytes]]:
    """The searches in each spool whose owner is dead."""
    return [orphan.records() for orphan in spool.orphans(folder)]


async def until(condition: Callable[[], bool], what: str, timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.02)


async def test_searches_are_carried_in_batches_and_the_spool_is_removed(settings: Settings) -> None:
    recorder = Recorder(settings)
    await recorder.start()
    for number in range(250):
        assert recorder.record([shown(number), shown(number + 1000)]) == 2
    await until(lambda: recorder.waiting == 0, "everything carried")
    await recorder.close()
    assert sorted(recorded(settings)) == sorted([*range(250), *range(1000, 1250)])
    assert list((settings.data_dir / "spool").glob("*")) == []


async def test_own_and_invested_moments_are_left_out(settings: Settings) -> None:
    with database.connect(settings.postgres.url) as connection:
        connection.execute(
            "INSERT INTO ledger.segment_stakes (segment_id, investor_id, pix_invested) VALUES (5, 77, 1)"
        )
    recorder = Recorder(settings)
    await recorder.start()
    await until(lambda: bool(recorder._stakes), "stakes known")
    assert recorder.record([shown(1, creator=9), shown(2, creator=8)], own_creator_ids=[9]) == 1
    assert recorder.record([shown(5), shown(6)], principal_id=77) == 1
    assert recorder.record([shown(1, creator=9)], own_creator_ids=[9]) == 0
    await until(lambda: recorder.waiting == 0, "everything carried")
    await recorder.close()
    assert sorted(recorded(settings)) == [2, 6]


CHILD = """
import asyncio, os, sys
from pathlib import Path
from cluster import settings as settings_module
from ledger.appearances.appearances import Appearance
from ledger.appearances.recorder import Recorder
async def main():
    recorder = Recorder(settings_module.load(Path(sys.argv[1]), dict(os.environ)))
    await recorder.start()
    for number in range(int(sys.argv[2])):
        recorder.record([Appearance(bytes(16), number, 1, 0, 1000, 1)])
        print(number, flush=True)
        await asyncio.sleep(0)
    await asyncio.sleep(60)
asyncio.run(main())
"""


def test_a_killed_replica_loses_nothing_it_has_answered(settings: Settings) -> None:
    """kill -9 in the midst of it; whoever is left adopts the spool, and twice is once."""
    environment = {**os.environ, "PIXR_DATA_DIR": str(settings.data_dir), "PIXR_POSTGRES_URL": settings.postgres.url}
    argv = [sys.executable, "-c", CHILD, str(settings.path), "400"]
    process = subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    answered = [int(process.stdout.readline()) for _ in range(300)]
    process.send_signal(signal.SIGKILL)
    answered += [int(line) for line in process.stdout.read().split()]
    process.wait(20)
    with database.connect(settings.postgres.url, autocommit=True) as connection:
        appearances.adopt(connection, settings.data_dir / "spool")
        assert appearances.adopt(connection, settings.data_dir / "spool") == 0
    found = recorded(settings)
    assert sorted(found) == sorted(set(found))
    assert set(answered) <= set(found)


class Interrupted:
    """An heir's connection: once it has read how far the dead came, something happens."""

    def __init__(self, connection: Connection[Any], happens: Callable[[], None]) -> None:
        self._connection, self._happens = connection, happens

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def execute(self, query: str, values: Any) -> Any:
        cursor = self._connection.execute(query, values)
        if query == appearances.HELD:
            self._happens()
        return cursor


@pytest.mark.parametrize("begun", [False, True])
def test_what_a_dead_replica_has_still_sent_is_recorded_once(settings: Settings, begun: bool) -> None:
    """Its last insert is under way when its spool is adopted, or arrives in the midst of that."""
    owner = spool.Spool(settings.data_dir / "spool", number := uuid4())
    records = [appearances.search_record([shown(each)], spool.NO_KEY, bytes(8), 1) for each in range(3)]
    for record in records:
        owner.append(record)
    owner.close()
    url = settings.postgres.url
    with (
        database.connect(url, autocommit=True) as dead,
        database.connect(url, autocommit=True) as heir,
        database.connect(url, autocommit=True) as look,
        ThreadPoolExecutor(2) as executor,
    ):
        dead.execute("INSERT INTO ledger.incarnations (id, spool) VALUES (%s, 'x')", (number,))
        last = (appearances.RECORDED, appearances.parameters(number, 0, spool.pack(records[:2])))

        def waits(connection: Connection[Any], done: Future[Any]) -> None:
            query = "SELECT wait_event_type FROM pg_stat_activity WHERE pid = %s"
            deadline = time.monotonic() + 20
            while not done.done() and look.execute(query, (connection.info.backend_pid,)).fetchone() != ("Lock",):
                assert time.monotonic() < deadline, "one waits for the other"
                time.sleep(0.01)

        if begun:
            dead.execute("BEGIN")
            assert dead.execute(*last).rowcount == 1
            adopting = executor.submit(appearances.adopt, heir, settings.data_dir / "spool")
            waits(heir, adopting)
            dead.execute("COMMIT")
            assert adopting.result(20) == 1
        else:
            inserted: list[Future[Any]] = []

            def arrives() -> None:
                inserted.append(executor.submit(dead.execute, *last))
                waits(dead, inserted[0])

            interrupted: Any = Interrupted(heir, arrives)
            assert appearances.adopt(interrupted, settings.data_dir / "spool") == 3
            assert inserted[0].result(20).rowcount == 0
        assert appearances.adopt(heir, settings.data_dir / "spool") == 0
    assert recorded(settings) == [0, 1, 2]


def test_a_spool_is_not_adopted_in_a_transaction_that_may_yet_fail(settings: Settings) -> None:
    owner = spool.Spool(settings.data_dir / "spool", uuid4())
    owner.append(appearances.search_record([shown(1)], spool.NO_KEY, bytes(8), 1))
    owner.close()
    with database.connect(settings.postgres.url) as connection:
        connection.execute("SELECT 1")
        with pytest.raises(AssertionError, match="before the commit"):
            appearances.adopt(connection, settings.data_dir / "spool")
        connection.rollback()
        assert appearances.adopt(connection, settings.data_dir / "spool") == 1
    assert recorded(settings) == [1]


async def test_an_away_database_fills_the_spool_and_then_says_so(settings: Settings) -> None:
    away = settings.with_section(LedgerSettings(spool_backlog_max_mb=0, flush_interval_ms=5))
    object.__setattr__(away.postgres, "serve_url", away.postgres.serve_url.replace("/test_", "/nowhere_"))
    recorder = Recorder(away)
    await recorder.start()
    assert recorder.record([shown(1)]) == 1
    await until(lambda: bool(recorder._reason), "the database is away")
    with pytest.raises(Temporary, match="spool of appearances is full"):
        recorder.record([shown(2)])
    await recorder.close()
    (orphan,) = left(away.data_dir / "spool")
    assert len(orphan) == 1


def test_a_torn_record_was_never_answered_for(tmp_path: Path) -> None:
    owner = spool.Spool(tmp_path, uuid4())
    owner.append(b"first")
    owner.append(b"second")
    assert left(tmp_path) == []  # its owner lives
    owner.sync()
    with open(owner.path, "ab") as handle:
        handle.write(spool.FRAME.pack(5, 0) + b"thi")
    owner.close()
    owner.close()
    assert left(tmp_path) == [[b"first", b"second"]]
    for orphan in spool.orphans(tmp_path):
        orphan.remove()
        orphan.close()
    assert left(tmp_path) == []


def test_a_viewer_is_a_keyed_hash_that_rotates(settings: Settings) -> None:
    hashes = Hashes(settings)
    first = hashes.viewer("address", "192.0.2.1", 0.0)
    assert len(first) == 16
    assert hashes.viewer("address", "192.0.2.1", 86_400.0) == first
    assert hashes.viewer("address", "192.0.2.1", 31 * 86_400.0) != first
    assert hashes.viewer("key", "192.0.2.1", 0.0) != first
    assert hashes.key("1", "k") != hashes.key("2", "k")


def test_viewers_hashes_do_not_all_change_on_one_day(settings: Settings) -> None:
    """Each changes once in thirty days, on a day of its own, at midnight UTC; until the first of it they are as they were."""
    hashes, began = Hashes(settings), appearances.ONE_BY_ONE_FROM * appearances.ROTATION_DAYS
    changed = []
    for viewer in map(str, range(60)):
        named = [hashes.viewer("cookie", viewer, 86_400.0 * day) for day in range(began, began + 90)]
        days = [day for day in range(1, 90) if named[day] != named[day - 1]]
        assert [later - earlier for earlier, later in itertools.pairwise(days)] in ([30], [30, 30])
        assert hashes.viewer("cookie", viewer, 86_400.0 * (began + days[0]) - 1) == named[days[0] - 1]
        assert named[0] == hashes.viewer("cookie", viewer, 86_400.0 * (began - 1)) or days[0] == 30
        changed.append(days[0] % 30)
    assert len(set(changed)) >= 15
    before = [hashes.viewer("cookie", "v", 86_400.0 * day) for day in range(began - 61, began)]
    assert [before[i] != before[i - 1] for i in range(1, 61)].count(True) == 2
    assert before[0] != before[1]
    assert before[30] != before[31]


def test_a_network_is_a_keyed_hash_that_rotates_at_midnight(settings: Settings) -> None:
    hashes, rotation_s = Hashes(settings), appearances.ROTATION_DAYS * 86_400.0
    first = hashes.origin("192.0.2.0/24", 0.0)
    assert len(first) == 16
    assert first not in (
        spool.NO_ORIGIN,
        hashes.origin("192.0.3.0/24", 0.0),
        hashes.viewer("address", "192.0.2.0/24", 0.0),
    )
    assert hashes.origin("192.0.2.0/24", rotation_s - 1.0) == first
    assert hashes.origin("192.0.2.0/24", rotation_s) != first
    assert rotation_s % 86_400 == 0


@pytest.mark.parametrize(
    "wrong",
    [{"viewer_hmac": b"short"}, {"relevance_ppm": -1}, {"relevance_ppm": 1_000_001}, {"amount_pix": -1}, {"amount_pix": 2**31}],
)  # fmt: skip
def test_an_appearance_checks_itself_at_birth(wrong: dict[str, Any]) -> None:
    good = {
        "viewer_hmac": bytes(16),
        "segment_id": 1,
        "creator_id": 1,
        "best_frame_ms": 0,
        "relevance_ppm": 5,
        "amount_pix": 5,
    }
    assert Appearance(**good)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Appearance(**good | wrong)


def test_a_batch_is_never_changed(settings: Settings) -> None:
    with (
        database.connect(settings.postgres.url) as connection,
        pytest.raises(psycopg.DatabaseError, match="append-only"),
    ):
        connection.execute("UPDATE ledger.appearance_batches SET searches = 1")


def test_a_full_disk_leaves_no_half_record_behind(tmp_path: Path) -> None:
    owner = spool.Spool(tmp_path, uuid4())
    owner.append(b"whole")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (owner.size + 20, before[1]))
    try:
        with pytest.raises(OSError, match="No space left"):
            owner.append(b"x" * 100)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    owner.append(b"after")
    owner.close()
    assert left(tmp_path) == [[b"whole", b"after"]]


def test_a_spool_that_vanishes_while_we_look_is_nobodys(tmp_path: Path) -> None:
    (tmp_path / f"gone{spool.SUFFIX}").symlink_to(tmp_path / "nowhere")
    assert left(tmp_path) == []
