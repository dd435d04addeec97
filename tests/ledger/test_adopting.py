"""What the chain has paid and the journal has forgotten: adopted where it is surely ours, and left to a person otherwise."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from psycopg import Connection

from ledger import adoption, packing, stops
from ledger.chain import Effect
from ledger.packing import Instruction
from ledger.reconcile import compare
from tests.ledger.chains import FINAL_BLOCKS, Key, Rig, new_chain, token_account
from tests.ledger.test_two_walls import Node

NUMBER = "5" * 32  # of a batch that no ledger knows any more


@pytest.fixture
def restored(journal: Connection[Any]) -> tuple[Rig, list[Node]]:
    """A ledger whose backup was restored, with creators 1 and 2, who are owed nothing any more."""
    chain = new_chain()
    nodes = [Node("a", chain), Node("b", chain)]
    rig = Rig(journal, chain, nodes)
    for creator in (1, 2):
        rig.creator(creator, 0)
    stops.freeze(rig.connection, adoption.RESTORED, {})
    rig.connection.commit()
    return rig, nodes


def done(rig: Rig, *instructions: Instruction) -> Effect:
    """A transaction of the treasury's that no attempt knows, and what it did."""
    blockhash = rig.rpc.latest_blockhash(2)
    raw = rig.treasury.signed(instructions, blockhash.hash, 200_000)
    rig.rpc.send([raw])
    rig.advance(FINAL_BLOCKS + 1)
    effect = rig.rpc.effect(packing.signature_of(raw), 2)
    assert effect is not None
    return effect


def marker(rig: Rig) -> Instruction:
    return packing.create_marker(rig.treasury.payer, rig.treasury.marker(NUMBER))


def paid(rig: Rig, creator: int, amount: int) -> Instruction:
    return packing.pay(rig.treasury.payer, rig.address_of(creator), amount)


def to_a_stranger(rig: Rig, amount: int) -> Instruction:
    owner = Key("a stranger").pubkey
    address = packing.token_account(owner, rig.treasury.payer.mint)
    rig.chain.svm.set_account(address, token_account(rig.treasury.payer.mint, owner))
    return packing.pay(rig.treasury.payer, address, amount)


def booked(rig: Rig) -> list[tuple[Any, ...]]:
    return rig.rows("SELECT creator_id, amount_pix, on_chain_pix FROM ledger.payouts ORDER BY 1")


def test_what_has_paid_creators_becomes_a_posted_batch(restored: tuple[Rig, list[Node]]) -> None:
    rig, _ = restored
    effect = done(rig, marker(rig), paid(rig, 1, 700), paid(rig, 2, 50))
    assert adoption.adopt(rig.payouts, effect)
    assert booked(rig) == [(1, 700, 700), (2, 50, 50)]
    assert (rig.states(), rig.balance("in_flight")) == ({"posted": 1}, 0)
    assert rig.rows("SELECT state, signature, slot FROM ledger.attempts") == [("landed", effect.signature, effect.slot)]
    assert compare(rig.connection, rig.rpc, rig.treasury).ok


@pytest.mark.parametrize("owed", [0, 300, 700, 1000])
def test_what_is_owed_pays_for_it_first_and_the_pool_for_the_rest(restored: tuple[Rig, list[Node]], owed: int) -> None:
    rig, _ = restored
    if owed:
        rig.earn(1, owed)
    pool = rig.balance("reward_pool")
    assert adoption.adopt(rig.payouts, done(rig, marker(rig), paid(rig, 1, 700)))
    assert rig.balance("payable", 1) == max(0, owed - 700)
    assert rig.balance("reward_pool") == pool - max(0, 700 - owed)
    assert compare(rig.connection, rig.rpc, rig.treasury).ok


def test_nothing_is_adopted_where_nothing_was_restored(restored: tuple[Rig, list[Node]]) -> None:
    rig, _ = restored
    stops.thaw(rig.connection, adoption.RESTORED)
    rig.connection.commit()
    assert not adoption.adopt(rig.payouts, done(rig, marker(rig), paid(rig, 1, 700)))
    assert booked(rig) == []


@pytest.mark.parametrize("others", [0, 300])
def test_what_has_paid_a_stranger_is_for_a_person(restored: tuple[Rig, list[Node]], others: int) -> None:
    rig, _ = restored
    pays = [to_a_stranger(rig, 5), *([paid(rig, 1, others)] if others else [])]
    assert not adoption.adopt(rig.payouts, done(rig, marker(rig), *pays))
    assert (booked(rig), rig.states()) == ([], {})


def test_what_moved_no_token_costs_its_fee_and_rent(restored: tuple[Rig, list[Node]]) -> None:
    rig, _ = restored
    before = rig.balance("platform", asset="SOL")
    assert adoption.adopt(rig.payouts, done(rig, marker(rig)))
    assert rig.balance("platform", asset="SOL") == before - 5000 - rig.treasury.marker_rent
    assert (booked(rig), rig.states()) == ([], {})
    assert compare(rig.connection, rig.rpc, rig.treasury).ok


def test_what_failed_costs_its_fee_alone(restored: tuple[Rig, list[Node]]) -> None:
    rig, _ = restored
    before = rig.balance("platform", asset="SOL")
    rig.put_account(2, frozen=True)
    effect = done(rig, marker(rig), paid(rig, 1, 700), paid(rig, 2, 5))
    assert effect.error is not None
    assert adoption.adopt(rig.payouts, effect)
    assert (rig.balance("platform", asset="SOL"), booked(rig)) == (before - 5000, [])
    assert rig.rows("SELECT kind FROM ledger.entries ORDER BY id DESC LIMIT 1") == [("adopted_cost",)]


def test_what_somebody_else_has_signed_is_not_adopted(restored: tuple[Rig, list[Node]]) -> None:
    rig, _ = restored
    sent = rig.chain.airdrop(rig.treasury.payer.gas, 5000)
    rig.chain.enqueue(sent)
    rig.advance(FINAL_BLOCKS + 1)
    effect = rig.rpc.effect(str(sent.signatures[0]), 2)
    assert effect is not None
    assert not adoption.adopt(rig.payouts, effect)
    assert rig.rows("SELECT count(*)::int FROM ledger.entries WHERE kind LIKE 'adopted%%'") == [(0,)]


def as_raw(raw: bytes) -> Any:
    return lambda told: {**told, "transaction": [base64.b64encode(raw).decode(), "base64"]}


def test_bytes_that_are_not_the_transactions_own_are_not_adopted(restored: tuple[Rig, list[Node]]) -> None:
    """One node's word is enough for bytes, since they carry their proof."""
    rig, nodes = restored
    first = done(rig, marker(rig), paid(rig, 1, 700))
    own = rig.rpc.raw(first.signature)
    blockhash = rig.rpc.latest_blockhash(2)
    other = rig.treasury.signed([packing.memo("another"), paid(rig, 1, 700)], blockhash.hash, 200_000)
    spoiled = own[:-1] + bytes([own[-1] ^ 1]) if rig.treasury.version == "legacy" else own.replace(
        (700).to_bytes(8, "little"), (701).to_bytes(8, "little")
    )  # fmt: skip
    assert spoiled != own
    for raw in (other, spoiled):
        for node in nodes:
            node.lies["getTransaction"] = as_raw(raw)
        assert not adoption.adopt(rig.payouts, first)
        rig.connection.rollback()
        assert booked(rig) == []
    for node in nodes:
        node.lies.clear()
    assert adoption.adopt(rig.payouts, first)
    assert booked(rig) == [(1, 700, 700)]
