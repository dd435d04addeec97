"""The red team's economy: what farms keep, what honest creators lose beside them, and what griefing costs whom.

`pixr bench economy` (or `python -m benchmarks.economy`) makes economies from seeds. Each is four worlds of one honest people:
without rules and with them, by itself and beside farms that adapt and griefers (see `compare`). The ledger's own fold, bounds,
review and holds decide, over databases of the benchmark's own and on a clock that it moves; a search engine and Serve are not
there: what they leave out by themselves (own creators' keys, cosines) is an assumption of `world`.

Modules, from the ground up: `towns`, `catalogue`, `viewers` and `people` (the honest), `platform` (the ledger), `rules` (and
what switches each off), `strategies`, `learning` and `farms`, `griefers`, `world` (one of the four), `compare`, `report`.
"""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any

from psycopg import Connection, sql

from benchmarks.economy import compare, platform, report, rules, strategies
from benchmarks.economy.compare import Paces, Result
from benchmarks.economy.learning import Pace
from benchmarks.run import Figure
from cluster import roles, runtime
from cluster.database import database, migrations
from cluster.settings import Settings
from ledger.settings import PIX, Economics

ECONOMIES = 200
ECONOMICS = Economics(anonymous_weight_ppm=1_000_000, payout_min_pix=1)  # the worst case: who has no key earns in full
SHORT = Paces(Pace(cells=3, days=14, learned=9), Pace(cells=3, days=4, learned=2, period=1))  # for controls


def run(settings: Settings) -> Iterator[Figure]:
    """All economies, on all cores.

    Raises:
        SystemExit: 1, a bar is missed; all figures have been given by then.
    """
    found = list(results(settings, range(ECONOMIES)))
    yield from report.figures(found)
    require(found)


def require(found: Sequence[Result]) -> None:
    """End the program with code 1, and say by how much, where a bar is missed.

    Raises:
        SystemExit: see above.
    """
    if missed := report.missed(found):
        listed = "".join(f"\n  {bar.name}: {bar.value:.2%}, {bar.most:.0%} at most" for bar in missed)
        sys.exit(f"bars of the economy that are missed: {len(missed)}{listed}")  # a text means code 1


def results(settings: Settings, seeds: Sequence[int], economics: Economics = ECONOMICS) -> Iterator[Result]:
    """Economy after economy, in the order of seeds, as many at once as there are cores."""
    url = runtime.role_url(settings, roles.OWNER)
    workers = min(os.cpu_count() or 1, len(seeds))
    with ProcessPoolExecutor(workers) as executor:
        yield from executor.map(_one, [url] * len(seeds), seeds, [economics] * len(seeds))


def controls(settings: Settings, seed: int, economics: Economics = ECONOMICS) -> Iterator[Figure]:
    """What the best farm keeps with all rules, and with each of them switched off."""
    bots = [each for each in strategies.STRATEGIES if not (each.pads or each.stuffs)]
    with _database(runtime.role_url(settings, roles.OWNER)) as connection:
        found = compare.farms_only(connection, seed, economics, bots, SHORT, *((name,) for name in rules.OFF))
    for name, farms in zip(("", *rules.OFF), found, strict=True):
        best = max(farms, key=lambda each: each.share)
        value = f"{best.share:.2%} of {best.uncapped / PIX:.2f} PIX a day ({best.strategy}; {best.best})"
        yield Figure(f"kept at most without {name}" if name else "kept at most with all rules", value)


def _one(url: str, seed: int, economics: Economics) -> Result:
    with _database(url) as connection:
        return compare.run(connection, seed, economics)


@contextmanager
def _database(url: str) -> Iterator[Connection[Any]]:
    """A ledger of the benchmark's own, on the deployment's PostgreSQL."""
    name = f"bench_{secrets.token_hex(4)}"
    with database.connect(url, autocommit=True) as server:
        server.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        try:
            own = url.rsplit("/", 1)[0] + f"/{name}"
            migrations.migrate(own)
            with database.connect(own) as connection:
                platform.prepare(connection)
                yield connection
        finally:
            server.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
