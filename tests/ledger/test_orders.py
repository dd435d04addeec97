"""Orders: an administrator has the ledger do what no rule does, in their own name, once; a second one where two are wanted."""

from __future__ import annotations

import dataclasses
import json
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import Connection
from psycopg.types.json import Jsonb

from cluster import database
from cluster.errors import Rejected
from cluster.roles import LEDGER, SERVE
from cluster.settings import Settings
from ledger import adoption, audit, backup, book, ordering, orders, packing, reconcile, stops, treasury
from serve import keys
from tests.cluster.test_cli import assert_refused, pixr
from tests.cluster.test_roles import as_role
from tests.ledger.chains import EAGER, FINAL_BLOCKS, POOL, SECRET, Rig
from tests.ledger.test_backup import empty_url, start, work

__all__ = ["empty_url"]  # a fixture

Conn = Connection[Any]
LIVES_S = 3600
BY_TWO = dataclasses.replace(EAGER, orders_by_two=True)


def key_of(connection: Conn, name: str, scope: str = "admin", days_old: int = 2) -> str:
    """A key, and its principal, who have been there for some days."""
    number, token = keys.create(connection, name, [scope])
    aged(connection, number, days_old)
    connection.commit()
    return token


def aged(connection: Conn, key_id: int, days: int) -> None:
    made = "created_at = now() - make_interval(days => %s)"
    connection.execute(f"UPDATE app.api_keys SET {made} WHERE id = %s", (days, key_id))
    of_key = "id = (SELECT principal_id FROM app.api_keys WHERE id = %s)"
    connection.execute(f"UPDATE app.principals SET {made} WHERE {of_key}", (days, key_id))


def move(amount: int = 100, taken: str = "reward_pool", given: str = "platform", asset: str = "PIX") -> dict[str, Any]:
    return {"from": taken, "to": given, "amount": amount, "asset": asset}


def placed(rig: Rig, kind: str, body: dict[str, Any], key: str, reason: str = "a test", lives_s: int = LIVES_S) -> int:
    number = orders.place(rig.connection, key, kind, body, reason, lives_s)
    rig.connection.commit()
    return number


def carried_out(rig: Rig, number: int) -> orders.Order:
    """What has become of an order after a round."""
    ordering.carry_out(rig.payouts)
    rig.connection.commit()
    return orders.one(rig.connection, number)


def journal_is_clean(rig: Rig) -> bool:
    checks = audit.run(rig.connection, rig.rpc, str(rig.treasury.payer.gas), full=True)
    return all(check.ok for check in checks if check.name != "freezes")


# ── Who may order ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_order_is_carried_out_once_and_says_who_and_why(rig: Rig) -> None:
    number = placed(rig, orders.CORRECTION, move(), key_of(rig.connection, "ana"), "an agreed bonus")
    found = carried_out(rig, number)
    assert (found.state, found.ordered_as, found.approved_as) == ("carried out", "ana", None)
    assert (rig.balance("platform"), rig.balance("reward_pool")) == (100, POOL - 100)
    (entry,) = rig.rows("SELECT kind, document FROM ledger.entries WHERE id = %s", found.entry_id)
    assert entry[0] == "correction"
    assert json.loads(entry[1]) == {"order": number, "reason": "an agreed bonus", "by": "ana", "approved_by": None}
    assert carried_out(rig, number) == found
    assert rig.balance("platform") == 100
    assert journal_is_clean(rig)


