"""`pixr payouts order`: options and printing. The rules are those of `ledger.orders`.

Each order is placed with an administrator's API key. The key is read from a file, so that no list of processes shows it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.table import Table

from cluster import runtime
from cluster.cli.context import Context, json_option
from cluster.errors import Rejected, Temporary
from cluster.roles import LEDGER, READER

Function = TypeVar("Function", bound=Callable[..., Any])

POLL_S = 0.3
ADMIN_KEY = "api_admin_key"  # under secrets/, where Pixr has made the first one


@click.group()
def order() -> None:
    """Order work that no rule of the ledger does: adopt, book a withdrawal or a correction, use a new secret."""


def order_options(command: Function) -> Function:
    """Add the options that every order has to a command."""
    options: tuple[Callable[[Function], Function], ...] = (
        click.option("--reason", required=True, help="Why; it stays in the journal."),
        click.option(
            "--key-file", type=click.Path(path_type=Path), help="An administrator's key (else secrets/'s own)."
        ),
        click.option("--timeout", "timeout_s", type=float, default=60.0, show_default=True, help="Seconds to wait."),
        json_option,
    )
    for option in options:
        command = option(command)
    return command


@order.command("adopt")
@click.option("--since-slot", type=click.IntRange(0, 2**63 - 1), help="Of the chain.")
@click.option("--since", type=click.DateTime(), help="When the ledger read it, in UTC; instead of a slot.")
@order_options
@click.pass_obj
def adopt(
    context: Context,
    since_slot: int | None,
    since: datetime | None,
    reason: str,
    key_file: Path | None,
    timeout_s: float,
    as_json: bool,
) -> None:
    """Declare that the database was set back; book what was paid since a slot or time and is forgotten."""
    if (since_slot is None) == (since is None):
        raise Rejected("say --since-slot or --since", code="since-when")
    body = {"since_slot": since_slot} if since is None else {"since": since.replace(tzinfo=UTC).isoformat()}
    _place(context, "adopt", body, reason, key_file, timeout_s, as_json)


@order.command("withdrawal")
@click.argument("signature")
@click.option(
    "--from", "payer", type=click.Choice(("platform", "reward_pool")), required=True, help="Whose PIX it was."
)
@order_options
@click.pass_obj
def withdrawal(
    context: Context,
    signature: str,
    payer: str,
    reason: str,
    key_file: Path | None,
    timeout_s: float,
    as_json: bool,
) -> None:
    """Book that SIGNATURE took money from the treasury on purpose: PIX is taken from --from, lamports from the platform."""
    with context.connect(READER) as connection:
        row = connection.execute(
            "SELECT -delta_pix, -delta_lamports FROM ledger.chain_transactions WHERE signature = %s AND kind = 'unknown'",
            (signature,),
        ).fetchone()
    if row is None:
        hint = "`pixr payouts stops` names those that it has; it reads what is final"
        raise Rejected(f"the ledger has not read {signature!r} as an unknown transaction", code="not-found", hint=hint)
    body = {"signature": signature, "from": payer, "pix": row[0], "lamports": row[1]}
    _place(context, "withdrawal", body, reason, key_file, timeout_s, as_json)


@order.command("correction")
@click.option("--from", "taken", required=True, help="chain, reward_pool, platform or payable:creator:NUMBER.")
@click.option("--to", "given", required=True, help="Likewise.")
@click.option("--amount", type=click.IntRange(1, 2**63 - 1), required=True, help="In base units.")
@click.option("--asset", type=click.Choice(("PIX", "SOL")), default="PIX", show_default=True)
@order_options
@click.pass_obj
def correction(
    context: Context,
    taken: str,
    given: str,
    amount: int,
    asset: str,
    reason: str,
    key_file: Path | None,
    timeout_s: float,
    as_json: bool,
) -> None:
    """Move an amount from one account of the journal to another by a new entry. Moves nothing on chain."""
    body = {"from": taken, "to": given, "amount": amount, "asset": asset}
    _place(context, "correction", body, reason, key_file, timeout_s, as_json)


@order.command("new-secret")
@order_options
@click.pass_obj
def new_secret(context: Context, reason: str, key_file: Path | None, timeout_s: float, as_json: bool) -> None:
    """Use the secret that secrets/batches holds now, since the one before is lost; the rent of its markers is lost with it."""
    _place(context, "secret", {}, reason, key_file, timeout_s, as_json)


@order.command("approve")
@click.argument("number", type=click.IntRange(1, 2**63 - 1))
@click.option("--key-file", type=click.Path(path_type=Path), required=True, help="Of another administrator.")
@click.option("--timeout", "timeout_s", type=float, default=60.0, show_default=True, help="Seconds to wait.")
@json_option
@click.pass_obj
def approve(context: Context, number: int, key_file: Path, timeout_s: float, as_json: bool) -> None:
    """Approve another administrator's order, so that it is carried out."""
    from ledger.orders import orders

    with context.connect(LEDGER) as connection:
        orders.approve(connection, _key(context, key_file), number)
    _wait(context, number, timeout_s, as_json)


