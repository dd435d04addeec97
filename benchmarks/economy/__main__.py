"""`python -m benchmarks.economy`: some seeds, the report, and exit code 1 where a bar is missed."""

from __future__ import annotations

from collections.abc import Iterable

import click

from benchmarks import economy
from benchmarks.economy import report, strategies
from benchmarks.run import Figure, append, row
from cluster import settings


@click.command()
@click.option("--seeds", type=click.IntRange(1), default=8, help="How many economies; eight have each town.")
@click.option("--first", type=int, default=0, help="The first one's seed.")
@click.option("--write", is_flag=True, help="Append the report to benchmarks/LOG.md.")
@click.option("--controls", is_flag=True, help="What farms keep with each rule switched off in turn.")
@click.option("--list", "listed", is_flag=True, help="Run nothing: name the strategies.")
def main(seeds: int, first: int, write: bool, controls: bool, listed: bool) -> None:
    """Run economies on the deployment's PostgreSQL and say what farms keep and honest creators lose."""
    if listed:
        for each in strategies.STRATEGIES:
            click.echo(f"{each.name}: {each.means}")
        return
    if controls:
        _say(
            economy.controls(settings.load(), first), f"python -m benchmarks.economy --controls --first {first}", write
        )
        return
    found = []
    for result in economy.results(settings.load(), range(first, first + seeds)):
        found.append(result)
        click.echo(f"seed {result.seed}: a {result.town}", err=True)
    _say(report.figures(found), f"python -m benchmarks.economy --first {first} --seeds {seeds}", write)
    economy.require(found)


def _say(figures: Iterable[Figure], command: str, write: bool) -> None:
    for figure in figures:
        line = row(figure, command)
        click.echo(line)
        if write:
            append(line)


if __name__ == "__main__":
    main()
