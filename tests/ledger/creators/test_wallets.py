"""A wallet is claimed once and changed by its creator, who then waits."""

from __future__ import annotations

import dataclasses
from typing import Any

import psycopg
import pytest
from psycopg import Connection

from cluster.errors import Rejected
from ledger.creators import wallets
from ledger.payouts import batches
from ledger.risk import stops
from ledger.settings import HOLD_H_MAX, Economics
from ledger.solana import packing, treasury
from ledger.solana.chain import Chain
from tests.ledger.chains import FINAL_BLOCKS, SECRET, Key, LocalNode, Rig, assert_paid, new_chain, wallet_of

OFF_CURVE = str(packing.token_account(Key("creator 1").pubkey, Key("mint").pubkey))
PROGRAMS = [
    *(str(each) for each in (packing.TOKEN_PROGRAM, packing.ATA_PROGRAM, packing.MEMO_PROGRAM, packing.COMPUTE_BUDGET)),
    "SysvarRent111111111111111111111111111111111",
    "SysvarC1ock11111111111111111111111111111111",
    "Vote111111111111111111111111111111111111111",
    "So11111111111111111111111111111111111111112",
]
NO_WALLETS = ["", "0OIl", "abc", "1" * 32, wallet_of(1)[:-4], wallet_of(1) * 2, OFF_CURVE, *PROGRAMS]
OURS = ["treasury", "gas", "mint", "the treasury's account", "the account of gas", "a creator's account", "a marker"]


@pytest.mark.parametrize("wallet", NO_WALLETS)
def test_what_is_no_wallet_is_refused_and_changes_nothing(journal: Connection[Any], wallet: str) -> None:
    for act in (
        lambda: wallets.claim(journal, Economics(), 1, wallet),
        lambda: wallets.change(journal, Economics(), 1, wallet, "creator"),
    ):
        with pytest.raises(Rejected) as refusal:
            act()
        assert refusal.value.code == "wallet-invalid"
    assert wallets.of(journal, 1) is None


def test_a_manifest_claims_only_where_there_is_none(journal: Connection[Any]) -> None:
    assert wallets.claim(journal, Economics(), 1, wallet_of(1))
    assert not wallets.claim(journal, Economics(), 1, wallet_of(1))
    with pytest.raises(Rejected) as refusal:
        wallets.claim(journal, Economics(), 1, wallet_of(2))
    assert refusal.value.code == "wallet-taken"
    known = wallets.of(journal, 1)
    assert known is not None
    assert (known.wallet, known.set_by) == (wallet_of(1), "manifest")


def test_a_change_holds_payouts_and_so_does_a_first_wallet_without_a_proof(journal: Connection[Any]) -> None:
    first = wallets.change(journal, Economics(), 1, wallet_of(1), "creator")
    assert (first.hold_until is not None, first.proven) == (True, False)
    same = wallets.change(journal, Economics(), 1, wallet_of(1), "creator")
    assert same == first
    second = wallets.change(journal, Economics(), 1, wallet_of(2), "admin")
    assert second.hold_until is not None
    rows = journal.execute("SELECT old_wallet, new_wallet, set_by FROM ledger.wallet_changes ORDER BY id").fetchall()
    assert rows == [(None, wallet_of(1), "creator"), (wallet_of(1), wallet_of(2), "admin")]
    with pytest.raises(psycopg.DatabaseError, match="append-only"):
        journal.execute("DELETE FROM ledger.wallet_changes")


def hold_h(connection: Connection[Any], creator_id: int) -> float | None:
    row = connection.execute(
        "SELECT extract(epoch FROM hold_until - now())::float8 / 3600 FROM ledger.wallets WHERE creator_id = %s",
        (creator_id,),
    ).fetchone()
    assert row is not None
    hours: float | None = row[0]
    return hours


def test_what_a_manifest_names_waits_until_the_creator_confirms_it(journal: Connection[Any]) -> None:
    for creator in (1, 2):
        wallets.claim(journal, Economics(manifest_wallet_hold_h=48), creator, wallet_of(creator))
        assert hold_h(journal, creator) == 48
    assert wallets.change(journal, Economics(), 1, wallet_of(1), "creator").hold_until is None
    assert hold_h(journal, 1) is None
    wallets.change(journal, Economics(), 2, wallet_of(1), "creator")  # another one is a change
    assert hold_h(journal, 2) == 72
    wallets.change(journal, Economics(), 2, wallet_of(1), "creator")  # which nothing shortens
    assert hold_h(journal, 2) == 72
    wallets.claim(journal, Economics(manifest_wallet_hold_h=0), 3, wallet_of(3))
    assert hold_h(journal, 3) is None


def test_a_hold_is_not_for_ever() -> None:
    with pytest.raises(ValueError, match="manifest_wallet_hold_h"):
        Economics(manifest_wallet_hold_h=HOLD_H_MAX + 1)


