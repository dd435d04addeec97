"""The storm: rounds in which the ledger's parts, the chain and people do everything at once, and anything may break."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from ledger import adoption
from ledger.localnet.blocks import WINDOW_BLOCKS
from tests.ledger.chains import FINAL_BLOCKS
from tests.ledger.simulator import causes, counting, nature, people
from tests.ledger.simulator.climate import Restoring
from tests.ledger.simulator.truth import Kept
from tests.ledger.snapshots import Snapshot

if TYPE_CHECKING:
    from tests.ledger.simulator.world import World

PLOT_GOES_ON, PLOT_JUMPS = 0.5, 0.3
SNAPSHOTS_MAX = 3
RESTARTS = 0.15  # of the rounds of a world of days
RESTORE_S = 1  # at least
DEAD_BLOCKS = WINDOW_BLOCKS + 2 * FINAL_BLOCKS  # after which nothing that was signed before can land


def rage(world: World) -> None:
    """All of it."""
    world.is_hostile = True
    for node in world.nodes:
        node.weather = node.storm
    for _ in range(world.climate.rounds):
        _go_back_maybe(world)
        _plot_maybe(world)
        tick(world)
        _pass_hours(world)
        world.crowd.is_away = world.crowd.is_away and world.rng.random() < 0.5
    if world.plot.is_on:
        _end_plot(world)
    world.is_hostile = world.plot.is_on = False


def _pass_hours(world: World) -> None:
    """In a world of days: a part of the day's earnings, and of the day. A process may end in between."""
    if world.climate.hours:
        people.earn_steadily(world)
        world.ground.clock += timedelta(hours=world.climate.hours)
        if world.rng.random() < RESTARTS:
            world.start_anew()


def tick(world: World) -> None:
    """Everything at once: a round of each of the ledger's parts, the chain, people."""
    world.look_before()
    jobs = {**world.process.jobs(), "nature": lambda: _nature(world), "people": lambda: _people(world)}
    world.baton.run(jobs)
    world.monotonic_s += 0.5
    causes.explain(world)
    counting.check_days(world)
    counting.check_paid(world)
    if world.process.is_dead:
        world.start_anew()


def _nature(world: World) -> None:
    nature.pass_time(world)
    for name, happen in nature.HAPPENINGS.items():
        _maybe(world, name, happen)
    nature.pass_time(world)


def _people(world: World) -> None:
    for name, happen in people.DEEDS.items():
        _maybe(world, name, happen)
    if world.climate.restoring and world.climate.is_folding:
        _maybe(world, "come back", people.come_back)


def _maybe(world: World, name: str, happen: Callable[[World], None]) -> None:
    world.baton.pass_on(0.2)
    if world.luck(name):
        world.do(name, happen)


# ── Plots ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _plot_maybe(world: World) -> None:
    """All nodes tell the same lie for some rounds, and the database's clock may help them."""
    was_on = world.plot.is_on
    world.plot.is_on = world.rng.random() < (PLOT_GOES_ON if was_on else world.climate.plots)
    if was_on and not world.plot.is_on:
        _end_plot(world)
    if world.plot.is_on:
        world.truth.events["plot"] += 1
        if world.plot.in_order and world.rng.random() < PLOT_JUMPS:
            world.ground.clock += timedelta(minutes=world.rng.randint(5, 120))


def _end_plot(world: World) -> None:
    """What was kept back in order arrives before anything that is sent from now on."""
    if world.plot.in_order:
        for node in world.nodes:
            node.hurry()
        world.advance(1)


# ── Going back ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _go_back_maybe(world: World) -> None:
    """The database is restored to an earlier moment; the chain and whatever is on its way to it go on."""
    climate = world.climate
    if climate.restoring is Restoring.NEVER:
        return
    if world.rng.random() < climate.keeping:
        kept = (Snapshot(world.ground.admin.raw), world.truth.kept.copy())
        world.snapshots = [*world.snapshots[1 - SNAPSHOTS_MAX :], kept]
    if world.snapshots and world.rng.random() < climate.going_back:
        _go_back(world, *world.rng.choice(world.snapshots))


def _go_back(world: World, snapshot: Snapshot, kept: Kept) -> None:
    old = world.process
    old.end()
    if world.climate.restoring is Restoring.BY_HAND:  # which takes its time, and nothing tells what was signed since
        world.advance(DEAD_BLOCKS)
        world.ground.clock += timedelta(minutes=10)
    else:  # an epoch that is taken after it is of a later microsecond than those that it forgets
        world.ground.clock += timedelta(seconds=RESTORE_S)
    snapshot.bring_back(world.ground.admin.raw, numbers=world.climate.restoring is Restoring.PLATFORM)
    world.truth.kept = kept.copy()
    for replica in world.crowd.replicas:
        replica.is_forgotten = True
    world.restores, world.declared_before = world.restores + 1, world.declared()
    world.truth.events[f"restored {world.climate.restoring}"] += 1
    _declare(world)
    world.begin_process(old)


def _declare(world: World) -> None:
    """What the way of restoring tells the ledger."""
    admin: Any = world.ground.admin
    if world.climate.restoring is Restoring.DOCUMENTED:
        adoption.begin(admin, {"by": "the simulation"})
        admin.execute("UPDATE ledger.fence SET epoch = epoch + 1000")
    elif world.climate.restoring is Restoring.PLATFORM:
        admin.execute("UPDATE ledger.chain SET seat = 'elsewhere'")
    admin.commit()
