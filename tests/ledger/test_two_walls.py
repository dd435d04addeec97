"""Nodes that lag, lie, forget or are ill: nobody is paid twice for them, and nobody innocent is held."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import dataclasses
import itertools
import json
import random
from collections.abc import Sequence
from typing import Any

import pytest
from psycopg import Connection
from solders.account import Account
from solders.hash import Hash
from solders.pubkey import Pubkey
from solders.signature import Signature

from cluster.errors import Temporary
from ledger import chain, packing, resolutions, stops, verdict
from ledger import reconcile as reconciling
from ledger.chain import RpcRefusal
from ledger.localnet.methods import RpcError, answer
from ledger.rail import PAID_UNKNOWN
from ledger.reconcile import MISMATCH, reconcile
from ledger.settings import Economics
from ledger.settling import IN_VAIN, LANDED_LATE
from ledger.signing import TREASURY_FROZEN
from ledger.verdict import Fault
from tests.ledger.chains import (
    EAGER,
    EXPIRED_BLOCKS,
    FINAL_BLOCKS,
    RENT,
    LocalNode,
    Rig,
    assert_paid,
    attempts,
    new_chain,
)
from tests.ledger.simulator.nodes import View
from tests.ledger.test_late_payouts import Hasty

FROZEN = {"Custom": 17}


class Node(LocalNode):
    """A node that can be behind, forgetful or a liar, method by method."""

    def __init__(self, name: str, chain: Any) -> None:
        super().__init__(name, chain)
        self.behind: dict[str, int] = {}  # blocks, by method
        self.forgotten: set[str] = set()  # signatures
        self.lies: dict[str, Any] = {}  # by method: what becomes of the honest answer
        self.changes: Any = None  # what becomes of accounts, by what was asked
        self.is_away = False
        self.away_for: set[str] = set()  # accounts that it says nothing about
        self.names: dict[str, list[Any]] = {}  # all that it says of these addresses' histories
        self.refused = ""  # a transaction, in base 64, that is not simulated
        self.asked: list[tuple[str, list[Any]]] = []

    async def call(self, method: str, params: list[Any]) -> Any:
        self.asked.append((method, params))
        if self.is_away or (method == "getMultipleAccounts" and self.away_for.intersection(params[0])):
            raise Temporary(f"{self.name} does not answer {method}")
        if method == "simulateTransaction" and params[0] == self.refused:
            raise RpcRefusal(-32602, "VersionedTransaction too large")
        view: Any = View(self.chain, self.behind[method]) if self.behind.get(method) else self.chain
        try:
            told = answer(view, method, params)
        except RpcError as error:
            raise RpcRefusal(error.code, error.message, error.data) from error
        if method == "getSignatureStatuses":
            known = zip(params[0], told["value"], strict=True)
            told["value"] = [None if name in self.forgotten else status for name, status in known]
        if method == "getSignaturesForAddress":
            told = self.names.get(params[0], told)
        if method == "getMultipleAccounts" and self.changes is not None:
            told = self.changes(told, params)
        return self.lies[method](told) if method in self.lies else told


@pytest.fixture
def pair(journal: Connection[Any]) -> tuple[Rig, list[Node]]:
    """A ledger with two nodes that a test can spoil."""
    chain = new_chain()
    nodes = [Node("a", chain), Node("b", chain)]
    return Rig(journal, chain, nodes), nodes


@pytest.fixture
def three(journal: Connection[Any]) -> tuple[Rig, list[Node]]:
    """A ledger with three nodes that a test can spoil."""
    chain = new_chain()
    nodes = [Node(name, chain) for name in "abc"]
    return Rig(journal, chain, nodes), nodes


def given_up(rig: Rig, creators: Sequence[int] = (1, 2)) -> bytes:
    """A batch whose first transaction was given up at once, though it can land; returns its bytes."""
    for creator in creators:
        rig.creator(creator, 1000)
    rig.payouts.plan()
    rig.payouts.sign()
    rig.fresh(Hasty).settle()
    return bytes(rig.rows("SELECT raw FROM ledger.attempts")[0][0])


def test_a_marker_that_nodes_have_not_come_to_yet_is_not_missing(pair: tuple[Rig, list[Node]]) -> None:
    rig, nodes = pair
    raw = given_up(rig)
    rig.rpc.send([raw])
    rig.advance(3)
    for node in nodes:
        node.behind["getMultipleAccounts"] = 6
    rig.payouts.sign()
    assert rig.states() == {"planned": 1}
    for node in nodes:
        node.behind.clear()
    rig.pay(4)
    assert (rig.on_chain(1), rig.on_chain(2), rig.balance("in_flight")) == (1000, 1000, 0)
    assert rig.freezes() == [LANDED_LATE]


def test_failing_at_the_marker_is_proof_that_the_batch_was_paid(pair: tuple[Rig, list[Node]]) -> None:
    rig, nodes = pair
    raw = given_up(rig)
    rig.advance(2)  # else the second transaction would be the first one, byte by byte
    rig.payouts.sign()
    rig.rpc.send([raw])
    rig.advance(1)
    rig.payouts.send()
    rig.advance(FINAL_BLOCKS)
    first = rig.rows("SELECT signature FROM ledger.attempts WHERE n = 1")[0][0]
    for node in nodes:
        node.forgotten.add(first)
        node.behind["getMultipleAccounts"] = FINAL_BLOCKS + 10
    rig.payouts.settle()
    rig.payouts.plan()
    assert rig.states() == {"signed": 1}
    for node in nodes:
        node.forgotten.clear()
        node.behind.clear()
    rig.pay(4)
    assert (rig.on_chain(1), rig.on_chain(2), rig.balance("in_flight")) == (1000, 1000, 0)


def assert_ends_once(rig: Rig, raw: bytes, lands: bool) -> None:
    """What was given up pays both when it lands; when it never does, the other recipient alone is paid, by another."""
    if lands:
        rig.put_account(2)
        rig.rpc.send([raw])
        rig.pay(4)
        assert (rig.on_chain(1), rig.on_chain(2), rig.balance("in_flight")) == (1000, 1000, 0)
        return
    rig.advance(EXPIRED_BLOCKS)
    rig.pay(8)
    assert list(rig.holds()) == [2]
    assert_paid(rig, {1: 1000, 2: 0})


@pytest.mark.parametrize("lands", [True, False])
def test_money_goes_back_only_when_nothing_that_was_given_up_can_land(
    pair: tuple[Rig, list[Node]], lands: bool
) -> None:
    rig, _ = pair
    raw = given_up(rig)
    rig.put_frozen(2)
    rig.advance(2)
    rig.payouts.sign()
    assert (rig.states(), rig.holds()) == ({"planned": 1}, {})
    assert_ends_once(rig, raw, lands)


@pytest.mark.parametrize("lands", [True, False])
def test_a_second_transaction_that_fails_for_a_recipient_waits_for_the_first_one(
    pair: tuple[Rig, list[Node]], lands: bool
) -> None:
    rig, _ = pair
    raw = given_up(rig)
    rig.advance(2)  # else the second transaction would be the first one, byte by byte
    rig.payouts.sign()
    rig.put_frozen(2)
    rig.payouts.send()
    rig.advance(FINAL_BLOCKS)
    rig.payouts.settle()
    assert rig.states() == {"signed": 1}  # the first one can land for 150 blocks
    assert_ends_once(rig, raw, lands)


def lie(nodes: Sequence[Node], index: int = 1) -> None:
    """Every node says the same: time is long past, nothing has landed, and a recipient is at fault."""

    def refused(told: Any) -> Any:
        told["value"]["err"] = {"InstructionError": [index, FROZEN]}
        return told

    for node in nodes:
        node.lies = {
            "getEpochInfo": lambda told: {**told, "blockHeight": told["blockHeight"] + 500},
            "getSignatureStatuses": lambda told: {**told, "value": [None] * len(told["value"])},
            "simulateTransaction": refused,
        }


@pytest.mark.parametrize("version", ["v1", "legacy"])
def test_even_when_every_node_lies_what_a_batch_is_cut_into_cannot_pay_again(
    journal: Connection[Any], version: str
) -> None:
    chain = new_chain()
    nodes = [Node("a", chain), Node("b", chain)]
    rig = Rig(journal, chain, nodes, version=version)
    raw = given_up(rig)
    lie(nodes, 1 if version == "v1" else 2)
    rig.payouts.sign()
    assert rig.states() == {"cancelled": 1, "planned": 2}
    for node in nodes:
        node.lies.clear()
    assert len(rig.payouts.sign()) == 2
    rig.rpc.send([raw])
    rig.advance(1)
    rig.payouts.send()
    rig.pay(3)
    assert (rig.on_chain(1), rig.on_chain(2)) == (1000, 1000)
    assert PAID_UNKNOWN in rig.freezes()


def test_what_a_batch_is_cut_into_pays_where_the_batch_has_not(pair: tuple[Rig, list[Node]]) -> None:
    rig, nodes = pair
    given_up(rig)
    lie(nodes)
    rig.payouts.sign()
    for node in nodes:
        node.lies.clear()
    rig.pay(4)
    assert_paid(rig, {1: 1000, 2: 1000})
    assert rig.balance("platform", asset="SOL") == 10**11 - 2 * (5000 + rig.treasury.marker_rent)


# ── One node's trouble ─────────────────────────────────────────────────────────────────────────────────────────────

TROUBLES: list[Any] = [
    "BlockhashNotFound",
    "AccountNotFound",
    "InsufficientFundsForFee",
    "WouldExceedMaxBlockCostLimit",
    {"InsufficientFundsForRent": {"account_index": 0}},
    {"InstructionError": [1, {"Custom": 1}]},
    {"InstructionError": [2, FROZEN]},
]


@pytest.mark.parametrize("trouble", TROUBLES, ids=str)
def test_the_trouble_of_one_node_holds_nobody(pair: tuple[Rig, list[Node]], trouble: Any) -> None:
    rig, nodes = pair

    def ill(told: Any) -> Any:
        told["value"]["err"] = trouble
        return told

    nodes[0].lies["simulateTransaction"] = ill
    for creator in (1, 2, 3):
        rig.creator(creator, 1000)
    rig.pay(3)
    assert (rig.holds(), rig.freezes()) == ({}, [])
    assert_paid(rig, {1: 1000, 2: 1000, 3: 1000})


@pytest.mark.parametrize("trouble", TROUBLES[:-1], ids=str)
def test_what_is_nobodys_fault_is_waited_for(pair: tuple[Rig, list[Node]], trouble: Any) -> None:
    rig, nodes = pair

    def ill(told: Any) -> Any:
        told["value"]["err"] = trouble
        return told

    for node in nodes:
        node.lies["simulateTransaction"] = ill
    for creator in (1, 2, 3):
        rig.creator(creator, 1000)
    rig.pay(3)
    assert (rig.holds(), rig.freezes(), rig.states()) == ({}, [], {"planned": 1})
    for node in nodes:
        node.lies.clear()
    rig.pay(3)
    assert_paid(rig, {1: 1000, 2: 1000, 3: 1000})


def test_a_transaction_that_nodes_refuse_to_look_at_keeps_no_other_waiting(pair: tuple[Rig, list[Node]]) -> None:
    rig, nodes = pair
    planned = []
    for creator in (1, 2):
        rig.creator(creator, 1000)
        planned += rig.payouts.plan()
    raw = rig.treasury.unsigned(rig.payouts._built(planned)[planned[0].id])
    for node in nodes:
        node.refused = base64.b64encode(raw).decode()
    rig.pay(3)
    assert (rig.on_chain(1), rig.on_chain(2), rig.holds(), rig.freezes()) == (0, 1000, {}, [])
    for node in nodes:
        node.refused = ""
    rig.pay(3)
    assert_paid(rig, {1: 1000, 2: 1000})


def test_one_nodes_word_is_not_enough_to_hold_while_the_other_is_away(pair: tuple[Rig, list[Node]]) -> None:
    rig, nodes = pair

    def away(_: Any) -> Any:
        raise RpcRefusal(-32005, "Node is behind")

    rig.creator(1, 1000)
    rig.payouts.plan()
    rig.put_frozen(1)
    nodes[1].lies["simulateTransaction"] = away
    rig.payouts.sign()
    assert (rig.holds(), rig.states()) == ({}, {"planned": 1})
    nodes[1].lies.clear()
    rig.payouts.sign()
    assert (list(rig.holds()), rig.states()) == ([1], {"cancelled": 1})


def test_a_node_that_has_not_seen_a_token_account_opened_is_not_asked_about_it(pair: tuple[Rig, list[Node]]) -> None:
    rig, nodes = pair
    rig.creator(1, 1000, account=False)
    rig.pay(1)
    rig.payouts.settle()
    opened = rig.rows("SELECT slot FROM ledger.attempts")[0][0]
    nodes[0].behind["simulateTransaction"] = rig.chain.height - opened + 5
    rig.pay(3)
    asked = [params[1].get("minContextSlot") for method, params in nodes[1].asked if method == "simulateTransaction"]
    assert opened in asked
    assert_paid(rig, {1: 1000})


@pytest.mark.parametrize(
    ("error", "kind", "fault"),
    [
        ("BlockhashNotFound", "payout", Fault.NOBODY),
        ({"InsufficientFundsForRent": {"account_index": 3}}, "payout", Fault.NOBODY),
        ({"InsufficientFundsForRent": {"account_index": 3}}, "reclaim", Fault.RECIPIENT),
        ({"InstructionError": [0, {"Custom": 0}]}, "payout", Fault.NOBODY),  # it sets a limit
        ({"InstructionError": [1, {"Custom": 0}]}, "payout", Fault.LINEAGE),  # of another batch, before its own
        ({"InstructionError": [2, {"Custom": 0}]}, "payout", Fault.MARKER),
        ({"InstructionError": [2, {"Custom": 1}]}, "payout", Fault.NOBODY),
        ({"InstructionError": [2, "ComputationalBudgetExceeded"]}, "payout", Fault.NOBODY),
        ({"InstructionError": [3, FROZEN]}, "payout", Fault.RECIPIENT),
        ({"InstructionError": [3, {"Custom": 0}]}, "payout", Fault.RECIPIENT),
        ({"InstructionError": [3, {"Custom": 1}]}, "payout", Fault.NOBODY),  # the treasury's
        ({"InstructionError": [3, "ComputationalBudgetExceeded"]}, "payout", Fault.NOBODY),
        ({"InstructionError": [3, "ProgramFailedToComplete"]}, "accounts", Fault.NOBODY),
        ({"InstructionError": [3, "IllegalOwner"]}, "accounts", Fault.RECIPIENT),
    ],
)
def test_only_a_recipients_own_instruction_is_his_fault(error: Any, kind: str, fault: Fault) -> None:
    assert verdict.of(error, kind, guards=2, first=1) is fault


def test_a_failure_that_is_nobodys_fault_goes_back_and_is_paid_later(pair: tuple[Rig, list[Node]]) -> None:
    rig, _ = pair
    for creator in (1, 2):
        rig.creator(creator, 1000)
    rig.payouts.plan()
    rig.payouts.sign()
    held = rig.chain.svm.get_account(rig.treasury.payer.token_account)
    assert held is not None
    poor = bytearray(held.data)
    poor[64:72] = (500).to_bytes(8, "little")
    rig.chain.svm.set_account(rig.treasury.payer.token_account, Account(held.lamports, bytes(poor), held.owner))
    rig.payouts.send()
    rig.advance(FINAL_BLOCKS)
    rig.payouts.settle()
    assert (rig.states(), rig.holds(), rig.balance("in_flight")) == ({"failed": 1}, {}, 0)
    rig.chain.svm.set_account(rig.treasury.payer.token_account, held)
    rig.advance(FINAL_BLOCKS)
    rig.pay(4)
    assert_paid(rig, {1: 1000, 2: 1000})


def freeze_treasury(rig: Rig, state: int) -> None:
    held = rig.chain.svm.get_account(rig.treasury.payer.token_account)
    assert held is not None
    data = bytearray(held.data)
    data[108] = state
    rig.chain.svm.set_account(rig.treasury.payer.token_account, Account(held.lamports, bytes(data), held.owner))


@pytest.mark.parametrize("is_signed", [False, True])
def test_a_treasury_that_is_frozen_on_chain_stops_payouts_and_holds_nobody(
    pair: tuple[Rig, list[Node]], is_signed: bool
) -> None:
    rig, _ = pair
    for creator in (1, 2, 3):
        rig.creator(creator, 1000)
    rig.payouts.plan()
    if is_signed:
        rig.payouts.sign()
    freeze_treasury(rig, 2)
    rig.payouts.send()
    rig.advance(FINAL_BLOCKS)
    rig.payouts.settle()
    rig.pay(2)
    assert (rig.holds(), rig.freezes()) == ({}, [TREASURY_FROZEN])
    assert rig.states() == ({"failed": 1} if is_signed else {"planned": 1})
    freeze_treasury(rig, 1)
    rig.advance(FINAL_BLOCKS)
    stops.release(rig.connection, stops.in_force(rig.connection)[0].name, "ana")
    rig.connection.commit()
    rig.pay(4)
    assert_paid(rig, {1: 1000, 2: 1000, 3: 1000})


# ── How much a transaction takes ───────────────────────────────────────────────────────────────────────────────────


def taking(units: int | None) -> Any:
    """A node that says that every transaction takes so many compute units; None: it leaves them out."""

    def told(answer: Any) -> Any:
        answer["value"] |= {"unitsConsumed": units}
        if units is None:
            del answer["value"]["unitsConsumed"]
        return answer

    return told


@pytest.mark.parametrize("units", [1, 0, None, 10**9])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_how_much_a_transaction_takes_is_no_single_nodes_word(
    journal: Connection[Any], units: int | None, place: int
) -> None:
    chain = new_chain()
    nodes = [Node(name, chain) for name in "abc"]
    rig = Rig(journal, chain, nodes, version="legacy")
    nodes[place].lies["simulateTransaction"] = taking(units)
    size = rig.treasury.capacity("payout")
    for creator in range(1, 2 * size + 2):
        rig.creator(creator, 1000, account=creator != 1)
    rig.pay(6)
    assert "failed" not in rig.states()
    assert_paid(rig, dict.fromkeys(range(1, 2 * size + 2), 1000))


def test_how_much_it_takes_is_the_most_that_a_node_says_also_beside_one_that_is_ill(journal: Connection[Any]) -> None:
    chain = new_chain()
    nodes = [Node(name, chain) for name in "abc"]
    rig = Rig(journal, chain, nodes, version="legacy")

    def ill(told: Any) -> Any:
        told["value"]["err"] = "BlockhashNotFound"
        return told

    nodes[0].lies["simulateTransaction"] = taking(1)
    nodes[1].lies["simulateTransaction"] = ill
    rig.creator(1, 1000)
    rig.pay(3)
    assert rig.states() == {"posted": 1}
    assert_paid(rig, {1: 1000})


@pytest.mark.parametrize("creators", [1, 30])
def test_what_fails_again_and_again_through_nobodys_fault_freezes_payouts_instead_of_burning_fees(
    journal: Connection[Any], creators: int
) -> None:
    chain = new_chain()
    node = Node("alone", chain)
    rig = Rig(journal, chain, [node], version="legacy")
    node.lies["simulateTransaction"] = taking(1)
    for creator in range(1, creators + 1):
        rig.creator(creator, 1000)
    rig.pay(20)
    assert (rig.freezes(), rig.holds()) == ([IN_VAIN], {})
    signings = "SELECT count(DISTINCT signed_at), count(DISTINCT batch_id) FROM ledger.attempts"
    (signed, of_it), about = rig.rows(signings)[0], json.loads(stops.in_force(rig.connection)[0].detail)
    assert signed == rig.settings.failed_signings_day_max == len(about["failed"])
    assert (of_it > signed) == (creators > 1)  # of one signing many fail, and count once
    assert "unitsConsumed" in about["hint"]

    stops.release(rig.connection, stops.in_force(rig.connection)[0].name, "ana")
    rig.connection.commit()
    rig.pay(2)
    assert rig.freezes() == []  # those before it count no more
    node.lies.clear()
    rig.pay(4)
    assert_paid(rig, dict.fromkeys(range(1, creators + 1), 1000))


def test_what_fails_for_recipients_is_no_reason_to_freeze_payouts(rig: Rig) -> None:
    for creator in range(1, 8):
        rig.creator(creator, 1000)
        rig.payouts.plan()
        rig.payouts.sign()
        rig.put_frozen(creator)
        rig.payouts.send()
        rig.pay(2)
    assert rig.states() == {"failed": 7}
    assert (rig.freezes(), len(rig.holds())) == ([], 7)


# ── A node that is away ────────────────────────────────────────────────────────────────────────────────────────────


def try_to_pay(rig: Rig, rounds: int) -> None:
    for _ in range(rounds):
        with contextlib.suppress(Temporary):
            rig.payouts.run_once()
        rig.advance(FINAL_BLOCKS)


def test_while_one_node_of_two_is_away_what_is_signed_goes_out_and_nothing_else_is_signed(
    pair: tuple[Rig, list[Node]],
) -> None:
    """How long a blockhash lives is no single node's word."""
    rig, nodes = pair
    rig.creator(1, 1000)
    rig.payouts.plan()
    rig.payouts.sign()
    rig.creator(2, 1000)
    nodes[1].is_away = True
    try_to_pay(rig, 3)
    assert (rig.on_chain(1), rig.on_chain(2), rig.holds(), rig.freezes()) == (1000, 0, {}, [])
    nodes[1].is_away = False
    rig.pay(5)
    assert_paid(rig, {1: 1000, 2: 1000})


