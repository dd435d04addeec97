"""Counting: every unit that was earned is paid or owed, once; what the journal calls paid is on chain; no day is over its
limit.

Whoever has a part of them withheld is paid nothing of that part.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tests.ledger.simulator.climate import NO_LIMIT_PIX

if TYPE_CHECKING:
    from tests.ledger.simulator.world import World

OWNED = """
    SELECT owner, coalesce(sum(balance) FILTER (WHERE kind = 'payable'), 0)::bigint,
           coalesce(sum(balance) FILTER (WHERE kind = 'maturing'), 0)::bigint
    FROM ledger.accounts WHERE party = 'creator' GROUP BY owner"""
PAID = """
    SELECT p.creator_id, coalesce(sum(p.amount_pix) FILTER (WHERE t.state = 'posted'), 0)::bigint,
           coalesce(sum(p.on_chain_pix) FILTER (WHERE t.state = 'voided'), 0)::bigint,
           coalesce(sum(p.amount_pix) FILTER (WHERE t.state = 'pending'), 0)::bigint
    FROM ledger.payouts p JOIN ledger.transfers t ON t.id = p.transfer_id GROUP BY 1"""
ADDED = """
    SELECT a.owner, sum(p.amount)::bigint FROM ledger.entries e JOIN ledger.postings p ON p.entry_id = e.id
    JOIN ledger.accounts a ON a.id = p.account_id
    WHERE e.kind = ANY(%s) AND a.party = 'creator' GROUP BY 1"""
ADOPTED, CORRECTED, JUDGED = ["adopted_accrual"], ["correction"], ["reversal_fan_in", "returned_fan_in"]
SET_OFF = ["set_off"]
LOST = """
    SELECT coalesce(-sum(p.amount), 0)::bigint FROM ledger.entries e JOIN ledger.postings p ON p.entry_id = e.id
    JOIN ledger.accounts a ON a.id = p.account_id
    WHERE e.kind = 'payout_resolved' AND a.kind IN ('platform', 'reward_pool') AND a.asset = 'PIX'"""
CHECKED_MAX = 50  # creators, in each round


def count_money(world: World) -> None:
    """Every unit that was earned is paid or owed, once; and what the journal calls paid is on chain."""
    rows, truth = world.ground.rows, world.truth
    owned = {owner: payable + maturing for owner, payable, maturing in rows(OWNED)}
    paid = {creator: (posted + late, pending) for creator, posted, late, pending in rows(PAID)}
    kinds = ([*ADOPTED, *SET_OFF, *CORRECTED, *JUDGED], [*ADOPTED, *SET_OFF], SET_OFF, CORRECTED)
    added, adopted, set_off, corrected = (dict[int, int](rows(ADDED, kind)) for kind in kinds)  # type: ignore[arg-type]
    for group in truth.groups():
        landed = sum(
            world.on_chain(wallet) for wallet in sorted({each for one in group for each in truth.wallets[one]})
        )
        posted, pending = (sum(paid.get(each, (0, 0))[n] for each in group) for n in (0, 1))
        most = sum(truth.ever[each] + corrected.get(each, 0) for each in group)
        said = f"creators {_named(group)}: {landed} on chain, {posted} paid, {pending} in flight, {most} ever earned"
        if landed > most or landed > posted + pending:
            truth.found("double", said)
        if posted > landed:
            truth.found("phantom", said)
        if sum(truth.kept.earned.get(each, 0) + adopted.get(each, 0) for each in group) > most:
            truth.found("double", f"creators {_named(group)} were credited more than they have ever earned")
        before = sum(truth.kept.maybe_before[each] for each in group)
        if not truth.events["jump"] and -sum(set_off.get(each, 0) for each in group) > before:
            truth.found("lost", f"of creators {_named(group)} was set off what was shown after the restore")
    wrong, missing = [], 0
    for creator in truth.wallets:
        earned = truth.kept.earned.get(creator, 0) + added.get(creator, 0)
        posted, pending = paid.get(creator, (0, 0))
        missing += earned - posted - pending - owned.get(creator, 0)
        if earned != posted + pending + owned.get(creator, 0):
            wrong.append(
                f"creator {creator} earned {earned}, {posted} paid, {pending} in flight, {owned.get(creator, 0)} owed"
            )
    lost = rows(LOST)[0][0]  # to creators who were paid more than they were owed, and booked as that
    if missing != -lost or (wrong and not lost):
        truth.found("lost", "; ".join(wrong[:3]) or f"{lost} was booked as lost, and nobody has it")


def check_paid(world: World) -> None:
    """At no time do wallets hold more than was earned till then: what is made up for later was paid twice all the same."""
    if len(world.creators) > CHECKED_MAX:
        return
    corrected = dict[int, int](world.ground.rows(ADDED, CORRECTED))
    for group in world.truth.groups():
        wallets = sorted({each for one in group for each in world.truth.wallets[one]})
        landed = sum(world.on_chain(wallet) for wallet in wallets)
        most = sum(world.truth.ever[each] + max(corrected.get(each, 0), 0) for each in group)
        if landed > most and ("paid", group[0]) not in world.said:
            world.said.add(("paid", group[0]))
            world.truth.found("double", f"creators {_named(group)}: {landed} on chain, {most} earned till then")


def _named(group: Sequence[int]) -> str:
    return ", ".join(map(str, group[:5])) + (" …" if len(group) > 5 else "")


def check_days(world: World) -> None:
    """No day's payouts come to more than its limit, but for what a restore has made known again."""
    if world.climate.day_max_pix == NO_LIMIT_PIX or world.restores or world.truth.events["order to adopt"]:
        return
    rows = world.ground.rows(
        "SELECT p.period::text, sum(p.amount_pix)::bigint FROM ledger.payouts p"
        " JOIN ledger.transfers t ON t.id = p.transfer_id WHERE t.state IN ('pending', 'posted') GROUP BY 1"
        " HAVING sum(p.amount_pix) > %s",
        world.climate.day_max_pix,
    )
    for day, planned in rows:
        world.truth.found("over", f"payouts of {day} come to {planned}, the limit is {world.climate.day_max_pix}")


# ── What is withheld ───────────────────────────────────────────────────────────────────────────────────────────────

WITHHELD = """
    SELECT h.creator_id, ledger.withheld(h.creator_id), coalesce((
        SELECT sum(balance)::bigint FROM ledger.accounts
        WHERE party = 'creator' AND owner = h.creator_id AND kind IN ('payable', 'maturing')), 0)
    FROM (SELECT DISTINCT creator_id FROM ledger.holds WHERE partial AND released_at IS NULL) h"""


def withheld(world: World) -> dict[int, int]:
    """What is withheld of each creator of whom a part is."""
    return {creator: part for creator, part, _ in world.ground.rows(WITHHELD)} if world.climate.is_folding else {}


def is_overdrawn(world: World, creators: Sequence[int]) -> set[int]:
    """Of these creators those who have been paid of what was withheld before this round, and still is."""
    if not any(each in world.withheld_before for each in creators):
        return set()
    rows = world.ground.rows(WITHHELD)
    return {
        creator
        for creator, part, owed in rows
        if creator in creators and owed < min(part, world.withheld_before.get(creator, 0))
    }
