"""`pixr payouts` and `pixr audit`: options and printing. The work is done by the modules of the ledger that it calls."""

from __future__ import annotations

import getpass
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table

from cluster.cli.context import Context, json_option
from cluster.errors import Temporary
from cluster.roles import LEDGER, READER
from ledger.cli import archive
from ledger.cli import orders as cli_orders
from ledger.cli import stops as cli_stops
from ledger.cli import wallets as cli_wallets

if TYPE_CHECKING:
    from ledger.audit.anchors import Anchor
    from ledger.solana.chain import Chain

POLL_S = 0.3


@click.group(invoke_without_command=True)
@json_option
@click.pass_context
def payouts(ctx: click.Context, as_json: bool) -> None:
    """What was paid, to whom, and what comes next."""
    if ctx.invoked_subcommand is None:
        _show(ctx.obj, None, 50, as_json)


@payouts.command("show")
@click.option("--creator", "creator_id", type=int, help="Only this creator's.")
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True)
@json_option
@click.pass_obj
def show(context: Context, creator_id: int | None, limit: int, as_json: bool) -> None:
    """List payouts, newest first."""
    _show(context, creator_id, limit, as_json)


@payouts.command("plan")
@json_option
@click.pass_obj
def plan(context: Context, as_json: bool) -> None:
    """Say what the next payouts would be and cost. Changes nothing."""
    from ledger.payouts import listing
    from ledger.settings import Economics, LedgerSettings
    from ledger.solana.treasury import open_treasury

    settings, chain = context.settings, _chain(context)
    with context.connect(LEDGER) as connection:
        treasury = open_treasury(connection, chain, settings)
        found = listing.plan(connection, treasury, settings.section(Economics), settings.section(LedgerSettings))
    if as_json:
        context.emit(found.document())
        return
    table = Table(show_header=False, box=None)
    for name, value in found.document().items():
        table.add_row(name.replace("_", " "), str(value))
    context.console.print(table)


@payouts.command("run")
@click.option("--timeout", "timeout_s", type=float, default=120.0, show_default=True, help="Seconds to wait.")
@json_option
@click.pass_obj
def run(context: Context, timeout_s: float, as_json: bool) -> None:
    """Wait until everything that is due is paid; where no ledger runs, do its work here."""
    deadline = time.monotonic() + timeout_s
    with context.connect(READER) as connection:
        work = _own_work(context, connection)
        while True:
            work()
            left = _unfinished(context, connection)
            if not any(left.values()):
                break
            if time.monotonic() > deadline:
                raise Temporary(f"not everything is paid after {timeout_s:.0f} s: {left}")
            time.sleep(POLL_S)
    _show(context, None, 50, as_json)


@click.command()
@click.option("--full", is_flag=True, help="Also the hash chain, every accrual, every payout on chain and the archive.")
@click.option("--offline", is_flag=True, help="Without asking the chain or the object store.")
@json_option
@click.pass_obj
def audit(context: Context, full: bool, offline: bool, as_json: bool) -> None:
    """Compute every balance again and compare with the chain; exit code 1 on any difference."""
    from ledger.archive.shelf import Shelf
    from ledger.audit import audit as auditing
    from ledger.settings import LedgerSettings

    with context.connect(READER) as connection:
        chain = None if offline else _chain(context)
        limits = context.settings.section(LedgerSettings)
        heads = None if offline else _heads(context)
        shelf = None if offline else Shelf.of(context.settings)
        checks = auditing.run(connection, chain, _gas(context), full=full, limits=limits, heads=heads, shelf=shelf)
    clean = all(check.ok for check in checks)
    if as_json:
        rows = [{"name": each.name, "ok": each.ok, "detail": each.detail} for each in checks]
        context.emit({"clean": clean, "checks": rows})
    else:
        table = Table("", "check", "detail", box=None, header_style="dim")
        for each in checks:
            table.add_row("[green]✓[/]" if each.ok else "[red]✗[/]", each.name, each.detail)
        context.console.print(table)
        context.console.print("[green]audit clean[/]" if clean else "[red]the audit found differences[/]")
    if not clean:
        raise SystemExit(1)


