"""Payouts whose end is late, doubted or somebody else's: given up yet landed, markers of strangers, nodes that differ."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.errors import Temporary
from ledger.audit import audit
from ledger.payouts.rail import PAID_UNKNOWN
from ledger.payouts.settling import LANDED_LATE
from ledger.solana import packing
from ledger.solana.chain import Chain
from tests.ledger.chains import (
    EXPIRED_BLOCKS,
    FINAL_BLOCKS,
    GAS,
    LocalNode,
    Rig,
    Steps,
    attempts,
)


class Hasty(Steps):
    """Gives attempts up at once: what a node that lies about heights would talk us into."""

    def expired(self, unseen: Any) -> Any:
        return iter(unseen)


def sent_after_all(rig: Rig) -> tuple[str, str]:
    """The given-up transaction of a batch, which is on its way after all, and the second one, which nobody has sent yet."""
    rig.creator(1, 1000)
    rig.payouts.plan()
    (first,) = rig.payouts.sign()
    raw = rig.rows("SELECT raw FROM ledger.attempts")[0][0]
    rig.fresh(Hasty).settle()
    rig.advance(2)
    (second,) = rig.payouts.sign()
    rig.rpc.send([bytes(raw)])
    return first, second


def test_a_transaction_given_up_too_early_is_settled_when_it_lands_and_freezes_payouts(rig: Rig) -> None:
    first, _ = sent_after_all(rig)
    rig.advance(1)
    rig.payouts.send()
    rig.advance(FINAL_BLOCKS)
    rig.pay(4)
    found = rig.rows("SELECT n, state, signature FROM ledger.attempts ORDER BY n")
    assert found[0] == (1, "landed", first)
    assert found[1][1] in ("failed", "expired")
    assert rig.on_chain(1) == 1000
    assert rig.balance("in_flight") == 0
    assert rig.freezes() == [LANDED_LATE]


def test_a_batch_whose_given_up_transaction_has_paid_ends_when_its_second_one_can_never_land(rig: Rig) -> None:
    """That one is included in no block: it neither lands nor fails at the marker, which stands already."""
    first, second = sent_after_all(rig)
    rig.advance(FINAL_BLOCKS)
    rig.payouts.settle()
    assert rig.states() == {"signed": 1}  # the second may still be included
    rig.advance(EXPIRED_BLOCKS)
    rig.payouts.settle()
    found = rig.rows("SELECT n, state, signature FROM ledger.attempts ORDER BY n")
    assert found == [(1, "landed", first), (2, "expired", second)]
    assert rig.states() == {"posted": 1}
    assert (rig.on_chain(1), rig.balance("in_flight"), rig.freezes()) == (1000, 0, [LANDED_LATE])


def test_a_given_up_transaction_that_lands_before_the_next_is_signed_is_found(rig: Rig) -> None:
    rig.creator(1, 1000)
    rig.payouts.run_once()
    rig.fresh(Hasty).settle()
    rig.advance(FINAL_BLOCKS)
    rig.pay(3)
    assert [each[:2] for each in attempts(rig)] == [(1, "landed")]
    assert (rig.on_chain(1), rig.balance("in_flight"), rig.freezes()) == (1000, 0, [LANDED_LATE])


def test_a_batch_whose_marker_a_stranger_holds_is_not_given_back(rig: Rig) -> None:
    """As after a restored backup: the chain has a marker for a batch that we never signed."""
    from solders.account import Account

    rig.creator(1, 1000)
    (batch,) = rig.payouts.plan()
    marker = rig.treasury.marker(batch.id).address
    rig.chain.svm.set_account(marker, Account(rig.treasury.marker_rent, b"", packing.SYSTEM_PROGRAM))
    rig.advance(FINAL_BLOCKS)
    rig.pay(3)
    assert (rig.on_chain(1), rig.balance("in_flight"), rig.freezes()) == (0, 1000, [PAID_UNKNOWN])


class Dead(LocalNode):
    async def call(self, method: str, params: list[Any]) -> Any:
        raise Temporary(f"away, so no {method} of {len(params)}")


def test_an_end_needs_two_opinions_where_there_are_two_nodes(rig: Rig) -> None:
    rig.creator(1, 1000)
    rig.payouts.plan()
    rig.payouts.sign()
    whole = rig.payouts.chain
    rig.payouts.chain = Chain([LocalNode("a", rig.chain), Dead("b", rig.chain)])
    rig.advance(EXPIRED_BLOCKS + 10)
    with pytest.raises(Temporary, match="1 of 2 RPC nodes"):
        rig.payouts.settle()
    rig.payouts.chain.close()
    rig.payouts.chain = whole
    rig.payouts.settle()
    assert attempts(rig)[0][:2] == (1, "expired")


def test_a_given_up_transaction_that_has_just_landed_is_waited_for(rig: Rig) -> None:
    """Confirmed and not final: the simulation of another one fails at the marker, and nothing is given back."""
    rig.creator(1, 1000)
    rig.payouts.run_once()
    rig.fresh(Hasty).settle()
    rig.advance(3)
    assert rig.payouts.sign() == []
    assert rig.states() == {"planned": 1}
    assert rig.freezes() == []
    rig.pay(3)
    assert (rig.on_chain(1), rig.balance("in_flight")) == (1000, 0)


def test_a_revived_batch_waits_until_its_later_attempt_has_ended(rig: Rig) -> None:
    rig.creator(1, 1000)
    rig.payouts.run_once()
    rig.fresh(Hasty).settle()
    rig.chain.pending.clear()
    rig.advance(2)
    (second,) = rig.payouts.sign()
    first = rig.rows("SELECT raw FROM ledger.attempts WHERE n = 1")[0][0]
    rig.rpc.send([bytes(first)])
    rig.advance(FINAL_BLOCKS)
    rig.payouts.settle()  # the first is final; the second is signed and has not been seen
    assert [each[:2] for each in attempts(rig)] == [(1, "expired"), (2, "live")]
    assert rig.freezes() == [LANDED_LATE]
    rig.payouts.send()
    rig.advance(FINAL_BLOCKS)
    rig.payouts.settle()
    assert [each[:2] for each in attempts(rig)] == [(1, "landed"), (2, "failed")]
    assert rig.rows("SELECT signature FROM ledger.attempts WHERE state = 'failed'") == [(second,)]
    assert (rig.on_chain(1), rig.balance("in_flight")) == (1000, 0)
    assert audit_of_chain(rig)


def audit_of_chain(rig: Rig) -> bool:
    """But for the freeze, which a person ends, everything agrees."""
    checks = audit.run(rig.connection, rig.rpc, str(rig.treasury.payer.gas), full=True)
    return all(check.ok for check in checks if check.name != "freezes")


def test_a_given_up_transaction_that_fails_on_chain_costs_its_fee(rig: Rig) -> None:
    rig.creator(1, 1000)
    rig.payouts.run_once()
    rig.put_frozen(1)
    rig.fresh(Hasty).settle()
    rig.advance(FINAL_BLOCKS)
    rig.payouts.settle()
    assert [each[:2] for each in attempts(rig)] == [(1, "failed")]
    assert rig.balance("platform", asset="SOL") == GAS - 5000
    assert rig.states() == {"planned": 1}
    assert audit_of_chain(rig)


def test_a_first_transaction_that_fails_at_a_strangers_marker_stays_in_flight(rig: Rig) -> None:
    from solders.account import Account

    rig.creator(1, 1000)
    (batch,) = rig.payouts.plan()
    rig.payouts.sign()
    marker = Account(rig.treasury.marker_rent, b"", packing.SYSTEM_PROGRAM)
    rig.chain.svm.set_account(rig.treasury.marker(batch.id).address, marker)
    rig.pay(3)
    assert (rig.on_chain(1), rig.balance("in_flight"), rig.freezes()) == (0, 1000, [PAID_UNKNOWN])


def test_a_transaction_that_did_something_else_freezes_and_settles_nothing(rig: Rig) -> None:
    rig.creator(1, 1000)
    rig.payouts.run_once()
    rig.connection.execute("SET session_replication_role = replica")  # as if somebody had changed the plan
    rig.connection.execute("UPDATE ledger.batches SET plan = jsonb_set(plan, '{recipients,0,3}', '999')")
    rig.connection.execute("SET session_replication_role = DEFAULT")
    rig.connection.commit()
    rig.pay(2)
    assert "something else" in rig.freezes()[0]
    assert rig.balance("in_flight") == 1000


def test_a_node_that_has_not_come_so_far_is_no_opinion(rig: Rig) -> None:
    class Behind(LocalNode):
        async def call(self, method: str, params: list[Any]) -> Any:
            answered = await super().call(method, params)
            if method == "getSignatureStatuses":
                answered["context"]["slot"] = 1
            return answered

    rig.creator(1, 1000)
    rig.payouts.plan()
    rig.payouts.sign()
    rig.payouts.chain = Chain([LocalNode("a", rig.chain), Behind("b", rig.chain)])
    rig.advance(EXPIRED_BLOCKS + 10)
    rig.payouts.settle()
    rig.payouts.chain.close()
    assert attempts(rig)[0][:2] == (1, "live")


def test_a_later_attempt_that_fails_at_the_marker_waits_for_the_earlier_one_to_be_agreed_on(rig: Rig) -> None:
    class Forgetful(LocalNode):
        forgotten = ""

        async def call(self, method: str, params: list[Any]) -> Any:
            return (
                None
                if method == "getTransaction" and params[0] == self.forgotten
                else await super().call(method, params)
            )

    rig.creator(1, 1000)
    rig.payouts.plan()
    (first,) = rig.payouts.sign()
    rig.payouts.send()
    rig.fresh(Hasty).settle()
    waiting = dict(rig.chain.pending)
    rig.chain.pending.clear()
    rig.advance(2)
    rig.payouts.sign()
    rig.chain.pending.update(waiting)  # the first lands before the second
    rig.payouts.send()
    rig.advance(FINAL_BLOCKS)
    whole, forgetful = rig.payouts.chain, Forgetful("b", rig.chain)
    forgetful.forgotten = first
    rig.payouts.chain = Chain([LocalNode("a", rig.chain), forgetful])
    rig.payouts.settle()
    assert [each[:2] for each in attempts(rig)] == [(1, "expired"), (2, "live")]
    assert (rig.balance("in_flight"), rig.freezes()) == (1000, [])
    rig.payouts.chain.close()
    rig.payouts.chain = whole
    rig.payouts.settle()
    assert [each[:2] for each in attempts(rig)] == [(1, "landed"), (2, "failed")]
    assert (rig.balance("in_flight"), rig.on_chain(1)) == (0, 1000)
