"""A journal that is rewritten whole, and right with itself, is not what was kept of it outside the database."""

from __future__ import annotations

import dataclasses
import json
import time
from typing import Any

import pytest
from psycopg import Connection

from cluster import runtime
from cluster.cli import Context
from cluster.errors import Rejected, Temporary
from cluster.runtime import S3Endpoint
from cluster.settings import Settings
from cluster.storage import Storage
from ledger import adoption, anchors, audit, book, cli, stops
from ledger.anchors import Anchor, Anchoring, Kept
from ledger.audit import LIMITS, Check
from ledger.settings import LedgerSettings
from tests.conftest import free_port
from tests.ledger.chains import SECRET, Rig
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
    anchors.put(*bucket, SECRET, anchor)
    return anchor


def failing(rig: Rig, bucket: tuple[Storage, str]) -> dict[str, str]:
    checks = audit.run(rig.connection, None, None, full=True, heads=lambda: anchors.listing(*bucket, SECRET))
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
    found = {
        each.name: each
        for each in audit.run(rig.connection, None, None, heads=lambda: anchors.listing(*bucket, SECRET))
    }
    assert found["anchors"].ok, found["anchors"].detail
    assert "1 of entries that restores have forgotten" in found["anchors"].detail
    with forging(rig.connection):
        rig.connection.execute('UPDATE ledger.entries SET document = \'{"by": "nobody"}\' WHERE id = %s', (last,))
    assert f"entry {last}," in failing(rig, bucket)["anchors"]


def test_a_head_is_kept_when_it_has_moved_and_it_is_time(rig: Rig, bucket: tuple[Storage, str]) -> None:
    now_s = [0.0]
    keeper = Anchoring(*bucket, lambda: SECRET, 3600.0, lambda: now_s[0])

    def look() -> int:
        keeper.look(rig.connection)
        keeper.close()
        return len(anchors.listing(*bucket, SECRET).ours)

    assert look() == 1
    assert look() == 1
    now_s[0] += 3600.0
    assert look() == 1  # nothing was written since
    rig.earn(1, 100)
    assert look() == 1  # it was looked a moment ago
    now_s[0] += 3600.0
    assert look() == 2
    first, second = anchors.listing(*bucket, SECRET).ours
    assert (first.entry_id, second.entry_id) == (second.entry_id - 1, anchors.head(rig.connection).entry_id)  # type: ignore[union-attr]
    body = json.loads(bucket[0].read(f"s3://{bucket[1]}/{anchors.FOLDER}/{second.name(SECRET)}"))
    assert (body["entry_id"], body["hash"]) == (second.entry_id, second.hash)
    off = Anchoring(*bucket, lambda: SECRET, 0.0, lambda: now_s[0])
    off.look(rig.connection)
    off.close()
    assert len(anchors.listing(*bucket, SECRET).ours) == 2


