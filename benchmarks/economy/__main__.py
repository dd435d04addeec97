"""`python -m benchmarks.economy`: run the economies of some seeds, report, and exit with code 1 where a bar is missed."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import click

from benchmarks import economy, ground
from benchmarks.economy import report, strategies
from benchmarks.economy.compare import Result
from benchmarks.economy.kept import Kept, version
from benchmarks.run import Figure, append, row
from cluster import roles, runtime, settings
from cluster.settings import Settings

MEMORY = Path("/dev/shm")  # noqa: S108  where the kernel keeps shared memory


@click.command()
@click.option("--seeds", type=click.IntRange(1), default=8, help="How many economies; eight have each town.")
@click.option("--first", type=int, default=0, help="The first one's seed.")
@click.option(
    "--results", type=click.Path(path_type=Path), help="Of every seed, kept as it ends; else in the data folder."
)
@click.option("--processes", type=click.IntRange(1), help="Else one a core.")
@click.option("--alone", is_flag=True, help="Over a PostgreSQL of its own in place of the deployment's.")
@click.option("--write", is_flag=True, help="Append the report to benchmarks/LOG.md.")
@click.option("--controls", is_flag=True, help="What farms keep with each rule switched off in turn.")
@click.option("--kept", "is_kept", is_flag=True, help="Run nothing: report what is kept of these seeds.")
@click.option("--list", "listed", is_flag=True, help="Run nothing: name the strategies.")
def main(
    seeds: int, first: int, results: Path | None, processes: int | None, *,
    alone: bool, write: bool, controls: bool, is_kept: bool, listed: bool,
) -> None:  # fmt: skip
    """Run economies and report what farms keep and honest creators lose; results of the same code are not computed again.

    To run all without a running stack: --alone --seeds 200 --results FILE. It may be ended at any time and goes on
    where it was.
    """
    if listed:
        for each in strategies.STRATEGIES:
            click.echo(f"{each.name}: {each.means}")
        return
    path, command = results or settings.load().data_dir / "economy.jsonl", "python -m benchmarks.economy"
    of_seeds = range(first, first + seeds)
    if is_kept:
        known = Kept(path, version(economy.ECONOMICS)).known(of_seeds)
        _end([result for result, _ in known.values()], f"{command} --first {first} --seeds {seeds}", write=write)
        return
    ground.end_all_on_sigterm()
    with _server(settings.load(), alone=alone) as made:
        url = runtime.role_url(made, roles.OWNER)
        if controls:
            _say(economy.controls(url, first), f"{command} --controls --first {first}", write=write)
            return
        found: list[Result] = []
        for result, seconds in economy.results(url, of_seeds, path, processes=processes):
            found.append(result)
            click.echo(f"seed {result.seed}: a {result.town} in {seconds:.0f} s, {len(found)} of {seeds}", err=True)
    _end(found, f"{command} --first {first} --seeds {seeds}", write=write)


@contextmanager
def _server(deployment: Settings, *, alone: bool) -> Iterator[Settings]:
    """Yield the deployment's settings, or if `alone` those of a PostgreSQL in memory that runs as long as the block."""
    if not alone:
        yield deployment
        return
    with tempfile.TemporaryDirectory(prefix="pixr-", dir=MEMORY if MEMORY.is_dir() else None) as folder:
        environment = {**os.environ, "PIXR_CONFIG": str(deployment.path), "PIXR_DATA_DIR": folder}
        made = settings.load(environ=environment)
        with ground.services(made, ("postgres",)):
            yield made


def _end(found: Sequence[Result], command: str, *, write: bool) -> None:
    """Report all results so far; exit with code 1 if a bar is missed."""
    found = sorted(found, key=lambda result: result.seed)
    _say(report.figures(found), f"{command} ({len(found)} ended)", write=write)
    economy.require(found)


def _say(figures: Iterable[Figure], command: str, *, write: bool) -> None:
    for figure in figures:
        line = row(figure, command)
        click.echo(line)
        if write:
            append(line)


if __name__ == "__main__":
    main()
