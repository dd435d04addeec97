"""The ledger's parts do not wait for each other: a silent node keeps nothing from being folded, nor does dust."""

from __future__ import annotations

import dataclasses
import secrets
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from typing import Any

import pytest
from psycopg import Connection

from cluster import database, runtime
from cluster.settings import Settings
from cluster.storage import Storage
from ledger import adoption, anchors, book, fold, orders, stops
from ledger import reconcile as reconciling
from ledger.chain import Chain, Effect
from ledger.reconcile import reconcile
from ledger.settings import Economics
from tests.conftest import until
from tests.ledger.chains import EAGER, EXPIRED_BLOCKS, FINAL_BLOCKS, GAS, LocalNode, Rig, assert_paid, new_chain
from tests.ledger.snapshots import Snapshot
from tests.ledger.test_actor import at_work, unfolded
from tests.ledger.test_actor import connection as connection
from tests.ledger.test_actor import eager as eager
from tests.ledger.test_book import fund
from tests.ledger.test_fold import assert_whole, earned, folded, record, search, shown
from tests.ledger.test_orders import carried_out, key_of, placed
from tests.ledger.test_resolving import ask_for, cut
from tests.ledger.test_restored import assert_paid_once, go_back, work
from tests.ledger.test_two_walls import given_up

DUST = 5_000  # lamports


def test_a_node_that_does_not_answer_keeps_nothing_from_being_folded(
    eager: Settings, connection: Connection[Any]
) -> None:
    """Each question to it takes ten seconds."""
    with closing(socket.create_server(("127.0.0.1", runtime.port(eager, "solana", 8899)))), at_work(eager) as loop:
        until(lambda: loop.status()["epoch"] > 0)
        for number in range(5):
            record(connection, search(shown(number, 1)))
            assert until(lambda: unfolded(connection) == 0) < 5
        seen = connection.execute("SELECT now() - seen_at < interval '5 s' FROM ledger.fence").fetchone()
        assert seen == (True,)


def test_what_is_open_is_measured_and_the_head_kept_while_no_node_answers(
    eager: Settings, connection: Connection[Any]
) -> None:
    storage, bucket = Storage(runtime.endpoints(eager).s3), f"heads-{secrets.token_hex(4)}"
    storage.ensure_bucket(bucket)
    eager = eager.with_section(dataclasses.replace(eager.s3, bucket=bucket))
    looked = "SELECT looked_at FROM ledger.ages WHERE state = 'frozen' AND open = %s"
    with closing(socket.create_server(("127.0.0.1", runtime.port(eager, "solana", 8899)))), at_work(eager):
        until(lambda: connection.execute(looked, (0,)).fetchone() is not None)
        stops.freeze(connection, "somebody looks", {})
        assert until(lambda: connection.execute(looked, (1,)).fetchone() is not None) < 5
        with database.connect(eager.postgres.url) as other:
            epoch = other.execute("SELECT set_config('ledger.epoch', epoch::text, false) FROM ledger.fence").fetchone()
            assert epoch is not None
            fund(other, 10)
        head = anchors.head(connection)
        assert head is not None
        listed = partial(anchors.listing, storage, bucket, runtime.secret(eager, "batches"))
        assert until(lambda: head.entry_id in [each.entry_id for each in listed().ours]) < 5


class Watched:
    """A node of the test's own chain that notes whether the end of the journal was locked when it was asked."""

    def __init__(self, node: LocalNode, connection: Connection[Any]) -> None:
        self.name, self._node, self._connection = node.name, node, connection
        self.locked: list[str] = []

    async def call(self, method: str, params: list[Any]) -> Any:
        found = self._connection.execute("SELECT FROM ledger.chain_head FOR UPDATE SKIP LOCKED").fetchone()
        self._connection.commit()
        if found is None:
            self.locked.append(method)
        return await self._node.call(method, params)


@pytest.fixture
def watched(journal: Connection[Any], postgres_url: str) -> Iterator[tuple[Rig, list[Watched]]]:
    chain = new_chain()
    with database.connect(postgres_url) as connection:
        nodes = [Watched(LocalNode(name, chain), connection) for name in "ab"]
        settings = dataclasses.replace(EAGER, marker_retention_s=0, reclaim_min=1)
        rig = Rig(journal, chain, nodes=nodes, settings=settings)
        yield rig, nodes
        rig.rpc.close()


