"""`pixr payouts wallet`: options and printing. The work is done by `wallets` and `challenges` of `ledger.creators`."""

from __future__ import annotations

import getpass
from dataclasses import asdict
from typing import Any

import click

from cluster.cli.context import Context, json_option
from cluster.roles import READER, SERVE

CREATOR = click.IntRange(1, 2**63 - 1)


@click.group()
def wallet() -> None:
    """Where a creator is paid: show it, have it proven, set it."""


@wallet.command("show")
@click.argument("creator_id", type=CREATOR)
@json_option
@click.pass_obj
def show(context: Context, creator_id: int, as_json: bool) -> None:
    """Show a creator's wallet, whether it is proven, and until when payouts to it wait."""
    from ledger.creators import wallets

    with context.connect(READER) as connection:
        known = wallets.of(connection, creator_id)
    _print(context, known, as_json)


@wallet.command("challenge")
@click.argument("creator_id", type=CREATOR)
@click.argument("address")
@json_option
@click.pass_obj
def challenge(context: Context, creator_id: int, address: str, as_json: bool) -> None:
    """Print the message that the key of ADDRESS has to sign (without the last line break) for `wallet set`."""
    from ledger.creators import challenges
    from ledger.settings import Economics

    economics = context.settings.section(Economics)
    with context.connect(SERVE) as connection:
        made = challenges.issue(connection, economics, creator_id, address, _asked_by())
    if as_json:
        context.emit(asdict(made) | {"creator_id": str(creator_id)})
        return
    click.echo(made.message)
    click.echo(f"sign the text above before {made.expires_at}, then:", err=True)
    click.echo(f"pixr payouts wallet set {creator_id} {address} --nonce {made.nonce} --signature BASE58", err=True)


@wallet.command("set")
@click.argument("creator_id", type=CREATOR)
@click.argument("address")
@click.option("--nonce", default="", help="Of the challenge that was signed.")
@click.option("--signature", default="", help="Of the challenge's message by the key of ADDRESS, in base58.")
@click.option("--unknown", is_flag=True, help="Also for a creator who has neither earned nor a wallet yet.")
@json_option
@click.pass_obj
def put(
    context: Context, creator_id: int, address: str, nonce: str, signature: str, unknown: bool, as_json: bool
) -> None:
    """Set ADDRESS as the wallet that a creator is paid at. Without a proof, and after a change, payouts wait for a while."""
    from cluster.errors import Rejected
    from ledger.creators import challenges, wallets
    from ledger.risk import stops
    from ledger.settings import Economics

    if bool(nonce) != bool(signature):
        raise Rejected("--nonce and --signature go together", code="proof-incomplete")
    with context.connect(SERVE) as connection:
        if not unknown:
            stops.require_known(connection, creator_id)
        answer = challenges.Answer(nonce, signature)
        proof = challenges.prove(connection, creator_id, address, _asked_by(), answer) if nonce else None
        economics = context.settings.section(Economics)
        changed = wallets.change(connection, economics, creator_id, address, "admin", proof)
    _print(context, changed, as_json)


def _asked_by() -> str:
    return f"user {getpass.getuser()}"


def _print(context: Context, known: Any, as_json: bool) -> None:
    """Print a wallet, or that there is none (`known` is None)."""
    if as_json:
        context.emit(None if known is None else asdict(known) | {"creator_id": str(known.creator_id)})
    elif known is None:
        context.console.print("no wallet is known")
    else:
        held = f", payouts wait until {known.hold_until}" if known.hold_until else ""
        proven = "proven" if known.proven else "not proven"
        context.console.print(f"{known.wallet}, set by {known.set_by} {known.set_at}, {proven}{held}", soft_wrap=True)
