"""The calm after the storm: nothing fails any more, the operator ends what was stopped, and everything comes to its end."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from solders.pubkey import Pubkey

from tests.ledger.chains import FINAL_BLOCKS
from tests.ledger.simulator import causes, counting, nature, operator, people
from tests.ledger.simulator.climate import CALM

if TYPE_CHECKING:
    from tests.ledger.simulator.world import World

ROUNDS_MAX = 150
HOURS_ROUNDS, DAYS_ROUNDS = 4, 50  # after which hours pass in each, then days
PATIENT_ROUNDS = 25  # in which liars are still asked
FOUND_OUT_ROUNDS = 3  # in which those who told a story are not asked any more
STORY_ROUNDS = 30  # after which a world that liars have misled, and in which payouts are frozen, is as it will stay
EVERY_ROUNDS = 8  # the operator has all that is open ended by evidence
RECLAIM_LATE_S = 600  # by which a marker is emptied later than it may be
SECRET_FOUND = 0.3

OPEN_NAMES = (
    "freezes",
    "holds",
    "batches",
    "attempts",
    "payable",
    "maturing",
    "unfolded",
    "orders",
    "resolutions",
    "unknown",
    "unreconciled",
)
OPEN = """
    SELECT (SELECT count(*) FROM ledger.freezes WHERE released_at IS NULL),
           (SELECT count(*) FROM ledger.holds WHERE released_at IS NULL),
           (SELECT count(*) FROM ledger.batches WHERE ended_at IS NULL),
           (SELECT count(*) FROM ledger.attempts WHERE state = 'live'),
           (SELECT count(*) FROM ledger.accounts WHERE kind = 'payable' AND party = 'creator' AND balance > 0),
           (SELECT count(*) FROM ledger.maturing WHERE amount_pix > 0),
           (SELECT count(*) FROM ledger.unfolded i WHERE i.folded < i.recorded),
           (SELECT count(*) FROM ledger.orders WHERE done_at IS NULL AND expires_at > sim.now()),
           (SELECT count(*) FROM ledger.resolutions WHERE done_at IS NULL),
           (SELECT count(*) FROM ledger.chain_transactions c WHERE c.kind = 'unknown' AND NOT EXISTS (
                SELECT FROM ledger.attempts a WHERE a.signature = c.signature AND a.state IN ('landed', 'failed'))),
           (SELECT NOT EXISTS (SELECT FROM ledger.reconciliations WHERE ok AND at > sim.now() - interval '30 minutes'))::int"""
# By when batches ended, which nothing that is done about their markers moves.
STANDING = """
    SELECT b.id, m.address, m.lamports FROM ledger.batches b JOIN ledger.markers m ON m.batch_id = b.id
    WHERE b.ended_at <= sim.now() - make_interval(secs => %s)"""


def settle(world: World) -> None:
    """Rounds until nothing is under way any more, or so many of them; then the time of the markers comes."""
    _mend(world)
    for number in range(ROUNDS_MAX):
        _round(world, number)
        is_heard = (
            world.story is None or number > PATIENT_ROUNDS + FOUND_OUT_ROUNDS
        )  # what a story hides shows after it
        if number % 2 and is_heard and not any(still_open(world).values()):
            if _bring_back(world):
                continue
            if not waiting(world):
                break
            if not standing(world):  # it is not their time yet
                world.ground.clock += timedelta(seconds=world.climate.marker_retention_s)
        if number == PATIENT_ROUNDS:
            _find_liars(world)
        if number > PATIENT_ROUNDS + STORY_ROUNDS and is_stopped_by_story(world):
            break
    world.truth.events["calm rounds"] = number


def _bring_back(world: World) -> bool:
    """All spools come back that still are away, now that what was paid is adopted; whether there were any."""
    if not (world.climate.restoring and world.climate.is_folding):
        return False
    before = world.truth.events["searches came back"]
    world.do("all come back", people.all_come_back)
    return world.truth.events["searches came back"] > before


def is_stopped_by_story(world: World) -> bool:
    """Whether liars have told what was believed, and payouts are frozen for it: so it is expected to end."""
    return world.story is not None and world.story.is_told and bool(still_open(world)["freezes"])


def _find_liars(world: World) -> None:
    """The operator has found who lies."""
    for node in world.nodes:
        node.liar = False
    if world.story is not None:
        world.story.is_over = True


def still_open(world: World) -> dict[str, int]:
    """What is under way, stopped or due, by name."""
    return dict(zip(OPEN_NAMES, world.ground.rows(OPEN)[0], strict=True))


def standing(world: World) -> list[str]:
    """Batches whose markers should have been emptied by now, for some time."""
    return _holding(world, world.climate.marker_retention_s + RECLAIM_LATE_S)


def waiting(world: World) -> list[str]:
    """Batches whose markers have not been emptied, be it their time or not."""
    return _holding(world, 0)


def _holding(world: World, since_s: float) -> list[str]:
    """By what the chain has at their addresses. Of a batch whose id a restore has forgotten nobody finds the marker again."""
    made = world.opened_treasury()
    return [
        batch
        for batch, address, lamports in world.ground.rows(STANDING, since_s)
        if str(made.marker(batch).address) == address
        and (account := world.chain.svm.get_account(Pubkey.from_string(address))) is not None
        and account.lamports >= max(lamports, 1)
    ]


def _mend(world: World) -> None:
    for node in world.nodes:
        node.weather, node.down_until, node.forgetful = CALM, 0, False
        node.liar = node.liar and (world.story is not None or world.rng.random() < 0.5)
    world.upgrade()
    if world.climate.loses_secret:
        world.lose_secret(is_found=world.rng.random() < SECRET_FOUND)
    world.do("all well", people.all_well)
    nature.thaw_all(world)


def _round(world: World, number: int) -> None:
    world.look_before()
    world.advance(FINAL_BLOCKS + 1)
    days, hours = number > DAYS_ROUNDS, number > HOURS_ROUNDS
    world.ground.clock += timedelta(days=1) if days else timedelta(hours=1) if hours else timedelta(minutes=3)
    world.monotonic_s += 60
    for job in world.process.jobs().values():
        job()
    if world.process.is_dead:
        world.start_anew()
    world.do("look", operator.look)
    if number and number % EVERY_ROUNDS == 0:
        world.do("ask about open", operator.ask_about_open)
        world.do("all well", people.all_well)
    causes.explain(world)
    counting.check_paid(world)
