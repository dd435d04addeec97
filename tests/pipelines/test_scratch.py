"""The bounded folder of files being decoded."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cluster.errors import Rejected, Temporary
from cluster.runtime import S3Endpoint
from cluster.storage import Storage
from pipelines import scratch
from pipelines.scratch import Scratch


@pytest.fixture
def objects(s3: S3Endpoint, bucket: str) -> tuple[Storage, str]:
    storage = Storage(s3)
    for name in ("one", "two"):
        storage.put_bytes(name.encode() * 100, f"s3://{bucket}/{name}")
    return storage, f"s3://{bucket}"


def test_a_file_is_fetched_once_and_deleted_after_its_last_chunk(objects: tuple[Storage, str], tmp_path: Path) -> None:
    storage, prefix = objects
    folder = Scratch(tmp_path / "s", 10_000, 0, 8)
    with folder.file(storage, f"{prefix}/one", "e", 300) as path:
        assert path.read_bytes() == b"one" * 100
    storage.delete(f"{prefix}/one")
    with folder.file(storage, f"{prefix}/one", "e", 300) as path:
        assert path.exists()
    folder.done(f"{prefix}/one", "e", 1, 2)
    folder.done(f"{prefix}/one", "e", 1, 2)
    assert path.exists()
    folder.done(f"{prefix}/one", "e", 0, 2)
    assert list((tmp_path / "s").iterdir()) == []


def test_a_full_folder_and_a_full_disk_are_temporary(objects: tuple[Storage, str], tmp_path: Path) -> None:
    storage, prefix = objects
    folder = Scratch(tmp_path / "s", 350, 0, 8)
    with folder.file(storage, f"{prefix}/one", "e", 300):
        pass
    with pytest.raises(Temporary, match="full"), folder.file(storage, f"{prefix}/two", "e", 300):
        pass
    with pytest.raises(Temporary, match="no space left"), Scratch(tmp_path / "t", 10**9, 1 << 60, 8).file(
        storage, f"{prefix}/two", "e", 300
    ):  # fmt: skip
        pass


def test_who_plans_waits_for_the_room_that_decoding_makes(objects: tuple[Storage, str], tmp_path: Path) -> None:
    storage, prefix = objects
    folder = Scratch(tmp_path / "s", 350, 0, 8)
    with folder.file(storage, f"{prefix}/one", "e", 300):
        pass
    done = threading.Timer(1.0, folder.done, (f"{prefix}/one", "e"))
    done.start()
    began = time.monotonic()
    with folder.file(storage, f"{prefix}/two", "e", 300, wait=True) as path:
        assert path.read_bytes() == b"two" * 100
    assert time.monotonic() - began >= 1.0
    done.join()


def test_nobody_waits_for_room_that_nobody_makes(objects: tuple[Storage, str], tmp_path: Path) -> None:
    storage, prefix = objects
    folder = Scratch(tmp_path / "s", 350, 0, 8)
    with folder.file(storage, f"{prefix}/one", "e", 300) as path:
        os.utime(path, (0, time.time() - scratch.TURN_MAX_S - 1))
    with pytest.raises(Temporary, match="full"), folder.file(storage, f"{prefix}/two", "e", 300, wait=True):
        pass


def test_what_is_on_its_way_takes_its_room_already(objects: tuple[Storage, str], tmp_path: Path) -> None:
    """Whoever waits for room wakes when others do: they may not all take the same."""
    storage, prefix = objects
    folder = Scratch(tmp_path / "s", 350, 0, 8)

    class Slow(Storage):
        def get_file(self, uri: str, path: Path) -> None:
            with pytest.raises(Temporary, match="full"), folder.file(storage, f"{prefix}/two", "e", 300):
                pass
            super().get_file(uri, path)

    with folder.file(Slow(storage.endpoint), f"{prefix}/one", "e", 300) as path:
        assert [each.name for each in path.parent.iterdir() if "-" in each.name] == []


def test_what_a_dead_worker_left_is_swept(objects: tuple[Storage, str], tmp_path: Path) -> None:
    """A file that was never finished, the draft of another, and what a decoder had written beside its file."""
    storage, prefix = objects
    folder = Scratch(tmp_path / "s", 350, 0, 8)
    with folder.file(storage, f"{prefix}/one", "e", 300) as path:
        pass
    left = [path, path.with_suffix(".300-1"), path.with_name(f"{path.name}-0.mkv")]
    for each in left:
        each.touch()
        os.utime(each, (0, time.time() - 2 * scratch.IDLE_MAX_S))
    with folder.file(storage, f"{prefix}/two", "e", 300):
        assert [each for each in left if each.exists()] == []


def test_fetching_does_not_run_ahead_of_decoding(objects: tuple[Storage, str], tmp_path: Path) -> None:
    storage, prefix = objects
    folder = Scratch(tmp_path / "s", 10_000, 0, 1)
    folder.wait_for_turn(5)
    with folder.file(storage, f"{prefix}/one", "e", 300):
        began = time.monotonic()
        folder.wait_for_turn(0.5)
        assert time.monotonic() - began >= 0.5


def test_what_a_dead_job_left_keeps_the_next_one_waiting_for_minutes_at_most(
    objects: tuple[Storage, str], tmp_path: Path
) -> None:
    storage, prefix = objects
    folder = Scratch(tmp_path / "s", 10_000, 0, 1)
    with folder.file(storage, f"{prefix}/one", "e", 300) as path:
        os.utime(path, (0, time.time() - scratch.TURN_MAX_S - 1))
        began = time.monotonic()
        folder.wait_for_turn(5)
        assert time.monotonic() - began < 4


def test_what_an_attempt_drops_is_gone_and_its_other_chunks_know(tmp_path: Path) -> None:
    folder, uri = Scratch(tmp_path / "s", 10_000, 0, 8), "s3://b/one"
    path = folder.path(uri, "e")
    path.parent.mkdir()
    path.write_bytes(b"video")
    folder.drop(uri, "e", "7")
    assert folder.dropped(uri, "e", "7")
    assert not folder.dropped(uri, "e", "8")
    path.write_bytes(b"fetched by a chunk that came too late")
    folder.done(uri, "e", 1, 3, "7")
    assert [file.suffix for file in (tmp_path / "s").iterdir()] == [".dropped"]
    folder.done(uri, "e", 1, 3, "8")
    assert {file.suffix for file in (tmp_path / "s").iterdir()} == {".dropped", ".done", ".lock"}


def test_who_waited_for_a_lock_that_was_deleted_holds_the_one_that_others_find(tmp_path: Path) -> None:
    """The last chunk deletes file and lock while others wait for it: one of them at a time may go on."""
    path = Scratch(tmp_path / "s", 10_000, 0, 8).path("s3://b/one", "e")
    inside, most, gate = 0, 0, threading.Lock()

    def alone() -> None:
        nonlocal inside, most
        with scratch._locked(path):
            with gate:
                inside, most = inside + 1, max(most, inside + 1)
            time.sleep(0.05)
            with gate:
                inside -= 1

    waiting = [threading.Thread(target=alone) for _ in range(6)]
    with scratch._locked(path):
        for each in waiting[:3]:
            each.start()
        time.sleep(0.3)  # they wait for this lock file
        scratch._delete(path)
    for each in waiting[3:]:
        each.start()
    for each in waiting:
        each.join(60)
    assert most == 1


def test_no_note_of_a_chunk_is_lost_by_many_that_end_at_once(objects: tuple[Storage, str], tmp_path: Path) -> None:
    storage, prefix = objects
    folder = Scratch(tmp_path / "s", 10_000, 0, 8)
    for _ in range(10):
        with folder.file(storage, f"{prefix}/one", "e", 300):
            pass
        ended = [threading.Thread(target=folder.done, args=(f"{prefix}/one", "e", n, 8)) for n in range(8)]
        for each in ended:
            each.start()
        for each in ended:
            each.join(60)
        assert list((tmp_path / "s").iterdir()) == []


def test_a_file_that_is_deleted_while_it_is_asked_for_is_fetched_again(
    objects: tuple[Storage, str], tmp_path: Path
) -> None:
    """A chunk that was refused deletes the file of its neighbours; each gets a file that is there."""
    storage, prefix = objects
    folder = Scratch(tmp_path / "s", 10_000, 0, 8)
    end, seen = time.monotonic() + 3, list[bytes]()

    def read() -> None:
        while time.monotonic() < end:
            with folder.file(storage, f"{prefix}/one", "e", 300) as path:
                seen.append(path.read_bytes())

    def delete() -> None:
        while time.monotonic() < end:
            folder.done(f"{prefix}/one", "e")

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(work) for work in (read, read, delete, delete)]:
            done.result(60)
    assert set(seen) == {b"one" * 100}


def test_an_object_of_the_same_size_that_is_another_one_is_refused(
    objects: tuple[Storage, str], tmp_path: Path
) -> None:
    """Also under the same ETag, which is what was listed. Where the file is there already, nothing is fetched."""
    storage, prefix = objects
    folders = [Scratch(tmp_path / name, 10_000, 0, 8) for name in "ab"]  # of two machines
    with folders[0].file(storage, f"{prefix}/one", "e", 300) as path:
        digest = scratch.content_hash(path)
    storage.put_bytes(b"two" * 100, f"{prefix}/one")
    with (
        pytest.raises(Rejected, match="changed"),
        folders[1].file(storage, f"{prefix}/one", "e", 300, digest=digest),
    ):
        pass
    with folders[0].file(storage, f"{prefix}/one", "e", 300, digest=digest) as path:
        assert path.read_bytes() == b"one" * 100
    with folders[1].file(storage, f"{prefix}/one", "e", 300) as path:
        other = scratch.content_hash(path)
    with folders[0].file(storage, f"{prefix}/one", "e", 300, digest=other) as path:
        assert path.read_bytes() == b"two" * 100
        assert scratch.content_hash(path) == other
