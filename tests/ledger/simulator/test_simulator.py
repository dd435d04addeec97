"""Whatever breaks: nobody is paid twice, nothing is called paid that is not, no unit is lost; and wrong protocols fail."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cluster.settings import ROOT
from tests.ledger.simulator.climate import Climate, Restoring, crowd, drawn, steady
from tests.ledger.simulator.ground import Ground
from tests.ledger.simulator.protocols import STORY, WRONG, Wrong, aimed
from tests.ledger.simulator.runs import Job, Tally, run, side_by_side, tally
from tests.ledger.simulator.truth import kinds_of
from tests.ledger.simulator.world import World

SHORT_S = 40.0
SAME = 3  # seeds whose worlds are run twice
AT_ONCE = frozenset((  # wrong protocols that the first or second world shows; the others' test takes minutes
    "PaysWhatIsDoubtful", "JudgesEverybody", "HoldsEveryDay", "LooksFromBefore", "ResolvesTooSoon",
    "NeverDiffers", "ReclaimsByTheBook", "BooksTheFeeAlone", "PaysTheOldWallet", "ExpiryAtConfirmed", "OneOpinion",
    "OverAtOnce", "PlansOverTheDay", "PaysWhatComesBack",
))  # fmt: skip

ONCE = """
import sys
from tests.ledger.simulator.ground import Ground
from tests.ledger.simulator.runs import Job, run
with Ground(sys.argv[1]) as ground:
    print(*(run(ground, Job(int(seed))).digest for seed in sys.argv[2:]))
"""


def test_payouts_are_exact_in_any_weather(stage: Ground) -> None:
    found, deadline, seed = Tally(stage.machine), time.monotonic() + SHORT_S, 0
    while time.monotonic() < deadline and seed < 150:
        found.add(run(stage, Job(seed)))
        seed += 1
    assert found.failing == {}, str(found)
    assert found.seeds >= 5
    assert found.counts["crash"] > 0
    assert found.counts["overlap"] > 0


@pytest.mark.parametrize(
    "wrong",
    [pytest.param(each, id=each.name, marks=() if each.name in AT_ONCE else pytest.mark.slow) for each in WRONG],
)
def test_a_wrong_protocol_is_caught_where_ours_is_not(stage: Ground, wrong: Wrong) -> None:
    """Within so many seeds of a world that is aimed at its fault; and in the same worlds ours shows nothing at all."""
    for seed in range(wrong.seeds):
        caught = kinds_of(run(stage, Job(seed), wrong).problems) & set(wrong.kinds)
        assert run(stage, Job(seed, weather=wrong.name)).problems == ()
        if caught:
            return
    pytest.fail(f"{wrong.seeds} seeds have not shown that {wrong.name} is wrong")


@pytest.mark.slow
@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.name)
def test_ours_is_well_in_the_weather_of_a_wrong_protocol(stage: Ground, wrong: Wrong) -> None:
    found = tally(stage, [Job(seed, weather=wrong.name) for seed in range(wrong.seeds)])
    assert found.failing == {}, str(found)


def test_a_seed_replays_in_another_process(places: tuple[str, str]) -> None:
    """Journal and transactions are the same to the bit, however Python mixes its hashes."""
    told = []
    for number, url in enumerate(places):
        done = subprocess.run(
            [sys.executable, "-c", ONCE, url, *map(str, range(SAME))],
            env={**os.environ, "PYTHONHASHSEED": str(number + 1), "PYTHONPATH": str(ROOT)},
            cwd=ROOT, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        told.append(done.stdout.split())
    assert len(told[0]) == SAME
    assert told[0] == told[1]


def test_many_creators_share_wallets(stage: Ground) -> None:
    small = Climate(creators=300, wallets=12, rounds=4, is_folding=True)
    assert World(stage, 1, small).run().problems == ()
    assert crowd(small).creators >= 1000
    assert drawn(249).creators == crowd(small).creators


def test_days_on_which_everybody_earns_as_much_hold_nobody_twice(stage: Ground) -> None:
    """Six days of steady earnings, with restarts: nobody is held for a day that is like the days before."""
    outcomes = [World(stage, seed, steady(Climate(is_folding=True, maturity_s=600))).run() for seed in range(2)]
    assert [each.problems for each in outcomes] == [()] * len(outcomes)


def test_liars_who_tell_one_story_are_not_believed_in_silence(stage: Ground) -> None:
    """Two of three nodes lie together: what they say is booked, and payouts are frozen for it once they are found out."""
    outcomes = [World(stage, seed, STORY).run() for seed in range(12)]
    assert [each.problems for each in outcomes] == [()] * len(outcomes)
    assert sum(each.counts.get("stopped, as a story demands", 0) for each in outcomes) > 0


def test_rent_that_rises_keeps_no_marker(stage: Ground) -> None:
    dearer = aimed({"dearer": 0.15, "leap": 0.3}, marker_retention_s=60, rounds=20, crashing=0.01)
    outcomes = [World(stage, seed, dearer).run() for seed in range(4)]
    assert [each.problems for each in outcomes] == [()] * len(outcomes)


@pytest.mark.parametrize("restoring", [each for each in Restoring if each])
def test_a_database_that_goes_back_is_whole_again(stage: Ground, restoring: Restoring) -> None:
    back = Climate(restoring=restoring, keeping=0.4, going_back=0.2, rounds=12)
    outcomes = [World(stage, seed, back).run() for seed in range(3)]
    assert [each.problems for each in outcomes] == [()] * len(outcomes)
    assert sum(each.counts.get(f"restored {restoring}", 0) for each in outcomes) > 0


@pytest.mark.slow
@pytest.mark.parametrize(("seeds", "fierce"), [(2000, 1.0), (500, 3.0)])
def test_thousands_of_seeds(places: tuple[str, str], tmp_path: Path, seeds: int, fierce: float) -> None:
    with Ground(places[0]) as made:
        found = Tally(made.machine)
    for _, outcome in side_by_side(places, [Job(seed, fierce) for seed in range(seeds)], tmp_path / "notes"):
        found.add(outcome)
    print(found, found.coverage(), sep="\n")
    assert found.failing == {}, str(found)
    if fierce == 1.0:
        assert found.is_covered(), found.coverage()


def test_ground_is_as_the_migrations_leave_it(stage: Ground) -> None:
    tally(stage, [Job(3)])
    stage.clear()
    assert stage.rows("SELECT count(*) FROM ledger.entries") == [(0,)]
    assert stage.rows("SELECT least_pix FROM ledger.owed_least") == [(1,)]