def test_nodes_are_asked_while_the_journal_is_open_to_others(watched: tuple[Rig, list[Watched]]) -> None:
    rig, nodes = watched
    for creator in range(1, 5):
        rig.creator(creator, 1000, account=creator != 4)
    rig.pay(3)
    for creator in (1, 2, 3):
        rig.earn(creator, 500)
        rig.payouts.plan()
    for creator in (1, 2):  # two plans are called back in one round
        stops.hold(rig.connection, creator, "somebody looks")
    rig.connection.commit()
    for _ in range(4):
        rig.payouts.run_once()
        reconcile(rig.connection, rig.rpc, rig.treasury)
        rig.advance(FINAL_BLOCKS)
    assert (rig.on_chain(1), rig.on_chain(3)) == (1000, 1500)
    assert [each.locked for each in nodes] == [[], []]


def test_a_late_landing_beside_a_live_attempt_locks_nobody_out(watched: tuple[Rig, list[Watched]]) -> None:
    rig, nodes = watched
    raw = given_up(rig)
    rig.rpc.send([raw])
    rig.advance(1)
    rig.payouts.sign()
    rig.payouts.send()
    rig.advance(EXPIRED_BLOCKS)
    rig.payouts.settle()
    assert rig.states() == {"posted": 1}
    assert [each.locked for each in nodes] == [[], []]


def gone_back(rig: Rig) -> None:
    """The database forgets two payouts that were made one after the other, and nobody says so."""
    rig.settings = EAGER
    rig.payouts = rig.fresh()
    for creator in (1, 2):
        rig.creator(creator, 1000)
    snapshot = Snapshot(rig.connection)
    stops.hold(rig.connection, 2, "somebody looks")
    rig.pay(4)
    stops.release(rig.connection, stops.in_force(rig.connection)[0].name, "ana")
    rig.pay(4)
    assert [rig.on_chain(creator) for creator in (1, 2)] == [1000, 1000]
    go_back(rig, snapshot, declared=False)


def since_the_beginning(rig: Rig) -> int:
    return placed(rig, orders.ADOPT, {"since_slot": 0}, key_of(rig.connection, "ana"))


def test_an_order_to_adopt_asks_nodes_while_the_journal_is_open_to_others(watched: tuple[Rig, list[Watched]]) -> None:
    rig, nodes = watched
    gone_back(rig)
    reconcile(rig.connection, rig.rpc, rig.treasury)
    found = carried_out(rig, since_the_beginning(rig))
    assert found.outcome == "2 transactions since slot 0 are adopted"
    assert [each.locked for each in nodes] == [[], []]
    assert rig.rows("SELECT creator_id, on_chain_pix FROM ledger.payouts ORDER BY 1") == [(1, 1000), (2, 1000)]


class Forgetful(Chain):
    """A chain of which no node knows one transaction."""

    forgotten = ""

    def effect(self, signature: str, opinions: int = 1) -> Effect | None:
        return None if signature == self.forgotten else super().effect(signature, opinions)


def test_an_order_to_adopt_that_is_interrupted_goes_on_and_says_all_that_it_has_adopted(rig: Rig) -> None:
    gone_back(rig)
    reconcile(rig.connection, rig.rpc, rig.treasury)
    chain = Forgetful(rig.rpc.nodes)
    rig.payouts.chain = chain
    (_,), (last,) = rig.rows("SELECT signature FROM ledger.chain_transactions WHERE kind = 'unknown' ORDER BY slot")
    chain.forgotten = last
    number = since_the_beginning(rig)
    assert carried_out(rig, number).state == "open"
    assert rig.rows("SELECT count(*) FROM ledger.payouts WHERE on_chain_pix > 0") == [(1,)]  # and is kept
    chain.forgotten = ""
    assert carried_out(rig, number).outcome == "2 transactions since slot 0 are adopted"
    assert rig.rows("SELECT creator_id, on_chain_pix FROM ledger.payouts ORDER BY 1") == [(1, 1000), (2, 1000)]
    chain.close()


def test_what_goes_back_for_an_adopted_payment_locks_nobody_out(watched: tuple[Rig, list[Watched]]) -> None:
    """One transaction has paid both of whom the backup knows a signed batch each."""
    rig, nodes = watched
    rig.settings = EAGER
    rig.payouts = rig.fresh()
    for creator in (1, 2):
        rig.creator(creator, 1000)
        rig.payouts.plan()
    rig.payouts.sign()
    rig.advance(EXPIRED_BLOCKS)
    snapshot = Snapshot(rig.connection)
    rig.payouts.settle()
    for creator in (1, 2):
        stops.hold(rig.connection, creator, "somebody looks")
    rig.connection.commit()
    rig.pay(2)
    for stop in stops.in_force(rig.connection):
        stops.release(rig.connection, stop.name, "ana")
    rig.connection.commit()
    rig.pay(3)
    go_back(rig, snapshot)
    work(rig, 14)
    assert_paid_once(rig, {1: 1000, 2: 1000})
    assert [each.locked for each in nodes] == [[], []]


