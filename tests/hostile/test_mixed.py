"""Strangers of every kind at once, drawn from one seed, while a quiet client searches: it is served, nothing is kept."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from serve.settings import SearchSettings
from tests.hostile import gauges, siege, tables
from tests.hostile.asking import Kind, Seen
from tests.hostile.conftest import Scene

SEED = 20_001
SHORT_S, LONG_S, BASELINE_S = 60.0, 600.0, 120.0
FEW_PER_S, MANY_PER_S = 20.0, 50.0  # strangers; two cores have answers for the few, and not for so many
P95_RATIO_MAX = 3.0
KEY_P95_S, GRACE_S = 0.5, 0.5
MEMORY_SHARE_MAX = 0.05  # by which the third minute of quiet may be above the second
WEIGHTS = {
    "hangs_up": 12.0, "resets": 12.0, "floods": 2.0, "wrong_keys": 2.0, "pipelined": 1.0, "malformed": 3.0,
    "odd_methods": 3.0, "fresh_cookies": 2.0, "longer_than_announced": 1.0, "shorter_than_announced": 1.0,
    "says_nothing": 3.0, "half_a_line": 3.0, "slow_headers": 2.0, "slow_body": 2.0, "reads_an_answer_slowly": 1.0,
    "paused_player": 1.0, "idle_stream": 2.0, "big_body": 0.3, "big_picture": 0.3,
}  # fmt: skip


def besieged(scene: Scene, show: Callable[..., None], seconds: float, seed: int = SEED, **more: float) -> siege.Siege:
    attack = siege.plan(scene, seed, seconds, WEIGHTS, keys=(scene.stranger_key,), **more)
    return siege.besieged(scene, attack, seconds, show)


def slowed(scene: Scene, show: Callable[..., None], seen: siege.Siege) -> list[str]:
    """Was the quiet client slower than beside such strangers, of the same CPU, at another server?

    It asks for other texts than during the siege: what is kept of those would answer twice as fast.
    """
    attack = siege.plan(scene, SEED + 1, BASELINE_S, WEIGHTS, keys=(scene.stranger_key,), starts_per_s=FEW_PER_S)
    calm, report = siege.baseline(scene, attack, seen.report.cpu_share, BASELINE_S)
    p95_s, calm_s = seen.seen.took_s(0.95), calm.took_s(0.95)
    ratio = f"p95 {1000 * p95_s:.0f} ms, {p95_s / calm_s:.1f} times that beside another server ({1000 * calm_s:.0f} ms)"
    show(tables.of_clients({"beside another server": calm}), tables.of_crowd(report), ratio)
    return [ratio] if p95_s > P95_RATIO_MAX * calm_s else []


@pytest.mark.timeout(300)
def test_a_minute_of_strangers_leaves_the_quiet_client_served_and_nothing_taken(
    scene: Scene, show: Callable[..., None]
) -> None:
    assert besieged(scene, show, SHORT_S, starts_per_s=FEW_PER_S).faults == [], f"seed {SEED}"


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_ten_minutes_of_strangers_leave_the_quiet_client_served_and_nothing_taken(
    scene: Scene, show: Callable[..., None]
) -> None:
    seen = besieged(scene, show, LONG_S, starts_per_s=FEW_PER_S)
    minutes = gauges.quiet_memory(scene.stack, 3)
    rows = [(name, *(f"{each[name]:.0f}" for each in minutes)) for name in minutes[0]]
    show(tables.table(("quiet", "minute 1", "minute 2", "minute 3"), rows))
    grown = [row for name, row in zip(minutes[0], rows, strict=True) if grows(minutes, name)]
    assert (seen.faults, slowed(scene, show, seen), grown) == ([], [], []), f"seed {SEED}"


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_of_more_strangers_than_can_be_answered_a_key_feels_little(scene: Scene, show: Callable[..., None]) -> None:
    """Every second request of the quiet client has a key: those are answered; the others come in turn, or soon again."""
    seen = besieged(scene, show, SHORT_S, SEED + 2, starts_per_s=MANY_PER_S)  # texts of its own: none is kept
    with_key, without = Seen(seen.seen.rows[::2]), Seen(seen.seen.rows[1::2])
    show(tables.of_clients({"with a key": with_key, "without": without}))
    assert siege.served_badly(with_key) == []
    assert with_key.took_s(0.95) < KEY_P95_S
    assert set(without.kinds) <= {Kind.OK, Kind.BUSY}
    assert without.took_s(0.95) < SearchSettings().gate_wait_s + GRACE_S
    assert seen.lacking == []


def grows(minutes: list[dict[str, float]], name: str) -> bool:
    """Is the third minute above the second by more than is allowed?"""
    return minutes[2][name] > minutes[1][name] * (1 + MEMORY_SHARE_MAX)
