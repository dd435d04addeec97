"""Makes the roles in a database and grants each what its part of Pixr needs, again at every migration.

Each package says in `schema/grants.sql` what its tables let whom do: first everything is taken back, then what is needed
is given, so that what a release no longer needs is gone and new tables are not forgotten. A server on which the migrating
role may not create roles keeps one role for everything, which is logged, and shown by `pixr status`.
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
# What no package owns: Serve notes the secrets that it works with, once each.
OWN = """
    REVOKE ALL ON SCHEMA pixr FROM pixr_serve, pixr_jobs, pixr_ledger, pixr_reader;
    REVOKE ALL ON ALL TABLES IN SCHEMA pixr FROM pixr_serve, pixr_jobs, pixr_ledger, pixr_reader;
    GRANT USAGE ON SCHEMA pixr TO pixr_serve, pixr_reader;
    GRANT SELECT, INSERT ON pixr.fingerprints TO pixr_serve;
    GRANT SELECT ON pixr.fingerprints TO pixr_reader"""
# What PostgreSQL lets everybody do in every database and no part of Pixr needs: temporary tables, which hide others of
# their name and may have triggers, and large objects, which nobody would find or remove.
OF_EVERYBODY = """
    DO $$ DECLARE
        large text;
    BEGIN
        EXECUTE format('REVOKE TEMPORARY ON DATABASE %I FROM PUBLIC', current_database());
        FOR large IN SELECT oid::regprocedure::text FROM pg_proc WHERE pronamespace = 'pg_catalog'::regnamespace
                     AND (proname LIKE 'lo\\_%' OR proname IN ('loread', 'lowrite')) LOOP
            EXECUTE format('REVOKE EXECUTE ON FUNCTION pg_catalog.%s FROM PUBLIC', large);
        END LOOP;
    END $$"""
# Triggers' functions with their owner's rights: who may call one could make it a trigger of a table of their own.
OF_TRIGGERS = """
    DO $$ DECLARE
        called text;
    BEGIN
        FOR called IN SELECT p.oid::regprocedure::text FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
                      WHERE n.nspname IN ('app', 'ledger', 'media', 'pixr') AND p.prosecdef
                        AND p.prorettype = 'trigger'::regtype LOOP
            EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', called);
        END LOOP;
    END $$"""
# Databases of a server that nobody has a business in but who administers it.
OF_THE_SERVER = "REVOKE CONNECT, TEMPORARY ON DATABASE postgres, template1 FROM PUBLIC"
SET_BY_ITSELF = """
    SELECT d.datname FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase
    WHERE s.setrole = (SELECT oid FROM pg_roles WHERE rolname = %s)"""
MAY_ASSUME = "SELECT pg_has_role(%s, 'SET')"


def grant(connection: Connection, grants: Sequence[str]) -> bool:
    """Create the roles where they are missing and run every package's grants; False where that is not allowed.

    The connection must be in autocommit mode; running it again changes nothing.
    """
    if not ensure(connection):
        return False
    with connection.transaction():
        for text in (OWN, *grants, OF_TRIGGERS):
            connection.execute(SQL(text))  # our own files
    try:
        with connection.transaction():
            connection.execute(SQL(OF_EVERYBODY))
    except psycopg.errors.InsufficientPrivilege as error:
        log.warning("every user of the database may make temporary tables and large objects in it: %s", error)
    return True


def ensure(connection: Connection) -> bool:
    """Create the roles that are missing; False where one is and may not be made. They belong to the whole server."""
    missing = {name for (name,) in connection.execute(MISSING, ([role.name for role in PARTS],))}
    row = connection.execute(MAY_CREATE).fetchone()
    if missing and not (row and row[0]):
        said = (
            "there is no role %s and none may be made: parts without one work as the owner, and nothing is granted anew"
        )
        log.warning(said, ", ".join(sorted(missing)))
        return False
    for role in PARTS:
        if role.name in missing:
            _create(connection, role)
    return True


def allow_login(url: str, passwords: Mapping[Role, str], connections_max: Mapping[str, int] | None = None) -> None:
    """Let roles log in by passwords (the embedded server's; elsewhere the operator makes members of them).

    A role can change its own password and what its sessions begin with, which PostgreSQL lets no one forbid: both are what
    they were after this. `connections_max` says by part how many connections each may have; one without has no limit.
    """
    limits = connections_max or {}
    with database.session(url, autocommit=True) as connection, connection.transaction():
        connection.execute(OF_THE_SERVER)
        for role, password in passwords.items():
            name, most = Identifier(role.name), Literal(limits.get(role.part, -1))
            # Utility statements take no parameters.
            text = SQL("ALTER ROLE {} LOGIN PASSWORD {} CONNECTION LIMIT {}").format(name, Literal(password), most)
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
    if may_assume != (True,):  # who creates a role and is no superuser may grant it, and has to
        connection.execute(SQL("GRANT {} TO CURRENT_USER WITH INHERIT FALSE, SET TRUE").format(name))
    if role is SERVE:
        _let_see_replicas(connection, name)


def _let_see_replicas(connection: Connection, name: Identifier) -> None:
    """A replica of the database says only to who may read all figures whether it still streams."""
    try:
        connection.execute(SQL("GRANT pg_read_all_stats TO {}").format(name))
    except psycopg.errors.InsufficientPrivilege:
        log.warning("%s may not see whether replicas of the database keep up: grant it pg_read_all_stats", SERVE.name)