def test_a_wish_and_a_plan_that_wait_for_a_node_keep_no_others_waiting(pair: tuple[Rig, list[Node]]) -> None:
    rig, nodes = pair
    given_up(rig, (1,))
    (doubtful,) = rig.rows("SELECT id FROM ledger.batches")[0]
    stops.hold(rig.connection, 1, "asked")
    number = resolutions.ask(rig.connection, doubtful, "ana")
    rig.creator(2, 1000)
    rig.advance(EXPIRED_BLOCKS)
    nodes[1].away_for = {str(rig.treasury.marker(doubtful).address)}
    rig.payouts = rig.fresh()
    rig.pay(2)
    assert (resolutions.one(rig.connection, number).ended, rig.on_chain(2)) == (None, 1000)
    nodes[1].away_for = set()
    rig.pay(2)
    assert resolutions.one(rig.connection, number).ended
    assert (rig.on_chain(1), rig.balance("payable", 1), rig.balance("in_flight")) == (0, 1000, 0)


def test_a_round_says_what_it_could_not_do_after_it_has_done_the_rest(pair: tuple[Rig, list[Node]]) -> None:
    rig, nodes = pair
    given_up(rig, (1,))
    rig.advance(2)  # else the second transaction would be the first one, byte by byte
    rig.payouts.sign()
    rig.chain.pending.clear()
    rig.advance(EXPIRED_BLOCKS)
    rig.creator(2, 1000)
    rig.payouts.plan()
    rig.payouts.sign()
    nodes[1].is_away = True
    with pytest.raises(Temporary, match="1 of 2 RPC nodes"):
        rig.payouts.run_once()  # to give the second transaction up takes both
    rig.advance(2)
    assert rig.on_chain(2) == 1000


