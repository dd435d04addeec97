"""The journal as a state machine: whatever is posted, repeated, reversed or refused, a plain model agrees."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from psycopg import Connection

from cluster.errors import Rejected
from ledger.audit import audit
from ledger.journal import book
from ledger.journal.book import Entry

AMOUNT = st.integers(1, 50)
ACCOUNTS = st.integers(0, 3)
KEYS = st.integers(0, 9)


class Journal(RuleBasedStateMachine):
    """Each example lives in a transaction that is rolled back; what a commit checks is checked at once."""

    connection: Connection[Any]

    def __init__(self) -> None:
        super().__init__()
        self.connection.rollback()
        known = book.accounts_of(self.connection, "payable", "creator", [1, 2, 3])
        self.accounts = [book.account(self.connection, "reward_pool"), *(known[each] for each in (1, 2, 3))]
        self.balances = [0, 0, 0, 0]
        self.entries: dict[str, tuple[int, tuple[int, int, int]]] = {}
        self.reversed: set[int] = set()
        self.deposits = 0

    def attempt(self, entry: Entry) -> book.Written:
        with self.connection.transaction():
            written = book.post(self.connection, entry)
            with book.refusals():
                self.connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
                self.connection.execute("SET CONSTRAINTS ALL DEFERRED")
            return written

    @rule(amount=AMOUNT)
    def deposit(self, amount: int) -> None:
        chain = book.account(self.connection, "chain")
        self.deposits += 1
        self.attempt(Entry("deposit", f"deposit:{self.deposits}", [(chain, -amount), (self.accounts[0], amount)]))
        self.balances[0] += amount

    @rule(giver=ACCOUNTS, taker=ACCOUNTS, amount=AMOUNT, key=KEYS)
    def move(self, giver: int, taker: int, amount: int, key: int) -> None:
        if giver == taker:
            return
        name, wanted = f"move:{key}", (giver, taker, amount)
        known = self.entries.get(name)
        try:
            written = self.attempt(
                Entry("move", name, [(self.accounts[giver], -amount), (self.accounts[taker], amount)])
            )
        except Rejected as refusal:
            self.refused(refusal.code, known, wanted)
            return
        assert written.new == (known is None)
        if known is None:
            self.entries[name] = written.id, wanted
            self.balances[giver] -= amount
            self.balances[taker] += amount

    def refused(self, code: str, known: tuple[int, tuple[int, int, int]] | None, wanted: tuple[int, int, int]) -> None:
        if code == "key-reused":
            assert known is not None
            assert known[1] != wanted
        else:
            assert (code, known) == ("balance-too-low", None)
            assert self.balances[wanted[0]] < wanted[2]

    @rule(key=KEYS)
    def reverse(self, key: int) -> None:
        known = self.entries.get(f"move:{key}")
        if known is None:
            return
        number, (giver, taker, amount) = known
        try:
            with self.connection.transaction():
                written = book.reverse(self.connection, number, "again")
        except Rejected as refusal:
            assert refusal.code == "balance-too-low"
            assert self.balances[taker] < amount
            return
        assert written.new == (number not in self.reversed)
        if written.new:
            self.reversed.add(number)
            self.balances[giver] += amount
            self.balances[taker] -= amount

    @invariant()
    def balances_agree(self) -> None:
        assert [book.balance(self.connection, each) for each in self.accounts] == self.balances

    @invariant()
    def the_book_is_whole(self) -> None:
        assert audit._balances(self.connection).ok
        assert audit._zero_sums(self.connection).ok
        assert audit._hash_chain(self.connection).ok


def test_the_journal_agrees_with_a_plain_model(journal: Connection[Any]) -> None:
    checks = [HealthCheck.too_slow, HealthCheck.filter_too_much]
    made = settings(max_examples=15, stateful_step_count=15, deadline=None, suppress_health_check=checks)
    run_state_machine_as_test(type("Bound", (Journal,), {"connection": journal}), settings=made)
