"""A wallet is claimed once and changed by its creator, who then waits."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from psycopg import Connection

from cluster.errors import Rejected
from ledger import wallets
from ledger.settings import Economics
from tests.ledger.chains import wallet_of


@pytest.mark.parametrize("wallet", ["", "0OIl", "abc", "1" * 32, wallet_of(1)[:-4], wallet_of(1) * 2])
def test_what_is_no_wallet_is_refused_and_changes_nothing(journal: Connection[Any], wallet: str) -> None:
    for act in (
        lambda: wallets.claim(journal, 1, wallet),
        lambda: wallets.change(journal, Economics(), 1, wallet, "creator"),
    ):
        with pytest.raises(Rejected) as refusal:
            act()
        assert refusal.value.code == "wallet-invalid"
    assert wallets.of(journal, 1) is None


def test_a_manifest_claims_only_where_there_is_none(journal: Connection[Any]) -> None:
    assert wallets.claim(journal, 1, wallet_of(1))
    assert not wallets.claim(journal, 1, wallet_of(1))
    with pytest.raises(Rejected) as refusal:
        wallets.claim(journal, 1, wallet_of(2))
    assert refusal.value.code == "wallet-taken"
    known = wallets.of(journal, 1)
    assert known is not None
    assert (known.wallet, known.set_by, known.hold_until) == (wallet_of(1), "manifest", None)


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
