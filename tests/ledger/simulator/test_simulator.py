"""Whatever breaks: nobody is paid twice, nothing is called paid that is not, no unit is lost; and wrong protocols fail."""

from __future__ import annotations

import time
from typing import Any

import pytest
from psycopg import Connection

from ledger.payouts import Payouts
from tests.ledger.simulator.protocols import WRONG
from tests.ledger.simulator.runs import Tally, tally
from tests.ledger.simulator.world import World, prepare

SHORT_S = 20.0


def test_payouts_are_exact_in_any_weather(journal: Connection[Any]) -> None:
    prepare(journal)
    found, deadline, seed = Tally(), time.monotonic() + SHORT_S, 0
    while time.monotonic() < deadline and seed < 200:
        found.add(World(journal, seed).run())
        seed += 1
    assert found.failing == [], str(found)
    assert found.seeds >= 5
    assert found.crashes > 0


def test_payouts_are_exact_through_restores(journal: Connection[Any]) -> None:
    """The database goes back to earlier moments, again and again, while the chain and what is on its way go on."""
    prepare(journal)
    deadline, seed, restores, failing = time.monotonic() + SHORT_S, 0, 0, []
    while time.monotonic() < deadline and seed < 100:
        world = World(journal, seed, restoring=True)
        if world.is_restoring:
            outcome = world.run()
            restores += world.restores
            failing += [] if outcome.ok else [outcome]
        seed += 1
    assert failing == []
    assert restores > 0


@pytest.mark.parametrize("protocol", WRONG)
def test_a_wrong_protocol_is_caught(journal: Connection[Any], protocol: type[Payouts]) -> None:
    found = tally(journal, range(150), protocol, markers=False, enough=1)
    assert found.double + found.phantom > 0, str(found)


def test_a_seed_replays(journal: Connection[Any]) -> None:
    prepare(journal)
    assert World(journal, 7).run() == World(journal, 7).run()


@pytest.mark.slow
def test_two_thousand_seeds(journal: Connection[Any]) -> None:
    found = tally(journal, range(2000))
    assert found.failing == [], str(found)
