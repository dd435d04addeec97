"""Holds and freezes: placed by the ledger or by a person, listed, released by name, and never forgotten."""

from __future__ import annotations

import getpass
import json
from typing import Any

import pytest
from psycopg import Connection
from solders.keypair import Keypair

from cluster.errors import Rejected
from cluster.settings import Settings
from ledger import book, earnings, owed, stops, wallets
from ledger.settings import Economics
from tests.cluster.test_cli import assert_refused, pixr

Conn = Connection[Any]


def names(connection: Conn) -> list[str]:
    return [each.name for each in stops.in_force(connection)]


def test_a_stop_is_released_once_and_by_its_name(journal: Conn) -> None:
    stops.hold(journal, 7, "asked")
    stops.freeze(journal, "somebody looks", {"why": "a test"})
    freeze, hold = stops.in_force(journal)
    assert (freeze.creator_id, freeze.reason, freeze.detail) == (None, "somebody looks", '{"why": "a test"}')
    assert (hold.creator_id, hold.reason, hold.until) == (7, "asked", None)
    stops.release(journal, hold.name, "ana")
    assert names(journal) == [freeze.name]
    stops.release(journal, freeze.name, "ana")
    assert (names(journal), stops.frozen(journal)) == ([], None)
    for name in (hold.name, "hold-", "hold-x", "hold-99999999999999999999", "stop-1", ""):
        with pytest.raises(Rejected) as refusal:
            stops.release(journal, name, "ana")
        assert refusal.value.code == "stop-unknown"


def test_a_creator_is_known_who_has_earned_or_has_a_wallet(journal: Conn) -> None:
    with pytest.raises(Rejected) as refusal:
        stops.require_known(journal, 7)
    assert (refusal.value.status, refusal.value.code) == (404, "not-found")
    book.accounts_of(journal, "payable", "creator", [7])
    journal.execute("INSERT INTO ledger.wallets (creator_id, wallet, set_by) VALUES (8, repeat('1', 32), 'creator')")
    for creator in (7, 8):
        stops.require_known(journal, creator)


def test_once_is_once_even_after_a_release(journal: Conn) -> None:
    for _ in range(2):
        stops.hold(journal, 7, "velocity", once=True)
    (only,) = names(journal)
    stops.release(journal, only, "ana")
    stops.hold(journal, 7, "velocity", once=True)
    assert names(journal) == []
    stops.hold(journal, 7, "velocity")
    assert len(names(journal)) == 1


def test_a_hold_that_has_run_out_is_not_in_force(journal: Conn) -> None:
    journal.execute("INSERT INTO ledger.holds (creator_id, reason, until) VALUES (7, 'a while', now())")
    assert names(journal) == []


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE ledger.holds SET reason = 'none'",
        "UPDATE ledger.holds SET released_at = NULL WHERE released_at IS NOT NULL",
        "UPDATE ledger.freezes SET detail = '{}'",
        "DELETE FROM ledger.holds",
        "DELETE FROM ledger.freezes",
        "TRUNCATE ledger.holds",
    ],
)
def test_what_a_stop_said_stays_written(journal: Conn, change: str) -> None:
    stops.hold(journal, 7, "asked")
    stops.hold(journal, 8, "asked")
    stops.freeze(journal, "somebody looks", {"why": "a test"})
    stops.release(journal, names(journal)[1], "ana")
    journal.commit()
    with pytest.raises(Rejected, match=r"keeps what it says|append-only"), book.refusals():
        journal.execute(change)
    journal.rollback()
    assert len(names(journal)) == 2


def test_the_command_line_holds_lists_and_releases(settings: Settings, journal: Conn) -> None:
    environ = {"PIXR_POSTGRES_URL": settings.postgres.url}
    folder = settings.data_dir
    assert "nothing stops payouts" in pixr(folder, "payouts", "stops", **environ).stdout
    assert_refused(pixr(folder, "payouts", "hold", "7", "asked by mail", **environ), "the ledger knows no creator 7")
    book.accounts_of(journal, "maturing", "creator", [7])
    journal.commit()
    assert pixr(folder, "payouts", "hold", "7", "asked by mail", **environ).returncode == 0
    assert pixr(folder, "payouts", "freeze", "keys may be stolen", **environ).returncode == 0
    shown = json.loads(pixr(folder, "payouts", "stops", "--json", **environ).stdout)
    assert [(each["creator_id"], each["reason"]) for each in shown] == [
        (None, f"keys may be stolen (by {getpass.getuser()})"),  # never the ledger's own words
        ("7", "asked by mail"),
    ]
    assert str(stops.frozen(journal)).startswith("keys may be stolen (by ")
    said = pixr(folder, "payouts", "stops", **environ).stdout
    assert all(each["name"] in said for each in shown)
    for each in shown:
        assert pixr(folder, "payouts", "release", each["name"], **environ).returncode == 0
    assert names(journal) == []
    assert pixr(folder, "payouts", "hold", "8", "a forger", "--unknown", **environ).returncode == 0
    assert [each.creator_id for each in stops.in_force(journal)] == [8]
    assert_refused(pixr(folder, "payouts", "release", shown[0]["name"], **environ), "nothing that waits for a person")
    assert_refused(pixr(folder, "payouts", "hold", "0", "nobody", **environ), "0 is not in the range")


def test_a_wallet_that_is_held_is_told_to_its_creator_and_to_who_asks_what_stops_payouts(journal: Conn) -> None:
    economics, key = Economics(), str(Keypair.from_seed(bytes(32)).pubkey())
    wallets.claim(journal, economics, 1, key)
    wallets.change(journal, economics, 2, key, "creator")
    journal.execute("INSERT INTO ledger.wallets (creator_id, wallet, set_by) VALUES (3, %s, 'creator')", (key,))
    other = str(Keypair.from_seed(bytes(31) + b"\1").pubkey())
    wallets.change(journal, economics, 3, other, "creator")
    said = {each.creator_id: each.reason for each in stops.waiting(journal)}
    assert {creator: reason.partition(" UTC: ")[2] for creator, reason in said.items()} == {
        1: "a manifest has named the wallet, and its creator has not confirmed it",
        2: "the wallet is not proven",
        3: "the wallet was changed",
    }
    assert {each.creator_id: each.held for each in earnings.of_many(journal, [1, 2, 3, 4])} == {**said, 4: None}


def test_a_held_creator_is_not_due(journal: Conn) -> None:
    account = book.accounts_of(journal, "payable", "creator", [7])[7]
    journal.execute("INSERT INTO ledger.wallets (creator_id, wallet, set_by) VALUES (7, repeat('1', 32), 'manifest')")
    pool = book.account(journal, "reward_pool")
    book.post(journal, book.Entry("deposit", "d", [(book.account(journal, "chain"), -10), (pool, 10)]))
    book.post(journal, book.Entry("accrual", "a", [(pool, -5), (account, 5)]))
    economics = Economics(payout_min_pix=1)
    assert [each.creator_id for each in owed.due(journal, economics, "mint", 10)] == [7]
    stops.hold(journal, 7, "asked")
    assert owed.due(journal, economics, "mint", 10) == []
