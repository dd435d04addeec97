"""The ledger at work: it pays, waits for what is away, ends between two rounds, and gives way to its successor."""

from __future__ import annotations

import dataclasses
import json
import secrets
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from psycopg import Connection
from solders.pubkey import Pubkey

from cluster import database, runtime
from cluster import settings as settings_module
from cluster.errors import Temporary
from cluster.settings import Settings
from cluster.storage import Storage
from ledger import actor, anchors, audit, orders, stops
from ledger.actor import Ledger, Loop
from ledger.book import Fenced
from ledger.rounds import IDS_LOST, SILENT_MAX_S, Counting, Epoch, Part, Reconciling, Watching, open_chain
from ledger.settings import Economics, LedgerSettings
from serve import keys
from tests.cluster.test_telemetry import root_as_it_was
from tests.conftest import free_port, localnet, until
from tests.ledger.chains import Key
from tests.ledger.test_fold import record, search, shown

EARNED = 900  # of one appearance
SLOT_MS = 25


@pytest.fixture
def eager(settings: Settings) -> Settings:
    """Settings with which everything is paid at once."""
    own = LedgerSettings(tick_interval_s=0.05, reconcile_interval_s=0.5)
    economics = Economics(maturity_s=0, payout_min_pix=1, source_day_pix=0)
    return settings.with_section(own).with_section(economics)


@pytest.fixture
def connection(eager: Settings) -> Iterator[Connection[Any]]:
    with database.connect(eager.postgres.url, autocommit=True) as connection:
        yield connection


@contextmanager
def chain_of(settings: Settings) -> Iterator[None]:
    """The localnet of these settings."""
    with localnet(runtime.port(settings, "solana", 8899), settings.data_dir / "localnet", SLOT_MS):
        yield


@contextmanager
def at_work(settings: Settings) -> Iterator[Loop]:
    loop = Loop(settings)
    try:
        yield loop
    finally:
        loop.stop()


def with_wallet(connection: Connection[Any], creator: int) -> Pubkey:
    wallet = Key(f"creator {creator}").pubkey
    connection.execute(
        "INSERT INTO ledger.wallets (creator_id, wallet, set_by) VALUES (%s, %s, 'manifest')", (creator, str(wallet))
    )
    return wallet


def paid(connection: Connection[Any]) -> dict[int, int]:
    rows = connection.execute("SELECT creator_id, sum(on_chain_pix)::bigint FROM ledger.payouts GROUP BY 1")
    return {creator: amount or 0 for creator, amount in rows}


def unfolded(connection: Connection[Any]) -> int:
    row = connection.execute("SELECT sum(recorded - folded)::int FROM ledger.incarnations").fetchone()
    assert row is not None
    return int(row[0])


def is_funded(connection: Connection[Any]) -> bool:
    """Whether the treasury's first deposit is booked, which another part does than the one that folds."""
    row = connection.execute("SELECT balance > 0 FROM ledger.accounts WHERE kind = 'reward_pool'").fetchone()
    return row == (True,)


def assert_clean(settings: Settings) -> None:
    rpc = open_chain(settings)
    with database.connect(settings.postgres.url) as connection:
        assert [each.detail for each in audit.run(connection, rpc, None, full=True) if not each.ok] == []
    rpc.close()


def test_it_waits_for_a_chain_that_is_away_and_pays_once_it_is_back(
    eager: Settings, connection: Connection[Any]
) -> None:
    with_wallet(connection, 1)
    with chain_of(eager), at_work(eager) as loop:
        until(lambda: loop.status()["ticks"] > 0)
        first = loop.status()["epoch"]
        until(lambda: is_funded(connection))
        record(connection, search(shown(1, 1)))
        until(lambda: paid(connection) == {1: EARNED})
    with at_work(eager) as loop:
        record(connection, search(shown(2, 1)))
        until(lambda: loop.status()["state"] == "waiting")
        assert "does not answer" in loop.status()["detail"] or "is resting" in loop.status()["detail"]
        with chain_of(eager):
            until(lambda: paid(connection) == {1: 2 * EARNED})
            until(lambda: loop.status()["state"] == "running")
            assert loop.status()["epoch"] > first
            assert_clean(eager)


