"""How what was signed ends: what is asked of nodes and when, what is kept at once, and what others' ends leave alone."""

from __future__ import annotations

from typing import Any

import pytest
from psycopg import Connection
from psycopg.pq import TransactionStatus

from cluster.errors import Temporary
from ledger.rail import PAID_UNKNOWN
from ledger.settling import LANDED_LATE
from tests.ledger.chains import EXPIRED_BLOCKS, FINAL_BLOCKS, Rig, assert_paid, attempts, new_chain
from tests.ledger.test_late_payouts import Hasty
from tests.ledger.test_two_walls import Node


@pytest.fixture
def pair(journal: Connection[Any]) -> tuple[Rig, list[Node]]:
    """A ledger with two nodes that a test can spoil."""
    chain = new_chain()
    nodes = [Node("a", chain), Node("b", chain)]
    return Rig(journal, chain, nodes), nodes


def sign(rig: Rig, *creators: int) -> str:
    """A batch of its own for new creators, signed."""
    for creator in creators:
        rig.creator(creator, 1000)
    assert len(rig.payouts.plan()) == 1
    (signature,) = rig.payouts.sign()
    return signature


def settle(rig: Rig, nodes: list[Node]) -> set[str]:
    """A round; what it asks of nodes."""
    for node in nodes:
        node.asked.clear()
    rig.payouts.settle()
    return {method for node in nodes for method, _ in node.asked}


def state_of(rig: Rig, signature: str) -> str:
    return str(rig.rows("SELECT state FROM ledger.attempts WHERE signature = %s", signature)[0][0])


# ── What is asked ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_while_nothing_is_signed_no_node_is_asked(pair: tuple[Rig, list[Node]]) -> None:
    rig, nodes = pair
    assert settle(rig, nodes) == set()
    rig.creator(1, 1000)
    rig.payouts.plan()
    assert settle(rig, nodes) == set()
    rig.pay(2)
    assert settle(rig, nodes) == set()


def test_no_transaction_of_the_database_is_open_while_nodes_are_asked(pair: tuple[Rig, list[Node]]) -> None:
    """They may take seconds to answer."""
    rig, nodes = pair
    sign(rig, 1)
    seen: list[TransactionStatus] = []

    def noted(told: Any) -> Any:
        seen.append(rig.connection.info.transaction_status)
        return told

    for node in nodes:
        node.lies["getSignatureStatuses"] = noted
    rig.payouts.settle()
    assert set(seen) == {TransactionStatus.IDLE}


def test_what_may_still_land_costs_one_look_a_round(pair: tuple[Rig, list[Node]]) -> None:
    rig, nodes = pair
    signature = sign(rig, 1)
    assert settle(rig, nodes) == {"getSignatureStatuses", "getEpochInfo"}
    rig.advance(EXPIRED_BLOCKS - 10)
    assert settle(rig, nodes) == {"getSignatureStatuses", "getEpochInfo"}
    assert state_of(rig, signature) == "live"


def knows(signature: str, level: str, slot: int) -> Any:
    """A node that knows a transaction, whatever is so."""

    def told(answer: Any) -> Any:
        answer["value"] = [{"slot": slot, "confirmationStatus": level, "confirmations": 1, "err": None}]
        return answer

    return told


@pytest.mark.parametrize("level", ["processed", "confirmed"])
@pytest.mark.parametrize("place", [0, 1])
def test_what_a_node_knows_is_waited_for_and_not_given_up(pair: tuple[Rig, list[Node]], level: str, place: int) -> None:
    rig, nodes = pair
    signature = sign(rig, 1)
    rig.advance(EXPIRED_BLOCKS + 10)
    nodes[place].lies["getSignatureStatuses"] = knows(signature, level, 10)
    assert settle(rig, nodes) == {"getSignatureStatuses"}
    assert state_of(rig, signature) == "live"
    nodes[place].lies.clear()
    rig.payouts.settle()
    assert state_of(rig, signature) == "expired"


