"""A journal that is rewritten whole, and right with itself, is not what was kept of it outside the database."""

from __future__ import annotations

import json
from typing import Any

import pytest
from psycopg import Connection

from cluster.errors import Temporary
from cluster.runtime import S3Endpoint
from cluster.settings import Settings
from cluster.storage import Storage
from ledger.audit import anchors, audit
from ledger.audit.anchors import Anchor, Anchoring
from ledger.journal import book
from ledger.payouts import adoption
from ledger.risk import stops
from tests.conftest import free_port
from tests.ledger.chains import Rig
from tests.ledger.forging import forging

Conn = Connection[Any]


@pytest.fixture
def bucket(s3: S3Endpoint, settings: Settings) -> tuple[Storage, str]:
    storage, name = Storage(s3), f"heads-{settings.data_dir.name.replace('_', '-')[:40]}".lower()
    storage.ensure_bucket(name)
    return storage, name


def kept(rig: Rig, bucket: tuple[Storage, str]) -> Anchor:
    anchor = anchors.head(rig.connection)
    assert anchor is not None
    anchors.put(*bucket, anchor)
    return anchor


def failing(rig: Rig, bucket: tuple[Storage, str]) -> dict[str, str]:
    checks = audit.run(rig.connection, None, None, full=True, heads=lambda: anchors.listing(*bucket))
    return {each.name: each.detail for each in checks if not each.ok}


def test_a_rewritten_history_is_named_though_it_is_right_with_itself(rig: Rig, bucket: tuple[Storage, str]) -> None:
    for number in range(3):
        rig.earn(number, 100)
        head = kept(rig, bucket)
    assert failing(rig, bucket) == {}
    with forging(rig.connection):
        rig.connection.execute(
            "UPDATE ledger.postings SET amount = amount * 2 WHERE entry_id = %s", (head.entry_id - 1,)
        )
    found = failing(rig, bucket)
    assert found.keys() == {"anchors"}
    assert f"entry {head.entry_id - 1}, the head with hash" in found["anchors"]
    assert f"entry {head.entry_id}, the head" in found["anchors"]
    assert f"entry {head.entry_id - 2}," not in found["anchors"]  # what was before is as it was


def test_a_document_that_is_rewritten_is_named_too(rig: Rig, bucket: tuple[Storage, str]) -> None:
    kept(rig, bucket)
    with forging(rig.connection):
        rig.connection.execute('UPDATE ledger.entries SET document = \'{"by": "nobody"}\' WHERE id = 1')
    assert failing(rig, bucket).keys() == {"anchors"}


def test_a_journal_that_is_cut_off_is_named(rig: Rig, bucket: tuple[Storage, str]) -> None:
    rig.earn(1, 100)
    head = kept(rig, bucket)
    with forging(rig.connection):
        for table, column in (("postings", "entry_id"), ("entries", "id")):
            rig.connection.execute(f"DELETE FROM ledger.{table} WHERE {column} = %s", (head.entry_id,))
    found = failing(rig, bucket)
    assert found.keys() == {"anchors"}
    assert "is not in the journal" in found["anchors"]


def test_what_a_declared_restore_has_forgotten_is_no_rewriting_and_what_was_before_is(
    rig: Rig, bucket: tuple[Storage, str]
) -> None:
    kept(rig, bucket)
    last = rig.rows("SELECT entry_id FROM ledger.chain_head")[0][0]
    rig.earn(1, 100)
    kept(rig, bucket)
    with forging(rig.connection):  # the database goes back
        for table, column in (("postings", "entry_id"), ("entries", "id")):
            rig.connection.execute(f"DELETE FROM ledger.{table} WHERE {column} > %s", (last,))
    assert failing(rig, bucket).keys() == {"anchors"}
    rig.connection.commit()
    stops.freeze(rig.connection, adoption.RESTORED, {"file": "test"})
    rig.connection.commit()
    rig.earn(2, 50)  # another entry of the same number
    kept(rig, bucket)
    found = {each.name: each for each in audit.run(rig.connection, None, None, heads=lambda: anchors.listing(*bucket))}
    assert found["anchors"].ok, found["anchors"].detail
    assert "1 of entries that restores have forgotten" in found["anchors"].detail
    with forging(rig.connection):
        rig.connection.execute('UPDATE ledger.entries SET document = \'{"by": "nobody"}\' WHERE id = %s', (last,))
    assert f"entry {last}," in failing(rig, bucket)["anchors"]


