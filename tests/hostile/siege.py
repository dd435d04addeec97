"""A quiet client beside a crowd of strangers, and what became of both and of the stack."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from tests.hostile import asking, crowd, echo, gauges, tables
from tests.hostile.asking import Asked, Kind, Seen
from tests.hostile.conftest import ATTACKERS, Scene
from tests.hostile.crowd import Report
from tests.hostile.gauges import Gauges
from tests.hostile.programs import program

LEAD_S = 1.0  # of the crowd, before the quiet client begins to ask
CLEAN_503_SHARE_MAX = 0.02  # of the quiet client's requests that may be told to come again
SETTLED_WITHIN_S = 75.0  # the door keeps a connection of a client that says nothing for a minute


@dataclass(frozen=True)
class Siege:
    """What a test saw: the quiet client's requests, the crowd's report, the gauges before and after."""

    seed: int
    seen: Seen
    report: Report
    before: Gauges
    after: Gauges
    lacking: Sequence[str]

    @property
    def faults(self) -> list[str]:
        """What is wrong: how the quiet client was served, what the strangers got to see, what was not given back."""
        found = [f"the quiet client: {each}" for each in served_badly(self.seen)]
        found += [f"strangers got {what}: {count}" for what, count in self.report.answers.items() if ": 500" in what]
        return found + [f"not given back: {each}" for each in self.lacking]


def served_badly(seen: Seen) -> list[str]:
    """Nothing but good answers, and few that say cleanly when to come again."""
    found = seen.worst() if set(seen.kinds) - {Kind.OK, Kind.BUSY} else []
    if seen.share(Kind.BUSY) > CLEAN_503_SHARE_MAX or not seen.of(Kind.OK):
        found.append(f"{len(seen.of(Kind.OK))} of {len(seen.rows)} answered: {dict(seen.kinds)}")
    return found


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
        told = strangers.result()
    counts = {name: Counter(told.pop(name)) for name in ("started", "answers", "failures")}
    return seen, Report(**counts, **told)


def besieged(scene: Scene, attack: crowd.Plan, seconds: float, show: Callable[..., None]) -> Siege:
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
    return Siege(attack.seed, seen, report, before, after, lacking)


def baseline(scene: Scene, attack: crowd.Plan, cpu_share: float, seconds: float) -> tuple[Seen, Report]:
    """The quiet client beside the same crowd, of at least the same CPU, that attacks another server."""
    with program("echo", echo.Plan()) as other:
        elsewhere = replace(attack, port=int(other.first), links=("/",), cpu_share=cpu_share)
        return beside(scene, elsewhere, seconds)