def test_a_node_whose_statuses_lag_keeps_nothing_from_being_settled(pair: tuple[Rig, list[Node]]) -> None:
    rig, nodes = pair
    sign(rig, 1)
    rig.payouts.send()
    rig.advance(FINAL_BLOCKS)
    nodes[1].behind["getSignatureStatuses"] = FINAL_BLOCKS - 1  # it has seen it, and not that it is final
    rig.payouts.settle()
    assert_paid(rig, {1: 1000})


def test_what_one_node_alone_calls_final_is_not_ended_by_its_word(pair: tuple[Rig, list[Node]]) -> None:
    rig, nodes = pair
    signature = sign(rig, 1)
    nodes[0].lies["getSignatureStatuses"] = knows(signature, "finalized", 10)
    rig.advance(EXPIRED_BLOCKS + 10)
    rig.payouts.settle()
    assert (state_of(rig, signature), rig.balance("in_flight")) == ("live", 1000)


def forget_after_one_look(nodes: list[Node]) -> None:
    """Nodes that know a transaction once, and then no more; its marker they have not come to yet."""
    for node in nodes:
        looks = [0]

        def told(answer: Any, looks: list[int] = looks) -> Any:
            looks[0] += 1
            return answer if looks[0] == 1 else {**answer, "value": [None] * len(answer["value"])}

        node.lies["getSignatureStatuses"] = told
        node.lies["getMultipleAccounts"] = lambda answer: {**answer, "value": [None] * len(answer["value"])}


def test_what_was_found_to_be_final_is_not_given_up_in_the_same_round(pair: tuple[Rig, list[Node]]) -> None:
    rig, nodes = pair
    sign(rig, 1)
    rig.payouts.send()
    rig.advance(EXPIRED_BLOCKS + 10)
    forget_after_one_look(nodes)
    rig.payouts.settle()
    for node in nodes:
        node.lies.clear()
    assert_paid(rig, {1: 1000})


def test_what_is_final_and_cannot_be_read_now_is_not_given_up(pair: tuple[Rig, list[Node]]) -> None:
    rig, nodes = pair
    signature = sign(rig, 1)
    rig.payouts.send()
    rig.advance(EXPIRED_BLOCKS + 10)
    forget_after_one_look(nodes)

    def away(_: Any) -> Any:
        raise Temporary("away")

    for node in nodes:
        node.lies["getTransaction"] = away
    rig.payouts.settle()
    assert state_of(rig, signature) == "live"
    for node in nodes:
        node.lies.clear()
    rig.payouts.settle()
    assert_paid(rig, {1: 1000})


@pytest.mark.parametrize("place", [0, 1])
def test_what_nodes_have_forgotten_is_not_given_up_while_one_of_them_has_its_marker(
    pair: tuple[Rig, list[Node]], place: int
) -> None:
    rig, nodes = pair
    signature = sign(rig, 1)
    rig.payouts.send()
    rig.advance(EXPIRED_BLOCKS + 10)
    for node in nodes:
        node.forgotten.add(signature)
    nodes[place].changes = lambda answer, _: {**answer, "value": [None] * len(answer["value"])}
    rig.payouts.settle()
    assert (state_of(rig, signature), rig.states()) == ("live", {"signed": 1})
    for node in nodes:
        node.forgotten.clear()
        node.changes = None
    rig.payouts.settle()
    assert_paid(rig, {1: 1000})


# ── What is kept ───────────────────────────────────────────────────────────────────────────────────────────────────


def kept(rig: Rig) -> list[tuple[Any, ...]]:
    """Attempts, batches and entries, after everything that was not committed is lost."""
    rig.connection.rollback()
    ends = rig.rows("SELECT a.state, b.state FROM ledger.attempts a JOIN ledger.batches b ON b.id = a.batch_id")
    return [*ends, *rig.rows("SELECT kind FROM ledger.entries ORDER BY id DESC LIMIT 1")]


def test_what_has_landed_is_kept_at_once(rig: Rig) -> None:
    sign(rig, 1)
    rig.payouts.send()
    rig.advance(FINAL_BLOCKS)
    rig.payouts.settle()
    assert kept(rig) == [("landed", "posted"), ("payout_settled",)]