def test_a_correction_that_two_place_at_once_is_booked_once_unless_it_is_said_again(
    rig: Rig, postgres_url: str
) -> None:
    ana, ben = (key_of(rig.connection, name) for name in ("ana", "ben"))

    def place(connection: Conn, key: str, body: dict[str, Any], once_in_s: int = 86_400) -> int:
        return orders.place(connection, key, orders.CORRECTION, body, "why", LIVES_S, once_in_s=once_in_s)

    with database.connect(postgres_url) as other:
        first = place(rig.connection, ana, move())
        with ThreadPoolExecutor(1) as executor:
            second = executor.submit(place, other, ben, move())
            time.sleep(0.3)
            rig.connection.commit()
            with pytest.raises(
                Rejected, match=f"'ana' has placed the same correction as order {first} at .*--again"
            ) as said:
                second.result(10)
            assert said.value.code == "order-again"
    assert carried_out(rig, first).state == "carried out"
    for body in (move(101), move(given="payable:creator:7"), move(given="chain")):
        assert place(rig.connection, ben, body)  # another one
    with pytest.raises(Rejected, match="the same correction"):
        place(rig.connection, ana, move())  # also their own
    again = place(rig.connection, ben, move(), 0)
    rig.connection.commit()
    assert carried_out(rig, again).state == "carried out"
    assert rig.balance("platform") >= 200


def test_a_correction_of_long_ago_or_that_was_refused_is_placed_once_more(rig: Rig) -> None:
    ana = key_of(rig.connection, "ana")
    refused = placed(rig, orders.CORRECTION, move(10**15), ana)
    assert carried_out(rig, refused).state == "refused"
    assert orders.place(rig.connection, ana, orders.CORRECTION, move(10**15), "why", LIVES_S, once_in_s=86_400)
    placed(rig, orders.CORRECTION, move(5), ana)
    time.sleep(1.1)
    assert orders.place(rig.connection, ana, orders.CORRECTION, move(5), "why", LIVES_S, once_in_s=1)


def test_only_an_administrators_key_that_is_in_force_orders(rig: Rig) -> None:
    other = key_of(rig.connection, "program", "search")
    ended = key_of(rig.connection, "gone")
    rig.connection.execute("UPDATE app.api_keys SET revoked_at = now() WHERE hash = %s", (keys.digest(ended),))
    rig.connection.commit()
    for key in (other, ended, "", "pixr_none", keys.digest(other).hex()):
        with pytest.raises(Rejected, match="no key of an administrator"):
            placed(rig, orders.CORRECTION, move(), key)
        rig.connection.rollback()
    assert orders.listing(rig.connection) == []


def test_nobody_makes_the_other_person_in_a_moment(rig: Rig) -> None:
    """Who may make keys has a young second key, or places with one what their own approves; both wait for a day."""
    rig.payouts.settings = BY_TWO
    ana, ben = (key_of(rig.connection, name) for name in ("ana", "ben"))
    _, for_ben = keys.create(rig.connection, "ben", ["admin"])
    _, carol = keys.create(rig.connection, "carol", ["admin"])
    for placing, approving, said in ((ana, for_ben, "a day before"), (carol, ana, "younger than a day")):
        number = placed(rig, orders.CORRECTION, move(), placing)
        with pytest.raises(Rejected, match=said):
            orders.approve(rig.connection, approving, number)
        rig.connection.rollback()
        assert carried_out(rig, number).state == "open"
    rig.payouts.settings = EAGER
    number = placed(rig, orders.CORRECTION, move(), carol)  # where one person decides, it is anyone's
    assert carried_out(rig, number).state == "carried out"
    assert ben


