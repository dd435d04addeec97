"""What a creator has earned so far, for a page that asks every second: from the counter, else from the journal."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from psycopg import Connection

from cluster import cache, runtime
from cluster.database import database
from cluster.settings import Settings
from ledger.creators import counters, statements
from ledger.journal import book
from serve.settings import SearchSettings
from tests.serve.doors import fill, opened


def earn(connection: Connection[Any], creator_id: int, amount: int) -> None:
    book.take_epoch(connection, "test")
    payable = book.accounts_of(connection, "payable", "creator", [creator_id])[creator_id]
    pool, chain = book.account(connection, "reward_pool"), book.account(connection, "chain")
    book.post(connection, book.Entry("deposit", "deposit", [(chain, -amount), (pool, amount)]))
    book.post(connection, book.Entry("accrual", "earned", [(pool, -amount), (payable, amount)]))
    book.commit(connection)


@pytest.mark.parametrize("counter", [None, 777])
async def test_the_counter_is_shown_where_there_is_one(settings: Settings, counter: int | None) -> None:
    shelf = fill(settings)
    redis = cache.client(settings.redis.url)
    name = runtime.redis_prefix(settings) + counters.EARNED
    redis.delete(name)
    async with opened(settings) as doors:
        with database.connect(settings.postgres.url) as connection:
            earn(connection, shelf.ada, 900)
        if counter is not None:
            redis.hset(name, str(shelf.ada), str(counter))
        path, hers = f"/v1/creators/{shelf.ada}/earnings/live", doors.key("creator", creator_id=shelf.ada)
        found = (await doors.http.get(path, headers=hers)).json()
        assert found == {
            "creator_id": str(shelf.ada),
            "creator_public_id": found["creator_public_id"],
            "earned": str(counter or 900),
            "currency": "PIX",
            "decimals": 6,
            "source": "counter" if counter else "journal",
        }
        by_public_id = path.replace(f"/{shelf.ada}/", f"/{found['creator_public_id']}/")
        assert (await doors.http.get(by_public_id, headers=hers)).json() == found
        his = doors.key("creator", creator_id=shelf.bob)
        assert (await doors.http.get(path, headers=his)).status_code == 403
        assert (await doors.http.get(path)).status_code == 401
    redis.delete(name)
    redis.close()


async def test_a_statement_is_whole_however_many_movements_there_are(settings: Settings) -> None:
    shelf, movements = fill(settings), statements.ROWS_MAX + 500
    with database.connect(settings.postgres.url) as connection:
        earn(connection, shelf.ada, 900)
        pool = book.account(connection, "reward_pool")
        mine = book.accounts_of(connection, "payable", "creator", [shelf.ada])[shelf.ada]
        lines = [line for _ in range(movements // 2) for line in ((mine, -1), (mine, 1))]
        for number in range(2):
            book.post(connection, book.Entry("correction", f"many {number}", [(pool, 1), (mine, -1), *lines]))
        book.commit(connection)
    async with opened(settings) as doors:
        hers = doors.key("creator", creator_id=shelf.ada)
        answer = await doors.http.get(f"/v1/creators/{shelf.ada}/statement.csv", headers=hers)
        header, *rows = answer.text.splitlines()
        assert header.startswith("at,entry_id,")
        assert len(rows) == 1 + 2 * (movements + 1)
        assert sum(int(row.split(",")[4]) for row in rows) == 900 - 2
        entries = [int(row.split(",")[1]) for row in rows]
        assert entries == sorted(entries, reverse=True)
        path, streams = f"/v1/creators/{shelf.ada}/statement.csv", doors.services.gates.streams
        assert (await doors.http.head(path, headers=hers)).status_code == 200
        assert streams.held == 0
        places = settings.section(SearchSettings).streams_max
        with contextlib.ExitStack() as held:
            for number in range(places):
                held.enter_context(streams.passed(f"caller {number}", 2.0))
            assert (await doors.http.get(path, headers=hers)).status_code == 503
        assert (await doors.http.get(path, headers=hers)).status_code == 200
        other = await doors.http.get("/v1/creators/404/statement.csv", headers=doors.key("admin"))
        assert other.status_code == 404
