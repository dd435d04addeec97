"""Dump, pay, restore, start: payments since the dump are adopted from the chain, and no creator is paid twice."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from cluster import runtime
from cluster.database import database
from cluster.errors import Rejected
from cluster.settings import Settings
from ledger import backup
from ledger.audit import audit
from ledger.journal import book
from ledger.payouts import adoption
from ledger.payouts.reconcile import UNKNOWN, Finding, reconcile
from ledger.risk import stops
from tests.cluster.privileges import assert_as_stated
from tests.conftest import supervised, throwaway_settings
from tests.ledger.chains import EXPIRED_BLOCKS, FINAL_BLOCKS, Rig, Steps


@pytest.fixture
def empty_url(ground: Settings, postgres_url: str) -> Iterator[str]:
    name = postgres_url.rsplit("/", 1)[1] + "_again"
    with database.connect(runtime.postgres_url(ground, "postgres"), autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        yield runtime.postgres_url(ground, name)
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def start(rig: Rig, url: str) -> Steps:
    """Start the ledger's process again, on another database and the same chain."""
    rig.connection = database.connect(url)
    book.take_epoch(rig.connection, "after")
    rig.payouts = rig.fresh()
    return rig.payouts


def work(rig: Rig, rounds: int = 8) -> Finding:
    """Run rounds as the actor does: no payout is planned before the chain was compared once."""
    reconciled = False
    for _ in range(rounds):
        rig.payouts.run_once(plan=reconciled)
        finding = reconcile(rig.connection, rig.rpc, rig.treasury, partial(adoption.adopt, rig.payouts))
        if finding.conclusive and finding.ok:
            stops.thaw(rig.connection, adoption.RESTORED)
            book.commit(rig.connection)
            reconciled = True
        rig.advance(FINAL_BLOCKS)
    return finding


def assert_paid_once(rig: Rig, amounts: dict[int, int]) -> None:
    assert {creator: rig.on_chain(creator) for creator in amounts} == amounts
    paid = rig.rows("SELECT creator_id, sum(on_chain_pix)::bigint FROM ledger.payouts GROUP BY creator_id ORDER BY 1")
    assert dict(paid) == amounts  # type: ignore[arg-type]
    assert rig.freezes() == []
    checks = audit.run(rig.connection, rig.rpc, str(rig.treasury.payer.gas), full=True)
    assert all(check.ok for check in checks), checks


@pytest.mark.parametrize("when", ["before", "planned", "signed", "sent"])
def test_what_was_paid_since_the_dump_is_adopted_and_paid_to_nobody_twice(
    rig: Rig, postgres_url: str, empty_url: str, tmp_path: Path, when: str
) -> None:
    for creator in (1, 2, 3):
        rig.creator(creator, 1000 * creator, account=creator != 3)
    steps: dict[str, list[Any]] = {
        "before": [],
        "planned": [rig.payouts.plan],
        "signed": [rig.payouts.plan, rig.payouts.sign],
        "sent": [rig.payouts.plan, rig.payouts.sign, rig.payouts.send],
    }
    for step in steps[when]:
        step()
    file = tmp_path / "pixr.dump"
    assert backup.dump(postgres_url, file) > 10_000
    rig.earn(1, 500)  # earned and paid after the dump, and forgotten by it
    work(rig)
    assert [rig.on_chain(creator) for creator in (1, 2, 3)] == [1500, 2000, 3000]
    rig.connection.close()
    backup.restore(empty_url, file)
    start(rig, empty_url)
    assert rig.freezes() == [adoption.RESTORED]
    work(rig)
    assert_paid_once(rig, {1: 1500, 2: 2000, 3: 3000})
    rig.earn(2, 77)
    work(rig)
    assert_paid_once(rig, {1: 1500, 2: 2077, 3: 3000})


