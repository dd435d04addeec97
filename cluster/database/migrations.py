"""The migration runner: applies numbered SQL files, each once and in one transaction, in order, under an advisory lock.

A package registers its folder (`<package>/schema/000N_*.sql`) under the entry point group `pixr.migrations`. A file
that was applied must never change, move or get another name: its checksum is stored, and a difference stops the start
before anything is applied. Changes expand first and contract in a later release: old code can run while new code
starts, and an old release can be started again. So files that only a newer release has are not treated as missing.
`grants.sql` beside the numbered files is not a migration.

If an index that a file creates exists already, it is kept. A large table's index can therefore be created before the
upgrade, without blocking writes; the migration itself would block them.
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

from cluster.database import database, grants
from cluster.errors import Rejected, Temporary

log = logging.getLogger(__name__)

LOCK = 0x70697872  # "pixr": one migrating process at a time per database
MIGRATING_WAIT_S = 50.0  # for another migrating process; shorter than the supervisor's start_timeout_s
MIGRATING_PAUSE_S = 0.5
NAME = re.compile(r"\d{4}_[a-z0-9_]+\.sql")
INDEX = re.compile(r"^CREATE INDEX (?!IF )([a-z0-9_]+) ON", re.MULTILINE)
KEEP = "restore the file and put the change into a new migration"
GRANTS = "grants.sql"  # beside the numbered files: the rights of each role, run again at every migration
PGVECTOR_MIN = (0, 8, 4)
# A statement that waits for a lock blocks all later ones that need a lock on the same table, searches too. So it gives up
# soon, lets them through, and tries again.
LOCK_TIMEOUT_MS = 2000
LOCK_TRIES_MAX = 10
LOCK_PAUSE_S = 1.0
# The oldest open transactions that hold a lock on a table, a view or an index of ours.
HOLDERS = """
    SELECT a.pid, coalesce(nullif(a.application_name, ''), a.usename, '?'), a.state,
           extract(epoch FROM clock_timestamp() - a.xact_start)::int, left(regexp_replace(a.query, '\\s+', ' ', 'g'), 100)
    FROM pg_stat_activity a WHERE a.datname = current_database() AND a.pid <> pg_backend_pid() AND EXISTS (
        SELECT FROM pg_locks l JOIN pg_class c ON c.oid = l.relation JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE l.pid = a.pid AND l.granted AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
        AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast'))
    ORDER BY a.xact_start LIMIT 3"""


# The sessions that hold the advisory lock of the migrations in this database.
MIGRATING = """
    SELECT a.pid, coalesce(a.usename, '?'), coalesce(nullif(a.application_name, ''), 'no name'),
           coalesce(host(a.client_addr), 'local'), extract(epoch FROM clock_timestamp() - a.backend_start)::int
    FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
    WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1 AND l.classid = 0 AND l.objid = %s::bigint::oid
      AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"""


@dataclass(frozen=True)
class Migration:
    """One SQL file of a package; files are applied in the order of their names."""

    package: str
    name: str
    text: str

    @property
    def sha256(self) -> str:
        """The checksum of the text, as stored when it is applied."""
        return hashlib.sha256(self.text.encode()).hexdigest()


def registered() -> list[Migration]:
    """Return all packages' migrations, ordered by package name and then by number."""
    return [migration for name, folder in folders() for migration in in_folder(name, folder)]


def folders() -> list[tuple[str, Path]]:
    """Return the name and the migrations folder of each package, ordered by name.

    Raises:
        Rejected: a registered package is not installed.
    """
    named_folders: list[tuple[str, Path]] = []
    for entry in sorted(entry_points(group="pixr.migrations"), key=lambda entry: entry.name):
        package, folder = entry.value.split(":")
        spec = find_spec(package)
        if spec is None or spec.origin is None:
            raise Rejected(f"package {package} of the migrations {entry.name!r} is not installed")
        named_folders.append((entry.name, Path(spec.origin).parent / folder))
    return named_folders


def in_folder(package: str, folder: Path) -> list[Migration]:
    """Return the migrations of one folder, ordered by number.

    Raises:
        Rejected: a file's name is not of the form `0001_words.sql`.
    """
    files = sorted(file for file in folder.glob("*.sql") if file.name != GRANTS)
    for file in files:
        if not NAME.fullmatch(file.name):
            raise Rejected(f"migration {file.name} of {package} must be named like 0001_words.sql")
    return [Migration(package, file.name, file.read_text(encoding="utf-8")) for file in files]


def migrate(url: str, migrations: Sequence[Migration] | None = None) -> list[Migration]:
    """Apply the migrations that the database does not have yet, then the grants; return those that were applied.

    `migrations` replaces the registered ones in tests; then no grants are run.

    Raises:
        Rejected: an applied file was changed, moved, renamed or removed, or pgvector is missing or too old.
        Temporary: the database is unreachable; or a transaction that does not end holds a lock that a migration needs;
            or another session holds the migrations' advisory lock, which every user of the database can take.
    """
    wanted = registered() if migrations is None else list(migrations)
    with database.session(url, autocommit=True) as connection:
        connection.add_notice_handler(_log_warning)
        _lock(connection)
        _require_pgvector(connection)
        _ensure_tables(connection)
        rows = connection.execute("SELECT package, name, sha256 FROM pixr.migrations ORDER BY package, name")
        applied = {(package, name): digest for package, name, digest in rows}
        _require_unchanged(wanted, applied)
        pending = [migration for migration in wanted if (migration.package, migration.name) not in applied]
        for migration in pending:
            _apply(connection, migration)
        if migrations is None:
            grants.grant(connection, [(folder / GRANTS).read_text(encoding="utf-8") for _, folder in folders()])
        return pending


def _lock(connection: Connection) -> None:
    """Take the migrations' advisory lock for the life of this session; wait while another process migrates.

    Raises:
        Temporary: the lock was not free in time; the message names the session that holds it.
    """
    deadline, was_logged = time.monotonic() + MIGRATING_WAIT_S, False
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
        if held_by and not was_logged:
            log.warning("migrations wait for who migrates already: %s", held_by)
            was_logged = True
        time.sleep(MIGRATING_PAUSE_S)


def _log_warning(notice: Diagnostic) -> None:
    """Log what a migration warns of: rows that people have to decide on."""
    if notice.severity_nonlocalized == "WARNING":
        log.warning("%s", notice.message_primary)


def _require_unchanged(wanted: Sequence[Migration], applied: Mapping[tuple[str, str], str]) -> None:
    """Compare the files with those that were applied.

    Raises:
        Rejected: an applied file was changed, renamed, moved or removed; the message names the first one.
    """
    here = {(migration.package, migration.name): migration.sha256 for migration in wanted}
    newest: dict[str, str] = {}
    for package, name in here:
        newest[package] = max(newest.get(package, ""), _number(name))
    pending = {
        migration.sha256: f"{migration.package}/{migration.name}"
        for migration in wanted
        if (migration.package, migration.name) not in applied
    }
    for (package, name), digest in applied.items():
        # A file that is not here and has a higher number belongs to a newer release: this older one was started again.
        is_missing = (package, name) not in here and _number(name) <= newest.get(package, "")
        if digest in pending and (package, name) not in here:
            happened = f"was renamed to {pending[digest]} after it was applied"
        elif is_missing:
            happened = "was applied and is not there any more"
        elif here.get((package, name), digest) != digest:
            happened = "was changed after it was applied"
        else:
            continue
        raise Rejected(f"migration {package}/{name} {happened}", hint=KEEP)


def _number(name: str) -> str:
    return name.split("_", 1)[0]


def _apply(connection: Connection, migration: Migration) -> None:
    """Apply one migration, trying again where it does not get its locks.

    Raises:
        Temporary: it did not get them in `LOCK_TRIES_MAX` tries.
    """
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
    """Run a migration's SQL and note it as applied, in one transaction."""
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
    """Check that each of these indexes that exists is complete; PostgreSQL would not use an incomplete one.

    An interrupted `CREATE INDEX CONCURRENTLY` leaves such an index.

    Raises:
        Rejected: one of them is incomplete.
    """
    row = connection.execute(
        "SELECT i.indexrelid::regclass::text FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid"
        " WHERE NOT i.indisvalid AND c.relname = ANY(%s)",
        (list(names),),
    ).fetchone()
    if row is not None:
        raise Rejected(f"index {row[0]} was left half made", hint=f"DROP INDEX {row[0]}, and start again")


def _holders(connection: Connection) -> str:
    """Return a text that names the sessions which hold locks on tables in open transactions."""
    rows = connection.execute(HOLDERS).fetchall()
    lines = [f"pid {pid} ({name}, {state}, for {seconds} s: {query})" for pid, name, state, seconds, query in rows]
    return "; ".join(lines) or "none any more"


def _ensure_tables(connection: Connection) -> None:
    """Create the tables of this package, which have no migrations of their own."""
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
    """Create the extension and check its version: 0.8.3 and 0.8.4 repair HNSW graphs that older versions could damage.

    Raises:
        Rejected: pgvector is older than `PGVECTOR_MIN`.
    """
    connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
    row = connection.execute("SELECT extversion FROM pg_extension WHERE extname = 'vector'").fetchone()
    version = row[0] if row else "none"
    if tuple(int(part) for part in version.split(".")) < PGVECTOR_MIN:
        needed = ".".join(map(str, PGVECTOR_MIN))
        raise Rejected(f"pgvector is {version}, {needed} or newer is needed", hint="ALTER EXTENSION vector UPDATE")
