"""Nothing stays of a stack outside of its data folder: neither when it stops, nor when it was killed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from cluster import folders, runtime
from cluster.embedded import leftovers, supervisor
from cluster.embedded.ray import Ray
from cluster.settings import Settings
from pipelines.sandbox.scratch import Scratch, beginning
from pipelines.service import Jobs
from pipelines.settings import IngestSettings
from tests.conftest import START_TIMEOUT_S, free_port, supervised, throwaway_settings, wait_up
from tests.stack import outside


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    """Of a data folder whose path is too long for Ray's sockets."""
    with cleared(tmp_path / ("deep" * 20)) as made:
        yield made


@contextmanager
def cleared(folder: Path) -> Iterator[Settings]:
    """Settings of a data folder; a test that fails leaves nothing outside of it."""
    made = throwaway_settings(folder)
    runtime.port(made, "s3", free_port())  # by which scratch folders are told apart
    try:
        yield made
    finally:
        for each in (folders.short(made.data_dir, "ray"), *_scratch_of(made.data_dir)):
            shutil.rmtree(each, ignore_errors=True)


def use(settings: Settings) -> None:
    """Leave outside of the data folder what Ray and ingest do."""
    Ray(settings).prepare()
    (settings.data_dir / "run").mkdir(exist_ok=True)
    Jobs(settings).prepare()
    for folder in outside(settings):
        (folder / "left").write_bytes(b"x" * 1000)


def kill(settings: Settings) -> None:
    """Run a supervisor of a data folder that is used, and kill it."""
    process = supervisor.start(settings, only=("redis",))
    wait_up(settings, process)
    use(settings)
    family = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    assert psutil.wait_procs(family, timeout=START_TIMEOUT_S)[1] == []


def test_rays_folder_is_removed_when_the_stack_stops(settings: Settings) -> None:
    short = folders.short(settings.data_dir, "ray")
    with supervised(settings, "ray"):
        assert short.is_dir()
    assert not short.exists()


def test_what_a_killed_stack_has_left_is_removed_by_down(settings: Settings) -> None:
    kill(settings)
    assert all((folder / "left").exists() for folder in outside(settings))
    assert not supervisor.stop(settings)
    assert [folder for folder in outside(settings) if folder.exists()] == []


def test_what_a_killed_stack_has_left_is_removed_by_another_that_starts(settings: Settings, tmp_path: Path) -> None:
    kill(settings)
    left = outside(settings)
    shutil.rmtree(settings.data_dir)  # of a test, or by hand
    with cleared(tmp_path / ("other" * 20)) as other:
        use(other)
        assert [folder for folder in left if folder.exists()] == []
        assert all(folder.exists() for folder in outside(other))


def test_what_a_running_stack_has_is_left_alone(settings: Settings, tmp_path: Path) -> None:
    with supervised(settings, "redis"), cleared(tmp_path / ("other" * 20)) as other:
        use(settings)
        use(other)
        assert all((folder / "left").exists() for folder in outside(settings))


def test_a_folder_that_says_not_whose_it_is_stays(tmp_path: Path) -> None:
    (tmp_path / "pixr-ray-0-one").mkdir()
    (tmp_path / "elsewhere").mkdir()
    leftovers.note(tmp_path / "elsewhere", tmp_path / "gone")
    (tmp_path / "pixr-ray-0-link").symlink_to(tmp_path / "elsewhere")
    assert leftovers.remove_stale(tmp_path, "pixr-ray-0-") == 0
    assert (tmp_path / "elsewhere" / leftovers.NOTE).exists()


def test_the_note_in_a_scratch_folder_is_no_file_that_is_decoded(tmp_path: Path) -> None:
    scratch = Scratch(tmp_path, 1000, 0, 1)
    leftovers.note(tmp_path, tmp_path / "data")
    assert scratch._files() == []


def _scratch_of(data_dir: Path) -> list[Path]:
    ingest = throwaway_settings(data_dir).section(IngestSettings)
    parent = Scratch.of(ingest, "", "", 1).folder.parent
    notes = parent.glob(f"{beginning()}*/{leftovers.NOTE}")
    return [note.parent for note in notes if note.read_text(encoding="utf-8") == str(data_dir)]