def test_a_round_is_finished_before_it_ends(eager: Settings, connection: Connection[Any]) -> None:
    with chain_of(eager):
        with at_work(eager) as loop:
            until(lambda: loop.status()["ticks"] > 0)
            for number in range(30):
                record(connection, *(search(shown(100 * number + n, 1)) for n in range(50)))
            until(lambda: unfolded(connection) < 30 * 50)
        assert loop.status()["state"] == "stopped"
        idle = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
            " AND state LIKE 'idle in transaction%'"
        ).fetchone()
        assert idle == (0,)
        record(connection, search(shown(9, 2)))
        left = unfolded(connection)
        assert left > 0
        assert_clean(eager)
        with at_work(eager):
            until(lambda: unfolded(connection) == 0)
            assert_clean(eager)


def test_the_successor_shuts_it_out(eager: Settings, connection: Connection[Any]) -> None:
    with chain_of(eager), at_work(eager) as first:
        until(lambda: first.status()["ticks"] > 0)
        with at_work(eager) as second:
            until(lambda: first.status()["state"] == "fenced" and second.status()["ticks"] > 0)
            assert second.status()["epoch"] > first.status()["epoch"]
            record(connection, search(shown(1, 1)))
            until(lambda: unfolded(connection) == 0)
            until(lambda: second.status()["state"] == "running")


def test_a_lost_database_is_waited_for_under_the_same_epoch(eager: Settings, connection: Connection[Any]) -> None:
    with chain_of(eager), at_work(eager) as loop:
        until(lambda: loop.status()["ticks"] > 0)
        epoch = loop.status()["epoch"]
        for _ in range(3):
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        ticks = loop.status()["ticks"]
        until(lambda: loop.status()["ticks"] > ticks + 2)
        until(lambda: loop.status()["state"] == "running")
        assert loop.status()["epoch"] == epoch


def earning(ledger: Ledger, connection: Connection[Any]) -> None:
    """Wait until the chain was compared and has money, and a search has earned of it."""
    until(lambda: ledger.tick() or ledger.reconciling.finding is not None)
    until(lambda: ledger.tick() or is_funded(connection))
    record(connection, search(shown(1, 1)))
    until(ledger.folding.round)


def test_whichever_part_hears_first_that_another_has_taken_over_stops(
    eager: Settings, connection: Connection[Any]
) -> None:
    with_wallet(connection, 1)
    with chain_of(eager), closing(Ledger(eager)) as ledger:
        earning(ledger, connection)
        connection.execute("UPDATE ledger.fence SET epoch = epoch + 1")
        with pytest.raises(Fenced):
            until(ledger.paying.round)
        with pytest.raises(Fenced):
            until(ledger.watching.round)


class Blunt(Part):
    """A part whose statement names no refusal."""

    def work(self, connection: Connection[Any]) -> bool:
        connection.execute("INSERT INTO ledger.cursors (incarnation, folded) VALUES (gen_random_uuid(), 0)")
        connection.commit()
        return False


def test_whatever_statement_hears_that_another_has_taken_over_says_so(
    eager: Settings, connection: Connection[Any]
) -> None:
    with closing(Blunt(eager, Epoch())) as part:
        part.round()
        connection.execute("UPDATE ledger.fence SET epoch = epoch + 1")
        with pytest.raises(Fenced):
            part.round()


