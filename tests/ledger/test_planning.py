"""Who is planned for and when, and what the rows of a plan may refer to: the schedule, screening, and the database's word."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from psycopg import Connection
from solders.account import Account

from cluster import database
from cluster.errors import Rejected, Temporary
from ledger import batches, book, packing, screening, stops
from ledger.chain import Chain
from ledger.settings import Economics
from tests.ledger.chains import EAGER, FINAL_BLOCKS, GAS, SMALL, Rig, assert_paid, new_chain
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


def spoil_account(rig: Rig, creator: int) -> None:
    rig.put_account(creator, frozen=True)


def hold_one(rig: Rig, creator: int) -> None:
    stops.hold(rig.connection, creator, "somebody looks")
    rig.connection.commit()


@pytest.mark.parametrize("trouble", [spoil_account, hold_one, None])
def test_screening_is_asked_while_nobody_waits_for_the_ledger(
    rig: Rig, postgres_url: str, trouble: Callable[[Rig, int], None] | None
) -> None:
    """Neither the end of the journal is locked meanwhile nor what says who is owed: who folds writes both."""
    free: list[tuple[bool, int]] = []
    with database.connect(postgres_url) as other:

        def screen(recipients: Sequence[screening.Recipient]) -> dict[int, str]:
            head = other.execute("SELECT FROM ledger.chain_head FOR UPDATE SKIP LOCKED").fetchone()
            owed = other.execute("SELECT creator_id FROM ledger.owed FOR UPDATE SKIP LOCKED").fetchall()
            all_owed = other.execute("SELECT creator_id FROM ledger.owed").fetchall()
            other.commit()
            free.append((head is not None, len(all_owed) - len(owed)))
            return {}

        for creator in range(1, 9):
            rig.creator(creator, 1000)
        rig.connection.execute(
            "DELETE FROM ledger.wallets WHERE creator_id = 8"
        )  # who is parked while others are looked at
        rig.connection.commit()
        rig.payouts.screening = screen
        rig.payouts.plan()
        if trouble is not None:
            trouble(rig, 1)
        rig.pay(6)
    assert [rig.on_chain(creator) for creator in range(2, 8)] == [1000] * 6
    assert len(free) > (1 if trouble is not None else 0)
    assert free == [(True, 0)] * len(free)


def test_nodes_are_asked_whose_wallets_are_while_nobody_waits_for_the_ledger(
    rig: Rig, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    dear = {"account_cost_check": True, "pix_per_sol": 336_000, "pix_per_sol_at": datetime.now(UTC).isoformat()}
    rig.payouts.economics = dataclasses.replace(SMALL, **dear)
    rig.creator(1, 1000, account=False)
    rig.creator(2, 400, account=False)  # whose account is not worth opening: they are parked before nodes are asked
    asked, free = Chain.not_wallets, []

    def not_wallets(chain: Chain, *args: Any) -> dict[str, str]:
        with database.connect(postgres_url) as other:
            free.append(len(other.execute("SELECT FROM ledger.owed FOR UPDATE SKIP LOCKED").fetchall()))
        return asked(chain, *args)

    monkeypatch.setattr(Chain, "not_wallets", not_wallets)
    rig.payouts.plan()
    assert free == [2]


def test_a_culprit_is_found_though_the_ledger_dies_between_what_is_given_back_and_what_is_planned_of_it(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    for creator in range(1, 7):
        rig.creator(creator, 1000)
    spoil_account(rig, 1)
    rig.payouts.plan()

    def dies(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(type(rig.payouts), "_pend", dies)
        with pytest.raises(KeyboardInterrupt):
            rig.payouts.sign()
    rig.connection.rollback()
    assert (rig.states(), rig.balance("in_flight")) == ({"cancelled": 1}, 0)
    rig.payouts = rig.fresh()
    rig.pay(8)
    assert [rig.on_chain(creator) for creator in range(2, 7)] == [1000] * 5
    assert list(rig.holds()) == [1]


# ── Openings ───────────────────────────────────────────────────────────────────────────────────────────────────────


def with_gas(rig: Rig, lamports: int) -> None:
    rig.chain.svm.set_account(rig.treasury.payer.gas, Account(lamports, b"", packing.SYSTEM_PROGRAM))
    rig.advance(FINAL_BLOCKS)


def many_new(journal: Connection[Any], lamports: int, **own: int) -> Rig:
    """Sixty creators without a token account, more than are opened at once, beside so much gas."""
    rig = Rig(journal, new_chain(), settings=dataclasses.replace(EAGER, **{"batches_live_max": 4, **own}))
    for creator in range(1, 61):
        rig.creator(creator, 1000, account=False)
    with_gas(rig, lamports)
    return rig


@pytest.mark.parametrize("at_once", [10_000, 10])
def test_accounts_that_cannot_be_afforded_keep_no_payout_waiting(journal: Connection[Any], at_once: int) -> None:
    rig = many_new(journal, 5_000_000, payouts_per_plan_max=at_once)
    rig.pay(2)
    rig.creator(99, 1000)  # who has an account: a payout costs a million lamports
    rig.pay(8)
    assert rig.on_chain(99) == 1000
    assert 0 < batches.live_count(rig.connection, "accounts") <= 4


def test_however_many_find_no_room_for_an_account_others_are_looked_at(journal: Connection[Any]) -> None:
    """More than a look takes, and it takes longer than they wait for the next one."""
    own = {"batches_live_max": 2, "payouts_per_plan_max": 100}
    rig = Rig(journal, new_chain(), settings=dataclasses.replace(EAGER, **own))
    for creator in range(1, 181):
        rig.creator(creator, 1000, account=False)
    with_gas(rig, 5_000_000)
    rig.creator(999, 1000)
    for _ in range(6):
        rig.connection.execute(
            "UPDATE ledger.owed SET parked_until = parked_until - interval '10 s' WHERE parked_until < 'infinity'"
        )
        rig.pay(1)
    assert rig.on_chain(999) == 1000


def test_no_more_accounts_are_opened_at_once_than_batches_may_be_under_way(journal: Connection[Any]) -> None:
    rig = many_new(journal, 5_000_000)
    rig.payouts.plan()
    assert rig.rows("SELECT kind, count(*) FROM ledger.batches GROUP BY kind") == [("accounts", 4)]
    with_gas(rig, GAS)
    for _ in range(6):
        rig.connection.execute("UPDATE ledger.owed SET parked_until = now() WHERE parked_until < 'infinity'")
        rig.pay(2)
    assert_paid(rig, dict.fromkeys(range(1, 61), 1000))


def test_payouts_come_before_accounts_where_gas_is_not_enough_for_both(journal: Connection[Any]) -> None:
    rig = Rig(journal, new_chain())
    rig.creator(1, 1000, account=False)
    rig.payouts.plan()
    rig.creator(2, 1000)
    rig.payouts.plan()
    with_gas(rig, rig.treasury.cost_lamports("accounts", 1) + rig.treasury.cost_lamports("payout", 1) - 1)
    rig.payouts.sign()
    assert rig.rows("SELECT kind, state FROM ledger.batches ORDER BY kind") == [
        ("accounts", "planned"),
        ("payout", "signed"),
    ]


def test_who_waits_for_their_token_account_is_paid_as_soon_as_it_is_open(rig: Rig) -> None:
    rig.creator(1, 1000, account=False)
    rig.payouts.run_once()
    assert rig.rows("SELECT parked_until > now() FROM ledger.owed") == [(True,)]
    rig.advance(FINAL_BLOCKS)
    rig.payouts.run_once()  # it is open now
    assert rig.rows("SELECT kind FROM ledger.batches ORDER BY planned_at") == [("accounts",), ("payout",)]


def test_of_each_kind_as_many_are_signed_as_may_be_under_way(journal: Connection[Any]) -> None:
    rig = Rig(journal, new_chain(), settings=dataclasses.replace(EAGER, batches_live_max=2), version="legacy")
    for creator in range(1, 5 * rig.treasury.capacity("payout")):
        rig.creator(creator, 1000)
    rig.payouts.settings = dataclasses.replace(EAGER, batches_live_max=5)
    rig.payouts.plan()
    rig.payouts.settings = rig.settings
    assert (len(rig.payouts.sign()), len(rig.payouts.sign())) == (2, 0)
    assert rig.states() == {"planned": 3, "signed": 2}


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
