"""What was seen is known from files on disk, in little memory; the database says what is true of them."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import struct
import time
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from psycopg import Connection

from cluster.errors import Temporary
from cluster.settings import Settings
from ledger import runfiles, runstore, seen
from ledger.fold import Fold, Outcome
from ledger.groups import order_of_hashes
from ledger.rounds import Epoch, Folding
from ledger.runfiles import Run, rows_of
from ledger.seen import KEYS, Seen
from ledger.settings import LedgerSettings
from tests.conftest import until
from tests.ledger.test_fold import DEMO, fund, record, search, shown


def run_of(number: int, keys: dict[int, int]) -> Run:
    """A row with these keys, each with its second."""
    ordered = sorted(keys)
    columns = np.array(ordered, np.uint64), np.array([keys[k] for k in ordered], np.uint32)
    return Run(rows_of((number, number + 1000)), columns)


@hypothesis_settings(max_examples=50, deadline=None)
@given(st.lists(st.dictionaries(st.integers(0, 30), st.integers(1, 9), max_size=20), min_size=1, max_size=6),
       st.integers(0, 5), st.sampled_from([1, 3, 1000]))  # fmt: skip
def test_a_merged_file_says_what_its_runs_said(
    tmp_path_factory: pytest.TempPathFactory, runs: list[dict[int, int]], since_s: int, block: int
) -> None:
    before, runfiles.BLOCK_ROWS = runfiles.BLOCK_ROWS, block
    try:
        made = [run_of(number, keys) for number, keys in enumerate(runs)]
        rows = np.concatenate([each.rows for each in made])
        blocks = runfiles.merged(KEYS, made, partial(seen._young, since_s))
        file = runfiles.write(KEYS, tmp_path_factory.mktemp("keys"), rows, blocks)
    finally:
        runfiles.BLOCK_ROWS = before
    expected = {key: max(keys.get(key, 0) for keys in runs) for key in range(31)}
    asked = np.arange(31, dtype=np.uint64)
    kept = {key: second if second > since_s else 0 for key, second in expected.items()}
    assert seen.newest([file], asked).tolist() == [kept[key] for key in range(31)]
    assert np.array_equal(file.rows, rows)


def test_what_was_seen_is_kept_beside_what_a_clock_that_went_back_has_left_ahead(journal: Connection[Any]) -> None:
    known, now_s = Seen(86_400), int(time.time())
    for number, seconds in enumerate(
        (now_s, now_s + 2 * 86_400)
    ):  # what was recorded before the clock went back is ahead
        keys = {10 * number + 1: now_s, 10 * number + 2: seconds}
        known.accept(known.remember(journal, run_of(number, keys), now_s))
    known.accept(known.remember(journal, run_of(2, {99: now_s}), now_s))
    journal.commit()
    later = Seen(86_400)
    later.load(journal, now_s)
    asked = np.array([1, 2, 11, 12, 99], np.uint64)
    for each in (known, later):
        counts, _ = each.sift(asked, np.full(5, now_s + 60, np.uint32), np.arange(5))
        assert counts.tolist() == []


@pytest.mark.parametrize("spoil", ["cut", "head", "order", "text"])
def test_a_damaged_file_is_removed(tmp_path: Path, spoil: str) -> None:
    columns = np.arange(100, dtype=np.uint64), np.ones(100, np.uint32)
    file = runfiles.write(KEYS, tmp_path, rows_of((1, 5)), [columns])
    assert file.path is not None
    data = bytearray(file.path.read_bytes())
    if spoil == "cut":
        del data[-1]
    elif spoil == "head":
        data[runfiles.HEAD.size] ^= 1
    elif spoil == "order":
        data[runfiles.HEAD.size + 16 + 8 * 50 + 7] ^= 0xFF
    else:
        data = bytearray(b"not one of ours")
    file.path.write_bytes(data)
    (tmp_path / "left.keys.part").write_bytes(b"of a process that was killed")
    assert runfiles.listed(KEYS, tmp_path, rows_of((1, 5))) == []
    assert list(tmp_path.iterdir()) == []


def test_files_of_another_database_or_before_a_restore_are_removed(tmp_path: Path) -> None:
    def put(*rows: tuple[int, int]) -> Run:
        return runfiles.write(KEYS, tmp_path, rows_of(*rows), [(np.zeros(1, np.uint64), np.ones(1, np.uint32))])

    known = rows_of((3, 30), (4, 40), (6, 60), (7, 70), (8, 80))
    good = put((1, 10), (3, 30), (4, 40))  # 1 was forgotten since
    put((3, 30))  # has been merged into it
    put((6, 61))  # another row of that id
    put((6, 60), (8, 80))  # leaves one out
    put((9, 90))  # was recorded after the backup that was restored
    assert [each.path for each in runfiles.listed(KEYS, tmp_path, known)] == [good.path]
    assert list(tmp_path.iterdir()) == [good.path]
    assert runfiles.listed(KEYS, tmp_path, rows_of()) == []


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are made of a handful of keys."""
    monkeypatch.setattr(runstore, "MEMORY_ROWS_MAX", 40)
    monkeypatch.setattr(runstore, "MEMORY_RUNS_MAX", 2)
    monkeypatch.setattr(runstore, "READ_ROWS", 25)
    monkeypatch.setattr(runfiles, "BLOCK_ROWS", 16)