def test_no_part_ends_in_silence(eager: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counters that cannot even give their connection up: the process ends, and Ray begins it again."""

    def wait(*_: object) -> bool:
        raise Temporary("away")

    def fail(*_: object) -> None:
        raise RuntimeError("a fault")

    ended: list[int] = []
    monkeypatch.setattr(actor, "CRASH_PAUSE_S", 0.0)
    monkeypatch.setattr("os._exit", ended.append)
    monkeypatch.setattr(Counting, "work", wait)
    monkeypatch.setattr(Counting, "close", fail)
    with at_work(eager):
        until(lambda: ended == [70])


def test_after_a_lost_connection_nothing_is_planned_before_the_chain_was_compared(
    eager: Settings, connection: Connection[Any]
) -> None:
    with_wallet(connection, 1)
    with chain_of(eager), closing(Ledger(eager)) as ledger:
        earning(ledger, connection)
        ledger.folding.round()
        ledger.paying.close()
        planned = "SELECT count(*) FROM ledger.batches"
        for _ in range(3):
            ledger.paying.round()
            assert connection.execute(planned).fetchone() == (0,)
        until(lambda: ledger.tick() or connection.execute(planned).fetchone() != (0,))


def test_a_part_that_is_silent_is_said_once_in_a_while(
    eager: Settings, connection: Connection[Any], caplog: pytest.LogCaptureFixture
) -> None:
    other = Blunt(eager, Epoch())
    other.name = "silent part"
    with closing(Watching(eager, Epoch(), (other,))) as watching:
        watching.round()
        assert "silent part" not in caplog.text
        other.ended_at -= SILENT_MAX_S + 1
        watching.round()
        watching.round()
        assert caplog.text.count("silent part") == 1


def test_nobody_is_late_before_a_payday(eager: Settings, connection: Connection[Any]) -> None:
    weekly = dataclasses.replace(eager.section(Economics), payout_interval_s=7 * 86_400, payout_window_s=3600)
    with closing(Watching(eager.with_section(weekly), Epoch(), ())) as watching:
        watching.round()
    row = connection.execute("SELECT limit_s FROM ledger.ages WHERE state = 'due'").fetchone()
    assert row == (7 * 86_400,)


def test_no_part_keeps_a_table_from_a_migration_between_its_rounds(
    eager: Settings, connection: Connection[Any]
) -> None:
    own = dataclasses.replace(eager.section(LedgerSettings), reconcile_interval_s=600.0)
    idle = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        " AND state LIKE 'idle in transaction%'"
    )
    with chain_of(eager), at_work(eager.with_section(own)):
        until(lambda: connection.execute("SELECT FROM ledger.reconciliations").fetchone() is not None)
        until(lambda: connection.execute(idle).fetchone() == (0,))


def test_while_payouts_wait_for_a_person_folding_goes_on(eager: Settings, connection: Connection[Any]) -> None:
    connection.execute("INSERT INTO ledger.chain VALUES (true, 'another', 'm', 6, 't', 'a')")
    with chain_of(eager), at_work(eager) as loop:
        until(lambda: loop.status()["state"] == "waiting" and "another chain" in loop.status()["detail"])
        record(connection, search(shown(1, 1)))
        until(lambda: unfolded(connection) == 0)


def test_a_part_that_meets_the_unexpected_begins_anew_and_folding_goes_on(
    eager: Settings, connection: Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By what a node, a stranger or a person has written: it breaks the part that reads it again and again, and no other."""
    epochs, broken = [], True

    def read(part: Reconciling, connection: Connection[Any]) -> None:
        epochs.append(part.epoch.number)
        if broken:
            connection.execute("SELECT %s::text", ("a\0b",))

    monkeypatch.setattr(Reconciling, "ask", read)
    with chain_of(eager), at_work(eager) as loop:
        until(lambda: "reconciliation begins anew after an unexpected error: DataError" in loop.status()["detail"])
        until(lambda: len(epochs) >= 3)
        record(connection, search(shown(1, 1)))
        until(lambda: unfolded(connection) == 0)
        broken = False
        until(lambda: loop.status()["state"] == "running")
    assert len(set(epochs)) == 1


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"screening": "pixr_screening:nothing"}, "screening"),
        ({"screening": "tests.ledger.test_actor:unmade"}, "screening"),
        ({"mint": "not an address"}, "no address"),
    ],
)
def test_what_is_misnamed_in_the_settings_keeps_payouts_waiting_and_folding_goes_on(
    eager: Settings, connection: Connection[Any], wrong: dict[str, Any], said: str
) -> None:
    own = dataclasses.replace(eager.section(LedgerSettings), **wrong)
    with chain_of(eager), at_work(eager.with_section(own)) as loop:
        until(lambda: loop.status()["state"] == "waiting" and said in loop.status()["detail"])
        assert "wait for a person" in loop.status()["detail"]
        until(lambda: any(said in each.reason for each in stops.waiting(connection)))  # as `pixr payouts stops` shows
        record(connection, search(shown(1, 1)))
        until(lambda: unfolded(connection) == 0)


