"""The migration runner: numbered SQL files, each applied whole, once, in order, under an advisory lock.

A package registers its folder (`<package>/schema/000N_*.sql`) under the entry point group `pixr.migrations`. A file
that was applied must never change, move or take another name: its checksum is kept, and a difference stops the start before
anything is applied. Changes follow expand, then contract, so that the old code still runs while the new one starts, and
starts again itself: files that only a newer release has are no difference. `grants.sql` beside them is no migration. An index
that a file makes, and that somebody has made ahead of it, is taken: so a large table need not stand still while one is made.
"""

from __future__ import annotations

import hashlib
import logging
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

import psycopg
from psycopg import Connection
from psycopg.errors import Diagnostic
from psycopg.sql import SQL

from cluster import database, grants
from cluster.errors import Rejected, Temporary

log = logging.getLogger(__name__)

LOCK = 0x70697872  # "pixr": one migrating process at a time per database
MIGRATING_WAIT_S = 50.0  # for another process that migrates, within what the supervisor lets a start take
MIGRATING_PAUSE_S = 0.5
NAME = re.compile(r"\d{4}_[a-z0-9_]+\.sql")
INDEX = re.compile(r"^CREATE INDEX (?!IF )([a-z0-9_]+) ON", re.MULTILINE)
KEEP = "restore the file and put the change into a new migration"
GRANTS = "grants.sql"  # beside the numbered files, run again at every migration: what each role may do
PGVECTOR_MIN = (0, 8, 4)
# A statement that waits for a lock stops everybody who comes after it and wants one on the same table, searches too. So it
# gives up soon, lets them through, and tries again.
LOCK_TIMEOUT_MS = 2000
LOCK_TRIES_MAX = 10
LOCK_PAUSE_S = 1.0
# Whose transactions are open that hold a lock on a table, a view or an index of ours, the oldest first.
HOLDERS = """
    SELECT a.pid, coalesce(nullif(a.application_name, ''), a.usename, '?'), a.state,
           extract(epoch FROM clock_timestamp() - a.xact_start)::int, left(regexp_replace(a.query, '\\s+', ' ', 'g'), 100)
    FROM pg_stat_activity a WHERE a.datname = current_database() AND a.pid <> pg_backend_pid() AND EXISTS (
        SELECT FROM pg_locks l JOIN pg_class c ON c.oid = l.relation JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE l.pid = a.pid AND l.granted AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
        AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast'))
    ORDER BY a.xact_start LIMIT 3"""


# Who holds the lock of the migrations, in this database.
MIGRATING = """
    SELECT a.pid, coalesce(a.usename, '?'), coalesce(nullif(a.application_name, ''), 'no name'),
           coalesce(host(a.client_addr), 'local'), extract(epoch FROM clock_timestamp() - a.backend_start)::int
    FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
    WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1 AND l.classid = 0 AND l.objid = %s::bigint::oid
      AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"""


@dataclass(frozen=True)
class Migration:
    """One file: `package` owns it, `name` orders it."""

    package: str
    name: str
    text: str

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()


def registered() -> list[Migration]:
    """Every package's files, packages in the order of their names' entry points, files by number."""
    return [migration for name, folder in folders() for migration in in_folder(name, folder)]


def folders() -> list[tuple[str, Path]]:
    """The name and the folder of each package's migrations, by name."""
    found: list[tuple[str, Path]] = []
    for entry in sorted(entry_points(group="pixr.migrations"), key=lambda entry: entry.name):
        package, folder = entry.value.split(":")
        spec = find_spec(package)
        if spec is None or spec.origin is None:
            raise Rejected(f"package {package} of the migrations {entry.name!r} is not installed")
        found.append((entry.name, Path(spec.origin).parent / folder))
    return found


def in_folder(package: str, folder: Path) -> list[Migration]:
    """The migrations of one folder, ordered by number."""
    files = sorted(file for file in folder.glob("*.sql") if file.name != GRANTS)
    for file in files:
        if not NAME.fullmatch(file.name):
            raise Rejected(f"migration {file.name} of {package} must be named like 0001_words.sql")
    return [Migration(package, file.name, file.read_text(encoding="utf-8")) for file in files]


def migrate(url: str, migrations: Sequence[Migration] | None = None) -> list[Migration]:
    """Bring the database to the present; returns what was applied (empty when there was nothing to do).

    Raises:
        Rejected: an applied file was changed, moved, renamed or removed, or pgvector is missing or too old.
        Temporary: the database is unreachable, or a transaction that does not end holds what a migration has to lock, or
            another session the lock of the migrations itself, which any user of the database can take.
    """
    wanted = registered() if migrations is None else list(migrations)
    with database.session(url, autocommit=True) as connection:
        connection.add_notice_handler(_say)
        _begin(connection)
        _require_pgvector(connection)
        _ensure_table(connection)
        rows = connection.execute("SELECT package, name, sha256 FROM pixr.migrations ORDER BY package, name")
        applied = {(package, name): digest for package, name, digest in rows}
        _require_kept(wanted, applied)
        done = [each for each in wanted if (each.package, each.name) not in applied]
        for each in done:
            _apply(connection, each)
        if migrations is None:
            grants.grant(connection, [(folder / GRANTS).read_text(encoding="utf-8") for _, folder in folders()])
        return done


