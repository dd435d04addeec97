"""A batch that is stuck is ended by what the chain did: booked recipient by recipient, or not at all."""

from __future__ import annotations

import dataclasses
import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from psycopg import Connection
from solders.account import Account

from cluster.errors import Rejected
from cluster.settings import Settings
from ledger import audit, book, earnings, packing, resolutions, stops, wallets
from ledger.planning import Planning
from ledger.rail import PAID_UNKNOWN
from ledger.reconcile import UNKNOWN, reconcile
from ledger.resolving import PAID_TWICE
from ledger.settings import LedgerSettings
from tests.cluster.test_cli import assert_refused, pixr
from tests.ledger.chains import EAGER, EXPIRED_BLOCKS, FINAL_BLOCKS, POOL, Rig, new_chain
from tests.ledger.test_called_back import Credulous
from tests.ledger.test_late_payouts import Hasty
from tests.ledger.test_two_walls import Node, given_up, lie


def resolve(rig: Rig) -> resolutions.Resolution:
    """Ask for the only open batch, and let the ledger work."""
    (batch,) = rig.rows("SELECT id FROM ledger.batches WHERE ended_at IS NULL ORDER BY planned_at LIMIT 1")
    number = resolutions.ask(rig.connection, batch[0], "ana")
    assert resolutions.ask(rig.connection, batch[0], "ana") == number
    rig.connection.commit()
    rig.payouts.run_once()
    return resolutions.one(rig.connection, number)


def is_clean(rig: Rig) -> bool:
    """Everything agrees with the chain, but for the freeze that a person ends."""
    checks = audit.run(rig.connection, rig.rpc, str(rig.treasury.payer.gas), full=True)
    return all(check.ok for check in checks if check.name != "freezes")


def thaw(rig: Rig) -> None:
    for each in stops.in_force(rig.connection):
        if each.creator_id is None:
            stops.release(rig.connection, each.name, "ana")
    rig.connection.commit()


def pay_treasury(rig: Rig, monkeypatch: pytest.MonkeyPatch, others: int) -> None:
    """A batch of an earlier release, which let a creator name the treasury's own key."""
    with monkeypatch.context() as earlier:
        earlier.setattr(Planning, "_payable", lambda _, due: list(due))
        for creator in range(1, others + 2):
            rig.creator(creator, 500)
        bad = str(rig.treasury.payer.treasury)
        rig.connection.execute("UPDATE ledger.wallets SET wallet = %s WHERE creator_id = 1", (bad,))
        rig.connection.execute(
            "INSERT INTO ledger.token_accounts (wallet, mint, address) VALUES (%s, %s, %s)",
            (bad, rig.treasury.mint, rig.treasury.token_account),
        )
        rig.connection.commit()
        rig.payouts.run_once()
        rig.advance(FINAL_BLOCKS)


@pytest.mark.parametrize("others", [0, 2])
def test_a_payout_to_the_treasury_itself_goes_back_and_the_others_are_paid(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, others: int
) -> None:
    pay_treasury(rig, monkeypatch, others)
    rig.payouts.settle()
    assert "something else" in rig.freezes()[0]
    found = resolve(rig)
    assert found.ended, found.outcome
    assert found.evidence["nodes"] == 2
    thaw(rig)
    rig.payouts.run_once()
    assert reconcile(rig.connection, rig.rpc, rig.treasury).ok
    assert (rig.balance("payable", 1), rig.balance("in_flight"), rig.freezes()) == (500, 0, [])
    assert [rig.on_chain(creator) for creator in range(2, others + 2)] == [500] * others
    assert rig.holds()[1].startswith(wallets.UNPAYABLE)
    assert is_clean(rig)
    rig.creator(9, 700)
    rig.pay(3)
    assert rig.on_chain(9) == 700
    assert is_clean(rig)


def test_what_landed_as_planned_is_booked_as_planned(rig: Rig) -> None:
    rig.creator(1, 1000)
    rig.payouts.run_once()
    rig.fresh(Hasty).settle()
    rig.advance(FINAL_BLOCKS)
    batch = rig.rows("SELECT id FROM ledger.batches")[0][0]
    number = resolutions.ask(rig.connection, batch, "ana")
    rig.payouts.resolve()
    assert resolutions.one(rig.connection, number).ended
    assert rig.states() == {"posted": 1}
    assert (rig.on_chain(1), rig.balance("in_flight"), is_clean(rig)) == (1000, 0, True)


def test_a_live_transaction_that_landed_is_booked_with_its_rivals_that_failed(rig: Rig) -> None:
    rig.creator(1, 1000)
    rig.payouts.run_once()
    rig.fresh(Hasty).settle()
    waiting = dict(rig.chain.pending)
    rig.chain.pending.clear()
    rig.advance(2)
    (second,) = rig.payouts.sign()
    batch = rig.rows("SELECT id FROM ledger.batches")[0][0]
    rig.chain.pending.update(waiting)
    rig.advance(FINAL_BLOCKS)
    number = resolutions.ask(rig.connection, batch, "ana")
    rig.payouts.resolve()
    told = resolutions.one(rig.connection, number)
    assert (told.ended, second in str(told.outcome)) == (False, True)  # it may still land
    rig.payouts.send()
    rig.advance(FINAL_BLOCKS)
    number = resolutions.ask(rig.connection, batch, "ana")
    rig.payouts.resolve()
    assert resolutions.one(rig.connection, number).ended
    assert rig.rows("SELECT n, state FROM ledger.attempts ORDER BY n") == [(1, "landed"), (2, "failed")]
    assert (rig.on_chain(1), rig.balance("in_flight"), is_clean(rig)) == (1000, 0, True)


