"""A quiet client beside a crowd of strangers, and what became of both and of the stack."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tests.hostile import asking, crowd, echo, gauges, tables
from tests.hostile.asking import Asked, Kind, Seen
from tests.hostile.conftest import ATTACKERS, Scene
from tests.hostile.crowd import Report
from tests.hostile.gauges import Gauges
from tests.hostile.programs import program

LEAD_S = 1.0  # of the crowd, before the quiet client begins to ask
CLEAN_503_SHARE_MAX = 0.02  # of the quiet client's requests that may be told to come again
STRENGTH_MIN = 0.5  # of what a crowd was meant to be: below it, nobody was besieged
SETTLED_WITHIN_S = 75.0  # the door keeps a connection of a client that says nothing for a minute


@dataclass(frozen=True)
class Siege:
    """What a test saw: the quiet client's requests, the crowd and its report, the gauges before and after."""

    attack: crowd.Plan
    seen: Seen
    report: Report
    before: Gauges
    after: Gauges
    lacking: Sequence[str]
    connected_min: float = STRENGTH_MIN  # the part of the strangers who must have had a connection

    @property
    def faults(self) -> list[str]:
        """What is wrong: how the quiet client was served, what the strangers got to see, what was not given back."""
        found = [f"the quiet client: {each}" for each in served_badly(self.seen)]
        found += [f"no siege: {each}" for each in attacked_little(self.attack, self.report, self.connected_min)]
        found += [f"strangers got {what}: {count}" for what, count in self.report.answers.items() if ": 500" in what]
        return found + [f"not given back: {each}" for each in self.lacking]


def served_badly(seen: Seen) -> list[str]:
    """Nothing but good answers, and few that say cleanly when to come again."""
    found = seen.worst() if set(seen.kinds) - {Kind.OK, Kind.BUSY} else []
    if seen.share(Kind.BUSY) > CLEAN_503_SHARE_MAX or not seen.of(Kind.OK):
        found.append(f"{len(seen.of(Kind.OK))} of {len(seen.rows)} answered: {dict(seen.kinds)}")
    return found


def attacked_little(attack: crowd.Plan, report: Report, connected_min: float = STRENGTH_MIN) -> list[str]:
    """What a crowd lacked of an attack: strangers, or their connections. A quiet client is served well beside nobody."""
    started, due = report.started.total(), attack.starts_per_s * report.seconds
    found = []
    if started < STRENGTH_MIN * due and report.at_once < STRENGTH_MIN * attack.at_once_max:
        wanted = f"{due:.0f} were meant to be, or {attack.at_once_max} at once"
        found.append(f"{started} strangers, at most {report.at_once} at once, where {wanted}")
    if report.connected < connected_min * max(1, started):
        found.append(f"{report.connected} of {started} strangers had a connection: {dict(report.failures)}")
    return found


def untold(seen: Siege, wanted: str) -> list[str]:
    """Has no stranger been answered what shows that the attack has met what it was for: a status, with a refusal's code?"""
    is_told = not wanted or any(what.endswith(f": {wanted}") for what in seen.report.answers)
    return [] if is_told else [f"no siege: no stranger was answered {wanted}"]


def plan(scene: Scene, seed: int, seconds: float, weights: dict[str, float], **more: object) -> crowd.Plan:
    """A crowd for the scene's door that attacks for some time beyond that of the quiet client."""
    given: dict[str, object] = {"starts_per_s": 50.0, "at_once_max": 600, "addresses": ATTACKERS, **more}
    lasts_s = seconds + LEAD_S + asking.GIVEN_UP_S
    return crowd.Plan(scene.door.host, scene.door.port, seed, weights, seconds_max=lasts_s, links=scene.links, **given)  # type: ignore[arg-type]


def beside(scene: Scene, attack: crowd.Plan, seconds: float) -> tuple[Seen, Report]:
    """The quiet client for some seconds beside a crowd."""
    asks = asking.Plan(scene.door.host, scene.door.port, scene.texts, attack.seed, key=scene.key)
    with program("crowd", attack) as strangers:
        time.sleep(LEAD_S)
        with program("asking", asks) as client:
            time.sleep(seconds)
            seen = Seen(tuple(Asked.of(row) for row in client.result()))
        report = told(strangers.result())
    return seen, report


def told(report: dict[str, Any]) -> Report:
    """A crowd's report, from what it printed."""
    counts = {name: Counter(report.pop(name)) for name in ("started", "answers", "failures")}
    return Report(**counts, **report)


def besieged(
    scene: Scene, attack: crowd.Plan, seconds: float, show: Callable[..., None], connected_min: float = STRENGTH_MIN
) -> Siege:
    """A siege from gauges to gauges, told as tables."""
    before = gauges.told(scene.stack)
    seen, report = beside(scene, attack, seconds)
    after, lacking = gauges.settled(scene.stack, before, SETTLED_WITHIN_S)
    show(
        f"seed {attack.seed}",
        tables.of_clients({"quiet": seen}),
        tables.of_crowd(report),
        tables.of_gauges(before, after),
    )
    return Siege(attack, seen, report, before, after, lacking, connected_min)


def baseline(scene: Scene, attack: crowd.Plan, cpu_share: float, seconds: float) -> tuple[Seen, Report]:
    """The quiet client beside the same crowd, of at least the same CPU, that attacks another server."""
    with program("echo", echo.Plan()) as other:
        elsewhere = replace(attack, port=int(other.first), links=("/",), cpu_share=cpu_share)
        return beside(scene, elsewhere, seconds)
