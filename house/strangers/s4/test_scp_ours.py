"""Sceptic: a node that names what we gave up."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from psycopg import Connection
from solders.account import Account

from ledger import packing, stops
from ledger.reconcile import Difference, Distrust, reconcile
from tests.ledger.chains import EAGER, EXPIRED_BLOCKS, FINAL_BLOCKS, Rig, new_chain
from tests.ledger.test_two_walls import Node, names, three as three


def test_one_node_that_names_what_was_given_up_keeps_no_deposit_from_being_booked(three: tuple[Rig, list[Node]]) -> None:
    rig, nodes = three
    rig.creator(1, 1000)
    rig.payouts.plan()
    rig.payouts.sign()
    (signature,) = rig.rows("SELECT signature FROM ledger.attempts")[0]
    rig.advance(EXPIRED_BLOCKS)
    stops.hold(rig.connection, 1, "somebody looks")
    rig.connection.commit()
    rig.pay(3)
    assert rig.states() == {"cancelled": 1}
    distrust, difference = Distrust(), Difference()
    assert reconcile(rig.connection, rig.rpc, rig.treasury, difference=difference, distrust=distrust).ok
    before = rig.balance("platform", asset="SOL")
    slot = rig.chain.height_at("finalized")
    nodes[0].lies["getSignaturesForAddress"] = lambda told: [*told, {"signature": signature, "slot": slot, "err": None}]
    rig.advance(2)
    rig.chain.enqueue(rig.chain.airdrop(rig.treasury.payer.gas, 5_000_000))
    for _ in range(25):
        rig.advance(FINAL_BLOCKS + 1)
        found = reconcile(rig.connection, rig.rpc, rig.treasury, difference=difference, distrust=distrust)
    assert (found.conclusive, found.waits_for) == (True, None)
    assert rig.balance("platform", asset="SOL") == before + 5_000_000


def test_control_of_a_payout_beside_no_openings(journal: Connection[Any]) -> None:
    rig = Rig(journal, new_chain(), settings=dataclasses.replace(EAGER, batches_live_max=4))
    rig.chain.svm.set_account(rig.treasury.payer.gas, Account(5_000_000, b"", packing.SYSTEM_PROGRAM))
    rig.advance(FINAL_BLOCKS)
    rig.pay(2)
    rig.creator(99, 1000)
    rig.pay(6)
    assert rig.on_chain(99) == 1000


def test_one_node_that_names_a_transaction_often_at_another_slot_keeps_nothing_from_being_booked(
    three: tuple[Rig, list[Node]],
) -> None:
    rig, nodes = three
    distrust, difference = Distrust(), Difference()
    assert reconcile(rig.connection, rig.rpc, rig.treasury, difference=difference, distrust=distrust).ok
    before = rig.balance("platform", asset="SOL")
    nodes[0].lies["getSignaturesForAddress"] = lambda told: [each | {"slot": each["slot"] + 1} for each in told for _ in range(9)]
    rig.chain.enqueue(rig.chain.airdrop(rig.treasury.payer.gas, 5_000_000))
    for _ in range(6):
        rig.advance(FINAL_BLOCKS + 1)
        found = reconcile(rig.connection, rig.rpc, rig.treasury, difference=difference, distrust=distrust)
    assert (found.conclusive, found.waits_for) == (True, None)
    assert rig.balance("platform", asset="SOL") == before + 5_000_000


def test_one_node_that_denies_a_token_account_keeps_nobody_from_being_paid(three: tuple[Rig, list[Node]]) -> None:
    rig, nodes = three
    rig.creator(1, 1000, account=False)
    rig.put_account(1)

    def denied(told: Any, params: list[Any]) -> Any:
        if str(rig.address_of(1)) in params[0]:
            told["value"] = [None for _ in told["value"]]
        return told

    nodes[0].changes = denied
    rig.pay(12)
    assert rig.on_chain(1) == 1000 or rig.freezes() or rig.holds()