def test_serves_role_dates_no_key_back_and_takes_nobodys(rig: Rig, postgres_url: str) -> None:
    ben, _, gone = (key_of(rig.connection, name) for name in ("ben", "ana", "gone"))
    ended = "UPDATE app.api_keys SET revoked_at = now(), expires_at = now() WHERE hash = %s"
    rig.connection.execute(ended, (keys.digest(gone),))
    rig.connection.commit()
    with database.connect(as_role(postgres_url, SERVE)) as serve:
        serve.execute("INSERT INTO app.principals (name, created_at) VALUES ('carol', now() - interval '9 days')")
        serve.execute(
            "INSERT INTO app.api_keys (principal_id, hash, scopes, created_at) SELECT id, sha256('carol'), '{admin}',"
            " now() - interval '9 days' FROM app.principals WHERE name = 'carol'"
        )
        serve.execute(  # one more for an administrator of long ago
            "INSERT INTO app.api_keys (principal_id, hash, scopes) SELECT id, sha256('ana'), '{admin}'"
            " FROM app.principals WHERE name = 'ana'"
        )
        for change in (
            "UPDATE app.principals SET created_at = now() - interval '9 days'",
            "UPDATE app.principals SET name = 'other' WHERE name = 'carol'",
            "UPDATE app.api_keys SET created_at = now() - interval '9 days'",
            "UPDATE app.api_keys SET hash = sha256('mine')",
            "UPDATE app.api_keys SET scopes = '{admin,search}'",
            "UPDATE app.api_keys SET revoked_at = NULL",
            "UPDATE app.api_keys SET expires_at = expires_at + interval '1 h'",
            "UPDATE app.api_keys SET expires_at = NULL",
            "DELETE FROM app.api_keys",
            "DELETE FROM app.principals",
        ):
            with pytest.raises(psycopg.Error, match=r"make another one|permission denied"), serve.transaction():
                serve.execute(change)
        serve.commit()
    number = placed(rig, orders.CORRECTION, move(), ben)
    for key in ("carol", "ana"):
        with pytest.raises(Rejected, match="a day before it was placed"):
            orders.approve(rig.connection, key, number)
        rig.connection.rollback()


def test_where_two_are_wanted_another_administrator_approves(rig: Rig) -> None:
    rig.payouts.settings = BY_TWO
    ana, ben, new = (key_of(rig.connection, name, days_old=days) for name, days in (("ana", 2), ("ben", 2), ("new", 0)))
    number = placed(rig, orders.CORRECTION, move(), ana)
    assert carried_out(rig, number).state == "open"
    for key, said in ((ana, "your own"), (new, "a day before"), ("none", "no key of an administrator")):
        with pytest.raises(Rejected, match=said):
            orders.approve(rig.connection, key, number)
        rig.connection.rollback()
    assert carried_out(rig, number).state == "open"
    orders.approve(rig.connection, ben, number)
    rig.connection.commit()
    found = carried_out(rig, number)
    assert (found.state, found.ordered_as, found.approved_as) == ("carried out", "ana", "ben")
    assert rig.balance("platform") == 100
    with pytest.raises(Rejected, match="is done"):
        orders.approve(rig.connection, ben, number)


def test_the_same_persons_other_key_does_not_approve(rig: Rig) -> None:
    rig.payouts.settings = BY_TWO
    first = key_of(rig.connection, "ana")
    number = placed(rig, orders.CORRECTION, move(), first)
    _, second = keys.create(rig.connection, "ana", ["admin"])
    with pytest.raises(Rejected, match="your own"):
        orders.approve(rig.connection, second, number)


@pytest.mark.parametrize("is_approved", [True, False])
def test_an_order_that_has_expired_is_never_carried_out(rig: Rig, is_approved: bool) -> None:
    rig.payouts.settings = BY_TWO
    number = placed(rig, orders.CORRECTION, move(), key_of(rig.connection, "ana"))
    ben = key_of(rig.connection, "ben")
    if is_approved:
        orders.approve(rig.connection, ben, number)
    rig.connection.execute("ALTER TABLE ledger.orders DISABLE TRIGGER guarded")
    back = "UPDATE ledger.orders SET expires_at = clock_timestamp(), ordered_at = ordered_at - interval '1 hour'"
    rig.connection.execute(back + (", approved_at = approved_at - interval '1 hour'" if is_approved else ""))
    rig.connection.execute("ALTER TABLE ledger.orders ENABLE TRIGGER guarded")
    rig.connection.commit()
    found = carried_out(rig, number)
    assert (found.state, found.done_at, rig.balance("platform")) == ("expired", None, 0)
    if not is_approved:
        with pytest.raises(Rejected, match="has expired"):
            orders.approve(rig.connection, ben, number)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE ledger.orders SET body = '{}'",
        "UPDATE ledger.orders SET reason = 'none'",
        "UPDATE ledger.orders SET ordered_by = 99",
        "UPDATE ledger.orders SET expires_at = now() + interval '9 days'",
        "UPDATE ledger.orders SET approved_by = ordered_by",
        "UPDATE ledger.orders SET outcome = 'another' WHERE done_at IS NOT NULL",
        "DELETE FROM ledger.orders",
        "TRUNCATE ledger.orders",
    ],
)
def test_what_an_order_said_stays_written(rig: Rig, change: str) -> None:
    ana = key_of(rig.connection, "ana")
    for amount in (1, 2):
        carried_out(rig, placed(rig, orders.CORRECTION, move(amount), ana))
    with pytest.raises((Rejected, psycopg.errors.CheckViolation)), book.refusals():
        rig.connection.execute(change)


