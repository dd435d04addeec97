"""`pixr payouts archive`: options and printing. The work is done by `ledger.archive` and `ledger.keeping`."""

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
    """Show for each table how long rows stay in it, how old its oldest row is, and how much of it is in the archive."""
    from ledger.archive import retention
    from ledger.settings import LedgerSettings

    if until_done:
        _until_done(context, time.monotonic() + timeout_s)
    with context.connect(READER) as connection:
        kinds = retention.measure(connection, context.settings.section(LedgerSettings))
    if as_json:
        context.emit([_document(kind) for kind in kinds])
        return
    table = Table("what", "kept for", "oldest", "parts", "content", box=None, header_style="dim")
    for kind in kinds:
        kept_for = f"{kind.keep_d} days" if kind.keep_d else "ever"
        oldest = f"{kind.oldest_at:%Y-%m-%d %H:%M}" if kind.oldest_at else ""
        size = f"{kind.bytes / 2**20:.1f} MiB" if kind.parts else ""
        table.add_row(kind.name, kept_for, oldest, str(kind.parts or ""), size)
    context.console.print(table)


def _until_done(context: Context, deadline: float) -> None:
    """Wait until all rows that are due are archived; if no ledger runs, archive them in this process.

    Raises:
        Temporary: it is not done in time, or the object store does not answer.
    """
    from ledger.archive.retention import waiting
    from ledger.keeping import Keeping
    from ledger.rounds import Epoch
    from ledger.settings import LedgerSettings

    settings = context.settings.section(LedgerSettings)
    with context.connect(READER) as connection, closing(Keeping(context.settings, Epoch())) as keeping:
        row = connection.execute("SELECT epoch > 0 AND now() - seen_at < interval '15 s' FROM ledger.fence").fetchone()
        connection.rollback()
        ledger_runs = bool(row and row[0])
        while left := waiting(connection, settings):
            connection.rollback()
            if time.monotonic() > deadline:
                raise Temporary(f"not everything that is due is archived: {', '.join(left)}")
            if ledger_runs or not keeping.round():
                if keeping.trouble:
                    raise Temporary(keeping.trouble)
                time.sleep(POLL_S)


def _document(kind: Retention) -> dict[str, object]:
    """Return the retention of a kind of rows as JSON shows it, with times in RFC 3339."""
    return asdict(kind) | {"oldest_at": kind.oldest_at.isoformat() if kind.oldest_at else None}
