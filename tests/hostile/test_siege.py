"""A siege that did not take place is told, though the quiet client beside it was served well."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

from tests.conftest import free_port
from tests.hostile import attacks, crowd, echo, siege
from tests.hostile.asking import Asked, Kind, Seen
from tests.hostile.crowd import Report
from tests.hostile.programs import program
from tests.hostile.siege import Siege

GOOD = Seen(tuple(Asked(float(number), 0.01, Kind.OK, 200) for number in range(20)))


def attack(port: int, *kinds: str, **more: Any) -> crowd.Plan:
    given = {
        "starts_per_s": 40.0,
        "at_once_max": 400,
        "seconds_max": 20.0,
        "links": ("/",),
        "hold_s": (0.1, 0.2),
        **more,
    }
    return crowd.Plan("127.0.0.1", port, 20, dict.fromkeys(kinds, 1.0), **given)


def besieging(plan: crowd.Plan, seconds: float = 1.5) -> Siege:
    """What is told of such a crowd beside a quiet client that was served."""
    with program("crowd", plan) as strangers:
        time.sleep(seconds)
        report = siege.told(strangers.result())
    return Siege(plan, GOOD, report, {}, {}, [])


def test_strangers_who_reach_nobody_are_no_siege() -> None:
    """Of whatever kind, at the port of a door that is down."""
    seen = besieging(attack(free_port(), *attacks.BEHAVIOURS))
    assert len(seen.report.started) > 10
    assert [each.partition(" of ")[0] for each in seen.faults] == ["no siege: 0"]
    assert "strangers had a connection" in seen.faults[0]


def test_strangers_who_reach_a_server_are_a_siege() -> None:
    with program("echo", echo.Plan()) as server:
        seen = besieging(attack(int(server.first), "says_nothing", "asks_and_resets", "hangs_up", "floods"))
    assert seen.faults == []
    assert "floods: 200" in seen.report.answers


def test_an_attack_that_nobody_was_told_of_is_no_siege() -> None:
    """As a bound of the door that was never met."""
    answers = Counter({"asks_and_resets: 200": 90, "asks_and_resets: 429 too-many-requests": 9})
    seen = Siege(attack(1, "asks_and_resets"), GOOD, Report(answers=answers), {}, {}, [])
    assert siege.untold(seen, "429 too-many-hang-ups") == ["no siege: no stranger was answered 429 too-many-hang-ups"]
    assert siege.untold(seen, "200") == siege.untold(seen, "") == []


def test_fewer_strangers_than_were_meant_to_be_are_no_siege() -> None:
    plan = attack(1, "resets", starts_per_s=100.0)
    few = Report(Counter(resets=200), seconds=10.0, connected=200, at_once=30)
    assert siege.attacked_little(plan, few) == [
        "200 strangers, at most 30 at once, where 1000 were meant to be, or 400 at once"
    ]
    for enough in (Report(Counter(resets=500), at_once=30), Report(Counter(resets=400), at_once=400)):
        enough.seconds, enough.connected = 10.0, enough.started.total()
        assert siege.attacked_little(plan, enough) == []
