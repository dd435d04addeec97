"""Nothing of a data folder is for other users of the machine; it works in any folder, and when it is moved or copied."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cluster import folders, runtime
from cluster import settings as settings_module
from cluster.database import database
from cluster.embedded import postgres_programs, postgres_user, supervisor
from cluster.embedded import ray as embedded_ray
from cluster.embedded.ray import Ray
from cluster.errors import Rejected
from cluster.settings import ROOT, Settings
from cluster.storage import Storage
from tests.conftest import supervised, throwaway_settings, wait_up

STRANGER = 65533  # a user without a name, who owns nothing


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def open_to_others(folder: Path) -> list[str]:
    """What group or others could use, if they got into the folder."""
    return sorted(str(path) for path in folder.rglob("*") if mode(path) & folders.OTHERS and not path.is_symlink())


def settings_of(folder: Path) -> Settings:
    return settings_module.load(environ={"PIXR_DATA_DIR": str(folder)})


@pytest.fixture
def mended_umask() -> Iterator[None]:
    """A user whose files are for everybody, as on most machines."""
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.mark.usefixtures("mended_umask")
def test_a_folder_is_made_private_and_a_wider_one_is_closed_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folders.close_data_folder(tmp_path / "deep" / "new")
    assert mode(tmp_path / "deep" / "new") == 0o700
    (tmp_path / "old" / "secrets").mkdir(parents=True)
    folders.close_data_folder(tmp_path / "old")
    assert mode(tmp_path / "old") == 0o700
    assert "was open to other users (mode 755)" in caplog.text


@pytest.mark.usefixtures("mended_umask")
def test_a_folder_of_others_is_left_as_it_is(tmp_path: Path) -> None:
    """PIXR_DATA_DIR=/tmp, or a home: closing it would lock others out."""
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter.txt").touch()
    with pytest.raises(Rejected, match="holds what is not Pixr's"):
        folders.close_data_folder(tmp_path / "home")
    assert mode(tmp_path / "home") == 0o755


@pytest.mark.usefixtures("mended_umask")
def test_a_secret_asked_for_first_makes_a_private_folder(tmp_path: Path) -> None:
    runtime.secret(settings_of(tmp_path / "new"), "it")
    assert mode(tmp_path / "new") == 0o700
    assert open_to_others(tmp_path / "new") == []


@pytest.mark.usefixtures("mended_umask")
def test_what_services_write_is_their_owners_alone_and_goes_along_when_the_folder_is_moved(tmp_path: Path) -> None:
    """In a path with a space, below a folder that only its owner may enter; PostgreSQL runs as another user there."""
    before, after = tmp_path / "a b" / "data", tmp_path / "c d" / "data"
    before.mkdir(parents=True)
    (before / "run").mkdir(mode=0o700)
    (before / "run" / "ports.json").write_text("{}", encoding="ascii")
    (tmp_path / "c d").mkdir()
    with supervised(settings_of(before), "postgres", "redis", "s3", "solana") as settings:
        storage = Storage(runtime.endpoints(settings).s3)
        storage.put_bytes(b"one" * 1000, "s3://pixr/one")
        with database.connect(runtime.postgres_url(settings, "pixr"), autocommit=True) as connection:
            connection.execute("CREATE TABLE kept (id int)")
        assert mode(before) == 0o700
        assert open_to_others(before) == []
    before.rename(after)
    with supervised(settings_of(after), "postgres", "redis", "s3") as settings:
        storage = Storage(runtime.endpoints(settings).s3)
        assert storage.read("s3://pixr/one") == b"one" * 1000
        storage.put_bytes(b"two" * 1000, "s3://pixr/two")
        assert storage.read("s3://pixr/two") == b"two" * 1000
        with database.connect(runtime.postgres_url(settings, "pixr")) as connection:
            assert connection.execute("SELECT count(*) FROM kept").fetchone() == (0,)
    assert not before.exists()
    named = subprocess.run(["grep", "-rlaF", str(before), str(after)], capture_output=True, text=True, check=False)
    history = (str(after / "logs"), f"{after / 's3' / 'meta.db'}-wal")  # what was true at its time
    assert [line for line in named.stdout.splitlines() if not line.startswith(history)] == []


@pytest.mark.usefixtures("mended_umask")
def test_a_copy_writes_nothing_into_the_folder_it_was_copied_from(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    with supervised(settings_of(first), "s3"):
        pass
    shutil.copytree(first, second)
    with supervised(settings_of(second), "s3") as settings:
        Storage(runtime.endpoints(settings).s3).put_bytes(b"x" * 5000, "s3://pixr/x")
    assert not list((first / "s3" / "blocks").rglob("*_5000"))
    assert list((second / "s3" / "blocks").rglob("*_5000"))


def as_stranger(*argv: str) -> tuple[str, ...]:
    """A command line of another user's, who may enter the folders in which the checkout and Python lie."""
    return postgres_user.unprivileged(argv, postgres_user.User(STRANGER, STRANGER))


@contextmanager
def supervised_by_stranger(settings: Settings, *services: str) -> Iterator[None]:
    """The services that are named, run by another user."""
    environment = os.environ | {"PIXR_CONFIG": str(settings.path), "PIXR_DATA_DIR": str(settings.data_dir)}
    supervisor.status_path(settings).unlink()
    argv = as_stranger(sys.executable, "-m", "cluster.embedded.supervisor", *services)
    process = subprocess.Popen(argv, env=environment, cwd=ROOT)
    try:
        wait_up(settings, process)
        yield
    finally:
        process.terminate()
        process.wait(60)


