"""A database that has gone back: nobody is paid twice by what it has forgotten, and what it cannot know a person ends."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from typing import Any, cast

import pytest
from psycopg import Connection
from solders.transaction import VersionedTransaction

from cluster.errors import Rejected
from ledger import adoption, attribution, audit, batches, book, orders, packing, stops
from ledger.batches import Recipient
from ledger.chain import Effect, RpcRefusal
from ledger.fold import Fold, mature
from ledger.localnet import blocks
from ledger.localnet.methods import RpcError, answer
from ledger.planning import Planning
from ledger.reconcile import UNKNOWN, Finding, reconcile
from ledger.settings import LedgerSettings
from tests.ledger.chains import EAGER, EXPIRED_BLOCKS, FINAL_BLOCKS, Key, LocalNode, Rig, new_chain, wallet_of
from tests.ledger.simulator.nodes import View
from tests.ledger.snapshots import Snapshot
from tests.ledger.test_fold import record, search, shown
from tests.ledger.test_orders import carried_out, key_of, placed


def go_back(rig: Rig, snapshot: Snapshot, *, declared: bool = True) -> None:
    """The database is restored, and the ledger's process begins on it."""
    snapshot.bring_back(rig.connection)
    if declared:
        adoption.begin(rig.connection, {"file": "test"})
    book.take_epoch(rig.connection, "after")
    rig.payouts = rig.fresh()


def work(rig: Rig, rounds: int = 8, step: int = FINAL_BLOCKS) -> Finding:
    """What the actor does, a round at a time: nothing new before the chain was compared once."""
    reconciled = False
    for _ in range(rounds):
        rig.payouts.run_once(plan=reconciled)
        adoption.retry(rig.payouts)
        finding = reconcile(rig.connection, rig.rpc, rig.treasury, partial(adoption.adopt, rig.payouts))
        adoption.end(rig.payouts, finding)
        reconciled = finding.ok if finding.conclusive else reconciled
        rig.advance(step)
    return finding


def total_paid(rig: Rig) -> dict[int, int]:
    """What the journal says was paid, to each creator."""
    rows = rig.rows(
        "SELECT creator_id, coalesce(sum(on_chain_pix), 0)::bigint FROM ledger.payouts GROUP BY 1 ORDER BY 1"
    )
    return dict(rows)  # type: ignore[arg-type]


def minted(rig: Rig) -> int:
    """What adoption took from the pool of rewards because it was earned after the backup."""
    rows = rig.rows(
        "SELECT coalesce(-sum(p.amount), 0)::bigint FROM ledger.postings p JOIN ledger.entries e ON e.id = p.entry_id"
        " JOIN ledger.accounts a ON a.id = p.account_id WHERE e.kind = 'adopted_accrual' AND a.kind = 'reward_pool'"
    )
    return int(rows[0][0])


def assert_paid_once(rig: Rig, amounts: dict[int, int]) -> None:
    assert {creator: rig.on_chain(creator) for creator in amounts} == amounts
    assert total_paid(rig) == amounts
    assert rig.freezes() == []
    assert rig.balance("in_flight") == 0
    checks = audit.run(rig.connection, rig.rpc, str(rig.treasury.payer.gas), full=True)
    assert all(check.ok for check in checks), checks


def test_bytes_that_were_signed_before_a_restore_land_before_anything_new_is_planned(rig: Rig) -> None:
    """The backup knows nothing of them, and who is due has changed: a plan of now has another marker."""
    rig.creator(1, 1000)
    snapshot = Snapshot(rig.connection)
    rig.payouts.plan()
    rig.payouts.sign()
    raw = rig.rows("SELECT raw FROM ledger.attempts")[0][0]
    go_back(rig, snapshot)
    rig.creator(2, 70)
    work(rig, 3)
    rig.rpc.send([bytes(raw)])  # a node was slow
    work(rig, 8)
    assert_paid_once(rig, {1: 1000, 2: 70})


