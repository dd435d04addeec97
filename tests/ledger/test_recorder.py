"""The recorder goes on: after a database that forgot, a full disk, a failure of its own; and its spool is let go of."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import subprocess
import time
import zlib
from collections import deque
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg import Connection

from cluster import database
from cluster.errors import Temporary
from cluster.settings import Settings
from ledger import appearances, spool
from ledger.fold import Outcome
from ledger.recorder import Recorder
from ledger.settings import LedgerSettings
from tests.ledger.test_appearances import left, recorded, until
from tests.ledger.test_book import fund
from tests.ledger.test_fold import assert_whole, earned, folded, shown
from tests.serve.relay import relayed

FORGET = """
    DELETE FROM ledger.appearance_batches WHERE incarnation = %(id)s AND seq >= %(kept)s;
    UPDATE ledger.incarnations SET recorded = %(kept)s WHERE id = %(id)s;
    DELETE FROM ledger.incarnations WHERE id = %(id)s AND %(kept)s = 0"""


def forget(settings: Settings, recorder: Recorder, kept: int) -> None:
    """What a failover to a standby that lagged does: the last batches are gone, or the incarnation is."""
    with psycopg.ClientCursor(database.connect(settings.postgres.url, autocommit=True)) as cursor:
        cursor.execute(FORGET, {"id": recorder._own.id, "kept": kept})
        cursor.connection.close()


def quick(settings: Settings, **changes: Any) -> Settings:
    own = dataclasses.replace(settings.section(LedgerSettings), flush_interval_ms=1, **changes)
    return settings.with_section(own)


async def carried(recorder: Recorder) -> None:
    await until(lambda: recorder.waiting == 0, "everything carried")


@pytest.mark.parametrize("kept", [0, 2])
async def test_what_the_database_has_forgotten_is_carried_again(settings: Settings, kept: int) -> None:
    recorder = Recorder(quick(settings, flush_searches_max=2))
    await recorder.start()
    for number in range(6):
        recorder.record([shown(number)])
    await carried(recorder)
    forget(settings, recorder, kept)
    assert len(recorded(settings)) == kept
    recorder.record([shown(6)])
    await until(lambda: recorder.waiting == 0 and recorder._own.recorded == 7, "carried again")
    assert sorted(recorded(settings)) == list(range(7))
    assert recorder.failing == {}
    await recorder.close()
    assert sorted(recorded(settings)) == list(range(7))
    assert left(settings.data_dir / "spool") == []


def marked(settings: Settings) -> list[tuple[Any, ...]]:
    """Of each batch: its first search, whether it came late, and how long its incarnation had been there, in hours."""
    with database.connect(settings.postgres.url) as connection:
        return connection.execute(
            "SELECT b.seq, b.adopted, round(extract(epoch FROM b.recorded_at - i.started_at) / 3600)::int"
            " FROM ledger.appearance_batches b JOIN ledger.incarnations i ON i.id = b.incarnation ORDER BY b.seq"
        ).fetchall()


def three_hours_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """For the recorder alone."""
    later = SimpleNamespace(monotonic=lambda: time.monotonic() + 3 * 3600.0, time=time.time)
    monkeypatch.setattr("ledger.recorder.time", later)


async def test_what_waited_for_the_database_for_hours_is_marked_as_late(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the fold takes its searches to be of the hour in which they were recorded, which may be another day."""
    recorder = Recorder(quick(settings, flush_searches_max=2))
    for number in range(2):
        recorder.record([shown(number)])
    three_hours_pass(monkeypatch)  # the database was away
    for number in range(2, 4):
        recorder.record([shown(number)])
    await recorder.start()
    await carried(recorder)
    assert marked(settings) == [(0, True, 3), (2, False, 3)]
    await recorder.close()


