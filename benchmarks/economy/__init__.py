"""A simulated economy: what farms of faked views keep, what honest creators lose, and what griefing costs its victims.

`pixr bench economy` (or `python -m benchmarks.economy`) makes economies from seeds. Each consists of four worlds of the
same honest people: two without rules and two with rules. In one world of each pair there are farms, which adapt; in the
one with rules and farms there are griefers too (see `compare`). The ledger's own fold, bounds, review and holds decide,
over databases of the benchmark's own and on a clock that it moves. There is no search engine and no Serve. Where they
would keep a view from counting, the simulation assumes it: farms use no keys of their own creators, and moments that do
not show what was asked have low cosines.

Modules, from the ground up: `towns`, `catalogue`, `viewers` and `people` (the honest), `platform` (the ledger), `rules`
(and what switches each off), `strategies`, `learning` and `farms`, `griefers`, `world` (one of the four), `compare`,
`kept` (results on disk), `report`. `reckoning` stands apart: it computes what vouching alone does to honest days, for
choosing settings.
"""

from __future__ import annotations

import os
import secrets
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from psycopg import Connection, sql
from psycopg.errors import ObjectInUse

from benchmarks.economy import compare, platform, report, rules, strategies, towns
from benchmarks.economy.compare import Paces, Result
from benchmarks.economy.kept import Kept, version
from benchmarks.economy.learning import Pace
from benchmarks.run import Figure
from cluster import roles, runtime
from cluster.database import database, migrations
from cluster.settings import Settings
from ledger.settings import PIX, Economics

ECONOMIES = 200
NAMED = "bench_economy_"  # databases, each with a number behind it
ECONOMICS = Economics(anonymous_weight_ppm=1_000_000, payout_min_pix=1)  # the worst case: who has no key earns in full
SHORT = Paces(Pace(cells=3, days=14, learned=9), Pace(cells=3, days=4, learned=2, period=1))  # for controls


def run(settings: Settings) -> Iterator[Figure]:
    """Run all economies on all cores and report them; results that the same code has found before are read from disk.

    Raises:
        SystemExit: with code 1 after the last figure, if a bar is missed.
    """
    url, path = runtime.role_url(settings, roles.OWNER), settings.data_dir / "economy.jsonl"
    found = [result for result, _ in results(url, range(ECONOMIES), path)]
    yield from report.figures(found)
    require(found)


def require(found: Sequence[Result]) -> None:
    """End the program with code 1 if a bar is missed, and print by how much.

    Raises:
        SystemExit: a bar is missed.
    """
    if missed := report.missed(found):
        listed = "".join(f"\n  {bar.name}: {bar.value:.2%}, {bar.most:.0%} at most" for bar in missed)
        sys.exit(f"bars of the economy that are missed: {len(missed)}{listed}")  # a text means code 1


def results(
    url: str, seeds: Sequence[int], path: Path, economics: Economics = ECONOMICS, processes: int | None = None
) -> Iterator[tuple[Result, float]]:
    """Run the economies of these seeds, as many at a time as there are cores; yield each result and the seconds it took.

    `url` names a PostgreSQL and a user who may create databases. Results that are in `path` are not computed again;
    each new one is added to it at once.
    """
    kept = Kept(path, version(economics))
    known = kept.known(seeds)
    yield from (known[seed] for seed in seeds if seed in known)
    left = [(url, seed, economics) for seed in seeds if seed not in known]
    if not left:
        return
    _drop_left(url)
    with get_context("spawn").Pool(min(processes or os.cpu_count() or 1, len(left))) as pool:
        for result, seconds in pool.imap_unordered(_one, left):
            kept.add(result, seconds)
            yield result, seconds


def controls(url: str, seed: int, economics: Economics = ECONOMICS) -> Iterator[Figure]:
    """Report how much farms keep at most, with all rules and with each rule switched off.

    There are two series: the farms of bots that do not pad, of which the best counts, and a farm that pads.
    """
    bots = [each for each in strategies.STRATEGIES if not (each.pads or each.stuffs)]
    without = [(name,) for name in rules.RULES]
    for kind, chosen in (("", bots), (" by who pads", [strategies.STRATEGIES[0]])):
        with _database(url) as connection:
            found = compare.farms_only(connection, seed, economics, chosen, SHORT, *without, town=towns.POPULAR)
        for name, farms in zip(("", *rules.RULES), found, strict=True):
            best = max(farms, key=lambda each: each.share)
            value = f"{best.share:.2%} of {best.uncapped / PIX:.2f} PIX a day ({best.strategy}; {best.best})"
            yield Figure(f"kept at most{kind} without {name}" if name else f"kept at most{kind} with all rules", value)


def _one(job: tuple[str, int, Economics]) -> tuple[Result, float]:
    url, seed, economics = job
    began = time.monotonic()
    with _database(url) as connection:
        return compare.run(connection, seed, economics), time.monotonic() - began


@contextmanager
def _database(url: str) -> Iterator[Connection[Any]]:
    """Yield a connection to a new ledger database, dropped afterwards.

    Meanwhile an advisory lock on the number in the database's name is held. It tells a database in use from one that a
    killed run has left.
    """
    number = secrets.randbits(62)
    name = f"{NAMED}{number}"
    with database.connect(url, autocommit=True) as server:
        server.execute("SELECT pg_advisory_lock(%s)", (number,))
        server.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        try:
            own = url.rsplit("/", 1)[0] + f"/{name}"
            migrations.migrate(own)
            with database.connect(own) as connection:
                platform.prepare(connection)
                yield connection
        finally:
            server.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def _drop_left(url: str) -> None:
    """Drop databases of runs that were killed: those whose lock is free and that have no session."""
    with database.connect(url, autocommit=True) as server:
        rows = server.execute("SELECT datname FROM pg_database WHERE starts_with(datname, %s)", (NAMED,)).fetchall()
        for (name,) in rows:
            row = server.execute("SELECT pg_try_advisory_lock(%s)", (int(name.removeprefix(NAMED)),)).fetchone()
            if row is not None and row[0]:
                with suppress(ObjectInUse):  # locks are of the database from which they are taken
                    server.execute(sql.SQL("DROP DATABASE {}").format(sql.Identifier(name)))