def test_a_head_is_kept_when_it_has_moved_and_it_is_time(rig: Rig, bucket: tuple[Storage, str]) -> None:
    now_s = [0.0]
    keeper = Anchoring(*bucket, 3600.0, lambda: now_s[0])

    def look() -> int:
        keeper.look(rig.connection)
        keeper.close()
        return len(anchors.listing(*bucket))

    assert look() == 1
    assert look() == 1
    now_s[0] += 3600.0
    assert look() == 1  # nothing was written since
    rig.earn(1, 100)
    assert look() == 1  # it was looked a moment ago
    now_s[0] += 3600.0
    assert look() == 2
    first, second = anchors.listing(*bucket)
    assert (first.entry_id, second.entry_id) == (second.entry_id - 1, anchors.head(rig.connection).entry_id)  # type: ignore[union-attr]
    body = json.loads(bucket[0].read(f"s3://{bucket[1]}/{anchors.FOLDER}/{second.name}"))
    assert (body["entry_id"], body["hash"]) == (second.entry_id, second.hash)
    off = Anchoring(*bucket, 0.0, lambda: now_s[0])
    off.look(rig.connection)
    off.close()
    assert len(anchors.listing(*bucket)) == 2


def test_a_store_that_is_away_keeps_nobody_waiting_and_is_asked_again_soon(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    now_s = [0.0]
    away = Storage(S3Endpoint(f"http://127.0.0.1:{free_port()}", "key", "secret", "us-east-1"))
    keeper = Anchoring(away, "heads", 3600.0, lambda: now_s[0])

    def look() -> int:
        keeper.look(rig.connection)
        keeper.close(60.0)
        return sum("is not kept outside" in each.getMessage() for each in caplog.records)

    assert look() == 1
    assert look() == 1
    now_s[0] += anchors.AGAIN_S
    assert look() == 2


class Faulty(Storage):
    """A store whose client has a fault that nobody knows."""

    def put_bytes(self, *_: object, **__: object) -> None:
        raise RuntimeError("a fault")


def test_a_fault_of_the_store_ends_nothing_and_is_said_whole(
    rig: Rig, bucket: tuple[Storage, str], caplog: pytest.LogCaptureFixture
) -> None:
    now_s = [0.0]
    keeper = Anchoring(Faulty(bucket[0].endpoint), bucket[1], 3600.0, lambda: now_s[0])
    for expected in (1, 2):
        keeper.look(rig.connection)
        keeper.close()
        said = [each for each in caplog.records if "is not kept outside" in each.getMessage()]
        assert len(said) == expected
        assert said[-1].exc_info is not None
        now_s[0] += anchors.AGAIN_S


def test_heads_that_cannot_be_read_are_no_clean_audit_and_none_is_one(rig: Rig, bucket: tuple[Storage, str]) -> None:
    def away() -> list[Anchor]:
        raise Temporary("the store is away")

    checks = {each.name: each for each in audit.run(rig.connection, None, None, heads=away)}
    assert (checks["anchors"].ok, "cannot be read" in checks["anchors"].detail) == (False, True)
    assert anchors.listing(bucket[0], "no-such-bucket") == []
    assert anchors.listing(*bucket) == []
    bucket[0].put_bytes(b"{}", f"s3://{bucket[1]}/{anchors.FOLDER}/note.txt")
    assert anchors.listing(*bucket) == []


def test_an_empty_journal_has_no_head_and_its_first_one_is_kept_at_once(
    journal: Conn, bucket: tuple[Storage, str]
) -> None:
    keeper = Anchoring(*bucket, 3600.0, lambda: 0.0)
    keeper.look(journal)
    assert anchors.head(journal) is None
    pool = book.account(journal, "reward_pool")
    book.post(journal, book.Entry("deposit", "d", [(book.account(journal, "chain"), -1), (pool, 1)]))
    head = anchors.head(journal)
    assert head is not None
    assert anchors.NAME.fullmatch(head.name)
    journal.commit()
    keeper.look(journal)
    keeper.close()
    assert [each.entry_id for each in anchors.listing(*bucket)] == [head.entry_id]
