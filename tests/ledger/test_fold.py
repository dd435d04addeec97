"""From recorded batches to the journal: in one transaction, exactly once, and split to the unit."""

from __future__ import annotations

import dataclasses
import hashlib
import time
from typing import Any
from uuid import UUID, uuid4

import numpy as np
import psycopg
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from psycopg import Connection

from cluster import database, migrations, roles
from cluster.errors import Rejected
from cluster.settings import Settings
from ledger import audit, book, caps, fold, money, owed, review, spool, waiting
from ledger.appearances import RECORDED, Appearance, parameters, search_record
from ledger.archive.keeping import Keeping
from ledger.fold import Fold, Outcome
from ledger.groups import order_of_hashes
from ledger.rounds import Epoch
from ledger.seen import Seen
from ledger.settings import Economics, LedgerSettings
from tests.conftest import fresh_database
from tests.ledger.test_book import fund

Conn = Connection[Any]
DEMO = Economics(maturity_s=0)


def viewer(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()[:16]


def shown(segment: int = 1, creator: int = 1, amount: int = 1000, who: str = "v") -> Appearance:
    return Appearance(viewer(who), segment, creator, 0, min(1_000_000, amount * 1000), amount)


def search(*appearances: Appearance, key: bytes = spool.NO_KEY, at_s: float | None = None) -> bytes:
    at_ms = int((time.time() if at_s is None else at_s) * 1000)
    return search_record(appearances, key, bytes(8), at_ms)


def open_incarnation(connection: Conn) -> UUID:
    number = uuid4()
    connection.execute("INSERT INTO ledger.incarnations (id, spool) VALUES (%s, 'x')", (number,))
    connection.commit()
    return number


def record(
    connection: Conn,
    *searches: bytes,
    incarnation: UUID | None = None,
    seq: int = 0,
    adopted: bool = False,
    recorded_s: float | None = None,
) -> UUID:
    """One batch, as its replica records it, or an heir; `recorded_s`: when, by the database's clock, if not now."""
    number = incarnation or open_incarnation(connection)
    done = connection.execute(RECORDED, parameters(number, seq, spool.pack(searches), adopted=adopted))
    assert done.rowcount == 1
    if recorded_s is not None:
        change(
            connection,
            "UPDATE ledger.appearance_batches SET recorded_at = to_timestamp(%s) WHERE incarnation = %s AND seq = %s",
            recorded_s, number, seq,
        )  # fmt: skip
    connection.commit()
    return number


def change(connection: Conn, query: str, *values: object) -> None:
    """Write what no code of ours may, as a disk or a newer version might have."""
    connection.execute("SET session_replication_role = replica")
    connection.execute(query, values)
    connection.execute("SET session_replication_role = DEFAULT")
    connection.commit()


def folded(connection: Conn, economics: Economics = DEMO, settings: LedgerSettings | None = None) -> list[int]:
    """Fold everything; what became of each appearance, in order."""
    accountant = Fold(connection, economics, settings or LedgerSettings())
    while accountant.run_once() is not None:
        pass
    rows = connection.execute("SELECT outcome FROM ledger.outcomes o ORDER BY fold_id, incarnation, seq").fetchall()
    connection.commit()
    return [outcome for (row,) in rows for outcome in bytes(row)]


def earned(connection: Conn, kind: str = "payable", party: str = "creator") -> dict[int, int]:
    rows = connection.execute(
        "SELECT owner, balance FROM ledger.accounts WHERE kind = %s AND party = %s AND balance > 0", (kind, party)
    ).fetchall()
    connection.commit()
    return {row[0]: row[1] for row in rows}


def assert_whole(connection: Conn) -> None:
    checks = audit.run(connection, None, None, full=True)
    assert all(check.ok for check in checks), checks


def test_appearances_are_split_and_the_pool_pays(journal: Conn) -> None:
    fund(journal, 10_000)
    record(journal, search(shown(1, 1), shown(2, 2, 555)), search(shown(3, 1, 333)))
    assert folded(journal) == [Outcome.FUNDED] * 3
    assert earned(journal) == {1: 900 + 300, 2: 500}
    assert book.balance(journal, book.account(journal, "platform")) == 100 + 55 + 33
    assert book.balance(journal, book.account(journal, "reward_pool")) == 10_000 - 1888
    assert_whole(journal)


def test_a_creator_who_comes_later_is_paid_too(journal: Conn) -> None:
    fund(journal, 10_000)
    record(journal, search(shown(1, 1)))
    folded(journal)
    record(journal, search(shown(2, 2), shown(3, 3)))
    folded(journal)
    assert earned(journal) == {1: 900, 2: 900, 3: 900}


def test_folding_again_or_after_a_crash_changes_nothing(journal: Conn, monkeypatch: pytest.MonkeyPatch) -> None:
    fund(journal, 10_000)
    record(journal, search(shown(1, 1)))

    def crash(_: Conn) -> None:
        raise psycopg.OperationalError("gone before the commit")

    with monkeypatch.context() as patched:
        patched.setattr(book, "commit", crash)
        with pytest.raises(psycopg.OperationalError):
            folded(journal)
    journal.rollback()
    assert earned(journal) == {}
    assert folded(journal) == [Outcome.FUNDED]
    assert folded(journal) == [Outcome.FUNDED]
    assert earned(journal) == {1: 900}


def test_a_fold_that_failed_leaves_nothing_behind_in_memory(journal: Conn, monkeypatch: pytest.MonkeyPatch) -> None:
    """The accountant goes on from what the database says: no account, viewer, bound or group of the lost transaction."""
    fund(journal, 100_000)
    number = record(journal, search(shown(1, 1)))
    record(journal, search(shown(2, 2)), incarnation=number, seq=1)
    bounded = dataclasses.replace(DEMO, segment_day_max_pix=1000)
    accountant = Fold(journal, bounded, LedgerSettings(fold_batches_max=1))

    def crash(_: Conn) -> None:
        raise psycopg.OperationalError("gone before the commit")

    for _ in range(2):
        with monkeypatch.context() as patched:
            patched.setattr(book, "commit", crash)
            with pytest.raises(psycopg.OperationalError):
                accountant.run_once()
        journal.rollback()
        done = accountant.run_once()
        assert done is not None
        assert (done.batches, done.funded) == (1, 1)
    assert accountant.run_once() is None
    assert earned(journal) == {1: 900, 2: 900}
    assert_whole(journal)


def test_a_moment_counts_once_a_viewer_and_day_across_folds_and_restarts(journal: Conn) -> None:
    fund(journal, 100_000)
    now = time.time()
    record(journal, search(shown(1), shown(1), at_s=now), search(shown(1), at_s=now + 5))
    assert folded(journal) == [0, Outcome.SEEN, Outcome.SEEN]
    record(journal, search(shown(1), shown(2), at_s=now + 60), search(shown(1, who="w"), at_s=now + 60))
    assert folded(journal)[3:] == [Outcome.SEEN, 0, 0]
    record(journal, search(shown(1), at_s=now + 86_400), recorded_s=now + 86_400)
    assert folded(journal)[6:] == [0]


def test_a_repeated_idempotency_key_earns_nothing(journal: Conn) -> None:
    fund(journal, 10_000)
    key = b"k" * 16
    record(journal, search(shown(1), key=key), search(shown(2), key=key))
    record(journal, search(shown(3), key=key), search(shown(4)))
    assert sorted(folded(journal)) == [0, 0, Outcome.REPEATED_KEY, Outcome.REPEATED_KEY]


def test_an_empty_pool_keeps_the_appearance_unfunded(journal: Conn) -> None:
    fund(journal, 1500)
    record(journal, search(shown(1), shown(2), shown(3, amount=0)))
    assert folded(journal) == [0, Outcome.UNFUNDED, Outcome.UNEARNED]
    assert earned(journal) == {1: 900}
    assert book.balance(journal, book.account(journal, "reward_pool")) == 500
    assert_whole(journal)


def test_nothing_earned_needs_no_entry_and_moves_the_cursor(journal: Conn) -> None:
    record(journal, search(shown(1, amount=0)))
    assert folded(journal) == [Outcome.UNEARNED]
    assert journal.execute("SELECT count(*) FROM ledger.entries").fetchone() == (0,)
    assert Fold(journal, DEMO, LedgerSettings()).run_once() is None


def test_a_search_is_bounded_in_appearances_and_amount(journal: Conn) -> None:
    fund(journal, 100_000)
    few = dataclasses.replace(DEMO, search_appearances_max=2, search_amount_max_pix=0)
    record(journal, search(shown(1), shown(2), shown(3)), search(shown(4)))
    assert folded(journal, few) == [0, 0, Outcome.CAPPED, 0]
    little = dataclasses.replace(DEMO, search_appearances_max=0, search_amount_max_pix=1500)
    record(journal, search(shown(5), shown(6), shown(7, amount=300)), search(shown(8)))
    assert folded(journal, little)[4:] == [0, Outcome.CAPPED, Outcome.CAPPED, 0]


@pytest.mark.parametrize("name", ["viewer_day_max_pix", "segment_day_max_pix", "creator_day_max_pix"])
def test_a_day_is_bounded_for_viewers_segments_and_creators(journal: Conn, name: str) -> None:
    """Across folds and restarts; the next UTC day begins anew."""
    fund(journal, 100_000)
    bounded = dataclasses.replace(DEMO, **{name: 2500})
    noon = time.time() // 86_400 * 86_400 + 43_200

    def one(number: int, at_s: float) -> bytes:
        if name == "viewer_day_max_pix":
            return search(shown(number, number, who="same"), at_s=at_s)
        return search(shown(1 if name == "segment_day_max_pix" else number, 1, who=f"v{number}"), at_s=at_s)

    record(journal, one(1, noon), one(2, noon), recorded_s=noon)
    assert folded(journal, bounded) == [0, 0]
    again = record(journal, one(3, noon + 60), recorded_s=noon + 60)
    record(journal, one(4, noon + 90_000), incarnation=again, seq=1, recorded_s=noon + 90_000)
    assert folded(journal, bounded)[2:] == [Outcome.CAPPED, 0]
    assert_whole(journal)


def test_investors_share_half_of_the_platforms_part(journal: Conn) -> None:
    fund(journal, 10_000)
    journal.execute(
        "INSERT INTO ledger.segment_stakes (segment_id, investor_id, pix_invested) VALUES (1, 7, 1), (1, 8, 3)"
    )
    record(journal, search(shown(1), shown(2, 2)))
    folded(journal)
    _, platform, (seventh, eighth) = money.parts_of(DEMO, 1000, (1, 3))
    assert earned(journal, party="investor") == {7: seventh, 8: eighth}
    assert book.balance(journal, book.account(journal, "platform")) == platform + 100
    assert_whole(journal)


def test_nobody_can_put_in_a_stake_and_no_investor_is_paid(journal: Conn) -> None:
    """Before either comes: a review takes back creators' parts of what does not count, and leaves investors theirs.

    Who looks at moments in which they have a stake would keep half of the platform's part, whatever is taken back.
    """
    for role in (roles.SERVE, roles.JOBS, roles.LEDGER, roles.READER):
        for may in ("INSERT", "UPDATE"):
            query = "SELECT has_any_column_privilege(%s, 'ledger.segment_stakes', %s)"
            assert journal.execute(query, (role.name, may)).fetchone() == (False,), (role.name, may)
    fund(journal, 100_000)
    journal.execute("INSERT INTO ledger.segment_stakes VALUES (1, 5, 100)")
    journal.execute("INSERT INTO ledger.wallets (creator_id, wallet, set_by) VALUES (5, repeat('1', 32), 'creator')")
    record(journal, search(shown(1)))
    folded(journal)
    assert earned(journal, party="investor") == {5: 50}
    assert [each.creator_id for each in owed.due(journal, Economics(payout_min_pix=1), "m", 99)] == []
    assert journal.execute("SELECT creator_id FROM ledger.owed").fetchall() == [(1,)]


def test_earnings_mature_before_they_are_payable(journal: Conn) -> None:
    fund(journal, 10_000)
    journal.execute("INSERT INTO ledger.segment_stakes (segment_id, investor_id, pix_invested) VALUES (1, 7, 1)")
    record(journal, search(shown(1), shown(2, 2)))
    folded(journal, Economics(maturity_s=3600))
    assert (earned(journal), earned(journal, "maturing")) == ({}, {1: 900, 2: 900})
    assert fold.mature(journal) == 0
    journal.execute("UPDATE ledger.maturing SET matures_at = now() - interval '1 s'")
    assert fold.mature(journal) == 1850
    assert fold.mature(journal) == 0
    assert (earned(journal), earned(journal, "payable", "investor")) == ({1: 900, 2: 900}, {7: 50})
    assert_whole(journal)


def test_batches_are_taken_in_order_and_within_limits(journal: Conn) -> None:
    fund(journal, 100_000)
    number = record(journal, search(shown(1)), search(shown(2)))
    for seq in (2, 3, 4):
        record(journal, search(shown(seq + 1)), incarnation=number, seq=seq)
    small = LedgerSettings(fold_batches_max=2, fold_appearances_max=1)
    accountant = Fold(journal, DEMO, small)
    sizes = []
    while (done := accountant.run_once()) is not None:
        sizes.append(done.batches)
    assert sizes == [1, 2, 1]
    assert earned(journal) == {1: 900 * 5}


def test_a_batch_can_be_recorded_once_only_and_leaves_no_gap(journal: Conn) -> None:
    number = record(journal, search(shown(1)))
    for seq in (0, 2):
        done = journal.execute(RECORDED, parameters(number, seq, spool.pack([search(shown(2))])))
        assert done.rowcount == 0
    journal.commit()


def test_a_gap_stops_its_incarnation_and_no_other(journal: Conn) -> None:
    fund(journal, 10_000)
    torn = record(journal, search(shown(1)))
    record(journal, search(shown(2)), incarnation=torn, seq=1)
    record(journal, search(shown(3, creator=2)))
    journal.execute("SET session_replication_role = replica")  # as a disk might lose it
    journal.execute("DELETE FROM ledger.appearance_batches WHERE incarnation = %s AND seq = 0", (torn,))
    journal.execute("SET session_replication_role = DEFAULT")
    journal.commit()
    folded(journal)
    assert earned(journal) == {2: 900}


def test_where_no_bound_is_set_nobody_is_capped(journal: Conn) -> None:
    fund(journal, 10**7)
    boundless = Economics(maturity_s=0, viewer_day_max_pix=0, segment_day_max_pix=0, creator_day_max_pix=0)
    record(journal, *(search(shown(number, amount=1000)) for number in range(1, 60)))
    folded(journal, boundless)
    assert earned(journal) == {1: 59 * 900}


# One search of two appearances, as format 1 wrote it. It stays readable for as long as `FORMATS` has a 1.
RECORDED_BY_FORMAT_1 = bytes.fromhex(
    "01000000020000006b0f7d9ab5bb96ef3a3dc7f2f4e1d0aa000000000000000000000000000000000102030405060708"
    "00e40b540200000002000700000000000000030000000000000010270000e0930400b80b000008000000000000000400"
    "000000000000204e0000400d0300d0070000"
)


def test_what_an_older_format_recorded_is_still_read() -> None:
    heads, rows = spool.unpack(RECORDED_BY_FORMAT_1, 1)
    assert (int(heads["count"][0]), bytes(heads["request"][0]).hex()) == (2, "0102030405060708")
    assert [tuple(row) for row in rows.tolist()] == [(7, 3, 10_000, 300_000, 3000), (8, 4, 20_000, 200_000, 2000)]


def test_a_damaged_or_unknown_batch_is_refused_by_name(journal: Conn) -> None:
    good = spool.pack([search(shown(1))]).payload
    for payload, form, code in (
        (good, 99, "format-unknown"),
        (good[:-1], spool.FORMAT, "batch-damaged"),
        (good[:8] + b"\xff" * 66 + good[74:], spool.FORMAT, "batch-damaged"),
        (b"\1", spool.FORMAT, "batch-damaged"),
    ):
        with pytest.raises(Rejected) as refusal:
            spool.unpack(payload, form)
        assert refusal.value.code == code
    with pytest.raises(psycopg.errors.CheckViolation):
        journal.execute(
            RECORDED, {**parameters(open_incarnation(journal), 0, spool.pack([search(shown(1))])), "sha256": bytes(32)}
        )


def test_a_second_folder_of_an_older_epoch_is_refused(journal: Conn, postgres_url: str) -> None:
    fund(journal, 10_000)
    accountant = Fold(journal, DEMO, LedgerSettings())
    record(journal, search(shown(1)))
    record(journal, search(shown(2, amount=0)))
    with database.connect(postgres_url) as younger:
        book.take_epoch(younger, "younger")
        with pytest.raises(book.Fenced):
            accountant.run_once()
        journal.rollback()
        folded(younger)
        assert earned(younger) == {1: 900}
        record(younger, search(shown(3, amount=0)))
        with pytest.raises(book.Fenced):  # also when there is no money in it
            accountant.run_once()
        journal.rollback()


@hypothesis_settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 200_000)), max_size=60), st.integers(1, 3))
def test_who_has_seen_what_agrees_with_a_plain_model(events: list[tuple[int, int]], parts: int) -> None:
    """Keys and seconds in any order, asked part by part; merging does not change an answer."""
    seen, last = Seen(86_400), dict[int, int]()
    for start in range(parts):
        mine = sorted(events[start::parts], key=lambda each: each[1])
        keys, seconds = np.array([k for k, _ in mine], np.uint64), np.array([s + 1 for _, s in mine], np.uint32)
        rows, run = seen.sift(keys, seconds, order_of_hashes(keys))
        first: set[int] = set()
        for row, (key, second) in enumerate(mine):
            expected = key not in first and (key not in last or second + 1 - last[key] >= 86_400)
            assert (row in rows) == expected
            first.add(key)
        for key, second in zip(keys[rows].tolist(), seconds[rows].tolist(), strict=True):
            last[key] = max(last.get(key, 0), second)
        assert run.keys.tolist() == sorted(keys[rows].tolist())
        seen.accept(run)