def test_a_lost_secret_freezes_payouts_and_folding_goes_on(eager: Settings, connection: Connection[Any]) -> None:
    with chain_of(eager):
        with at_work(eager) as loop:
            until(lambda: loop.status()["state"] == "running")
            until(lambda: connection.execute("SELECT FROM ledger.chain").fetchone() is not None)
        connection.execute("UPDATE ledger.chain SET secret_mark = repeat('0', 32)")
        with at_work(eager) as loop:
            until(lambda: loop.status()["state"] == "waiting" and "another secret" in loop.status()["detail"])
            assert [each.reason for each in stops.in_force(connection)] == [IDS_LOST]
            epoch = loop.status()["epoch"]
            record(connection, search(shown(1, 1)))
            until(lambda: unfolded(connection) == 0)
            assert loop.status()["epoch"] == epoch


def test_it_keeps_the_journals_head_outside_the_database(eager: Settings, connection: Connection[Any]) -> None:
    storage, bucket = Storage(runtime.endpoints(eager).s3), f"heads-{secrets.token_hex(4)}"
    storage.ensure_bucket(bucket)
    settings = eager.with_section(dataclasses.replace(eager.s3, bucket=bucket))
    with chain_of(settings), at_work(settings):
        until(lambda: connection.execute("SELECT FROM ledger.entries").fetchone() is not None)
        listed = partial(anchors.listing, storage, bucket, runtime.secret(settings, "batches"))
        until(lambda: listed().ours)
        until(lambda: connection.execute("SELECT FROM ledger.ages").fetchone() is not None)
        rpc = open_chain(settings)
        with database.connect(settings.postgres.url) as other:
            checks = audit.run(other, rpc, None, full=True, heads=listed)
        rpc.close()
        assert [each.detail for each in checks if not each.ok] == []


def test_a_new_secret_is_taken_by_an_order_and_payouts_go_on(eager: Settings, connection: Connection[Any]) -> None:
    with chain_of(eager):
        with at_work(eager) as loop:
            until(lambda: loop.status()["state"] == "running")
            until(lambda: connection.execute("SELECT FROM ledger.chain").fetchone() is not None)
        connection.execute("UPDATE ledger.chain SET secret_mark = repeat('0', 32)")
        _, key = keys.create(connection, "ana", ["admin"])
        with at_work(eager) as loop:
            until(lambda: loop.status()["state"] == "waiting" and "another secret" in loop.status()["detail"])
            number = orders.place(connection, key, orders.SECRET, {}, "the disk is gone", 3600)
            until(lambda: orders.one(connection, number).state == "carried out")
            until(lambda: loop.status()["state"] == "running")
            assert stops.in_force(connection) == []
            with_wallet(connection, 1)
            until(lambda: is_funded(connection))
            record(connection, search(shown(1, 1)))
            until(lambda: paid(connection) == {1: EARNED})


def test_what_the_ledger_says_at_work_stands_in_its_log(tmp_path: Path) -> None:
    config, log = tmp_path / "pixr.toml", tmp_path / "logs" / "ledger.log"
    away = f"127.0.0.1:{free_port()}"
    config.write_text(
        f'postgres.url = "postgresql://pixr@{away}/pixr"\nredis.url = "redis://{away}"\n'
        f's3.url = "http://{away}"\nsolana.urls = ["http://{away}"]\n'
        f'ray.address = "{away}"\nray.dashboard_url = "http://{away}"\n'
    )
    runtime.port(settings_module.load(config, {"PIXR_DATA_DIR": str(tmp_path)}), "serve", 8000)
    with root_as_it_was():
        at_work = actor.Actor(str(config), str(tmp_path))
        try:
            until(lambda: b"waits" in log.read_bytes())
        finally:
            at_work.stop()
    assert {json.loads(line)["process"] for line in log.read_text().splitlines()} == {"ledger"}