def test_a_restore_of_a_backup_that_was_made_while_a_restore_was_waited_for_is_waited_for_anew(rig: Rig) -> None:
    adoption.begin(rig.connection, {"file": "first"})
    rig.connection.commit()
    first = stops.in_force(rig.connection)[0].name
    snapshot = Snapshot(rig.connection)
    go_back(rig, snapshot)
    (again,) = stops.in_force(rig.connection)
    assert again.reason == adoption.RESTORED
    assert again.name != first


class Behind(LocalNode):
    """A node that has seen nothing since a height."""

    def __init__(self, name: str, chain: blocks.Chain, height: int) -> None:
        super().__init__(name, chain)
        self._height = height

    async def call(self, method: str, params: list[Any]) -> Any:
        if method == "sendTransaction":
            return await super().call(method, params)
        try:
            return answer(cast("Any", View(self.chain, self.chain.height - self._height)), method, params)
        except RpcError as error:
            raise RpcRefusal(error.code, error.message, error.data) from error


def test_nodes_that_lag_behind_what_was_paid_do_not_end_the_wait(rig: Rig) -> None:
    """The database has forgotten which slot it had seen last."""
    rig.creator(1, 0)
    rig.creator(2, 0)
    work(rig, 2)
    rig.earn(1, 500)
    snapshot = Snapshot(rig.connection)
    behind = rig.chain.height
    rig.payouts.run_once()
    rig.advance(FINAL_BLOCKS)
    rig.payouts.run_once()
    assert rig.on_chain(1) == 500
    go_back(rig, snapshot)
    rig.earn(2, 70)
    rig.rpc.nodes = [Behind(node.name, rig.chain, behind) for node in rig.rpc.nodes]
    work(rig, 4, step=0)
    assert rig.freezes() == [adoption.RESTORED]
    rig.rpc.nodes = [LocalNode(node.name, rig.chain) for node in rig.rpc.nodes]
    work(rig, 14)
    assert_paid_once(rig, {1: 500, 2: 70})


@pytest.mark.parametrize("state", ["planned", "signed", "given up"])
def test_a_batch_of_the_backup_whose_halves_have_paid_since_is_not_paid_too(rig: Rig, state: str) -> None:
    """The chain shows the halves, under markers that the backup does not know."""
    for creator in (1, 2, 3):
        rig.creator(creator, 1000 * creator)
    rig.payouts.plan()
    if state != "planned":
        rig.payouts.sign()
        rig.advance(EXPIRED_BLOCKS)
    if state == "given up":
        rig.payouts.settle()
    snapshot = Snapshot(rig.connection)
    rig.payouts.settle()
    rig.put_frozen(3)
    work(rig, 10)
    assert [rig.on_chain(creator) for creator in (1, 2, 3)] == [1000, 2000, 0]
    assert list(rig.holds()) == [3]
    go_back(rig, snapshot)
    work(rig, 14)
    assert [rig.on_chain(creator) for creator in (1, 2, 3)] == [1000, 2000, 0]
    assert minted(rig) == 0
    assert rig.balance("payable", 3) == 3000
    assert list(rig.holds()) == [3]  # it is found again


def put_on_one_wallet(rig: Rig, creator: int, other: int, amount: int) -> None:
    """A creator who is paid at another one's wallet."""
    rig.connection.execute(
        "INSERT INTO ledger.wallets (creator_id, wallet, set_by) VALUES (%s, %s, 'creator')",
        (creator, wallet_of(other)),
    )
    rig.earn(creator, amount)


