"""`pixr payouts archive`. Knows how to ask and how to print; the work is `archive`'s."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import asdict
from typing import TYPE_CHECKING

import click
from rich.table import Table

from cluster.cli.context import Context, json_option
from cluster.errors import Temporary
from cluster.roles import READER

if TYPE_CHECKING:
    from ledger.archive.retention import Retention

POLL_S = 0.5


@click.command()
@click.option(
    "--run", "until_done", is_flag=True, help="Wait until nothing is due; where no ledger runs, archive here."
)
@click.option("--timeout", "timeout_s", type=float, default=600.0, show_default=True, help="Seconds to wait.")
@json_option
@click.pass_obj
def archive(context: Context, until_done: bool, timeout_s: float, as_json: bool) -> None:
    """Show how long each table keeps what it holds, since when it does, and what lies in the archive."""
    from ledger.archive import retention
    from ledger.settings import LedgerSettings

    if until_done:
        _until_done(context, time.monotonic() + timeout_s)
    with context.connect(READER) as connection:
        found = retention.measure(connection, context.settings.section(LedgerSettings))
    if as_json:
        context.emit([_document(each) for each in found])
        return
    table = Table("what", "kept for", "oldest", "parts", "content", box=None, header_style="dim")
    for each in found:
        kept = f"{each.keep_d} days" if each.keep_d else "ever"
        oldest = f"{each.oldest_at:%Y-%m-%d %H:%M}" if each.oldest_at else ""
        size = f"{each.bytes / 2**20:.1f} MiB" if each.parts else ""
        table.add_row(each.name, kept, oldest, str(each.parts or ""), size)
    context.console.print(table)


def _until_done(context: Context, deadline: float) -> None:
    """Wait for the ledger to archive what is due, or do it where none runs.

    Raises:
        Temporary: it is not done in time, or the object store is away.
    """
    from ledger.archive.retention import waiting
    from ledger.keeping import Keeping
    from ledger.rounds import Epoch
    from ledger.settings import LedgerSettings

    own = context.settings.section(LedgerSettings)
    with context.connect(READER) as connection, closing(Keeping(context.settings, Epoch())) as here:
        row = connection.execute("SELECT epoch > 0 AND now() - seen_at < interval '15 s' FROM ledger.fence").fetchone()
        connection.rollback()
        is_elsewhere = bool(row and row[0])
        while left := waiting(connection, own):
            connection.rollback()
            if time.monotonic() > deadline:
                raise Temporary(f"not everything that is due is archived: {', '.join(left)}")
            if is_elsewhere or not here.round():
                if here.trouble:
                    raise Temporary(here.trouble)
                time.sleep(POLL_S)


def _document(found: Retention) -> dict[str, object]:
    """Instants in RFC 3339."""
    return asdict(found) | {"oldest_at": found.oldest_at.isoformat() if found.oldest_at else None}
