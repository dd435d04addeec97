"""What another role writes or holds neither ends the ledger nor keeps it waiting, that of Serve above all."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from psycopg import Connection

from cluster.database import database
from cluster.roles import SERVE
from ledger.appearances import spool
from ledger.appearances.appearances import BEGUN, CLOSED, HELD, RECORDED, parameters
from tests.ledger.accrual.test_fold import assert_whole, change, earned, folded, open_incarnation, record, search, shown
from tests.ledger.chains import Rig, assert_paid
from tests.ledger.journal.test_book import fund

Conn = Connection[Any]


@pytest.fixture
def replica(postgres_url: str) -> Iterator[Conn]:
    with database.connect(postgres_url.replace("//pixr:", f"//{SERVE.name}:"), autocommit=True) as connection:
        yield connection


@pytest.fixture
def impatient(journal: Conn) -> Conn:
    """A ledger to which any wait for another is an error."""
    journal.execute("SET lock_timeout = '1s'")
    journal.commit()
    return journal


@pytest.mark.parametrize("instant", ["infinity", "-infinity", "294000-01-01 UTC"])
def test_a_batch_of_no_time_is_set_aside_and_the_others_are_paid(journal: Conn, instant: str) -> None:
    """As a replica of a release before could have written them."""
    fund(journal, 10_000)
    for name in ("appearance_batches", "incarnations"):
        journal.execute(f"ALTER TABLE ledger.{name} DROP CONSTRAINT IF EXISTS {name}_instants")
    journal.commit()
    bad, odd = record(journal, search(shown(1))), open_incarnation(journal)
    change(journal, "UPDATE ledger.appearance_batches SET recorded_at = %s WHERE incarnation = %s", instant, bad)
    change(journal, "UPDATE ledger.incarnations SET started_at = %s WHERE id = ANY(%s)", instant, [bad, odd])
    record(journal, search(shown(2)), incarnation=odd, adopted=True)
    record(journal, search(shown(3)), incarnation=bad, seq=1)
    record(journal, search(shown(4, creator=2)))
    folded(journal)
    assert earned(journal) == {1: 1800, 2: 900}
    assert journal.execute("SELECT incarnation, seq FROM ledger.set_aside").fetchall() == [(bad, 0)]
    journal.commit()


def test_what_a_replica_holds_is_folded_all_the_same(impatient: Conn, replica: Conn) -> None:
    fund(impatient, 10_000)
    first, second = record(impatient, search(shown(1))), record(impatient, search(shown(2)))
    for round_number in range(3):
        with replica.transaction():
            for number in (first, second):
                replica.execute(HELD, (number,))
            replica.execute(CLOSED, (first, None))
            folded(impatient)
        assert earned(impatient) == {1: 900 * (2 + round_number)}
        assert impatient.execute("SELECT count(*) FROM ledger.cursors").fetchone() == (2,)
        record(impatient, search(shown(3 + round_number)), incarnation=first, seq=1 + round_number)
    folded(impatient)
    folded(impatient)  # nothing twice
    assert earned(impatient) == {1: 900 * 5}
    rows = impatient.execute("SELECT folded FROM ledger.incarnations ORDER BY folded").fetchall()
    assert rows == [(0,), (4,)]  # what could be noted in place was
    assert_whole(impatient)


def test_a_creator_is_paid_whoever_holds_their_wallet(rig: Rig, replica: Conn) -> None:
    for creator in (1, 2):
        rig.creator(creator, 1000)
    rig.connection.execute("SET lock_timeout = '1s'")
    rig.connection.commit()
    with replica.transaction():
        replica.execute("SELECT FROM ledger.wallets FOR UPDATE")
        rig.pay(4)
    assert_paid(rig, {1: 1000, 2: 1000})


def test_a_replica_says_neither_when_a_batch_was_recorded_nor_when_it_began(replica: Conn) -> None:
    for age_s in (math.nan, math.inf, -math.inf, 1e300, -5.0):
        number = uuid4()
        assert replica.execute(BEGUN, (number, "s" * 10_000, "m" * 10_000, age_s)).fetchone() == (0,)
        done = replica.execute(RECORDED, parameters(number, 0, spool.pack([search(shown(1))])))
        assert done.rowcount == 1
    rows = replica.execute(
        "SELECT count(*) FILTER (WHERE started_at BETWEEN now() - interval '31 days' AND now()"
        " AND length(spool) <= 200 AND length(machine) <= 200) FROM ledger.incarnations"
    ).fetchone()
    assert rows == (5,)


def test_batches_follow_on_each_other_whoever_records_them(replica: Conn, journal: Conn) -> None:
    """A cursor beyond what an incarnation has recorded was refused by the database, and ended the ledger."""
    number = uuid4()
    replica.execute(BEGUN, (number, "x", "", 0.0))
    batch = spool.pack([search(shown(1)), search(shown(2))])
    for seq, rows in ((1, 0), (0, 1), (0, 0), (1, 0), (2, 1)):
        assert replica.execute(RECORDED, parameters(number, seq, batch)).rowcount == rows
    assert replica.execute(CLOSED, (number, 3)).fetchone() == (False,)
    assert replica.execute(CLOSED, (number, 4)).fetchone() == (True,)
    assert journal.execute("SELECT recorded, closed_at IS NULL FROM ledger.incarnations").fetchone() == (4, False)
    journal.commit()
