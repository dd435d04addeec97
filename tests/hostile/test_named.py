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

    `told` is what some of them must be answered (a status, of a refusal with its code), and shows that what they attack is
    there: each `wrong_keys` stranger is good for 25 wrong keys. They come from so many addresses of so many networks. The part
    of them who must have a connection is small where the door is meant to close most.
    """

    kind: str
    at_once_max: int
    starts_per_s: float
    hold_s: float = 120.0  # longer than any test
    told: str = ""
    addresses: int = 1
    networks: int = 1
    connected_min: float = siege.STRENGTH_MIN


ATTACKS = {
    "connections": Attack("half_a_line", 10_000, 1500.0, connected_min=0.02),
    "silent-connections": Attack("says_nothing", 10_000, 1500.0, connected_min=0.02),
    "slow-headers": Attack("slow_headers", 400, 200.0),
    "slow-bodies": Attack("slow_body", 330, 100.0, told="408 request-timeout"),
    "slow-readers": Attack("reads_an_answer_slowly", 70, 40.0),
    "paused-players": Attack("paused_player", 66, 40.0, told="200"),
    "idle-streams": Attack("idle_stream", 200, 100.0, told="200"),
    "big-bodies": Attack("big_body", 4, 8.0, told="413 too-large"),
    "big-pictures": Attack("big_picture", 32, 16.0, told="422 bad-image"),
    "wrong-keys": Attack("wrong_keys", 64, 14.0, told="429 too-many-requests"),
    "hang-ups": Attack("resets", 96, 96.0),
    "hang-ups-of-many": Attack("asks_and_resets", 96, 400.0, told="429 too-many-hang-ups", addresses=5),
    "floods": Attack("floods", 16, 8.0, told="200"),
    "pictures-of-many": Attack("seen_picture", 24, 96.0, told="200", addresses=160, networks=8),
}
# Each took an API down once, or other people's searches.
SHORT = ("connections", "slow-bodies", "paused-players", "hang-ups", "hang-ups-of-many", "pictures-of-many")


def attacked(scene: Scene, show: Callable[..., None], name: str, seconds: float) -> siege.Siege:
    attack, number = ATTACKS[name], list(ATTACKS).index(name)
    seed, own = SEED + number, 10 + number  # an address that has just hung up a lot is refused whatever it asks for
    numbers = range(attack.addresses)
    plan = siege.plan(
        scene, seed, seconds, {attack.kind: 1.0}, starts_per_s=attack.starts_per_s, at_once_max=attack.at_once_max,
        addresses=tuple(f"127.{own}.{each % attack.networks}.{2 + each}" for each in numbers),
        hold_s=(attack.hold_s, attack.hold_s),
    )  # fmt: skip
    return siege.besieged(scene, plan, seconds, show, attack.connected_min)


def faults(scene: Scene, show: Callable[..., None], name: str, seconds: float) -> list[str]:
    seen = attacked(scene, show, name, seconds)
    return [*seen.faults, *siege.untold(seen, ATTACKS[name].told)]


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