def test_what_nodes_cannot_tell_of_keeps_no_other_from_being_settled(pair: tuple[Rig, list[Node]]) -> None:
    rig, nodes = pair
    for creator in (1, 2):
        rig.creator(creator, 1000)
        rig.payouts.plan()
    untold = rig.payouts.sign()[0]
    rig.payouts.send()
    rig.advance(FINAL_BLOCKS)

    def away(told: Any) -> Any:
        if told is not None and untold in told["transaction"]["signatures"]:
            raise Temporary("it does not answer")
        return told

    for node in nodes:
        node.lies["getTransaction"] = away
    rig.payouts.settle()
    assert dict(rig.rows("SELECT signature = %s, state FROM ledger.attempts", untold)) == {
        True: "live",
        False: "landed",
    }
    for node in nodes:
        node.lies.clear()
    rig.pay(2)
    assert_paid(rig, {1: 1000, 2: 1000})


def test_a_plan_that_cannot_be_judged_now_keeps_no_other_waiting(pair: tuple[Rig, list[Node]]) -> None:
    rig, nodes = pair
    for creator in (1, 2):
        rig.creator(creator, 1000)
        rig.payouts.plan()
    rig.put_frozen(1)
    (number,) = rig.rows("SELECT batch_id FROM ledger.payouts WHERE creator_id = 1")[0]
    nodes[1].away_for = {str(rig.treasury.marker(number).address)}  # so that nobody can say whether it is on chain
    assert len(rig.payouts.sign()) == 1
    assert (rig.holds(), rig.states()) == ({}, {"planned": 1, "signed": 1})
    nodes[1].away_for = set()
    rig.pay(4)
    assert list(rig.holds()) == [1]
    assert_paid(rig, {1: 0, 2: 1000})


