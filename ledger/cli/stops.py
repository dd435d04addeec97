"""`pixr payouts stops`, `hold`, `freeze`, `restored` and `release`: options and printing. See `ledger.risk.stops`."""

from __future__ import annotations

import getpass
from dataclasses import asdict
from typing import Any

import click
from rich.table import Table

from cluster.cli.context import Context, json_option
from cluster.roles import LEDGER, READER


@click.command()
@json_option
@click.pass_obj
def stops(context: Context, as_json: bool) -> None:
    """List what stops payouts, to one creator or to all, and why."""
    from ledger.risk import stops as risk_stops

    with context.connect(READER) as connection:
        in_force = risk_stops.in_force(connection)
    if as_json:
        context.emit([_document(each) for each in in_force])
        return
    table = Table("name", "creator", "reason", "since", "until", box=None, header_style="dim")
    for each in in_force:
        creator = "all" if each.creator_id is None else str(each.creator_id)
        until = f"{each.until:%Y-%m-%d %H:%M}" if each.until else ""
        reason = f"{each.reason} {each.detail}".strip()
        table.add_row(each.name, creator, reason, f"{each.placed_at:%Y-%m-%d %H:%M}", until)
    context.console.print(table if in_force else "nothing stops payouts")


@click.command()
@click.argument("creator_id", type=click.IntRange(1, 2**63 - 1))
@click.argument("reason")
@click.option("--unknown", is_flag=True, help="Also a creator who has neither earned nor a wallet yet.")
@click.pass_obj
def hold(context: Context, creator_id: int, reason: str, unknown: bool) -> None:
    """Stop payouts to a creator, for a REASON shown to them. What is owed waits; what is signed may still arrive."""
    from ledger.risk import stops as risk_stops

    with context.connect(LEDGER) as connection:
        if not unknown:
            risk_stops.require_known(connection, creator_id)
        risk_stops.hold(connection, creator_id, reason)
        signed = risk_stops.under_way(connection, creator_id)
    context.console.print(f"payouts to creator {creator_id} are held")
    if signed:
        context.console.print(f"{signed} base units are signed already and may still arrive")


@click.command()
@click.argument("reason")
@click.pass_obj
def freeze(context: Context, reason: str) -> None:
    """Stop all payouts, for a REASON. What is under way on the chain is settled all the same."""
    from ledger.risk import stops as risk_stops

    with context.connect(LEDGER) as connection:
        risk_stops.freeze(connection, reason, {"by": getpass.getuser()})
    context.console.print("all payouts are frozen")


@click.command()
@click.pass_obj
def restored(context: Context) -> None:
    """Declare that the database was set back, other than by `pixr restore`: what was paid since then is booked again."""
    from ledger.payouts import adoption

    with context.connect(LEDGER) as connection:
        adoption.begin(connection, {"by": getpass.getuser()})
    context.console.print("all payouts are frozen until what the chain has paid is in the journal again")


@click.command()
@click.argument("name")
@click.pass_obj
def release(context: Context, name: str) -> None:
    """End a hold or a freeze, by the NAME that `stops` shows."""
    from ledger.risk import stops as risk_stops

    with context.connect(LEDGER) as connection:
        risk_stops.release(connection, name, getpass.getuser())
    context.console.print(f"{name} is released")


def _document(stop: Any) -> dict[str, Any]:
    """Return a stop as JSON shows it: ids as strings, times in RFC 3339."""
    shown = asdict(stop)
    shown["creator_id"] = None if stop.creator_id is None else str(stop.creator_id)
    for name in ("placed_at", "until"):
        shown[name] = shown[name].isoformat() if shown[name] else None
    return shown
