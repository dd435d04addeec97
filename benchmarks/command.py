"""`pixr bench`: run a benchmark and append its rows to `benchmarks/LOG.md`; `pixr bench report`: draw them."""

from __future__ import annotations

import click

from cluster.cli.context import Context


@click.command()
@click.argument("name", required=False)
@click.option("--log/--no-log", "write", default=True, help="Append the figures to benchmarks/LOG.md.")
@click.pass_obj
def bench(context: Context, name: str | None, write: bool) -> None:
    """Run a benchmark (all of them without NAME) and append its rows to benchmarks/LOG.md.

    `report` for NAME runs none: it draws the table and the plots of benchmarks/README.md from these rows.
    """
    if name == "report":
        from benchmarks.report import page

        changed = page.write()
        context.console.print(
            "\n".join(f"wrote {file}" for file in changed) or "benchmarks/README.md is as LOG.md says"
        )
        return
    from benchmarks import run

    run.run(context.settings, name, write=write, say=context.console.print)
