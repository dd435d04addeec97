"""A part of the stack is away while searches come on schedule, and every one of them is counted.

Refused or reset is a request only while the door itself is away, and not for long; none waits beyond its deadline and a
second; none is told that what it looks for does not exist; all is whole again in time, and the books agree.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import psutil

from tests.hostile import asking, gauges, tables
from tests.hostile.asking import Asked, Kind, Seen
from tests.hostile.conftest import Scene
from tests.hostile.programs import program
from tests.stack import Stack, all_healthy, family, is_ledger_actor, is_whole, named

RATE_PER_S = 40.0
SOURCES = tuple(f"127.0.0.{number}" for number in range(20, 28))  # many people, each with few connections
FRESH_OF_FOUR = 2  # the rest is asked again and again, as much is in life
QUIET_S = 3.0  # of the load before the kill, and once more when all is whole
DOOR_AWAY_S = 2.0
WATCHED_S = 60.0  # beyond its bound, so that what comes late is told with its time
SOON_S, CLUSTER_S = 30.0, 60.0
VICTIMS = {
    "door": SOON_S, "postgres": SOON_S, "search-replica": SOON_S, "encoder": SOON_S, "redis": SOON_S, "s3": SOON_S,
    "solana": SOON_S, "serve": SOON_S, "controller": SOON_S, "ledger": SOON_S, "ledger-actor": SOON_S,
    "raylet": CLUSTER_S, "gcs": CLUSTER_S,
}  # fmt: skip

Cause = Callable[[Sequence[psutil.Process]], None]  # what is done to a service's processes


def seed_of(name: str, cause: Cause) -> int:
    """Of what is asked beside this one: another one's new texts may have been kept by now, and need no encoder."""
    return zlib.crc32(f"{name} {cause.__name__}".encode())


def victims(stack: Stack, name: str) -> list[psutil.Process]:
    """The processes that go by a name here."""
    if name in stack.pids and name != "door":  # a door may have more than one process
        return [psutil.Process(stack.pids[name])]
    if name == "ledger-actor":
        return [each for each in family(stack, "ray::Actor") if is_ledger_actor(each)]
    find: dict[str, Callable[[], list[psutil.Process]]] = {
        "door": lambda: gauges.processes(stack, "door"),
        "search-replica": lambda: gauges.processes(stack, "SearchApi"),
        "encoder": lambda: gauges.processes(stack, "QueryEncoder"),
        "controller": lambda: family(stack, "ray::ServeController"),
        "raylet": lambda: named(stack, "raylet"),
        "gcs": lambda: named(stack, "gcs_server"),
    }
    return find[name]()


@dataclass(frozen=True)
class Outage:
    """What was asked beside one: when it began, when its cause had ended, and when all was whole again."""

    name: str
    seen: Seen
    began_at_s: float
    ended_at_s: float
    whole_at_s: float

    @property
    def phases(self) -> dict[str, Seen]:
        """Before it (what was out then was hit by it), until all was whole, and from then on."""
        before: list[Asked] = []
        hit: list[Asked] = []
        after: list[Asked] = []
        for each in self.seen.rows:
            done = each.at_s + each.took_s < self.began_at_s
            (before if done else after if each.at_s > self.whole_at_s else hit).append(each)
        return {"before": Seen(tuple(before)), "away": Seen(tuple(hit)), "after": Seen(tuple(after))}

    @property
    def cut_off(self) -> list[Asked]:
        return self.seen.of(Kind.REFUSED, Kind.RESET)

    @property
    def cut_off_s(self) -> float:
        """For how long after it began connections were refused or ended."""
        return max((each.at_s - self.began_at_s for each in self.cut_off), default=0.0)

    @property
    def whole_after_s(self) -> float:
        return self.whole_at_s - self.ended_at_s

    @property
    def faults(self) -> list[str]:
        """What is beyond the bounds."""
        found, took_s = [], self.whole_after_s
        if took_s > VICTIMS[self.name]:
            found.append(f"whole again after {took_s:.1f} s")
        if self.cut_off and (self.name != "door" or self.cut_off_s > DOOR_AWAY_S):
            found.append(f"{len(self.cut_off)} refused or reset, the last after {self.cut_off_s:.1f} s")
        if bad := self.seen.of(Kind.LATE, Kind.WRONG, Kind.OTHER):
            found += [f"{len(bad)} late or wrong", *Seen(tuple(bad)).worst()]
        for name in ("before", "after"):
            if set(self.phases[name].kinds) != {Kind.OK}:
                found.append(f"{name}: {dict(self.phases[name].kinds)}")
        return found


def outage(scene: Scene, name: str, cause: Cause) -> Outage:
    """Do it to these processes under load, and wait until all is whole. It ends when the call does."""
    stack, found = scene.stack, victims(scene.stack, name)
    assert found, f"nothing goes by the name of {name}"
    door, seed = scene.door, seed_of(name, cause)
    plan = asking.Plan(door.host, door.port, scene.texts, seed, RATE_PER_S, scene.key, SOURCES, fresh=FRESH_OF_FOUR)
    with program("asking", plan) as load:
        time.sleep(QUIET_S)
        began_at_s = time.time()
        cause(found)
        ended_at_s, end_s = time.time(), time.monotonic() + VICTIMS[name] + WATCHED_S
        while not is_whole(stack, scene.texts[0]) and time.monotonic() < end_s:
            time.sleep(0.1)
        whole_at_s = time.time()
        time.sleep(QUIET_S)
        rows = tuple(Asked.of(row) for row in load.result())
    return Outage(name, Seen(rows), began_at_s, ended_at_s, whole_at_s)


def answered(scene: Scene, show: Callable[..., None], name: str, cause: Cause) -> None:
    """Assert that every search beside the outage ended well in time, and that all is whole and right after it."""
    seen = outage(scene, name, cause)
    times = f"whole after {seen.whole_after_s:.1f} s, refused or reset for {seen.cut_off_s:.1f} s"
    show(tables.of_clients(seen.phases), times, *seen.seen.worst())
    assert seen.faults == [], f"seed {seed_of(name, cause)}"
    deadline_s = time.monotonic() + WATCHED_S
    while not all_healthy(scene.stack):
        assert time.monotonic() < deadline_s, scene.stack.services
    assert scene.stack.json("audit")["clean"]