# ── One node's word of accounts ────────────────────────────────────────────────────────────────────────────────────


def changed(address: Pubkey, at: int, new: bytes) -> Any:
    """A node that says that an account's data is another at a place, whoever asks for it."""

    def told(answer: Any, params: list[Any]) -> Any:
        for name, account in zip(params[0], answer["value"], strict=True):
            if name == str(address) and account is not None:
                data = bytearray(base64.b64decode(account["data"][0]))
                data[at : at + len(new)] = new
                account["data"][0] = base64.b64encode(data).decode()
        return answer

    return told


@pytest.mark.parametrize(("at", "new"), [(108, b"\x02"), (64, bytes(8)), (64, b"\x01" * 8)])
@pytest.mark.parametrize("place", [0, 1])
def test_one_nodes_word_of_the_treasury_stops_and_freezes_nothing(
    pair: tuple[Rig, list[Node]], at: int, new: bytes, place: int
) -> None:
    rig, nodes = pair
    nodes[place].changes = changed(rig.treasury.payer.token_account, at, new)
    for creator in (1, 2):
        rig.creator(creator, 1000)
    rig.pay(3)
    reconcile(rig.connection, rig.rpc, rig.treasury)
    assert (rig.holds(), rig.freezes()) == ({}, [])
    assert (rig.on_chain(1), rig.on_chain(2)) == (1000, 1000)
    nodes[place].changes = None
    assert reconcile(rig.connection, rig.rpc, rig.treasury).ok
    assert_paid(rig, {1: 1000, 2: 1000})


def test_a_node_that_hides_what_has_moved_money_freezes_nothing(pair: tuple[Rig, list[Node]]) -> None:
    rig, nodes = pair
    assert reconcile(rig.connection, rig.rpc, rig.treasury).ok
    rig.chain.enqueue(rig.chain.airdrop(rig.treasury.payer.gas, 5000))
    rig.advance(FINAL_BLOCKS + 1)
    nodes[0].lies["getSignaturesForAddress"] = lambda _: []
    found = reconcile(rig.connection, rig.rpc, rig.treasury)
    assert (found.conclusive, found.ok, rig.freezes()) == (True, True, [])


def test_one_nodes_word_that_a_token_account_exists_holds_nobody(pair: tuple[Rig, list[Node]]) -> None:
    rig, nodes = pair
    there = rig.address_of(1)

    def made_up(answer: Any, params: list[Any]) -> Any:
        for place, name in enumerate(params[0]):
            if name == str(there):
                owner = str(packing.TOKEN_PROGRAM)
                answer["value"][place] = {"lamports": RENT, "owner": owner, "data": ["", "base64"]}
        return answer

    rig.creator(1, 1000, account=False)
    nodes[0].changes = made_up
    rig.pay(3)
    assert (rig.holds(), rig.rows("SELECT count(*) FROM ledger.token_accounts")) == ({}, [(0,)])
    assert rig.rows("SELECT parked_until > now() FROM ledger.owed") == [(True,)]  # it is looked at again in a while
    nodes[0].changes = None
    rig.connection.execute("UPDATE ledger.owed SET parked_until = now()")
    rig.connection.commit()
    rig.pay(5)
    assert_paid(rig, {1: 1000})


def saying(address: Pubkey, account: Any) -> Any:
    """A node that says so of an account: that it is not there, or that there is one."""

    def told(answer: Any, params: list[Any]) -> Any:
        answer["value"] = [
            account if name == str(address) else was for name, was in zip(params[0], answer["value"], strict=True)
        ]
        return answer

    return told


@pytest.mark.parametrize("is_there", [True, False])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_one_node_of_three_that_differs_on_a_token_account_keeps_nobody_from_being_paid(
    three: tuple[Rig, list[Node]], is_there: bool, place: int
) -> None:
    rig, nodes = three
    rig.creator(1, 1000, account=False)
    if is_there:
        rig.put_account(1)
    made_up = {"lamports": RENT, "owner": str(packing.TOKEN_PROGRAM), "data": ["", "base64"]}
    nodes[place].changes = saying(rig.address_of(1), None if is_there else made_up)
    rig.pay(6)
    assert rig.rows("SELECT batch_id IS NULL FROM ledger.token_accounts") == [(is_there,)]  # whether it was opened
    assert (rig.holds(), rig.freezes()) == ({}, [])
    assert_paid(rig, {1: 1000})


def test_one_node_of_three_that_knows_a_closed_token_account_has_nobody_held(three: tuple[Rig, list[Node]]) -> None:
    rig, nodes = three
    rig.creator(1, 1000)
    there = rig.chain.svm.get_account(rig.address_of(1))
    assert there is not None
    data = [base64.b64encode(bytes(there.data)).decode(), "base64"]
    rig.payouts.plan()
    rig.payouts.sign()
    rig.chain.svm.set_account(rig.address_of(1), Account(0, b"", packing.SYSTEM_PROGRAM))
    made_up = {"lamports": RENT, "owner": str(packing.TOKEN_PROGRAM), "data": data}
    nodes[2].changes = saying(rig.address_of(1), made_up)
    rig.payouts.send()
    rig.pay(10)
    assert (rig.holds(), rig.freezes()) == ({}, [])
    assert_paid(rig, {1: 1000})


