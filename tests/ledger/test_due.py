"""Who is due, for how much and where to; and whose plan must not go out: by the rows, one condition at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from ledger import batches, book, stops
from ledger.batches import Due
from ledger.settings import Economics
from tests.ledger.chains import SMALL, Rig, wallet_of

ANY = Economics(payout_min_pix=1, payout_max_pix=10**9)


def due(rig: Rig, economics: Economics = ANY, limit: int = 100, creators: Sequence[int] | None = None) -> list[Due]:
    found = batches.due(rig.connection, economics, rig.treasury.mint, limit, creators)
    rig.connection.commit()
    return found


def amounts(
    rig: Rig, economics: Economics = ANY, limit: int = 100, creators: Sequence[int] | None = None
) -> dict[int, int]:
    return {each.creator_id: each.amount_pix for each in due(rig, economics, limit, creators)}


def run(rig: Rig, query: str, *values: object) -> None:
    rig.connection.execute(query, values)
    rig.connection.commit()


def doubt(rig: Rig, creator: int, amount: int) -> None:
    """A part of what a creator has earned waits."""
    run(rig, "INSERT INTO ledger.suspicions VALUES (current_date, %s, 20, %s)", creator, amount)
    stops.hold(rig.connection, creator, "fan-in", partial=True)
    rig.connection.commit()


def test_a_due_names_everything_that_its_payout_needs(rig: Rig) -> None:
    rig.creator(1, 700)
    rig.creator(2, 900, account=False)
    payable = book.accounts_of(rig.connection, "payable", "creator", [1, 2])
    ((today,),) = rig.rows("SELECT (now() AT TIME ZONE 'utc')::date")
    assert due(rig) == [
        Due(2, payable[2], wallet_of(2), 900, today, 0, None),
        Due(1, payable[1], wallet_of(1), 700, today, 0, str(rig.address_of(1))),
    ]


def test_the_largest_come_first_then_who_came_first_and_no_more_than_asked_for(rig: Rig) -> None:
    for creator, amount in ((4, 500), (3, 900), (2, 500), (1, 100)):
        rig.creator(creator, amount, account=False)
    assert list(amounts(rig)) == [3, 4, 2, 1]
    assert list(amounts(rig, limit=2)) == [3, 4]
    assert amounts(rig, creators=[1, 2]) == {2: 500, 1: 100}
    assert amounts(rig, creators=[]) == {}


def test_the_threshold_is_reached_exactly_and_a_payout_has_a_largest_size(rig: Rig) -> None:
    for creator, amount in ((1, 99), (2, 100), (3, 101), (4, 0)):
        rig.creator(creator, amount, account=False)
    assert amounts(rig, Economics(payout_min_pix=100, payout_max_pix=100)) == {3: 100, 2: 100}
    assert amounts(rig) == {3: 101, 2: 100, 1: 99}
    assert amounts(rig, Economics(payout_min_pix=0)) == {3: 101, 2: 100, 1: 99}  # nothing is no payout


def test_only_creators_are_due_and_only_what_is_payable(rig: Rig) -> None:
    rig.creator(1, 0, account=False)
    for kind, party in (("payable", "investor"), ("maturing", "creator")):
        account = book.accounts_of(rig.connection, kind, party, [1])[1]
        lines = [(book.account(rig.connection, "reward_pool"), -500), (account, 500)]
        book.post(rig.connection, book.Entry("accrual", f"{kind} {party}", lines))
    book.commit(rig.connection)
    assert amounts(rig) == {}
    rig.earn(1, 7)
    assert amounts(rig) == {1: 7}


def test_who_has_no_wallet_waits(rig: Rig) -> None:
    rig.creator(1, 100, account=False)
    rig.earn(2, 100)
    assert amounts(rig) == {1: 100}


def test_a_token_account_counts_for_its_own_wallet_and_mint(rig: Rig) -> None:
    rig.creator(1, 100)
    rig.creator(2, 90, account=False)
    elsewhere = batches.Recipient(2, wallet_of(2), "an address under another mint")
    batches.know_account(rig.connection, "another mint", elsewhere, None)
    assert [(each.creator_id, each.address) for each in due(rig)] == [(1, str(rig.address_of(1))), (2, None)]
    run(rig, "UPDATE ledger.wallets SET wallet = %s WHERE creator_id = 1", wallet_of(3))
    assert [each.address for each in due(rig)] == [None, None]


@pytest.mark.parametrize(
    ("change", "is_due"),
    [
        ("UPDATE ledger.wallets SET hold_until = now() + interval '1 h'", False),
        ("UPDATE ledger.wallets SET hold_until = now() - interval '1 s'", True),
        ("UPDATE ledger.wallets SET hold_until = NULL", True),
        ("INSERT INTO ledger.holds (creator_id, reason) VALUES (1, 'asked')", False),
        ("INSERT INTO ledger.holds (creator_id, reason) VALUES (2, 'another creator')", True),
        ("INSERT INTO ledger.holds (creator_id, reason, until) VALUES (1, 'asked', now() + interval '1 h')", False),
        ("INSERT INTO ledger.holds (creator_id, reason, until) VALUES (1, 'asked', now() - interval '1 s')", True),
        ("INSERT INTO ledger.holds (creator_id, reason, released_at) VALUES (1, 'asked', now())", True),
        ("INSERT INTO ledger.holds (creator_id, reason, partial) VALUES (1, 'fan-in', true)", True),
    ],
)
def test_what_stops_a_creator_and_what_does_not(rig: Rig, change: str, is_due: bool) -> None:
    """The same of who is due and of whose plan goes out."""
    rig.creator(1, 100)
    (made,) = rig.payouts.plan()
    rig.earn(1, 100)
    run(rig, change)
    assert amounts(rig) == ({1: 100} if is_due else {})
    assert batches.stopped(rig.connection, [made.id]) == ({} if is_due else {made.id: {1}})


def test_what_is_doubtful_waits_and_the_rest_is_due(rig: Rig) -> None:
    for creator in (1, 2, 3):
        rig.creator(creator, 1000 + creator, account=False)
    doubt(rig, 1, 400)
    doubt(rig, 2, 1002)
    assert amounts(rig) == {3: 1003, 1: 601}
    assert amounts(rig, Economics(payout_min_pix=602)) == {3: 1003}
    assert amounts(rig, Economics(payout_min_pix=601, payout_max_pix=601)) == {3: 601, 1: 601}
    run(rig, "UPDATE ledger.holds SET released_at = now(), released_by = 'ana' WHERE creator_id = 1")
    assert amounts(rig) == {3: 1003, 1: 1001}  # a suspicion alone, without a hold, withholds nothing


def test_a_payout_is_numbered_by_its_creators_own_payouts_of_the_day(rig: Rig) -> None:
    rig.payouts.economics = Economics(maturity_s=0, payout_min_pix=1, payout_max_pix=300)
    rig.creator(1, 1000)
    rig.creator(2, 500)
    assert {each.creator_id: each.seq for each in due(rig)} == {1: 0, 2: 0}
    rig.payouts.plan()
    rig.payouts.plan()
    assert {each.creator_id: each.seq for each in due(rig, SMALL)} == {1: 2}
    rig.earn(2, 100)
    assert {each.creator_id: each.seq for each in due(rig, SMALL)} == {1: 2, 2: 2}
    rig.connection.execute("SET session_replication_role = replica")
    rig.connection.execute("UPDATE ledger.payouts SET period = period - 1 WHERE creator_id = 1")
    rig.connection.execute("SET session_replication_role = DEFAULT")
    assert {each.creator_id: each.seq for each in due(rig, SMALL)} == {1: 0, 2: 2}


def test_what_a_day_has_paid_is_of_that_day_and_less_what_came_back(rig: Rig) -> None:
    for creator, amount in ((1, 100), (2, 20), (3, 3)):
        rig.creator(creator, amount)
        rig.payouts.plan()
    assert batches.planned_today(rig.connection) == 123
    rig.pay(3)
    assert batches.planned_today(rig.connection) == 123
    rig.connection.execute("SET session_replication_role = replica")
    rig.connection.execute("UPDATE ledger.payouts SET period = period - 1 WHERE creator_id = 2")
    rig.connection.execute("UPDATE ledger.transfers SET state = 'voided' WHERE amount_pix = 3")
    rig.connection.execute("SET session_replication_role = DEFAULT")
    assert batches.planned_today(rig.connection) == 100


# ── Plans that are stopped ─────────────────────────────────────────────────────────────────────────────────────────


def test_a_plan_is_stopped_for_those_alone_who_are_stopped(rig: Rig) -> None:
    for creator in (1, 2, 3):
        rig.creator(creator, 100)
    (first,) = rig.payouts.plan()
    rig.creator(4, 100)
    (second,) = rig.payouts.plan()
    both = [first.id, second.id]
    assert batches.stopped(rig.connection, both) == {}
    stops.hold(rig.connection, 1, "asked")
    run(rig, "UPDATE ledger.wallets SET wallet = %s WHERE creator_id = 3", wallet_of(9))
    stops.hold(rig.connection, 5, "asked")
    assert batches.stopped(rig.connection, both) == {first.id: {1, 3}}
    assert batches.stopped(rig.connection, [second.id]) == {}
    assert batches.stopped(rig.connection, []) == {}


def test_a_creator_whose_wallet_is_gone_is_stopped(rig: Rig) -> None:
    rig.creator(1, 100)
    (made,) = rig.payouts.plan()
    run(rig, "DELETE FROM ledger.wallets WHERE creator_id = 1")
    assert batches.stopped(rig.connection, [made.id]) == {made.id: {1}}


@pytest.mark.parametrize(("doubtful", "is_stopped"), [(399, False), (400, False), (401, True)])
def test_a_plan_is_stopped_when_what_is_left_no_longer_covers_the_doubt(
    rig: Rig, doubtful: int, is_stopped: bool
) -> None:
    rig.creator(1, 1000)
    rig.creator(2, 1000)
    (made,) = rig.payouts.plan()
    rig.earn(1, 400)
    doubt(rig, 1, doubtful)
    assert batches.stopped(rig.connection, [made.id]) == ({made.id: {1}} if is_stopped else {})


def test_openings_are_stopped_too_but_not_for_a_doubt_and_reclaims_never(rig: Rig) -> None:
    rig.creator(1, 100, account=False)
    rig.payouts.plan()
    ((opening,),) = rig.rows("SELECT id FROM ledger.batches WHERE kind = 'accounts'")
    doubt(rig, 1, 10_000)
    assert batches.stopped(rig.connection, [opening]) == {}
    stops.hold(rig.connection, 1, "asked")
    assert batches.stopped(rig.connection, [opening]) == {opening: {1}}
    reclaim = batches.Batch("9" * 32, "reclaim", "planned", 0, (batches.Recipient(0, opening, "a marker", 5),))
    batches.add(rig.connection, [reclaim])
    assert batches.stopped(rig.connection, [reclaim.id]) == {}


def test_what_was_never_sent_is_kept_back_for_who_is_stopped_and_sent_where_nobody_is(rig: Rig) -> None:
    signatures: list[Any] = []
    for creator in (1, 2):
        rig.creator(creator, 100)
        rig.payouts.plan()
        signatures += rig.payouts.sign()
    stops.hold(rig.connection, 1, "asked")
    ready = [each for each, _ in batches.due_to_send(rig.connection, 60.0)]
    assert ready == signatures[1:]
    assert [each for each, _ in batches.due_to_send(rig.connection, 60.0, signatures)] == signatures
    batches.sent(rig.connection, signatures)
    assert batches.due_to_send(rig.connection, 60.0) == []
    run(rig, "UPDATE ledger.attempts SET sent_at = now() - interval '59 s'")
    assert batches.due_to_send(rig.connection, 60.0) == []
    run(rig, "UPDATE ledger.attempts SET sent_at = now() - interval '61 s'")
    assert [each for each, _ in batches.due_to_send(rig.connection, 60.0)] == signatures  # it may be on its way already
    assert rig.rows("SELECT sends FROM ledger.attempts") == [(1,), (1,)]
