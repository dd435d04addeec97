"""The red team's economy on a few seeds: what every farm keeps, and that nobody honest loses by any of them.

`pixr bench economy` runs 200 seeds; here each strategy and each griefer has its turn once, in a smaller world.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from psycopg import Connection

from benchmarks import economy
from benchmarks.economy import farms, griefers, platform, report, world
from cluster import database
from ledger.settings import PPM

DAYS = 12
SHARES = 4  # parts of all strategies, one in each test
KEPT_MAX, LOST_MAX = 0.02, 0.01


@pytest.fixture
def connection(postgres_url: str) -> Iterator[Connection[Any]]:
    with database.connect(postgres_url) as connection:
        platform.prepare(connection)
        yield connection


@pytest.mark.parametrize("share", range(SHARES))
def test_farms_keep_little_and_honest_creators_lose_nothing(connection: Connection[Any], share: int) -> None:
    attacks = griefers.ATTACKS if share == 0 else ()
    result = world.run(connection, share, economy.ECONOMICS, farms.STRATEGIES[share::SHARES], attacks, DAYS)
    for farm in result.farms:
        most = KEPT_MAX * farm.unrestrained or farm.worth // 10  # the latter of words: what the model sees of them
        assert 0 <= farm.kept <= most, farm
    assert result.honest_before > 50 * 10**6
    assert result.honest_lost <= LOST_MAX * result.honest_before, result
    assert result.small_lost <= LOST_MAX * result.small_before, result
    for grief in result.griefs:
        assert grief.lost <= LOST_MAX * grief.before, grief
    assert result.taken_before_ppm <= PPM // 100  # what the rules cost where nobody cheats
    assert next(figure.name for figure in report.figures([result])) == "kept by all farms"
