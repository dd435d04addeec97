"""`python -m benchmarks.economy`: some seeds, some strategies, the report; an economy takes half a minute of a core."""

from __future__ import annotations

import click

from benchmarks import economy
from benchmarks.economy import farms, report
from benchmarks.run import append, row
from cluster import settings


@click.command()
@click.option("--seeds", type=int, default=4, help="How many economies.")
@click.option("--first", type=int, default=0, help="The first one's seed.")
@click.option("--write", is_flag=True, help="Append the report to benchmarks/LOG.md.")
@click.option("--list", "listed", is_flag=True, help="Run nothing: name the strategies.")
def main(seeds: int, first: int, write: bool, listed: bool) -> None:
    """Run economies on the deployment's PostgreSQL and say what farms keep and honest creators lose."""
    if listed:
        for each in farms.STRATEGIES:
            click.echo(f"{each.name}: {each.means}")
        return
    for figure in report.figures(economy.results(settings.load(), range(first, first + seeds))):
        line = row(figure, f"python -m benchmarks.economy --first {first} --seeds {seeds}")
        click.echo(line)
        if write:
            append(line)


if __name__ == "__main__":
    main()
