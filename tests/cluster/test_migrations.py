"""Migrations are applied whole, once and in order; a changed one stops the start; two starts do not collide."""

from __future__ import annotations

import re
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from cluster import database, migrations
from cluster.errors import Rejected, Temporary
from cluster.migrations import Migration
from cluster.settings import ROOT, Settings
from tests.conftest import fresh_database

ONE = Migration("test", "0001_one.sql", "CREATE TABLE one (id int)")
TWO = Migration("test", "0002_two.sql", "CREATE TABLE two (id int); INSERT INTO two VALUES (2)")


def count(url: str, table: str) -> int:
    with database.connect(url) as connection:
        row = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
        assert row is not None
        return int(row[0])


def test_a_second_run_applies_nothing(postgres_url: str) -> None:
    assert migrations.migrate(postgres_url, [ONE, TWO]) == [ONE, TWO]
    assert migrations.migrate(postgres_url, [ONE, TWO]) == []
    assert count(postgres_url, "two") == 1


def test_the_registered_migrations_apply_and_are_complete(postgres_url: str) -> None:
    assert {each.package for each in migrations.registered()} == {"media", "ledger", "app"}
    assert migrations.migrate(postgres_url) == []  # the fixture's database has them all


def test_a_failing_migration_leaves_nothing(postgres_url: str) -> None:
    broken = Migration("test", "0001_broken.sql", "CREATE TABLE half (id int); SELECT 1 / 0")
    with pytest.raises(psycopg.errors.DivisionByZero):
        migrations.migrate(postgres_url, [broken])
    with pytest.raises(psycopg.errors.UndefinedTable):
        count(postgres_url, "half")


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ([Migration("test", "0001_one.sql", "CREATE TABLE one (id bigint)"), TWO], "0001_one.sql was changed after"),
        ([Migration("test", "0001_first.sql", ONE.text), TWO], "0001_one.sql was renamed to test/0001_first.sql"),
        ([ONE, Migration("test", "0003_two.sql", TWO.text)], "0002_two.sql was renamed to test/0003_two.sql"),
        ([ONE, Migration("other", "0001_two.sql", TWO.text)], "0002_two.sql was renamed to other/0001_two.sql"),
        ([TWO], "0001_one.sql was applied and is not there any more"),
        ([ONE, Migration("test", "0002_zwei.sql", "SELECT 2")], "0002_two.sql was applied and is not there any more"),
    ],
)
def test_an_applied_file_that_is_not_what_it_was_stops_the_start(
    postgres_url: str, files: list[Migration], said: str
) -> None:
    """In one line that names it, and before anything is applied."""
    migrations.migrate(postgres_url, [ONE, TWO])
    with pytest.raises(Rejected, match=f"migration test/{said}") as refused:
        migrations.migrate(postgres_url, [Migration("another", "0001_new.sql", "CREATE TABLE new (id int)"), *files])
    assert "\n" not in str(refused.value)
    with pytest.raises(psycopg.errors.UndefinedTable):
        count(postgres_url, "new")


def test_an_older_release_starts_over_a_newer_ones_tables(postgres_url: str) -> None:
    """Changes only expand, so a release that knows nothing of them can be gone back to."""
    migrations.migrate(postgres_url, [ONE, TWO])
    assert migrations.migrate(postgres_url, [ONE]) == []


def test_two_starts_at_once_apply_each_migration_once(postgres_url: str) -> None:
    with ThreadPoolExecutor(4) as threads:
        applied = list(threads.map(lambda _: migrations.migrate(postgres_url, [ONE, TWO]), range(4)))
    assert sorted(len(each) for each in applied) == [0, 0, 0, 2]


