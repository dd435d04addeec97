"""Sockets in `/tmp` are ours alone, go with their door, and those of killed doors go before the next start."""

from __future__ import annotations

import os
import signal
import socket
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from cluster import runtime
from cluster.door import service, sockets
from cluster.embedded import keeper, supervisor
from cluster.errors import Rejected
from cluster.settings import Settings
from tests.cluster.doors import door
from tests.conftest import throwaway_settings, until, wait_up


def deep(tmp_path: Path) -> Path:
    """A data folder whose path is too long for a socket's."""
    folder = tmp_path / ("d" * 60) / ("e" * 40)
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """What stands for `/tmp`, where other doors of this machine are at work; a path that sockets have room in."""
    with TemporaryDirectory(dir="/tmp") as made:
        folder = Path(made) / "short"
        folder.mkdir()
        monkeypatch.setattr(sockets, "SHORT", folder)
        yield folder


def left(short: Path, digits: str, *, age_s: float = 3600, mode: int = 0o700) -> Path:
    """What a door that was killed has left."""
    folder = short / f"{sockets._prefix()}{digits}"
    folder.mkdir(mode=mode)
    for name in ("admin.sock", "own.sock"):
        with closing(socket.socket(socket.AF_UNIX)) as dead:
            dead.bind(str(folder / name))
    aged(folder, age_s)
    return folder


def aged(folder: Path, age_s: float) -> None:
    then = folder.stat().st_mtime - age_s
    os.utime(folder, (then, then))


@contextmanager
def listening(path: Path) -> Iterator[None]:
    with closing(socket.socket(socket.AF_UNIX)) as living:
        living.bind(str(path))
        living.listen(1)
        yield


def test_a_deep_data_folder_does_not_make_a_socket_path_too_long(tmp_path: Path) -> None:
    with door(deep(tmp_path)) as own:
        own.start()
        folder = service.admin_socket(own.settings).parent
        assert folder.parent == Path("/tmp")
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    own.service.tidy()
    assert not folder.exists()


def under_supervision(settings: Settings) -> tuple[int, Path]:
    runtime.port(settings, "s3", 9000)
    process = supervisor.start(settings, only=("door",))
    wait_up(settings, process)
    return process.pid, service.admin_socket(settings).parent


def test_a_door_that_is_stopped_leaves_nothing_and_one_that_was_killed_is_cleared_up_after(tmp_path: Path) -> None:
    stopped = throwaway_settings(deep(tmp_path / "stopped"))
    pid, folder = under_supervision(stopped)
    assert folder.is_dir()
    os.kill(pid, signal.SIGTERM)
    until(lambda: not supervisor.running(stopped), 20, "it has ended")
    assert not folder.exists()
    killed = throwaway_settings(deep(tmp_path / "killed"))
    pid, orphaned = under_supervision(killed)
    keeper.kill_tree(pid)
    until(lambda: not supervisor.running(killed), 20, "it has ended")
    assert orphaned.is_dir()
    aged(orphaned, 3600)
    pid, _ = under_supervision(stopped)
    assert not orphaned.exists()
    os.kill(pid, signal.SIGTERM)
    until(lambda: not supervisor.running(stopped), 20, "it has ended")


def test_what_dead_doors_have_left_is_removed_and_nothing_else(short: Path) -> None:
    dead = left(short, "0" * 10)
    young = left(short, "1" * 10, age_s=0)
    open_to_all = left(short, "2" * 10)
    open_to_all.chmod(0o755)
    with_a_file = left(short, "3" * 10)
    (with_a_file / "notes.txt").write_text("not a socket")
    aged(with_a_file, 3600)
    living = left(short, "4" * 10)
    (living / "own.sock").unlink()
    named_otherwise = left(short, "5" * 10).rename(short / "pixr-doors")
    with listening(living / "own.sock"):
        aged(living, 3600)
        assert sockets.remove_stale() == 1
    assert not dead.exists()
    for kept in (young, open_to_all, with_a_file, living, named_otherwise):
        assert {"admin.sock", "own.sock"} <= {each.name for each in kept.iterdir()}


def test_no_link_is_followed(short: Path) -> None:
    elsewhere = left(short.parent, "6" * 10)
    link = short / f"{sockets._prefix()}{'6' * 10}"
    link.symlink_to(elsewhere)
    os.utime(link, (0, 0), follow_symlinks=False)
    inside = left(short, "7" * 10)
    (inside / "admin.sock").unlink()
    (inside / "admin.sock").symlink_to(elsewhere / "admin.sock")
    aged(inside, 3600)
    assert sockets.remove_stale() == 0
    assert len(list(elsewhere.iterdir())) == 2
    with pytest.raises(Rejected, match="another user"):
        sockets.make_private(link)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes folders for others")
def test_what_another_user_has_made_is_left_alone(short: Path) -> None:
    theirs = left(short, "8" * 10)
    os.chown(theirs, 65534, 65534)
    assert sockets.remove_stale() == 0
    assert theirs.is_dir()
    with pytest.raises(Rejected, match="another user"):
        sockets.make_private(theirs)
