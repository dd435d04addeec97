"""Who is planned for and when, and what the rows of a plan may refer to: the schedule, screening, and the database's word."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import pytest

from cluster.errors import Rejected, Temporary
from ledger import book, screening
from ledger.settings import Economics
from tests.ledger.chains import FINAL_BLOCKS, SMALL, Rig, assert_paid
from tests.ledger.test_fold import change

TRANSFER = """INSERT INTO ledger.transfers (source, target, amount_pix, pending_entry)
              SELECT {source}, {target}, 1, {entry} FROM ledger.transfers LIMIT 1"""
PAYOUT = """INSERT INTO ledger.payouts (creator_id, period, seq, wallet, amount_pix, transfer_id, batch_id)
            SELECT creator_id, period, 99, wallet, 1, {transfer}, {batch} FROM ledger.payouts LIMIT 1"""
SPARE = (
    "INSERT INTO ledger.transfers (source, target, amount_pix, pending_entry) SELECT source, target, 1, pending_entry"
)
STRANGERS = {
    "account 404": TRANSFER.format(source=404, target="target", entry="pending_entry"),
    "account 405": TRANSFER.format(source="source", target=405, entry="pending_entry"),
    "entry 406": TRANSFER.format(source="source", target="target", entry=406),
    "transfer 407": PAYOUT.format(transfer=407, batch="batch_id"),
    "batch nowhere": PAYOUT.format(transfer="(SELECT max(id) FROM ledger.transfers)", batch="'nowhere'"),
}


@pytest.mark.parametrize("named", STRANGERS)
def test_a_row_that_names_what_does_not_exist_is_refused(rig: Rig, named: str) -> None:
    rig.creator(1, 1000)
    rig.payouts.plan()
    rig.connection.execute(f"{SPARE} FROM ledger.transfers")
    before = rig.rows("SELECT (SELECT count(*) FROM ledger.transfers), count(*) FROM ledger.payouts")
    rig.connection.commit()
    with pytest.raises(Rejected, match=named), book.refusals():
        rig.connection.execute(STRANGERS[named])
    rig.connection.rollback()
    assert rig.rows("SELECT (SELECT count(*) FROM ledger.transfers), count(*) FROM ledger.payouts") == before


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE ledger.transfers SET id = DEFAULT",
        "UPDATE ledger.payouts SET id = DEFAULT",
        "UPDATE ledger.payouts SET amount_pix = amount_pix + 1",
        "UPDATE ledger.payouts SET on_chain_pix = on_chain_pix + 1",
        "UPDATE ledger.payouts SET batch_id = repeat('0', 32)",
        "DELETE FROM ledger.payouts",
        "TRUNCATE ledger.payouts",
    ],
)
def test_what_was_paid_stays_written(rig: Rig, change: str) -> None:
    rig.creator(1, 1000)
    rig.pay(3)
    with pytest.raises(Rejected, match=r"stays as it is|stays so|append-only"), book.refusals():
        rig.connection.execute(change)
    rig.connection.rollback()
    assert_paid(rig, {1: 1000})


def refuse_two(recipients: Sequence[screening.Recipient]) -> dict[int, str]:
    """Somebody's screening: creator 2 is on a list, and so is one that nobody asked about."""
    assert all(each.amount_pix >= 0 and len(each.wallet) >= 32 for each in recipients)
    return {2: "on a list", 99: "on a list"}


def say_nothing(_: Sequence[screening.Recipient]) -> dict[int, str]:
    raise ConnectionError("the list is away")


def screened(rig: Rig, name: str) -> Rig:
    rig.settings = dataclasses.replace(rig.settings, screening=f"{__name__}:{name}")
    rig.payouts = rig.fresh()
    return rig


def test_whom_screening_refuses_is_held_and_the_others_are_paid(rig: Rig) -> None:
    for creator in (1, 2, 3):
        rig.creator(creator, 1000, account=creator != 3)
    screened(rig, "refuse_two").pay(5)
    assert_paid(rig, {1: 1000, 2: 0, 3: 1000})
    assert rig.rows("SELECT creator_id, reason FROM ledger.holds") == [(2, "screening: on a list")]