def strangers_lamports(rig: Rig) -> None:
    """Somebody who has seen the bytes of a transaction pays for its marker."""
    batch = rig.rows("SELECT id FROM ledger.batches WHERE kind = 'payout'")[0][0]
    rig.chain.enqueue(rig.chain.airdrop(rig.treasury.marker(batch).address, rig.treasury.marker_rent))


def test_a_marker_that_a_stranger_has_paid_for_stops_its_batch_until_a_person_asks(rig: Rig) -> None:
    for creator in (1, 2):
        rig.creator(creator, 1000)
    rig.payouts.plan()
    rig.payouts.sign()
    strangers_lamports(rig)
    rig.advance(EXPIRED_BLOCKS)
    rig.pay(4)
    assert (rig.states(), rig.freezes(), rig.balance("in_flight")) == ({"signed": 1}, [], 2000)
    checks = audit.run(rig.connection, None, None, limits=LedgerSettings(batch_open_max_s=1e-9))
    assert [each.name for each in checks if not each.ok] == ["open too long"]
    found = resolve(rig)
    assert found.ended, found.outcome
    assert len(found.evidence["marker"]["transactions"]) == 1
    rig.pay(4)
    assert (rig.on_chain(1), rig.on_chain(2), rig.balance("in_flight"), is_clean(rig)) == (1000, 1000, 0, True)


def test_a_first_transaction_that_failed_at_a_strangers_marker_costs_its_fee(rig: Rig) -> None:
    rig.creator(1, 1000)
    rig.payouts.plan()
    rig.payouts.sign()
    strangers_lamports(rig)
    rig.advance(1)
    rig.payouts.send()
    rig.advance(FINAL_BLOCKS)
    rig.payouts.settle()
    assert (rig.freezes(), rig.states()) == ([PAID_UNKNOWN], {"signed": 1})
    assert resolve(rig).ended
    thaw(rig)
    rig.pay(3)
    assert (rig.on_chain(1), rig.balance("in_flight"), is_clean(rig)) == (1000, 0, True)


def test_a_given_up_transaction_that_failed_is_booked_too(rig: Rig) -> None:
    rig.creator(1, 1000)
    rig.payouts.run_once()
    rig.put_frozen(1)
    rig.fresh(Hasty).settle()
    rig.advance(FINAL_BLOCKS)
    batch = rig.rows("SELECT id FROM ledger.batches")[0][0]
    number = resolutions.ask(rig.connection, batch, "ana")
    rig.payouts.resolve()
    assert resolutions.one(rig.connection, number).ended
    assert (rig.states(), rig.balance("payable", 1), is_clean(rig)) == ({"cancelled": 1}, 1000, True)


def test_what_has_a_live_transaction_is_not_given_back_before_its_time(rig: Rig) -> None:
    rig.creator(1, 1000)
    rig.payouts.plan()
    rig.payouts.sign()
    found = resolve(rig)
    assert (found.ended, "may still land" in str(found.outcome)) == (False, True)
    assert rig.rows("SELECT state FROM ledger.attempts") == [("live",)]
    rig.chain.pending.clear()
    rig.advance(EXPIRED_BLOCKS + 10)
    number = resolutions.ask(rig.connection, rig.rows("SELECT id FROM ledger.batches")[0][0], "ana")
    rig.payouts.resolve()
    assert resolutions.one(rig.connection, number).ended
    assert (rig.states(), rig.balance("payable", 1)) == ({"cancelled": 1}, 1000)
    rig.pay(3)
    assert (rig.on_chain(1), is_clean(rig)) == (1000, True)


def test_what_was_given_up_and_never_landed_goes_back(rig: Rig) -> None:
    rig.creator(1, 1000)
    rig.payouts.plan()
    rig.payouts.sign()
    rig.fresh(Hasty).settle()
    stops.freeze(rig.connection, "somebody looks", {})
    rig.advance(EXPIRED_BLOCKS + 10)
    assert resolve(rig).ended
    assert (rig.states(), rig.balance("payable", 1)) == ({"cancelled": 1}, 1000)


def test_the_command_line_asks_and_waits_for_the_ledger(settings: Settings, journal: Connection[Any]) -> None:
    environ = {"PIXR_POSTGRES_URL": settings.postgres.url}
    assert_refused(pixr(settings.data_dir, "payouts", "resolve", "nowhere", **environ), "there is no batch")
    rig = Rig(journal, new_chain())
    rig.creator(1, 1000)
    (batch,) = rig.payouts.plan()
    stops.freeze(rig.connection, "somebody looks", {})
    rig.connection.commit()
    with ThreadPoolExecutor(1) as pool:
        told = pool.submit(pixr, settings.data_dir, "payouts", "resolve", batch.id, "--json", **environ)
        while not told.done():
            rig.connection.execute("UPDATE ledger.fence SET seen_at = now()")  # the ledger's sign of life
            rig.payouts.run_once()
            time.sleep(0.1)
    assert told.result().returncode == 0, told.result().stderr
    said = json.loads(told.result().stdout)
    assert (said["batch_id"], said["ended"]) == (batch.id, True)
    assert rig.states() == {"cancelled": 1}


def test_a_batch_that_ended_meanwhile_is_left_alone(rig: Rig) -> None:
    rig.creator(1, 1000)
    rig.payouts.run_once()
    batch = rig.rows("SELECT id FROM ledger.batches")[0][0]
    number = resolutions.ask(rig.connection, batch, "ana")
    rig.connection.commit()
    rig.advance(FINAL_BLOCKS)
    rig.payouts.run_once()
    found = resolutions.one(rig.connection, number)
    assert (found.ended, "ended by itself" in str(found.outcome)) == (True, True)
    with pytest.raises(Rejected) as refusal:
        resolutions.ask(rig.connection, batch, "ana")
    assert refusal.value.code == "batch-ended"
    with pytest.raises(Rejected) as refusal:
        resolutions.ask(rig.connection, "nowhere", "ana")
    assert refusal.value.code == "batch-unknown"


