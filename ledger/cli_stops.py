"""`pixr payouts stops`, `hold`, `freeze`, `restored` and `release`. Knows how to ask and print; the work is `stops`'s."""

from __future__ import annotations

import getpass
from dataclasses import asdict
from typing import Any

import click
from rich.table import Table

from cluster.cli import Context, json_option
from cluster.roles import LEDGER, READER


@click.command()
@json_option
@click.pass_obj
def stops(context: Context, as_json: bool) -> None:
    """List what stops payouts, to one creator or to all, and why; what has no name ends by itself, with its cause or time."""
    from ledger import stops as own

    with context.connect(READER) as connection:
        found = [*own.in_force(connection), *own.waiting(connection)]
    if as_json:
        context.emit([_document(each) for each in found])
        return
    table = Table("name", "creator", "reason", "since", "until", box=None, header_style="dim")
    for each in found:
        creator = "all" if each.creator_id is None else str(each.creator_id)
        until = f"{each.until:%Y-%m-%d %H:%M}" if each.until else ""
        reason = f"{each.reason} {each.detail}".strip()
        table.add_row(each.name, creator, reason, f"{each.placed_at:%Y-%m-%d %H:%M}", until)
    context.console.print(table if found else "nothing stops payouts")


@click.command()
@click.argument("creator_id", type=click.IntRange(1, 2**63 - 1))
@click.argument("reason")
@click.option("--unknown", is_flag=True, help="Also a creator who has neither earned nor a wallet yet.")
@click.pass_obj
def hold(context: Context, creator_id: int, reason: str, unknown: bool) -> None:
    """Stop payouts to a creator, for a REASON that they are shown. What is owed waits; what is signed may still arrive."""
    from ledger import stops as own

    with context.connect(LEDGER) as connection:
        if not unknown:
            own.require_known(connection, creator_id)
        own.hold(connection, creator_id, reason)
        signed = own.under_way(connection, creator_id)
    context.console.print(f"payouts to creator {creator_id} are held")
    if signed:
        context.console.print(f"{signed} base units are signed already and may still arrive")


@click.command()
@click.argument("reason")
@click.pass_obj
def freeze(context: Context, reason: str) -> None:
    """Stop all payouts, for a REASON. What is under way on the chain is settled all the same."""
    from ledger import stops as own

    with context.connect(LEDGER) as connection:
        own.freeze(connection, f"{reason} (by {getpass.getuser()})", {})  # never the ledger's own words
    context.console.print("all payouts are frozen")


@click.command()
@click.pass_obj
def restored(context: Context) -> None:
    """Say that the database has gone back in time, by other means than `pixr restore`: what was paid since is adopted."""
    from ledger import adoption

    with context.connect(LEDGER) as connection:
        adoption.begin(connection, {"by": getpass.getuser()})
    context.console.print("all payouts are frozen until what the chain has paid is in the journal again")


@click.command()
@click.argument("name")
@click.pass_obj
def release(context: Context, name: str) -> None:
    """End a hold or a freeze, by the NAME that `stops` shows."""
    from ledger import stops as own

    with context.connect(LEDGER) as connection:
        own.release(connection, name, getpass.getuser())
    context.console.print(f"{name} is released")


def _document(stop: Any) -> dict[str, Any]:
    """Ids as strings, instants in RFC 3339."""
    shown = asdict(stop)
    shown["name"] = stop.name or None
    shown["creator_id"] = None if stop.creator_id is None else str(stop.creator_id)
    for name in ("placed_at", "until"):
        shown[name] = shown[name].isoformat() if shown[name] else None
    return shown
