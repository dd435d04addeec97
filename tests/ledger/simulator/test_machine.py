"""The state machine is what the database enforces: states of its checks, transitions of its triggers."""

from __future__ import annotations

from tests.ledger.simulator.ground import Ground
from tests.ledger.simulator.machine import Transition


def changes(stage: Ground, relation: str, field: str) -> set[tuple[str, str]]:
    return {(t.was, t.became) for t in stage.machine.transitions if (t.relation, t.field) == (relation, field)}


def values(stage: Ground, relation: str, field: str) -> set[str]:
    return {s.value for s in stage.machine.states if (s.relation, s.field) == (relation, field)}


def test_attempts_and_batches_change_as_their_triggers_say(stage: Ground) -> None:
    assert values(stage, "attempts", "state") == {"live", "landed", "failed", "expired"}
    assert changes(stage, "attempts", "state") == {
        ("live", "landed"), ("live", "failed"), ("live", "expired"), ("expired", "landed"), ("expired", "failed"),
    }  # fmt: skip
    assert ("signed", "posted") in changes(stage, "batches", "state")
    assert ("posted", "planned") not in changes(stage, "batches", "state")
    assert values(stage, "batches", "kind") == {"accounts", "payout", "reclaim"}
    assert changes(stage, "batches", "kind") == set()


def test_no_state_is_named_that_nothing_comes_to(stage: Ground) -> None:
    assert values(stage, "batches", "state") == {"planned", "signed", "posted", "failed", "cancelled"}
    assert values(stage, "transfers", "state") == {"pending", "posted", "voided"}
    assert len(changes(stage, "batches", "state")) == 6


def test_what_is_written_once_is_written_once(stage: Ground) -> None:
    for relation, field in (("holds", "released_at"), ("freezes", "released_at"), ("orders", "done_at"),
                            ("orders", "approved_by"), ("resolutions", "done_at"), ("payouts", "on_chain_pix")):  # fmt: skip
        assert Transition(relation, field, "none", "set") in stage.machine.transitions
    assert ("freezes", "released_by") not in {(t.relation, t.field) for t in stage.machine.transitions}


def test_a_guard_that_asks_who_writes_is_asked_by_who_may(stage: Ground) -> None:
    assert ("manifest", "creator") in changes(stage, "wallets", "set_by")
    assert ("creator", "manifest") not in changes(stage, "wallets", "set_by")


def test_every_account_kind_and_every_kind_of_order_is_a_state(stage: Ground) -> None:
    assert values(stage, "accounts", "kind") >= {"chain", "payable", "in_flight"}
    assert values(stage, "orders", "kind") == {"adopt", "withdrawal", "correction", "secret"}
    assert values(stage, "resolutions", "ended") == {"true", "false"}


def test_truths_change_and_tables_without_a_guard_are_named(stage: Ground) -> None:
    assert ("none", "true") in changes(stage, "resolutions", "ended")
    assert {"maturing", "suspicions", "owed"} <= set(stage.machine.left_out)
    assert not {each.relation for each in stage.machine.columns} & set(stage.machine.left_out)