def test_runs_are_merged_and_the_old_forgotten(journal: Conn) -> None:
    fund(journal, 100_000)
    now = time.time()
    for number in range(15):
        at_s = now - 4 * DAY_S if number == 0 else now
        record(journal, search(shown(number + 1), at_s=at_s), recorded_s=at_s)
        folded(journal)
    assert journal.execute("SELECT count(*) FROM ledger.seen_runs").fetchone() == (14,)
    record(journal, *(search(shown(number + 1), at_s=now + 1) for number in range(15)))
    assert folded(journal)[15:] == [0, *[Outcome.SEEN] * 14]


def test_what_an_heir_records_late_is_a_repeat_though_runs_were_merged_since(journal: Conn) -> None:
    fund(journal, 100_000)
    now = time.time()
    record(journal, search(shown(1), at_s=now - 47 * 3600), recorded_s=now - 47 * 3600)
    folded(journal)
    for number in range(15):  # enough folds for runs to be merged
        record(journal, search(shown(number + 10), at_s=now))
        folded(journal)
    before, began = earned(journal), open_incarnation(journal)
    change(journal, "UPDATE ledger.incarnations SET started_at = now() - interval '30 days' WHERE id = %s", began)
    record(journal, search(shown(1), at_s=now - 46 * 3600), incarnation=began, adopted=True)
    folded(journal)
    assert earned(journal) == before