def test_batches_that_pay_nobody_are_ended_too(rig: Rig) -> None:
    rig.creator(1, 1000, account=False)
    rig.payouts.plan()
    assert rig.rows("SELECT kind FROM ledger.batches") == [("accounts",)]
    stops.freeze(rig.connection, "somebody looks", {})
    rig.connection.commit()
    assert resolve(rig).ended
    assert rig.states() == {"cancelled": 1}
    thaw(rig)
    rig.payouts.run_once()
    rig.advance(FINAL_BLOCKS)
    number = resolutions.ask(
        rig.connection, rig.rows("SELECT id FROM ledger.batches WHERE ended_at IS NULL")[0][0], "ana"
    )
    rig.payouts.resolve()
    assert resolutions.one(rig.connection, number).ended
    assert is_clean(rig)


@pytest.fixture
def pair(journal: Connection[Any]) -> tuple[Rig, list[Node]]:
    chain = new_chain()
    nodes = [Node("a", chain), Node("b", chain)]
    return Rig(journal, chain, nodes), nodes


def tampered(rig: Rig, what: str, value: str) -> None:
    """The plan of the only batch is changed behind the ledger's back."""
    rig.connection.execute("SET session_replication_role = replica")
    rig.connection.execute("UPDATE ledger.batches SET plan = jsonb_set(plan, %s::text[], %s::jsonb)", (what, value))
    rig.connection.execute("SET session_replication_role = DEFAULT")
    rig.connection.commit()


@pytest.mark.parametrize(("said", "got"), [("999", 999), ("1001", 1001), ("600", 600)])
def test_a_payment_of_another_amount_is_booked_by_what_was_received(rig: Rig, said: str, got: int) -> None:
    """The plan was changed before it was signed, and back afterwards."""
    rig.creator(1, 1000)
    rig.payouts.plan()
    tampered(rig, "{recipients,0,3}", said)
    rig.payouts.sign()
    tampered(rig, "{recipients,0,3}", "1000")
    rig.payouts.send()
    rig.advance(FINAL_BLOCKS)
    rig.payouts.settle()
    found = resolve(rig)
    assert found.ended is (got < 1000), found.outcome  # what was never earned is for a person
    assert (rig.on_chain(1), rig.states()) == (got, {"posted" if got < 1000 else "signed": 1})
    if found.ended:
        assert (rig.balance("payable", 1), rig.balance("in_flight"), is_clean(rig)) == (1000 - got, 0, True)


def test_what_went_to_somebody_else_is_for_a_person(rig: Rig) -> None:
    for creator in (1, 2):
        rig.creator(creator, 1000)
    rig.payouts.run_once()
    rig.advance(FINAL_BLOCKS)
    tampered(rig, "{recipients,1,2}", json.dumps(str(rig.address_of(3))))
    rig.payouts.settle()
    found = resolve(rig)
    assert (found.ended, "another sum" in str(found.outcome)) == (False, True)
    assert (rig.balance("in_flight"), rig.states()) == (2000, {"signed": 1})
    tampered(rig, "{recipients,1,2}", json.dumps(str(rig.address_of(1))))
    tampered(rig, "{recipients,0,2}", json.dumps(str(rig.address_of(1))))
    found = resolve(rig)
    assert (found.ended, "2 recipients" in str(found.outcome)) == (False, True)


def test_the_word_of_one_node_ends_nothing(pair: tuple[Rig, list[Node]]) -> None:
    rig, nodes = pair
    rig.creator(1, 1000)
    rig.payouts.plan()
    rig.payouts.sign()
    signature = rig.rows("SELECT signature FROM ledger.attempts")[0][0]
    rig.chain.pending.clear()
    rig.advance(EXPIRED_BLOCKS + 10)
    stops.freeze(rig.connection, "somebody looks", {})
    batch = rig.rows("SELECT id FROM ledger.batches")[0][0]
    nodes[1].lies["getFirstAvailableBlock"] = lambda _: 10**9
    nodes[1].behind["getMultipleAccounts"] = 2 * EXPIRED_BLOCKS
    number = resolutions.ask(rig.connection, batch, "ana")
    rig.payouts.resolve()
    found = resolutions.one(rig.connection, number)
    assert (found.ended, "do not agree" in str(found.outcome)) == (False, True)
    assert rig.rows("SELECT signature, state FROM ledger.attempts") == [(signature, "live")]


@pytest.mark.parametrize("marked", [True, False])
def test_what_is_older_than_nodes_remember_is_ended_by_the_marker_that_it_would_have_made(
    journal: Connection[Any], marked: bool
) -> None:
    chain = new_chain()
    nodes = [Node("a", chain), Node("b", chain)]
    rig = Rig(journal, chain, nodes, settings=dataclasses.replace(EAGER, marker_accounts=marked))
    rig.creator(1, 1000)
    rig.payouts.plan()
    rig.payouts.sign()
    rig.chain.pending.clear()
    rig.advance(EXPIRED_BLOCKS + 10)
    for node in nodes:
        node.lies["getFirstAvailableBlock"] = lambda _: 10**9
    rig.settings = EAGER
    rig.payouts = rig.fresh()
    rig.payouts.settle()
    assert rig.rows("SELECT state FROM ledger.attempts") == [("live",)]
    found = resolve(rig)
    assert found.ended is marked, found.outcome  # the bytes of one that makes no marker are told apart
    assert rig.rows("SELECT state FROM ledger.attempts WHERE n = 1 ORDER BY signed_at LIMIT 1") == [
        ("expired" if marked else "live",)
    ]
    if marked:
        rig.pay(3)
        assert (rig.on_chain(1), is_clean(rig)) == (1000, True)