async def test_what_is_carried_again_may_be_as_old_as_its_incarnation(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = Recorder(quick(settings))
    await recorder.start()
    recorder.record([shown(1)])
    await carried(recorder)
    three_hours_pass(monkeypatch)
    forget(settings, recorder, 0)
    recorder.record([shown(2)])
    await until(lambda: recorder.waiting == 0 and recorder._own.recorded == 2, "carried again")
    assert marked(settings) == [(0, True, 3)]
    await recorder.close()


async def test_an_heir_says_how_old_the_incarnation_is_of_which_the_database_has_never_heard(
    settings: Settings,
) -> None:
    recorder = Recorder(settings)
    recorder.record([shown(1)])
    recorder.record([shown(2)])
    path = recorder._own.spool.path
    recorder._own.spool.close()
    long_ago = time.time() - 5 * 3600
    os.utime(path, (long_ago, long_ago))
    with database.connect(settings.postgres.url, autocommit=True) as connection:
        assert appearances.adopt(connection, settings.data_dir / "spool") == 2
    assert marked(settings) == [(0, True, 5)]


async def test_a_strangers_idempotency_key_silences_nobody(settings: Settings, journal: Connection[Any]) -> None:
    """Of those without a key each has names of their own; a name that comes again with another search pays once."""
    fund(journal, 10_000)
    recorder = Recorder(quick(settings))
    await recorder.start()
    for segment, who in ((1, "ana"), (2, "ben"), (3, "ana")):
        recorder.record([shown(segment, segment, who=who)], idempotency_key="1", request=f"search {segment}")
    recorder.record([shown(4, 4, who="ana")], idempotency_key="1", principal_id=7)
    await recorder.close()
    assert folded(journal) == [Outcome.FUNDED, Outcome.FUNDED, Outcome.REPEATED_KEY, Outcome.FUNDED]
    assert earned(journal) == {1: 900, 2: 900, 4: 900}


async def test_a_database_that_has_forgotten_is_noticed_while_nobody_searches(settings: Settings) -> None:
    recorder = Recorder(quick(settings, adopt_interval_s=0.1))
    await recorder.start()
    for number in range(3):
        recorder.record([shown(number)])
    await carried(recorder)
    forget(settings, recorder, 0)
    await until(lambda: sorted(recorded(settings)) == [0, 1, 2], "carried again")
    await recorder.close()


async def test_a_spool_that_the_database_has_forgotten_outlives_its_replica(settings: Settings) -> None:
    """At the end it is not removed on the word of what was carried once."""
    recorder = Recorder(quick(settings))
    await recorder.start()
    recorder.record([shown(1)])
    await carried(recorder)
    forget(settings, recorder, 0)
    recorder._is_placed = True
    await recorder.close()
    assert len(left(settings.data_dir / "spool")) == 1
    with database.connect(settings.postgres.url, autocommit=True) as connection:
        assert appearances.adopt(connection, settings.data_dir / "spool") == 1
    assert recorded(settings) == [1]


async def test_a_recorder_that_fails_in_a_way_nobody_thought_of_goes_on(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, failures = spool.pack, iter([AssertionError("unthought of")])

    def pack(*arguments: Any) -> spool.Batch:
        for failure in failures:
            raise failure
        return real(*arguments)

    monkeypatch.setattr(spool, "pack", pack)
    recorder = Recorder(quick(settings))
    await recorder.start()
    recorder.record([shown(1)])
    await until(lambda: "carry" in recorder.failing, "readiness is told")
    assert "unthought of" in recorder.failing["carry"]
    await carried(recorder)
    await recorder.close()
    assert recorded(settings) == [1]


async def test_a_recorder_that_cannot_carry_says_so_until_it_can(settings: Settings) -> None:
    async with relayed(settings.postgres.url) as postgres:
        through = settings.with_section(dataclasses.replace(settings.postgres, url=postgres.url, serve_url=""))
        recorder = Recorder(quick(through, carry_stalled_s=0.3))
        await recorder.start()
        await postgres.cut()
        recorder.record([shown(1)])
        assert recorder.failing == {}  # not at once
        await until(lambda: "carry" in recorder.failing, "readiness is told")
        assert recorder.failing["carry"].startswith("1 searches wait")
        await postgres.mend()
        await carried(recorder)
        assert recorder.failing == {}
        await recorder.close()


async def test_what_is_recorded_while_a_spool_ends_is_in_the_next_one(settings: Settings) -> None:
    recorder = Recorder(quick(settings, spool_file_max_mb=1))
    await recorder.start()
    first = recorder._own
    recorder.record([shown(0)])
    await carried(recorder)
    with database.connect(settings.postgres.url) as other:
        other.execute("SELECT FROM ledger.incarnations WHERE id = %s FOR SHARE", (first.id,))
        recorder.record([shown(1, creator=number) for number in range(40_000)])  # more than a megabyte
        await asyncio.sleep(0.3)
        other.rollback()
        await until(lambda: recorder._own is not first, "another spool")
    with database.connect(settings.postgres.url) as other:
        other.execute("SELECT FROM ledger.incarnations WHERE id = %s FOR UPDATE", (first.id,))
        recorder.record([shown(2)])
        assert [int(record[-28]) for record in recorder._own.spool.records()] == [2]
    await carried(recorder)
    await until(lambda: not first.spool.path.exists(), "the old spool is removed")
    await recorder.close()
    assert sorted(set(recorded(settings))) == [0, 1, 2]
    with database.connect(settings.postgres.url) as connection:
        counts = connection.execute("SELECT count(*), count(closed_at) FROM ledger.incarnations").fetchone()
    assert counts == (2, 2)


async def test_a_batch_costs_the_same_however_much_waits(settings: Settings) -> None:
    """Searches that are looked at to carry a hundred: a hundred, not all that wait."""
    looked = 0

    class Counted(deque[bytes]):
        def __iter__(self) -> Iterator[bytes]:
            nonlocal looked
            for each in super().__iter__():
                looked += 1
                yield each

    recorder = Recorder(quick(settings))
    for number in range(1000):
        recorder.record([shown(number)])
    recorder._waiting = Counted(recorder._waiting)
    looked = 0
    await recorder.start()
    await carried(recorder)
    assert looked <= 1000
    await recorder.close()


async def test_a_recorder_that_is_cancelled_while_it_ends_lets_go_of_its_spool(settings: Settings) -> None:
    async with relayed(settings.postgres.url) as postgres:
        through = settings.with_section(dataclasses.replace(settings.postgres, url=postgres.url, serve_url=""))
        recorder = Recorder(quick(through))
        await recorder.start()
        recorder.record([shown(1)])
        await carried(recorder)
        postgres.hang()
        recorder.record([shown(2)])
        closing_ = asyncio.create_task(recorder.close())
        await asyncio.sleep(0.05)
        assert left(settings.data_dir / "spool") == []
        closing_.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing_
        assert [len(records) for records in left(settings.data_dir / "spool")] == [2]
        await postgres.cut()
    with database.connect(settings.postgres.url, autocommit=True) as connection:
        appearances.adopt(connection, settings.data_dir / "spool")
    assert recorded(settings) == [1, 2]


@pytest.fixture
def small_disk(settings: Settings) -> Iterator[Path]:
    """The spool's folder on a file system of 8 kB, where the machine lets us have one."""
    folder = settings.data_dir / "spool"
    folder.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def filled(recorder: Recorder) -> int:
    """Record until there is no more room; how many searches were taken."""
    for taken in range(1000):
        try:
            recorder.record([shown(taken), shown(taken)])
        except Temporary as refusal:
            assert "No space left" in refusal.detail
            return taken
    raise AssertionError("the disk has room for all of it")


async def test_on_a_full_disk_nothing_is_recorded_by_half(settings: Settings, small_disk: Path) -> None:
    recorder = Recorder(quick(settings))
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(4096))
    taken = filled(recorder)
    assert taken > 5
    for _ in range(3):
        with pytest.raises(Temporary):
            recorder.record([shown(0)] * 500)
    assert len(recorder._own.spool.records()) == taken == recorder.waiting
    ballast.unlink()
    recorder.record([shown(taken), shown(taken)])
    await recorder.start()
    await carried(recorder)
    await recorder.close()
    assert sorted(set(recorded(settings))) == list(range(taken + 1))


def test_a_half_record_that_could_not_be_cut_off_is_cut_off_before_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = spool.Spool(tmp_path, uuid4())
    owner.append(b"whole")
    real = os.write
    with monkeypatch.context() as broken:
        broken.setattr(os, "write", lambda descriptor, data: real(descriptor, data[:5]))
        broken.setattr(os, "ftruncate", lambda *_: (_ for _ in ()).throw(OSError(5, "Input/output error")))
        for _ in range(2):
            with pytest.raises(OSError, match="Input/output"):
                owner.append(b"torn")
    owner.append(b"after")
    assert owner.records() == [b"whole", b"after"]
    owner.close()


def test_a_spool_that_cannot_be_begun_leaves_nothing_open(tmp_path: Path) -> None:
    number, before = uuid4(), descriptors()
    (tmp_path / f"{number}{spool.SUFFIX}").mkdir()
    with pytest.raises(OSError, match="directory"):
        spool.Spool(tmp_path, number)
    assert descriptors() == before
    assert list(tmp_path.glob("*.new")) == []


@pytest.fixture(name="no_room")
def fixture_no_room(settings: Settings) -> Iterator[Path]:
    """The spool's folder on a file system that takes one file, where the machine lets us have one: that file is there."""
    folder = settings.data_dir / "spool"
    folder.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k,nr_inodes=2", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount")
    (folder / "ballast").touch()
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


