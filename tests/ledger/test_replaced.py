"""What a restore keeps of the database that it replaces, so that no stop and no key's end is lost by it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import LiteralString

import pytest

from cluster import database, runtime
from ledger import adoption, backup, orders, replaced, stops, wallets
from ledger.cli_backup import ASIDE, _aside
from serve import keys
from tests.conftest import supervised, throwaway_settings
from tests.ledger.chains import Rig, wallet_of
from tests.ledger.test_backup import empty_url, start
from tests.ledger.test_orders import carried_out, key_of, placed

__all__ = ["empty_url"]  # a fixture


def test_a_restore_keeps_stops_and_the_ends_of_keys_and_names_the_orders_that_it_forgets(
    rig: Rig, postgres_url: str, empty_url: str, tmp_path: Path
) -> None:
    for creator in (1, 2, 3, 4):
        rig.creator(creator, 1000)
    own = rig.connection
    number, _ = keys.create(own, "bob", ["search"])
    keys.create(own, "eve", ["search"])
    stops.hold(own, 2, "asked before")
    own.commit()
    backup.dump(postgres_url, tmp_path / "pixr.dump")
    stops.hold(own, 1, "fraud, police")
    stops.freeze(own, "by hand (by ops)", {})
    stops.freeze(own, "of an earlier release", {"by": "ops"})
    stops.freeze(own, "found", {"signature": "x"})  # what is found once is found again
    adoption.begin(own, {"by": "ops"})
    keys.revoke(own, number)
    own.execute("UPDATE ledger.wallets SET wallet = %s WHERE creator_id = 3", (wallet_of(33),))
    own.commit()
    body = {"from": "reward_pool", "to": "payable:creator:4", "amount": 5, "asset": "PIX"}
    order = carried_out(rig, placed(rig, orders.CORRECTION, body, key_of(own, "ana")))
    own.close()
    before = replaced.read(postgres_url)
    assert before is not None
    backup.restore(empty_url, tmp_path / "pixr.dump")
    said = replaced.keep(empty_url, before)
    start(rig, empty_url)
    assert {creator: reason.partition(":")[0] for creator, reason in rig.holds().items()} == {
        1: "fraud, police", 2: "asked before", 3: wallets.UNPAYABLE,
    }  # fmt: skip
    assert set(rig.freezes()) == {adoption.RESTORED, "by hand (by ops)", "of an earlier release"}
    assert rig.rows("SELECT count(*) FROM app.api_keys WHERE id = %s AND revoked_at IS NOT NULL", number) == [(1,)]
    assert said[0].endswith("1 holds, 2 freezes, the end of 1 keys")
    assert said[1].startswith("1 creators have named another wallet since")
    assert said[2].startswith(f"forgotten: order {order.id}, correction")
    rig.connection.execute("UPDATE ledger.wallets SET wallet = %s WHERE creator_id = 3", (wallet_of(33),))
    wallets.release_mended(rig.connection, [3])
    assert sorted(rig.holds()) == [1, 2]
    again = replaced.keep(empty_url, before)
    assert again[0].endswith("0 holds, 0 freezes, the end of 0 keys")


def test_what_is_replaced_stands_aside_until_the_other_is_whole(tmp_path: Path) -> None:
    """A restore that fails, or is killed, has lost nothing of what was there."""
    with supervised(throwaway_settings(tmp_path / "own"), "postgres") as settings:
        url = runtime.postgres_url(settings, runtime.DATABASE)

        def marks(of: str) -> int:
            with database.connect(of) as connection:
                row = connection.execute("SELECT count(*) FROM pg_tables WHERE tablename = 'marked'").fetchone()
            assert row is not None
            return int(row[0])

        def change(of: str, statement: LiteralString) -> None:
            with database.connect(of, autocommit=True) as connection:
                connection.execute(statement)

        change(runtime.postgres_url(settings, "postgres"), f"DROP DATABASE IF EXISTS {runtime.DATABASE}")
        with _aside(settings) as old_url:
            assert old_url is None
            change(url, "CREATE TABLE marked ()")
        assert marks(url) == 1
        seen: list[int] = []

        def interrupted() -> None:
            with _aside(settings) as old_url:
                seen.extend((marks(str(old_url)), marks(url)))
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            interrupted()
        assert (seen, marks(url)) == ([1, 0], 1)
        server = runtime.postgres_url(settings, "postgres")
        change(server, f"ALTER DATABASE {runtime.DATABASE} RENAME TO {ASIDE}")  # as who was killed leaves it
        change(server, f"CREATE DATABASE {runtime.DATABASE}")
        with _aside(settings) as old_url:
            assert old_url is not None
            assert marks(old_url) == 1
        assert marks(url) == 0
        change(server, f"CREATE DATABASE {ASIDE}")  # there is none any more


def test_of_another_treasurys_database_and_of_none_nothing_is_kept(rig: Rig, postgres_url: str, empty_url: str) -> None:
    before = replaced.read(postgres_url)
    assert before is not None
    other = dataclasses.replace(before, chain=[("genesis", "mint", "another")], holds=[(1, "x", None, None, False)])
    assert replaced.keep(postgres_url, other) == [
        "the database that was replaced was of another treasury: nothing of it is kept"
    ]
    assert rig.holds() == {}
    assert replaced.read(empty_url) is None
    assert replaced.read(postgres_url + "_that_is_not_there") is None
