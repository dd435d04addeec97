"""Payouts as a state machine: earnings, plans, signatures, lost bytes, forks, frozen accounts, holds and restarts in any
order, on a real database and chain. After every step the books agree with a plain model; in the end everybody is paid.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from psycopg import Connection
from solders.pubkey import Pubkey

from cluster.database import database
from cluster.settings import Settings
from ledger.audit import audit
from ledger.journal import book
from ledger.risk import stops
from tests.conftest import fresh_database
from tests.ledger.chains import EXPIRED_BLOCKS, FINAL_BLOCKS, Rig, new_chain, token_account, wallet_of

CREATORS = (1, 2, 3)
CREATOR = st.sampled_from(CREATORS)
STEPS_OF_BATCH = {  # a rule may take several
    "planned": {"planned", "signed", "cancelled"},
    "signed": {"signed", "planned", "posted", "failed", "cancelled"},
    "posted": {"posted"},
    "failed": {"failed"},
    "cancelled": {"cancelled"},
}
STEPS_OF_ATTEMPT = {
    "live": {"live", "landed", "failed", "expired"},
    "landed": {"landed"},
    "failed": {"failed"},
    "expired": {"expired"},
}
ROUNDS_TO_END = 40


class Paying(RuleBasedStateMachine):
    """Each example has a database and a chain of its own."""

    new_database: Callable[[], AbstractContextManager[str]]

    def __init__(self) -> None:
        super().__init__()
        self._database = self.new_database()
        self.connection: Connection = database.connect(self._database.__enter__())
        book.take_epoch(self.connection, "machine")
        self.rig = Rig(self.connection, new_chain())
        for creator in CREATORS:
            self.rig.creator(creator, 0)
        self.earned = dict.fromkeys(CREATORS, 0)
        self.frozen: set[int] = set()
        self.batches: dict[str, str] = {}
        self.attempts: dict[str, str] = {}

    # ── What happens ───────────────────────────────────────────────────────────────────────────────────────────────

    @rule(creator=CREATOR, amount=st.integers(1, 1000))
    def earn(self, creator: int, amount: int) -> None:
        self.rig.earn(creator, amount, f"earned:{creator}:{self.earned[creator]}")
        self.earned[creator] += amount

    @rule()
    def plan(self) -> None:
        held = set(self.rig.holds())
        made = self.rig.payouts.plan()
        assert not held & {each.creator_id for batch in made for each in batch.recipients}

    @rule()
    def sign(self) -> None:
        before = set(self.rig.chain.pending)
        self.rig.payouts.sign()
        assert set(self.rig.chain.pending) == before  # signing sends nothing

    @rule()
    def send(self) -> None:
        self.rig.payouts.send()

    @rule(creator=CREATOR, amount=st.integers(1, 1000))
    def a_payout_sets_out(self, creator: int, amount: int) -> None:
        self.earn(creator, amount)
        self.rig.payouts.run_once()

    @rule(count=st.sampled_from((1, FINAL_BLOCKS)))
    def the_ledger_works(self, count: int) -> None:
        self.rig.payouts.run_once()
        self.rig.advance(count)

    @rule()
    def settle(self) -> None:
        self.rig.payouts.settle()

    @rule(count=st.sampled_from((1, 2, FINAL_BLOCKS, EXPIRED_BLOCKS)))
    def time_passes(self, count: int) -> None:
        self.rig.advance(count)

    @rule()
    def bytes_are_lost(self) -> None:
        self.rig.chain.pending.clear()

    @rule(count=st.integers(1, 8))
    def the_chain_forks(self, count: int) -> None:
        lost = self.rig.chain.abandon(min(count, self.rig.chain.height))
        self.rig.advance(count)
        assert len(lost) >= 0

    @rule(creator=CREATOR)
    def an_account_freezes(self, creator: int) -> None:
        self.rig.put_frozen(creator)
        self.frozen.add(creator)

    @precondition(lambda self: self.frozen)
    @rule()
    def accounts_thaw(self) -> None:
        for creator in self.frozen:
            owner = Pubkey.from_string(wallet_of(creator))
            thawed = token_account(self.rig.treasury.payer.mint, owner, self.rig.on_chain(creator))
            self.rig.chain.svm.set_account(self.rig.address_of(creator), thawed)
        self.frozen.clear()

    @rule(creator=CREATOR)
    def somebody_looks_at(self, creator: int) -> None:
        stops.hold(self.connection, creator, "somebody looks")
        self.connection.commit()

    @rule()
    def holds_end(self) -> None:
        self.connection.execute("UPDATE ledger.holds SET released_at = now() WHERE released_at IS NULL")
        self.connection.commit()

    @rule()
    def the_process_ends(self) -> None:
        """What was not committed is gone; a new one takes the epoch, and the old one's writes would be refused."""
        self.connection.rollback()
        book.take_epoch(self.connection, "machine")
        self.rig.payouts = self.rig.fresh()

    # ── What is so after each step ─────────────────────────────────────────────────────────────────────────────────

    @invariant()
    def every_unit_is_in_one_place(self) -> None:
        moved = {
            (creator, state): amount
            for creator, state, amount in self.rig.rows(
                "SELECT p.creator_id, t.state, sum(p.amount_pix)::bigint FROM ledger.payouts p"
                " JOIN ledger.transfers t ON t.id = p.transfer_id GROUP BY 1, 2"
            )
        }
        for creator in CREATORS:
            pending, posted = moved.get((creator, "pending"), 0), moved.get((creator, "posted"), 0)
            assert self.rig.balance("payable", creator) + pending + posted == self.earned[creator]
            assert posted <= self.rig.on_chain(creator) <= pending + posted  # never more than was taken for it
        assert self.rig.balance("in_flight") == sum(a for (_, state), a in moved.items() if state == "pending")

    @invariant()
    def states_go_forward(self) -> None:
        for known, steps, query in (
            (self.batches, STEPS_OF_BATCH, "SELECT id, state FROM ledger.batches"),
            (self.attempts, STEPS_OF_ATTEMPT, "SELECT signature, state FROM ledger.attempts"),
        ):
            for name, state in self.rig.rows(query):
                assert state in steps[known.get(name, state)], (name, known.get(name), state)
                known[name] = state
        assert self.rig.freezes() == []

    @invariant()
    def a_batch_has_one_transaction_that_can_land(self) -> None:
        assert not self.rig.rows(
            "SELECT batch_id FROM ledger.attempts WHERE state IN ('live', 'landed') GROUP BY 1 HAVING count(*) > 1"
        )

    # ── In the end ─────────────────────────────────────────────────────────────────────────────────────────────────

    def teardown(self) -> None:
        try:
            self.accounts_thaw()
            for _ in range(ROUNDS_TO_END):
                self.holds_end()
                self.rig.pay(1)
                if all(self.rig.on_chain(creator) == self.earned[creator] for creator in CREATORS):
                    break
            self.rig.pay(2)
            assert {creator: self.rig.on_chain(creator) for creator in CREATORS} == self.earned
            assert self.rig.balance("in_flight") == 0
            gas = str(self.rig.treasury.payer.gas)
            assert [check for check in audit.run(self.connection, self.rig.rpc, gas, full=True) if not check.ok] == []
        finally:
            self.rig.rpc.close()
            self.connection.close()
            self._database.__exit__(None, None, None)


def test_payouts_agree_with_a_plain_model(ground: Settings, request: pytest.FixtureRequest) -> None:
    template = request.getfixturevalue("_template")
    checks = [HealthCheck.too_slow, HealthCheck.filter_too_much]
    made = settings(max_examples=20, stateful_step_count=30, deadline=None, suppress_health_check=checks)
    bound = type("Bound", (Paying,), {"new_database": lambda _: fresh_database(ground, template)})
    run_state_machine_as_test(bound, settings=made)
