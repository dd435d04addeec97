"""Plans whose recipients were stopped before their transaction was signed or sent: given back, and the others paid."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import pytest
from psycopg import Connection
from solders.account import Account
from solders.pubkey import Pubkey

from ledger import batches, book, owed, packing, resolutions, screening, stops, wallets
from ledger.localnet import blocks
from ledger.payouts import Payouts
from ledger.planning import Planning
from ledger.rail import PAID_UNKNOWN
from ledger.settings import Economics
from tests.ledger.chains import EXPIRED_BLOCKS, FINAL_BLOCKS, Key, Rig, assert_paid, new_chain, wallet_of
from tests.ledger.test_late_payouts import Hasty

OTHER = str(Key("another wallet").pubkey)


class Credulous(Payouts):
    """Believes nodes that all lie: nothing that was signed has landed, or can."""

    def _never_paid(self, *_: Any) -> bool:
        return True


def plan(rig: Rig, *creators: int) -> None:
    """One batch that waits for its signature, as under a freeze."""
    for creator in creators:
        rig.creator(creator, 1000)
    assert len(rig.payouts.plan()) == 1


def hold(rig: Rig, creator: int = 1) -> None:
    stops.hold(rig.connection, creator, "asked")
    rig.connection.commit()


def change_wallet(rig: Rig) -> None:
    wallets.change(rig.connection, Economics(), 1, OTHER, "creator")
    rig.connection.commit()


def refuse_one(recipients: Sequence[screening.Recipient]) -> dict[int, str]:
    return {each.creator_id: "on a list" for each in recipients if each.creator_id == 1}


def begin_to_screen(rig: Rig) -> None:
    rig.settings = dataclasses.replace(rig.settings, screening=f"{__name__}:refuse_one")


@pytest.mark.parametrize("stop", [hold, change_wallet, begin_to_screen])
def test_who_is_stopped_while_his_batch_waits_is_not_paid_by_it_and_the_others_are(rig: Rig, stop: Any) -> None:
    plan(rig, 1, 2, 3)
    stop(rig)
    rig.payouts = rig.fresh()
    rig.pay(4)
    assert rig.on_chain(1) == 0
    assert (rig.balance("payable", 1), rig.balance("in_flight")) == (1000, 0)
    assert_paid(rig, {2: 1000, 3: 1000})
    assert rig.states() == {"cancelled": 1, "posted": 1}


def test_no_token_account_is_opened_for_whom_the_screening_refuses_while_it_waits(rig: Rig) -> None:
    rig.creator(1, 10**6, account=False)
    rig.payouts.plan()
    assert rig.rows("SELECT kind, state FROM ledger.batches") == [("accounts", "planned")]
    begin_to_screen(rig)
    rig.payouts = rig.fresh()
    assert rig.payouts.sign() == []  # at a time at which nobody is planned for, who would be screened for that
    assert rig.rows("SELECT kind, state FROM ledger.batches") == [("accounts", "cancelled")]
    assert list(rig.holds()) == [1]


def test_a_plan_from_before_a_change_of_wallet_pays_nothing_to_the_old_one(rig: Rig) -> None:
    plan(rig, 1)
    change_wallet(rig)
    rig.connection.execute("UPDATE ledger.wallets SET hold_until = now() - interval '1 s'")  # it was long ago
    rig.connection.commit()
    rig.payouts = rig.fresh()
    rig.pay(8)
    there = packing.token_account(Pubkey.from_string(OTHER), rig.treasury.payer.mint)
    found = blocks.token_amount(rig.chain.account(there))
    assert found is not None
    assert (rig.on_chain(1), found[2], rig.balance("in_flight")) == (0, 1000, 0)


def test_who_was_held_is_paid_once_he_is_released(rig: Rig) -> None:
    plan(rig, 1)
    hold(rig)
    rig.payouts = rig.fresh()
    rig.pay(2)
    assert rig.states() == {"cancelled": 1}
    (held,) = stops.in_force(rig.connection)
    stops.release(rig.connection, held.name, "ana")
    rig.pay(4)
    assert_paid(rig, {1: 1000})


class Interrupted(Payouts):
    """Someone holds creator 1 while his payout is being signed."""

    def _simulated(self, waiting: Any) -> Any:
        found = super()._simulated(waiting)
        stops.hold(self.connection, 1, "while we signed")
        return found


def test_who_is_held_while_we_sign_is_not_paid(rig: Rig) -> None:
    rig.creator(1, 1000)
    rig.creator(2, 1000)
    rig.fresh(Interrupted).run_once()
    assert rig.rows("SELECT count(*) FROM ledger.attempts") == [(0,)]
    rig.pay(4)
    assert_paid(rig, {2: 1000})
    assert (rig.on_chain(1), rig.balance("payable", 1)) == (0, 1000)


class Alarmed(Payouts):
    """Payouts are frozen between planning and signing, once."""

    alarms = 1

    def plan(self) -> list[batches.Batch]:
        made = super().plan()
        if self.alarms:
            stops.freeze(self.connection, "somebody looks", {})
            self.alarms = 0
        return made


def test_what_was_planned_in_a_round_that_signed_nothing_is_screened_again(rig: Rig) -> None:
    for creator in (1, 2):
        rig.creator(creator, 1000)
    rig.payouts = rig.fresh(Alarmed)
    rig.payouts.run_once()
    assert rig.states() == {"planned": 1}
    rig.payouts.screening = refuse_one
    stops.release(rig.connection, stops.in_force(rig.connection)[0].name, "ana")
    rig.connection.commit()
    rig.payouts.run_once(plan=True)
    assert rig.rows("SELECT count(*) FROM ledger.attempts") == [(0,)]
    assert list(rig.holds()) == [1]


def test_what_was_signed_and_never_sent_is_not_sent_to_who_is_held_since(rig: Rig) -> None:
    plan(rig, 1, 2)
    rig.payouts.sign()
    hold(rig)
    rig.payouts = rig.fresh()  # the process died before it sent anything
    for _ in range(3):
        rig.payouts.run_once()
        rig.advance(FINAL_BLOCKS)
    assert (rig.on_chain(1), rig.balance("in_flight")) == (0, 2000)
    rig.advance(EXPIRED_BLOCKS)
    rig.pay(5)
    assert rig.on_chain(1) == 0
    assert_paid(rig, {2: 1000})


def test_what_was_sent_is_sent_again_and_settled_whoever_is_held(rig: Rig) -> None:
    plan(rig, 1)
    assert stops.under_way(rig.connection, 1) == 0
    rig.payouts.sign()
    rig.payouts.send()
    hold(rig)
    assert stops.under_way(rig.connection, 1) == 1000
    rig.chain.pending.clear()  # the node lost it
    rig.payouts = rig.fresh()
    rig.pay(3)
    assert_paid(rig, {1: 1000})


def test_a_batch_that_was_signed_before_is_given_back_only_when_that_can_land_no_more(rig: Rig) -> None:
    plan(rig, 1, 2)
    rig.payouts.sign()
    rig.fresh(Hasty).settle()  # a node that lies about heights has us give it up at once
    hold(rig)
    rig.payouts = rig.fresh()
    rig.payouts.run_once()
    assert rig.states() == {"planned": 1}
    rig.advance(EXPIRED_BLOCKS)
    rig.pay(4)
    assert rig.on_chain(1) == 0
    assert_paid(rig, {2: 1000})


# ── Beside the markers of what was given up ────────────────────────────────────────────────────────────────────────


def full(journal: Connection[Any]) -> Rig:
    """A batch with as many recipients as fit, whose first transaction was given up and can land no more."""
    rig = Rig(journal, new_chain(), version="legacy")
    plan(rig, *range(1, rig.treasury.capacity("payout") + 1))
    rig.payouts.sign()
    rig.fresh(Hasty).settle()
    rig.advance(EXPIRED_BLOCKS)
    return rig


def test_who_is_left_of_a_full_batch_is_paid_in_transactions_that_fit(journal: Connection[Any]) -> None:
    rig = full(journal)
    others = list(range(2, rig.treasury.capacity("payout") + 1))
    hold(rig)
    rig.payouts = rig.fresh()
    rig.pay(5)
    assert (rig.on_chain(1), rig.freezes()) == (0, [])
    assert_paid(rig, dict.fromkeys(others, 1000))
    counts = rig.rows("SELECT count FROM ledger.batches WHERE state = 'posted' ORDER BY count")
    assert counts == [(4,), (10,)]


def test_a_plan_that_does_not_fit_beside_what_guards_it_is_cut_when_it_is_signed(
    journal: Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planned by an earlier release, or while its recipients' other payouts were still under way."""
    rig = full(journal)
    everybody = dict.fromkeys(range(1, rig.treasury.capacity("payout") + 1), 1000)
    hold(rig)
    with monkeypatch.context() as earlier:
        earlier.setattr(Payouts, "_parts", lambda _, ready: [list(ready)] if ready else [])
        rig.payouts = rig.fresh()
        rig.payouts._let_through(batches.planned(rig.connection, 9))
    assert rig.rows("SELECT count FROM ledger.batches WHERE state = 'planned'") == [(len(everybody) - 1,)]
    stops.release(rig.connection, stops.in_force(rig.connection)[0].name, "ana")
    rig.connection.commit()
    rig.pay(6)
    assert_paid(rig, everybody)