def test_what_was_recorded_before_the_upgrade_keeps_its_day(ground: Settings) -> None:
    """Of an older release nobody knows what an heir recorded."""
    every = migrations.registered()
    before = [each for each in every if not (each.package == "ledger" and each.name >= "0010")]
    assert len(before) < len(every)
    with fresh_database(ground, "template0") as url:
        migrations.migrate(url, before)
        batch = spool.pack([search(shown(1))])
        with database.connect(url, autocommit=True) as connection:
            number = open_incarnation(connection)
            connection.execute(
                "INSERT INTO ledger.appearance_batches"
                " (incarnation, seq, searches, appearances, payload, sha256, format) VALUES (%s, 0, 1, 1, %s, %s, %s)",
                (number, batch.payload, hashlib.sha256(batch.payload).digest(), batch.format),
            )
            migrations.migrate(url)
            record(connection, search(shown(2)))
            rows = connection.execute("SELECT adopted FROM ledger.appearance_batches ORDER BY recorded_at").fetchall()
    assert rows == [(True,), (False,)]


def test_a_platform_that_takes_nothing_and_a_fold_of_nothing_new(journal: Conn) -> None:
    fund(journal, 10_000)
    everything = dataclasses.replace(DEMO, creator_share_ppm=1_000_000)
    record(journal, search(shown(1), key=b"k" * 16))
    assert folded(journal, everything) == [0]
    assert earned(journal) == {1: 1000}
    record(journal, search(shown(2), key=b"k" * 16))
    assert folded(journal, everything) == [0, Outcome.REPEATED_KEY]
    assert_whole(journal)