def own(rig: Rig, which: str) -> str:
    """An address of the platform's, or of what it has made on chain."""
    payer = rig.treasury.payer
    if which == "a marker":
        (batch,) = rig.rows("SELECT id FROM ledger.batches WHERE kind = 'payout'")
        return str(rig.treasury.marker(batch[0]).address)
    return str({
        "treasury": payer.treasury,
        "gas": payer.gas,
        "mint": payer.mint,
        "the treasury's account": payer.token_account,
        "the account of gas": packing.token_account(payer.gas, payer.mint),
        "a creator's account": rig.address_of(1),
    }[which])  # fmt: skip


@pytest.mark.parametrize("which", OURS)
def test_what_is_the_platforms_own_is_refused(journal: Connection[Any], which: str) -> None:
    rig = Rig(journal, new_chain(), separate_gas=True)
    rig.creator(1, 1000)
    rig.pay(3)
    for act in (
        lambda: wallets.claim(journal, Economics(), 2, own(rig, which)),
        lambda: wallets.change(journal, Economics(), 2, own(rig, which), "creator"),
        lambda: wallets.change(journal, Economics(), 1, own(rig, which), "creator"),
    ):
        with pytest.raises(Rejected) as refusal:
            act()
        assert refusal.value.code == "wallet-invalid"
    assert [(each.creator_id, each.wallet) for n in (1, 2) if (each := wallets.of(journal, n))] == [(1, wallet_of(1))]
    assert_paid(rig, {1: 1000})


def test_an_address_that_was_ours_stays_ours(journal: Connection[Any]) -> None:
    rig = Rig(journal, new_chain(), separate_gas=True)
    before = str(rig.treasury.payer.gas)
    newer = dataclasses.replace(rig.treasury.payer, gas=Key("newer gas").pubkey)
    treasury.bind(journal, "genesis", newer, SECRET)
    assert set(wallets.unpayable(journal, [before, str(newer.gas), wallet_of(1)])) == {before, str(newer.gas)}


@pytest.mark.parametrize("which", ["treasury", "mint", "the treasury's account", "a creator's account"])
@pytest.mark.parametrize("known", [True, False])
def test_a_wallet_that_was_let_in_before_is_held_and_stops_nobody_else(rig: Rig, which: str, known: bool) -> None:
    for creator in (1, 2, 3):
        rig.creator(creator, 1000, account=creator != 2)
    bad = own(rig, which)
    rig.connection.execute("UPDATE ledger.wallets SET wallet = %s WHERE creator_id = 2", (bad,))
    if known:  # a release that did not ask has opened or found its token account
        address = rig.treasury.token_account_of(bad)
        batches.know_account(rig.connection, rig.treasury.mint, batches.BatchLine(2, bad, address), None)
    rig.connection.commit()
    rig.pay(4)
    assert list(rig.holds()) == [2]
    assert rig.holds()[2].startswith(wallets.UNPAYABLE)
    assert bad in rig.holds()[2]
    assert (rig.freezes(), rig.balance("payable", 2)) == ([], 1000)
    assert_paid(rig, {1: 1000, 3: 1000})
    rig.put_account(2)
    wallets.change(rig.connection, Economics(wallet_hold_s=0), 2, wallet_of(2), "creator")
    rig.connection.commit()
    rig.pay(4)
    assert rig.holds() == {}
    assert_paid(rig, {1: 1000, 2: 1000, 3: 1000})


def test_a_wallet_that_a_program_owns_on_chain_is_held_by_the_word_of_every_node(rig: Rig) -> None:
    from solders.account import Account

    for creator in (1, 2):
        rig.creator(creator, 1000, account=False)
    owned = Account(10**9, bytes(10), packing.MEMO_PROGRAM)
    rig.chain.svm.set_account(Key("creator 2").pubkey, owned)
    rig.advance(FINAL_BLOCKS)
    rig.pay(5)
    assert (list(rig.holds()), rig.freezes()) == ([2], [])
    assert str(packing.MEMO_PROGRAM) in rig.holds()[2]
    assert_paid(rig, {1: 1000})


def test_the_word_of_one_node_holds_nobodys_wallet(rig: Rig) -> None:
    class Liar(LocalNode):
        async def call(self, method: str, params: list[Any]) -> Any:
            told = await super().call(method, params)
            if method == "getMultipleAccounts" and params[0] == [wallet_of(1)]:
                told["value"] = [{"lamports": 1, "owner": str(packing.MEMO_PROGRAM), "data": ["", "base64"]}]
            return told

    rig.creator(1, 1000, account=False)
    whole, rig.payouts.chain = rig.payouts.chain, Chain([Liar("a", rig.chain), LocalNode("b", rig.chain)])
    rig.pay(5)
    rig.payouts.chain.close()
    rig.payouts.chain = whole
    assert rig.holds() == {}
    assert_paid(rig, {1: 1000})


def test_a_hold_that_another_reason_has_stays_when_the_wallet_changes(rig: Rig) -> None:
    rig.creator(1, 1000)
    stops.hold(rig.connection, 1, "somebody looks")
    wallets.change(rig.connection, Economics(wallet_hold_s=0), 1, wallet_of(2), "creator")
    rig.connection.commit()
    rig.pay(2)
    assert list(rig.holds().values()) == ["somebody looks"]