def test_what_is_ended_for_a_late_payment_locks_nobody_out(journal: Connection[Any], postgres_url: str) -> None:
    """Two plans that would pay the same again are ended first."""
    rig, nodes, raw, batch = cut(journal)
    rig.rpc.send([raw])
    rig.advance(FINAL_BLOCKS)
    with database.connect(postgres_url) as connection:
        asked = [Watched(node, connection) for node in nodes]
        rig.rpc.nodes = asked
        found = ask_for(rig, batch)
        assert found.ended, found.outcome
        assert rig.states() == {"cancelled": 3}
        assert [each.locked for each in asked] == [[], []]
    rig.rpc.close()


def test_what_is_taken_out_of_a_bucket_meanwhile_does_not_mature(journal: Connection[Any], postgres_url: str) -> None:
    """As adoption does in another part: who matures waits for it and reads what it has left."""
    fund(journal, 10_000)
    record(journal, search(shown(1, 1)))
    folded(journal, Economics(maturity_s=3600))
    journal.execute("UPDATE ledger.maturing SET matures_at = now() - interval '1 s'")
    journal.commit()
    with database.connect(postgres_url) as other, ThreadPoolExecutor(1) as aside:
        book.hold_end(other)
        (row,) = other.execute(
            "SELECT id FROM ledger.accounts WHERE kind = 'maturing' AND party = 'creator'"
        ).fetchall()
        assert adoption._take_youngest(other, row[0], 300) == 300
        epoch = other.execute("SELECT set_config('ledger.epoch', epoch::text, false) FROM ledger.fence").fetchone()
        assert epoch is not None
        payable = book.accounts_of(other, "payable", "creator", [1])[1]
        book.post(other, book.Entry("maturity", "early:1", [(row[0], -300), (payable, 300)]))
        matured = aside.submit(fold.mature, journal)
        until(lambda: other.execute("SELECT FROM pg_locks WHERE NOT granted").fetchone() is not None)
        book.commit(other)
        assert matured.result(30) == 600
    assert earned(journal) == {1: 900}
    assert_whole(journal)


def dust(rig: Rig, count: int) -> None:
    """Strangers send lamports to the payer of fees."""
    for number in range(count):
        rig.chain.enqueue(rig.chain.airdrop(rig.treasury.payer.gas, DUST + number))
        if number % 20 == 19:
            rig.advance(1)
    rig.advance(FINAL_BLOCKS + 1)


def test_dust_comes_to_few_entries_and_every_transaction_is_known(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconciling, "PIECE_MAX", 50)
    monkeypatch.setattr(reconciling, "ROUND_MAX", 100)
    assert reconcile(rig.connection, rig.rpc, rig.treasury).ok
    before = rig.rows("SELECT count(*) FROM ledger.entries")[0][0]
    dust(rig, 120)
    rig.chain.enqueue(rig.chain.airdrop(rig.treasury.payer.gas, 10**9))  # no dust
    rig.advance(FINAL_BLOCKS + 1)
    first = reconcile(rig.connection, rig.rpc, rig.treasury)
    assert (first.conclusive, first.has_more) == (False, True)
    found = reconcile(rig.connection, rig.rpc, rig.treasury)
    assert (found.conclusive, found.ok, found.has_more) == (True, True, False)
    assert rig.rows("SELECT count(*) FROM ledger.entries")[0][0] - before == 4
    booked = "SELECT count(*), count(DISTINCT entry_id) FROM ledger.chain_transactions WHERE kind = 'deposit'"
    assert rig.rows(booked) == [(121, 4)]
    assert rig.balance("platform", asset="SOL") == GAS + sum(DUST + n for n in range(120)) + 10**9
    rig.creator(1, 1000)
    rig.pay(3)
    assert_paid(rig, {1: 1000})


class Busy(Chain):
    """A chain on which something arrives each time after the history was read and before the treasury is."""

    rig: Rig

    def all_accounts(self, *args: Any, **more: Any) -> Any:
        dust(self.rig, 1)
        return super().all_accounts(*args, **more)


def test_a_chain_that_never_rests_is_compared_all_the_same(rig: Rig) -> None:
    busy = Busy(rig.rpc.nodes)
    busy.rig = rig
    try:
        for _ in range(3):
            found = reconcile(rig.connection, busy, rig.treasury)
            assert (found.conclusive, found.ok) == (True, True)
    finally:
        busy.close()
