"""The red team's economy measures something: farms live well without rules, seeds repeat, bars can be missed, clocks agree.

What the rules reach is no claim of these tests: `pixr bench economy` runs 200 seeds and fails where a bar is missed. One
economy of a few strategies is held to the farms' bar here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from psycopg import Connection

from benchmarks import economy
from benchmarks.economy import compare, platform, report, rules, towns
from benchmarks.economy.compare import CreatorResult, FarmResult, GriefResult, Paces, Result
from benchmarks.economy.learning import Learner, Pace, Tactic
from benchmarks.economy.strategies import BY_NAME, LOOKS_A_DAY, SEARCHES_A_DAY, STRATEGIES, look_pix
from cluster.database import database
from ledger.settings import PIX, PPM

SEED = 3
CHOSEN = ("cookies of one network", "creators by the hundred", "keys tied to no creator")
TINY = Paces(Pace(cells=2, days=6, learned=4), Pace(cells=2, days=4, learned=2, period=1))


@pytest.fixture
def connection(postgres_url: str) -> Iterator[Connection[Any]]:
    with database.connect(postgres_url) as connection:
        platform.prepare(connection)
        yield connection


# ── What is measured ───────────────────────────────────────────────────────────────────────────────────────────────


def test_each_rule_that_holds_lets_a_farm_live_when_it_is_switched_off(connection: Connection[Any]) -> None:
    chosen = [BY_NAME[name] for name in CHOSEN]
    with_all, *without = compare.farms_only(
        connection, SEED, economy.ECONOMICS, chosen, economy.SHORT, *((name,) for name in rules.HOLDING)
    )
    assert max(farm.share for farm in with_all) <= report.KEPT_MAX, with_all
    for name, farms in zip(rules.HOLDING, without, strict=True):
        assert max(farm.share for farm in farms) > report.KEPT_MAX, name


def test_without_rules_a_farm_takes_all_that_its_loop_can_send(connection: Connection[Any]) -> None:
    chosen = [BY_NAME[name] for name in CHOSEN]
    (farms,) = compare.farms_only(connection, SEED, rules.free(economy.ECONOMICS), chosen, TINY)
    worth = LOOKS_A_DAY * look_pix(economy.ECONOMICS) * economy.ECONOMICS.creator_share_ppm // PPM
    for farm in farms:
        assert 0.95 * worth <= farm.uncapped / farm.sources <= worth, farm
        assert farm.share > 0.9, farm


def test_a_seed_gives_the_same_result_each_time(connection: Connection[Any]) -> None:
    chosen = [BY_NAME[name] for name in ("ring of two", "padding of what is popular")]
    hamlet = towns.TOWNS[0]
    paces = Paces(Pace(cells=2, days=6, learned=4), Pace(cells=1, days=3, learned=2, period=1))
    first, second = (
        compare.run(connection, SEED, economy.ECONOMICS, chosen, paces=paces, town=hamlet) for _ in range(2)
    )
    assert first == second
    assert first.honest
    assert first.farms[0].uncapped > PIX
    assert {each.lost for each in first.honest} != {0}


def test_times_of_column_defaults_follow_the_economy_s_clock(connection: Connection[Any]) -> None:
    ledger = platform.Platform(connection, economy.ECONOMICS, SEED, start_day=20_000)
    ledger.pass_to(ledger.now_s + 12 * 3600)
    connection.execute("INSERT INTO ledger.holds (creator_id, reason) VALUES (1, 'test')")
    row = connection.execute("SELECT placed_at, to_timestamp(%s) FROM ledger.holds", (ledger.now_s,)).fetchone()
    assert row is not None
    assert row[0] == row[1]


# ── The farm that learns ───────────────────────────────────────────────────────────────────────────────────────────


def test_a_farm_knows_thirty_tries_before_it_is_measured() -> None:
    for strategy in STRATEGIES:
        pace = strategy.pace(Paces().ruled)
        days = pace.learned - strategy.sleeps - 3  # what these have brought is final before the measured ones
        assert strategy.stuffs or days // pace.period * pace.cells >= 30, strategy.name


def test_a_farm_finds_the_tactic_that_pays() -> None:
    """Looks up to a bound pay, further ones cost what they would have brought: no opening is near the bound."""
    pace = Pace(cells=6, days=40, learned=32)
    learner = Learner(pace, (Tactic(depth=2.0), Tactic(depth=400.0)), np.random.default_rng(1))
    tactics: list[list[Tactic]] = []
    for day in range(pace.days):
        tactics.append(learner.tactics(day))
        if day >= 3:
            gains = [round(max(0.0, 50 - abs(50 - each.depth))) for each in tactics[day - 3]]
            learner.see(day - 3, np.array(gains), is_in_time=day < pace.learned)
    assert all(abs(each.depth - 50) < 15 for each in tactics[-1]), tactics[-1]


def test_a_loop_is_slower_than_what_the_door_lets_through() -> None:
    assert SEARCHES_A_DAY == 86_400 // 60


# ── The bars ───────────────────────────────────────────────────────────────────────────────────────────────────────


def result(**changes: object) -> Result:
    farm = FarmResult("ring of two", 19_000, PIX, 3, 40, {}, {}, {"all": PIX})
    creator = CreatorResult(1, "usual", 10 * PIX, 10 * PIX, 10 * PIX, 0)
    grief = GriefResult("a push", 10 * PIX, 0, 1, 1)
    of: dict[str, object] = {"farm": farm, "creator": creator, "grief": grief, **changes}
    return Result(0, "town", [of["farm"]], [of["creator"]], [of["grief"]])  # type: ignore[list-item]


@pytest.mark.parametrize(
    "changes",
    [
        {"farm": FarmResult("ring of two", 21_000, PIX, 3, 40, {}, {}, {"all": PIX})},
        {"creator": CreatorResult(1, "usual", 10 * PIX, 10 * PIX, 10 * PIX - 110_000, 0)},
        {"creator": CreatorResult(1, "usual", 10 * PIX, 10 * PIX - 110_000, 10 * PIX, 110_000)},
        {"grief": GriefResult("a push", PIX, 110_000, 1, 1)},
    ],
    ids=["a farm keeps more", "an attack costs the honest more", "an attack keeps them waiting", "a victim loses more"],
)
def test_a_bar_that_is_missed_is_named_with_by_how_much(changes: dict[str, object]) -> None:
    assert not report.missed([result()])
    economy.require([result()])
    bad = [result(**changes)]
    assert report.missed(bad)
    with pytest.raises(SystemExit, match=r"\d+% at most"):  # a text, and so code 1
        economy.require(bad)
    assert any("MISSED by" in figure.value for figure in report.figures(bad))


def test_the_worst_farm_and_the_worst_creator_count_beside_the_sums() -> None:
    good = [result() for _ in range(99)]
    farm = FarmResult("ring of two", 100_000, PIX, 3, 40, {}, {}, {"all": PIX})
    creator = CreatorResult(2, "niche", 10 * PIX, 10 * PIX, 8 * PIX, 0)
    assert [bar.name for bar in report.missed([*good, result(farm=farm)])] == [
        "kept by the farm that keeps most of its uncapped take"
    ]
    assert [bar.name for bar in report.missed([*good, result(creator=creator)])] == [
        "the honest creator with an income who loses most"
    ]


def test_rules_that_are_switched_off_leave_what_defines_an_appearance() -> None:
    free = rules.free(economy.ECONOMICS)
    for name in ("rate_pix", "repeat_after_s", "search_appearances_max", "search_amount_max_pix", "maturity_s"):
        assert getattr(free, name) == getattr(economy.ECONOMICS, name), name
    changed = {
        each.name for each in dataclasses.fields(free)
        if getattr(free, each.name) != getattr(economy.ECONOMICS, each.name)
    }  # fmt: skip
    assert {"viewer_day_max_pix", "address_day_max_pix", "captive_share_ppm", "velocity_ratio"} <= changed