@pytest.mark.parametrize("first", [1, 2])
def test_what_was_paid_at_a_wallet_of_two_creators_is_taken_from_those_who_were_owed_it(rig: Rig, first: int) -> None:
    rig.creator(1, 0)
    put_on_one_wallet(rig, 2, 1, 1)
    work(rig, 3)
    snapshot = Snapshot(rig.connection)
    rig.earn(first, 1000)
    snapshot_of_one = Snapshot(rig.connection)
    work(rig, 4)
    assert rig.on_chain(1) == 1001
    go_back(rig, snapshot_of_one)
    work(rig, 14)
    assert rig.on_chain(1) == 1001
    assert minted(rig) == 0
    assert rig.freezes() == []
    go_back(rig, snapshot)
    work(rig, 14)
    assert (rig.on_chain(1), minted(rig)) == (1001, 1000)


def test_where_there_are_no_markers_the_batch_is_known_by_its_memo(journal: Connection[Any]) -> None:
    rig = Rig(journal, new_chain(), settings=replace(EAGER, marker_accounts=False))
    for creator in (1, 2):
        rig.creator(creator, 1000)
    rig.payouts.plan()
    snapshot = Snapshot(rig.connection)
    (number,) = rig.rows("SELECT id FROM ledger.batches")[0]
    work(rig, 6)
    go_back(rig, snapshot)
    work(rig, 14)
    assert_paid_once(rig, {1: 1000, 2: 1000})
    assert rig.rows("SELECT id FROM ledger.batches") == [(number,)]
    rig.rpc.close()


def test_without_markers_a_batch_that_has_gone_back_before_its_payment_is_read_has_another_id(
    journal: Connection[Any],
) -> None:
    rig = Rig(journal, new_chain(), settings=replace(EAGER, marker_accounts=False))
    rig.creator(1, 1000)
    rig.payouts.plan()
    snapshot = Snapshot(rig.connection)
    (number,) = rig.rows("SELECT id FROM ledger.batches")[0]
    work(rig, 6)
    go_back(rig, snapshot)
    adoption._give_back(rig.payouts, number)  # as where another payment to its recipient is adopted first
    book.commit(rig.connection)
    work(rig, 14)
    assert_paid_once(rig, {1: 1000})
    assert len(rig.rows("SELECT id FROM ledger.batches")) == 2
    rig.rpc.close()


def earned_late(rig: Rig, creator: int, amount: int, matures: str) -> int:
    """Earned, and payable when it has matured; the entry."""
    accounts = book.accounts_of(rig.connection, "maturing", "creator", [creator])
    lines = [(book.account(rig.connection, "reward_pool"), -amount), (accounts[creator], amount)]
    last = rig.connection.execute("SELECT entry_id FROM ledger.chain_head").fetchone()
    assert last is not None
    entry = book.post(rig.connection, book.Entry("accrual", f"late:{last[0]}", lines))
    rig.connection.execute(
        f"INSERT INTO ledger.maturing (account_id, matures_at, amount_pix) VALUES (%s, {matures}, %s)",
        (accounts[creator], amount),
    )
    book.commit(rig.connection)
    return entry.id


def test_nothing_is_adopted_before_all_that_is_due_is_payable(rig: Rig) -> None:
    """Else it would be paid out of the pool of rewards now, and again when it is payable."""
    rig.creator(1, 0)
    earned_late(rig, 1, 1000, "now() - interval '1 hour'")
    snapshot = Snapshot(rig.connection)
    mature(rig.connection)
    work(rig, 4)
    assert rig.on_chain(1) == 1000
    go_back(rig, snapshot)
    with pytest.raises(adoption.Temporary, match="payable"):
        work(rig, 1)
    mature(rig.connection)
    work(rig, 14)
    assert_paid_once(rig, {1: 1000})
    assert minted(rig) == 0