def test_what_has_failed_is_kept_at_once(rig: Rig) -> None:
    sign(rig, 1)
    rig.put_frozen(1)
    rig.payouts.send()
    rig.advance(FINAL_BLOCKS)
    rig.payouts.settle()
    assert kept(rig) == [("failed", "failed"), ("payout_voided",)]
    assert list(rig.holds()) == [1]


def test_what_was_given_up_is_kept_at_once(rig: Rig) -> None:
    sign(rig, 1)
    rig.advance(EXPIRED_BLOCKS + 10)
    rig.payouts.settle()
    assert kept(rig)[0] == ("expired", "planned")


def test_what_landed_late_is_kept_at_once(rig: Rig) -> None:
    sign(rig, 1)
    rig.payouts.send()
    rig.fresh(Hasty).settle()
    rig.advance(FINAL_BLOCKS)
    rig.payouts.settle()
    assert kept(rig) == [("landed", "posted"), ("payout_settled",)]
    assert rig.freezes() == [LANDED_LATE]


# ── What landed late ───────────────────────────────────────────────────────────────────────────────────────────────


def given_up(rig: Rig, *creators: int) -> bytes:
    """A transaction that was given up at once, and can land still; its bytes."""
    signature = sign(rig, *creators)
    rig.fresh(Hasty).settle()
    return bytes(rig.rows("SELECT raw FROM ledger.attempts WHERE signature = %s", signature)[0][0])


def test_what_landed_late_waits_for_no_other_batch(rig: Rig) -> None:
    raw = given_up(rig, 1)
    rig.rpc.send([raw])
    rig.advance(1)
    rig.creator(2, 1000)
    rig.payouts.plan()
    assert len(rig.payouts.sign()) == 1  # of the other one: this one's marker is there
    rig.advance(FINAL_BLOCKS)
    rig.payouts.settle()
    assert rig.rows("SELECT creator_id, on_chain_pix FROM ledger.payouts ORDER BY 1") == [(1, 1000), (2, None)]
    assert rig.states() == {"posted": 1, "signed": 1}
    rig.payouts.send()
    rig.pay(2)
    assert (rig.on_chain(1), rig.on_chain(2), rig.balance("in_flight")) == (1000, 1000, 0)
    assert rig.freezes() == [LANDED_LATE]


def test_what_landed_late_is_booked_once_the_second_transaction_can_land_no_more(rig: Rig) -> None:
    raw = given_up(rig, 1)
    rig.advance(2)  # else the second transaction would be the first one, byte by byte
    (second,) = rig.payouts.sign()
    rig.rpc.send([raw])
    rig.advance(FINAL_BLOCKS)
    rig.payouts.settle()
    rig.connection.rollback()
    assert rig.freezes() == [LANDED_LATE]  # kept at once
    assert (state_of(rig, second), rig.states()) == ("live", {"signed": 1})
    rig.advance(EXPIRED_BLOCKS)
    rig.pay(2)
    assert [each[:2] for each in attempts(rig)] == [(1, "landed"), (2, "expired")]
    assert (rig.on_chain(1), rig.states()) == (1000, {"posted": 1})


def test_a_second_transaction_that_failed_at_the_marker_costs_its_fee_and_nothing_else(rig: Rig) -> None:
    raw = given_up(rig, 1)
    rig.advance(2)
    rig.payouts.sign()
    rig.rpc.send([raw])
    rig.advance(1)
    rig.payouts.send()
    rig.advance(FINAL_BLOCKS)
    rig.payouts.settle()
    assert [each[:2] for each in attempts(rig)] == [(1, "landed"), (2, "failed")]
    fees = 2 * 5000
    assert rig.balance("platform", asset="SOL") == 10**11 - fees - rig.treasury.marker_rent
    kinds = rig.rows("SELECT kind FROM ledger.entries ORDER BY id DESC LIMIT 2")
    assert {kind for (kind,) in kinds} == {"payout_settled", "payout_late"}
    assert (rig.on_chain(1), rig.balance("in_flight")) == (1000, 0)


