"""What is asked before money goes back: how many nodes, of when, and whether the time of what was signed is over."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from psycopg import Connection

from ledger import packing, rail
from ledger.batches import Attempt, Batch
from ledger.chain import Look, Status
from ledger.localnet.inside import LocalNode
from tests.ledger.chains import EAGER, FINAL_BLOCKS, Rig, new_chain
from tests.ledger.test_two_walls import Node

DAY_S = 86_400
BATCH = Batch("0" * 32, "payout", "signed", 1, ())


def attempt(last: int = 100, age_s: float = 0.0, context_slot: int = 50) -> Attempt:
    return Attempt(BATCH, 1, "signature", b"", last, context_slot, "live", age_s)


@pytest.mark.parametrize(
    ("height", "age_s", "is_over"),
    [
        (99, 0.0, False),
        (100, 0.0, False),  # its last block may still hold it
        (101, 0.0, True),
        (0, 7.0 * DAY_S - 1, False),
        (0, 7.0 * DAY_S, False),
        (0, 7.0 * DAY_S + 1, True),  # no chain takes it after a week, whatever heights were named
    ],
)
def test_what_was_signed_is_over_after_its_last_block_or_a_week(height: int, age_s: float, is_over: bool) -> None:
    assert rail.is_over(attempt(100, age_s), height) is is_over


@pytest.mark.parametrize(
    ("nodes", "second_opinion", "opinions"), [(1, True, 1), (2, True, 2), (3, True, 2), (3, False, 1)]
)
def test_two_nodes_must_agree_where_there_are_as_many(
    journal: Connection[Any], nodes: int, second_opinion: bool, opinions: int
) -> None:
    chain = new_chain()
    settings = dataclasses.replace(EAGER, second_opinion=second_opinion)
    rig = Rig(journal, chain, [LocalNode(str(n), chain) for n in range(nodes)], settings=settings)
    assert rig.payouts.opinions == opinions
    rig.rpc.close()


def test_the_youngest_of_what_was_given_up_must_be_old_enough(rig: Rig) -> None:
    rig.payouts.settings = dataclasses.replace(EAGER, give_back_after_s=600)
    old, young = attempt(age_s=700.0), attempt(age_s=500.0)
    assert rig.payouts._is_long_ago([old])
    assert not rig.payouts._is_long_ago([old, young])
    assert not rig.payouts._is_long_ago([young, old])


def looked(first_slot: int, status: Status | None = None) -> Look:
    return Look("a node", 200, {"signature": status}, first_slot)


@pytest.mark.parametrize(
    ("looks", "is_unknown"),
    [
        ([looked(0), looked(0)], True),
        ([looked(50), looked(50)], True),  # they have every block since it was signed
        ([looked(50), looked(51)], False),  # one has forgotten the time
        ([looked(0), looked(0), looked(51)], True),
        ([looked(0)], False),
        ([], False),
        ([looked(0), looked(0, Status(60, "processed", None))], False),
        ([looked(0), looked(0), looked(51, Status(60, "processed", None))], False),  # who has forgotten may know it
    ],
)
def test_nobody_knows_what_enough_nodes_that_remember_have_not_seen(
    rig: Rig, looks: list[Look], is_unknown: bool
) -> None:
    assert rig.payouts._nobody_knows(attempt(context_slot=50), looks) is is_unknown


def marked(journal: Connection[Any]) -> tuple[Rig, list[Node], Batch]:
    """A batch whose marker has just been made, on a chain of two nodes: confirmed and not yet final."""
    chain = new_chain()
    nodes = [Node("a", chain), Node("b", chain)]
    rig = Rig(journal, chain, nodes)
    rig.creator(1, 1000)
    (batch,) = rig.payouts.plan()
    rig.payouts.sign()
    rig.payouts.send()
    rig.advance(2)
    return rig, nodes, batch


def test_a_marker_counts_from_the_first_node_that_has_seen_it(journal: Connection[Any]) -> None:
    rig, nodes, batch = marked(journal)
    now = rig.chain.height
    assert rig.payouts._marker_exists(batch, 0)
    nodes[0].behind["getMultipleAccounts"] = 2
    assert rig.payouts._marker_exists(batch, 0)  # the other one has
    assert not rig.payouts._marker_exists(batch, 0, "finalized")
    nodes[1].behind["getMultipleAccounts"] = 2
    assert not rig.payouts._marker_exists(batch, 0)
    assert rig.payouts._marker_exists(batch, now + 1)  # neither has come so far: it may be there
    rig.rpc.close()


def test_a_marker_stands_once_it_is_final_and_holds_what_the_best_informed_node_says(journal: Connection[Any]) -> None:
    rig, nodes, batch = marked(journal)
    assert not rig.payouts._marker_stands(batch)
    assert rig.payouts._marker_lamports(batch) == 0
    rig.advance(FINAL_BLOCKS)
    nodes[0].behind["getMultipleAccounts"] = FINAL_BLOCKS
    assert rig.payouts._marker_stands(batch)
    assert rig.payouts._marker_lamports(batch) == rig.treasury.marker_rent
    rig.rpc.close()


@pytest.mark.parametrize(("kind", "markers"), [("payout", False), ("accounts", True), ("reclaim", True)])
def test_what_has_no_marker_asks_nobody_about_one(journal: Connection[Any], kind: str, markers: bool) -> None:
    rig, nodes, batch = marked(journal)
    rig.payouts.settings = dataclasses.replace(EAGER, marker_accounts=markers)
    other = dataclasses.replace(batch, kind=kind)
    before = [len(node.asked) for node in nodes]
    assert not rig.payouts._marker_exists(other, 10**9)
    assert not rig.payouts._marker_stands(other)
    assert rig.payouts._marker_lamports(other) == 0
    assert [len(node.asked) for node in nodes] == before
    rig.rpc.close()


def test_a_lamport_that_stands_at_a_markers_address_is_a_marker(rig: Rig) -> None:
    from solders.account import Account

    address = rig.treasury.marker(BATCH.id).address
    rig.chain.svm.set_account(address, Account(1, b"", packing.SYSTEM_PROGRAM))
    rig.advance(FINAL_BLOCKS)
    assert rig.payouts._marker_exists(BATCH, 0)
    assert rig.payouts._marker_lamports(BATCH) == 1
    assert rig.payouts._marker_stands(BATCH)