def test_an_id_whose_marker_is_on_chain_already_is_not_used_again(rig: Rig) -> None:
    """What was given back in the time that is forgotten has moved the numbers of a day's payouts on."""
    rig.creator(1, 1000)
    snapshot = Snapshot(rig.connection)
    rig.payouts.plan()
    stops.hold(rig.connection, 1, "a while")
    rig.connection.commit()
    work(rig, 1)
    work(rig, 2)
    assert rig.states() == {"cancelled": 1}
    rig.connection.execute("UPDATE ledger.holds SET released_at = now()")
    work(rig, 4)
    assert rig.on_chain(1) == 1000
    go_back(rig, snapshot)
    work(rig, 14)
    rig.earn(1, 500)
    work(rig, 8)
    assert_paid_once(rig, {1: 1500})


def test_a_marker_that_was_adopted_is_the_one_on_chain(rig: Rig) -> None:
    rig.creator(1, 1000)
    snapshot = Snapshot(rig.connection)
    work(rig, 4)
    before = rig.rows("SELECT address FROM ledger.markers")
    go_back(rig, snapshot)
    work(rig, 14)
    assert rig.rows("SELECT address FROM ledger.markers") == before


@pytest.mark.parametrize("is_released", [False, True])
def test_a_restore_by_hand_is_declared_later_and_adopted(rig: Rig, is_released: bool) -> None:
    rig.creator(1, 1000)
    snapshot = Snapshot(rig.connection)
    work(rig, 6)
    go_back(rig, snapshot, declared=False)
    work(rig, 4)
    assert UNKNOWN in rig.freezes()
    if is_released:  # by somebody who takes it for nothing
        for each in stops.in_force(rig.connection):
            stops.release(rig.connection, each.name, "test")
        rig.connection.commit()
        rig.payouts.run_once(plan=False)
    adoption.begin(rig.connection, {"by": "test"})
    rig.connection.commit()
    work(rig, 14)
    for each in stops.in_force(rig.connection):
        stops.release(rig.connection, each.name, "test")
    rig.connection.commit()
    rig.earn(1, 77)
    work(rig, 6)
    assert_paid_once(rig, {1: 1077})


def test_a_payment_at_a_wallet_that_is_forgotten_is_adopted_once_the_wallet_is_named_again(rig: Rig) -> None:
    rig.creator(1, 0)
    snapshot = Snapshot(rig.connection)
    rig.connection.execute("UPDATE ledger.wallets SET wallet = %s", (wallet_of(2),))
    rig.put_account(2)
    rig.earn(1, 1000)
    known = Recipient(1, wallet_of(2), str(rig.address_of(2)))
    batches.know_account(rig.connection, rig.treasury.mint, known, None)
    work(rig, 6)
    assert rig.on_chain(2) == 1000
    go_back(rig, snapshot)
    work(rig, 14)
    assert {UNKNOWN, adoption.RESTORED} <= set(rig.freezes())
    rig.connection.execute("UPDATE ledger.wallets SET wallet = %s", (wallet_of(2),))
    work(rig, 6)
    assert adoption.RESTORED not in rig.freezes()
    assert total_paid(rig) == {1: 1000}


def test_an_epoch_of_a_forgotten_time_does_not_come_again(rig: Rig) -> None:
    """The writer of then may still be there, and holds it."""
    snapshot = Snapshot(rig.connection)
    held = [book.take_epoch(rig.connection, "forgotten") for _ in range(3)]
    snapshot.bring_back(rig.connection)
    assert book.take_epoch(rig.connection, "after") > max(held)


def test_an_epoch_of_a_forgotten_time_does_not_come_again_where_the_clock_was_ahead(rig: Rig) -> None:
    """By two days, and it has been set right since."""
    rig.connection.execute("ALTER TABLE ledger.fence DISABLE TRIGGER guarded")
    rig.connection.execute("UPDATE ledger.fence SET epoch = epoch + 2 * 86400 * 1000000::bigint")
    rig.connection.execute("ALTER TABLE ledger.fence ENABLE TRIGGER guarded")
    rig.connection.commit()
    snapshot = Snapshot(rig.connection)
    held = [book.take_epoch(rig.connection, "forgotten") for _ in range(3)]
    assert held == sorted(set(held))
    snapshot.bring_back(rig.connection)
    assert book.take_epoch(rig.connection, "after") not in held