def test_only_who_holds_the_epoch_says_that_an_order_is_done(rig: Rig, postgres_url: str) -> None:
    number = placed(rig, orders.CORRECTION, move(), key_of(rig.connection, "ana"))
    with database.connect(as_role(postgres_url, LEDGER)) as other, pytest.raises(book.Fenced):
        orders.done(other, number, True, "made up", None)


def test_the_ledgers_role_places_and_carries_out(rig: Rig, postgres_url: str) -> None:
    ana = key_of(rig.connection, "ana")
    with database.connect(as_role(postgres_url, LEDGER)) as own:
        number = orders.place(own, ana, orders.CORRECTION, move(), "a test", LIVES_S)
        own.commit()
        book.take_epoch(own, "own")
        rig.connection, rig.payouts.connection = own, own
        assert carried_out(rig, number).state == "carried out"


# ── Corrections ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_correction_reaches_a_creator_and_the_platforms_lamports(rig: Rig) -> None:
    ana = key_of(rig.connection, "ana")
    rig.creator(5, 1000)
    assert (
        carried_out(rig, placed(rig, orders.CORRECTION, move(7, given="payable:creator:5"), ana)).state == "carried out"
    )
    assert rig.balance("payable", 5) == 1007
    chain = move(3, "chain", "platform", "SOL")  # what is on chain without a transaction: the person's word
    assert carried_out(rig, placed(rig, orders.CORRECTION, chain, ana)).state == "carried out"
    assert rig.balance("chain", asset="SOL") == -(10**11) - 3


@pytest.mark.parametrize(
    "body",
    [
        move(POOL + 1),
        move(taken="in_flight"),
        move(given="maturing:creator:1"),
        move(given="payable"),
        move(given="payable:creator:x"),
        move(given="payable:creator:999"),  # nobody yet
        move(given="payable:creator:\u0665"),
        move(given="payable:creator:01"),
        move(given="payable:nobody:1"),
        move(given="platform:creator:1"),
        move(given="reward_pool"),
        move(given="payable:creator:1", asset="SOL"),
        move(amount=-1),
        move(amount=0),
        {**move(), "amount": "100"},
        {**move(), "amount": 1.5},
        {},
        {"from": None, "to": [], "amount": 1, "asset": "EUR"},
    ],
)
def test_a_correction_that_the_journal_does_not_allow_is_refused_with_the_reason(
    rig: Rig, body: dict[str, Any]
) -> None:
    found = carried_out(rig, placed(rig, orders.CORRECTION, body, key_of(rig.connection, "ana")))
    assert (found.state, found.entry_id) == ("refused", None)
    assert found.outcome
    assert rig.rows("SELECT count(*) FROM ledger.entries WHERE kind = 'correction'") == [(0,)]


# ── Withdrawals ────────────────────────────────────────────────────────────────────────────────────────────────────