def test_while_screening_cannot_say_nothing_new_is_paid(rig: Rig) -> None:
    rig.creator(1, 1000)
    rig.payouts.run_once()
    rig.creator(2, 500)
    rig.advance(FINAL_BLOCKS)
    screened(rig, "say_nothing")
    with pytest.raises(Temporary, match="the list is away"):
        rig.payouts.run_once()
    assert rig.states() == {"posted": 1}  # what was under way is settled
    assert rig.on_chain(2) == 0
    rig.settings = dataclasses.replace(rig.settings, screening="")
    rig.payouts = rig.fresh()
    rig.pay(3)
    assert_paid(rig, {1: 1000, 2: 500})


@pytest.mark.parametrize("name", ["nothing", "no.such.module:f", f"{__name__}:no_such", f"{__name__}:__name__", ":f"])
def test_a_screening_that_is_none_is_refused_at_the_start(rig: Rig, name: str) -> None:
    rig.settings = dataclasses.replace(rig.settings, screening=name)
    with pytest.raises(Rejected) as refusal:
        rig.fresh()
    assert refusal.value.code == "no-screening"


def test_payouts_are_planned_in_their_window_and_settled_at_any_time(rig: Rig) -> None:
    rig.creator(1, 1000)
    row = rig.connection.execute("SELECT extract(epoch FROM now())::bigint % 86400").fetchone()
    rig.connection.commit()
    assert row is not None
    day = {"payout_min_pix": 1, "payout_interval_s": 86_400, "payout_window_s": 3600}
    closed = dataclasses.replace(SMALL, **day, payout_offset_s=(row[0] + 7200) % 86_400)
    opened = dataclasses.replace(SMALL, **day, payout_offset_s=(row[0] - 60) % 86_400)
    rig.payouts.economics = closed
    rig.pay(2)
    assert rig.states() == {}
    rig.payouts.economics = opened
    rig.payouts.run_once()
    rig.payouts.economics = closed
    rig.advance(FINAL_BLOCKS)
    rig.payouts.run_once()
    assert_paid(rig, {1: 1000})


def test_a_window_that_makes_no_sense_is_refused() -> None:
    for window_s in (0, 7200):
        with pytest.raises(ValueError, match="payout_window_s"):
            Economics(payout_interval_s=3600, payout_window_s=window_s)


def test_who_is_owed_more_than_a_day_may_pay_is_paid_in_parts(rig: Rig) -> None:
    rig.payouts.economics = dataclasses.replace(SMALL, payout_day_max_pix=1000)
    rig.creator(1, 2500)
    rig.pay(4)
    assert (rig.on_chain(1), rig.balance("payable", 1)) == (1000, 1500)


def test_who_is_owed_what_many_days_may_pay_keeps_nobody_waiting(rig: Rig) -> None:
    """They are paid a day's limit, and then it is the others' turn."""
    rig.payouts.economics = dataclasses.replace(SMALL, payout_day_max_pix=1000)
    rig.creator(1, 10_000)
    for creator in (2, 3, 4):
        rig.creator(creator, 400)
    paid = []
    for _ in range(4):
        rig.pay(3)
        paid.append([rig.on_chain(creator) for creator in (1, 2, 3, 4)])
        change(rig.connection, "DELETE FROM ledger.payout_days")  # as on the next day
    assert paid == [[1000, 0, 0, 0], [1000, 400, 400, 0], [1000, 400, 400, 400], [2000, 400, 400, 400]]


def test_where_a_day_may_pay_less_than_the_smallest_payout_nobody_is_due(rig: Rig) -> None:
    rig.payouts.economics = dataclasses.replace(SMALL, payout_min_pix=100, payout_day_max_pix=99)
    rig.creator(1, 2500)
    rig.pay(2)
    assert (rig.on_chain(1), rig.balance("payable", 1), rig.states()) == (0, 2500, {})
