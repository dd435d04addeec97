"""`pixr payouts order`: what an administrator has the ledger do. Knows how to ask and how to print; the work is `orders`'s.

Each order is placed with an administrator's key, read from a file, so that it stands in no list of processes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.table import Table

from cluster import runtime
from cluster.cli import Context, json_option
from cluster.errors import Rejected, Temporary
from cluster.roles import LEDGER, READER
from ledger.settings import LedgerSettings

Function = TypeVar("Function", bound=Callable[..., Any])

POLL_S = 0.3
ADMIN_KEY = "api_admin_key"  # under secrets/, where Pixr has made the first one


@click.group()
def order() -> None:
    """What no rule does: adopt, book a withdrawal or a correction, take a new secret. In an administrator's name."""


def order_options(command: Function) -> Function:
    """What every order is placed with."""
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
@click.option(
    "--wallet", "wallets", multiple=True, help="WALLET=CREATOR: who was paid there, where the chain does not say it."
)
@order_options
@click.pass_obj
def adopt(
    context: Context,
    since_slot: int | None,
    since: datetime | None,
    wallets: Sequence[str],
    reason: str,
    key_file: Path | None,
    timeout_s: float,
    as_json: bool,
) -> None:
    """Declare that the database has gone back, and adopt what the ledger has paid and does not know since a slot or time."""
    if (since_slot is None) == (since is None):
        raise Rejected("say --since-slot or --since", code="since-when")
    body: dict[str, Any] = {"since_slot": since_slot}
    if since is not None:
        body = {"since": since.replace(tzinfo=UTC).isoformat()}
    if wallets:
        body["wallets"] = _by_wallet(wallets)
    _place(context, "adopt", body, reason, key_file, timeout_s, as_json)


def _by_wallet(said: Sequence[str]) -> dict[str, int]:
    """Creators by wallet, of WALLET=CREATOR."""
    pairs = [each.partition("=") for each in said]
    for wallet, _, creator in pairs:
        if not wallet or not (creator.isdecimal() and len(creator) < 19):
            raise Rejected(f"say --wallet WALLET=CREATOR, not {wallet!r} and {creator!r}", code="wallet-whose")
    return {wallet: int(creator) for wallet, _, creator in pairs}


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
    """Book the transaction SIGNATURE, which took money from the treasury on purpose; lamports are the platform's."""
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
@click.option("--again", is_flag=True, help="Also where an equal one was placed lately.")
@order_options
@click.pass_obj
def correction(
    context: Context,
    taken: str,
    given: str,
    amount: int,
    asset: str,
    again: bool,
    reason: str,
    key_file: Path | None,
    timeout_s: float,
    as_json: bool,
) -> None:
    """Move an amount of the journal from one account to another: an entry of its own, and nothing on chain."""
    body = {"from": taken, "to": given, "amount": amount, "asset": asset}
    once_in_s = 0 if again else context.settings.section(LedgerSettings).order_again_s
    _place(context, "correction", body, reason, key_file, timeout_s, as_json, once_in_s=once_in_s)


@order.command("new-secret")
@order_options
@click.pass_obj
def new_secret(context: Context, reason: str, key_file: Path | None, timeout_s: float, as_json: bool) -> None:
    """Go on with the secret that secrets/batches holds now: the one of before is lost, and so is the rent of its markers."""
    _place(context, "secret", {}, reason, key_file, timeout_s, as_json)


@order.command("approve")
@click.argument("number", type=click.IntRange(1, 2**63 - 1))
@click.option("--key-file", type=click.Path(path_type=Path), required=True, help="Of another administrator.")
@click.option("--timeout", "timeout_s", type=float, default=60.0, show_default=True, help="Seconds to wait.")
@json_option
@click.pass_obj
def approve(context: Context, number: int, key_file: Path, timeout_s: float, as_json: bool) -> None:
    """Approve another administrator's order, which is carried out then."""
    from ledger import orders

    with context.connect(LEDGER) as connection:
        orders.approve(connection, _key(context, key_file), number)
    _wait(context, number, timeout_s, as_json)


@order.command("list")
@json_option
@click.pass_obj
def list_command(context: Context, as_json: bool) -> None:
    """List orders, the newest first, with what became of them."""
    from rich.markup import escape

    from ledger import orders

    with context.connect(READER) as connection:
        found = orders.listing(connection)
    if as_json:
        context.emit([_document(each) for each in found])
        return
    table = Table("order", "what", "reason", "by", "approved by", "state", "outcome", box=None, header_style="dim")
    for each in found:
        what = " ".join((each.kind, *(f"{name}={value}" for name, value in each.body.items())))
        words = (what, each.reason, each.ordered_as, each.approved_as or "", each.state, each.outcome or "")
        table.add_row(str(each.id), *map(escape, words))
    context.console.print(table if found else "no orders yet")


def _place(
    context: Context,
    kind: str,
    body: Mapping[str, Any],
    reason: str,
    key_file: Path | None,
    timeout_s: float,
    as_json: bool,
    *,
    once_in_s: int = 0,
) -> None:
    from ledger import orders

    own = context.settings.section(LedgerSettings)
    with context.connect(LEDGER) as connection:
        key = _key(context, key_file)
        number = orders.place(connection, key, kind, body, reason, own.order_expires_s, once_in_s=once_in_s)
        placed = orders.one(connection, number)
    if not own.orders_by_two:
        _wait(context, number, timeout_s, as_json)
    elif as_json:
        context.emit(_document(placed))
    else:
        until = f"{placed.expires_at:%Y-%m-%d %H:%M %Z}"
        said = f"order {number} waits for another administrator until {until}: pixr payouts order approve {number}"
        context.console.print(said, soft_wrap=True)


def _wait(context: Context, number: int, timeout_s: float, as_json: bool) -> None:
    """Until the ledger has answered; exit code 1 where it refuses."""
    from ledger import orders

    deadline = time.monotonic() + timeout_s
    with context.connect(READER) as connection:
        while (found := orders.one(connection, number)).done_at is None:
            connection.rollback()
            if time.monotonic() > deadline:
                raise Temporary(
                    f"the ledger has not answered order {number} after {timeout_s:.0f} s; it will, when it can"
                )
            time.sleep(POLL_S)
    if as_json:
        context.emit(_document(found))
    else:
        context.console.print(f"order {number} is {found.state}: {found.outcome}", markup=False, soft_wrap=True)
    if not found.carried_out:
        raise SystemExit(1)


def _key(context: Context, key_file: Path | None) -> str:
    file = key_file or runtime.secret_path(context.settings, ADMIN_KEY)
    try:
        return file.read_text(encoding="ascii").strip()
    except (OSError, ValueError) as error:
        hint = "--key-file names a file that holds an administrator's key (`pixr keys create NAME --scope admin`)"
        raise Rejected(f"{file} holds no key", code="key-missing", hint=hint) from error


def _document(found: Any) -> dict[str, Any]:
    """Instants in RFC 3339, numbers as strings."""
    shown: dict[str, Any] = {name: getattr(found, name) for name in ("kind", "body", "reason", "outcome", "state")}
    shown |= {"id": str(found.id), "by": found.ordered_as, "approved_by": found.approved_as}
    shown["entry_id"] = None if found.entry_id is None else str(found.entry_id)
    for name in ("ordered_at", "expires_at", "approved_at", "done_at"):
        instant = getattr(found, name)
        shown[name] = instant.isoformat() if instant else None
    return shown