def withdrawn(rig: Rig, pix: int) -> str:
    """The operator takes PIX out of the treasury by a transaction of their own; its signature, once it was read."""
    rig.put_account(99)
    blockhash, _ = rig.chain.blockhash_at("confirmed")
    instructions = [packing.pay(rig.treasury.payer, rig.address_of(99), pix)]
    raw = rig.treasury.signed(instructions, blockhash, 200_000)
    rig.rpc.send([raw])
    rig.advance(FINAL_BLOCKS)
    reconciled(rig)
    return packing.signature_of(raw)


def reconciled(rig: Rig) -> reconcile.Finding:
    adopt = partial(adoption.adopt, rig.payouts)
    return reconcile.reconcile(rig.connection, rig.rpc, rig.treasury, adopt, rig.payouts.opinions)


def row_of(rig: Rig, signature: str) -> dict[str, Any]:
    """What the command line reads of a transaction, to order that it is booked."""
    ((pix, lamports),) = rig.rows(
        "SELECT -delta_pix, -delta_lamports FROM ledger.chain_transactions WHERE signature = %s", signature
    )
    return {"signature": signature, "from": "reward_pool", "pix": pix, "lamports": lamports}


def test_a_withdrawal_is_booked_as_the_chain_shows_it_and_journal_and_chain_agree_again(rig: Rig) -> None:
    signature = withdrawn(rig, 5000)
    assert rig.freezes() == [reconcile.UNKNOWN, reconcile.MISMATCH]
    ana, body = key_of(rig.connection, "ana"), row_of(rig, signature)
    assert body["pix"] == 5000
    found = carried_out(rig, placed(rig, orders.WITHDRAWAL, body, ana, "moved to the cold wallet"))
    assert found.state == "carried out", found.outcome
    assert rig.balance("reward_pool") == POOL - 5000
    assert rig.rows("SELECT kind, entry_id FROM ledger.chain_transactions WHERE signature = %s", signature) == [
        ("withdrawal", found.entry_id)
    ]
    assert reconciled(rig).ok
    assert journal_is_clean(rig)
    for each in stops.in_force(rig.connection):
        stops.release(rig.connection, each.name, "ana")
    rig.creator(1, 1000)
    rig.pay(4)
    assert rig.on_chain(1) == 1000
    again = carried_out(rig, placed(rig, orders.WITHDRAWAL, body, ana))
    assert again.state == "refused"


def test_a_withdrawal_of_other_amounts_or_of_what_nobody_has_seen_is_refused(rig: Rig) -> None:
    body = row_of(rig, withdrawn(rig, 5000))
    ana = key_of(rig.connection, "ana")
    for wrong in ({"pix": 4999}, {"lamports": 0}, {"signature": "1" * 88}, {"from": "payable"}):
        found = carried_out(rig, placed(rig, orders.WITHDRAWAL, {**body, **wrong}, ana))
        assert (found.state, found.entry_id) == ("refused", None), wrong
    assert rig.balance("reward_pool") == POOL


@pytest.mark.parametrize("kind", [orders.ADOPT, orders.WITHDRAWAL, orders.CORRECTION])
def test_a_body_that_does_not_say_what_is_needed_is_refused_and_ends_nothing(rig: Rig, kind: str) -> None:
    ana = key_of(rig.connection, "ana")
    for body in ({}, {"since_slot": "soon", "signature": 7, "from": 7}, {"since": "soon"}):
        assert carried_out(rig, placed(rig, kind, body, ana)).state == "refused"


def test_a_deposit_or_a_payout_is_no_withdrawal(rig: Rig) -> None:
    rig.creator(1, 1000)
    rig.pay(3)
    reconciled(rig)
    ((signature,),) = rig.rows("SELECT signature FROM ledger.attempts WHERE state = 'landed'")
    body = {"signature": signature, "from": "platform", "pix": 1000, "lamports": 5000}
    found = carried_out(rig, placed(rig, orders.WITHDRAWAL, body, key_of(rig.connection, "ana")))
    assert found.state == "refused"
    with pytest.raises(Rejected), book.refusals():
        rig.connection.execute("UPDATE ledger.chain_transactions SET kind = 'withdrawal'")