def test_a_marker_that_nobody_has_made_is_no_strangers(pair: tuple[Rig, list[Node]]) -> None:
    rig, nodes = pair
    rig.creator(1, 1000)
    rig.payouts.plan()
    rig.payouts.sign()
    strangers_lamports(rig)
    rig.advance(EXPIRED_BLOCKS + 10)
    for node in nodes:
        node.lies["getSignaturesForAddress"] = lambda _: []
    found = resolve(rig)
    assert (found.ended, "which transaction made it" in str(found.outcome)) == (False, True)
    assert rig.balance("in_flight") == 1000


def test_what_nodes_have_seen_and_cannot_show_is_not_given_back(pair: tuple[Rig, list[Node]]) -> None:
    rig, nodes = pair
    rig.creator(1, 1000)
    rig.payouts.run_once()
    rig.advance(EXPIRED_BLOCKS + 10)
    for node in nodes:
        node.lies["getTransaction"] = lambda _: None
    found = resolve(rig)
    assert (found.ended, "do not agree" in str(found.outcome)) == (False, True)
    assert (rig.states(), rig.balance("in_flight")) == ({"signed": 1}, 1000)
    for node in nodes:
        node.lies.clear()
    rig.pay(2)
    assert (rig.on_chain(1), rig.balance("in_flight"), is_clean(rig)) == (1000, 0, True)


def test_an_opening_of_accounts_that_nobody_remembers_is_ended_and_done_again(pair: tuple[Rig, list[Node]]) -> None:
    rig, nodes = pair
    rig.creator(1, 1000, account=False)
    rig.payouts.plan()
    rig.payouts.sign()
    rig.advance(EXPIRED_BLOCKS + 10)
    for node in nodes:
        node.lies["getFirstAvailableBlock"] = lambda _: 10**9
    stops.freeze(rig.connection, "somebody looks", {})
    assert resolve(rig).ended
    assert rig.rows("SELECT kind, state FROM ledger.batches") == [("accounts", "cancelled")]
    for node in nodes:
        node.lies.clear()
    thaw(rig)
    rig.pay(5)
    assert (rig.on_chain(1), rig.balance("in_flight"), is_clean(rig)) == (1000, 0, True)


def test_a_marker_whose_making_nodes_have_forgotten_is_no_strangers(rig: Rig) -> None:
    """As after a restore long ago: our own transaction made it, and somebody sends it a lamport."""
    rig.creator(1, 1000)
    (batch,) = rig.payouts.plan()
    marker = rig.treasury.marker(batch.id).address
    rig.chain.svm.set_account(marker, Account(rig.treasury.marker_rent, b"", packing.SYSTEM_PROGRAM))
    rig.chain.enqueue(rig.chain.airdrop(marker, 1))
    rig.advance(FINAL_BLOCKS + 1)
    stops.freeze(rig.connection, "somebody looks", {})
    found = resolve(rig)
    assert (found.ended, "which transaction made it" in str(found.outcome)) == (False, True)
    assert rig.balance("in_flight") == 1000


def test_a_stranger_who_names_a_marker_again_and_again_delays_its_end_and_does_not_prevent_it(
    pair: tuple[Rig, list[Node]], monkeypatch: pytest.MonkeyPatch
) -> None:
    rig, nodes = pair
    rig.creator(1, 1000)
    (batch,) = rig.payouts.plan()
    rig.payouts.sign()
    strangers_lamports(rig)
    for _ in range(7):  # each fails, and costs a fee
        rig.chain.enqueue(rig.chain.airdrop(rig.treasury.marker(batch.id).address, 2**62))
    rig.advance(EXPIRED_BLOCKS)
    monkeypatch.setattr("ledger.chain.SIGNATURES_MAX", 2)
    monkeypatch.setattr("ledger.chain.TOUCHED_MAX", 8)
    found = resolve(rig)
    assert found.ended is None  # it waits until the treasury itself has been looked at
    assert rig.balance("in_flight") == 1000
    monkeypatch.setattr("ledger.chain.TOUCHED_MAX", 100)
    nodes[0].asked.clear()
    found = resolve(rig)
    assert found.ended, found.outcome
    assert found.evidence["marker"]["count"] == 1
    asked = [method for method, _ in nodes[0].asked]
    assert asked.count("getSignaturesForAddress") >= 4  # by pages
    assert asked.count("getTransaction") < 7  # about none that has failed
    rig.pay(3)
    assert (rig.on_chain(1), is_clean(rig)) == (1000, True)


