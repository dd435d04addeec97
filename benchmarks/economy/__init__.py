"""The red team's economy: what farms keep, what honest creators lose beside them, and what griefing costs whom.

`pixr bench economy` (or `python -m benchmarks.economy`) makes economies from seeds, each an honest world of hundreds of
creators and viewers that is run twice: by itself, and with farms that adapt and griefers in it. The ledger's own fold,
bounds, review and holds decide, over databases of the benchmark's own and on a clock that it moves; a search engine and
Serve are not there: what they leave out by themselves (own creators' keys, cosines) is an assumption of `world`.

Two measures of a farm. `unrestrained` is what its networks and keys would have earned in a world without rules, at one
search a minute: the take that its means are worth. `worth` is what the appearances that it did send would have paid; a
farm that has adapted sends few, so this says how much of what it dares to do is seen through.
"""

from __future__ import annotations

import dataclasses
import os
import secrets
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any

from psycopg import Connection, sql

from benchmarks.economy import platform, report, world
from benchmarks.economy.world import Result
from benchmarks.run import Figure
from cluster import database, migrations, roles, runtime
from cluster.settings import Settings
from ledger.settings import Economics

ECONOMIES = 200
ECONOMICS = Economics(anonymous_weight_ppm=1_000_000, payout_min_pix=1)  # the worst case: who has no key earns in full


def run(settings: Settings) -> Iterator[Figure]:
    """All economies, on all cores."""
    yield from report.figures(results(settings, range(ECONOMIES)))


def results(settings: Settings, seeds: Sequence[int], economics: Economics = ECONOMICS) -> list[Result]:
    """One after the other on each core."""
    url = runtime.role_url(settings, roles.OWNER)
    workers = min(os.cpu_count() or 1, len(seeds))
    if workers < 2:
        return list(_some(url, seeds, economics))
    shares = [list(seeds[start::workers]) for start in range(workers)]
    with ProcessPoolExecutor(workers) as executor:
        found = executor.map(_all, [url] * workers, shares, [economics] * workers)
        return sorted((each for share in found for each in share), key=lambda each: each.seed)


def _all(url: str, seeds: Sequence[int], economics: Economics) -> list[Result]:
    return list(_some(url, seeds, economics))


def _some(url: str, seeds: Sequence[int], economics: Economics) -> Iterator[Result]:
    with _database(url) as connection:
        for seed in seeds:
            yield world.run(connection, seed, dataclasses.replace(economics))


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