@order.command("list")
@json_option
@click.pass_obj
def list_command(context: Context, as_json: bool) -> None:
    """List orders, the newest first, with what became of them."""
    from rich.markup import escape

    from ledger.orders import orders

    with context.connect(READER) as connection:
        listed = orders.listing(connection)
    if as_json:
        context.emit([_document(each) for each in listed])
        return
    table = Table("order", "what", "reason", "by", "approved by", "state", "outcome", box=None, header_style="dim")
    for each in listed:
        what = " ".join((each.kind, *(f"{name}={value}" for name, value in each.body.items())))
        words = (what, each.reason, each.ordered_as, each.approved_as or "", each.state, each.outcome or "")
        table.add_row(str(each.id), *map(escape, words))
    context.console.print(table if listed else "no orders yet")


def _place(
    context: Context,
    kind: str,
    body: Mapping[str, Any],
    reason: str,
    key_file: Path | None,
    timeout_s: float,
    as_json: bool,
) -> None:
    """Place an order; then wait for the ledger, or say that another administrator has to approve it."""
    from ledger.orders import orders
    from ledger.settings import LedgerSettings

    settings = context.settings.section(LedgerSettings)
    with context.connect(LEDGER) as connection:
        number = orders.place(connection, _key(context, key_file), kind, body, reason, settings.order_expires_s)
        placed = orders.one(connection, number)
    if not settings.orders_by_two:
        _wait(context, number, timeout_s, as_json)
    elif as_json:
        context.emit(_document(placed))
    else:
        until = f"{placed.expires_at:%Y-%m-%d %H:%M %Z}"
        line = f"order {number} waits for another administrator until {until}: pixr payouts order approve {number}"
        context.console.print(line, soft_wrap=True)


def _wait(context: Context, number: int, timeout_s: float, as_json: bool) -> None:
    """Wait until the ledger has carried out or refused an order, and print it; exit with code 1 if it was refused."""
    from ledger.orders import orders

    deadline = time.monotonic() + timeout_s
    with context.connect(READER) as connection:
        while (answered := orders.one(connection, number)).done_at is None:
            connection.rollback()
            if time.monotonic() > deadline:
                raise Temporary(
                    f"the ledger has not answered order {number} after {timeout_s:.0f} s; it will, when it can"
                )
            time.sleep(POLL_S)
    if as_json:
        context.emit(_document(answered))
    else:
        context.console.print(f"order {number} is {answered.state}: {answered.outcome}", markup=False, soft_wrap=True)
    if not answered.carried_out:
        raise SystemExit(1)


def _key(context: Context, key_file: Path | None) -> str:
    """Read an administrator's key from a file; by default from the one that Pixr has made.

    Raises:
        Rejected: the file cannot be read.
    """
    file = key_file or runtime.secret_path(context.settings, ADMIN_KEY)
    try:
        return file.read_text(encoding="ascii").strip()
    except (OSError, ValueError) as error:
        hint = "--key-file names a file that holds an administrator's key (`pixr keys create NAME --scope admin`)"
        raise Rejected(f"{file} holds no key", code="key-missing", hint=hint) from error


def _document(found: Any) -> dict[str, Any]:
    """Return an order as JSON shows it: times in RFC 3339, ids as strings."""
    shown: dict[str, Any] = {name: getattr(found, name) for name in ("kind", "body", "reason", "outcome", "state")}
    shown |= {"id": str(found.id), "by": found.ordered_as, "approved_by": found.approved_as}
    shown["entry_id"] = None if found.entry_id is None else str(found.entry_id)
    for name in ("ordered_at", "expires_at", "approved_at", "done_at"):
        instant = getattr(found, name)
        shown[name] = instant.isoformat() if instant else None
    return shown