def test_a_migration_waits_for_no_lock_long_and_says_who_holds_it(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind a statement that waits for a table's lock everybody waits who only reads it."""
    migrations.migrate(postgres_url, [ONE])
    monkeypatch.setattr(migrations, "LOCK_TIMEOUT_MS", 300)
    monkeypatch.setattr(migrations, "LOCK_TRIES_MAX", 3)
    monkeypatch.setattr(migrations, "LOCK_PAUSE_S", 0.1)
    wider = Migration("test", "0002_wider.sql", "ALTER TABLE one ADD COLUMN more int")
    with (
        database.connect(postgres_url) as report,
        database.connect(postgres_url, autocommit=True) as reader,
        ThreadPoolExecutor(1) as threads,
    ):
        report.execute("SET application_name = 'a long report'")
        report.execute("SELECT count(*) FROM one")
        reader.execute("SET statement_timeout = '10s'")  # it waits for the lock that is waited for, no longer
        applied = threads.submit(migrations.migrate, postgres_url, [ONE, wider])
        while not applied.done():
            assert reader.execute("SELECT count(*) FROM one").fetchone() == (0,)
        with pytest.raises(
            Temporary, match=rf"test/0002_wider.*pid {report.info.backend_pid} \(a long report, idle in"
        ):
            applied.result()
        report.rollback()
    assert migrations.migrate(postgres_url, [ONE, wider]) == [wider]


def test_a_migration_goes_on_when_the_lock_is_given_back(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    migrations.migrate(postgres_url, [ONE])
    monkeypatch.setattr(migrations, "LOCK_TIMEOUT_MS", 200)
    tried, holders = threading.Event(), migrations._holders
    monkeypatch.setattr(migrations, "_holders", lambda connection: tried.set() or holders(connection))
    wider = Migration("test", "0002_wider.sql", "ALTER TABLE one ADD COLUMN more int")
    with database.connect(postgres_url) as report, ThreadPoolExecutor(1) as threads:
        report.execute("SELECT count(*) FROM one")
        applied = threads.submit(migrations.migrate, postgres_url, [ONE, wider])
        assert tried.wait(30), "it waits for the lock"
        report.rollback()
        assert applied.result(30) == [wider]


def test_who_holds_the_lock_of_the_migrations_is_named_and_not_waited_for_long(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Any user of the database can take it, who may read nothing at all."""
    monkeypatch.setattr(migrations, "MIGRATING_WAIT_S", 0.5)
    monkeypatch.setattr(migrations, "MIGRATING_PAUSE_S", 0.1)
    named = postgres_url.replace("//pixr:", "//pixr_reader:") + "?application_name=curious"
    with database.connect(named, autocommit=True) as reader:
        reader.execute("SELECT pg_advisory_lock(%s)", (migrations.LOCK,))
        with pytest.raises(Temporary, match=r"held by pid \d+ \(user pixr_reader, application curious, from 127"):
            migrations.migrate(postgres_url, [ONE])
        assert "who migrates already: pid" in caplog.text
        reader.execute("SELECT pg_advisory_unlock(%s)", (migrations.LOCK,))
        assert migrations.migrate(postgres_url, [ONE]) == [ONE]


LARGE = Migration("test", "0001_large.sql", "CREATE TABLE large (id int, at int)")
FOUND = Migration("test", "0002_found.sql", "SELECT 1;\nCREATE INDEX large_at ON large (at) WHERE at > 0;\nSELECT 2")


@pytest.mark.parametrize("made", ["ahead", "by it"])
def test_an_index_that_was_made_ahead_is_taken(postgres_url: str, made: str) -> None:
    """Without standing still, so that the migration only takes note of it."""
    migrations.migrate(postgres_url, [LARGE])
    query = "SELECT indexrelid, indisvalid FROM pg_index WHERE indrelid = 'large'::regclass"
    with database.connect(postgres_url, autocommit=True) as connection:
        if made == "ahead":
            connection.execute("CREATE INDEX CONCURRENTLY large_at ON large (at) WHERE at > 0")
        before = connection.execute(query).fetchall()
        assert migrations.migrate(postgres_url, [LARGE, FOUND]) == [FOUND]
        after = connection.execute(query).fetchall()
    assert [is_valid for _, is_valid in after] == [True]
    assert before == (after if made == "ahead" else [])


def test_an_index_that_was_left_half_made_is_not_taken(postgres_url: str) -> None:
    migrations.migrate(postgres_url, [LARGE])
    with database.connect(postgres_url, autocommit=True) as connection:
        connection.execute("CREATE INDEX large_at ON large (at)")
        connection.execute("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'large_at'::regclass")
        with pytest.raises(Rejected, match="large_at was left half made"):
            migrations.migrate(postgres_url, [LARGE, FOUND])
        connection.execute("DROP INDEX large_at")
    assert migrations.migrate(postgres_url, [LARGE, FOUND]) == [FOUND]


def test_the_indexes_of_a_large_ledger_can_be_made_before_its_upgrade(ground: Settings) -> None:
    """As CHANGELOG says: each is of columns that the release before has."""
    every = migrations.registered()
    before = [each for each in every if not (each.package == "ledger" and each.name >= "0042")]
    (archive,) = (each for each in every if each.name == "0042_archive.sql")
    made = re.findall(r"^CREATE INDEX (.*;)$", archive.text, re.MULTILINE)
    with fresh_database(ground, "template0") as url:
        migrations.migrate(url, before)
        with database.connect(url, autocommit=True) as connection:
            told = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
            ahead = re.findall(r"^ *CREATE INDEX CONCURRENTLY (.*;)$", told, re.MULTILINE)
            assert ahead
            assert set(ahead) < set(made)
            for index in ahead:
                connection.execute("CREATE INDEX CONCURRENTLY " + index)
            query = "SELECT relname, oid FROM pg_class WHERE relname = ANY(%s)"
            there = dict(connection.execute(query, ([index.partition(" ")[0] for index in ahead],)).fetchall())
            migrations.migrate(url)
            after = dict(connection.execute(query, ([index.partition(" ")[0] for index in made],)).fetchall())
    assert len(there) == len(ahead)
    assert (len(after), {name: after[name] for name in there}) == (len(made), there)


def test_a_badly_named_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "first.sql").write_text("SELECT 1", encoding="utf-8")
    with pytest.raises(Rejected, match="named like"):
        migrations.in_folder("test", tmp_path)
