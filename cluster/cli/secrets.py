"""`pixr config secrets`: compare this machine's secrets with the fingerprints in the deployment's database."""

from __future__ import annotations

import click
from rich.table import Table

from cluster.cli.context import Context, json_option
from cluster.database import fingerprints
from cluster.roles import OWNER

WORDS = {True: "as noted", False: "[red]another[/]", None: "[dim]not noted[/]"}


@click.command()
@click.option("--forget", multiple=True, type=click.Choice(fingerprints.SHARED), help="It was replaced on purpose.")
@json_option
@click.pass_obj
def secrets(context: Context, forget: tuple[str, ...], as_json: bool) -> None:
    """Compare this machine's secrets with the fingerprints in the database; exit code 1 when one differs.

    With --forget NAME, the fingerprint of this secret is deleted first. The next start then notes the machine's own.
    """
    with context.connect(OWNER) as connection:
        fingerprints.forget(connection, forget)
        compared = fingerprints.compared(connection, context.settings)
    if as_json:
        context.emit({"secrets": compared})
    else:
        table = Table("secret", "this machine's", box=None, header_style="dim")
        for name, is_same in compared.items():
            table.add_row(name, WORDS[is_same])
        context.console.print(table)
    if False in compared.values():
        raise SystemExit(1)
