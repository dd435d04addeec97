"""Slots run ahead of heights, each way is the other's, and answers say slots where nodes say them."""

from __future__ import annotations

import random

from ledger.solana.localnet.inside import new_chain
from ledger.solana.localnet.methods import answer
from tests.ledger.simulator.slots import Slots


def test_slots_run_ahead_of_heights_by_more_and_more() -> None:
    slots = Slots(random.Random(1))
    ahead = [slots.of(height) - height for height in range(2000)]
    assert ahead == sorted(ahead)
    assert ahead[0] >= 1000
    assert ahead[-1] > ahead[0]


def test_a_slot_without_a_block_is_waited_for_until_the_next_block() -> None:
    slots = Slots(random.Random(1))
    for height in range(500):
        assert slots.height_since(slots.of(height)) == height
        assert slots.height_since(slots.of(height) + 1) == height + 1
    assert slots.height_since(10**15) > 2000


def test_answers_say_slots_and_questions_are_understood() -> None:
    chain, slots = new_chain(), Slots(random.Random(2))
    for _ in range(60):
        chain.produce(chain.height)
    told = slots.told("getEpochInfo", answer(chain, "getEpochInfo", [{"commitment": "processed"}]))
    assert (told["blockHeight"], told["absoluteSlot"]) == (60, slots.of(60))
    asked = slots.asked([{"commitment": "processed", "minContextSlot": slots.of(60)}])
    assert slots.told("getSlot", answer(chain, "getSlot", asked)) == slots.of(60)