def named_often(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> str:
    """A batch that strangers keep from being paid, whose marker they name more often than is read; the marker."""
    rig.creator(1, 1000)
    (batch,) = rig.payouts.plan()
    rig.payouts.sign()
    strangers_lamports(rig)
    for _ in range(7):
        rig.chain.enqueue(rig.chain.airdrop(rig.treasury.marker(batch.id).address, 1))
    rig.advance(EXPIRED_BLOCKS)
    monkeypatch.setattr("ledger.chain.SIGNATURES_MAX", 2)
    monkeypatch.setattr("ledger.chain.TOUCHED_MAX", 4)
    return str(rig.treasury.marker(batch.id).address)


def test_a_marker_that_strangers_name_without_an_end_is_a_strangers_where_the_treasury_holds_all(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker = named_often(rig, monkeypatch)
    assert reconcile(rig.connection, rig.rpc, rig.treasury).ok
    rig.advance(2)
    assert resolve(rig).ended is None  # the treasury was compared before: what it has paid since would not show
    rig.advance(2)
    assert reconcile(rig.connection, rig.rpc, rig.treasury).ok
    found = resolve(rig)
    assert found.ended, found.outcome
    assert (found.evidence["marker"]["stands"], marker in found.evidence["treasury"]["why"]) == (True, True)
    thaw(rig)
    rig.pay(4)
    assert (rig.on_chain(1), is_clean(rig)) == (1000, True)


def test_a_treasury_that_holds_less_than_the_journal_says_ends_no_batch(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    named_often(rig, monkeypatch)
    held = rig.chain.svm.get_account(rig.treasury.payer.token_account)
    assert held is not None
    poor = held.data[:64] + (POOL - 1000).to_bytes(8, "little") + held.data[72:]
    rig.chain.svm.set_account(rig.treasury.payer.token_account, Account(held.lamports, poor, held.owner))
    rig.advance(FINAL_BLOCKS)
    assert resolve(rig).ended is None
    assert not reconcile(rig.connection, rig.rpc, rig.treasury).ok
    found = resolve(rig)
    assert (found.ended, "the journal differ" in str(found.outcome)) == (False, True)
    assert rig.balance("in_flight") == 1000


def test_an_order_that_has_made_chain_and_journal_agree_leaves_a_batch_open(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    named_often(rig, monkeypatch)
    lines = [(book.account(rig.connection, "chain"), 7), (book.account(rig.connection, "reward_pool"), -7)]
    entry = book.post(rig.connection, book.Entry("correction", "order:1", lines))
    rig.connection.execute(
        "INSERT INTO ledger.orders (kind, body, reason, ordered_by, ordered_as, expires_at, done_at, carried_out, outcome,"
        " entry_id) VALUES ('correction', '{}', 'asked', 1, 'ana', now() + interval '1 h', now(), true, 'booked', %s)",
        (entry.id,),
    )
    rig.connection.execute(
        "INSERT INTO ledger.reconciliations (slot, ok, journal_pix, chain_pix, journal_lamports, chain_lamports)"
        " VALUES (%s, true, 1, 1, 1, 1)",
        (rig.chain.height + 100,),
    )
    found = resolve(rig)
    assert (found.ended, "order 1 has moved" in str(found.outcome)) == (False, True)
    assert rig.balance("in_flight") == 1000


def test_a_transaction_at_a_marker_that_nobody_can_read_keeps_no_batch_open(pair: tuple[Rig, list[Node]]) -> None:
    rig, nodes = pair
    rig.creator(1, 1000)
    rig.payouts.plan()
    rig.payouts.sign()
    strangers_lamports(rig)
    rig.advance(EXPIRED_BLOCKS)
    (batch,) = rig.rows("SELECT id FROM ledger.batches")[0]
    (named,) = rig.chain.store.mentions(
        bytes(rig.treasury.marker(batch).address), before=None, until=None, height_max=10**9, limit=9
    )

    def told(answer: Any) -> Any:
        return ["no"] if answer and named.signature in answer["transaction"]["signatures"] else answer

    for node in nodes:
        node.lies["getTransaction"] = told
    assert resolve(rig).ended is None
    rig.advance(1)
    assert reconcile(rig.connection, rig.rpc, rig.treasury).ok
    found = resolve(rig)
    assert (found.ended, named.signature in found.evidence["treasury"]["why"]) == (True, True)
    thaw(rig)
    rig.pay(4)
    assert (rig.on_chain(1), rig.balance("in_flight")) == (1000, 0)


# ── What was given up, gave its money back, and is on chain ────────────────────────────────────────────────────────


def cut(journal: Connection[Any], version: str = "v1") -> tuple[Rig, list[Node], bytes, str]:
    """A batch that every node denied was given back and cut in two; its transaction can land. Its bytes, and its id."""
    chain = new_chain()
    nodes = [Node("a", chain), Node("b", chain)]
    rig = Rig(journal, chain, nodes, version=version)
    raw = given_up(rig)
    (batch,) = rig.rows("SELECT id FROM ledger.batches")[0]
    lie(nodes, 1 if version == "v1" else 2)
    rig.payouts.sign()
    for node in nodes:
        node.lies.clear()
    assert rig.states() == {"cancelled": 1, "planned": 2}
    return rig, nodes, raw, batch


def ask_for(rig: Rig, batch: str) -> resolutions.Resolution:
    number = resolutions.ask(rig.connection, batch, "ana")
    rig.connection.commit()
    rig.payouts.resolve()
    return resolutions.one(rig.connection, number)


@pytest.mark.parametrize("version", ["v1", "legacy"])
@pytest.mark.parametrize("is_signed", [True, False])
def test_what_was_given_back_and_landed_is_booked_once_out_of_what_is_owed(
    journal: Connection[Any], version: str, is_signed: bool
) -> None:
    rig, _, raw, batch = cut(journal, version)
    if is_signed:
        assert len(rig.payouts.sign()) == 2
    rig.rpc.send([raw])
    rig.advance(1)
    rig.payouts.send()
    rig.pay(3)
    assert (rig.on_chain(1), rig.on_chain(2)) == (1000, 1000)
    assert PAID_UNKNOWN in rig.freezes()
    found = resolve(rig)
    assert (found.ended, f"batch {batch}" in str(found.outcome)) == (False, True)  # not its own marker alone counts
    assert rig.balance("in_flight") == 2000
    found = ask_for(rig, batch)
    assert found.ended, found.outcome
    assert rig.states() == {"cancelled": 3}
    assert (rig.balance("payable", 1), rig.balance("payable", 2), rig.balance("in_flight")) == (0, 0, 0)
    assert reconcile(rig.connection, rig.rpc, rig.treasury).ok
    got = earnings.of(rig.connection, 1)
    assert (got.paid, got.on_chain, got.accrued) == (1000, 1000, 1000)
    thaw(rig)
    rig.earn(1, 300)
    rig.pay(4)
    assert (rig.on_chain(1), rig.on_chain(2), is_clean(rig)) == (1300, 1000, True)


def test_what_is_given_back_by_a_person_whom_every_node_lied_to_is_guarded_still(journal: Connection[Any]) -> None:
    rig, nodes, raw, batch = cut(journal)
    lie(nodes)
    assert not ask_for(rig, batch).ended  # that nodes deny it takes no guard away
    for (child,) in rig.rows("SELECT id FROM ledger.batches WHERE state = 'planned'"):
        assert ask_for(rig, child).ended
    for node in nodes:
        node.lies.clear()
    assert rig.states() == {"cancelled": 3}
    rig.payouts.plan()
    assert len(rig.payouts.sign()) == 1
    rig.rpc.send([raw])
    rig.advance(1)
    rig.payouts.send()
    rig.pay(3)
    assert (rig.on_chain(1), rig.on_chain(2)) == (1000, 1000)
    assert ask_for(rig, batch).ended
    assert (rig.balance("payable", 1), rig.balance("payable", 2), rig.balance("in_flight")) == (0, 0, 0)
    assert is_clean(rig)


def test_a_stranger_who_pays_for_the_marker_of_what_was_given_up_stops_nobody_for_good(
    journal: Connection[Any],
) -> None:
    rig, _, _, batch = cut(journal)
    rig.chain.enqueue(rig.chain.airdrop(rig.treasury.marker(batch).address, rig.treasury.marker_rent))
    rig.advance(EXPIRED_BLOCKS)
    rig.pay(2)
    assert (rig.freezes(), rig.on_chain(1)) == ([PAID_UNKNOWN], 0)
    found = resolve(rig)
    assert (found.ended, f"batch {batch}" in str(found.outcome)) == (False, True)
    found = ask_for(rig, batch)
    assert (found.ended, "stranger" in str(found.outcome)) == (True, True)
    thaw(rig)
    rig.pay(4)
    assert (rig.on_chain(1), rig.on_chain(2), rig.balance("in_flight"), is_clean(rig)) == (1000, 1000, 0, True)


def test_what_failed_at_a_strangers_marker_is_paid_once_a_person_has_found_whose_it_is(
    journal: Connection[Any],
) -> None:
    rig, _, _, batch = cut(journal)
    assert len(rig.payouts.sign()) == 2
    rig.chain.enqueue(rig.chain.airdrop(rig.treasury.marker(batch).address, rig.treasury.marker_rent))
    rig.advance(1)
    rig.payouts.send()
    rig.advance(EXPIRED_BLOCKS)
    rig.pay(2)
    assert (rig.freezes(), rig.balance("in_flight")) == ([PAID_UNKNOWN], 2000)
    assert ask_for(rig, batch).ended
    thaw(rig)
    rig.pay(5)
    assert rig.freezes() == []
    assert (rig.on_chain(1), rig.on_chain(2), rig.balance("in_flight"), is_clean(rig)) == (1000, 1000, 0, True)


def test_a_marker_that_has_guarded_a_payment_is_still_a_strangers(journal: Connection[Any]) -> None:
    rig, _, _, batch = cut(journal)
    stops.hold(rig.connection, 2, "asked")
    rig.payouts = rig.fresh()
    rig.pay(3)
    assert (rig.on_chain(1), rig.on_chain(2)) == (1000, 0)
    rig.chain.enqueue(rig.chain.airdrop(rig.treasury.marker(batch).address, rig.treasury.marker_rent))
    rig.advance(EXPIRED_BLOCKS)
    (held,) = stops.in_force(rig.connection)
    stops.release(rig.connection, held.name, "ana")
    rig.pay(2)
    assert (rig.freezes(), rig.on_chain(2)) == ([PAID_UNKNOWN], 0)
    assert ask_for(rig, batch).ended
    thaw(rig)
    rig.pay(4)
    assert (rig.on_chain(1), rig.on_chain(2), is_clean(rig)) == (1000, 1000, True)


def late(rig: Rig) -> str:
    """Whatever was given up has been read of the chain's history by now, and nobody knows what it was; its batch."""
    reconcile(rig.connection, rig.rpc, rig.treasury)
    assert UNKNOWN in rig.freezes()
    return str(rig.rows("SELECT batch_id FROM ledger.attempts WHERE state = 'expired'")[0][0])


def assert_booked(rig: Rig, batch: str) -> None:
    found = ask_for(rig, batch)
    assert found.ended, found.outcome
    thaw(rig)
    assert reconcile(rig.connection, rig.rpc, rig.treasury).ok
    assert (rig.freezes(), is_clean(rig)) == ([], True)


def test_the_first_transaction_of_a_batch_that_fails_after_the_second_has_landed_is_booked(rig: Rig) -> None:
    rig.creator(1, 1000)
    rig.payouts.plan()
    rig.payouts.sign()
    raw = bytes(rig.rows("SELECT raw FROM ledger.attempts")[0][0])
    rig.fresh(Hasty).settle()
    rig.advance(2)
    rig.pay(2)
    assert (rig.states(), rig.on_chain(1)) == ({"posted": 1}, 1000)
    rig.rpc.send([raw])
    rig.advance(FINAL_BLOCKS)
    assert_booked(rig, late(rig))
    assert rig.rows("SELECT n, state FROM ledger.attempts ORDER BY n") == [(1, "failed"), (2, "landed")]


@pytest.mark.parametrize("is_tried_again", [True, False])
def test_token_accounts_that_were_opened_late_are_known(rig: Rig, is_tried_again: bool) -> None:
    rig.creator(1, 1000, account=False)
    rig.payouts.plan()
    rig.payouts.sign()
    raw = bytes(rig.rows("SELECT raw FROM ledger.attempts")[0][0])
    rig.fresh(Hasty).settle()
    if is_tried_again:
        rig.advance(2)
        rig.pay(2)
        assert rig.states()["posted"] >= 1
    else:
        rig.advance(EXPIRED_BLOCKS - FINAL_BLOCKS - 40)
        stops.hold(rig.connection, 1, "asked")
        rig.connection.commit()
        rig.payouts = rig.fresh(Credulous)
        rig.payouts.sign()
        assert rig.states() == {"cancelled": 1}
    rig.rpc.send([raw])
    rig.advance(FINAL_BLOCKS)
    rig.payouts = rig.fresh()
    rig.payouts.settle()
    assert_booked(rig, late(rig))
    assert rig.rows("SELECT creator_id FROM ledger.token_accounts") == [(1,)]


def test_what_fails_after_another_of_its_batch_was_booked_late_is_booked_too(journal: Connection[Any]) -> None:
    chain = new_chain()
    nodes = [Node("a", chain), Node("b", chain)]
    rig = Rig(journal, chain, nodes)
    raws = [given_up(rig)]
    rig.advance(2)
    rig.payouts.sign()
    raws.append(bytes(rig.rows("SELECT raw FROM ledger.attempts WHERE n = 2")[0][0]))
    rig.fresh(Hasty).settle()
    lie(nodes)
    rig.payouts.sign()
    for node in nodes:
        node.lies.clear()
    assert rig.states() == {"cancelled": 1, "planned": 2}
    stops.freeze(rig.connection, "somebody looks", {})
    rig.connection.commit()
    for raw in raws:
        rig.rpc.send([raw])
        rig.advance(FINAL_BLOCKS)
        reconcile(rig.connection, rig.rpc, rig.treasury)
        batch = rig.rows("SELECT batch_id FROM ledger.attempts WHERE state = 'expired'")[0][0]
        found = ask_for(rig, batch)
        assert found.ended, found.outcome
    thaw(rig)
    assert reconcile(rig.connection, rig.rpc, rig.treasury).ok
    assert rig.rows("SELECT n, state FROM ledger.attempts ORDER BY n") == [(1, "landed"), (2, "failed")]
    assert (rig.on_chain(1), rig.on_chain(2), rig.balance("in_flight"), is_clean(rig)) == (1000, 1000, 0, True)


def test_what_was_given_back_and_has_failed_costs_its_fee_and_guards_nothing(journal: Connection[Any]) -> None:
    rig, _, raw, batch = cut(journal)
    rig.put_frozen(2)
    rig.rpc.send([raw])
    rig.advance(FINAL_BLOCKS)
    found = ask_for(rig, batch)
    assert (found.ended, "has failed" in str(found.outcome)) == (True, True), found.outcome
    assert rig.rows("SELECT state FROM ledger.attempts") == [("failed",)]
    rig.put_account(2)
    rig.pay(4)
    assert (rig.on_chain(1), rig.on_chain(2), rig.balance("in_flight"), is_clean(rig)) == (1000, 1000, 0, True)


def test_what_was_given_back_and_landed_is_booked_with_its_rival_that_failed(pair: tuple[Rig, list[Node]]) -> None:
    rig, nodes = pair
    first = given_up(rig)
    rig.advance(2)
    rig.payouts.sign()
    rig.fresh(Hasty).settle()
    second = bytes(rig.rows("SELECT raw FROM ledger.attempts WHERE n = 2")[0][0])
    (batch,) = rig.rows("SELECT id FROM ledger.batches")[0]
    lie(nodes)
    rig.payouts.sign()
    for node in nodes:
        node.lies.clear()
    assert rig.states() == {"cancelled": 1, "planned": 2}
    rig.rpc.send([first])
    rig.advance(1)
    rig.rpc.send([second])
    rig.advance(FINAL_BLOCKS)
    found = ask_for(rig, batch)
    assert found.ended, found.outcome
    assert rig.rows("SELECT n, state FROM ledger.attempts ORDER BY n") == [(1, "landed"), (2, "failed")]
    assert (rig.states(), rig.balance("payable", 1), rig.balance("payable", 2)) == ({"cancelled": 3}, 0, 0)
    assert (rig.on_chain(1), rig.on_chain(2), rig.balance("in_flight"), is_clean(rig)) == (1000, 1000, 0, True)


@pytest.mark.parametrize("owed", [0, 300])
def test_what_was_paid_twice_is_the_platforms_loss_and_stops_payouts_until_a_person_has_looked(
    journal: Connection[Any], owed: int
) -> None:
    """A marker guards in one order only: what was planned since has landed, and then what was given up."""
    rig, _, raw, batch = cut(journal)
    rig.pay(3)
    rig.rpc.send([raw])
    rig.advance(FINAL_BLOCKS)
    assert (rig.on_chain(1), rig.on_chain(2)) == (2000, 2000)
    if owed:
        rig.earn(1, owed)
    lost, pool = 2000 - owed, rig.balance("reward_pool")
    reconcile(rig.connection, rig.rpc, rig.treasury)
    assert UNKNOWN in rig.freezes()
    found = ask_for(rig, batch)
    assert (found.ended, f"{lost} which they were not owed" in str(found.outcome)) == (True, True)
    assert PAID_TWICE in rig.freezes()
    assert (rig.balance("payable", 1), rig.balance("reward_pool")) == (0, pool - lost)
    thaw(rig)
    assert reconcile(rig.connection, rig.rpc, rig.treasury).ok
    rig.earn(1, 400)
    rig.pay(3)
    assert (rig.on_chain(1), rig.freezes(), is_clean(rig)) == (2400, [], True)


def test_a_loss_that_nothing_covers_is_not_booked(journal: Connection[Any]) -> None:
    rig, _, raw, batch = cut(journal)
    rig.pay(3)
    rig.rpc.send([raw])
    rig.advance(FINAL_BLOCKS)
    rig.creator(3, rig.balance("reward_pool") - 500, account=False)
    found = ask_for(rig, batch)
    assert (found.ended, "1500 was paid twice" in str(found.outcome)) == (False, True)
    assert rig.balance("reward_pool") == 500


def aged(rig: Rig, what: str) -> None:
    """Everything that was signed is changed behind the ledger's back."""
    rig.connection.execute("SET session_replication_role = replica")
    rig.connection.execute(f"UPDATE ledger.attempts SET {what}")
    rig.connection.execute("SET session_replication_role = DEFAULT")
    rig.connection.commit()


@pytest.mark.parametrize("is_asked", [True, False])
def test_a_transaction_whose_last_block_never_comes_is_over_after_a_week(rig: Rig, is_asked: bool) -> None:
    """An earlier release believed a single node of how long a blockhash lives."""
    rig.creator(1, 1000)
    rig.payouts.plan()
    rig.payouts.sign()
    rig.advance(EXPIRED_BLOCKS + 10)
    aged(rig, "last_valid_block_height = 1000000000000000000")
    if is_asked:
        found = resolve(rig)
        assert (found.ended, "may still land" in str(found.outcome)) == (False, True)
    else:
        rig.payouts.settle()
        assert rig.rows("SELECT state FROM ledger.attempts") == [("live",)]
    aged(rig, "signed_at = now() - interval '8 days'")
    if is_asked:
        found = resolve(rig)
        assert found.ended, found.outcome
    rig.pay(4)
    assert (rig.on_chain(1), rig.balance("in_flight"), is_clean(rig)) == (1000, 0, True)


@pytest.mark.parametrize("paid", [True, False])
def test_a_marker_under_which_somebody_has_paid_is_no_strangers(pair: tuple[Rig, list[Node]], paid: bool) -> None:
    rig, nodes = pair
    rig.creator(1, 1000)
    rig.creator(2, 1000)
    rig.payouts.plan()
    rig.payouts.sign()
    strangers_lamports(rig)
    rig.advance(EXPIRED_BLOCKS + 10)

    def told(answer: Any) -> Any:
        if answer is None or not paid:
            return None
        token = {"accountIndex": 0, "mint": rig.treasury.mint, "uiTokenAmount": {"amount": "1000"}}
        keys = [rig.treasury.token_account, *answer["transaction"]["message"]["accountKeys"][1:]]
        answer["transaction"]["message"]["accountKeys"] = keys
        answer["meta"]["preTokenBalances"] = [token]
        return answer

    for node in nodes if paid else nodes[:1]:
        node.lies["getTransaction"] = told
    stops.freeze(rig.connection, "somebody looks", {})
    found = resolve(rig)
    assert (found.ended, ("has paid" if paid else "do not agree") in str(found.outcome)) == (False, True)
    assert rig.balance("in_flight") == 2000


def test_without_markers_two_that_have_landed_are_for_a_person(journal: Connection[Any]) -> None:
    rig = Rig(journal, new_chain(), settings=dataclasses.replace(EAGER, marker_accounts=False))
    rig.creator(1, 1000)
    rig.payouts.run_once()
    rig.fresh(Hasty).settle()
    rig.advance(2)
    rig.payouts.sign()
    rig.payouts.send()
    rig.advance(FINAL_BLOCKS)
    assert rig.on_chain(1) == 2000
    number = resolutions.ask(rig.connection, rig.rows("SELECT id FROM ledger.batches")[0][0], "ana")
    rig.payouts.resolve()
    found = resolutions.one(rig.connection, number)
    assert (found.ended, "2 transactions" in str(found.outcome)) == (False, True)


def test_without_markers_what_never_landed_goes_back(journal: Connection[Any]) -> None:
    rig = Rig(journal, new_chain(), settings=dataclasses.replace(EAGER, marker_accounts=False))
    rig.creator(1, 1000)
    rig.payouts.plan()
    stops.freeze(rig.connection, "somebody looks", {})
    assert resolve(rig).ended
    assert (rig.states(), rig.balance("payable", 1)) == ({"cancelled": 1}, 1000)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE ledger.resolutions SET outcome = 'paid'",
        "UPDATE ledger.resolutions SET asked_by = 'bob'",
        "DELETE FROM ledger.resolutions",
        "DELETE FROM ledger.own_addresses",
    ],
)
def test_what_was_asked_and_found_stays_written(rig: Rig, change: str) -> None:
    rig.creator(1, 1000)
    rig.payouts.plan()
    stops.freeze(rig.connection, "somebody looks", {})
    assert resolve(rig).ended
    with pytest.raises(Rejected, match=r"keeps what it says|append-only"), book.refusals():
        rig.connection.execute(change)
    rig.connection.rollback()