def test_a_database_that_lies_elsewhere_was_restored(rig: Rig) -> None:
    """By whatever means, or a standby has taken over: the ledger finds out when it begins."""
    adoption.watch(rig.connection)
    assert rig.freezes() == []
    (seat,) = rig.rows("SELECT seat FROM ledger.chain")[0]
    assert seat is not None
    adoption.watch(rig.connection)
    assert rig.freezes() == []
    rig.connection.execute("UPDATE ledger.chain SET seat = '1/00000001/1'")
    adoption.watch(rig.connection)
    assert rig.freezes() == [adoption.RESTORED]
    assert rig.rows("SELECT seat FROM ledger.chain") == [(seat,)]


def test_the_ledgers_own_role_sees_where_the_database_lies(rig: Rig) -> None:
    rig.connection.execute("SET ROLE pixr_ledger")
    adoption.watch(rig.connection)
    assert rig.rows("SELECT seat IS NULL FROM ledger.chain") == [(False,)]
    rig.connection.execute("RESET ROLE")
    rig.connection.commit()


def test_who_folds_again_what_was_paid_is_not_paid_for_it_again(rig: Rig) -> None:
    """What the backup had not folded yet matures later now than it did: what was paid is taken from there."""
    rig.creator(1, 0)
    snapshot = Snapshot(rig.connection)
    rig.earn(1, 900)
    work(rig, 4)
    assert rig.on_chain(1) == 900
    go_back(rig, snapshot)
    rig.economics = replace(rig.economics, maturity_s=72 * 3600)
    record(rig.connection, search(shown(1, 1, 1000)), recorded_s=time.time() - 60)
    Fold(rig.connection, rig.economics, LedgerSettings()).run_once()
    work(rig, 14)
    assert (rig.on_chain(1), total_paid(rig), rig.freezes()) == (900, {1: 900}, [])
    assert minted(rig) == 0
    assert rig.balance("maturing", 1) == 0
    assert rig.rows("SELECT sum(amount_pix)::bigint FROM ledger.maturing") == [(0,)]


# ── Whose a payment was ────────────────────────────────────────────────────────────────────────────────────────────


def name(rig: Rig, creator: int, other: int) -> None:
    """A creator names the wallet that is called after a number, and is held for nothing."""
    rig.connection.execute(
        "INSERT INTO ledger.wallets (creator_id, wallet, set_by) VALUES (%s, %s, 'creator')"
        " ON CONFLICT (creator_id) DO UPDATE SET wallet = excluded.wallet",
        (creator, wallet_of(other)),
    )
    rig.connection.execute("UPDATE ledger.wallets SET hold_until = NULL WHERE creator_id = %s", (creator,))
    rig.connection.commit()


def paid_at_a_first_wallet(rig: Rig) -> None:
    """The first creator is owed 80,000 at the dump and paid at a wallet that they name after it; the third is paid too."""
    rig.put_account(11)
    rig.earn(1, 80_000)
    rig.creator(3, 0)
    snapshot = Snapshot(rig.connection)
    rig.earn(3, 500)
    name(rig, 1, 11)
    known = Recipient(1, wallet_of(11), str(rig.address_of(11)))
    batches.know_account(rig.connection, rig.treasury.mint, known, None)
    rig.connection.commit()
    work(rig, 6)
    assert (rig.on_chain(11), rig.on_chain(3)) == (80_000, 500)
    assert len(rig.rows("SELECT id FROM ledger.batches")) == 1
    go_back(rig, snapshot)


@pytest.fixture
def earlier(monkeypatch: pytest.MonkeyPatch) -> None:
    """Payouts get ids as an earlier release gave them."""
    monkeypatch.setattr(Planning, "_sealed_id", lambda self, text, _: self._id(text))