@pytest.mark.parametrize("version", ["legacy", "v1"])
def test_who_is_paid_later_is_guarded_by_the_marker_of_what_was_given_up(
    journal: Connection[Any], version: str
) -> None:
    """One was held, the other left out: whichever way their money comes back, nothing pays them beside it."""
    rig = Rig(journal, new_chain(), version=version)
    plan(rig, 1, 2)
    rig.payouts.sign()
    raw = bytes(rig.rows("SELECT raw FROM ledger.attempts")[0][0])
    rig.fresh(Hasty).settle()
    given_up = rig.rows("SELECT id FROM ledger.batches")[0][0]
    hold(rig)
    rig.payouts = rig.fresh(Credulous)
    rig.payouts.economics = dataclasses.replace(rig.economics, payout_min_pix=1500)  # nor is the other due again yet
    assert rig.payouts.sign() == []
    assert rig.states() == {"cancelled": 1}
    (held,) = stops.in_force(rig.connection)
    stops.release(rig.connection, held.name, "ana")
    rig.earn(2, 700)
    rig.payouts = rig.fresh()
    made = rig.payouts.plan()
    assert rig.rows("SELECT parent FROM ledger.batches WHERE state = 'planned'") == [(None,)] * len(made)
    assert batches.lineage(rig.connection, [each.id for each in made]) == {each.id: [given_up] for each in made}
    assert rig.payouts.sign() != []
    rig.rpc.send([raw])
    rig.advance(1)
    rig.payouts.send()
    rig.advance(FINAL_BLOCKS)
    rig.payouts.settle()
    assert (rig.on_chain(1), rig.on_chain(2)) == (1000, 1000)
    assert PAID_UNKNOWN in rig.freezes()