@payouts.command("resolve")
@click.argument("batch_id")
@click.option("--timeout", "timeout_s", type=float, default=60.0, show_default=True, help="Seconds to wait.")
@json_option
@click.pass_obj
def resolve(context: Context, batch_id: str, timeout_s: float, as_json: bool) -> None:
    """End the stuck BATCH of payouts by what finalized transactions did; exit code 1 if that does not prove how it ended."""
    from ledger.payouts import resolutions

    deadline = time.monotonic() + timeout_s
    with context.connect(LEDGER) as connection:
        number = resolutions.request(connection, batch_id, getpass.getuser())
        connection.commit()
        work = _own_work(context, connection)
        while (found := resolutions.one(connection, number)).outcome is None:
            connection.rollback()
            if time.monotonic() > deadline:
                raise Temporary(f"the ledger has not answered after {timeout_s:.0f} s; it will, when it can")
            work()
            time.sleep(POLL_S)
    if as_json:
        context.emit({"batch_id": batch_id, "ended": found.ended, "outcome": found.outcome, "evidence": found.evidence})
    else:
        context.console.print(found.outcome)
    if not found.ended:
        raise SystemExit(1)


OF_STOPS = (cli_stops.stops, cli_stops.hold, cli_stops.freeze, cli_stops.restored, cli_stops.release)
for command in (*OF_STOPS, cli_wallets.wallet, cli_orders.order):
    payouts.add_command(command)
payouts.add_command(archive.archive)


def _show(context: Context, creator_id: int | None, limit: int, as_json: bool) -> None:
    from ledger.payouts import listing

    with context.connect(READER) as connection:
        lines = listing.payouts(connection, creator_id=creator_id, limit=limit)
    if as_json:
        context.emit([line.document() for line in lines])
        return
    table = Table("payout", "creator", "PIX", "state", "signature", "slot", "planned", box=None, header_style="dim")
    for line in lines:
        amount = f"{line.amount_pix // 10**6}.{line.amount_pix % 10**6:06d}"
        signature = f"{line.signature[:12]}…" if line.signature else ""
        slot = str(line.slot or "")
        table.add_row(str(line.id), str(line.creator_id), amount, line.state, signature, slot, line.planned_at[:19])
    context.console.print(table if lines else "no payouts yet")


def _unfinished(context: Context, connection: Any) -> dict[str, int]:
    """Count what is still to be done: searches to fold, batches under way, and creators to pay.

    While payouts are frozen, no creator counts.
    """
    from ledger.payouts import batches, owed
    from ledger.risk import stops
    from ledger.settings import Economics

    economics = context.settings.section(Economics)
    waiting = connection.execute(
        "SELECT coalesce(sum(greatest(recorded - folded, 0)), 0)::bigint FROM ledger.unfolded"
    ).fetchone()
    bound = connection.execute("SELECT mint FROM ledger.chain").fetchone()
    closed = stops.frozen(connection) or not batches.is_payday(connection, economics)
    due = [] if closed else owed.due(connection, economics, bound[0] if bound else "", 1)
    unfinished = {"searches": int(waiting[0]), "batches": batches.live_count(connection), "due": len(due)}
    connection.rollback()
    return unfinished


def _own_work(context: Context, connection: Any) -> Callable[[], object]:
    """Return the function that a command calls while it waits.

    It does nothing if a ledger runs; else it does the ledger's work in this process.
    """
    row = connection.execute("SELECT epoch > 0 AND now() - seen_at < interval '15 s' FROM ledger.fence").fetchone()
    connection.rollback()
    if row and row[0]:
        return lambda: None
    ledger = _ledger(context)

    def work() -> None:
        ledger.tick()
        if ledger.trouble:
            raise Temporary(ledger.trouble)

    return work


def _ledger(context: Context) -> Any:
    from ledger.actor import Ledger

    return Ledger(context.settings)


def _chain(context: Context) -> Chain:
    from ledger.rounds import open_chain

    return open_chain(context.settings)


def _heads(context: Context) -> Callable[[], Sequence[Anchor]]:
    """Return a function that lists the journal's anchors in the object store."""
    from cluster import runtime
    from cluster.storage import Storage
    from ledger.audit import anchors

    endpoint, bucket = runtime.endpoints(context.settings).s3, context.settings.s3.bucket
    return lambda: anchors.listing(Storage(endpoint), bucket)


def _gas(context: Context) -> str | None:
    """Return the address that pays fees; None if the treasury pays them."""
    from ledger.settings import LedgerSettings
    from ledger.solana.treasury import open_signer

    name = context.settings.section(LedgerSettings).gas_key
    return str(open_signer(context.settings, name).pubkey) if name else None