def test_earnings_that_were_taken_back_mature_to_nothing(journal: Conn) -> None:
    fund(journal, 10_000)
    record(journal, search(shown(1, 1)))
    folded(journal, Economics(maturity_s=3600))
    account = book.accounts_of(journal, "maturing", "creator", [1])[1]
    lines = [(account, -900), (book.account(journal, "reward_pool"), 900)]
    book.post(journal, book.Entry("reversal_fan_in", "taken", lines))
    journal.execute("UPDATE ledger.maturing SET amount_pix = 0, matures_at = now() - interval '1 s'")
    assert fold.mature(journal) == 0
    assert journal.execute("SELECT count(*) FROM ledger.maturing").fetchone() == (0,)
    assert_whole(journal)


# ── Networks of anonymous viewers ──────────────────────────────────────────────────────────────────────────────────

HOME, ELSEWHERE = b"h" * 16, b"e" * 16
DAY_S = 86_400


def by(who: str, segment: int, origin: bytes, at_s: float | None = None) -> bytes:
    """One viewer's search, which showed one moment worth 1000."""
    at_ms = int((time.time() if at_s is None else at_s) * 1000)
    return search_record([shown(segment, segment, who=who)], spool.NO_KEY, bytes(8), at_ms, origin)


def test_a_hundred_cookies_of_one_network_earn_no_more_than_its_day_allows(journal: Conn) -> None:
    fund(journal, 10**9)
    bounded = Economics(maturity_s=0, address_day_max_pix=4000)
    record(journal, *(by(f"cookie {number}", number, HOME) for number in range(1, 101)))
    assert folded(journal, bounded) == [Outcome.FUNDED] * 4 + [Outcome.CAPPED] * 96
    record(journal, *(by(f"more {number}", number, HOME) for number in range(1, 4)), by("x", 7, ELSEWHERE))
    assert folded(journal, bounded)[100:] == [Outcome.CAPPED] * 3 + [Outcome.FUNDED]  # another ledger knows it too
    assert_whole(journal)


