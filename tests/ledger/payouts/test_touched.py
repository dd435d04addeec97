"""What is asked every round costs what it touches: rounds of a ledger beside many creators and payouts that need nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from psycopg import Connection

from cluster.database import database
from ledger.accrual import fold
from ledger.accrual.fold import Fold
from ledger.audit import audit
from ledger.audit.alarms import AgeAlarm
from ledger.journal import book
from ledger.payouts import adoption, owed
from ledger.risk import stops
from ledger.settings import Economics, LedgerSettings
from tests.ledger.accrual.test_fold import record, search, shown
from tests.ledger.chains import EAGER, SMALL, Rig, assert_paid, new_chain, wallet_of

CREATORS = 2_000  # that there are, and what PostgreSQL believes of each large table when it chooses how to read it:
BELIEVED_ROWS = 5_000_000
LARGE = ("accounts", "attempts", "batches", "chain_transactions", "checked_wallets", "entries", "holds", "markers", "maturing",
         "owed", "payouts", "postings", "segment_stakes", "token_accounts", "transfers", "wallets")  # fmt: skip
# Who has no wallet, and enough; who has one, and too little; payouts of a month and what belongs to them.
BESIDE = """
    INSERT INTO ledger.accounts (kind, party, owner, balance)
        SELECT 'payable', 'creator', 1000 + n, CASE WHEN n % 2 = 0 THEN 5000 ELSE 5 END FROM generate_series(1, {creators}) n;
    INSERT INTO ledger.owed (creator_id, account_id)
        SELECT owner, id FROM ledger.accounts WHERE balance >= 1000 AND owner > 1000;
    INSERT INTO ledger.wallets (creator_id, wallet, set_by)
        SELECT 1000 + n, repeat('w', 40), 'creator' FROM generate_series(1, {creators}, 2) n;
    INSERT INTO ledger.checked_wallets (creator_id, wallet)
        SELECT 1000 + n, repeat('w', 40) FROM generate_series(1, {creators}, 2) n;
    INSERT INTO ledger.maturing (account_id, matures_at, amount_pix)
        SELECT id, now() + interval '1 h', 0 FROM ledger.accounts WHERE owner > 1000;
    INSERT INTO ledger.batches (id, kind, state, count, amount_pix, epoch, planned_at, ended_at)
        SELECT md5(n::text), 'payout', 'posted', 50, 50, 1, now() - interval '2 days', now() - interval '1 day'
        FROM generate_series(1, {creators} / 50) n;
    INSERT INTO ledger.attempts (batch_id, n, signature, raw, blockhash, last_valid_block_height, context_slot, epoch, state,
                                 signed_at, ended_at, slot, lamports)
        SELECT md5(n::text), 1, repeat('s', 70) || lpad(n::text, 12, '0'), repeat('r', 100)::bytea, 'h', 1, 1, 1, 'landed',
               now() - interval '2 days', now() - interval '1 day', 1, 5000 FROM generate_series(1, {creators} / 50) n;
    INSERT INTO ledger.markers (batch_id, address, lamports, since)
        SELECT md5(n::text), 'marker ' || n, 1, now() - interval '1 day' FROM generate_series(1, {creators} / 50) n;
    INSERT INTO ledger.transfers (source, target, amount_pix, pending_entry, final_entry, state)
        SELECT 1, 2, 1, 1, 1, 'posted' FROM generate_series(1, {creators}) n;
    INSERT INTO ledger.payouts (creator_id, period, seq, wallet, amount_pix, transfer_id, batch_id, on_chain_pix)
        SELECT 1000 + n, current_date - (n % 30) - 1, 0, repeat('w', 40), 1, n, md5((n / 50 + 1)::text), 1
        FROM generate_series(1, {creators}) n;
    INSERT INTO ledger.chain_transactions (signature, slot, delta_pix, delta_lamports, kind)
        SELECT repeat('d', 70) || lpad(n::text, 12, '0'), 1, 0, 1, 'deposit' FROM generate_series(1, {creators}) n;
    INSERT INTO ledger.token_accounts (wallet, mint, address)
        SELECT 'wallet ' || n, 'mint', 'address ' || n FROM generate_series(1, {creators}) n;
    INSERT INTO ledger.segment_stakes (segment_id, investor_id, pix_invested)
        SELECT 1000 + n, 7, 1 FROM generate_series(1, {creators}) n;
    INSERT INTO ledger.holds (creator_id, reason)
        SELECT 10000000 + n, 'the wallet cannot be paid: ' || n FROM generate_series(1, {creators} / 10) n"""


@pytest.fixture
def crowd(journal: Connection[Any]) -> Rig:
    """A rig beside creators and payouts that need nothing, as if there were millions; the least payout is 1,000 units."""
    economics = dataclasses.replace(SMALL, payout_min_pix=1000)
    rig = Rig(journal, new_chain(), economics=economics, settings=dataclasses.replace(EAGER, payouts_per_plan_max=200))
    rig.payouts.plan()
    rig.connection.execute("SET session_replication_role = replica")
    rig.connection.execute(BESIDE.format(creators=CREATORS))
    rig.connection.execute("SET session_replication_role = DEFAULT")
    rig.connection.commit()
    rig.connection.autocommit = True
    rig.connection.execute("ANALYZE")
    for table in LARGE:
        rig.connection.execute(f"ALTER TABLE ledger.{table} SET (autovacuum_enabled = off)")
        rig.connection.execute(
            f"UPDATE pg_class SET reltuples = {BELIEVED_ROWS} WHERE oid = 'ledger.{table}'::regclass"
        )
    rig.connection.autocommit = False
    while rig.rows("SELECT count(*) FROM ledger.owed WHERE parked_until IS NULL") != [(0,)]:
        rig.payouts.settings = dataclasses.replace(rig.settings, payouts_per_plan_max=CREATORS)
        rig.payouts.plan()  # whom nobody can pay is looked at once
    rig.payouts.settings = rig.settings
    return rig


@contextmanager
def touching_little(rig: Rig, but: Collection[str] = ()) -> Iterator[None]:
    """What runs inside reads no large table as a whole, not even once."""
    before = scans(rig.connection)
    yield
    after = scans(rig.connection)
    assert {name: after[name] - before[name] for name in LARGE if after[name] != before[name] and name not in but} == {}


def scans(connection: Connection[Any]) -> dict[str, int]:
    """How often each large table was read as a whole so far."""
    connection.commit()
    connection.execute("SELECT pg_stat_force_next_flush()")
    connection.commit()
    rows = connection.execute(
        "SELECT relname, seq_scan FROM pg_stat_user_tables WHERE schemaname = 'ledger' AND relname = ANY(%s)",
        (list(LARGE),),
    ).fetchall()
    connection.commit()
    return {name: int(count) for name, count in rows}


def test_rounds_beside_many_creators_and_payouts_read_what_they_move(crowd: Rig) -> None:
    crowd.creator(1, 1500)
    crowd.creator(2, 2500, account=False)
    crowd.creator(3, 999)
    with touching_little(crowd):
        crowd.pay(5)
        owed.due(crowd.connection, crowd.economics, crowd.treasury.mint, 200)
    assert {creator: crowd.on_chain(creator) for creator in (1, 2, 3)} == {1: 1500, 2: 2500, 3: 0}
    found = {check.name: check for check in audit.run(crowd.connection, None, None)}
    assert found["transfers"].ok
    assert owed.planned_today(crowd.connection) == 4000
    with touching_little(crowd, but=("holds",)):  # each of those here is in force, and counted
        AgeAlarm(crowd.settings).look(crowd.connection)
        adoption.retry(crowd.payouts)

    accountant = Fold(crowd.connection, Economics(maturity_s=3600, source_day_pix=0), LedgerSettings())
    record(crowd.connection, search(shown(1, 1), shown(1001, 2)))
    crowd.connection.commit()
    with touching_little(crowd):
        folded = accountant.run_once()
        assert folded is not None
        assert folded.funded == 2
        assert fold.mature(crowd.connection) == 0
        crowd.connection.execute("UPDATE ledger.maturing SET matures_at = now() WHERE amount_pix > 0 AND account_id > %s",
                                 (crowd.rows("SELECT max(account_id) - 5 FROM ledger.maturing")[0][0],))  # fmt: skip
        assert fold.mature(crowd.connection) == 1850


def test_who_was_parked_is_paid_as_soon_as_what_kept_them_is_gone(rig: Rig) -> None:
    rig.creator(1, 1000)
    rig.creator(2, 2000)
    rig.earn(3, 3000)
    rig.put_account(3)
    rig.connection.execute("UPDATE ledger.wallets SET hold_until = now() + interval '1 h' WHERE creator_id = 1")
    stops.hold(rig.connection, 2, "somebody looks")
    rig.connection.commit()
    rig.pay(2)
    assert rig.rows("SELECT creator_id, parked_until = 'infinity' FROM ledger.owed ORDER BY 1") == [
        (1, False), (2, True), (3, True)
    ]  # fmt: skip
    assert rig.states() == {}
    rig.connection.execute("UPDATE ledger.wallets SET hold_until = NULL WHERE creator_id = 1")
    stops.release(rig.connection, stops.in_force(rig.connection)[0].name, "ana")
    rig.connection.execute(
        "INSERT INTO ledger.wallets (creator_id, wallet, set_by) VALUES (3, %s, 'creator')", (wallet_of(3),)
    )
    rig.connection.commit()
    rig.pay(4)
    assert_paid(rig, {1: 1000, 2: 2000, 3: 3000})
    assert rig.rows("SELECT count(*) FROM ledger.owed") == [(0,)]


def test_a_hold_that_ends_by_itself_and_a_wallets_that_does_are_seen_in_time(rig: Rig) -> None:
    for creator in (1, 2):
        rig.creator(creator, 1000 * creator)
    rig.connection.execute("UPDATE ledger.wallets SET hold_until = now() + interval '1 s' WHERE creator_id = 1")
    rig.connection.execute(
        "INSERT INTO ledger.holds (creator_id, reason, until) VALUES (2, 'for a moment', now() + interval '1 s')"
    )
    rig.connection.commit()
    rig.payouts.run_once()
    assert rig.states() == {}
    rig.connection.execute("SELECT pg_sleep_until(max(parked_until)) FROM ledger.owed")
    rig.connection.commit()
    rig.pay(3)
    assert_paid(rig, {1: 1000, 2: 2000})


def test_a_change_while_the_planner_looks_is_not_missed(rig: Rig, postgres_url: str) -> None:
    rig.earn(1, 1000)
    rig.put_account(1)
    _, waiting = owed.look(rig.connection, rig.economics, rig.treasury.mint, 10)
    with database.connect(postgres_url) as serve:
        serve.execute(
            "INSERT INTO ledger.wallets (creator_id, wallet, set_by) VALUES (1, %s, 'creator')", (wallet_of(1),)
        )
        owed.park(rig.connection, waiting)  # nobody waits for the other
        serve.commit()
    rig.connection.commit()
    rig.pay(3)
    assert_paid(rig, {1: 1000})


def test_another_least_payout_takes_in_those_whom_it_is_enough_for(rig: Rig, postgres_url: str) -> None:
    rig.payouts.economics = dataclasses.replace(SMALL, payout_min_pix=500)
    rig.creator(1, 499)
    rig.creator(2, 500)
    rig.pay(3)
    assert (rig.on_chain(1), rig.on_chain(2)) == (0, 500)
    rig.earn(2, 400)
    rig.payouts.economics = dataclasses.replace(SMALL, payout_min_pix=400)
    rig.pay(3)
    rig.payouts.economics = dataclasses.replace(SMALL, payout_min_pix=10**6)
    rig.pay(1)
    assert_paid(rig, {1: 499, 2: 900})
    assert [each.ok for each in audit.run(rig.connection, None, None) if each.name == "kept beside"] == [True]


def test_what_a_day_comes_to_is_less_by_what_was_voided(rig: Rig) -> None:
    for creator in (1, 2):
        rig.creator(creator, 1000 * creator)
    rig.payouts.plan()
    assert owed.planned_today(rig.connection) == 3000
    stops.hold(rig.connection, 2, "somebody looks")
    rig.connection.commit()
    rig.pay(4)
    assert_paid(rig, {1: 1000, 2: 0})
    assert owed.planned_today(rig.connection) == 1000


def test_the_audit_says_who_is_missing_beside_and_which_day_is_wrong(rig: Rig) -> None:
    rig.creator(1, 1000)
    rig.pay(3)
    rig.earn(1, 10)
    rig.connection.execute("DELETE FROM ledger.owed")
    rig.connection.execute("INSERT INTO ledger.owed (creator_id, account_id) VALUES (5, 5)")
    rig.connection.execute("UPDATE ledger.payout_days SET planned_pix = 7")
    book.commit(rig.connection)
    (found,) = (each for each in audit.run(rig.connection, None, None) if each.name == "kept beside")
    assert not found.ok
    assert "creator 1 is owed" in found.detail
    assert "creator 5 is not owed" in found.detail
    assert "come to 1000, not 7" in found.detail
