"""`pixr bench`: run a benchmark and append its rows to `benchmarks/LOG.md`."""

from __future__ import annotations

import click

from cluster.cli.context import Context


@click.command()
@click.argument("name", required=False)
@click.option("--log/--no-log", "write", default=True, help="Append the figures to benchmarks/LOG.md.")
@click.pass_obj
def bench(context: Context, name: str | None, write: bool) -> None:
    """Run a benchmark (all of them without NAME) and append its rows to benchmarks/LOG.md."""
    from benchmarks import run

    run.run(context.settings, name, write=write, say=context.console.print)