def give(folder: Path, user: int) -> None:
    """As `chown -R`."""
    for path in (folder, *folder.rglob("*")):
        os.chown(path, user, user, follow_symlinks=False)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives a folder away")
def test_another_user_goes_on_with_a_data_folder(tmp_path: Path) -> None:
    """A restore, a copy, a container with another user: JuiceFS keeps owners in its own database, which `chown` leaves."""
    settings = settings_of(tmp_path / "data")
    services = ("postgres", "redis", "s3")
    with supervised(settings, *services):
        Storage(runtime.endpoints(settings).s3).put_bytes(b"one" * 1000, "s3://pixr/deep/folder/one")
    give(settings.data_dir, STRANGER)
    with supervised_by_stranger(settings, *services):
        storage = Storage(runtime.endpoints(settings).s3)
        assert storage.read("s3://pixr/deep/folder/one") == b"one" * 1000
        storage.put_bytes(b"two" * 1000, "s3://pixr/deep/folder/two")
        storage.put_bytes(b"one, changed", "s3://pixr/deep/folder/one")
        storage.delete("s3://pixr/deep/folder/two")
        with database.connect(runtime.postgres_url(settings, "pixr"), autocommit=True) as connection:
            connection.execute("CREATE TABLE kept (id int)")
    assert {path.lstat().st_uid for path in settings.data_dir.rglob("*")} == {STRANGER}
    with supervised(settings, *services):  # and root again, who asks nobody
        storage = Storage(runtime.endpoints(settings).s3)
        assert storage.read("s3://pixr/deep/folder/one") == b"one, changed"
        with database.connect(runtime.postgres_url(settings, "pixr")) as connection:
            assert connection.execute("SELECT count(*) FROM kept").fetchone() == (0,)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives a folder away")
def test_a_folder_that_is_another_users_in_part_is_refused_with_what_to_do(tmp_path: Path) -> None:
    settings = settings_of(tmp_path / "the data")
    runtime.port(settings, "serve", 8000)
    shutil.chown(settings.data_dir, STRANGER)
    environment = os.environ | {"PIXR_CONFIG": str(settings.path), "PIXR_DATA_DIR": str(settings.data_dir)}
    argv = as_stranger(sys.executable, "-m", "cluster.cli", "up")
    done = subprocess.run(argv, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"is another user's: {settings.data_dir}" in done.stderr
    assert f"sudo chown -R {STRANGER} '{settings.data_dir}'" in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root starts PostgreSQL as another user")
def test_root_starts_postgresql_from_a_checkout_that_only_root_may_enter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container's /root: the data folder and the programs themselves lie in closed folders."""
    settings = throwaway_settings(tmp_path / "data")
    package = postgres_programs.program(settings.postgres.package, "initdb").parents[2]
    libraries = package.with_name(f"{package.name}.libs")
    for folder in (package, libraries):
        if folder.exists():
            shutil.copytree(folder, tmp_path / "venv" / folder.name, symlinks=True)
    for path in (tmp_path / "venv", *(tmp_path / "venv").rglob("*")):
        if not path.is_symlink():
            path.chmod(mode(path) & ~folders.OTHERS)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'venv'}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    with supervised(settings, "postgres"):
        said = (tmp_path / "data" / "run" / "status.json").read_text(encoding="utf-8")
        assert '"healthy": true' in said
        with database.connect(runtime.postgres_url(settings, "pixr")) as connection:
            row = connection.execute("SELECT setting FROM pg_settings WHERE name = 'data_directory'").fetchone()
        assert row == (str(tmp_path / "data" / "postgres"),)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")
def test_rays_folder_is_closed_to_strangers_where_the_data_folder_is_too_deep_for_sockets(tmp_path: Path) -> None:
    settings = throwaway_settings(tmp_path / ("deep" * 20))
    ray = Ray(settings)
    ray.prepare()
    folder = ray._folder
    assert len(str(folder)) <= embedded_ray.SOCKET_PATH_MAX
    folder.chmod(0o777)  # as Ray does
    try:
        code = f"import os, sys; sys.exit(os.access({str(folder)!r}, os.R_OK))"
        who = ("setpriv", f"--reuid={STRANGER}", f"--regid={STRANGER}", "--clear-groups")
        assert subprocess.run((*who, "/usr/bin/env", "python3", "-c", code), check=False).returncode == 0
        assert mode(folder.parent) == 0o700
    finally:
        shutil.rmtree(folder.parent)


def test_ray_starts_from_a_checkout_whose_path_has_spaces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the virtual environment in it, as `make setup` puts it: Ray gives the shell its path without quotes."""
    prefix = tmp_path / "it's a path" / "venv"
    prefix.parent.mkdir()
    prefix.symlink_to(sys.prefix)
    monkeypatch.setattr(sys, "executable", str(prefix / Path(sys.executable).relative_to(sys.prefix)))
    monkeypatch.setattr(sys, "prefix", str(prefix))
    settings = throwaway_settings(prefix.parent / "data")
    try:
        with supervised(settings, "ray"):
            said = (prefix.parent / "data" / "run" / "status.json").read_text(encoding="utf-8")
            assert '"healthy": true' in said
    finally:
        shutil.rmtree(folders.short(settings.data_dir, "ray"), ignore_errors=True)