def test_nobody_claims_what_another_creator_was_paid_at_a_wallet_that_is_forgotten(rig: Rig) -> None:
    paid_at_a_first_wallet(rig)
    name(rig, 2, 11)
    work(rig, 14)
    assert total_paid(rig) == {}
    assert {UNKNOWN, adoption.RESTORED} <= set(rig.freezes())
    found = carried_out(rig, placed(rig, orders.ADOPT, {"since_slot": 0}, key_of(rig.connection, "ana")))
    assert (found.outcome or "").endswith("an administrator may say it")
    name(rig, 1, 12)  # the next one
    work(rig, 3)
    assert rig.balance("payable", 1) == 80_000
    name(rig, 1, 11)
    work(rig, 14)
    assert adoption.RESTORED not in rig.freezes()
    assert total_paid(rig) == {1: 80_000, 3: 500}
    assert rig.balance("payable", 1) == 0
    assert (rig.on_chain(11), minted(rig)) == (80_000, 500)


def test_an_order_to_adopt_says_who_was_paid_at_a_wallet_that_nobody_has_named(rig: Rig) -> None:
    for creator in (5, 6, 7):
        rig.earn(creator, 1)
    paid_at_a_first_wallet(rig)
    work(rig, 3)
    found = carried_out(rig, placed(rig, orders.ADOPT, {"since_slot": 0}, key_of(rig.connection, "ana")))
    said = "has not named it: by its id creators 1 were paid at wallets that they have not named"
    assert wallet_of(11) in (found.outcome or "")
    assert (found.outcome or "").endswith(said)


def test_of_an_earlier_release_no_wallet_that_was_named_since_the_restore_speaks(rig: Rig, earlier: None) -> None:
    paid_at_a_first_wallet(rig)
    name(rig, 2, 11)
    work(rig, 6)
    name(rig, 1, 11)
    work(rig, 6)
    assert total_paid(rig) == {}
    assert adoption.RESTORED in rig.freezes()
    ana = key_of(rig.connection, "ana")
    for creator in (4, 1):
        body = {"since_slot": 0, "wallets": {wallet_of(11): creator, wallet_of(3): 3}}
        found = carried_out(rig, placed(rig, orders.ADOPT, body, ana))
        assert (found.outcome or "").startswith("0" if creator == 4 else "1")
    work(rig, 14)
    assert adoption.RESTORED not in rig.freezes()
    assert total_paid(rig) == {1: 80_000, 3: 500}
    advances = rig.rows("SELECT creator_id, wallet FROM ledger.advances")
    assert advances == [(3, "")]  # nobody else stands for whom the administrator has named


@pytest.mark.parametrize("known", [600, 999])
@pytest.mark.parametrize("more", [0, 5000])
@pytest.mark.parametrize("is_earlier", [False, True])
def test_who_was_paid_at_a_former_wallet_of_another_ones_is_paid_once(
    rig: Rig, request: pytest.FixtureRequest, known: int, more: int, is_earlier: bool
) -> None:
    """The first has gone from wallet 1 to wallet 3, and the second is paid at wallet 1 now; one transaction pays both."""
    if is_earlier:
        request.getfixturevalue("earlier")
    for creator in (1, 2, 3):
        rig.creator(creator, 0)
    name(rig, 1, 3)
    name(rig, 2, 1)
    work(rig, 2)
    rig.earn(1, 1000)
    rig.earn(2, known)
    snapshot = Snapshot(rig.connection)
    rig.earn(2, 1000 - known)
    work(rig, 5)
    assert total_paid(rig) == {1: 1000, 2: 1000}
    go_back(rig, snapshot)
    if more:
        rig.earn(1, more)
    work(rig, 14)
    assert total_paid(rig) == {1: 1000 + more, 2: 1000}
    assert rig.freezes() == []