def folded_with(journal: Connection[Any], folder: Path) -> list[int]:
    accountant = Fold(journal, DEMO, LedgerSettings(), folder)
    while accountant.run_once() is not None:
        pass
    accountant.close()
    rows = journal.execute("SELECT outcome FROM ledger.outcomes o ORDER BY fold_id, incarnation, seq").fetchall()
    journal.commit()
    return [outcome for (row,) in rows for outcome in bytes(row)]


def test_a_fold_knows_from_files_what_the_last_ones_saw(journal: Connection[Any], tmp_path: Path, small: None) -> None:
    fund(journal, 10**9)
    folder, segments = tmp_path / "seen", itertools.count(1)
    accountant = Fold(journal, DEMO, LedgerSettings(), folder)
    for _ in range(12):
        record(journal, search(*(shown(next(segments)) for _ in range(10))))
        accountant.run_once()
    accountant.close()
    assert 1 <= len(list(folder.glob("*.keys"))) < 12
    assert journal.execute("SELECT count(*) FROM ledger.seen_runs").fetchone() == (12,)
    record(journal, search(*(shown(number) for number in range(1, 50))))
    assert set(folded_with(journal, folder)[120:]) == {Outcome.SEEN}
    for file in folder.iterdir():  # the disk is lost
        file.unlink()
    record(journal, search(*(shown(number) for number in range(80, 121))))
    assert set(folded_with(journal, folder)[169:]) == {Outcome.SEEN}
    assert list(folder.iterdir())


def test_one_damaged_file_between_others_is_made_again_from_its_rows(
    journal: Connection[Any], tmp_path: Path, small: None
) -> None:
    fund(journal, 10**9)
    segments = itertools.count(1)
    for _ in range(9):
        record(journal, search(*(shown(next(segments)) for _ in range(10))))
        folded_with(journal, tmp_path / "one")
    files = sorted((tmp_path / "one").glob("*.keys"))
    files[len(files) // 2].write_bytes(b"")
    record(journal, search(*(shown(number) for number in range(1, 50))))
    assert set(folded_with(journal, tmp_path / "one")[90:]) == {Outcome.SEEN}


def test_memory_holds_no_more_than_its_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runstore, "MEMORY_ROWS_MAX", 10_000)
    known, rng = Seen(86_400, tmp_path), np.random.default_rng(1)
    for number in range(20):
        keys = np.unique(rng.integers(0, 2**63, 3_000, np.uint64))
        known.accept(Run(rows_of((number + 1, number)), (keys, np.full(len(keys), 9, np.uint32))))
        assert known.store.in_memory() <= (runstore.BEHIND + 1) * 10_000
        assert len(known.store.runs) <= 40
        some = keys[::100]
        rows, _ = known.sift(some, np.full(len(some), 10, np.uint32), order_of_hashes(some))
        assert len(rows) == 0
    known.store.close()
    known.store.sort()
    assert len(list(tmp_path.glob("*.keys"))) == sum(run.path is not None for run in known.store.runs)


def test_while_the_disk_is_full_memory_holds_what_was_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runstore, "MEMORY_ROWS_MAX", 10)
    monkeypatch.setattr(runstore, "PAUSE_S", 0.0)
    folder = tmp_path / "seen"  # which is not there: no file can be made in it
    known = Seen(86_400, folder)
    for number in range(6):
        keys = np.arange(10 * number, 10 * number + 10, dtype=np.uint64)
        known.accept(Run(rows_of((number + 1, number)), (keys, np.full(10, 9, np.uint32))))
    asked = np.arange(60, dtype=np.uint64)
    assert len(known.sift(asked, np.full(60, 10, np.uint32), np.arange(60))[0]) == 0
    folder.mkdir()
    for number in range(6, 9):
        keys = np.arange(10 * number, 10 * number + 10, dtype=np.uint64)
        known.accept(Run(rows_of((number + 1, number)), (keys, np.full(10, 9, np.uint32))))
    known.store.close()
    assert list(folder.glob("*.keys"))


def run_of_ten(number: int) -> Run:
    keys = np.arange(10 * number, 10 * number + 10, dtype=np.uint64)
    return Run(rows_of((number + 1, number)), (keys, np.full(10, 9, np.uint32)))


def test_while_the_disk_is_full_memory_holds_so_much_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runstore, "MEMORY_ROWS_MAX", 10)
    monkeypatch.setattr(runstore, "PAUSE_S", 0.0)
    folder = tmp_path / "seen"  # which is not there: no file can be made in it
    known = Seen(86_400, folder)
    for number in range(5):
        assert known.store.has_room()
        known.accept(run_of_ten(number))
    for _ in range(3):
        assert not known.store.has_room()
    folder.mkdir()  # there is room again, which is noticed though nothing is folded
    until(known.store.has_room, 10, "memory has been written to a file")
    asked = np.arange(50, dtype=np.uint64)
    assert len(known.sift(asked, np.full(50, 10, np.uint32), np.arange(50))[0]) == 0
    known.store.close()


