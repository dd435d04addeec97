"""What is old leaves the tables for the archive, whole and proven; everything adds up as before, whatever breaks between."""

from __future__ import annotations

import dataclasses
import gzip
import itertools
import re
import secrets
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import Connection, sql

from cluster import cache, database
from cluster.errors import Rejected
from cluster.runtime import S3Endpoint
from cluster.settings import ROOT, Settings
from cluster.storage import Storage
from ledger import adoption, audit, batches, book, counters, earnings, statements, stops
from ledger.archive import accounts, folds, history, journal, parts, payments, retention
from ledger.archive.keeping import Keeping
from ledger.archive.shelf import DAMAGED, DRAFT, FOLDER, Shelf
from ledger.chain import Chain
from ledger.fold import Fold, mature
from ledger.reconcile import reconcile
from ledger.rounds import Epoch
from ledger.settings import Economics, LedgerSettings
from ledger.statements import BEGIN
from tests.ledger.chains import EAGER, LocalNode, Rig, new_chain
from tests.ledger.snapshots import Snapshot
from tests.ledger.test_counters import MARK, live
from tests.ledger.test_fold import DEMO, change, earned, folded, fund, record, search, shown
from tests.ledger.test_rounds import dust

Conn = Connection[Any]
CREATORS = range(1, 6)


@pytest.fixture
def bucket(s3: S3Endpoint) -> str:
    name = f"test-{secrets.token_hex(6)}"
    Storage(s3).ensure_bucket(name)
    return name


@pytest.fixture
def shelf(s3: S3Endpoint, bucket: str, tmp_path: Path) -> Shelf:
    return Shelf(Storage(s3), bucket, tmp_path / "archive")


@pytest.fixture
def old(journal: Conn) -> Conn:
    """A ledger in which everything is old enough to go."""
    journal.execute("INSERT INTO ledger.archive_rules (least_age) VALUES ('-1 day')")
    journal.commit()
    return journal


def tomorrow() -> datetime:
    return datetime.now(UTC) + timedelta(days=1)


def archive_folds(connection: Conn, shelf: Shelf) -> int:
    made = 0
    while (numbers := folds.due(connection, tomorrow())) is not None:
        folds.archive(connection, shelf, numbers)
        made += 1
    while folds.forget(connection, parts.last(connection, "folds")):
        pass
    return made


def archive_journal(connection: Conn, shelf: Shelf) -> int:
    made = 0
    while (numbers := journal.due(connection, tomorrow())) is not None:
        journal.archive(connection, shelf, numbers)
        made += 1
    while journal.forget(connection, "journal", parts.last(connection, "journal")):
        pass
    while (until := journal.rest_until(connection, tomorrow())) > parts.forgotten(connection, "rest"):
        journal.forget(connection, "rest", until)
    return made


def put_away(connection: Conn, shelf: Shelf) -> None:
    """Archive and forget all there is."""
    archive_folds(connection, shelf)
    while rows := payments.due(connection, tomorrow()):
        assert payments.archive(connection, shelf, rows)
    while rows := history.due(connection, tomorrow()):
        assert history.archive(connection, shelf, rows)
    archive_journal(connection, shelf)


def count(connection: Conn, table: str) -> int:
    query = sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier("ledger", table))
    row = connection.execute(query).fetchone()
    connection.commit()
    assert row is not None
    return int(row[0])


def shown_and_folded(connection: Conn, turns: int = 4) -> None:
    """Some folds of several batches, and what of them has matured."""
    numbers = itertools.count(1 + count(connection, "entries") * 1_000)  # nobody has seen them yet
    for turn in range(turns):
        for _ in range(3):
            record(
                connection,
                *(search(shown(next(numbers), creator, 100 * creator, who=f"{turn}")) for creator in CREATORS),
            )
        accountant = Fold(connection, Economics(maturity_s=1), LedgerSettings(fold_batches_max=2))
        while accountant.run_once() is not None:
            pass
        connection.execute("UPDATE ledger.maturing SET matures_at = now() - interval '1 s'")
        connection.commit()
        mature(connection)


def assert_proven(connection: Conn, shelf: Shelf) -> str:
    """The full audit with the archive; what it says of that."""
    checks = {check.name: check for check in audit.run(connection, None, None, full=True, shelf=shelf)}
    assert [str(check) for check in checks.values() if not check.ok] == []
    return checks["archive"].detail


def statement_of(connection: Conn, shelf: Shelf, creator: int, limit: int = 10_000) -> list[statements.StatementLine]:
    place, lines = BEGIN, []
    while place is not None:
        page = statements.page(connection, creator, shelf, before=place, limit=limit)
        lines += page.lines
        place = page.following
    connection.commit()
    return lines


# ── What was shown and earned ──────────────────────────────────────────────────────────────────────────────────────