# ── Adopt since ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("since", [{"since_slot": 0}, {"since": "2000-01-01T00:00:00Z"}])
def test_what_was_paid_before_a_restore_that_nobody_declared_is_adopted_since_a_slot_or_a_time(
    rig: Rig,
    postgres_url: str,
    empty_url: str,
    tmp_path: Path,
    since: dict[str, Any],
) -> None:
    rig.creator(1, 1000)
    rig.creator(2, 700)
    ana = key_of(rig.connection, "ana")
    backup.dump(postgres_url, tmp_path / "pixr.dump")
    work(rig)
    rig.connection.close()
    backup.restore(empty_url, tmp_path / "pixr.dump")
    start(rig, empty_url)
    stops.thaw(rig.connection, adoption.RESTORED)  # as after a restore by the database's own means
    rig.connection.commit()
    work(rig)
    assert reconcile.UNKNOWN in rig.freezes()
    assert rig.rows("SELECT count(*) FROM ledger.chain_transactions WHERE kind = 'unknown'") == [(1,)]
    late = placed(rig, orders.ADOPT, {"since_slot": 10**9}, ana)
    assert carried_out(rig, late).outcome == "0 transactions since slot 1000000000 are adopted"
    later = carried_out(rig, placed(rig, orders.ADOPT, {"since": "2999-01-01T00:00:00Z"}, ana))
    assert later.outcome == "0 transactions since 2999-01-01T00:00:00Z are adopted"
    found = carried_out(rig, placed(rig, orders.ADOPT, since, ana))
    assert (found.state, str(found.outcome)[:15]) == ("carried out", "1 transactions ")
    assert rig.rows("SELECT creator_id, on_chain_pix FROM ledger.payouts ORDER BY 1") == [(1, 1000), (2, 700)]
    work(rig)
    for each in stops.in_force(rig.connection):
        stops.release(rig.connection, each.name, "ana")
    work(rig)
    assert [rig.on_chain(creator) for creator in (1, 2)] == [1000, 700]
    assert reconciled(rig).ok
    assert journal_is_clean(rig)


def test_what_is_no_payout_of_ours_is_not_adopted_by_an_order(rig: Rig) -> None:
    signature = withdrawn(rig, 5000)
    found = carried_out(rig, placed(rig, orders.ADOPT, {"since_slot": 0}, key_of(rig.connection, "ana")))
    said = f"0 transactions since slot 0 are adopted, and 1 not, as {signature}: the creator who was paid at wallet"
    assert (found.outcome or "").startswith(said)
    assert row_of(rig, signature)["pix"] == 5000


# ── A new secret ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_new_secret_is_taken_when_nothing_that_was_signed_can_land_any_more(rig: Rig) -> None:
    rig.creator(1, 1000)
    rig.pay(3)
    connection, payer = rig.connection, rig.treasury.payer
    with pytest.raises(Rejected, match="another secret"):
        treasury.bind(connection, "genesis", payer, "new")
    ana = key_of(connection, "ana")
    assert not ordering.take_new_secret(connection, "new", by_two=False)
    first = placed(rig, orders.SECRET, {}, ana)
    assert not ordering.take_new_secret(connection, "new", by_two=True)  # it waits for a second person
    assert ordering.take_new_secret(connection, "new", by_two=False)
    assert orders.one(connection, first).state == "carried out"
    treasury.bind(connection, "genesis", payer, "new")
    with pytest.raises(Rejected, match="another secret"):
        treasury.bind(connection, "genesis", payer, SECRET)
    rig.treasury = dataclasses.replace(rig.treasury, secret="new")
    rig.payouts = rig.fresh()
    rig.earn(1, 500)
    rig.pay(4)
    assert rig.on_chain(1) == 1500
    assert journal_is_clean(rig)