def test_what_was_given_up_guards_until_something_that_it_guarded_has_landed(rig: Rig) -> None:
    plan(rig, 1)
    rig.payouts.sign()
    rig.fresh(Hasty).settle()
    hold(rig)
    rig.payouts = rig.fresh(Credulous)
    rig.payouts.sign()
    assert list(batches.lineage_of(rig.connection, [1, 2])) == [1]
    stops.release(rig.connection, stops.in_force(rig.connection)[0].name, "ana")
    rig.payouts = rig.fresh()
    rig.pay(3)
    assert_paid(rig, {1: 1000})
    assert batches.lineage_of(rig.connection, [1]) == {}


def test_what_was_given_up_guards_until_as_much_as_it_was_to_pay_has_landed(rig: Rig) -> None:
    plan(rig, 1)
    rig.payouts.sign()
    rig.fresh(Hasty).settle()
    hold(rig)
    rig.payouts = rig.fresh(Credulous)
    rig.payouts.sign()
    stops.release(rig.connection, stops.in_force(rig.connection)[0].name, "ana")
    rig.economics = dataclasses.replace(rig.economics, payout_max_pix=400)
    rig.payouts = rig.fresh()
    guarded = {}
    while rig.balance("payable", 1) or rig.balance("in_flight"):
        rig.pay(1)
        rig.payouts.settle()
        guarded[rig.on_chain(1)] = list(batches.lineage_of(rig.connection, [1]))
    assert {paid: creators for paid, creators in guarded.items() if paid} == {400: [1], 800: [1], 1000: []}


def test_a_creator_whose_guards_do_not_fit_waits_and_keeps_nobody_else_waiting(journal: Connection[Any]) -> None:
    rig = Rig(journal, new_chain(), version="legacy")
    for _ in range(3):
        plan(rig, 1)
        rig.payouts.sign()
        rig.fresh(Hasty).settle()
        hold(rig)
        rig.payouts = rig.fresh(Credulous)
        rig.payouts.sign()
        stops.release(rig.connection, stops.in_force(rig.connection)[0].name, "ana")
        rig.payouts = rig.fresh()
    rig.creator(2, 500)
    rig.pay(3)
    assert_paid(rig, {1: 0, 2: 500})
    rig.connection.execute("SET session_replication_role = replica")  # a week later
    rig.connection.execute("UPDATE ledger.attempts SET signed_at = now() - interval '8 days' WHERE state = 'expired'")
    rig.connection.execute("SET session_replication_role = DEFAULT")
    rig.connection.execute("UPDATE ledger.owed SET parked_until = now()")
    rig.connection.commit()
    rig.pay(3)
    assert_paid(rig, {1: 3000, 2: 500})