async def test_a_replica_that_can_begin_no_spool_starts_says_so_and_records_when_it_can(
    settings: Settings, no_room: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recorder = Recorder(quick(settings, adopt_interval_s=0.1))
    (said,) = [each.getMessage() for each in caplog.records if each.levelname == "ERROR"]
    assert str(no_room) in said
    assert "No space left" in said
    await recorder.start()
    with pytest.raises(Temporary, match="No space left") as refusal:
        recorder.record([shown(1)])
    assert str(no_room) not in refusal.value.public
    assert "No space left" in recorder.failing["spool"]
    (no_room / "ballast").unlink()
    await until(lambda: recorder.failing == {}, "a spool is begun")
    recorder.record([shown(2)])
    await carried(recorder)
    await recorder.close()
    assert recorded(settings) == [2]


async def test_a_replica_that_never_had_a_spool_ends(settings: Settings, no_room: Path) -> None:
    recorder = Recorder(quick(settings))
    await recorder.start()
    await recorder.close()
    assert os.listdir(no_room) == ["ballast"]  # noqa: PTH208


def spoil(path: Path, record: int) -> bytes:
    """Change a byte of one of a spool's searches; the file as it then is."""
    data, at = bytearray(path.read_bytes()), 0
    for _ in range(record):
        at += spool.FRAME.size + spool.FRAME.unpack_from(data, at)[0]
    data[at + spool.FRAME.size + 3] ^= 1
    path.write_bytes(data)
    return bytes(data)


def is_set_aside(path: Path, data: bytes) -> bool:
    return path.with_name(path.name + spool.SET_ASIDE).read_bytes().startswith(data)


@pytest.mark.parametrize("damage", ["a search", "gone"])
async def test_a_spool_of_ones_own_that_is_damaged_is_set_aside_and_recording_goes_on(
    settings: Settings, damage: str
) -> None:
    """The database has forgotten three searches, of which the spool has one still; two more wait."""
    folder = settings.data_dir / "spool"
    recorder = Recorder(quick(settings, adopt_interval_s=0.1))
    await recorder.start()
    for number in range(4):
        recorder.record([shown(number)])
    await carried(recorder)
    path = recorder._own.spool.path
    if damage == "gone":
        path.unlink()
    else:
        data = spoil(path, 2)
    forget(settings, recorder, 0)
    for number in (4, 5):
        recorder.record([shown(number)])
    await carried(recorder)
    assert recorder.failing == {}
    readable = [] if damage == "gone" else [0, 1]
    assert sorted(recorded(settings)) == [*readable, 4, 5]
    recorder.record([shown(6)])
    await carried(recorder)
    if damage != "gone":
        assert is_set_aside(path, data)
        await until(lambda: recorder.set_aside == 1, "the metric")
    await recorder.close()
    assert sorted(recorded(settings)) == [*readable, 4, 5, 6]
    assert left(folder) == []


def test_a_spool_that_is_damaged_in_its_midst_is_recorded_up_to_there_and_set_aside(settings: Settings) -> None:
    """What stands behind the damage may be readable to a person; an heir would have removed it."""
    owner = spool.Spool(settings.data_dir / "spool", uuid4())
    for number in range(4):
        owner.append(appearances.search_record([shown(number)], spool.NO_KEY, bytes(8), 1))
    owner.close()
    data = spoil(owner.path, 2)
    with database.connect(settings.postgres.url, autocommit=True) as connection:
        assert appearances.adopt(connection, settings.data_dir / "spool") == 2
        assert appearances.adopt(connection, settings.data_dir / "spool") == 0
    assert recorded(settings) == [0, 1]
    assert is_set_aside(owner.path, data)
    assert spool.count_set_aside(settings.data_dir / "spool") == 1


@pytest.mark.parametrize("bit", [6, 12, 19])
def test_a_spool_whose_length_is_damaged_is_not_taken_for_one_that_ends_there(tmp_path: Path, bit: int) -> None:
    """A length that reaches beyond the end looks like a torn search: but whole ones stand behind it."""
    owner = spool.Spool(tmp_path, uuid4())
    for number in range(4):
        owner.append(appearances.search_record([shown(number)], spool.NO_KEY, bytes(8), 1))
    owner.close()
    data = bytearray(owner.path.read_bytes())
    at = spool.FRAME.size + spool.FRAME.unpack_from(data)[0]
    for end, is_damaged in ((len(data), True), (len(data) - 1, True), (2 * at - 1, False)):
        length = spool.FRAME.unpack_from(data, at)[0] | 1 << bit | (1 << 9)
        spoiled = bytearray(data[:end])
        spoiled[at : at + 4] = length.to_bytes(4, "little")
        owner.path.write_bytes(spoiled)
        with closing(spool.orphans(tmp_path)) as found:
            orphan = next(found)
            assert (len(orphan.records()), orphan.is_damaged) == (1, is_damaged)


# ── Adoption ───────────────────────────────────────────────────────────────────────────────────────────────────────


def abandoned(settings: Settings, count: int = 3) -> list[Path]:
    """Spools of the dead, each with one search, in the order in which they are adopted."""
    numbers = sorted((uuid4() for _ in range(count)), key=str)
    paths = []
    for segment, number in enumerate(numbers):
        owner = spool.Spool(settings.data_dir / "spool", number)
        owner.append(appearances.search_record([shown(segment)], spool.NO_KEY, bytes(8), 1))
        owner.close()
        paths.append(owner.path)
    return paths


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_one_spool_that_cannot_be_read_keeps_no_other_from_its_heir(settings: Settings) -> None:
    first, *_ = abandoned(settings)
    folder = settings.data_dir / "spool"
    (folder / f"not-an-id{spool.SUFFIX}").write_bytes(b"")
    damaged = b"shorter than a head"
    first.write_bytes(spool.FRAME.pack(len(damaged), zlib.crc32(damaged)) + damaged)
    with database.connect(settings.postgres.url, autocommit=True) as connection:
        before = descriptors()
        assert appearances.adopt(connection, folder) == 2
        assert descriptors() == before
    assert recorded(settings) == [1, 2]
    assert sorted(each.name for each in folder.iterdir()) == sorted([first.name, f"not-an-id{spool.SUFFIX}"])


def test_a_database_that_is_late_leaves_no_spool_locked_and_the_others_adopted(settings: Settings) -> None:
    paths = abandoned(settings)
    folder = settings.data_dir / "spool"
    with (
        database.connect(settings.postgres.url, autocommit=True) as connection,
        database.connect(settings.postgres.url) as other,
    ):
        other.execute("INSERT INTO ledger.incarnations (id, spool) VALUES (%s, 'x')", (paths[0].stem,))
        connection.execute("SET lock_timeout = '50ms'")
        before = descriptors()
        with pytest.raises(psycopg.errors.LockNotAvailable):
            appearances.adopt(connection, folder)
        assert descriptors() == before
        assert len(left(folder)) == 1
        other.rollback()
        assert appearances.adopt(connection, folder) == 1
    assert sorted(recorded(settings)) == [0, 1, 2]


def test_a_database_that_goes_away_leaves_no_spool_locked(settings: Settings) -> None:
    abandoned(settings)
    folder = settings.data_dir / "spool"
    with (
        database.connect(settings.postgres.url, autocommit=True) as connection,
        database.connect(settings.postgres.url, autocommit=True) as other,
    ):
        before = descriptors()
        other.execute("SELECT pg_terminate_backend(%s)", (connection.info.backend_pid,))
        with pytest.raises(psycopg.OperationalError):
            appearances.adopt(connection, folder)
        connection.close()
        assert descriptors() == before - 1  # the connection's own
        assert len(left(folder)) == 3


def test_an_heir_holds_one_lock_at_a_time(settings: Settings) -> None:
    abandoned(settings)
    with closing(spool.orphans(settings.data_dir / "spool")) as orphans:
        next(orphans)
        assert len(left(settings.data_dir / "spool")) == 2
    assert len(left(settings.data_dir / "spool")) == 3


def test_a_spool_that_another_heir_removes_before_our_lock_is_nobodys(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    (path,) = abandoned(settings, 1)
    real = spool.fcntl.flock

    def flock(descriptor: int, how: int) -> None:
        path.unlink(missing_ok=True)
        real(descriptor, how)

    monkeypatch.setattr(spool.fcntl, "flock", flock)
    before = descriptors()
    assert left(settings.data_dir / "spool") == []
    assert descriptors() == before


# ── What the version before has left ───────────────────────────────────────────────────────────────────────────────

# Two searches of two appearances each, by two viewers, as format 1 stood in a spool and in a batch.
SPOOL_OF_FORMAT_1 = bytes.fromhex(
    "6a000000278e9009010101010101010101010101010101010000000000000000000000000000000000000000000000"
    "00006c50c4a001000002000700000000000000030000000000000010270000e09304002c0100000800000000000000"
    "030000000000000010270000e09304002c0100006a000000047eb5fa02020202020202020202020202020202000000"
    "000000000000000000000000000000000000000000006c50c4a0010000020007000000000000000300000000000000"
    "10270000e09304002c0100000800000000000000030000000000000010270000e09304002c010000"
)
BATCH_OF_FORMAT_1 = bytes.fromhex(
    "0200000004000000010101010101010101010101010101010000000000000000000000000000000000000000000000"
    "00006c50c4a00100000200020202020202020202020202020202020000000000000000000000000000000000000000"
    "00000000006c50c4a001000002000700000000000000030000000000000010270000e09304002c0100000800000000"
    "000000030000000000000010270000e09304002c0100000700000000000000030000000000000010270000e0930400"
    "2c0100000800000000000000030000000000000010270000e09304002c010000"
)


def test_a_spool_of_the_version_before_is_adopted_and_paid(settings: Settings, journal: Connection[Any]) -> None:
    folder = settings.data_dir / "spool"
    folder.mkdir(parents=True)
    (folder / f"{uuid4()}.spool").write_bytes(SPOOL_OF_FORMAT_1)
    fund(journal, 10_000)
    with database.connect(settings.postgres.url, autocommit=True) as connection:
        assert appearances.adopt(connection, folder) == 2
        assert connection.execute("SELECT format, payload FROM ledger.appearance_batches").fetchall() == [
            (1, BATCH_OF_FORMAT_1)
        ]
    assert list(folder.iterdir()) == []
    assert folded(journal) == [Outcome.FUNDED] * 4
    assert earned(journal) == {3: 4 * 270}
    assert_whole(journal)


def test_batches_of_both_formats_are_folded_together(settings: Settings, journal: Connection[Any]) -> None:
    fund(journal, 10_000)
    number = uuid4()
    new = spool.pack(
        [appearances.search_record([shown(9, 3, 300)], spool.NO_KEY, bytes(8), 1_790_000_000_000, b"o" * 16)]
    )
    journal.execute("INSERT INTO ledger.incarnations (id, spool) VALUES (%s, 'x')", (number,))
    for seq, batch in ((0, spool.Batch(2, 4, BATCH_OF_FORMAT_1, 1)), (2, new)):
        assert journal.execute(appearances.RECORDED, appearances.parameters(number, seq, batch)).rowcount == 1
    journal.commit()
    assert folded(journal) == [Outcome.FUNDED] * 5
    assert earned(journal) == {3: 5 * 270}
    heads, _ = spool.unpack(BATCH_OF_FORMAT_1, 1)
    assert {bytes(each) for each in heads["origin"]} == {spool.NO_ORIGIN}
    assert [bytes(each)[:1] for each in heads["viewer"]] == [b"\1", b"\2"]
    assert_whole(journal)