@pytest.mark.parametrize("is_signed", [True, False])
def test_who_has_closed_their_token_account_is_not_held_and_gets_another(
    pair: tuple[Rig, list[Node]], is_signed: bool
) -> None:
    rig, _ = pair
    for creator in (1, 2):
        rig.creator(creator, 1000)
    if is_signed:
        rig.payouts.plan()
        rig.payouts.sign()
    rig.chain.svm.set_account(rig.address_of(1), Account(0, b"", packing.SYSTEM_PROGRAM))
    rig.payouts.send()
    rig.pay(10)
    assert (rig.holds(), rig.freezes()) == ({}, [])
    assert_paid(rig, {1: 1000, 2: 1000})


@pytest.mark.parametrize("held", [None, 1])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_one_node_of_three_that_differs_on_a_marker_keeps_no_rent_from_coming_back(
    journal: Connection[Any], held: int | None, place: int
) -> None:
    chain = new_chain()
    nodes = [Node(name, chain) for name in "abc"]
    rig = Rig(journal, chain, nodes, settings=dataclasses.replace(EAGER, marker_retention_s=0, reclaim_min=1))
    rig.creator(1, 1000)
    rig.payouts.plan()
    (number,) = rig.rows("SELECT id FROM ledger.batches")[0]
    marker = rig.treasury.marker(number).address
    rig.pay(1)
    account = {"lamports": held, "owner": str(packing.SYSTEM_PROGRAM), "data": ["", "base64"]}
    nodes[place].changes = saying(marker, account if held else None)
    rig.pay(4)
    assert rig.chain.account(marker) is None
    assert rig.rows("SELECT count(*) FROM ledger.markers WHERE reclaimed_by IS NULL") == [(0,)]
    assert_paid(rig, {1: 1000})


# ── How long a blockhash lives ─────────────────────────────────────────────────────────────────────────────────────


def lasting(blocks: int, slots: int = 0) -> Any:
    """A node that says so of the latest blockhash."""

    def told(answer: Any) -> Any:
        answer["value"]["lastValidBlockHeight"] += blocks
        answer["context"]["slot"] += slots
        return answer

    return told


def last_one(rig: Rig) -> int:
    return int(rig.rows("SELECT last_valid_block_height FROM ledger.attempts ORDER BY signed_at DESC LIMIT 1")[0][0])


def test_how_long_a_blockhash_lives_is_no_single_nodes_word(pair: tuple[Rig, list[Node]]) -> None:
    """Else what can land still is held to be over by nodes that are honest, and its money goes back."""
    rig, nodes = pair

    def away(_: Any) -> Any:
        raise Temporary("away")

    rig.creator(1, 1000)
    rig.payouts.plan()
    nodes[0].lies["getLatestBlockhash"] = lasting(-149)
    nodes[1].lies["getLatestBlockhash"] = away
    with pytest.raises(Temporary, match="1 of 2 RPC nodes"):
        rig.payouts.sign()
    nodes[1].lies.clear()
    rig.payouts.sign()
    assert last_one(rig) > rig.chain.height_at("confirmed") + 100
    rig.pay(2)
    assert_paid(rig, {1: 1000})


def test_a_blockhash_that_is_named_again_after_its_time_makes_the_same_bytes_and_is_waited_out(
    pair: tuple[Rig, list[Node]],
) -> None:
    rig, nodes = pair
    rig.creator(1, 1000)
    rig.payouts.plan()
    said = answer(rig.chain, "getLatestBlockhash", [{"commitment": "confirmed"}])
    for node in nodes:
        node.lies["getLatestBlockhash"] = lambda _: said
    rig.payouts.sign()
    rig.fresh(Hasty).settle()
    assert rig.payouts.sign() == []
    assert rig.states() == {"planned": 1}
    for node in nodes:
        node.lies.clear()
    rig.advance(2)
    assert len(rig.payouts.sign()) == 1
    rig.pay(2)
    assert_paid(rig, {1: 1000})


def test_a_node_that_stands_still_stops_nobody(pair: tuple[Rig, list[Node]]) -> None:
    rig, nodes = pair
    rig.creator(1, 1000)
    where_it_stands = asyncio.run(nodes[0].call("getLatestBlockhash", [{"commitment": "confirmed"}]))
    rig.advance(EXPIRED_BLOCKS)
    nodes[0].lies["getLatestBlockhash"] = lambda _: where_it_stands
    rig.pay(2)
    assert_paid(rig, {1: 1000})


@pytest.mark.parametrize(
    "told", [lasting(10**18), lasting(2**70), lasting(400), lasting(0, 10**18), lasting(0, -(10**6))]
)
@pytest.mark.parametrize("count", [2, 3])
def test_a_blockhash_that_lives_longer_than_the_chain_lets_it_is_not_believed(
    journal: Connection[Any], told: Any, count: int
) -> None:
    chain = new_chain()
    nodes = [Node(name, chain) for name in "abc"[:count]]
    rig = Rig(journal, chain, nodes)
    rig.creator(1, 1000)
    rig.payouts.plan()
    nodes[0].lies["getLatestBlockhash"] = told
    with contextlib.nullcontext() if count == 3 else pytest.raises(Temporary):
        rig.payouts.sign()
    nodes[0].lies.clear()
    rig.pay(2)
    assert last_one(rig) < rig.chain.height + 200
    assert_paid(rig, {1: 1000})


def another(blocks: int = 100) -> Any:
    """A node that names a blockhash that nobody else knows, and that lives longer."""
    made_up = str(Hash.new_unique())

    def told(answer: Any) -> Any:
        lasts = answer["value"]["lastValidBlockHeight"] + blocks
        return answer | {"value": {"blockhash": made_up, "lastValidBlockHeight": lasts}}

    return told


@pytest.mark.parametrize("place", [0, 1, 2])
def test_nothing_is_signed_with_a_blockhash_that_one_node_alone_knows(
    three: tuple[Rig, list[Node]], place: int, caplog: pytest.LogCaptureFixture
) -> None:
    rig, nodes = three
    rig.creator(1, 1000)
    nodes[place].lies["getLatestBlockhash"] = another()
    rig.payouts.plan()
    rig.payouts.sign()
    assert last_one(rig) == rig.chain.height_at("confirmed") + 150 + 100  # held to live as long as anybody says
    (said,) = [each for each in caplog.records if "blockhash" in each.message]
    assert (said.levelname, said.__dict__["nodes"]) == ("WARNING", [nodes[place].name])
    rig.pay(2)
    assert_paid(rig, {1: 1000})


def test_two_nodes_that_know_no_common_blockhash_are_waited_for(pair: tuple[Rig, list[Node]]) -> None:
    rig, nodes = pair
    rig.creator(1, 1000)
    rig.payouts.plan()
    nodes[0].lies["getLatestBlockhash"] = another()
    nodes[0].lies["isBlockhashValid"] = lambda told: told | {"value": False}
    with pytest.raises(Temporary, match="know the same blockhash"):
        rig.payouts.sign()
    nodes[0].lies.clear()
    rig.pay(3)
    assert_paid(rig, {1: 1000})


