"""`pixr backup` and `pixr restore`. Knows how to ask and how to print; the work is `backup`'s."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import click
from psycopg import sql

from cluster import database, logins, runtime, supervisor
from cluster.cli import Context
from cluster.errors import Rejected, Temporary
from cluster.roles import OWNER
from cluster.settings import EMBEDDED, Settings

START_TIMEOUT_S = 120.0
POLL_S = 0.2
ASIDE = f"{runtime.DATABASE}_replaced"
FORGOTTEN = (
    "all that the dump does not know is forgotten, also holds and freezes, revoked keys, wallets and orders: revoke such keys"
    " and place such holds again before `pixr up`"
)
FORGOTTEN_TOO = "forgotten is what else the dump does not know, as new keys, and wallets and holds that have ended"


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
    from ledger import replaced

    if not file.exists():
        raise Rejected(f"there is no file {file}", code="file-missing")
    said = [FORGOTTEN]
    with _postgres_alone(context.settings):
        url = logins.url(context.settings, OWNER)
        with _aside(context.settings) if replace else nullcontext() as old_url:
            backups.restore(url, file)
            if old_url is not None and (before := replaced.read(old_url)) is not None:
                said = [*replaced.keep(url, before), FORGOTTEN_TOO]
    for line in said:
        context.console.print(line, markup=False, soft_wrap=True)
    context.console.print("restored; `pixr up` adopts what the chain has paid since, then payouts go on")


@contextmanager
def _postgres_alone(settings: Settings) -> Iterator[None]:
    """Nothing of ours runs but the database."""
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


@contextmanager
def _aside(settings: Settings) -> Iterator[str | None]:
    """An empty database in place of the one that is there, which stands aside, by the URL that is given, until the new one is
    whole, and is back where that fails. None: there was none.

    Who is killed meanwhile leaves it aside, and the next call takes it for the one that was there.
    """
    if settings.postgres.url != EMBEDDED:
        raise Rejected("only the embedded database is replaced", code="not-embedded", hint="name a new, empty one")
    new, old = sql.Identifier(runtime.DATABASE), sql.Identifier(ASIDE)
    with database.connect(runtime.postgres_url(settings, "postgres"), autocommit=True) as server:
        there = {name for (name,) in server.execute("SELECT datname FROM pg_database").fetchall()}
        if runtime.DATABASE in there and ASIDE not in there:
            server.execute(sql.SQL("ALTER DATABASE {} RENAME TO {}").format(new, old))
        is_aside = bool({runtime.DATABASE, ASIDE} & there)
        server.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(new))
        server.execute(sql.SQL("CREATE DATABASE {}").format(new))
        try:
            yield runtime.postgres_url(settings, ASIDE) if is_aside else None
        except BaseException:
            if is_aside:
                server.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(new))
                server.execute(sql.SQL("ALTER DATABASE {} RENAME TO {}").format(old, new))
            raise
        server.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(old))
