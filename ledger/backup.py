"""Backup and restore of the whole database, through PostgreSQL's own `pg_dump` and `pg_restore`.

A restored ledger has forgotten what it paid since the dump, and the chain has not: payouts stay frozen until every
transaction of the treasury is in the journal again (see `adoption`). Secrets are not part of a dump: keep `secrets/`
apart from it, since marker addresses derive from a secret that whoever has the dump must not have.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from cluster import database, migrations, postgres_programs
from cluster.errors import Rejected, Temporary
from ledger import adoption

DUMP_TIMEOUT_S = 3600
# Numbers that were given after the dump stand in spools, links and other people's notes: they are not given again.
NUMBERS_SKIPPED = 10**9
SKIPPED = """SELECT setval(format('%%I.%%I', schemaname, sequencename)::regclass, coalesce(last_value, 0) + %(some)s)
             FROM pg_sequences WHERE schemaname IN ('media', 'ledger', 'app') AND data_type = 'bigint'::regtype"""


def dump(url: str, file: Path) -> int:
    """Write the database to a file, whole or not at all; returns its size in bytes.

    Raises:
        Rejected: the file exists, or its folder does not.
        Temporary: the database does not let itself be read.
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
    """Fill an empty database from a dump, freeze payouts until the chain has been read, and bring it to the present.

    Roles belong to the server and not to a dump: they are made where they are missing, and are granted what they were.

    Raises:
        Rejected: the file is no dump, the database is not empty, or the dump is of another line of migrations.
    """
    if not file.exists():
        raise Rejected(f"there is no file {file}", code="file-missing")
    with database.connect(url) as connection:
        held = connection.execute("SELECT count(*) FROM pg_namespace WHERE nspname IN ('ledger', 'media')").fetchone()
    if held != (0,):
        raise Rejected(
            "the database is not empty", status=409, code="database-not-empty", hint="restore into a new one"
        )
    options = ("--exit-on-error", "--single-transaction", "--no-owner", "--no-privileges")
    _run(url, "pg_restore", *options, str(file))
    with database.connect(url) as connection:
        adoption.begin(connection, {"file": file.name})
        connection.execute("UPDATE ledger.fence SET epoch = epoch + 1000")  # no writer of before is ever valid again
        connection.execute(SKIPPED, {"some": NUMBERS_SKIPPED})
    migrations.migrate(url)
    with database.connect(url) as connection:
        adoption.sit(connection)


def _run(url: str, program: str, *arguments: str) -> None:
    """Run a program on the database of a URL or a string of key=value pairs; the password travels in the environment."""
    parts = conninfo_to_dict(url)
    secret = {"PGPASSWORD": str(password)} if (password := parts.pop("password", None)) else {}
    done = subprocess.run(
        (_binary(program), f"--dbname={make_conninfo('', **parts)}", *arguments),
        env={**os.environ, **secret},
        capture_output=True,
        text=True,
        timeout=DUMP_TIMEOUT_S,
        check=False,
    )
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        line = said[-1] if said else str(done.returncode)
        if program == "pg_restore":
            raise Rejected(f"pg_restore failed: {line}", code="restore-failed")
        raise Temporary(f"pg_dump failed: {line}")


def _binary(program: str) -> str:
    """The embedded PostgreSQL's program, which reads servers and dumps of its own version and older; else PATH's."""
    found = postgres_programs.newest(program) or shutil.which(program)
    if found is None:
        raise Rejected(f"there is no {program}", code="no-program", hint="install PostgreSQL's client programs")
    return str(found)