def test_a_networks_day_begins_at_midnight_utc(journal: Conn) -> None:
    fund(journal, 10**9)
    midnight = time.time() // DAY_S * DAY_S
    bounded = Economics(maturity_s=0, address_day_max_pix=1000)
    record(
        journal, by("a", 1, HOME, midnight - 1), by("b", 2, HOME, midnight - 1), by("c", 3, HOME, midnight),
        recorded_s=midnight + 1,
    )  # fmt: skip
    assert folded(journal, bounded) == [Outcome.FUNDED, Outcome.CAPPED, Outcome.FUNDED]


def test_viewers_with_keys_are_of_no_network(journal: Conn) -> None:
    fund(journal, 10**9)
    bounded = Economics(maturity_s=0, address_day_max_pix=1000)
    record(journal, *(by(f"key {number}", number, spool.NO_ORIGIN) for number in range(1, 21)), by("a", 30, HOME))
    assert folded(journal, bounded) == [Outcome.FUNDED] * 21
    record(journal, by("b", 31, HOME), by("key", 32, spool.NO_ORIGIN))
    assert folded(journal, bounded)[21:] == [Outcome.CAPPED, Outcome.FUNDED]


def test_a_viewers_own_bound_holds_beside_that_of_the_network(journal: Conn) -> None:
    fund(journal, 10**9)
    bounded = Economics(maturity_s=0, viewer_day_max_pix=2000, address_day_max_pix=3000)
    record(journal, *(by("one", number, HOME) for number in range(1, 5)), *(by("two", n, HOME) for n in range(11, 15)))
    assert (
        folded(journal, bounded)
        == [Outcome.FUNDED] * 2 + [Outcome.CAPPED] * 2 + [Outcome.FUNDED] + [Outcome.CAPPED] * 3
    )


def test_without_a_bound_for_networks_there_is_none(journal: Conn) -> None:
    fund(journal, 10**9)
    record(journal, *(by(f"cookie {number}", number, HOME) for number in range(1, 21)))
    assert folded(journal, Economics(maturity_s=0, address_day_max_pix=0)) == [Outcome.FUNDED] * 20


def test_a_networks_bound_is_more_than_a_viewers_own_and_less_than_a_creators() -> None:
    economics = Economics()
    assert economics.viewer_day_max_pix < economics.address_day_max_pix
    assert economics.address_day_max_pix < economics.creator_day_max_pix