def test_a_plan_that_the_chain_has_paid_is_not_given_back(rig: Rig) -> None:
    """As after a restored backup: the marker says that it was paid, by whatever we have forgotten."""
    plan(rig, 1, 2)
    (number,) = rig.rows("SELECT id FROM ledger.batches")[0]
    rent = rig.treasury.marker_rent
    rig.chain.svm.set_account(rig.treasury.marker(number).address, Account(rent, b"", packing.SYSTEM_PROGRAM))
    rig.advance(FINAL_BLOCKS)
    hold(rig)
    rig.payouts = rig.fresh()
    rig.pay(3)
    assert (rig.states(), rig.balance("in_flight"), rig.on_chain(2)) == ({"planned": 1}, 2000, 0)
    assert rig.freezes() == [PAID_UNKNOWN]  # and is said


def test_no_account_is_opened_for_who_is_held_since(rig: Rig) -> None:
    rig.creator(1, 1000, account=False)
    rig.creator(2, 1000, account=False)
    rig.payouts.plan()
    hold(rig)
    rig.payouts = rig.fresh()
    rig.pay(6)
    assert rig.rows("SELECT wallet FROM ledger.token_accounts") == [(wallet_of(2),)]
    assert_paid(rig, {2: 1000})


def test_an_account_is_opened_once_though_its_creator_is_held_and_released_again_and_again(rig: Rig) -> None:
    rig.creator(1, 1000, account=False)
    for _ in range(3):
        rig.payouts.plan()
        hold(rig)
        rig.payouts = rig.fresh()
        rig.payouts.sign()
        stops.release(rig.connection, stops.in_force(rig.connection)[0].name, "ana")
        rig.connection.commit()
    assert rig.states() == {"cancelled": 3}
    rig.pay(6)
    assert_paid(rig, {1: 1000})