def test_a_blockhash_that_one_node_has_not_come_to_yet_is_passed_over_for_an_older_one(
    pair: tuple[Rig, list[Node]], caplog: pytest.LogCaptureFixture
) -> None:
    rig, nodes = pair
    rig.creator(1, 1000)
    rig.payouts.plan()
    nodes[1].behind = {"getLatestBlockhash": 20, "isBlockhashValid": 20}
    rig.payouts.sign()
    assert last_one(rig) == rig.chain.height_at("confirmed") + 150
    (used,) = rig.rows("SELECT blockhash FROM ledger.attempts")[0]
    assert rig.chain._hashes[used] == rig.chain.height_at("confirmed") - 20
    assert not [each for each in caplog.records if "blockhash" in each.message and each.levelname == "WARNING"]
    rig.pay(2)
    assert_paid(rig, {1: 1000})


# ── An answer that nobody can read ─────────────────────────────────────────────────────────────────────────────────

READ = (
    "getEpochInfo",
    "getFirstAvailableBlock",
    "getLatestBlockhash",
    "getMultipleAccounts",
    "getSignatureStatuses",
    "getSignaturesForAddress",
    "getTransaction",
    "isBlockhashValid",
    "simulateTransaction",
)
OF_NO_FORM: list[Any] = [
    {},
    ["no"],
    "<html>",
    7.5,
    {"context": {}, "value": None},
    {"context": {"slot": 2**70}, "value": [{"slot": 2**70}]},
    {"blockHeight": "high", "value": {"err": {"InstructionError": 7}, "lastValidBlockHeight": -1}},
]


@pytest.mark.parametrize("told", OF_NO_FORM, ids=str)
@pytest.mark.parametrize("count", [1, 2])
def test_an_answer_that_cannot_be_read_is_none(pair: tuple[Rig, list[Node]], told: Any, count: int) -> None:
    rig, nodes = pair
    rig.creator(1, 1000)
    rig.creator(2, 1000, account=False)
    for number in range(8):
        for node in nodes[:count]:
            node.lies = dict.fromkeys(READ if number % 2 else (READ[number],), lambda _: told)
        for work in (rig.payouts.run_once, lambda: reconcile(rig.connection, rig.rpc, rig.treasury)):
            with contextlib.suppress(Temporary, RpcRefusal):
                work()
            rig.connection.rollback()
        rig.advance(FINAL_BLOCKS)
    for node in nodes:
        node.lies.clear()
    rig.pay(6)
    assert (rig.holds(), rig.freezes()) == ({}, [])
    assert_paid(rig, {1: 1000, 2: 1000})


# ── What a node knows ──────────────────────────────────────────────────────────────────────────────────────────────


def test_a_node_that_has_forgotten_the_time_is_no_witness(pair: tuple[Rig, list[Node]]) -> None:
    rig, nodes = pair
    rig.creator(1, 1000)
    rig.payouts.plan()
    rig.payouts.sign()
    signed_at = rig.rows("SELECT context_slot FROM ledger.attempts")[0][0]
    rig.advance(EXPIRED_BLOCKS + 10)
    nodes[1].lies["getFirstAvailableBlock"] = lambda _: signed_at + 1
    rig.payouts.settle()
    assert attempts(rig)[0][:2] == (1, "live")

    def away(_: Any) -> Any:
        raise RpcRefusal(-32601, "Method not found")

    nodes[1].lies["getFirstAvailableBlock"] = away
    rig.payouts.settle()
    assert attempts(rig)[0][:2] == (1, "live")
    nodes[1].lies["getFirstAvailableBlock"] = lambda _: signed_at
    rig.payouts.settle()
    assert attempts(rig)[0][:2] == (1, "expired")


def test_a_deposit_is_booked_when_two_nodes_say_so(pair: tuple[Rig, list[Node]]) -> None:
    rig, nodes = pair

    def generous(told: Any) -> Any:
        told["meta"]["postBalances"] = [each + 10**9 for each in told["meta"]["postBalances"]]
        return told

    before = rig.balance("platform", asset="SOL")
    assert reconcile(rig.connection, rig.rpc, rig.treasury).ok
    rig.chain.enqueue(rig.chain.airdrop(rig.treasury.payer.gas, 5000))
    rig.advance(FINAL_BLOCKS + 1)
    nodes[0].lies["getTransaction"] = generous
    assert not reconcile(rig.connection, rig.rpc, rig.treasury).conclusive
    assert (rig.balance("platform", asset="SOL"), rig.freezes()) == (before, [])
    nodes[0].lies.clear()
    assert reconcile(rig.connection, rig.rpc, rig.treasury).conclusive
    assert (rig.balance("platform", asset="SOL"), rig.freezes()) == (before + 5000, [])


def test_a_node_that_no_longer_has_a_block_is_not_waited_for(pair: tuple[Rig, list[Node]]) -> None:
    rig, nodes = pair
    rig.creator(1, 1000)
    rig.pay(2)
    (signature,) = rig.rows("SELECT signature FROM ledger.attempts WHERE state = 'landed'")[0]
    nodes[1].lies["getTransaction"] = lambda _: None
    found = reconcile(rig.connection, rig.rpc, rig.treasury)
    assert (found.conclusive, found.waits_for) == (False, signature)
    for node in nodes:
        node.lies["getFirstAvailableBlock"] = lambda _: 10**9
    assert not reconcile(rig.connection, rig.rpc, rig.treasury).conclusive  # nobody is left to say it
    del nodes[0].lies["getFirstAvailableBlock"]
    found = reconcile(rig.connection, rig.rpc, rig.treasury)
    assert (found.conclusive, found.waits_for, rig.freezes()) == (True, None, [])


def test_money_that_one_node_alone_remembers_is_waited_for(pair: tuple[Rig, list[Node]]) -> None:
    rig, nodes = pair
    before = rig.balance("platform", asset="SOL")
    assert reconcile(rig.connection, rig.rpc, rig.treasury).ok
    given = rig.chain.airdrop(rig.treasury.payer.gas, 5000)
    rig.chain.enqueue(given)
    rig.advance(FINAL_BLOCKS + 1)
    nodes[1].lies |= {"getTransaction": lambda _: None, "getFirstAvailableBlock": lambda _: 10**9}
    found = reconcile(rig.connection, rig.rpc, rig.treasury)
    assert (found.conclusive, found.waits_for) == (False, str(given.signatures[0]))
    nodes[1].lies.clear()
    assert reconcile(rig.connection, rig.rpc, rig.treasury).conclusive
    assert (rig.balance("platform", asset="SOL"), rig.freezes()) == (before + 5000, [])