def test_what_the_database_refuses_of_one_payment_waits_for_a_person_and_others_go_on(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.creator(1, 1000)
    snapshot = Snapshot(rig.connection)
    work(rig, 6)
    rig.creator(2, 70)
    work(rig, 6)
    go_back(rig, snapshot)
    real = adoption._recipients

    def twice(*given: Any) -> list[adoption.Received]:
        paid = real(*given)
        return [paid[0]._replace(amount=500)] * 2 if paid[0].owner.creator_id == 1 else paid

    monkeypatch.setattr(adoption, "_recipients", twice)
    name(rig, 2, 2)
    work(rig, 6)
    assert total_paid(rig) == {2: 70}
    assert UNKNOWN in rig.freezes()
    monkeypatch.undo()
    work(rig, 14)
    assert total_paid(rig) == {1: 1000, 2: 70}


# ── What is no transaction of the ledger's ─────────────────────────────────────────────────────────────────────────


def sent(rig: Rig, *instructions: packing.Instruction) -> str:
    """A transaction that somebody has signed with the treasury's key."""
    blockhash, _ = rig.chain.blockhash_at("confirmed")
    raw = rig.treasury.signed(instructions, blockhash, 200_000)
    rig.rpc.send([raw])
    rig.advance(FINAL_BLOCKS)
    return packing.signature_of(raw)


def kind_of(rig: Rig, signature: str) -> str:
    return str(rig.rows("SELECT kind FROM ledger.chain_transactions WHERE signature = %s", signature)[0][0])


def lamports_to(rig: Rig, amount: int) -> packing.Instruction:
    """A transfer of SOL to a stranger."""
    data = (2).to_bytes(4, "little") + amount.to_bytes(8, "little")
    accounts = (rig.treasury.payer.gas, Key("a thief").pubkey)
    return packing.Instruction(packing.SYSTEM_PROGRAM, accounts, (True, True), data)


@pytest.mark.parametrize("when", ["before the restore", "read before it is declared", "while it is waited for"])
def test_a_theft_of_lamports_is_no_cost(rig: Rig, when: str) -> None:
    rig.creator(1, 1000)
    snapshot = Snapshot(rig.connection)
    work(rig, 6)
    steal = lambda: sent(rig, lamports_to(rig, 5_000_000_000))  # noqa: E731
    signature = steal() if when != "while it is waited for" else ""
    go_back(rig, snapshot, declared=when != "read before it is declared")
    work(rig, 2)
    adoption.begin(rig.connection, {"by": "test"})
    rig.connection.commit()
    signature = signature or steal()
    work(rig, 14)
    assert kind_of(rig, signature) == "unknown"
    assert UNKNOWN in rig.freezes()
    assert total_paid(rig) == {1: 1000}
    row = {"signature": signature, "from": "platform", "pix": 0, "lamports": 5_000_005_000}
    assert carried_out(rig, placed(rig, orders.WITHDRAWAL, row, key_of(rig.connection, "ana"))).carried_out
    work(rig, 2)
    assert adoption.RESTORED not in rig.freezes()


@pytest.mark.parametrize("version", ["legacy", "v1"])
def test_a_theft_beside_a_payment_or_of_a_rent_is_no_cost(journal: Connection[Any], version: str) -> None:
    rig = Rig(journal, new_chain(), version=version)
    rig.creator(1, 0)
    pay = packing.pay(rig.treasury.payer, rig.address_of(1), 10)
    go_back(rig, Snapshot(rig.connection))
    opened = packing.open_account(rig.treasury.payer, Key("a thief").pubkey)
    signatures = [sent(rig, pay, lamports_to(rig, 5_000_000)), sent(rig, opened)]
    work(rig, 4)
    assert [kind_of(rig, each) for each in signatures] == ["unknown", "unknown"]
    rig.rpc.close()


@pytest.mark.parametrize(
    ("fee", "taken", "error"), [(10**9, 10**9, None), (5000, 10**9, None), (5000, 5001, {"InstructionError": [0, "x"]})]
)
def test_no_transaction_of_the_ledgers_costs_more_than_its_fee_and_rents(
    rig: Rig, fee: int, taken: int, error: object
) -> None:
    blockhash, _ = rig.chain.blockhash_at("confirmed")
    marker = packing.create_marker(rig.treasury.payer, rig.treasury.marker("0" * 32))
    raw = rig.treasury.signed([marker], blockhash, 200_000)
    gas = str(rig.treasury.payer.gas)
    found = attribution.read(rig.treasury, [gas], VersionedTransaction.from_bytes(raw))
    effect = Effect("x", 1, error, fee, {gas: -taken}, {})
    with pytest.raises(Rejected, match="more than"):
        attribution.require_cost(rig.treasury, effect, found)
    least = replace(effect, fee=5000, lamports={gas: -5000 if error else -5000 - rig.treasury.marker_rent})
    attribution.require_cost(rig.treasury, least, found)


def test_what_the_ledger_itself_has_spent_on_openings_and_markers_is_a_cost(rig: Rig) -> None:
    rig.creator(1, 100_000, account=False)
    snapshot = Snapshot(rig.connection)
    rig.settings = replace(EAGER, marker_retention_s=0, reclaim_min=1)
    rig.payouts = rig.fresh()
    work(rig, 10)
    kinds = [kind for (kind,) in rig.rows("SELECT DISTINCT kind FROM ledger.batches ORDER BY 1")]
    assert kinds == ["accounts", "payout", "reclaim"]
    go_back(rig, snapshot)
    work(rig, 14)
    assert_paid_once(rig, {1: 100_000})


def test_a_payment_that_bears_no_id_of_the_ledgers_is_not_adopted(rig: Rig) -> None:
    """Whoever has stolen the treasury's key pays a creator of theirs; the secret of the batches they do not have."""
    rig.creator(1, 1000)
    rig.creator(2, 0)
    work(rig, 6)
    snapshot = Snapshot(rig.connection)
    rig.earn(1, 500)
    work(rig, 6)
    rows = rig.rows("SELECT id FROM ledger.batches ORDER BY planned_at")
    go_back(rig, snapshot)
    pay = packing.pay(rig.treasury.payer, rig.address_of(2), 777)
    forged = packing.marker(rig.treasury.payer, rows[-1][0], "another secret", rig.treasury.marker_rent)
    signatures = [
        sent(rig, pay),
        sent(rig, packing.memo("0" * 32), pay),
        sent(rig, packing.memo(rows[0][0]), pay),  # the id of what was paid
        sent(rig, packing.memo(rows[-1][0]), pay),
        sent(rig, packing.create_marker(rig.treasury.payer, forged), pay),
    ]
    work(rig, 14)
    assert [kind_of(rig, each) for each in signatures] == ["unknown"] * 5
    assert total_paid(rig) == {1: 1500}
    assert UNKNOWN in rig.freezes()


def test_of_an_earlier_release_what_an_open_batch_of_the_backup_was_to_pay_is_owed(rig: Rig, earlier: None) -> None:
    """The chain has paid one of two creators of a wallet, whose money the backup has in a batch that was called back since."""
    for creator in (1, 3):
        rig.creator(creator, 0)
    put_on_one_wallet(rig, 2, 1, 1)
    work(rig, 3)
    for creator, amount in ((2, 1000), (3, 500)):
        rig.earn(creator, amount)
    rig.payouts.plan()
    snapshot = Snapshot(rig.connection)
    stops.hold(rig.connection, 3, "a person looks")
    rig.connection.commit()
    work(rig, 8)
    assert (rig.on_chain(1), rig.on_chain(3)) == (1001, 0)
    go_back(rig, snapshot)
    work(rig, 14)
    assert rig.on_chain(1) == 1001
    assert total_paid(rig) == {2: 1001, 3: 500}
    assert minted(rig) == 0
