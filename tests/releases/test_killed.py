"""A migration of an earlier release's folder may be killed anywhere: the next start finds what it needs and goes on."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from cluster import runtime
from cluster import settings as settings_module
from cluster.database import database, migrations
from cluster.embedded import supervisor
from cluster.settings import ROOT, Settings
from tests.conftest import supervised, until, wait_up
from tests.releases import folders

# A table that somebody holds, so that a file waits for it with part of its work done; the files come in this order.
HELD = {
    "app/0004_watched.sql": "LOCK TABLE app.watch_events IN ROW EXCLUSIVE MODE",
    "media/0007_words.sql": "LOCK TABLE media.videos IN ROW EXCLUSIVE MODE",
    "media/0008_public_ids.sql": "LOCK TABLE media.creators IN ACCESS SHARE MODE",
    "media/0011_watched_gone.sql": "LOCK TABLE media.segments IN ROW EXCLUSIVE MODE",
    "media/0016_parts.sql": "LOCK TABLE media.generation IN SHARE MODE",
}
WAITING = "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
OURS = "n.nspname IN ('media', 'ledger', 'app', 'pixr')"
# What the tables are, without the partitions, which come with a model.
SHAPE = f"""
    SELECT 'column', c.oid::regclass::text, a.attname, format_type(a.atttypid, a.atttypmod) || ' ' || a.attnotnull || ' '
           || coalesce(pg_get_expr(d.adbin, d.adrelid), '')
      FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
      LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
      WHERE {OURS} AND c.relkind IN ('r', 'p', 'v') AND NOT c.relispartition AND a.attnum > 0 AND NOT a.attisdropped
    UNION ALL SELECT 'index', i.indrelid::regclass::text, c.relname, pg_get_indexdef(i.indexrelid)
      FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_class t ON t.oid = i.indrelid
      JOIN pg_namespace n ON n.oid = t.relnamespace WHERE {OURS} AND NOT t.relispartition AND i.indisvalid
    UNION ALL SELECT 'constraint', k.conrelid::regclass::text, k.conname, pg_get_constraintdef(k.oid)
      FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
      WHERE {OURS} AND NOT c.relispartition
    UNION ALL SELECT 'trigger', t.tgrelid::regclass::text, t.tgname, pg_get_triggerdef(t.oid)
      FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
      WHERE {OURS} AND NOT t.tgisinternal AND NOT c.relispartition
    UNION ALL SELECT 'function', n.nspname, p.proname, pg_get_functiondef(p.oid)
      FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE {OURS}
    UNION ALL SELECT 'privilege', c.oid::regclass::text, c.relname, coalesce(c.relacl::text, '')
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
      WHERE {OURS} AND c.relkind IN ('r', 'p', 'v', 'S') AND NOT c.relispartition
    ORDER BY 1, 2, 3, 4"""


def shape(url: str) -> list[tuple[str, ...]]:
    with database.connect(url) as connection:
        return connection.execute(SHAPE).fetchall()


def counts(url: str, tables: Iterator[str] | list[str]) -> dict[str, int]:
    with database.connect(url) as connection:
        return {each: connection.execute(f"SELECT count(*) FROM {each}").fetchone()[0] for each in tables}  # type: ignore[index, arg-type]


@contextmanager
def doomed(settings: Settings) -> Iterator[str]:
    """PostgreSQL under a supervisor; in the end everything is killed at once, as when a machine loses its power."""
    process = supervisor.start(settings, only=("postgres",))
    family = [psutil.Process(process.pid)]
    try:
        wait_up(settings, process)
        yield runtime.postgres_url(settings, runtime.DATABASE)
    finally:
        family += family[0].children(recursive=True)
        for each in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.suspend()  # so that none has the time to end in order
        for each in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()
        process.wait(20)
        assert psutil.wait_procs(family[1:], timeout=20)[1] == []


@contextmanager
def migrating(settings: Settings) -> Iterator[subprocess.Popen[bytes]]:
    """`pixr migrate` as a process of its own, killed in the end."""
    argv = (sys.executable, "-m", "cluster.cli", "--config", str(settings.path), "migrate")
    environ = {**os.environ, "PIXR_DATA_DIR": str(settings.data_dir)}
    process = subprocess.Popen(argv, env=environ, cwd=ROOT)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(20)


def killed_in(settings: Settings, name: str) -> list[str]:
    """Kill the migration and the database where this file has done part of its work; the files that are applied."""
    with doomed(settings) as url, database.connect(url) as holder:
        holder.execute(HELD[name])  # type: ignore[call-overload]
        with migrating(settings) as process, database.connect(url, autocommit=True) as watching:

            def stuck() -> bool:
                assert process.poll() is None, "the migration ended"
                return watching.execute(WAITING).fetchone() is not None

            until(stuck, 60.0, f"{name} waits for its lock")
            rows = watching.execute("SELECT package || '/' || name FROM pixr.migrations ORDER BY 1").fetchall()
    return [row[0] for row in rows]


@pytest.mark.parametrize("packed", folders.PACKED, ids=lambda path: str(path.name).split(".", 1)[0])
def test_a_migration_that_is_killed_in_the_middle_goes_on(packed: Path, tmp_path: Path, postgres_url: str) -> None:
    before = folders.before(packed)
    settings = settings_module.load(environ={"PIXR_DATA_DIR": str(folders.unpack(packed, tmp_path / "old data"))})
    names = sorted(f"{each.package}/{each.name}" for each in migrations.registered())
    for name in (each for each in HELD if each not in before.migrations):
        assert killed_in(settings, name) == [each for each in names if each in before.migrations or each < name]
    with supervised(settings, "postgres", "schema"):
        url = runtime.postgres_url(settings, runtime.DATABASE)
        assert migrations.migrate(url) == []
        assert shape(url) == shape(postgres_url)
        assert counts(url, list(before.counts)) == before.counts
        environ = {**os.environ, "PIXR_DATA_DIR": str(settings.data_dir)}
        argv = (
            sys.executable,
            "-m",
            "cluster.cli",
            "--config",
            str(settings.path),
            "audit",
            "--full",
            "--offline",
            "--json",
        )
        done = subprocess.run(argv, env=environ, cwd=ROOT, capture_output=True, text=True, check=False)
        # The payout that was under way then is open for as long as the folder has lain, and after some hours the audit says
        # so, rightly: no ledger runs here that would end it. That it lands, and that all is clean then, is `test_releases`'.
        wrong = [each for each in json.loads(done.stdout)["checks"] if not each["ok"]]
        assert [each for each in wrong if each["name"] != "open too long"] == [], done.stdout