def test_a_new_secret_is_refused_while_something_that_was_signed_may_land(rig: Rig) -> None:
    rig.creator(1, 1000)
    rig.payouts.plan()
    rig.payouts.sign()
    number = placed(rig, orders.SECRET, {}, key_of(rig.connection, "ana"))
    assert not ordering.take_new_secret(rig.connection, "new", by_two=False)
    found = orders.one(rig.connection, number)
    assert found.state == "refused"
    assert "1 transactions" in str(found.outcome)
    treasury.bind(rig.connection, "genesis", rig.treasury.payer, SECRET)


def test_the_rent_of_markers_of_the_lost_secret_is_let_be(rig: Rig) -> None:
    rig.creator(1, 1000)
    rig.pay(2)
    treasury.take_mark(rig.connection, "new")
    rig.treasury = dataclasses.replace(rig.treasury, secret="new")
    rig.settings = dataclasses.replace(EAGER, marker_retention_s=0, reclaim_min=1)
    rig.payouts = rig.fresh()
    rig.pay(4)
    assert rig.rows("SELECT count(*) FROM ledger.batches WHERE kind = 'reclaim'") == [(0,)]


def test_an_order_for_a_secret_that_is_there_is_refused(rig: Rig) -> None:
    assert carried_out(rig, placed(rig, orders.SECRET, {}, key_of(rig.connection, "ana"))).state == "refused"


# ── The command line ───────────────────────────────────────────────────────────────────────────────────────────────


def test_the_command_line_places_lists_and_approves(settings: Settings, journal: Conn, tmp_path: Path) -> None:
    urls = {"PIXR_POSTGRES_URL": settings.postgres.url, "PIXR_LEDGER_ORDERS_BY_TWO": "true"}
    ana, ben = tmp_path / "ana", tmp_path / "ben"
    ana.write_text(key_of(journal, "ana") + "\n")
    ben.write_text(key_of(journal, "ben"))
    order = ("payouts", "order")
    correction = ("correction", "--from", "reward_pool", "--to", "platform", "--amount", "5", "--reason", "a test")
    run = partial(pixr, settings.data_dir, *order, **urls)
    assert "no orders yet" in run("list").stdout
    assert_refused(run(*correction), "holds no key")
    assert "order 1 waits for another administrator" in run(*correction, "--key-file", str(ana)).stdout
    assert_refused(run(*correction, "--key-file", str(ben)), "'ana' has placed the same correction as order 1")
    assert_refused(
        run("withdrawal", "x", "--from", "platform", "--reason", "r", "--key-file", str(ana)), "has not read"
    )
    assert_refused(run("adopt", "--reason", "r", "--key-file", str(ana)), "say --since-slot or --since")
    assert_refused(run("approve", "1", "--key-file", str(ana)), "your own")
    assert_refused(run("approve", "1", "--key-file", str(ben), "--timeout", "0.1"), "has not answered order 1")
    (shown,) = json.loads(run("list", "--json").stdout)
    assert (shown["id"], shown["state"], shown["by"], shown["approved_by"]) == ("1", "approved", "ana", "ben")
    orders.done(journal, 1, False, "there is not so much", None)
    journal.commit()
    (shown,) = json.loads(run("list", "--json").stdout)
    assert (shown["state"], shown["outcome"]) == ("refused", "there is not so much")
    assert "correction" in run("list").stdout
    assert "order 2 waits" in run(*correction, "--key-file", str(ben)).stdout  # the first one was refused
    assert "order 3 waits" in run(*correction, "--key-file", str(ana), "--again").stdout


def test_bodies_are_objects(journal: Conn) -> None:
    with pytest.raises(psycopg.errors.CheckViolation):
        journal.execute(
            "SELECT ledger.place_order(%s, 'correction', %s, 'r', 60)", (key_of(journal, "ana"), Jsonb([1]))
        )
