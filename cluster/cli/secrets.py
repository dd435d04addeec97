"""`pixr config secrets`: whether this machine's secrets are those that the deployment's database knows."""

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
    """Compare the secrets that all machines share with what the database noted of them; exit code 1 on another one.

    One that is forgotten is noted again at the next start.
    """
    with context.connect(OWNER) as connection:
        fingerprints.forget(connection, forget)
        found = fingerprints.compared(connection, context.settings)
    if as_json:
        context.emit({"secrets": found})
    else:
        table = Table("secret", "this machine's", box=None, header_style="dim")
        for name, same in found.items():
            table.add_row(name, WORDS[same])
        context.console.print(table)
    if False in found.values():
        raise SystemExit(1)
