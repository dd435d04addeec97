"""A wallet is claimed once and changed by its creator, who then waits."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from psycopg import Connection

from cluster.errors import Rejected
from ledger import wallets
from ledger.settings import HOLD_H_MAX, Economics
from tests.ledger.chains import wallet_of


@pytest.mark.parametrize("wallet", ["", "0OIl", "abc", "1" * 32, wallet_of(1)[:-4], wallet_of(1) * 2])
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


def test_a_change_holds_payouts_a_first_wallet_does_not(journal: Connection[Any]) -> None:
    first = wallets.change(journal, Economics(), 1, wallet_of(1), "creator")
    assert first.hold_until is None
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