def test_everything_that_is_archived_is_proven_and_adds_up_as_before(old: Conn, shelf: Shelf) -> None:
    fund(old, 10**9)
    shown_and_folded(old)
    before = earned(old), {creator: counters.earned(old, creator) for creator in CREATORS}
    archived, posted = count(old, "folds"), count(old, "postings")
    put_away(old, shelf)
    for table in ("folds", "outcomes", "appearance_batches", "postings"):
        assert count(old, table) == 0, table
    assert count(old, "entries") == parts.last(old, "journal")
    assert (earned(old), {creator: counters.earned(old, creator) for creator in CREATORS}) == before
    assert assert_proven(old, shelf).startswith(f"{count(old, 'entries')} entries, {archived} folds, 0 payments")
    (carried,) = old.execute("SELECT sum(postings)::int, sum(amount)::int FROM ledger.carried").fetchall()
    assert carried == (posted, 0)
    shown_and_folded(old, 2)  # it goes on behind
    put_away(old, shelf)
    shown_and_folded(old, 1)
    assert_proven(old, shelf)
    assert all(check.ok for check in audit.run(old, None, None, full=True))  # without reading it: what is behind it


def test_an_accrual_waits_for_its_fold_and_payments_stay_as_long_as_their_rows(old: Conn, shelf: Shelf) -> None:
    fund(old, 10**9)
    shown_and_folded(old)
    first = old.execute("SELECT min(entry_id) FROM ledger.folds").fetchone()
    numbers = journal.due(old, tomorrow())
    assert first is not None
    assert numbers == (1, first[0] - 1)
    archive_folds(old, shelf)
    assert journal.due(old, tomorrow()) == (1, count(old, "entries"))


def test_postings_of_payments_stay_until_their_own_time_however_early_the_rest_went(old: Conn, shelf: Shelf) -> None:
    fund(old, 10**9)
    shown_and_folded(old)
    archive_folds(old, shelf)
    numbers = journal.due(old, tomorrow())
    assert numbers is not None
    journal.archive(old, shelf, numbers)
    assert journal.forget(old, "rest", numbers[1]) == 0  # before what folds have written is gone, nothing
    while journal.forget(old, "journal", numbers[1]):
        pass
    last_year = tomorrow() - timedelta(days=400)
    assert journal.rest_until(old, last_year) == 0  # no entry is so old
    assert journal.rest_until(old, tomorrow()) == numbers[1]


def test_a_statement_is_the_same_wherever_its_lines_are(
    old: Conn, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "LINES_MAX", 10)
    monkeypatch.setattr(accounts, "BLOCK_ROWS", 3)
    monkeypatch.setattr(statements, "PARTS_MAX", 2)
    fund(old, 10**9)
    shown_and_folded(old)
    before = {creator: statement_of(old, shelf, creator) for creator in CREATORS}
    assert min(len(lines) for lines in before.values()) > 10
    archive_folds(old, shelf)
    assert archive_journal(old, shelf) > 4
    shown_and_folded(old, 1)
    for creator in CREATORS:
        after = statement_of(old, shelf, creator)
        assert after[-len(before[creator]) :] == before[creator]
        assert len(after) > len(before[creator])
        for limit in (1, 2, 7):
            assert statement_of(old, shelf, creator, limit) == after
    assert statement_of(old, shelf, 404) == []
    assert_proven(old, shelf)


def test_a_statement_between_archiving_and_forgetting_has_each_line_once(
    old: Conn, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "FORGOTTEN_MAX", 1)
    fund(old, 10**9)
    shown_and_folded(old)
    before = statement_of(old, shelf, 3)
    archive_folds(old, shelf)
    numbers = journal.due(old, tomorrow())
    assert numbers is not None
    journal.archive(old, shelf, numbers)
    while journal.forget(old, "journal", numbers[1]):
        assert statement_of(old, shelf, 3) == before
        assert all(check.ok for check in audit.run(old, None, None))
    assert_proven(old, shelf)


def test_a_balance_of_an_earlier_moment_is_known_as_far_as_postings_are_there(old: Conn, shelf: Shelf) -> None:
    fund(old, 10**9)
    shown_and_folded(old)
    pool = book.account(old, "reward_pool")
    then, between = book.balance(old, pool), datetime.now(UTC)
    put_away(old, shelf)
    shown_and_folded(old, 1)
    assert book.balance(old, pool, between) == then
    with pytest.raises(Rejected, match="archived"):
        book.balance(old, pool, between - timedelta(hours=1))


def test_counters_that_were_lost_are_counted_anew_over_the_archive(old: Conn, shelf: Shelf, redis_url: str) -> None:
    client = cache.client(redis_url)
    client.delete(MARK + counters.PLACE, MARK + counters.EARNED)
    fund(old, 10**9)
    shown_and_folded(old)
    put_away(old, shelf)
    mine = counters.Counters(client, "here", MARK)
    for _ in range(2):
        mine.follow(old)
        assert live(client) == {creator: counters.earned(old, creator) for creator in CREATORS}
        shown_and_folded(old, 1)
    client.flushdb()
    mine.follow(old)
    assert live(client) == {creator: counters.earned(old, creator) for creator in CREATORS}
    client.delete(MARK + counters.PLACE, MARK + counters.EARNED)
    client.close()