@pytest.mark.parametrize("slot", [1, None, 2**60])
@pytest.mark.parametrize("brings", [1, -1])
@pytest.mark.parametrize("is_named_twice", [True, False])
def test_a_node_that_makes_up_a_transaction_moves_no_money_and_no_cursor(
    pair: tuple[Rig, list[Node]], slot: int | None, brings: int, is_named_twice: bool
) -> None:
    """The other has forgotten what is old: of a slot that the liar names it can say nothing."""
    rig, nodes = pair
    rig.chain.enqueue(rig.chain.airdrop(rig.treasury.payer.gas, 5000))
    rig.advance(FINAL_BLOCKS + 1)
    assert reconcile(rig.connection, rig.rpc, rig.treasury).ok
    before, cursors = rig.balance("platform", asset="SOL"), rig.rows("SELECT * FROM ledger.chain_cursors ORDER BY 1")
    now = rig.chain.height_at("finalized")
    said = now if slot is None else slot
    made_up, gas = str(Signature(bytes(64))), str(rig.treasury.payer.gas)
    told = {
        "slot": 2**60 if slot is None else slot,
        "transaction": {"message": {"accountKeys": [gas]}},
        "meta": {"err": None, "fee": 5000, "preBalances": [10**9], "postBalances": [10**9 + brings * 10**6],
                 "preTokenBalances": [], "postTokenBalances": []},
    }  # fmt: skip
    both = {gas, rig.treasury.token_account} if is_named_twice else {rig.treasury.token_account}
    nodes[0].names = {address: [{"signature": made_up, "slot": said, "err": None}] for address in both}
    nodes[0].lies["getTransaction"] = lambda _: told
    nodes[1].lies["getTransaction"] = lambda _: None
    nodes[1].lies["getFirstAvailableBlock"] = lambda _: now + 1
    found = reconcile(rig.connection, rig.rpc, rig.treasury)
    is_read = slot is None  # of a slot that is not final yet, or was read, nothing is
    assert (found.conclusive, found.waits_for, rig.freezes()) == (not is_read, made_up if is_read else None, [])
    assert found.problems == ()
    assert rig.balance("platform", asset="SOL") == before
    assert rig.rows("SELECT * FROM ledger.chain_cursors ORDER BY 1") == cursors


def names(signature: str, slot: int) -> Any:
    return lambda told: [{"signature": signature, "slot": slot, "err": None}, *told]


@pytest.mark.parametrize("denying", [2, 1])
def test_what_two_nodes_deny_is_not_waited_for(three: tuple[Rig, list[Node]], denying: int) -> None:
    rig, nodes = three
    before = rig.balance("platform", asset="SOL")
    rig.chain.enqueue(rig.chain.airdrop(rig.treasury.payer.gas, 5000))
    rig.advance(FINAL_BLOCKS + 1)
    made_up = str(rig.chain.airdrop(rig.treasury.payer.gas, 7000).signatures[0])
    nodes[0].lies["getSignaturesForAddress"] = names(made_up, 1)
    if denying == 1:
        nodes[1].lies["getFirstAvailableBlock"] = lambda _: 10**9  # it has forgotten that block
    found = reconcile(rig.connection, rig.rpc, rig.treasury)
    assert (found.conclusive, found.waits_for) == ((True, None) if denying > 1 else (False, made_up))
    assert rig.rows("SELECT count(*)::int FROM ledger.chain_transactions WHERE signature = %s", made_up) == [(0,)]
    if denying > 1:
        assert (rig.balance("platform", asset="SOL"), rig.freezes()) == (before + 5000, [])