def _begin(connection: Connection) -> None:
    """Take the lock of the migrations, for the life of this session; a process that migrates just now is waited for."""
    deadline, said = time.monotonic() + MIGRATING_WAIT_S, ""
    while connection.execute("SELECT pg_try_advisory_lock(%s)", (LOCK,)).fetchone() != (True,):
        rows = connection.execute(MIGRATING, (LOCK,)).fetchall()
        held_by = "; ".join(
            f"pid {pid} (user {user}, application {name}, from {where}, for {seconds} s)"
            for pid, user, name, where, seconds in rows
        )
        if time.monotonic() > deadline:
            raise Temporary(
                f"the lock of the migrations was not free within {MIGRATING_WAIT_S:.0f} s: it is held by"
                f" {held_by or 'nobody any more'}. Where that is no migration, end it: SELECT pg_terminate_backend(PID)"
            )
        if held_by and not said:
            log.warning("migrations wait for who migrates already: %s", held_by)
        said = said or held_by
        time.sleep(MIGRATING_PAUSE_S)


def _say(notice: Diagnostic) -> None:
    """Log what a migration warns of: rows that it leaves to people."""
    if notice.severity_nonlocalized == "WARNING":
        log.warning("%s", notice.message_primary)


def _require_kept(wanted: Sequence[Migration], applied: Mapping[tuple[str, str], str]) -> None:
    """Refuse to start with files other than those that were applied.

    Raises:
        Rejected: an applied file was changed, renamed, moved or removed; the first one is named.
    """
    here = {(each.package, each.name): each.sha256 for each in wanted}
    newest: dict[str, str] = {}
    for package, name in here:
        newest[package] = max(newest.get(package, ""), _number(name))
    added = {each.sha256: f"{each.package}/{each.name}" for each in wanted if (each.package, each.name) not in applied}
    for (package, name), digest in applied.items():
        # What is not here and has a higher number is a newer release's: this is an older one, started again.
        missing = (package, name) not in here and _number(name) <= newest.get(package, "")
        if digest in added and (package, name) not in here:
            happened = f"was renamed to {added[digest]} after it was applied"
        elif missing:
            happened = "was applied and is not there any more"
        elif here.get((package, name), digest) != digest:
            happened = "was changed after it was applied"
        else:
            continue
        raise Rejected(f"migration {package}/{name} {happened}", hint=KEEP)


def _number(name: str) -> str:
    return name.split("_", 1)[0]


def _apply(connection: Connection, migration: Migration) -> None:
    for number in range(LOCK_TRIES_MAX):
        try:
            _apply_once(connection, migration)
            return
        except psycopg.errors.LockNotAvailable:
            held_by = _holders(connection)
        if number + 1 < LOCK_TRIES_MAX:
            time.sleep(LOCK_PAUSE_S)
    raise Temporary(
        f"migration {migration.package}/{migration.name} did not get its locks in {LOCK_TRIES_MAX} tries of"
        f" {LOCK_TIMEOUT_MS} ms; open transactions that hold some: {held_by}"
    )


def _apply_once(connection: Connection, migration: Migration) -> None:
    with connection.transaction():
        connection.execute(SQL("SET LOCAL lock_timeout = {}").format(LOCK_TIMEOUT_MS))
        _require_made(connection, INDEX.findall(migration.text))
        text = INDEX.sub(r"CREATE INDEX IF NOT EXISTS \1 ON", migration.text)
        connection.execute(SQL(text))  # our own files, not a user's text
        connection.execute(
            "INSERT INTO pixr.migrations (package, name, sha256) VALUES (%s, %s, %s)",
            (migration.package, migration.name, migration.sha256),
        )


def _require_made(connection: Connection, names: Sequence[str]) -> None:
    """Take no index that `CREATE INDEX CONCURRENTLY` has left half made: nothing is found by it.

    Raises:
        Rejected: one of these is.
    """
    row = connection.execute(
        "SELECT i.indexrelid::regclass::text FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid"
        " WHERE NOT i.indisvalid AND c.relname = ANY(%s)",
        (list(names),),
    ).fetchone()
    if row is not None:
        raise Rejected(f"index {row[0]} was left half made", hint=f"DROP INDEX {row[0]}, and start again")


def _holders(connection: Connection) -> str:
    """Who holds locks on tables, in words; that it is no longer there is said too."""
    rows = connection.execute(HOLDERS).fetchall()
    told = [f"pid {pid} ({name}, {state}, for {seconds} s: {query})" for pid, name, state, seconds, query in rows]
    return "; ".join(told) or "none any more"


def _ensure_table(connection: Connection) -> None:
    connection.execute("CREATE SCHEMA IF NOT EXISTS pixr")
    connection.execute(
        "CREATE TABLE IF NOT EXISTS pixr.migrations (package text, name text, sha256 text NOT NULL,"
        " applied_at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (package, name))"
    )
    connection.execute(
        "CREATE TABLE IF NOT EXISTS pixr.fingerprints (name text PRIMARY KEY, fingerprint text NOT NULL CHECK"
        " (length(fingerprint) = 32), since timestamptz NOT NULL DEFAULT now())"
    )


def _require_pgvector(connection: Connection) -> None:
    """0.8.3 and 0.8.4 repair HNSW graphs that older versions could damage."""
    connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
    row = connection.execute("SELECT extversion FROM pg_extension WHERE extname = 'vector'").fetchone()
    version = row[0] if row else "none"
    if tuple(int(part) for part in version.split(".")) < PGVECTOR_MIN:
        wanted = ".".join(map(str, PGVECTOR_MIN))
        raise Rejected(f"pgvector is {version}, {wanted} or newer is needed", hint="ALTER EXTENSION vector UPDATE")