def test_counters_that_stood_still_while_folds_were_archived_lack_none_of_them(
    old: Conn, shelf: Shelf, redis_url: str
) -> None:
    """Redis was away for longer than folds stay in their table, and the ledger was not started again."""
    client = cache.client(redis_url)
    client.delete(MARK + counters.PLACE, MARK + counters.EARNED)
    fund(old, 10**9)
    shown_and_folded(old)
    mine = counters.Counters(client, "here", MARK)
    mine.follow(old)
    shown_and_folded(old, 2)  # which they do not see
    put_away(old, shelf)
    for turns in (1, 0, 1):
        shown_and_folded(old, turns)
        mine.follow(old)
        assert live(client) == {creator: counters.earned(old, creator) for creator in CREATORS}
    assert mine.follow(old) == 0
    client.delete(MARK + counters.PLACE, MARK + counters.EARNED)
    client.close()


# ── What was paid ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def paid(old: Conn) -> Iterator[Rig]:
    """Creators who were paid, whose payments are in the chain's history that was read; and a stranger's deposits."""
    settings = dataclasses.replace(EAGER, marker_accounts=False)
    rig = Rig(old, new_chain(), settings=settings)
    for creator in CREATORS:
        rig.creator(creator, 1000 * creator, account=creator != 5)
    rig.pay(6)
    dust(rig, 7)
    rig.earn(1, 500)
    rig.pay(3)
    assert reconcile(rig.connection, rig.rpc, rig.treasury).ok
    yield rig
    rig.rpc.close()


def test_what_was_paid_leaves_the_tables_and_sums_stay(paid: Rig, shelf: Shelf) -> None:
    connection = paid.connection
    before = [earnings.of(connection, creator) for creator in CREATORS]
    lines = {creator: statement_of(connection, shelf, creator) for creator in CREATORS}
    landed = paid.rows(
        "SELECT p.creator_id, a.signature FROM ledger.payouts p JOIN ledger.attempts a USING (batch_id)"
        " WHERE a.state = 'landed' ORDER BY p.id DESC"
    )
    told = [
        (creator, line.signature) for creator in CREATORS for line in lines[creator] if line.kind == "payout_pending"
    ]
    assert told == sorted(landed, key=lambda each: each[0])
    assert len({signature for _, signature in told[2:]}) > 1  # of several batches that one entry has taken the money of
    known = paid.rows("SELECT id FROM ledger.batches")
    put_away(connection, shelf)
    for table in ("batches", "payouts", "transfers", "attempts", "chain_transactions", "postings", "payout_days"):
        assert count(connection, table) == 0, table
    assert [earnings.of(connection, creator) for creator in CREATORS] == before
    assert {creator: statement_of(connection, shelf, creator) for creator in CREATORS} == lines
    assert all(batches.is_known(connection, number) for (number,) in known)
    assert "payments" in assert_proven(connection, shelf)
    paid.earn(2, 700)
    paid.pay(3)
    assert reconcile(connection, paid.rpc, paid.treasury).ok
    after = earnings.of(connection, 2)
    assert (after.paid, after.on_chain, after.payouts) == (2700, 2700, before[1].payouts + 1)
    checks = audit.run(connection, paid.rpc, str(paid.treasury.payer.gas), full=True, shelf=shelf)
    assert [str(check) for check in checks if not check.ok] == []


class Forgetful(LocalNode):
    """A node that has lost where we were: it names everything it has."""

    async def call(self, method: str, params: list[Any]) -> Any:
        if method == "getSignaturesForAddress":
            params = [params[0], {key: value for key, value in params[1].items() if key != "until"}]
        return await super().call(method, params)


def test_history_that_is_archived_is_not_booked_again_by_a_node_that_names_all_of_it(paid: Rig, shelf: Shelf) -> None:
    connection = paid.connection
    put_away(connection, shelf)
    entries = count(connection, "entries")
    rpc = Chain([Forgetful("a", paid.chain), Forgetful("b", paid.chain)])
    assert reconcile(connection, rpc, paid.treasury).ok
    rpc.close()
    assert (count(connection, "entries"), paid.freezes()) == (entries, [])


