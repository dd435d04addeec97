"""Sceptic: what strangers and single nodes can make the ledger choke on."""

from __future__ import annotations

import dataclasses
import struct
from typing import Any

import pytest
from psycopg import Connection
from solders.account import Account
from solders.pubkey import Pubkey
from solders.transaction import VersionedTransaction

from ledger import packing
from ledger.chain import RpcRefusal
from cluster.errors import Temporary
from ledger.reconcile import reconcile
from tests.ledger.chains import EAGER, FINAL_BLOCKS, RENT, Key, Rig, assert_paid, new_chain, token_account
from tests.ledger.test_two_walls import Node, pair as pair, three as three


def strangers(rig: Rig, held: int, to: Pubkey) -> str:
    """A stranger who holds tokens of a mint of their own moves one of them, and gives an address of ours 5,000 lamports."""
    who, mint = Key("stranger"), Key("strange mint").pubkey
    first, second = Key("strange account").pubkey, Key("another strange account").pubkey
    rig.chain.svm.set_account(who.pubkey, Account(10**9, b"", packing.SYSTEM_PROGRAM))
    from solders.token.state import Mint
    rig.chain.svm.set_account(mint, Account(RENT, bytes(Mint(None, held, 0, True, None)), packing.TOKEN_PROGRAM))
    rig.chain.svm.set_account(first, token_account(mint, who.pubkey, held))
    rig.chain.svm.set_account(second, token_account(mint, who.pubkey, 0))
    payer = packing.Payer(who.pubkey, who.pubkey, first, mint, 0)
    gift = packing.Instruction(packing.SYSTEM_PROGRAM, (who.pubkey, to), (True, True), struct.pack("<IQ", 2, 5000))
    blockhash, _ = rig.chain.blockhash_at("confirmed")
    message = packing.build(payer, [packing.pay(payer, second, 1), gift], blockhash, version="legacy", units=200_000)
    signature = rig.chain.enqueue(VersionedTransaction.from_bytes(packing.sign(message, [who])))
    rig.advance(FINAL_BLOCKS + 1)
    return signature


@pytest.mark.parametrize("held", [2**63 - 1, 2**63, 2**64 - 1])
def test_a_strangers_own_tokens_keep_nothing_from_being_reconciled(pair: tuple[Rig, list[Node]], held: int) -> None:
    rig, _ = pair
    before = rig.balance("platform", asset="SOL")
    assert reconcile(rig.connection, rig.rpc, rig.treasury).ok
    strangers(rig, held, rig.treasury.payer.gas)
    found = reconcile(rig.connection, rig.rpc, rig.treasury)
    assert (found.conclusive, found.ok) == (True, True)
    assert rig.balance("platform", asset="SOL") == before + 5000


def test_one_nodes_signature_with_a_zero_byte_ends_nothing(three: tuple[Rig, list[Node]]) -> None:
    rig, nodes = three
    assert reconcile(rig.connection, rig.rpc, rig.treasury).ok
    slot = rig.chain.height_at("finalized")
    nodes[0].lies["getSignaturesForAddress"] = lambda told: [{"signature": "made\0up", "slot": slot, "err": None}, *told]
    try:
        reconcile(rig.connection, rig.rpc, rig.treasury)
    except (Temporary, RpcRefusal):
        pass  # that is waited for; anything else ends the process


def units(count: int) -> Any:
    def told(answer: Any) -> Any:
        answer["value"]["unitsConsumed"] = count
        return answer
    return told


@pytest.mark.parametrize("lying", [0, 1, 2])
def test_one_node_that_names_too_few_units_keeps_nobody_from_being_paid(journal: Connection[Any], lying: int) -> None:
    chain = new_chain()
    nodes = [Node(name, chain) for name in "abc"]
    rig = Rig(journal, chain, nodes, version="legacy")
    for creator in range(1, 11):
        rig.creator(creator, 1000)
    nodes[lying].lies["simulateTransaction"] = units(1)
    rig.pay(40)
    print(rig.states(), rig.freezes(), rig.holds(), rig.balance("platform", asset="SOL"))
    print(rig.rows("SELECT error, count(*) FROM ledger.attempts GROUP BY 1"))
    assert rig.on_chain(1) == 1000 or rig.freezes()


def test_one_node_that_names_a_blockhash_of_its_own_keeps_nobody_from_being_paid(three: tuple[Rig, list[Node]]) -> None:
    from solders.hash import Hash
    rig, nodes = three
    rig.creator(1, 1000)

    def made_up(told: Any) -> Any:
        told["value"] = {"blockhash": str(Hash.new_unique()), "lastValidBlockHeight": told["value"]["lastValidBlockHeight"] + 100}
        return told

    nodes[0].lies["getLatestBlockhash"] = made_up
    from tests.ledger.chains import EXPIRED_BLOCKS
    for _ in range(8):
        rig.payouts.run_once()
        rig.advance(EXPIRED_BLOCKS + 120)
    print(rig.states(), rig.rows("SELECT n, state FROM ledger.attempts"), rig.freezes())
    assert rig.on_chain(1) == 1000 or rig.freezes()
