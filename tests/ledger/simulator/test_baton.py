"""Turns come in an order that a seed repeats, and a job that waits for a lock lets the others go on."""

from __future__ import annotations

import random

import pytest

from tests.ledger.simulator.baton import Baton, Hands


def written(seed: int) -> str:
    """Return what three jobs write, a letter a turn."""
    baton, text = Baton(random.Random(seed)), []

    def write(letter: str) -> None:
        for _ in range(5):
            text.append(letter)
            baton.pass_on()

    baton.run({letter: lambda letter=letter: write(letter) for letter in "abc"})  # type: ignore[misc]
    return "".join(text)


def test_a_seed_repeats_the_order_of_turns() -> None:
    orders = [written(seed) for seed in (1, 1, 2)]
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[0]) == sorted("abc" * 5)


def test_one_at_a_time_holds_a_lock() -> None:
    baton, text = Baton(random.Random(3)), []
    hands = Hands(baton, lambda: None)

    def work(letter: str) -> None:
        with hands:
            for _ in range(3):
                text.append(letter)
                baton.pass_on()

    baton.run({letter: lambda letter=letter: work(letter) for letter in "ab"})  # type: ignore[misc]
    assert "".join(text) in ("aaabbb", "bbbaaa")


def test_what_a_job_raises_is_raised_once_all_have_ended() -> None:
    baton, done = Baton(random.Random(4)), []

    def fail() -> None:
        raise ValueError("here")

    with pytest.raises(ValueError, match="here"):
        baton.run({"fail": fail, "work": lambda: done.append(1)})
    assert done == [1]