@pytest.mark.parametrize("is_given_up", [True, False])
def test_what_was_called_back_since_the_dump_goes_back_and_what_paid_instead_is_adopted(
    rig: Rig, postgres_url: str, empty_url: str, tmp_path: Path, is_given_up: bool
) -> None:
    """The markers of the batches that were called back are among the accounts of those that were paid instead."""
    for creator in (1, 2):
        rig.creator(creator, 1000)
    rig.payouts.plan()
    rig.payouts.sign()
    rig.advance(EXPIRED_BLOCKS)
    if is_given_up:
        rig.payouts.settle()
    backup.dump(postgres_url, tmp_path / "pixr.dump")
    stops.hold(rig.connection, 1, "asked")
    rig.connection.commit()
    rig.payouts = rig.fresh()
    work(rig)
    assert [rig.on_chain(creator) for creator in (1, 2)] == [0, 1000]
    rig.connection.close()
    backup.restore(empty_url, tmp_path / "pixr.dump")
    start(rig, empty_url)  # the hold is forgotten
    work(rig)
    assert_paid_once(rig, {1: 1000, 2: 1000})


def test_without_a_restore_an_unknown_payment_freezes_and_is_not_adopted(
    rig: Rig, postgres_url: str, empty_url: str, tmp_path: Path
) -> None:
    rig.creator(1, 1000)
    backup.dump(postgres_url, tmp_path / "pixr.dump")
    work(rig)
    rig.connection.close()
    backup.restore(empty_url, tmp_path / "pixr.dump")
    start(rig, empty_url)
    stops.thaw(rig.connection, adoption.RESTORED)  # as after `pg_restore` by hand
    rig.connection.commit()
    work(rig)
    assert UNKNOWN in rig.freezes()
    assert rig.on_chain(1) == 1000


def test_what_cannot_be_dumped_or_restored_is_said(postgres_url: str, empty_url: str, tmp_path: Path) -> None:
    file = tmp_path / "pixr.dump"
    backup.dump(postgres_url, file)
    refusals = [
        (lambda: backup.dump(postgres_url, file), "file-exists"),
        (lambda: backup.dump(postgres_url, tmp_path / "no" / "x"), "no-folder"),
        (lambda: backup.restore(empty_url, tmp_path / "none"), "file-missing"),
        (lambda: backup.restore(postgres_url, file), "database-not-empty"),
        (lambda: backup.restore(empty_url, Path(__file__)), "restore-failed"),
    ]
    for act, code in refusals:
        with pytest.raises(Rejected) as refusal:
            act()
        assert refusal.value.code == code


def test_numbers_that_were_given_after_the_dump_are_not_given_again(
    postgres_url: str, empty_url: str, tmp_path: Path
) -> None:
    made = "INSERT INTO media.creators (handle, name) VALUES (%s, %s) RETURNING id"
    with database.connect(postgres_url) as connection:
        first = connection.execute(made, ("ana", "Ana")).fetchone()
    backup.dump(postgres_url, tmp_path / "pixr.dump")
    with database.connect(postgres_url) as connection:
        forgotten = connection.execute(made, ("bob", "Bob")).fetchone()
    backup.restore(empty_url, tmp_path / "pixr.dump")
    with database.connect(empty_url) as connection:
        after = connection.execute(made, ("eve", "Eve")).fetchone()
    assert first is not None
    assert forgotten is not None
    assert after is not None
    assert after[0] > forgotten[0] + backup.NUMBERS_SKIPPED // 2 > first[0]


def test_a_database_may_be_named_as_postgresql_itself_has_it(postgres_url: str, empty_url: str, tmp_path: Path) -> None:
    """By key=value pairs, and by a URL of several hosts with options."""
    source, target = conninfo_to_dict(postgres_url), conninfo_to_dict(empty_url)
    backup.dump(make_conninfo(**source), tmp_path / "pixr.dump")
    places = f"{target['host']}:{target['port']},{target['host']}:{target['port']}"
    login = f"{target['user']}:{quote(str(target['password']))}"
    several = f"postgresql://{login}@{places}/{target['dbname']}?connect_timeout=20&application_name=restore"
    backup.restore(several, tmp_path / "pixr.dump")
    with database.connect(empty_url) as connection:
        assert connection.execute("SELECT count(*) FROM ledger.fence").fetchone() == (1,)


def test_a_server_that_knows_no_role_has_them_after_a_restore_with_what_they_may(
    postgres_url: str, tmp_path: Path
) -> None:
    backup.dump(postgres_url, tmp_path / "pixr.dump")
    with supervised(throwaway_settings(tmp_path / "other"), "postgres") as other:
        url = runtime.postgres_url(other, runtime.DATABASE)
        backup.restore(url, tmp_path / "pixr.dump")
        with database.connect(url, autocommit=True) as connection:
            assert_as_stated(connection)
