"""`pixr backup` and `pixr restore`: options and printing. The work is done by `ledger.backup`.

For a restore, the embedded PostgreSQL is started here without the other services.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from psycopg import sql

from cluster import runtime
from cluster.cli.context import Context
from cluster.database import database, logins
from cluster.embedded import supervisor
from cluster.errors import Rejected, Temporary
from cluster.roles import OWNER
from cluster.settings import EMBEDDED, Settings

START_TIMEOUT_S = 120.0
POLL_S = 0.2


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.pass_obj
def backup(context: Context, file: Path) -> None:
    """Write the database to FILE while everything runs. Keep the folder secrets/ apart from it."""
    from ledger import backup as backups

    size = backups.dump(logins.url(context.settings, OWNER), file)
    context.console.print(f"{file}: {size / 2**20:.1f} MiB")


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--replace", is_flag=True, help="Drop what the embedded database holds now.")
@click.pass_obj
def restore(context: Context, file: Path, replace: bool) -> None:
    """Fill the database from FILE, with Pixr down. Payouts stay frozen until the chain has been read."""
    from ledger import backup as backups

    if not file.exists():
        raise Rejected(f"there is no file {file}", code="file-missing")
    with _postgres_alone(context.settings):
        if replace:
            _empty(context.settings)
        backups.restore(logins.url(context.settings, OWNER), file)
    context.console.print("restored; `pixr up` adopts what the chain has paid since, then payouts go on")


@contextmanager
def _postgres_alone(settings: Settings) -> Iterator[None]:
    """Run the embedded PostgreSQL, without the other services, while the context lasts; refuse if Pixr is up."""
    if supervisor.running(settings):
        raise Rejected("Pixr is running", status=409, code="running", hint="`pixr down` first")
    if settings.postgres.url != EMBEDDED:
        yield
        return
    process = supervisor.start(settings, only=("postgres",))
    try:
        deadline = time.monotonic() + START_TIMEOUT_S
        while supervisor.read_status(settings)["phase"] != "up":
            if process.poll() is not None or time.monotonic() > deadline:
                raise Temporary("PostgreSQL did not start; see the logs")
            time.sleep(POLL_S)
        yield
    finally:
        process.terminate()
        process.wait(60)


def _empty(settings: Settings) -> None:
    """Drop the embedded database and create it empty."""
    if settings.postgres.url != EMBEDDED:
        raise Rejected("only the embedded database is replaced", code="not-embedded", hint="name a new, empty one")
    name = sql.Identifier(runtime.DATABASE)
    with database.connect(runtime.postgres_url(settings, "postgres"), autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(name))
        connection.execute(sql.SQL("CREATE DATABASE {}").format(name))
