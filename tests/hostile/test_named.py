"""One kind of stranger at a time, each as many as can be: a client at another address is served, and memory returns.

A few seconds of the worst in `make test`, a minute of each in `make test-slow`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from tests.hostile import siege
from tests.hostile.conftest import Scene

SEED = 20_100
SHORT_S, LONG_S = 8.0, 60.0


@dataclass(frozen=True)
class Attack:
    """A kind of stranger: how many at once, how many come a second, how long each holds what it holds.

    `told` is a status that they must be answered, each `wrong_keys` stranger being good for 25 wrong keys. They come from
    so many addresses.
    """

    kind: str
    at_once_max: int
    starts_per_s: float
    hold_s: float = 120.0  # longer than any test
    told: str = ""
    addresses: int = 1


ATTACKS = {
    "connections": Attack("half_a_line", 10_000, 1500.0),
    "silent-connections": Attack("says_nothing", 10_000, 1500.0),
    "slow-headers": Attack("slow_headers", 400, 200.0),
    "slow-bodies": Attack("slow_body", 330, 100.0),
    "slow-readers": Attack("reads_an_answer_slowly", 70, 40.0),
    "paused-players": Attack("paused_player", 66, 40.0),
    "idle-streams": Attack("idle_stream", 200, 100.0),
    "big-bodies": Attack("big_body", 4, 8.0),
    "big-pictures": Attack("big_picture", 32, 16.0),
    "wrong-keys": Attack("wrong_keys", 64, 14.0, told="429"),
    "hang-ups": Attack("resets", 96, 96.0),
    "hang-ups-of-many": Attack("asks_and_resets", 96, 400.0, addresses=5),
    "floods": Attack("floods", 16, 8.0),
}
SHORT = ("connections", "slow-bodies", "paused-players", "hang-ups", "hang-ups-of-many")  # each took an API down once


def attacked(scene: Scene, show: Callable[..., None], name: str, seconds: float) -> siege.Siege:
    attack, seed = ATTACKS[name], SEED + list(ATTACKS).index(name)
    plan = siege.plan(
        scene, seed, seconds, {attack.kind: 1.0}, starts_per_s=attack.starts_per_s, at_once_max=attack.at_once_max,
        addresses=tuple(f"127.0.0.{2 + number}" for number in range(attack.addresses)), hold_s=(attack.hold_s, attack.hold_s),
    )  # fmt: skip
    return siege.besieged(scene, plan, seconds, show)


def faults(scene: Scene, show: Callable[..., None], name: str, seconds: float) -> list[str]:
    seen, told = attacked(scene, show, name, seconds), ATTACKS[name].told
    untold = told and not any(f": {told} " in what for what in seen.report.answers)
    return [*seen.faults, *([f"no stranger was answered {told}"] if untold else [])]


@pytest.mark.timeout(180)
@pytest.mark.parametrize("name", SHORT)
def test_a_few_seconds_of_one_attack_cost_the_quiet_client_nothing(
    scene: Scene, show: Callable[..., None], name: str
) -> None:
    assert faults(scene, show, name, SHORT_S) == [], f"seed of the attacks {SEED}"


@pytest.mark.slow
@pytest.mark.parametrize("name", ATTACKS)
def test_a_minute_of_one_attack_costs_the_quiet_client_nothing(
    scene: Scene, show: Callable[..., None], name: str
) -> None:
    assert faults(scene, show, name, LONG_S) == [], f"seed of the attacks {SEED}"
