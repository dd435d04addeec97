"""Creates the roles in a database and grants each the rights that its part of Pixr needs, again at every migration.

The grants on a package's tables stand in its `schema/grants.sql`. All rights are revoked first, then the needed ones
are granted. So a right that a release no longer needs disappears, and a new table without grants is noticed at once. On
a server where the migrating user may not create roles, all parts work as that user; this is logged and shown by
`pixr status`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import psycopg
from psycopg import Connection
from psycopg.sql import SQL, Identifier, Literal

from cluster.database import database
from cluster.roles import PARTS, SERVE, Role

log = logging.getLogger(__name__)

MAY_CREATE = "SELECT rolsuper OR rolcreaterole FROM pg_roles WHERE rolname = current_user"
MISSING = (
    "SELECT name FROM unnest(%s::text[]) AS wanted (name) WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name)"
)
# Rights on the tables of this package: Serve inserts the fingerprints of its secrets and never changes one.
OWN = """
    REVOKE ALL ON SCHEMA pixr FROM pixr_serve, pixr_jobs, pixr_ledger, pixr_reader;
    REVOKE ALL ON ALL TABLES IN SCHEMA pixr FROM pixr_serve, pixr_jobs, pixr_ledger, pixr_reader;
    GRANT USAGE ON SCHEMA pixr TO pixr_serve, pixr_reader;
    GRANT SELECT, INSERT ON pixr.fingerprints TO pixr_serve;
    GRANT SELECT ON pixr.fingerprints TO pixr_reader"""
# Rights that PostgreSQL gives PUBLIC in every database and no part of Pixr needs: temporary tables, which hide others of
# the same name and may have triggers, and large objects, which would stay unnoticed.
REVOKE_FROM_PUBLIC = """
    DO $$ DECLARE
        large text;
    BEGIN
        EXECUTE format('REVOKE TEMPORARY ON DATABASE %I FROM PUBLIC', current_database());
        FOR large IN SELECT oid::regprocedure::text FROM pg_proc WHERE pronamespace = 'pg_catalog'::regnamespace
                     AND (proname LIKE 'lo\\_%' OR proname IN ('loread', 'lowrite')) LOOP
            EXECUTE format('REVOKE EXECUTE ON FUNCTION pg_catalog.%s FROM PUBLIC', large);
        END LOOP;
    END $$"""
# Trigger functions that run with their owner's rights (SECURITY DEFINER): a role that may execute one could attach it to a
# table of its own.
REVOKE_TRIGGER_FUNCTIONS = """
    DO $$ DECLARE
        called text;
    BEGIN
        FOR called IN SELECT p.oid::regprocedure::text FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
                      WHERE n.nspname IN ('app', 'ledger', 'media', 'pixr') AND p.prosecdef
                        AND p.prorettype = 'trigger'::regtype LOOP
            EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', called);
        END LOOP;
    END $$"""
# Databases of the server that only its administrator needs.
REVOKE_OTHER_DATABASES = "REVOKE CONNECT, TEMPORARY ON DATABASE postgres, template1 FROM PUBLIC"
SET_BY_ITSELF = """
    SELECT d.datname FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase
    WHERE s.setrole = (SELECT oid FROM pg_roles WHERE rolname = %s)"""
MAY_ASSUME = "SELECT pg_has_role(%s, 'SET')"


def grant(connection: Connection, grants: Sequence[str]) -> bool:
    """Create missing roles and run every package's grants; return False where this user may not create a missing role.

    Args:
        connection: In autocommit mode, as the owner of the tables.
        grants: The SQL of each package. Running it again changes nothing.

    Returns:
        Whether the roles exist and have their rights.
    """
    if not ensure(connection):
        return False
    with connection.transaction():
        for text in (OWN, *grants, REVOKE_TRIGGER_FUNCTIONS):
            connection.execute(SQL(text))  # our own files
    try:
        with connection.transaction():
            connection.execute(SQL(REVOKE_FROM_PUBLIC))
    except psycopg.errors.InsufficientPrivilege as error:
        log.warning("every user of the database may make temporary tables and large objects in it: %s", error)
    return True


def ensure(connection: Connection) -> bool:
    """Create the roles that are missing, for all databases of the server; return False where this user may not."""
    missing = {name for (name,) in connection.execute(MISSING, ([role.name for role in PARTS],))}
    row = connection.execute(MAY_CREATE).fetchone()
    if missing and not (row and row[0]):
        log.warning(
            "there is no role %s and none may be made: parts without one work as the owner, and nothing is granted anew",
            ", ".join(sorted(missing)),
        )
        return False
    for role in PARTS:
        if role.name in missing:
            _create(connection, role)
    return True


def allow_login(url: str, passwords: Mapping[Role, str], connections_max: Mapping[str, int] | None = None) -> None:
    """Let roles log in by password, on the embedded server; elsewhere the operator creates their logins.

    PostgreSQL lets every role change its own password and the settings that its sessions start with; this resets both.
    Running it again changes nothing more.

    Args:
        url: The embedded database, as its owner.
        passwords: The password of each role.
        connections_max: How many connections each part may have at once; a part that is not named has no limit.
    """
    limits = connections_max or {}
    with database.session(url, autocommit=True) as connection, connection.transaction():
        connection.execute(REVOKE_OTHER_DATABASES)
        for role, password in passwords.items():
            name, limit = Identifier(role.name), Literal(limits.get(role.part, -1))
            # Utility statements take no parameters.
            text = SQL("ALTER ROLE {} LOGIN PASSWORD {} CONNECTION LIMIT {}").format(name, Literal(password), limit)
            connection.execute(text)
            connection.execute(SQL("ALTER ROLE {} RESET ALL").format(name))
            for (elsewhere,) in connection.execute(SET_BY_ITSELF, (role.name,)).fetchall():
                connection.execute(SQL("ALTER ROLE {} IN DATABASE {} RESET ALL").format(name, Identifier(elsewhere)))
            for setting, value in role.bounds:
                connection.execute(SQL("ALTER ROLE {} SET {} = {}").format(name, Identifier(setting), Literal(value)))


def _create(connection: Connection, role: Role) -> None:
    name = Identifier(role.name)
    try:
        connection.execute(SQL("CREATE ROLE {} NOLOGIN").format(name))
    except (psycopg.errors.DuplicateObject, psycopg.errors.UniqueViolation):
        return  # another database of the same server was migrated at the same moment
    may_assume = connection.execute(MAY_ASSUME, (role.name,)).fetchone()
    if may_assume != (True,):  # a user that is not a superuser has to grant itself SET on the roles that it creates
        connection.execute(SQL("GRANT {} TO CURRENT_USER WITH INHERIT FALSE, SET TRUE").format(name))
    if role is SERVE:
        _let_see_replicas(connection, name)


def _let_see_replicas(connection: Connection, name: Identifier) -> None:
    """Let Serve see whether a standby still streams: PostgreSQL shows this only to members of pg_read_all_stats."""
    try:
        connection.execute(SQL("GRANT pg_read_all_stats TO {}").format(name))
    except psycopg.errors.InsufficientPrivilege:
        log.warning("%s may not see whether replicas of the database keep up: grant it pg_read_all_stats", SERVE.name)