@pytest.mark.parametrize("again", ["the same", "others"])
def test_a_node_that_makes_up_hundreds_costs_a_bounded_number_of_questions(
    three: tuple[Rig, list[Node]], again: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They come before what is true, each time, and no round would reach their end."""
    monkeypatch.setattr(reconciling, "ROUND_MAX", 100)
    monkeypatch.setattr(reconciling, "PIECE_MAX", 50)
    rig, nodes = three
    rng, before, distrust = random.Random(1), rig.balance("platform", asset="SOL"), reconciling.Distrust()
    named: list[dict[str, Any]] = []

    def make_up(slot: int) -> None:
        known = [each["signature"] for each in named[-900:]] if again == "the same" else []
        signatures = known or [str(Signature(rng.randbytes(64))) for _ in range(900)]
        named.extend({"signature": signature, "slot": slot, "err": None} for signature in signatures)

    nodes[0].lies["getSignaturesForAddress"] = lambda told: [*named[-900:], *told]
    for turn in range(1, 4):
        make_up(rig.chain.height_at("finalized"))
        rig.chain.enqueue(rig.chain.airdrop(rig.treasury.payer.gas, 5000))
        rig.advance(FINAL_BLOCKS + 1)
        found = reconcile(rig.connection, rig.rpc, rig.treasury, distrust=distrust)
        assert (found.conclusive, found.ok, rig.freezes()) == (True, True, [])
        assert rig.balance("platform", asset="SOL") == before + turn * 5000
    made_up = {each["signature"] for each in named}
    for node in nodes:
        asked = [params[0] for method, params in node.asked if method == "getTransaction" and params[0] in made_up]
        assert len(asked) <= 50


def test_a_node_that_goes_on_without_an_end_is_left_out_where_others_have_ended(
    three: tuple[Rig, list[Node]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, most in (("SIGNATURES_MAX", 50), ("HISTORY_SHORT", 100), ("STRETCH_MAX", 500)):
        monkeypatch.setattr(chain, name, most)
    rig, nodes = three
    numbers, before = itertools.count(), rig.balance("platform", asset="SOL")
    nodes[0].lies["getSignaturesForAddress"] = lambda _: [
        {"signature": str(Signature(next(numbers).to_bytes(64))), "slot": 1, "err": None} for _ in range(50)
    ]
    rig.chain.enqueue(rig.chain.airdrop(rig.treasury.payer.gas, 5000))
    rig.advance(FINAL_BLOCKS + 1)
    assert reconcile(rig.connection, rig.rpc, rig.treasury).conclusive
    assert rig.balance("platform", asset="SOL") == before + 5000
    assert next(numbers) <= 4 * 100  # of two addresses, twice
    nodes[1].is_away = True  # one that has ended outvotes nobody
    with pytest.raises(Temporary, match="more than 500 transactions"):
        reconcile(rig.connection, rig.rpc, rig.treasury)


def test_what_two_nodes_deny_that_has_moved_money_freezes_payouts_and_is_booked_in_the_end(
    three: tuple[Rig, list[Node]],
) -> None:
    """Of three nodes two leave a deposit out of all they say, but for what the treasury holds."""
    rig, nodes = three
    before = rig.balance("platform", asset="SOL")
    given = rig.chain.airdrop(rig.treasury.payer.gas, 5000)
    rig.chain.enqueue(given)
    rig.advance(FINAL_BLOCKS + 1)
    for node in nodes[:2]:
        node.forgotten.add(str(given.signatures[0]))
        node.lies |= {"getSignaturesForAddress": lambda _: [], "getTransaction": lambda _: None}
    difference = reconciling.Difference()
    for _ in range(reconciling.AGAIN_MAX):
        found = reconcile(rig.connection, rig.rpc, rig.treasury, difference=difference)
        assert (found.conclusive, found.waits_for, rig.freezes()) == (False, str(given.signatures[0]), [])
    assert not reconcile(rig.connection, rig.rpc, rig.treasury, difference=difference).ok
    assert rig.freezes() == [MISMATCH]
    for node in nodes:
        node.lies.clear()
        node.forgotten.clear()
    assert reconcile(rig.connection, rig.rpc, rig.treasury).ok
    assert rig.balance("platform", asset="SOL") == before + 5000


def test_ours_is_waited_for_whoever_denies_it(three: tuple[Rig, list[Node]]) -> None:
    rig, nodes = three
    rig.creator(1, 1000)
    rig.pay(2)
    (signature,) = rig.rows("SELECT signature FROM ledger.attempts WHERE state = 'landed'")[0]
    for node in nodes[:2]:
        node.forgotten.add(signature)
        node.lies |= {"getSignaturesForAddress": lambda _: [], "getTransaction": lambda _: None}
    found = reconcile(rig.connection, rig.rpc, rig.treasury)
    assert (found.conclusive, found.waits_for) == (False, signature)


@pytest.mark.parametrize("said", [1, 2**60])
def test_a_node_that_names_another_slot_hides_no_transaction(pair: tuple[Rig, list[Node]], said: int) -> None:
    rig, nodes = pair
    assert reconcile(rig.connection, rig.rpc, rig.treasury).ok
    before = rig.balance("platform", asset="SOL")
    for _ in range(2):
        rig.chain.enqueue(rig.chain.airdrop(rig.treasury.payer.gas, 5000))
        rig.advance(FINAL_BLOCKS + 1)
        found = reconcile(rig.connection, rig.rpc, rig.treasury)
        assert (found.conclusive, found.ok, rig.freezes()) == (True, True, [])
        nodes[1].lies["getSignaturesForAddress"] = lambda told: [each | {"slot": said} for each in told]
    assert rig.balance("platform", asset="SOL") == before + 10_000


def test_transactions_of_version_1_are_made_where_every_node_can_run_them(pair: tuple[Rig, list[Node]]) -> None:
    from ledger.treasury import _first_of_v1

    rig, nodes = pair
    raw = _first_of_v1(rig.treasury.payer)

    def old(told: Any) -> Any:
        told["value"]["err"] = "UnsupportedVersion"
        return told

    def older(_: Any) -> Any:
        raise RpcRefusal(-32602, "failed to deserialize")

    def behind(_: Any) -> Any:
        raise RpcRefusal(-32005, "Node is behind")

    def away(_: Any) -> Any:
        raise Temporary("away")

    assert rig.rpc.takes(raw)
    for spoiled, taken in ((old, False), (older, False), (behind, True), (away, True)):
        nodes[1].lies["simulateTransaction"] = spoiled
        assert rig.rpc.takes(raw) is taken
    nodes[0].lies["simulateTransaction"] = behind
    with pytest.raises(Temporary, match="no RPC node"):
        rig.rpc.takes(raw)


# ── What the treasury holds ────────────────────────────────────────────────────────────────────────────────────────


def test_a_batch_that_is_too_large_for_the_treasury_keeps_no_other_waiting(journal: Connection[Any]) -> None:
    settings = dataclasses.replace(EAGER, batches_live_max=8)
    rig = Rig(journal, new_chain(), version="legacy", settings=settings)
    rig.payouts.economics = Economics(payout_min_pix=1, payout_max_pix=10**12, payout_day_max_pix=10**13)
    size = rig.treasury.capacity("payout")
    for creator in range(1, size + 1):
        rig.creator(creator, 10**9)
    rig.creator(size + 1, 1000)
    held = rig.chain.svm.get_account(rig.treasury.payer.token_account)
    assert held is not None
    poor = bytearray(held.data)
    poor[64:72] = (10**9).to_bytes(8, "little")
    rig.chain.svm.set_account(rig.treasury.payer.token_account, Account(held.lamports, bytes(poor), held.owner))
    rig.advance(FINAL_BLOCKS)
    rig.pay(3)
    assert (rig.on_chain(size + 1), rig.on_chain(1)) == (1000, 0)
    assert rig.states() == {"planned": 1, "posted": 1}


def test_what_is_on_its_way_is_counted_in_lamports_too(rig: Rig) -> None:
    rig.creator(1, 1000)
    rig.payouts.plan()
    rig.payouts.sign()
    gas = rig.treasury.payer.gas
    once = rig.treasury.cost_lamports("payout", 1)
    rig.chain.svm.set_account(gas, Account(2 * once - 1, b"", packing.SYSTEM_PROGRAM))
    rig.advance(FINAL_BLOCKS)
    rig.creator(2, 1000)
    rig.payouts.plan()
    assert rig.payouts.sign() == []
    rig.chain.svm.set_account(gas, Account(2 * once, b"", packing.SYSTEM_PROGRAM))
    rig.advance(FINAL_BLOCKS)
    assert len(rig.payouts.sign()) == 1


def test_one_rpc_url_that_lags_is_enough_for_no_double_payment(journal: Connection[Any]) -> None:
    chain = new_chain()
    node = Node("balanced", chain)
    rig = Rig(journal, chain, [node])
    raw = given_up(rig)
    rig.rpc.send([raw])
    rig.advance(3)
    node.behind["getMultipleAccounts"] = 6
    rig.payouts.sign()
    assert rig.states() == {"planned": 1}
    node.behind.clear()
    rig.pay(4)
    assert (rig.on_chain(1), rig.on_chain(2)) == (1000, 1000)


# ── History that is left out ───────────────────────────────────────────────────────────────────────────────────────


def two_deposits(rig: Rig) -> str:
    """Both are final, some blocks apart; the first one's signature."""
    gas = rig.treasury.payer.gas
    assert reconcile(rig.connection, rig.rpc, rig.treasury).ok
    first = rig.chain.enqueue(rig.chain.airdrop(gas, 10**9))
    rig.advance(20)
    rig.chain.enqueue(rig.chain.airdrop(gas, 10**9))
    rig.advance(FINAL_BLOCKS + 1)
    return first


def leave_out(node: Node, signature: str) -> None:
    """The node tells of all that names an address, but for this."""
    node.lies["getSignaturesForAddress"] = lambda told: [each for each in told if each["signature"] != signature]


def test_what_one_node_leaves_out_and_another_does_not_know_yet_is_not_passed_over(
    pair: tuple[Rig, list[Node]],
) -> None:
    rig, nodes = pair
    leave_out(nodes[0], two_deposits(rig))
    behind = ("getSignaturesForAddress", "getEpochInfo", "getMultipleAccounts", "getSlot")
    nodes[1].behind = dict.fromkeys(behind, 21)
    with contextlib.suppress(Temporary):
        reconcile(rig.connection, rig.rpc, rig.treasury)
    nodes[1].behind.clear()
    found = reconcile(rig.connection, rig.rpc, rig.treasury)
    assert (found.conclusive, found.ok, rig.freezes()) == (True, True, [])


def test_what_all_nodes_have_left_out_is_read_once_one_tells_of_it(pair: tuple[Rig, list[Node]]) -> None:
    rig, nodes = pair
    first = two_deposits(rig)
    for node in nodes:
        leave_out(node, first)
    assert not reconcile(rig.connection, rig.rpc, rig.treasury).ok
    assert rig.freezes() == [MISMATCH]
    nodes[1].lies.clear()
    found = reconcile(rig.connection, rig.rpc, rig.treasury)
    assert (found.conclusive, found.ok) == (True, True)
    assert rig.rows("SELECT kind FROM ledger.chain_transactions WHERE signature = %s", first) == [("deposit",)]
    rig.chain.enqueue(rig.chain.airdrop(rig.treasury.payer.gas, 10**9))
    rig.advance(FINAL_BLOCKS + 1)
    assert reconcile(rig.connection, rig.rpc, rig.treasury).ok


def test_a_difference_freezes_payouts_also_where_history_cannot_be_read_again(
    pair: tuple[Rig, list[Node]], monkeypatch: pytest.MonkeyPatch
) -> None:
    rig, nodes = pair
    first = two_deposits(rig)
    for node in nodes:
        leave_out(node, first)
    real, difference = reconciling.adopt_history, reconciling.Difference()

    def away(*arguments: Any, again: bool = False, **more: Any) -> Any:
        if again:
            raise Temporary("too much of it")
        return real(*arguments, **more)

    monkeypatch.setattr(reconciling, "adopt_history", away)
    for _ in range(reconciling.AGAIN_MAX):
        with pytest.raises(Temporary):
            reconcile(rig.connection, rig.rpc, rig.treasury, difference=difference)
        assert rig.freezes() == []
    assert not reconcile(rig.connection, rig.rpc, rig.treasury, difference=difference).ok
    assert rig.freezes() == [MISMATCH]
