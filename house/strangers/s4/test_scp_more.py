"""Sceptic: what else waits for whom."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import pytest
from psycopg import Connection
from solders.account import Account

from cluster import database
from cluster.errors import Temporary
from ledger import chain, packing, stops
from ledger.reconcile import reconcile
from ledger.screening import Recipient
from tests.ledger.chains import EAGER, FINAL_BLOCKS, Rig, new_chain
from tests.ledger.test_two_walls import Node, pair as pair


def test_strangers_who_were_many_once_keep_the_chain_from_being_read_for_a_while_only(
    pair: tuple[Rig, list[Node]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, most in (("SIGNATURES_MAX", 20), ("HISTORY_SHORT", 40), ("HISTORY_MAX", 100)):
        monkeypatch.setattr(chain, name, most)
    rig, _ = pair
    assert reconcile(rig.connection, rig.rpc, rig.treasury).ok
    for _ in range(4):
        for _ in range(30):
            rig.chain.enqueue(rig.chain.airdrop(rig.treasury.payer.gas, 1))
        rig.advance(1)
    rig.advance(FINAL_BLOCKS + 1)
    for _ in range(5):
        try:
            found = reconcile(rig.connection, rig.rpc, rig.treasury)
        except Temporary as error:
            rig.connection.rollback()
            said = error
            continue
        if found.conclusive:
            break
    else:
        pytest.fail(f"never: {said}")


def test_screening_is_asked_while_the_journal_is_open_to_others(rig: Rig, postgres_url: str) -> None:
    locked = []
    with database.connect(postgres_url) as other:

        def screen(recipients: Sequence[Recipient]) -> dict[int, str]:
            found = other.execute("SELECT FROM ledger.chain_head FOR UPDATE SKIP LOCKED").fetchone()
            other.commit()
            locked.append(found is None)
            return {}

        for creator in (1, 2, 3):
            rig.creator(creator, 1000)
        rig.payouts.screening = screen
        rig.payouts.plan()
        stops.hold(rig.connection, 1, "somebody looks")
        rig.connection.commit()
        rig.pay(4)
    assert (rig.on_chain(2), rig.on_chain(3)) == (1000, 1000)
    assert not any(locked), locked


def test_accounts_that_cannot_be_afforded_keep_no_payout_waiting(journal: Connection[Any]) -> None:
    rig = Rig(journal, new_chain(), settings=dataclasses.replace(EAGER, batches_live_max=4))
    for creator in range(1, 61):
        rig.creator(creator, 1000, account=False)
    rig.chain.svm.set_account(rig.treasury.payer.gas, Account(5_000_000, b"", packing.SYSTEM_PROGRAM))
    rig.advance(FINAL_BLOCKS)
    rig.pay(2)
    rig.creator(99, 1000)  # who has an account: a payout costs a million lamports
    rig.pay(6)
    assert rig.on_chain(99) == 1000