def test_an_appearance_that_is_worth_nothing_does_not_use_up_the_day_of_one_that_is(journal: Connection[Any]) -> None:
    fund(journal, 10_000)
    record(journal, *(search(shown(1, 1, amount, "v")) for amount in (0, 1000, 1000)))
    assert folded(journal) == [Outcome.UNEARNED, Outcome.FUNDED, Outcome.SEEN]


# ── Clocks that are wrong ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("days", [2, -2, 20_000, -20_000])
def test_a_replica_whose_clock_is_wrong_lets_no_repeat_pay_and_no_cap_rise(journal: Conn, days: int) -> None:
    """One replica's clock moves nobody's day: neither what was seen nor what was earned is forgotten for it."""
    fund(journal, 10**9)
    bounded = dataclasses.replace(DEMO, creator_day_max_pix=20_000)
    noon_s = (time.time() // DAY_S - 0.5) * DAY_S  # what is believed of a wrong clock is of the same day
    accountant, wrong_s = Fold(journal, bounded, LedgerSettings()), noon_s + days * DAY_S
    for turn in range(30):  # enough folds for runs to be merged several times
        wrong = search(shown(1000 + turn, 2, who=f"w{turn}"), at_s=wrong_s)
        both = search(shown(1, 1), at_s=noon_s), search(shown(2 + turn, 1, who="x"), at_s=wrong_s)
        record(journal, wrong, recorded_s=noon_s)
        record(journal, *both, recorded_s=noon_s)
        accountant.run_once()
    got = earned(journal)
    assert got == {1: 18_000, 2: 18_000}  # twenty appearances each, the first of them once
    assert_whole(journal)


def test_repeats_are_known_whatever_the_clocks_of_two_replicas_say(journal: Conn) -> None:
    fund(journal, 10**9)
    for skew_s in (0, -DAY_S - 60, DAY_S + 60, 40 * DAY_S):
        record(journal, search(shown(1), at_s=time.time() + skew_s))
        folded(journal)
    assert earned(journal) == {1: 900}


def test_what_an_heir_records_late_is_of_the_day_it_was_made_and_never_older_than_its_incarnation(
    journal: Conn,
) -> None:
    fund(journal, 10**9)
    bounded, now = dataclasses.replace(DEMO, creator_day_max_pix=1000), time.time()
    record(journal, search(shown(1)))
    assert folded(journal, bounded) == [Outcome.FUNDED]
    began = open_incarnation(journal)
    journal.execute("UPDATE ledger.incarnations SET started_at = now() - interval '30 days' WHERE id = %s", (began,))
    record(journal, search(shown(2), at_s=now - DAY_S), incarnation=began, adopted=True)
    assert folded(journal, bounded)[1:] == [Outcome.FUNDED]  # yesterday's day
    record(journal, search(shown(3), at_s=now - 40 * DAY_S), incarnation=began, seq=1, adopted=True)
    assert folded(journal, bounded)[2:] == [Outcome.FUNDED]  # as old as is remembered
    record(journal, search(shown(4), at_s=now - 40 * DAY_S), incarnation=began, seq=2, adopted=True)
    assert folded(journal, bounded)[3:] == [Outcome.CAPPED]
    record(journal, search(shown(5), at_s=now - 9 * DAY_S), adopted=True)  # forged: it began a moment ago
    assert folded(journal, bounded)[4:] == [Outcome.CAPPED]


def away_for(connection: Conn, days: int, *searches: bytes) -> None:
    """The spool of a replica that began so long ago comes back; its searches are said to be as old."""
    began = open_incarnation(connection)
    change(connection, "UPDATE ledger.incarnations SET started_at = now() - make_interval(days => %s) WHERE id = %s",
           days + 1, began)  # fmt: skip
    record(connection, *searches, incarnation=began, adopted=True)


@pytest.mark.parametrize("days", [32, 25])
def test_a_search_that_comes_after_its_key_is_forgotten_pays_no_second_time(
    settings: Settings, journal: Conn, days: int
) -> None:
    """A replica's disk was away; its client had asked another one again. Keys that are there tell whether it had."""
    fund(journal, 10**9)
    long_ago, keys = time.time() - days * DAY_S, [bytes([each]) * 16 for each in range(1, 5)]
    for key in keys[:2]:
        record(journal, search(shown(1), key=key, at_s=long_ago))
    assert sorted(folded(journal)) == [Outcome.FUNDED, Outcome.SEEN]
    change(journal, "UPDATE ledger.idempotency SET created_at = now() - make_interval(days => %s)", days)
    keeping = Keeping(settings, Epoch())
    keeping.round()
    keeping.close()
    book.take_epoch(journal, "test")
    away_for(journal, days, *(search(shown(n + 2), key=keys[n], at_s=long_ago - 60) for n in (0, 2)))
    away_for(journal, days, search(shown(9), at_s=long_ago))  # without a key it is told from no other
    away_for(journal, 2, search(shown(10), key=keys[3], at_s=long_ago))  # a replica's own clock was wrong
    record(journal, search(shown(11), key=b"l" * 16, at_s=long_ago))
    is_known = Outcome.FUNDED if days < 30 else Outcome.REPEATED_KEY
    found = Fold(journal, DEMO, LedgerSettings())
    while found.run_once() is not None:
        pass
    rows = journal.execute(
        "SELECT o.outcome FROM ledger.outcomes o JOIN ledger.appearance_batches b USING (incarnation, seq)"
        " ORDER BY b.recorded_at"
    ).fetchall()
    told = [outcome for (row,) in rows for outcome in bytes(row)][2:]
    assert told == [Outcome.REPEATED_KEY, is_known, *[Outcome.FUNDED] * 3]
    kept = journal.execute("SELECT count(*) FROM ledger.idempotency WHERE key = ANY(%s)", (keys[:3],)).fetchone()
    assert kept == ((0,) if days > 30 else (3,))  # what is too late is no use of its key


def test_a_wrong_clock_is_said_once_in_a_while(journal: Conn, caplog: pytest.LogCaptureFixture) -> None:
    accountant, ahead_s = Fold(journal, DEMO, LedgerSettings()), time.time() + DAY_S
    number = record(journal, search(shown(1), at_s=ahead_s))
    for seq in (1, 2):
        accountant.run_once()
        record(journal, search(shown(seq + 1), at_s=ahead_s), incarnation=number, seq=seq)
    accountant.run_once()
    said = [each for each in caplog.records if "clock is wrong" in each.message]
    assert len(said) == 1
    skew_ms: int = vars(said[0])["skew_ms"]
    assert abs(skew_ms - DAY_S * 1000) < 60_000


def test_days_that_are_over_are_forgotten_by_the_clock_even_where_nothing_newer_came(journal: Conn) -> None:
    fund(journal, 10**9)
    accountant, long_ago = Fold(journal, DEMO, LedgerSettings()), time.time() - 10 * DAY_S
    for turn in range(14):
        record(journal, search(shown(turn, turn, who=f"v{turn}"), at_s=long_ago), recorded_s=long_ago)
        accountant.run_once()
    assert review.review(journal, accountant.audience, DEMO) == 0  # until then pairs stay
    record(journal, search(shown(1, 1, who="v1")))
    accountant.run_once()
    for table in ("seen_runs", "day_runs", "pair_runs"):
        assert journal.execute(f"SELECT count(*) FROM ledger.{table}").fetchone() <= (5,), table
    assert earned(journal)[1] == 1800


def test_what_a_clock_that_ran_ahead_has_left_keeps_no_day_from_being_forgotten(journal: Conn) -> None:
    """The database's own clock was forty days ahead for a moment: that row is of no day, but may hold today's, too."""
    today = book.clock_s(journal) // DAY_S
    rows = {1: today - 9, 2: today - 8, 3: today + 40, 4: today - 8, 5: today + 40, 6: today, 7: today}

    def forgotten(since: int) -> list[int]:
        for number, newest_day in rows.items():
            journal.execute(
                "INSERT INTO ledger.day_runs (id, kind, keys, days, amounts, newest_day) OVERRIDING SYSTEM VALUE"
                " VALUES (%s, 'viewer', '', '', '', %s) ON CONFLICT DO NOTHING",
                (number, newest_day),
            )
        oldest = caps.forget(journal, "day_runs", since, kind="viewer")
        left = [row[0] for row in journal.execute("SELECT id FROM ledger.day_runs ORDER BY id")]
        assert oldest <= left[0] if left else oldest <= 8
        journal.rollback()
        return left

    assert forgotten(today - 10) == [1, 2, 3, 4, 5, 6, 7]
    assert forgotten(today - 9) == [2, 3, 4, 5, 6, 7]
    assert forgotten(today - 3) == [5, 6, 7]  # the one ahead beside today's stays as long as these
    assert forgotten(today) == []
    rows = {1: today + 40, 2: today + 40}
    assert forgotten(today - 3) == [1, 2]


def backlog(connection: Conn, *searches: bytes) -> None:
    """One replica's searches, each recorded when it was made, none of them folded since."""
    number = open_incarnation(connection)
    for seq, each in enumerate(searches):
        at_s = float(np.frombuffer(each, spool.SEARCH, 1)["at_ms"][0]) / 1000
        record(connection, each, incarnation=number, seq=seq, recorded_s=at_s)


def test_a_backlog_of_days_pays_no_repeat(journal: Conn) -> None:
    """While it is folded, what was seen then is not forgotten by the clock of now."""
    fund(journal, 10**9)
    began = time.time() - 4 * DAY_S
    others = [search(shown(100 + turn, 2), at_s=began + turn) for turn in range(15)]
    backlog(journal, search(shown(1, 1), at_s=began), *others, search(shown(1, 1), at_s=began + 3600))
    record(journal, search(shown(1, 1)))  # a day later it counts again
    folded(journal, DEMO, LedgerSettings(fold_batches_max=1))
    assert earned(journal) == {1: 1800, 2: 15 * 900}
    assert_whole(journal)


def test_a_backlog_of_days_lets_no_cap_rise(journal: Conn) -> None:
    fund(journal, 10**9)
    bounded, began = dataclasses.replace(DEMO, creator_day_max_pix=5000), (time.time() // DAY_S - 4) * DAY_S + 3600
    backlog(journal, *(search(shown(turn, 1, who=f"v{turn}"), at_s=began + turn) for turn in range(30)))
    folded(journal, bounded, LedgerSettings(fold_batches_max=1))
    assert earned(journal) == {1: 4500}


def test_the_replica_that_is_folded_last_is_as_old_as_the_first(journal: Conn) -> None:
    fund(journal, 10**9)
    began, now = time.time() - 4 * DAY_S, int(time.time())
    assert waiting.since_s(journal, now) == now
    backlog(journal, *(search(shown(turn, 1), at_s=began + turn * 3600) for turn in range(80)))
    backlog(journal, search(shown(0, 1), at_s=began + 60))
    accountant = Fold(journal, DEMO, LedgerSettings(fold_batches_max=1))
    while accountant.run_once() is not None:
        pass
    assert earned(journal) == {1: 80 * 900}
    assert waiting.since_s(journal, now) == now


def test_what_waits_for_longer_than_a_week_keeps_no_more_than_a_week(journal: Conn) -> None:
    now = int(time.time())
    backlog(journal, search(shown(1, 1), at_s=now - 40 * DAY_S))
    assert waiting.since_s(journal, now) == now - waiting.REMEMBERED_S


def test_what_an_older_version_kept_of_a_clock_ahead_keeps_nobody_from_earning_for_long(journal: Conn) -> None:
    fund(journal, 10**9)
    record(journal, search(shown(1)))
    folded(journal)
    query = "UPDATE ledger.seen_runs SET seconds = %s, mark = NULL"  # it knew no marks
    change(journal, query, np.array([2**32 - 1], "<u4").tobytes())
    record(journal, search(shown(1)))
    assert folded(journal) == [Outcome.FUNDED, Outcome.SEEN]
    tomorrow = time.time() + DAY_S + 60
    record(journal, search(shown(1), at_s=tomorrow), recorded_s=tomorrow)
    assert folded(journal)[2:] == [Outcome.FUNDED]


def test_what_waits_while_the_databases_clock_is_set_back_pays_no_second_time(journal: Conn) -> None:
    """It was recorded before that, as were the looks that it repeats; and the ledger has begun anew since."""
    fund(journal, 10**9)
    before = time.time() + 26 * 3600
    record(journal, search(shown(1), at_s=before), recorded_s=before)
    folded(journal)
    record(journal, search(shown(1), at_s=before + 120), recorded_s=before + 120)
    assert folded(journal) == [Outcome.FUNDED, Outcome.SEEN]
    assert earned(journal) == {1: 900}


# ── Batches that cannot be read ────────────────────────────────────────────────────────────────────────────────────


def put(
    connection: Conn, number: UUID, seq: int, payload: bytes, form: int = spool.FORMAT, appearances: int = 1
) -> None:
    """A batch as another version, or a fault, has left it."""
    batch = spool.Batch(1, appearances, payload, form)
    assert connection.execute(RECORDED, parameters(number, seq, batch)).rowcount == 1
    connection.commit()


@pytest.mark.parametrize("batches_max", [2, 5000])
def test_a_batch_of_a_newer_format_stops_its_incarnation_until_a_newer_version_folds(
    journal: Conn, monkeypatch: pytest.MonkeyPatch, batches_max: int
) -> None:
    fund(journal, 10**9)
    rolled = record(journal, search(shown(1, 1)))
    put(journal, rolled, 1, spool.pack([search(shown(2, 1))]).payload, form=99)
    record(journal, search(shown(3, 1)), incarnation=rolled, seq=2)
    accountant = Fold(journal, DEMO, LedgerSettings(fold_batches_max=batches_max))
    for creator in (2, 3):
        record(journal, search(shown(4 + creator, creator)))
        while accountant.run_once() is not None:
            pass
        assert earned(journal)[creator] == 900
    assert earned(journal)[1] == 900
    monkeypatch.setitem(spool.SEARCHES, 99, spool.SEARCH)  # the newer version
    folded(journal)
    assert earned(journal) == {1: 2700, 2: 900, 3: 900}
    assert_whole(journal)


def test_a_damaged_batch_is_set_aside_and_what_follows_is_folded(journal: Conn) -> None:
    fund(journal, 10**9)
    good = spool.pack([search(shown(2, 1))]).payload
    number = record(journal, search(shown(1, 1)))
    negative = np.frombuffer(good[spool.HEAD.size + spool.SEARCH.itemsize :], spool.SHOWN).copy()
    negative["amount_pix"] = -1000
    put(journal, number, 1, good[:-1])
    put(journal, number, 2, good, appearances=7)
    put(journal, number, 3, good[: spool.HEAD.size + spool.SEARCH.itemsize] + negative.tobytes())
    record(journal, search(shown(3, 1)), incarnation=number, seq=4)
    folded(journal)
    assert earned(journal) == {1: 1800}
    put(journal, number, 5, b"")
    assert folded(journal) == [Outcome.FUNDED] * 2  # alone in its fold
    aside = journal.execute("SELECT seq FROM ledger.set_aside ORDER BY seq").fetchall()
    assert aside == [(1,), (2,), (3,), (5,)]
    checks = audit.run(journal, None, None, full=True)
    assert all(check.ok for check in checks)
    assert any("4 damaged batches set aside" in check.detail for check in checks)
    assert Fold(journal, DEMO, LedgerSettings()).run_once() is None