def test_a_first_transaction_that_failed_is_booked_while_the_second_is_under_way(rig: Rig) -> None:
    raw = given_up(rig, 1, 2)
    rig.advance(2)
    (second,) = rig.payouts.sign()
    rig.put_frozen(2)
    rig.rpc.send([raw])
    rig.advance(FINAL_BLOCKS)
    rig.put_account(2)
    rig.payouts.settle()
    assert rig.rows("SELECT n, state FROM ledger.attempts ORDER BY n") == [(1, "failed"), (2, "live")]
    assert rig.balance("platform", asset="SOL") == 10**11 - 5000
    rig.payouts.send()
    rig.advance(FINAL_BLOCKS)
    rig.payouts.settle()
    assert state_of(rig, second) == "landed"
    assert (rig.on_chain(1), rig.on_chain(2), rig.balance("in_flight")) == (1000, 1000, 0)


# ── What it did ────────────────────────────────────────────────────────────────────────────────────────────────────

OTHER_DEED = "a transaction did something else than was signed"


def with_tokens(before: int, after: int) -> Any:
    """A node by which a transaction has also touched another token account."""

    def told(answer: Any) -> Any:
        if answer is not None:
            meta = answer["meta"]
            for name, amount in (("preTokenBalances", before), ("postTokenBalances", after)):
                meta[name] = [*(meta[name] or ()), {"accountIndex": 0, "uiTokenAmount": {"amount": str(amount)}}]
        return answer

    return told


@pytest.mark.parametrize("kind", ["payout", "accounts"])
@pytest.mark.parametrize(("after", "is_planned"), [(7, True), (8, False), (6, False)])
def test_what_moved_other_tokens_than_planned_is_for_a_person(
    pair: tuple[Rig, list[Node]], kind: str, after: int, is_planned: bool
) -> None:
    rig, nodes = pair
    rig.creator(1, 1000, account=kind == "payout")
    rig.payouts.plan()
    rig.payouts.sign()
    rig.payouts.send()
    rig.advance(FINAL_BLOCKS)
    for node in nodes:
        node.lies["getTransaction"] = with_tokens(7, after)
    rig.payouts.settle()
    assert rig.freezes() == ([] if is_planned else [OTHER_DEED])
    assert rig.states() == ({"posted": 1} if is_planned else {"signed": 1})


def test_two_creators_of_one_wallet_are_paid_by_one_transaction(rig: Rig) -> None:
    rig.creator(1, 1000)
    rig.creator(2, 300, account=False)
    rig.connection.execute(
        "UPDATE ledger.wallets SET wallet = (SELECT wallet FROM ledger.wallets WHERE creator_id = 1) WHERE creator_id = 2"
    )
    rig.connection.commit()
    rig.pay(3)
    assert (rig.on_chain(1), rig.states(), rig.freezes()) == (1300, {"posted": 1}, [])
    assert rig.rows("SELECT creator_id, on_chain_pix FROM ledger.payouts ORDER BY 1") == [(1, 1000), (2, 300)]


@pytest.mark.parametrize("version", ["legacy", "v1"])
def test_a_first_transaction_that_fails_at_its_marker_says_that_it_was_paid(
    journal: Connection[Any], version: str
) -> None:
    """As after a restore: it was signed and paid before, and nobody knows."""
    from solders.account import Account

    from ledger import packing

    rig = Rig(journal, new_chain(), version=version)
    rig.creator(1, 1000)
    (batch,) = rig.payouts.plan()
    rig.payouts.sign()
    mark = Account(rig.treasury.marker_rent, b"", packing.SYSTEM_PROGRAM)
    rig.chain.svm.set_account(rig.treasury.marker(batch.id).address, mark)
    rig.payouts.send()
    rig.advance(FINAL_BLOCKS)
    rig.payouts.settle()
    assert (rig.freezes(), rig.holds(), rig.balance("in_flight")) == ([PAID_UNKNOWN], {}, 1000)
    rig.rpc.close()