def test_a_plan_of_an_earlier_release_that_pays_the_treasury_itself_is_called_back(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = str(rig.treasury.payer.treasury)
    for creator in (1, 2, 3):
        rig.creator(creator, 500)
    rig.connection.execute("UPDATE ledger.wallets SET wallet = %s WHERE creator_id = 1", (bad,))
    there = batches.Recipient(1, bad, rig.treasury.token_account)
    batches.know_account(rig.connection, rig.treasury.mint, there, None)
    rig.connection.commit()
    with monkeypatch.context() as earlier:
        earlier.setattr(Planning, "_payable", lambda _, due: list(due))
        assert len(rig.payouts.plan()[0].recipients) == 3
    rig.payouts = rig.fresh()
    rig.pay(4)
    assert (rig.freezes(), list(rig.holds())) == ([], [1])
    assert rig.holds()[1].startswith(wallets.UNPAYABLE)
    assert_paid(rig, {2: 500, 3: 500})


def test_a_part_that_has_become_doubtful_is_called_back(rig: Rig) -> None:
    plan(rig, 1)
    rig.connection.execute("INSERT INTO ledger.suspicions VALUES (current_date, 1, 20, 400)")
    stops.hold(rig.connection, 1, "fan-in", partial=True)
    rig.connection.commit()
    rig.payouts = rig.fresh()
    rig.pay(4)
    assert rig.on_chain(1) == 600
    assert rig.balance("payable", 1) == 400


# ── Parts of a batch that failed ───────────────────────────────────────────────────────────────────────────────────


def fail(rig: Rig, poison: int, *others: int) -> None:
    """A batch that is signed and will fail, since one recipient's account is frozen since."""
    plan(rig, poison, *others)
    rig.payouts.sign()
    rig.put_frozen(poison)
    rig.payouts.send()
    rig.advance(FINAL_BLOCKS)


def test_parts_are_planned_however_many_are_owed_more(rig: Rig) -> None:
    rig.settings = dataclasses.replace(rig.settings, payouts_per_plan_max=2)
    rig.payouts = rig.fresh()
    fail(rig, 1, 2)
    for rich in (3, 4, 5):
        rig.creator(rich, 10_000)
        stops.hold(rig.connection, rich, "asked") if rich == 5 else None
    rig.connection.commit()
    rig.payouts.settle()
    parts = rig.rows("SELECT count FROM ledger.batches WHERE parent IS NOT NULL")
    assert parts == [(1,), (1,)]
    rig.pay(8)
    assert_paid(rig, {2: 1000, 3: 10_000, 4: 10_000})
    assert set(rig.holds()) == {1, 5}


def test_parts_wait_for_the_next_payday(rig: Rig) -> None:
    fail(rig, 1, 2)
    now = book.clock_s(rig.connection)
    closed = {"payout_interval_s": 86_400, "payout_window_s": 3600, "payout_offset_s": (now + 7200) % 86_400}
    rig.payouts.economics = dataclasses.replace(rig.economics, **closed)
    rig.payouts.settle()
    assert rig.states() == {"failed": 1}
    assert (rig.balance("payable", 1), rig.balance("payable", 2)) == (1000, 1000)


def test_parts_are_within_the_days_limit(rig: Rig) -> None:
    fail(rig, 1, 2)
    rig.payouts.economics = dataclasses.replace(rig.economics, payout_day_max_pix=1500)
    rig.payouts.settle()
    assert rig.rows("SELECT amount_pix::int FROM ledger.batches WHERE parent IS NOT NULL") == [(1000,)]


def say_nothing(_: Sequence[screening.Recipient]) -> dict[int, str]:
    raise ConnectionError("the list is away")


def test_while_screening_cannot_say_parts_are_not_planned_and_the_failure_is_booked(rig: Rig) -> None:
    fail(rig, 1, 2)
    rig.settings = dataclasses.replace(rig.settings, screening=f"{__name__}:say_nothing")
    rig.fresh().settle()
    assert rig.states() == {"failed": 1}
    assert rig.balance("in_flight") == 0


def test_no_more_batches_are_signed_than_may_be_live(rig: Rig) -> None:
    rig.settings = dataclasses.replace(rig.settings, batches_live_max=1)
    rig.payouts = rig.fresh()
    plan(rig, 1)
    rig.payouts.sign()
    rig.creator(2, 1000)
    (due,) = owed.due(rig.connection, rig.economics, rig.treasury.mint, 9)
    rig.payouts._pend([[due]])
    book.commit(rig.connection)
    assert rig.payouts.sign() == []
    rig.pay(5)
    assert_paid(rig, {1: 1000, 2: 1000})


# ── By the database's clock ────────────────────────────────────────────────────────────────────────────────────────


def long_ago(rig: Rig, seconds: int) -> None:
    """Everything that was signed was signed that much earlier."""
    rig.connection.execute("SET session_replication_role = replica")
    rig.connection.execute("UPDATE ledger.attempts SET signed_at = signed_at - make_interval(secs => %s)", (seconds,))
    rig.connection.execute("SET session_replication_role = DEFAULT")
    rig.connection.commit()


def test_what_was_given_up_a_moment_ago_is_not_given_back_whatever_nodes_say_of_heights(rig: Rig) -> None:
    rig.settings = dataclasses.replace(rig.settings, give_back_after_s=600)
    rig.payouts = rig.fresh()
    plan(rig, 1, 2)
    rig.payouts.sign()
    rig.fresh(Hasty).settle()
    hold(rig)
    rig.advance(EXPIRED_BLOCKS)  # by the chain's heights; a minute, by its clock
    rig.payouts = rig.fresh()
    assert rig.payouts.sign() == []
    assert rig.states() == {"planned": 1}
    long_ago(rig, 610)
    rig.payouts = rig.fresh()
    rig.pay(4)
    assert_paid(rig, {2: 1000})
    assert rig.on_chain(1) == 0


def test_a_person_is_told_to_wait_for_what_was_signed_a_moment_ago(rig: Rig) -> None:
    rig.settings = dataclasses.replace(rig.settings, give_back_after_s=600)
    rig.payouts = rig.fresh()
    plan(rig, 1)
    rig.payouts.sign()
    rig.advance(EXPIRED_BLOCKS)
    batch = rig.rows("SELECT id FROM ledger.batches")[0][0]
    told = []
    for seconds in (0, 610):
        long_ago(rig, seconds)
        number = resolutions.ask(rig.connection, batch, "ana")
        rig.payouts.resolve()
        told.append(resolutions.one(rig.connection, number))
    assert [each.ended for each in told] == [False, True]
    assert "600 s ago" in str(told[0].outcome)