def test_a_payment_stays_while_anything_of_it_can_change(old: Conn, shelf: Shelf) -> None:
    settings = dataclasses.replace(EAGER, marker_retention_s=0, reclaim_min=100)
    rig = Rig(old, new_chain(), settings=settings)
    rig.creator(1, 1000)
    rig.pay(3)
    assert reconcile(old, rig.rpc, rig.treasury).ok
    assert payments.due(old, tomorrow()) == []  # its marker stands
    old.execute("UPDATE ledger.markers SET reclaimed_by = batch_id")
    old.execute("DELETE FROM ledger.archive_rules")  # a week
    old.commit()
    assert payments.due(old, tomorrow()) == []
    old.execute("INSERT INTO ledger.archive_rules (least_age) VALUES ('-1 day')")
    old.commit()
    assert len(payments.due(old, tomorrow())) == 1
    change(old, "UPDATE ledger.chain_transactions SET kind = 'unknown' WHERE kind = 'attempt'")
    assert payments.due(old, tomorrow()) == []
    change(old, "UPDATE ledger.attempts SET state = 'expired', slot = NULL, lamports = NULL")  # landed all the same
    assert payments.due(old, tomorrow()) == []
    rig.rpc.close()


def test_payments_that_have_to_stay_keep_no_others_from_leaving(
    paid: Rig, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(payments, "WINDOW", 1)
    connection, before = paid.connection, count(paid.connection, "batches")
    connection.execute(
        "INSERT INTO ledger.markers (batch_id, address, lamports)"
        " SELECT id, 'nobody can empty it', 1 FROM ledger.batches ORDER BY ended_at, id LIMIT 1"
    )
    connection.commit()
    while rows := payments.due(connection, tomorrow()):
        assert payments.archive(connection, shelf, rows)
    assert (before > 1, count(connection, "batches")) == (True, 1)


def test_the_number_of_reclaims_never_falls(old: Conn) -> None:
    """Ids of the next ones follow from it."""
    before = batches.reclaims(old)
    change(
        old,
        "INSERT INTO ledger.past_batches (id, kind, state, count, ended_at, archive_id)"
        " VALUES ('a', 'reclaim', 'posted', 1, now(), 1)",
    )
    assert batches.reclaims(old) == before + 1


def test_while_the_clocks_differ_nothing_is_archived(
    working: Keeping, old: Conn, monkeypatch: pytest.MonkeyPatch
) -> None:
    fund(old, 10**9)
    shown_and_folded(old)
    monkeypatch.setattr(book, "clock_s", lambda _: 40 * 86_400 + int(time.time()))
    rounds(working)
    assert "clock" in working.trouble
    assert count(old, "archives") == 0


def test_what_changes_while_it_is_written_is_archived_as_it_is_afterwards(
    paid: Rig, shelf: Shelf, monkeypatch: pytest.MonkeyPatch, postgres_url: str
) -> None:
    connection, keep = paid.connection, Shelf.keep

    def slow(self: Shelf, *args: Any) -> Any:
        with database.connect(postgres_url) as other:
            change(other, "UPDATE ledger.attempts SET sends = sends + 1")
        return keep(self, *args)

    rows = payments.due(connection, tomorrow())
    connection.commit()
    monkeypatch.setattr(Shelf, "keep", slow)
    assert not payments.archive(connection, shelf, rows)
    monkeypatch.undo()
    assert count(connection, "past_batches") == 0
    put_away(connection, shelf)
    assert_proven(connection, shelf)
    sends = [attempt["sends"] for row in payments.archived(connection, shelf) for attempt in row["attempts"]]
    assert min(sends) >= 2


# ── What breaks ────────────────────────────────────────────────────────────────────────────────────────────────────


class Crash(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("where", ["put_file", "put_bytes", "commit", "check"])
def test_wherever_it_is_killed_nothing_is_lost_and_twice_is_once(
    paid: Rig, shelf: Shelf, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    monkeypatch.setattr(journal, "LINES_MAX", 20)
    connection = paid.connection
    shown_and_folded(connection, 2)
    lines = statement_of(connection, shelf, 2)
    owner: Any = {"put_file": Storage, "put_bytes": Storage, "commit": book, "check": Shelf}[where]
    real: Callable[..., Any] = getattr(owner, where)
    calls, dies_at = itertools.count(1), itertools.count(1)
    next_death = next(dies_at)

    def dying(*args: Any, **more: Any) -> Any:
        """Die after the thing was done, and the next time before it."""
        nonlocal next_death, calls
        number = next(calls)
        if number < next_death:
            return real(*args, **more)
        calls, next_death = itertools.count(1), next(dies_at)
        if next_death % 2:
            real(*args, **more)
        raise Crash

    monkeypatch.setattr(owner, where, dying)
    deaths = 0
    while True:
        try:
            put_away(connection, shelf)
            break
        except Crash:
            deaths += 1
            connection.rollback()
            connection.isolation_level = None
            assert all(check.ok for check in audit.run(connection, None, None))
    monkeypatch.undo()
    assert deaths >= 2
    assert statement_of(connection, shelf, 2) == lines
    assert "objects of earlier tries" not in assert_proven(connection, shelf)
    assert list(shelf.scratch.iterdir()) == []


def test_a_part_that_is_not_what_was_written_deletes_nothing(old: Conn, shelf: Shelf) -> None:
    fund(old, 10**9)
    shown_and_folded(old)
    numbers = folds.due(old, tomorrow())
    assert numbers is not None
    folds.archive(old, shelf, numbers)
    (part,) = parts.listed(old, "folds")
    spoil(shelf, part.written.name)
    with pytest.raises(Rejected, match=r"not what was written|damaged") as refusal:
        shelf.check(part.written)
    assert refusal.value.code == DAMAGED
    checks = {check.name: check for check in audit.run(old, None, None, full=True, shelf=shelf)}
    assert not checks["archive"].ok
    shelf.storage.delete(f"s3://{shelf.bucket}/{FOLDER}/{part.written.name}")
    checks = {check.name: check for check in audit.run(old, None, None, full=True, shelf=shelf)}
    assert "does not exist" in checks["archive"].detail


def spoil(shelf: Shelf, name: str) -> None:
    """Somebody rewrites an object of the archive."""
    uri = f"s3://{shelf.bucket}/{FOLDER}/{name}"
    lines = gzip.decompress(shelf.storage.read(uri)).replace(b'"amount_pix"', b'"amount_xip"')
    shelf.storage.put_bytes(gzip.compress(lines), uri)


def test_a_statement_that_reaches_what_was_rewritten_says_so(old: Conn, shelf: Shelf) -> None:
    fund(old, 10**9)
    shown_and_folded(old)
    put_away(old, shelf)
    name, size = old.execute("SELECT name, bytes FROM ledger.archived_accounts").fetchall()[0]
    uri = f"s3://{shelf.bucket}/{FOLDER}/{name}"
    data = bytearray(shelf.storage.read(uri))
    data[size // 2] ^= 1
    shelf.storage.put_bytes(bytes(data), uri)
    with pytest.raises(Rejected, match="not what was written"):
        statement_of(old, shelf, 1)
    old.rollback()
    shelf.storage.delete(uri)
    with pytest.raises(Rejected, match="does not exist"):
        statement_of(old, shelf, 1)


def test_what_is_not_right_is_not_archived(old: Conn, shelf: Shelf) -> None:
    fund(old, 10**9)
    shown_and_folded(old)
    change(
        old, "UPDATE ledger.outcomes SET outcome = decode('03', 'hex') || substring(outcome FROM 2) WHERE fold_id = 1"
    )
    with pytest.raises(Rejected, match="fold 1 booked"):
        archive_folds(old, shelf)
    old.rollback()
    assert (count(old, "archives"), list(shelf.names())) == (0, [])
    change(
        old, "UPDATE ledger.outcomes SET outcome = decode('00', 'hex') || substring(outcome FROM 2) WHERE fold_id = 1"
    )
    archive_folds(old, shelf)
    change(old, "UPDATE ledger.entries SET document = '{\"a\":1}' WHERE id = 2")
    with pytest.raises(Rejected, match=r"entry 2 .* breaks the hash chain"):
        archive_journal(old, shelf)


def test_an_entry_that_is_not_what_was_asked_for_is_not_archived(old: Conn, shelf: Shelf) -> None:
    fund(old, 10**9)
    shown_and_folded(old)
    archive_folds(old, shelf)
    change(old, "UPDATE ledger.entries SET content = repeat('x', 32)::bytea WHERE id = 2")  # no hash covers it
    with pytest.raises(Rejected, match=r"entry 2 .* is not what was asked for"):
        archive_journal(old, shelf)


TAMPERING = [
    ("UPDATE ledger.carried SET amount = amount + 1 WHERE account_id = 3", "carried forward of account 3"),
    ("UPDATE ledger.carried SET earned = 0 WHERE earned > 0", "carried forward of account"),
    ("UPDATE ledger.entries SET key = 'another' WHERE id = 2", "another one in the journal"),
    ("UPDATE ledger.paid_before SET on_chain_pix = 7 WHERE creator_id = 2", "creator 2 was paid before"),
    ("UPDATE ledger.past_batches SET signature = repeat('x', 88)", "is not the one that has gone"),
    ("UPDATE ledger.past_batches SET count = count + 1", "is not the one that has gone"),
    ("DELETE FROM ledger.archives WHERE kind = 'journal'", "hash chain|carried forward"),
    ("UPDATE ledger.archived_accounts SET places = substring(places FROM 33)", "others by account"),
]


@pytest.mark.parametrize(("statement", "said"), TAMPERING)
def test_the_audit_sees_what_somebody_has_changed_of_what_is_kept(
    paid: Rig, shelf: Shelf, statement: str, said: str
) -> None:
    shown_and_folded(paid.connection, 2)
    put_away(paid.connection, shelf)
    assert_proven(paid.connection, shelf)
    change(paid.connection, statement)
    wrong = [str(check) for check in audit.run(paid.connection, None, None, full=True, shelf=shelf) if not check.ok]
    assert any(re.search(said, each) for each in wrong), wrong


A_BATCH = (
    "INSERT INTO ledger.batches (id, kind, state, count, amount_pix, epoch, ended_at)"
    " VALUES (repeat('a', 32), 'reclaim', 'posted', 1, 0, 1, now())"
)
FORGETTING = [
    "DELETE FROM ledger.postings",
    "DELETE FROM ledger.payouts",
    "DELETE FROM ledger.transfers",
    "DELETE FROM ledger.attempts",
    "DELETE FROM ledger.batches WHERE id = repeat('a', 32)",
    "DELETE FROM ledger.resolutions",
    "DELETE FROM ledger.entries",
    "DELETE FROM ledger.archives",
    "UPDATE ledger.archives SET last = last + 1",
    "DELETE FROM ledger.past_batches",
    "UPDATE ledger.postings SET amount = 1",
    "TRUNCATE ledger.postings",
]


@pytest.mark.parametrize("statement", FORGETTING)
def test_nothing_leaves_the_tables_that_does_not_stand_in_a_part(paid: Rig, shelf: Shelf, statement: str) -> None:
    shown_and_folded(paid.connection, 1)
    if "archives" in statement or "past_" in statement:
        put_away(paid.connection, shelf)
    if "resolutions" in statement:
        paid.connection.execute(
            "INSERT INTO ledger.resolutions (batch_id, asked_by) SELECT id, 'ana' FROM ledger.batches LIMIT 1"
        )
    if "ledger.batches" in statement:  # of those that have rows elsewhere these keep each of them
        change(paid.connection, A_BATCH)
    with pytest.raises(psycopg.DatabaseError, match="append-only") as refusal:
        paid.connection.execute(statement)  # type: ignore[arg-type]
    assert refusal.value.sqlstate == book.CHANGED
    paid.connection.rollback()
    for call in ("ledger.forget_fold(99)", "ledger.forget_postings('journal', 99, 99)"):
        found = paid.connection.execute(f"SELECT coalesce({call}, 0)").fetchone()  # type: ignore[arg-type]
        assert found == (0,)


def test_what_is_young_is_neither_archived_nor_forgotten(journal: Conn, shelf: Shelf) -> None:
    fund(journal, 10**9)
    shown_and_folded(journal)
    with pytest.raises(Rejected, match="too young"):
        archive_folds(journal, shelf)
    journal.rollback()
    journal.execute("INSERT INTO ledger.archive_rules (least_age) VALUES ('-1 day')")
    numbers = folds.due(journal, tomorrow())
    assert numbers is not None
    folds.archive(journal, shelf, numbers)
    journal.execute("DELETE FROM ledger.archive_rules")
    journal.commit()
    assert not folds.forget(journal, numbers[1])
    assert count(journal, "folds") > 0


def test_a_part_that_does_not_follow_is_refused(old: Conn, shelf: Shelf) -> None:
    fund(old, 10**9)
    shown_and_folded(old)
    with shelf.draft("journal") as draft:
        draft.add({"id": 2})
        written = shelf.keep(draft, datetime.now(UTC).date(), 2, 2)
    for numbers, head, said in (((2, 2), bytes(32), "does not follow"), ((1, 1), bytes(32), "does not end")):
        with pytest.raises(Rejected, match=said):
            parts.add(old, "journal", numbers, datetime.now(UTC).date(), written, datetime.now(UTC), head)
        old.rollback()


def test_an_older_backup_beside_a_newer_archive_goes_on_and_overwrites_nothing(old: Conn, shelf: Shelf) -> None:
    fund(old, 10**9)
    shown_and_folded(old, 2)
    archive_folds(old, shelf)
    backup = Snapshot(old)
    archive_journal(old, shelf)
    shown_and_folded(old, 2)
    put_away(old, shelf)
    forgotten = set(shelf.names())
    backup.bring_back(old)
    book.take_epoch(old, "after")
    assert_proven(old, shelf)
    archive_journal(old, shelf)  # the same rows as then: the same names
    assert set(shelf.names()) == forgotten
    shown_and_folded(old, 3)  # others than then
    put_away(old, shelf)
    assert forgotten < set(shelf.names())
    said = assert_proven(old, shelf)
    assert "of before a restore" in said
    assert statement_of(old, shelf, 1)


# ── The part at work ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def working(settings: Settings, bucket: str, old: Conn, monkeypatch: pytest.MonkeyPatch) -> Iterator[Keeping]:
    """The part of the ledger that archives, as its own role, on a day when everything of now is old."""
    monkeypatch.setattr(retention, "before_of", lambda *_: tomorrow())
    monkeypatch.setattr("ledger.archive.keeping.before_of", lambda *_: tomorrow())
    own = settings.with_section(dataclasses.replace(settings.section(LedgerSettings), archive_bucket=bucket))
    epoch = Epoch()
    made = Keeping(own, epoch)
    made.round()
    book.hold_epoch(old, epoch.number)
    yield made
    made.close()


def rounds(working: Keeping) -> None:
    working._again_at = 0.0
    while working.round():
        pass


def test_it_archives_everything_in_rounds_as_its_role_may(working: Keeping, old: Conn, shelf: Shelf) -> None:
    fund(old, 10**9)
    shown_and_folded(old)
    rounds(working)
    assert (working.trouble, count(old, "postings"), count(old, "folds")) == ("", 0, 0)
    assert_proven(old, shelf)
    noted = dict(old.execute("SELECT name, parts FROM ledger.retention").fetchall())
    assert noted["folds"] > 0
    assert noted["journal"] > 0
    assert set(noted) == set(retention.KEPT)
    assert retention.waiting(old, working.own) == []


def test_a_look_at_the_archive_reads_the_parts_that_came_since_the_last_one(old: Conn, shelf: Shelf) -> None:
    fund(old, 10**9)
    lying, query = retention.Lying(), "SELECT kind, count(*)::int, sum(bytes)::bigint FROM ledger.archives GROUP BY 1"
    for turn in range(3):
        shown_and_folded(old, 1)
        put_away(old, shelf)
        found = {each.name: (each.parts, each.bytes) for each in retention.measure(old, LedgerSettings(), lying)}
        assert found["folds"][0] > turn
        assert {name: told for name, told in found.items() if told[0]} == {
            name: (number, size) for name, number, size in old.execute(query)
        }
    change(old, "UPDATE ledger.archives SET bytes = 10^9")  # what is not read again is not seen
    assert {each.name: (each.parts, each.bytes) for each in retention.measure(old, LedgerSettings(), lying)} == found


def test_what_is_paid_leaves_as_the_ledgers_role_may(working: Keeping, old: Conn) -> None:
    rig = Rig(old, new_chain(), settings=dataclasses.replace(EAGER, marker_accounts=False))
    dust(rig, 3)
    assert reconcile(old, rig.rpc, rig.treasury).ok
    rig.creator(1, 1000)
    rig.pay(3)
    assert reconcile(old, rig.rpc, rig.treasury).ok
    rounds(working)
    assert (working.trouble, count(old, "payouts"), count(old, "chain_transactions")) == ("", 0, 0)
    assert earnings.of(old, 1).paid == 1000
    rig.rpc.close()


def test_while_the_object_store_is_away_it_waits_and_says_so(working: Keeping, old: Conn) -> None:
    fund(old, 10**9)
    shown_and_folded(old)
    good = working.shelf
    away = Storage(dataclasses.replace(good.storage.endpoint, url="http://127.0.0.1:9"))
    working._made = dataclasses.replace(good, storage=away)
    rounds(working)
    assert "nothing is archived" in working.trouble
    assert count(old, "folds") > 0
    working._made = good
    rounds(working)
    assert (working.trouble, count(old, "folds")) == ("", 0)


def test_what_is_not_right_keeps_nothing_else_from_being_archived(working: Keeping, old: Conn) -> None:
    rig = Rig(old, new_chain(), settings=dataclasses.replace(EAGER, marker_accounts=False))
    rig.creator(1, 1000)
    rig.pay(3)
    assert reconcile(old, rig.rpc, rig.treasury).ok
    shown_and_folded(old)
    change(
        old, "UPDATE ledger.outcomes SET outcome = decode('03', 'hex') || substring(outcome FROM 2) WHERE fold_id = 1"
    )
    rounds(working)
    assert "fold 1 booked" in working.trouble
    assert count(old, "payouts") == 0
    assert count(old, "folds") > 0
    rig.rpc.close()


def test_a_part_that_was_lost_before_its_rows_have_left_keeps_them(working: Keeping, old: Conn) -> None:
    fund(old, 10**9)
    shown_and_folded(old)
    numbers = folds.due(old, tomorrow())
    assert numbers is not None
    folds.archive(old, working.shelf, numbers)
    (part,) = parts.listed(old, "folds")
    old.commit()
    working.shelf.storage.delete(f"s3://{working.shelf.bucket}/{FOLDER}/{part.written.name}")
    kept = count(old, "folds")
    rounds(working)
    assert "does not exist" in working.trouble
    assert count(old, "folds") == kept


def test_postings_of_payments_stay_where_their_part_was_lost_since(working: Keeping, old: Conn) -> None:
    fund(old, 10**9)
    shown_and_folded(old)
    archive_folds(old, working.shelf)
    numbers = journal.due(old, tomorrow())
    assert numbers is not None
    journal.archive(old, working.shelf, numbers)
    while journal.forget(old, "journal", numbers[1]):
        pass
    (part,) = parts.listed(old, "journal")
    old.commit()
    working.shelf.storage.delete(f"s3://{working.shelf.bucket}/{FOLDER}/{part.written.name}")
    kept = count(old, "postings")
    rounds(working)
    assert "does not exist" in working.trouble
    assert (kept > 0, count(old, "postings")) == (True, kept)


def test_while_a_restore_is_not_over_nothing_is_archived(working: Keeping, old: Conn) -> None:
    fund(old, 10**9)
    shown_and_folded(old)
    adoption.begin(old, {})
    old.commit()
    rounds(working)
    assert count(old, "archives") == 0
    stops.thaw(old, adoption.RESTORED)
    old.commit()
    rounds(working)
    assert count(old, "archives") > 0


def test_what_a_killed_process_was_writing_is_removed(working: Keeping) -> None:
    left = working.settings.data_dir / "archive" / f"{DRAFT}left"
    left.parent.mkdir(exist_ok=True)
    left.write_bytes(b"half")
    assert working.shelf
    assert not left.exists()


def test_tables_that_are_not_archived_are_deleted_by_age_and_the_last_word_stays(
    settings: Settings, journal: Conn
) -> None:
    fund(journal, 10**9)
    record(journal, search(shown(1), key=b"k" * 16))
    record(journal, search(shown(2), key=b"l" * 16))
    folded(journal, DEMO)
    journal.execute(
        "UPDATE ledger.idempotency SET created_at = now() - interval '31 days' WHERE key = %s", (b"k" * 16,)
    )
    for days, ok in ((500, True), (500, False), (40, True), (40, False), (40, True), (1, True)):
        journal.execute(
            "INSERT INTO ledger.reconciliations (slot, ok, journal_pix, chain_pix, journal_lamports, chain_lamports, at)"
            " VALUES (%s, %s, 0, 0, 0, 0, now() - make_interval(days => %s))",
            (days, ok, days),
        )
    for creator, days in ((1, 500), (2, 500), (3, 10)):
        journal.execute(
            "INSERT INTO ledger.suspicions (day, creator_id, viewers, captive_pix) VALUES (current_date - %s::int, %s, 1, 9)",
            (days, creator),
        )
        journal.execute(
            "INSERT INTO ledger.leaps (day, creator_id, above_pix, matures_at) VALUES (current_date - %s::int, %s, 9, now())",
            (days, creator),
        )
    stops.hold(journal, 2, "somebody looks")
    journal.commit()
    with_keeping = Keeping(settings, Epoch())
    while with_keeping.round():
        pass
    assert [bytes(row[0]) for row in journal.execute("SELECT key FROM ledger.idempotency")] == [b"l" * 16]
    since = "SELECT now() - forgotten_until > interval '30 days' FROM ledger.retention WHERE name = 'idempotency'"
    assert journal.execute(since).fetchone() == (True,)
    left = journal.execute("SELECT slot, ok FROM ledger.reconciliations ORDER BY id").fetchall()
    assert left == [(40, False), (1, True)]
    for table in ("suspicions", "leaps"):
        query = sql.SQL("SELECT creator_id FROM {} ORDER BY 1").format(sql.Identifier("ledger", table))
        assert journal.execute(query).fetchall() == [(2,), (3,)]
    with_keeping.close()


def test_the_last_agreement_stays_however_old(settings: Settings, journal: Conn) -> None:
    journal.execute(
        "INSERT INTO ledger.reconciliations (slot, ok, journal_pix, chain_pix, journal_lamports, chain_lamports, at)"
        " VALUES (1, true, 0, 0, 0, 0, now() - interval '99 days')"
    )
    journal.commit()
    keeping = Keeping(settings, Epoch())
    keeping.round()
    keeping.close()
    assert count(journal, "reconciliations") == 1


def test_every_table_has_its_time_in_the_readme(old: Conn) -> None:
    """Who adds a table says how long it keeps what it holds."""
    _, _, text = (ROOT / "README.md").read_text(encoding="utf-8").partition("**What is kept, and for how long.**")
    said = set(re.findall(r"`(?:app\.|ledger\.)?([a-z_]+)`", text.partition("**Run the benchmarks.**")[0]))
    rows = old.execute(
        "SELECT c.relname FROM pg_class c WHERE c.relkind = 'r'"
        " AND c.relnamespace IN ('ledger'::regnamespace, 'app'::regnamespace)"
    ).fetchall()
    assert sorted({name for (name,) in rows} - said) == []


@pytest.mark.parametrize(
    "wrong",
    [{"folds_keep_d": 7}, {"folds_keep_d": 91}, {"folds_keep_d": 0}, {"keep_interval_s": 0}, {"payments_keep_d": -1}],
)
def test_days_that_cannot_be_kept_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="keep_"):
        LedgerSettings(**wrong)


def test_what_is_kept_for_ever_is(settings: Settings, old: Conn) -> None:
    fund(old, 10**9)
    shown_and_folded(old)
    change(old, "UPDATE ledger.folds SET folded_at = now() - interval '9 years'")
    never = dataclasses.replace(settings.section(LedgerSettings), folds_keep_d=0, journal_keep_d=0, payments_keep_d=0)
    keeping = Keeping(settings.with_section(never), Epoch())
    keeping.round()
    keeping.close()
    assert count(old, "archives") == 0
    assert retention.before_of(old, 0) is None
