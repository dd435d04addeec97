"""Sceptic: a restore after which one creator could have been paid at two accounts of one transaction."""

from __future__ import annotations

import pytest

from ledger import batches
from ledger.batches import Recipient
from tests.ledger.chains import Rig, wallet_of
from tests.ledger.snapshots import Snapshot
from tests.ledger.test_restored import assert_paid_once, go_back, total_paid, work


def rename(rig: Rig, creator: int, other: int) -> None:
    rig.connection.execute("UPDATE ledger.wallets SET wallet = %s, hold_until = NULL WHERE creator_id = %s", (wallet_of(other), creator))
    rig.connection.execute("UPDATE ledger.wallets SET hold_until = NULL WHERE creator_id = %s", (creator,))
    rig.connection.commit()


@pytest.mark.parametrize("known", [600, 999])
def test_who_was_paid_at_an_old_wallet_of_another_ones_does_not_end_the_ledger(rig: Rig, known: int) -> None:
    """The first has gone from wallet 1 to wallet 3, and the second is paid at wallet 1 now."""
    for creator in (1, 2, 3):
        rig.creator(creator, 0)
    rename(rig, 1, 3)
    rename(rig, 2, 1)
    rig.connection.execute("DELETE FROM ledger.woken")
    rig.connection.commit()
    work(rig, 2)
    rig.earn(1, 1000)
    rig.earn(2, known)
    snapshot = Snapshot(rig.connection)
    rig.earn(2, 1000 - known)
    work(rig, 5)
    assert (rig.on_chain(1), rig.on_chain(3)) == (1000, 1000)
    assert total_paid(rig) == {1: 1000, 2: 1000}
    go_back(rig, snapshot)
    work(rig, 14)
    assert total_paid(rig) == {1: 1000, 2: 1000}
    assert rig.freezes() == []


def test_and_not_where_the_first_has_earned_more_since(rig: Rig) -> None:
    for creator in (1, 2, 3):
        rig.creator(creator, 0)
    rename(rig, 1, 3)
    rename(rig, 2, 1)
    work(rig, 2)
    rig.earn(1, 1000)
    rig.earn(2, 600)
    snapshot = Snapshot(rig.connection)
    rig.earn(2, 400)
    work(rig, 5)
    go_back(rig, snapshot)
    rig.earn(1, 5000)
    work(rig, 14)
    assert total_paid(rig) == {1: 6000, 2: 1000}
