"""`python -m tests.ledger.simulator --seeds 2000`: run seeds against a database of the run's own, and say what came."""

from __future__ import annotations

import tempfile
import time
from multiprocessing import get_context
from pathlib import Path

import click

from benchmarks import run as benchmarks
from benchmarks.run import Figure
from cluster import database, migrations, runtime, supervisor
from tests.conftest import throwaway_settings, wait_up
from tests.ledger.simulator.protocols import WRONG
from tests.ledger.simulator.runs import Tally, part_of

PROTOCOLS = [kind.__name__ for kind in WRONG]


def _parts(urls: list[str], seeds: range, protocol: str | None) -> Tally:
    with get_context("spawn").Pool(len(urls)) as pool:
        jobs = [(url, seeds[number :: len(urls)], protocol) for number, url in enumerate(urls)]
        found = Tally()
        for part in pool.starmap(part_of, jobs):
            for name in (
                "seeds",
                "payouts",
                "double",
                "phantom",
                "lost_units",
                "stuck",
                "frozen",
                "crashes",
                "expired",
            ):
                setattr(found, name, getattr(found, name) + getattr(part, name))
            found.failing += part.failing
        return found


@click.command()
@click.option("--seeds", default=2000, show_default=True)
@click.option("--first", default=0, show_default=True)
@click.option("--wrong", default=0, help="Seeds for each of the wrong protocols too.")
@click.option("--processes", default=2, show_default=True)
@click.option("--log", is_flag=True, help="Append the counts to benchmarks/LOG.md.")
def main(seeds: int, first: int, wrong: int, processes: int, log: bool) -> None:
    """Simulate payouts."""
    with tempfile.TemporaryDirectory(prefix="pixr-") as folder:
        settings = throwaway_settings(Path(folder))
        process = supervisor.start(settings, only=("postgres",))
        try:
            wait_up(settings, process)
            urls = [
                _database(runtime.postgres_url(settings, "postgres"), f"sim{number}") for number in range(processes)
            ]
            kinds: list[tuple[str | None, int]] = [(None, seeds), *((name, wrong) for name in PROTOCOLS if wrong)]
            for protocol, count in kinds:
                began = time.monotonic()
                found = _parts(urls, range(first, first + count), protocol)
                spent_s = time.monotonic() - began
                name = f"payouts simulated, {protocol or 'ours'}"
                line = benchmarks.row(
                    Figure(name, f"{found} ({spent_s:.0f} s)"), f"python -m tests.ledger.simulator --seeds {count}"
                )
                click.echo(f"{line}\nfailing seeds: {found.failing[:20]}")
                if log:
                    benchmarks.append(line)
        finally:
            process.terminate()
            process.wait(60)


def _database(url: str, name: str) -> str:
    with database.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    made = url.rsplit("/", 1)[0] + f"/{name}"
    migrations.migrate(made)
    return made


if __name__ == "__main__":
    main()
