"""Payouts on a real chain, block by block: each is made once, whatever breaks in between."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from psycopg import Connection

from ledger.journal import book
from ledger.journal.book import Fenced
from ledger.payouts.planning import RECLAIM_READ
from ledger.risk import stops
from ledger.settings import Economics
from ledger.solana import packing
from ledger.solana.chain import Effect
from tests.ledger.chains import (
    EAGER,
    EXPIRED_BLOCKS,
    FINAL_BLOCKS,
    GAS,
    SMALL,
    Rig,
    assert_paid,
    attempts,
    new_chain,
    wallet_of,
)


def test_creators_are_paid_once_and_fees_are_the_platforms(rig: Rig) -> None:
    for creator in (1, 2, 3):
        rig.creator(creator, 1000 * creator)
    rig.pay(3)
    assert_paid(rig, {1: 1000, 2: 2000, 3: 3000})
    assert rig.balance("platform", asset="SOL") == 10**11 - 5000 - rig.treasury.marker_rent
    rig.pay(3)
    assert rig.states() == {"posted": 1}


def test_missing_token_accounts_are_opened_first_in_their_own_transaction(rig: Rig) -> None:
    rig.creator(1, 500, account=False)
    rig.creator(2, 700)
    rig.pay(5)
    assert_paid(rig, {1: 500, 2: 700})
    assert rig.rows("SELECT creator_id FROM ledger.token_accounts WHERE batch_id IS NOT NULL") == [(1,)]
    batches_made = rig.rows("SELECT kind, state FROM ledger.batches ORDER BY kind")
    assert batches_made == [("accounts", "posted"), ("payout", "posted"), ("payout", "posted")]


@pytest.mark.parametrize("version", ["legacy", "v1"])
@pytest.mark.parametrize("separate_gas", [False, True])
def test_a_full_transaction_of_each_kind_lands(journal: Connection[Any], version: str, separate_gas: bool) -> None:
    rig = Rig(journal, new_chain(), version=version, separate_gas=separate_gas)
    size = rig.treasury.capacity("payout")
    amounts = {creator: 100 + creator for creator in range(1, size + 2)}
    for creator, amount in amounts.items():
        rig.creator(creator, amount, account=creator > 2)
    rig.pay(6)
    assert_paid(rig, amounts)


def test_nothing_is_sent_before_it_is_committed(rig: Rig) -> None:
    rig.creator(1, 1000)
    rig.payouts.plan()
    (signature,) = rig.payouts.sign()
    assert rig.rows("SELECT signature, state, sends FROM ledger.attempts") == [(signature, "live", 0)]
    assert rig.chain.pending == {}
    rig.payouts.send()
    assert list(rig.chain.pending) == [signature]


def test_bytes_that_never_land_are_signed_anew_only_after_their_time(rig: Rig) -> None:
    rig.creator(1, 1000)
    rig.payouts.plan()
    rig.payouts.sign()
    rig.advance(EXPIRED_BLOCKS - 10)
    rig.payouts.settle()
    assert attempts(rig) == [(1, "live", False)]
    rig.advance(20)
    rig.payouts.settle()
    assert attempts(rig) == [(1, "expired", False)]
    rig.pay(3)
    assert [each[:2] for each in attempts(rig)] == [(1, "expired"), (2, "landed")]
    assert_paid(rig, {1: 1000})


def test_an_abandoned_block_is_not_final_and_the_same_bytes_are_sent_again(rig: Rig) -> None:
    rig.creator(1, 1000)
    rig.payouts.run_once()
    rig.advance(3)
    assert rig.on_chain(1) == 1000
    rig.payouts.settle()
    assert attempts(rig) == [(1, "live", True)]
    rig.chain.abandon(3)
    assert rig.on_chain(1) == 0
    rig.pay(3)
    assert attempts(rig) == [(1, "landed", True)]
    assert_paid(rig, {1: 1000})


def test_the_recipient_at_fault_is_found_and_the_others_are_paid(rig: Rig) -> None:
    for creator in range(1, 9):
        rig.creator(creator, 100 * creator)
    rig.put_account(5, frozen=True)
    rig.pay(8)
    assert_paid(rig, {creator: 100 * creator for creator in range(1, 9) if creator != 5})
    assert list(rig.holds()) == [5]
    assert rig.balance("payable", 5) == 500


def test_a_recipient_who_has_closed_his_account_is_not_held_and_gets_another(rig: Rig) -> None:
    from solders.account import Account

    for creator in (1, 2):
        rig.creator(creator, 100 * creator)
    rig.chain.svm.set_account(rig.address_of(2), Account(0, b"", packing.SYSTEM_PROGRAM))
    rig.pay(5)
    assert (rig.holds(), rig.balance("in_flight")) == ({}, 0)
    assert_paid(rig, {1: 100, 2: 200})


def test_an_account_that_freezes_on_the_way_costs_a_fee_and_nothing_else(rig: Rig) -> None:
    for creator in (1, 2):
        rig.creator(creator, 100)
    rig.payouts.plan()
    rig.payouts.sign()
    rig.put_account(2, frozen=True)
    rig.pay(8)
    assert ("failed" in rig.states(), list(rig.holds())) == (True, [2])
    assert_paid(rig, {1: 100})
    assert rig.balance("payable", 2) == 100


def test_an_account_that_cannot_be_opened_is_the_fault_of_one(rig: Rig) -> None:
    rig.creator(1, 500, account=False)
    rig.creator(2, 700, account=False)
    rig.chain.svm.set_account(rig.address_of(2), stranger())  # the address is taken by a stranger's program
    rig.advance(FINAL_BLOCKS)
    rig.pay(8)
    assert list(rig.holds()) == [2]
    assert_paid(rig, {1: 500})


def test_an_opening_that_failed_is_tried_again_when_its_hold_is_released(rig: Rig) -> None:
    rig.creator(1, 500, account=False)
    rig.chain.svm.set_account(rig.address_of(1), stranger())
    rig.advance(FINAL_BLOCKS)
    rig.pay(3)
    assert list(rig.holds()) == [1]
    from solders.account import Account

    rig.chain.svm.set_account(rig.address_of(1), Account(0, b"", packing.SYSTEM_PROGRAM))
    rig.advance(FINAL_BLOCKS)
    (hold,) = stops.in_force(rig.connection)
    stops.release(rig.connection, hold.name, "ana")
    rig.connection.commit()
    rig.pay(5)
    assert_paid(rig, {1: 500})


def stranger() -> Any:
    from solders.account import Account

    return Account(10**9, b"\0" * 10, packing.MEMO_PROGRAM)


def test_a_zombies_attempt_is_refused_by_the_database(rig: Rig, postgres_url: str) -> None:
    from cluster.database import database

    rig.creator(1, 1000)
    rig.payouts.plan()
    with database.connect(postgres_url) as younger:
        book.take_epoch(younger, "younger")
    with pytest.raises(Fenced):
        rig.payouts.sign()
    rig.connection.rollback()
    assert (attempts(rig), rig.chain.pending) == ([], {})


def test_a_freeze_stops_what_is_new_and_settles_what_is_under_way(rig: Rig) -> None:
    rig.creator(1, 1000)
    rig.payouts.run_once()
    rig.creator(2, 2000)
    stops.freeze(rig.connection, "somebody looks", {})
    stops.freeze(rig.connection, "somebody looks", {})
    rig.connection.commit()
    rig.pay(3)
    assert (rig.on_chain(1), rig.on_chain(2), rig.freezes()) == (1000, 0, ["somebody looks"])
    rig.connection.execute("UPDATE ledger.freezes SET released_at = now()")
    rig.pay(3)
    assert_paid(rig, {1: 1000, 2: 2000})


def test_holds_thresholds_and_fresh_wallets_wait(rig: Rig) -> None:
    for creator in (1, 2, 3):
        rig.creator(creator, 1000)
    stops.hold(rig.connection, 1, "asked")
    stops.hold(rig.connection, 1, "asked")
    rig.connection.execute("UPDATE ledger.wallets SET hold_until = now() + interval '1 h' WHERE creator_id = 2")
    rig.connection.commit()
    assert rig.rows("SELECT count(*)::int FROM ledger.holds") == [(1,)]
    rig.payouts.economics = Economics(payout_min_pix=1001)
    rig.pay(2)
    assert rig.states() == {}
    rig.payouts.economics = SMALL
    rig.pay(3)
    assert_paid(rig, {1: 0, 2: 0, 3: 1000})


def test_a_payout_has_a_largest_size_and_a_day_has_a_limit(rig: Rig) -> None:
    rig.payouts.economics = Economics(payout_min_pix=1, payout_max_pix=300, payout_day_max_pix=1000)
    rig.creator(1, 2000)
    rig.pay(8)
    assert_paid(rig, {1: 900})
    assert rig.balance("payable", 1) == 1100


def test_a_short_treasury_pays_as_much_as_it_can(rig: Rig) -> None:
    rig.payouts.economics = Economics(payout_min_pix=1, payout_max_pix=400_000_000_000, payout_day_max_pix=10**12)
    rig.creator(1, 900_000_000_000)
    rig.chain.svm.set_account(rig.treasury.payer.token_account, spent(rig, 500_000_000_000))
    rig.advance(FINAL_BLOCKS)
    rig.pay(4)
    assert rig.on_chain(1) == 500_000_000_000
    assert rig.states() == {"posted": 2, "planned": 1}


def spent(rig: Rig, amount: int) -> Any:
    from tests.ledger.chains import token_account

    return token_account(rig.treasury.payer.mint, rig.treasury.payer.treasury, amount)


def test_the_first_payout_must_be_worth_its_token_account_and_a_stale_price_closes(rig: Rig) -> None:
    price = {"pix_per_sol": 10**9, "pix_per_sol_at": "2020-01-01T00:00:00Z"}
    rig.payouts.economics = Economics(payout_min_pix=1, account_cost_check=True, **price)  # type: ignore[arg-type]
    rig.creator(1, 2_000_000, account=False)
    rig.pay(2)
    assert rig.states() == {}
    rig.payouts.economics = dataclasses.replace(rig.payouts.economics, pix_per_sol_max_age_s=10**10)
    rig.creator(2, 1_000_000, account=False)
    rig.pay(5)
    assert_paid(rig, {1: 2_000_000, 2: 0})


def test_the_platform_opens_one_account_a_creator_ever(rig: Rig) -> None:
    rig.creator(1, 500, account=False)
    rig.pay(5)
    other = wallet_of(2)
    rig.connection.execute("UPDATE ledger.wallets SET wallet = %s WHERE creator_id = 1", (other,))
    rig.earn(1, 500)
    rig.pay(4)
    assert rig.on_chain(1) == 500
    assert "opened for this creator already" in rig.holds()[1]


def test_without_markers_a_memo_keeps_equal_payouts_apart(journal: Connection[Any]) -> None:
    rig = Rig(journal, new_chain(), settings=dataclasses.replace(EAGER, marker_accounts=False, second_opinion=False))
    rig.creator(1, 100)
    rig.pay(2)
    rig.earn(1, 100)
    rig.pay(2)
    assert_paid(rig, {1: 200})


def test_no_more_batches_are_made_than_may_be_under_way(journal: Connection[Any]) -> None:
    rig = Rig(journal, new_chain(), version="legacy", settings=dataclasses.replace(EAGER, batches_live_max=1))
    amounts = {creator: 100 + creator for creator in range(1, rig.treasury.capacity("payout") + 2)}
    for creator, amount in amounts.items():
        rig.creator(creator, amount)
    assert len(rig.payouts.plan()) == 1
    rig.pay(5)
    assert_paid(rig, amounts)


def test_an_account_that_the_chain_has_is_found_and_not_paid_for(rig: Rig) -> None:
    rig.creator(1, 500, account=False)
    rig.put_account(1)
    rig.pay(4)
    assert rig.rows("SELECT kind FROM ledger.batches") == [("payout",)]
    assert_paid(rig, {1: 500})


def test_a_half_whose_recipients_wait_is_not_planned_again(rig: Rig) -> None:
    for creator in (1, 2):
        rig.creator(creator, 100)
    rig.payouts.plan()
    rig.put_frozen(2)
    stops.hold(rig.connection, 1, "somebody looks")
    rig.connection.commit()
    rig.pay(4)
    assert sorted(rig.holds()) == [1, 2]
    assert (rig.balance("payable", 1), rig.balance("payable", 2), rig.balance("in_flight")) == (100, 100, 0)


def test_what_cost_nothing_needs_no_posting(rig: Rig) -> None:
    assert rig.payouts._cost_lines(Effect("s", 1, None, 0, {}, {})) == []


def test_the_rent_of_old_markers_comes_back_to_the_platform(journal: Connection[Any]) -> None:
    rig = Rig(journal, new_chain(), settings=dataclasses.replace(EAGER, marker_retention_s=3600, reclaim_min=2))
    rig.creator(1, 100)
    rig.pay(2)
    rig.earn(1, 101)
    rig.pay(2)
    spent = GAS - 2 * (5000 + rig.treasury.marker_rent)
    assert rig.balance("platform", asset="SOL") == spent
    rig.connection.execute("SET session_replication_role = replica")
    rig.connection.execute("UPDATE ledger.batches SET ended_at = now() - interval '2 h'")
    rig.connection.execute("UPDATE ledger.markers SET since = now() - interval '2 h'")
    rig.connection.execute("SET session_replication_role = DEFAULT")
    rig.connection.commit()
    rig.pay(3)
    assert rig.balance("platform", asset="SOL") == spent + 2 * rig.treasury.marker_rent - 5000
    assert rig.rows("SELECT count(*)::int FROM ledger.markers WHERE reclaimed_by IS NULL") == [(0,)]
    assert_paid(rig, {1: 201})


def set_marker(rig: Rig, number: str, lamports: int) -> None:
    marker = rig.treasury.marker(number).address
    kept = rig.chain.svm.get_account(marker)
    assert kept is not None
    rig.chain.svm.set_account(marker, type(kept)(lamports, b"", kept.owner))


def test_a_reclaim_that_the_chain_refuses_is_tried_again_later_and_holds_nobody(journal: Connection[Any]) -> None:
    settings = dataclasses.replace(EAGER, marker_retention_s=0, reclaim_min=1, reclaim_pause_s=600)
    rig = Rig(journal, new_chain(), settings=settings)
    rig.creator(1, 100)
    rig.pay(1)
    rig.payouts.settle()
    rig.payouts.plan()
    assert rig.rows("SELECT kind FROM ledger.batches WHERE state = 'planned'") == [("reclaim",)]
    set_marker(rig, rig.rows("SELECT batch_id FROM ledger.markers")[0][0], rig.treasury.marker_rent + 1)
    rig.pay(4)  # a stranger's lamport keeps it from being emptied
    assert (rig.holds(), rig.freezes()) == ({}, [])
    assert rig.rows("SELECT state, count(*)::int FROM ledger.batches WHERE kind = 'reclaim' GROUP BY 1") == [
        ("cancelled", 1)
    ]
    rig.connection.execute("SET session_replication_role = replica")
    rig.connection.execute("UPDATE ledger.batches SET ended_at = ended_at - interval '11 min'")
    rig.connection.execute("SET session_replication_role = DEFAULT")
    rig.connection.commit()
    rig.pay(3)
    assert rig.rows("SELECT count(*)::int FROM ledger.markers WHERE reclaimed_by IS NULL") == [(0,)]
    assert rig.balance("platform", asset="SOL") == GAS - 5000 - 5000 + 1
    assert_paid(rig, {1: 100})


def test_however_many_markers_are_gone_the_others_are_emptied(journal: Connection[Any]) -> None:
    """As after a restore that has forgotten what was taken back, or of ids of which the secret was lost."""
    rig = Rig(journal, new_chain(), settings=dataclasses.replace(EAGER, marker_retention_s=3600, reclaim_min=1))
    rig.creator(1, 100)
    rig.pay(2)
    rig.connection.execute("SET session_replication_role = replica")
    gone = [f"{number:032x}" for number in range(RECLAIM_READ * rig.treasury.capacity("reclaim") + 1)]
    of_ours = [
        str(rig.treasury.marker(each).address) if number % 2 else wallet_of(10_000 + number)
        for number, each in enumerate(gone)
    ]
    rig.connection.execute(
        "INSERT INTO ledger.markers (batch_id, address, lamports, since)"
        " SELECT t.*, 1, now() - interval '3 h' FROM unnest(%s::text[], %s::text[]) t",
        (gone, of_ours),
    )
    rig.connection.execute("UPDATE ledger.markers SET since = since - interval '2 h'")
    rig.connection.execute("SET session_replication_role = DEFAULT")
    rig.connection.commit()
    rig.pay(3)
    waiting = rig.rows("SELECT batch_id FROM ledger.markers WHERE reclaimed_by IS NULL ORDER BY batch_id")
    assert [row[0] for row in waiting] == gone
    assert rig.rows("SELECT count(*) FROM ledger.batches WHERE kind = 'reclaim'") == [(1,)]


def test_a_marker_that_a_stranger_has_added_to_or_that_is_gone_keeps_no_other_from_being_emptied(
    journal: Connection[Any],
) -> None:
    rig = Rig(journal, new_chain(), settings=dataclasses.replace(EAGER, marker_retention_s=3600, reclaim_min=2))
    for number in range(3):
        rig.creator(1, 100 + number) if not number else rig.earn(1, 100 + number)
        rig.pay(2)
    first, second, _ = (row[0] for row in rig.rows("SELECT id FROM ledger.batches ORDER BY ended_at"))
    set_marker(rig, first, 1)
    set_marker(rig, second, rig.treasury.marker_rent + 1)
    rig.advance(FINAL_BLOCKS)
    rig.connection.execute("SET session_replication_role = replica")
    rig.connection.execute("UPDATE ledger.batches SET ended_at = ended_at - interval '2 h'")
    rig.connection.execute("UPDATE ledger.markers SET since = since - interval '2 h'")
    rig.connection.execute("SET session_replication_role = DEFAULT")
    rig.connection.commit()
    rig.pay(3)
    assert rig.rows("SELECT batch_id FROM ledger.markers WHERE reclaimed_by IS NULL") == [(first,)]
    assert rig.holds() == {}
