"""The role by which Serve's replicas know the database: it owns nothing, and cannot touch the journal or the payouts.

What strangers reach should not be able to do what only the ledger or a migration does. Each package says in
`schema/grants.sql` what a replica needs of its tables; it is granted again at every migration, so that new tables are
not forgotten. A server on which the migrating role may not create roles keeps one role for everything, which is logged.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import psycopg
from psycopg import Connection
from psycopg.sql import SQL, Identifier, Literal

from cluster import database
from cluster.runtime import SERVE_ROLE

log = logging.getLogger(__name__)

MAY_CREATE = "SELECT rolsuper OR rolcreaterole FROM pg_roles WHERE rolname = current_user"
EXISTS = "SELECT FROM pg_roles WHERE rolname = %s"


def grant(connection: Connection, grants: Sequence[str]) -> bool:
    """Create the role where it is missing and run every package's grants; False where that is not allowed.

    The connection must be in autocommit mode; running it again changes nothing.
    """
    if connection.execute(EXISTS, (SERVE_ROLE,)).fetchone() is None and not _created(connection):
        log.warning("there is no role %s and none may be made: replicas use the owner's", SERVE_ROLE)
        return False
    with connection.transaction():
        for text in grants:
            connection.execute(SQL(text))  # our own files
    return True


def allow_login(url: str, password: str) -> None:
    """Let the role log in by a password (the embedded server's; elsewhere the operator makes a member of it)."""
    with database.session(url, autocommit=True) as connection:
        # Utility statements take no parameters.
        text = SQL("ALTER ROLE {} LOGIN PASSWORD {}").format(Identifier(SERVE_ROLE), Literal(password))
        connection.execute(text)


def _created(connection: Connection) -> bool:
    row = connection.execute(MAY_CREATE).fetchone()
    if row is None or not row[0]:
        return False
    try:
        connection.execute(SQL("CREATE ROLE {} NOLOGIN").format(Identifier(SERVE_ROLE)))
    except (psycopg.errors.DuplicateObject, psycopg.errors.UniqueViolation):
        return True  # another database of the same server was migrated at the same moment
    try:
        # A replica of the database says only to this role whether it still streams.
        connection.execute(SQL("GRANT pg_read_all_stats TO {}").format(Identifier(SERVE_ROLE)))
    except psycopg.errors.InsufficientPrivilege:
        log.warning("%s may not see whether replicas of the database keep up: grant it pg_read_all_stats", SERVE_ROLE)
    return True
