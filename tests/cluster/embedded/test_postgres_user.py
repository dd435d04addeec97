"""Where root starts PostgreSQL, it is nobody else, and opens its own files alone, though it may pass closed folders."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest

from cluster import runtime
from cluster.embedded import postgres_user, supervisor
from cluster.embedded.postgres import Postgres
from cluster.errors import Temporary
from cluster.settings import ROOT, Settings
from tests.cluster.embedded.test_postgres_programs import alone, rows
from tests.conftest import supervised, throwaway_settings, until
from tests.forgetting import forget_landlock

root_alone = pytest.mark.skipif(os.geteuid() != 0, reason="only root starts PostgreSQL as another user")
DAC_OVERRIDE_ALONE = "0000000000000002"
NOBODY = 65534


def server(settings: Settings) -> psutil.Process:
    status: Any = supervisor.read_status(settings)
    return psutil.Process(status["services"]["postgres"]["pid"])


def status_of(process: psutil.Process) -> dict[str, str]:
    lines = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii").splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


@root_alone
def test_postgresql_opens_its_own_files_alone(tmp_path: Path) -> None:
    """What a server that was taken over could do: its superuser asks for it in SQL."""
    settings = throwaway_settings(tmp_path / "closed" / "data")
    with supervised(settings, "postgres"):
        secret = runtime.secret_path(settings, "postgres")
        outside = settings.data_dir / "run" / "written"
        for statement in (
            f"SELECT pg_read_file('{secret}')",
            "SELECT pg_read_file('/etc/shadow')",
            f"SELECT pg_ls_dir('{settings.data_dir}')",
            f"COPY (SELECT 1) TO '{outside}'",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                rows(settings, statement, "SELECT 1")
        for program in (f"cat {secret}", f"touch {outside}", f"kill -0 {os.getpid()}", "ls /root"):
            with pytest.raises(psycopg.Error, match=r"program .* failed"):
                rows(settings, f"COPY (SELECT 1) TO PROGRAM '{program}'", "SELECT 1")
        assert not outside.exists()
        assert rows(settings, "SELECT pg_read_file('PG_VERSION')") == [("18\n",)]
        assert rows(settings, "COPY (SELECT 1) TO PROGRAM 'cat > of_its_own'", "SELECT pg_read_file('of_its_own')")


def confined(process: psutil.Process) -> None:
    assert set(process.uids()) == {postgres_user.of_server().uid}
    said = status_of(process)
    assert {said[name] for name in ("CapPrm", "CapEff", "CapBnd", "CapInh", "CapAmb")} == {DAC_OVERRIDE_ALONE}
    assert said["NoNewPrivs"] == "1"


@root_alone
def test_postgresql_is_nobody_else_and_has_one_right(tmp_path: Path) -> None:
    settings = throwaway_settings(tmp_path / "data")
    with supervised(settings, "postgres"):
        process = server(settings)
        confined(process)
        for each in process.children(recursive=True):
            with contextlib.suppress(
                psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError
            ):  # a worker that had nothing to do
                confined(each)
        assert postgres_user.of_server().uid != NOBODY
        stranger = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "/usr/bin/env", "kill")
        assert subprocess.run((*stranger, "-INT", str(process.pid)), capture_output=True, check=False).returncode != 0
        assert rows(settings, "SELECT 1") == [(1,)]


@root_alone
def test_a_folder_that_ran_as_nobody_goes_on(tmp_path: Path) -> None:
    settings = throwaway_settings(tmp_path / "data")
    with supervised(settings, "postgres"):
        rows(settings, "CREATE TABLE kept (id int)", "SELECT 1")
    postgres_user.give_away(settings.data_dir / "postgres", postgres_user.User(NOBODY, NOBODY))
    with supervised(settings, "postgres"):
        assert rows(settings, "SELECT count(*)::int FROM kept") == [(0,)]
    owners = {path.lstat().st_uid for path in (settings.data_dir / "postgres").rglob("*")}
    assert owners == {postgres_user.of_server().uid}


@root_alone
def test_where_the_kernel_has_no_landlock_postgresql_runs_and_the_log_says_so(tmp_path: Path) -> None:
    settings = throwaway_settings(tmp_path / "data")

    def started() -> list[tuple[Any, ...]]:
        with supervised(settings, "postgres"):
            return rows(settings, "SELECT 1")

    with ThreadPoolExecutor(1, initializer=forget_landlock) as thread:  # what it starts has its filter
        assert thread.submit(started).result() == [(1,)]
    logs = "".join(path.read_text(encoding="utf-8") for path in (settings.data_dir / "logs").iterdir())
    assert "PostgreSQL is not held to its own files: OSError" in logs


def test_no_second_server_starts_in_a_folder_where_one_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may end as another user than the next one, who would not see that it is there."""
    settings = throwaway_settings(tmp_path / "data")
    with alone(settings):
        monkeypatch.setattr(postgres_user, "LEAVES_WITHIN_S", 0.2)
        with pytest.raises(Temporary, match="without a supervisor"):
            Postgres(settings).prepare()
    Postgres(settings).prepare()  # its lock file is there still


def test_tablespaces_and_a_log_of_changes_elsewhere_are_its_own_too(tmp_path: Path) -> None:
    (tmp_path / "data" / "pg_tblspc").mkdir(parents=True)
    for link, aim in (("pg_wal", "changes"), ("pg_tblspc/16384", "space")):
        (tmp_path / aim).mkdir()
        (tmp_path / "data" / link).symlink_to(tmp_path / aim)
    assert sorted(postgres_user._linked_folders(tmp_path / "data")) == [tmp_path / "changes", tmp_path / "space"]


def test_an_initdb_that_was_killed_in_the_middle_is_done_again(tmp_path: Path) -> None:
    """It writes PG_VERSION first, by which a folder was taken for whole."""
    settings = throwaway_settings(tmp_path / "data")
    code = "from cluster import settings; from cluster.embedded.postgres import Postgres; Postgres(settings.load()).prepare()"
    environment = os.environ | {"PIXR_DATA_DIR": str(settings.data_dir)}
    process = subprocess.Popen((sys.executable, "-c", code), env=environment, cwd=ROOT, start_new_session=True)
    until(lambda: list(settings.data_dir.glob("*/PG_VERSION")) or process.poll() is not None, 60, "initdb has begun")
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    with supervised(settings, "postgres"):
        assert rows(settings, "SELECT 1") == [(1,)]
