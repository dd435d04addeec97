"""Live counters follow the journal, count each fold once, and can be dropped at any time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import redis
from psycopg import Connection

from cluster import cache
from ledger import counters
from ledger.counters import Counters
from ledger.fold import Fold
from ledger.settings import LedgerSettings
from tests.ledger.test_fold import DEMO, earned, fund, record, search, shown

Conn = Connection[Any]


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    made = cache.client(redis_url)
    made.delete(counters.PLACE, counters.EARNED)
    yield made
    made.delete(counters.PLACE, counters.EARNED)
    made.close()


def live(client: redis.Redis) -> dict[int, int]:
    return {int(owner): int(amount) for owner, amount in client.hgetall(counters.EARNED).items()}


def fold(journal: Conn, *appearances: Any) -> None:
    accountant = Fold(journal, DEMO, LedgerSettings())
    record(journal, search(*appearances))
    assert accountant.run_once() is not None


def test_each_fold_is_counted_once_by_however_many_look(journal: Conn, client: redis.Redis) -> None:
    fund(journal, 10**6)
    one, two = Counters(client, "here"), Counters(client, "here")
    fold(journal, shown(1), shown(2, creator=2))
    assert one.follow(journal) == 2
    assert two.follow(journal) == one.follow(journal) == 0
    fold(journal, shown(3))
    assert two.follow(journal) == 1
    assert live(client) == earned(journal) == {each: counters.earned(journal, each) for each in (1, 2)}
    assert counters.earned(journal, 99) == 0


def test_two_that_look_at_the_same_moment_take_one_step(journal: Conn, client: redis.Redis) -> None:
    fund(journal, 10**6)
    fold(journal, shown(1))
    one = Counters(client, "here")
    one.follow(journal)
    fold(journal, shown(2))
    place, newest = one._place(), one._newest(journal)
    step = one._earned(journal, newest - 1, newest)
    assert [one._take(place, newest, step), one._take(place, newest, step)] == [True, False]
    assert live(client) == earned(journal)


@pytest.mark.parametrize("loss", ["flushed", "counts gone", "torn", "another ledger's"])
def test_what_was_dropped_is_counted_anew_from_the_journal(
    journal: Conn, client: redis.Redis, loss: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counters, "PIECE", 2)
    fund(journal, 10**6)
    fold(journal, *(shown(number, creator=number) for number in range(1, 6)))
    mine = Counters(client, "here")
    assert mine.follow(journal) == 5
    match loss:
        case "flushed":
            client.flushdb()
        case "counts gone":
            client.delete(counters.PLACE)
        case "torn":
            client.set(counters.PLACE, f"{client.get(counters.PLACE).decode()}:1")
            client.hincrby(counters.EARNED, "1", 77)
        case _:
            Counters(client, "elsewhere").follow(journal)
            client.hincrby(counters.EARNED, "1", 77)
    assert mine.follow(journal) == 5
    assert live(client) == earned(journal)


def test_a_ledger_that_went_back_in_time_is_counted_anew(journal: Conn, client: redis.Redis) -> None:
    fund(journal, 10**6)
    fold(journal, shown(1))
    mine = Counters(client, "here")
    mine.follow(journal)
    client.set(counters.PLACE, "here:99")  # as after a restored backup
    mine.follow(journal)
    assert live(client) == earned(journal)


def test_amounts_beyond_doubles_are_exact(client: redis.Redis) -> None:
    mine = Counters(client, "here")
    assert mine._take("", 1, [(1, 2**53 + 1)])
    assert mine._take("here:1", 2, [(1, 2)])
    assert live(client) == {1: 2**53 + 3}