def test_a_store_that_is_away_keeps_nobody_waiting_and_is_asked_again_soon(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    now_s = [0.0]
    away = Storage(S3Endpoint(f"http://127.0.0.1:{free_port()}", "key", "secret", "us-east-1"))
    keeper = Anchoring(away, "heads", lambda: SECRET, 3600.0, lambda: now_s[0])

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
    keeper = Anchoring(Faulty(bucket[0].endpoint), bucket[1], lambda: SECRET, 3600.0, lambda: now_s[0])
    for expected in (1, 2):
        keeper.look(rig.connection)
        keeper.close()
        said = [each for each in caplog.records if "is not kept outside" in each.getMessage()]
        assert len(said) == expected
        assert said[-1].exc_info is not None
        now_s[0] += anchors.AGAIN_S


def test_heads_that_cannot_be_read_are_no_clean_audit_and_none_is_one(rig: Rig, bucket: tuple[Storage, str]) -> None:
    def away() -> Kept:
        raise Temporary("the store is away")

    checks = {each.name: each for each in audit.run(rig.connection, None, None, heads=away)}
    assert (checks["anchors"].ok, "cannot be read" in checks["anchors"].detail) == (False, True)
    assert anchors.listing(bucket[0], "no-such-bucket", SECRET) == Kept()
    assert anchors.listing(*bucket, SECRET).ours == ()
    bucket[0].put_bytes(b"{}", f"s3://{bucket[1]}/{anchors.FOLDER}/note.txt")
    assert anchors.listing(*bucket, SECRET).ours == ()


def test_an_empty_journal_has_no_head_and_its_first_one_is_kept_at_once(
    journal: Conn, bucket: tuple[Storage, str]
) -> None:
    keeper = Anchoring(*bucket, lambda: SECRET, 3600.0, lambda: 0.0)
    keeper.look(journal)
    assert anchors.head(journal) is None
    pool = book.account(journal, "reward_pool")
    book.post(journal, book.Entry("deposit", "d", [(book.account(journal, "chain"), -1), (pool, 1)]))
    head = anchors.head(journal)
    assert head is not None
    assert anchors.NAME.fullmatch(head.name(SECRET))
    journal.commit()
    keeper.look(journal)
    keeper.close()
    assert [each.entry_id for each in anchors.listing(*bucket, SECRET).ours] == [head.entry_id]


# ── Heads that are none of ours ────────────────────────────────────────────────────────────────────────────────────


def anchored(rig: Rig, bucket: tuple[Storage, str], settings: LedgerSettings = LIMITS) -> Check:
    checks = audit.run(rig.connection, None, None, limits=settings, heads=lambda: anchors.listing(*bucket, SECRET))
    return next(each for each in checks if each.name == "anchors")


def put_raw(bucket: tuple[Storage, str], name: str) -> None:
    """Anything that a store takes, as whoever has its key can put it there."""
    key = f"{anchors.FOLDER}/{name}"
    bucket[0].filesystem().call_s3("put_object", Bucket=bucket[1], Key=key, Body=b"{}")


@pytest.mark.parametrize(
    "name",
    [
        f"{3:020d}-{'ef' * 32}-1796068500.json",
        f"{3:020d}-{'ef' * 32}-1796068500-{'ab' * 16}.json",
        f"{'9' * 20}-{'ef' * 32}-1796068500.json",
        f"{'9' * 20}-{'ef' * 32}-1796068500-{'ab' * 16}.json",
        f"{1:020d}-{'ef' * 32}-999999999999.json",
        "note.txt",
        "deep/er.json",
        "a?versionId=b",
        "[red]\x1b[31m",
    ],
)
def test_who_has_the_key_of_the_bucket_alone_turns_no_audit_red(
    rig: Rig, bucket: tuple[Storage, str], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(anchors, "CLOCKS_DIFFER_S", -1.0)  # this one was put there a second after the first of ours
    kept(rig, bucket)
    time.sleep(1.1)
    put_raw(bucket, name)
    found = anchored(rig, bucket)
    assert found.ok, found.detail
    assert "1 heads that were kept are in the journal, 1 objects there are none of this ledger's" in found.detail
    assert ascii(name)[1:-1] in found.detail


def test_a_head_under_another_secret_is_none_of_ours_and_does_not_hide_a_rewriting(
    rig: Rig, bucket: tuple[Storage, str]
) -> None:
    rig.earn(1, 100)
    head = kept(rig, bucket)
    forged = Anchor(head.entry_id, "ef" * 32, head.at_s)
    anchors.put(*bucket, "another secret", forged)
    assert anchored(rig, bucket).ok
    with forging(rig.connection):
        rig.connection.execute(
            'UPDATE ledger.entries SET document = \'{"by": "nobody"}\' WHERE id = %s', (head.entry_id,)
        )
    found = anchored(rig, bucket)
    assert not found.ok
    assert f"entry {head.entry_id}, the head with hash" in found.detail
    assert forged.name("another secret") in found.detail


def test_a_forged_head_of_an_entry_that_a_restore_has_forgotten_is_named(rig: Rig, bucket: tuple[Storage, str]) -> None:
    head = kept(rig, bucket)
    stops.freeze(rig.connection, adoption.RESTORED, {"file": "test"})
    rig.connection.commit()
    anchors.put(*bucket, "another secret", Anchor(head.entry_id + 3, "ef" * 32, head.at_s))
    found = anchored(rig, bucket)
    assert found.ok
    assert "1 objects there are none of this ledger's" in found.detail
    assert "restores have forgotten" not in found.detail


def test_heads_of_a_release_before_count_as_they_did_until_a_person_has_judged_them(
    rig: Rig, bucket: tuple[Storage, str]
) -> None:
    head = anchors.head(rig.connection)
    assert head is not None
    put_raw(bucket, f"{head.text}.json")
    assert anchored(rig, bucket).ok
    assert "1 without a digest, of a release before" in anchored(rig, bucket).detail
    put_raw(bucket, f"{head.entry_id:020d}-{'ef' * 32}-{head.at_s}.json")
    for _ in range(2):  # also after a first one of ours was kept
        found = anchored(rig, bucket)
        assert not found.ok
        assert "[ledger] anchors_without_digest" in found.detail
        kept(rig, bucket)
    found = anchored(rig, bucket, dataclasses.replace(LIMITS, anchors_without_digest=False))
    assert found.ok, found.detail
    assert (
        f"2 without a digest, of a release before, of which 1 differ, the first: entry {head.entry_id}" in found.detail
    )


def test_the_command_needs_the_ledgers_own_secret_where_there_are_heads(
    rig: Rig, settings: Settings, bucket: tuple[Storage, str]
) -> None:
    context = Context(None)
    context.__dict__["settings"] = settings.with_section(dataclasses.replace(settings.s3, bucket=bucket[1]))
    heads, file = cli._heads(context, rig.connection), runtime.secret_path(settings, "batches")
    file.unlink(missing_ok=True)
    assert heads() == Kept()
    head = kept(rig, bucket)
    with pytest.raises(Rejected, match="secrets/batches cannot be read"):
        heads()
    assert runtime.secret(settings, "batches") != SECRET
    with pytest.raises(Rejected, match="another secret of the batches"):
        heads()
    file.write_text(SECRET)
    assert heads().ours == (head,)
