"""What is open for too long is measured in every state, noted, said in the log once an hour, and shown."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from psycopg import Connection

from cluster.errors import Rejected
from cluster.settings import Settings
from ledger import ages, audit, book, orders, owed, resolutions, stops
from ledger.alarms import SAID_AGAIN_S, AgeAlarm
from ledger.fold import Fold
from ledger.service import LedgerService
from ledger.settings import LedgerSettings
from tests.ledger.chains import FINAL_BLOCKS, SMALL, Rig
from tests.ledger.test_fold import record, search, shown
from tests.ledger.test_orders import key_of, move, placed

SOON = LedgerSettings(
    batch_open_max_s=1e-9, due_open_max_s=1e-9, stop_open_max_s=1e-9, order_open_max_s=1e-9, work_open_max_s=1e-9
)  # everything that is open is late


def planned(rig: Rig) -> str:
    rig.creator(1, 1000)
    (batch,) = rig.payouts.plan()
    return f"batch {batch.id}"


def signed(rig: Rig) -> str:
    name = planned(rig)
    rig.payouts.sign()
    return name


def sent(rig: Rig) -> str:
    name = signed(rig)
    rig.payouts.send()
    return name


def given_up(rig: Rig) -> str:
    name = signed(rig)
    rig.connection.execute("UPDATE ledger.attempts SET state = 'expired', ended_at = now()")
    rig.connection.execute("UPDATE ledger.batches SET state = 'planned'")
    return name


def frozen(rig: Rig) -> str:
    stops.freeze(rig.connection, "somebody looks", {})
    return stops.in_force(rig.connection)[0].name


def on_hold(rig: Rig) -> str:
    stops.hold(rig.connection, 7, "asked")
    return next(each.name for each in stops.in_force(rig.connection) if each.creator_id == 7)


def order(rig: Rig) -> str:
    return f"order {placed(rig, orders.CORRECTION, move(), key_of(rig.connection, 'ana'))}"


def resolution(rig: Rig) -> str:
    name = signed(rig)
    resolutions.ask(rig.connection, name.removeprefix("batch "), "ana")
    return name


def searched(rig: Rig) -> tuple[str, int]:
    record(rig.connection, search(shown(1, 1)))
    row = rig.connection.execute("SELECT incarnation::text, seq FROM ledger.appearance_batches").fetchone()
    assert row is not None
    return row


def unfolded(rig: Rig) -> str:
    return searched(rig)[0]


def set_aside(rig: Rig) -> str:
    incarnation, seq = searched(rig)
    rig.connection.execute(
        "INSERT INTO ledger.set_aside (incarnation, seq, reason) VALUES (%s, %s, 'damaged')", (incarnation, seq)
    )
    return f"aside-{incarnation}-{seq}"


def due(rig: Rig) -> str:
    rig.creator(1, 1000)
    return "creator 1"


def waiting(rig: Rig) -> str:
    ages.note_waits(rig.connection, {"payouts": "the mint is not set"})
    return "payouts: the mint is not set"


def matured(rig: Rig) -> str:
    account = book.accounts_of(rig.connection, "maturing", "creator", [1])[1]
    rig.connection.execute("INSERT INTO ledger.maturing VALUES (%s, now() - interval '1 s', 1)", (account,))
    return f"account {account}"


def unknown(rig: Rig) -> str:
    rig.connection.execute(
        "INSERT INTO ledger.chain_transactions (signature, slot, delta_pix, delta_lamports, kind)"
        " VALUES ('a signature', 1, -1, 0, 'unknown')"
    )
    return "a signature"


def not_reconciled(rig: Rig) -> str:
    rig.connection.execute(
        "INSERT INTO ledger.reconciliations (slot, ok, journal_pix, chain_pix, journal_lamports, chain_lamports)"
        " VALUES (1, true, 0, 0, 0, 0), (2, false, 0, 1, 0, 0)"
    )
    return "the chain"


OPENED: dict[str, Callable[[Rig], str]] = {
    "due": due, "waiting": waiting,
    "planned": planned, "signed": signed, "sent": sent, "given up": given_up, "frozen": frozen,
    "on hold": on_hold, "order": order, "resolution": resolution, "set aside": set_aside, "unfolded": unfolded,
    "matured": matured, "unknown": unknown, "not reconciled": not_reconciled,
}  # fmt: skip


def late(connection: Connection[Any], limits: LedgerSettings) -> dict[str, tuple[str, ...]]:
    connection.commit()  # what began in this very transaction is not old
    return {each.state: each.names for each in ages.measure(connection, limits) if each.late}


def test_every_state_is_tried() -> None:
    assert OPENED.keys() == ages.STATES.keys()


@pytest.mark.parametrize("state", OPENED)
def test_what_is_open_in_a_state_for_too_long_is_named_by_its_state_and_by_the_audit(rig: Rig, state: str) -> None:
    name = OPENED[state](rig)
    rig.connection.commit()
    assert late(rig.connection, SOON)[state] == (name,)
    assert late(rig.connection, LedgerSettings()) == {}
    limit = ages.STATES[state][0]
    others = dataclasses.replace(LedgerSettings(), **{limit: 1e-9})
    assert late(rig.connection, others)[state] == (name,)
    rig.connection.commit()
    (found,) = [each for each in audit.run(rig.connection, None, None, limits=SOON) if each.name == "open too long"]
    is_stop = state in ages.STOPS  # a person's to end, and no fault of the books
    assert is_stop or not found.ok
    assert is_stop != (f"{state}: {name}" in found.detail), found.detail
    (found,) = [each for each in audit.run(rig.connection, None, None) if each.name == "open too long"]
    assert found.ok, found.detail


def test_an_unknown_transaction_that_was_resolved_is_not_open(rig: Rig) -> None:
    sent(rig)
    rig.advance(FINAL_BLOCKS)
    rig.pay(2)
    rig.connection.execute(
        "INSERT INTO ledger.chain_transactions (signature, slot, delta_pix, delta_lamports, kind)"
        " SELECT signature, slot, -1000, 0, 'unknown' FROM ledger.attempts WHERE state = 'landed'"
    )
    assert "unknown" not in late(rig.connection, SOON)


def test_what_has_ended_is_not_open(rig: Rig) -> None:
    sent(rig)
    rig.advance(FINAL_BLOCKS)
    rig.pay(3)
    for name in (frozen(rig), on_hold(rig), set_aside(rig)):
        stops.release(rig.connection, name, "ana")
        with pytest.raises(Rejected, match="nothing that waits for a person"):
            stops.release(rig.connection, name, "ana")
    while Fold(rig.connection, rig.economics, rig.settings).run_once() is not None:
        pass
    waiting(rig)
    ages.note_waits(rig.connection, {})
    assert late(rig.connection, SOON) == {"due": ("creator 1",)}  # of what was folded just now


def test_who_could_be_paid_is_open_until_they_are_planned_or_wait_for_something(rig: Rig) -> None:
    rig.creator(1, 1000)
    rig.creator(2, 1000)
    stops.hold(rig.connection, 2, "asked")
    assert late(rig.connection, SOON)["due"] == ("creator 1", "creator 2")
    rig.payouts.plan()
    assert "due" not in late(rig.connection, SOON)
    stops.release(rig.connection, stops.in_force(rig.connection)[0].name, "ana")
    rig.connection.commit()
    owed.wake(rig.connection)
    assert late(rig.connection, SOON)["due"] == ("creator 2",)
    owed.look_again(rig.connection, [2])  # nothing says when they can be paid: it is the same wait
    assert late(rig.connection, SOON)["due"] == ("creator 2",)


def is_due(rig: Rig) -> bool:
    return "due" in late(rig.connection, LedgerSettings(due_open_max_s=3600))


def long_due(rig: Rig) -> None:
    rig.connection.execute("UPDATE ledger.owed SET open_since = now() - interval '1 day' WHERE open_since IS NOT NULL")
    assert is_due(rig)


def test_who_is_paid_a_part_each_day_is_due_since_the_last_one(rig: Rig) -> None:
    rig.payouts.economics = dataclasses.replace(SMALL, payout_day_max_pix=1000)
    rig.creator(1, 2500)
    long_due(rig)
    rig.pay(2)
    assert (rig.on_chain(1), rig.balance("payable", 1), is_due(rig)) == (1000, 1500, False)


@pytest.mark.parametrize("is_priced", [True, False])
def test_who_is_owed_less_than_their_token_account_costs_is_due_only_where_nobody_has_said_what_that_is(
    rig: Rig, is_priced: bool
) -> None:
    price = {"pix_per_sol": 10**9, "pix_per_sol_at": datetime.now(UTC).isoformat()} if is_priced else {}
    rig.payouts.economics = dataclasses.replace(SMALL, account_cost_check=True, **price)  # type: ignore[arg-type]
    rig.creator(1, 1000, account=False)
    long_due(rig)
    rig.pay(2)
    assert (rig.states(), is_due(rig)) == ({}, not is_priced)


def test_who_is_looked_at_again_since_openings_have_become_cheaper_is_due(rig: Rig) -> None:
    rig.creator(1, 1000)
    owed.park(rig.connection, {1: "2100-01-01"})
    assert "due" not in late(rig.connection, SOON)
    owed.fit(rig.connection, 1, 12345)
    assert late(rig.connection, SOON)["due"] == ("creator 1",)


def test_what_a_part_waits_for_is_kept_since_it_does(rig: Rig) -> None:
    ages.note_waits(rig.connection, {"payouts": "a", "fold": "b\0"})
    rig.connection.commit()
    ages.note_waits(rig.connection, {"payouts": "c"})
    rig.connection.commit()
    rows = rig.rows("SELECT part, why, since < now() FROM ledger.waits")
    assert rows == [("payouts", "c", True)]
    (found,) = stops.waiting(rig.connection)
    assert (found.name, found.creator_id, found.reason) == ("", None, "payouts waits: c")


def test_what_has_had_no_end_for_long_is_said_once_an_hour_and_another_at_once(rig: Rig) -> None:
    now_s = [0.0]
    alarm, patient = AgeAlarm(SOON, lambda: now_s[0]), AgeAlarm(LedgerSettings())
    planned(rig)
    assert [alarm.look(rig.connection) for _ in range(2)] == [["planned"], []]
    assert patient.look(rig.connection) == []
    now_s[0] += SAID_AGAIN_S
    assert alarm.look(rig.connection) == ["planned"]
    on_hold(rig)
    rig.connection.commit()
    assert alarm.look(rig.connection) == ["on hold"]
    stops.hold(rig.connection, 8, "asked")
    rig.connection.commit()
    assert alarm.look(rig.connection) == ["on hold"]
    for each in stops.in_force(rig.connection):
        stops.release(rig.connection, each.name, "ana")
    rig.pay(2)
    assert alarm.look(rig.connection) == []
    on_hold(rig)
    rig.connection.commit()
    assert alarm.look(rig.connection) == ["on hold"]


def test_the_log_line_says_what_and_for_how_long(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    name = planned(rig)
    AgeAlarm(SOON).look(rig.connection)
    (line,) = [each for each in caplog.records if each.name == "ledger.alarms"]
    assert name in line.getMessage()
    assert "the oldest for 0.0 h" in line.getMessage()


def test_what_was_found_is_noted_and_status_says_what_is_late(settings: Settings, rig: Rig) -> None:
    service = LedgerService(settings)
    assert service.notes() == {}  # nobody has looked
    name = planned(rig)
    AgeAlarm(LedgerSettings()).look(rig.connection)
    assert service.notes() == {}
    AgeAlarm(SOON).look(rig.connection)
    ((about, said),) = service.notes().items()
    assert (about, name in said) == ("open too long (planned)", True)
    rig.connection.execute("UPDATE ledger.ages SET looked_at = now() - interval '1 hour'")
    rig.connection.commit()
    assert service.notes()["open too long"] == "the ledger has not looked for 60 min"
    rows = rig.connection.execute(ages.NOTED).fetchall()
    assert {each.state for each in ages.noted(rows)} == ages.STATES.keys()
    assert json.dumps([each.names for each in ages.noted(rows)])


def test_many_that_are_late_are_counted_and_some_named(rig: Rig) -> None:
    for creator in range(1, 9):
        stops.hold(rig.connection, creator, "asked")
    rig.connection.commit()
    (found,) = [each for each in ages.measure(rig.connection, SOON) if each.late]
    assert (found.open, found.late, len(found.names)) == (8, 8, ages.NAMED_MAX)
    assert "and 3 more" in str(found)
