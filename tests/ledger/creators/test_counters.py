"""Live counters follow the journal, count each fold once, and can be dropped at any time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import redis
from psycopg import Connection

from cluster import cache
from ledger.accrual.fold import Fold
from ledger.creators import counters
from ledger.creators.counters import Counters
from ledger.settings import LedgerSettings
from tests.ledger.accrual.test_fold import DEMO, earned, fund, record, search, shown

Conn = Connection[Any]
MARK = "pixr:test:"
PLACE, EARNED = MARK + counters.PLACE, MARK + counters.EARNED


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    made = cache.client(redis_url)
    made.delete(PLACE, EARNED)
    yield made
    made.delete(PLACE, EARNED)
    made.close()


def live(client: redis.Redis) -> dict[int, int]:
    return {int(owner): int(amount) for owner, amount in client.hgetall(EARNED).items()}


def fold(journal: Conn, *appearances: Any) -> None:
    accountant = Fold(journal, DEMO, LedgerSettings())
    record(journal, search(*appearances))
    assert accountant.run_once() is not None


def test_each_fold_is_counted_once_by_however_many_look(journal: Conn, client: redis.Redis) -> None:
    fund(journal, 10**6)
    one, two = Counters(client, "here", MARK), Counters(client, "here", MARK)
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
    one = Counters(client, "here", MARK)
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
    mine = Counters(client, "here", MARK)
    assert mine.follow(journal) == 5
    match loss:
        case "flushed":
            client.flushdb()
        case "counts gone":
            client.delete(PLACE)
        case "torn":
            client.set(PLACE, f"{client.get(PLACE).decode()}:1")
            client.hincrby(EARNED, "1", 77)
        case _:
            Counters(client, "elsewhere", MARK).follow(journal)
            client.hincrby(EARNED, "1", 77)
    assert mine.follow(journal) == 5
    assert live(client) == earned(journal)


def test_a_ledger_that_went_back_in_time_is_counted_anew(journal: Conn, client: redis.Redis) -> None:
    fund(journal, 10**6)
    fold(journal, shown(1))
    mine = Counters(client, "here", MARK)
    mine.follow(journal)
    client.set(PLACE, "here:99")  # as after a restored backup
    mine.follow(journal)
    assert live(client) == earned(journal)


def test_amounts_beyond_doubles_are_exact(client: redis.Redis) -> None:
    mine = Counters(client, "here", MARK)
    assert mine._take("", 1, [(1, 2**53 + 1)])
    assert mine._take("here:1", 2, [(1, 2)])
    assert live(client) == {1: 2**53 + 3}


def test_two_deployments_on_one_redis_keep_counters_of_their_own(journal: Conn, client: redis.Redis) -> None:
    fund(journal, 10**6)
    fold(journal, shown(1))
    other = "pixr:other:"
    client.hset(other + counters.EARNED, "1", 77)
    Counters(client, "here", MARK).follow(journal)
    assert live(client) == earned(journal)
    assert client.hget(other + counters.EARNED, "1") == b"77"
    client.delete(other + counters.EARNED)
