"""`python -m benchmarks.mutations`: run for some minutes, list what survived, report."""

from __future__ import annotations

import time

import click

from benchmarks import mutations
from benchmarks.mutations.draw import Plan
from benchmarks.mutations.runner import Runner
from benchmarks.run import append, row
from cluster import settings
from cluster.errors import Temporary


@click.command()
@click.option("--minutes", type=float, default=10**6, help="When to stop; the next run goes on from there.")
@click.option("--module", "modules", multiple=True, help="Only this one's mutants, such as payouts.settling.")
@click.option("--tests", multiple=True, help="Ask these files of tests alone; the next run asks the others.")
@click.option("--survivors", is_flag=True, help="Run nothing: list what no test has noticed.")
@click.option("--write", is_flag=True, help="Append the report to benchmarks/LOG.md.")
def main(minutes: float, modules: tuple[str, ...], tests: tuple[str, ...], survivors: bool, write: bool) -> None:
    """Change the ledger's modules in small ways and see whether a test notices."""
    runner = Runner(Plan.load(), settings.load().data_dir / "mutations", click.echo)
    if not survivors:
        try:
            runner.run(time.monotonic() + 60 * minutes, modules, tests)
        except Temporary as error:
            click.echo(str(error))
    for verdict, mutant in mutations.survivors(runner) if survivors else ():
        if not modules or mutant.module in modules:
            click.echo(f"{verdict} {mutant}")
    for figure in mutations.report(runner):
        line = row(figure, "make mutate")
        click.echo(line)
        if write:
            append(line)


if __name__ == "__main__":
    main()
