"""Backup and restore of the whole database, through PostgreSQL's own `pg_dump` and `pg_restore`.

A restored ledger does not know what it paid after the dump was made; the chain does. So payouts stay frozen until every
transaction of the treasury is in the journal again (see `adoption`). A dump contains no secrets. Store the folder
`secrets/` apart from it: the addresses of markers derive from a secret that a reader of the dump must not have.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from cluster.database import database, migrations
from cluster.embedded import postgres_programs
from cluster.errors import Rejected, Temporary
from ledger.payouts import adoption

DUMP_TIMEOUT_S = 3600
# Ids that were given out after the dump are still in spools, links and notes of users: sequences skip this many.
NUMBERS_SKIPPED = 10**9
SKIPPED = """SELECT setval(format('%%I.%%I', schemaname, sequencename)::regclass, coalesce(last_value, 0) + %(some)s)
             FROM pg_sequences WHERE schemaname IN ('media', 'ledger', 'app') AND data_type = 'bigint'::regtype"""


def dump(url: str, file: Path) -> int:
    """Write the database to a file, which appears only when it is complete; return its size in bytes.

    Raises:
        Rejected: the file exists, or its folder does not.
        Temporary: `pg_dump` failed.
    """
    if file.exists():
        raise Rejected(f"{file} exists", code="file-exists", hint="name another file")
    if not file.parent.is_dir():
        raise Rejected(f"there is no folder {file.parent}", code="no-folder")
    draft = file.with_name(file.name + ".new")
    draft.touch(mode=0o600)
    try:
        _run(url, "pg_dump", "--format=custom", f"--file={draft}")
        draft.rename(file)
    finally:
        draft.unlink(missing_ok=True)
    return file.stat().st_size


def restore(url: str, file: Path) -> None:
    """Fill an empty database from a dump, freeze payouts until the chain has been read, and apply newer migrations.

    A dump contains no roles, since they belong to the server: missing roles are made, and all get their privileges
    again.

    Raises:
        Rejected: the file is not a dump, the database is not empty, or the dump has migrations that this version lacks.
    """
    if not file.exists():
        raise Rejected(f"there is no file {file}", code="file-missing")
    with database.connect(url) as connection:
        schemas = connection.execute(
            "SELECT count(*) FROM pg_namespace WHERE nspname IN ('ledger', 'media')"
        ).fetchone()
    if schemas != (0,):
        raise Rejected(
            "the database is not empty", status=409, code="database-not-empty", hint="restore into a new one"
        )
    options = ("--exit-on-error", "--single-transaction", "--no-owner", "--no-privileges")
    _run(url, "pg_restore", *options, str(file))
    with database.connect(url) as connection:
        adoption.begin(connection, {"file": file.name})
        connection.execute("UPDATE ledger.fence SET epoch = epoch + 1000")  # no earlier writer may ever write again
        connection.execute(SKIPPED, {"some": NUMBERS_SKIPPED})
    migrations.migrate(url)
    with database.connect(url) as connection:
        adoption.note_seat(connection)


def _run(url: str, program: str, *arguments: str) -> None:
    """Run a program on a database, given by a URL or by key=value pairs; the password travels in the environment.

    Raises:
        Rejected: `pg_restore` failed.
        Temporary: `pg_dump` failed.
    """
    options = conninfo_to_dict(url)
    password = options.pop("password", None)
    environment = {**os.environ, "PGPASSWORD": str(password)} if password else {**os.environ}
    done = subprocess.run(
        (_binary(program), f"--dbname={make_conninfo('', **options)}", *arguments),
        env=environment,
        capture_output=True,
        text=True,
        timeout=DUMP_TIMEOUT_S,
        check=False,
    )
    if done.returncode:
        output = (done.stderr or done.stdout).strip().splitlines()
        line = output[-1] if output else str(done.returncode)
        if program == "pg_restore":
            raise Rejected(f"pg_restore failed: {line}", code="restore-failed")
        raise Temporary(f"pg_dump failed: {line}")


def _binary(program: str) -> str:
    """Return the path of a client program: the newest embedded one; if there is none, that of PATH.

    New client programs can read older servers.
    """
    path = postgres_programs.newest(program) or shutil.which(program)
    if path is None:
        raise Rejected(f"there is no {program}", code="no-program", hint="install PostgreSQL's client programs")
    return str(path)