def test_nothing_is_folded_while_there_is_no_room_for_what_is_remembered(
    settings: Settings, journal: Connection[Any], small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Searches wait in the database meanwhile, what has matured is payable, and a person is told."""
    fund(journal, 10**9)
    monkeypatch.setattr(runstore, "PAUSE_S", 0.0)
    real = runfiles.write

    def full(*_: Any) -> Run:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(runfiles, "write", full)
    folding, segments = Folding(settings, Epoch()), itertools.count(1)

    def folded_by(rounds: int) -> int:
        for _ in range(rounds):
            folding.round()
        row = journal.execute("SELECT coalesce(sum(appearances), 0)::int FROM ledger.folds").fetchone()
        return row[0] if row else 0

    for _ in range(30):
        record(journal, search(*(shown(next(segments)) for _ in range(10))))
        folded_by(1)
    assert 160 < folded_by(3) <= 180
    assert "the disk takes no file" in folding.trouble
    monkeypatch.setattr(runfiles, "write", real)
    until(lambda: folded_by(1) == 300, 20, "all is folded")
    assert folding.trouble == ""
    folding.close()


def test_what_does_not_fit_into_memory_is_not_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runstore, "MEMORY_ROWS_MAX", 10)
    monkeypatch.setattr(runstore, "READ_ROWS", 10)
    monkeypatch.setattr(runfiles, "write", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
    known = np.array([(number + 1, number, 10) for number in range(5)], np.int64)

    def read(rows: runstore.Known) -> Iterator[runfiles.Columns]:
        yield run_of_ten(int(rows[0, 1])).columns

    store = runstore.Store(KEYS, tmp_path)
    store.load(known[:4], read)
    assert store.in_memory() == 40
    with pytest.raises(Temporary, match="the disk takes no file"):
        runstore.Store(KEYS, tmp_path).load(known, read)


def spoilt(path: Path, at: int) -> None:
    with path.open("r+b") as file:  # in its place: it is mapped into memory
        file.seek(at)
        (byte,) = file.read(1)
        file.seek(at)
        file.write(bytes([byte ^ 1]))


@pytest.mark.parametrize("column", [0, 1])
def test_what_a_damaged_file_holds_is_never_believed(
    journal: Connection[Any], tmp_path: Path, small: None, column: int
) -> None:
    """Not a second and not a key that has rotted: the rows are read in its place."""
    fund(journal, 10**9)
    segments = itertools.count(1)
    for _ in range(3):
        record(journal, search(*(shown(next(segments)) for _ in range(10))))
        folded_with(journal, tmp_path)
    for path in tmp_path.glob("*.keys"):
        run = runfiles.read(KEYS, path)
        assert run is not None
        begins = runfiles.HEAD.size + 16 * len(run.rows)
        spoilt(
            path, begins + (0 if column == 0 else 8 * len(run) + 3)
        )  # the least byte of a key, the greatest of a second
    record(journal, search(*(shown(number) for number in range(1, 31))))
    assert set(folded_with(journal, tmp_path)[30:]) == {Outcome.SEEN}


def test_no_file_is_made_of_one_that_was_damaged_since_it_was_opened(
    journal: Connection[Any], tmp_path: Path, small: None
) -> None:
    fund(journal, 10**9)
    accountant, segments = Fold(journal, DEMO, LedgerSettings(), tmp_path), itertools.count(1)
    done: set[Path] = set()

    def go_on() -> None:
        for _ in range(40):
            record(journal, search(*(shown(next(segments)) for _ in range(10))))
            accountant.run_once()
            for path in {*tmp_path.glob("*.keys")} - done:
                done.add(path)
                with contextlib.suppress(FileNotFoundError):  # another file was made of it meanwhile
                    spoilt(path, path.stat().st_size - 1)

    with pytest.raises(runfiles.Damaged, match="is made again"):
        go_on()
    accountant.close()
    count = next(segments)
    record(journal, *(search(*(shown(n) for n in range(first, first + 10))) for first in range(1, count, 10)))
    assert set(folded_with(journal, tmp_path)[count - 1 :]) == {Outcome.SEEN}


def test_a_file_of_the_release_before_is_read_and_ours_is_by_it(tmp_path: Path) -> None:
    """It left four bytes of the head empty, and looks at none of them."""
    file = runfiles.write(KEYS, tmp_path, rows_of((1, 5)), [run_of_ten(0).columns])
    assert file.path is not None
    before, data = struct.Struct("<8sQQI4x"), bytearray(file.path.read_bytes())
    magic, rows, count, check = before.unpack_from(data)
    head = zlib.crc32(before.pack(magic, rows, count, 0))
    assert check == zlib.crc32(bytes(data[before.size : before.size + 16]), head)
    before.pack_into(data, 0, magic, rows, count, check)
    file.path.write_bytes(data)
    (read,) = runfiles.listed(KEYS, tmp_path, rows_of((1, 5)))
    assert read.keys.tolist() == list(range(10))
