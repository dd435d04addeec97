"""`python -m tests.ledger.simulator`: 2,000 seeds, and 500 with three times the faults, against databases of the run's own.

It may be ended at any time: what has been run is noted under `.pixr/simulations`, by the version of the code, and is not run
again. `--first SEED --seeds 1 --fierce-seeds 0 --again` replays a seed and shows what it came to.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import click

from benchmarks import run as benchmarks
from benchmarks.ground import end_all_on_sigterm
from benchmarks.run import Figure
from cluster import database, migrations, runtime, supervisor
from cluster.settings import ROOT
from tests.conftest import throwaway_settings, wait_for_no_disk, wait_up
from tests.ledger.simulator.ground import Ground
from tests.ledger.simulator.protocols import OURS, WRONG
from tests.ledger.simulator.runs import PROTOCOLS, Job, Tally, side_by_side, version

FIERCE = 3.0
NAMES = [each.name for each in WRONG]
SAID_EVERY_S = 30.0
WHOLE_SEEDS = 2000  # of which the machine is expected to be covered


@click.command()
@click.option("--seeds", default=2000, show_default=True, help="With ordinary faults.")
@click.option("--fierce-seeds", default=500, show_default=True, help="With three times as many.")
@click.option("--first", default=0, show_default=True, help="The first seed of both.")
@click.option("--wrong", default=0, help="Seeds for each of the wrong protocols too, and for ours in its weather.")
@click.option("--processes", default=2, show_default=True)
@click.option("--again", is_flag=True, help="Run also what has been run, and note nothing.")
@click.option("--log", is_flag=True, help="Append the counts to benchmarks/LOG.md.")
def main(seeds: int, fierce_seeds: int, first: int, wrong: int, processes: int, again: bool, log: bool) -> None:
    """Simulate payouts in bad weather. Exits with 1 where a seed fails, or a wrong protocol does not."""
    end_all_on_sigterm()
    notes = None if again else ROOT / ".pixr" / "simulations" / f"{version()}.jsonl"
    kinds = [(OURS.name, 1.0, "", seeds), (OURS.name, FIERCE, "", fierce_seeds)]
    kinds += [(name, 1.0, weather, wrong) for each in NAMES for name, weather in ((each, ""), (OURS.name, each))]
    is_well = True
    with tempfile.TemporaryDirectory(prefix="pixr-") as folder:
        settings = throwaway_settings(Path(folder))
        process = supervisor.start(settings, only=("postgres",))
        try:
            wait_up(settings, process)
            postgres = runtime.postgres_url(settings, "postgres")
            wait_for_no_disk(postgres)
            for place, (name, fierce, weather, count) in enumerate(kinds):
                if count:
                    urls = [_database(postgres, f"sim{place}_{number}") for number in range(processes)]
                    jobs = [Job(seed, fierce, name, weather) for seed in range(first, first + count)]
                    is_well &= _report(urls, jobs, notes, log=log)
        finally:
            process.terminate()
            process.wait(60)
    sys.exit(0 if is_well else 1)


def _report(urls: Sequence[str], jobs: Sequence[Job], notes: Path | None, *, log: bool) -> bool:
    """Run these, and say what they came to; whether that is as it should be."""
    began = said = time.monotonic()
    with Ground(urls[0]) as ground:
        found = Tally(ground.machine)
    for job, outcome in side_by_side(urls, jobs, notes):
        found.add(outcome)
        if not outcome.ok and job.protocol == OURS.name:
            click.echo(f"seed {job.seed}{' fierce' if job.fierce > 1 else ''}: {'; '.join(outcome.problems)}")
            click.echo("".join(outcome.traces), nl=False)
        if time.monotonic() - said > SAID_EVERY_S:
            said = time.monotonic()
            click.echo(f"{found.seeds} of {len(jobs)}, {len(found.failing)} fail")
    job = jobs[0]
    weather = f" in the weather of {job.weather}" if job.weather else ""
    name = f"payouts simulated, {job.protocol}{weather}{f', faults x {job.fierce:g}' if job.fierce != 1 else ''}"
    spent_s = time.monotonic() - began
    command = f"python -m tests.ledger.simulator ({job.seed} to {jobs[-1].seed})"
    line = benchmarks.row(Figure(name, f"{found} ({spent_s:.0f} s); {found.coverage()}"), command)
    click.echo(f"{line}\nfailing seeds: {sorted(found.failing)[:20]}")
    if log:
        benchmarks.append(line)
    if job.protocol != OURS.name:
        return bool(found.kinds.keys() & set(PROTOCOLS[job.protocol].kinds))
    is_whole = not job.weather and job.fierce == 1 and len(jobs) >= WHOLE_SEEDS
    if is_whole and not found.is_covered():
        click.echo("the machine was not covered")
        return False
    return not found.failing


def _database(url: str, name: str) -> str:
    with database.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    made = url.rsplit("/", 1)[0] + f"/{name}"
    migrations.migrate(made)
    return made


if __name__ == "__main__":
    main()
