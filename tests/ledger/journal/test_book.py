"""The database itself keeps the journal exact: what is wrong is refused by name and changes nothing."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import psycopg
import pytest
from psycopg import Connection

from cluster.database import database
from cluster.errors import Rejected
from ledger.audit import audit
from ledger.journal import book
from ledger.journal.book import Entry, Fenced

Conn = Connection[Any]


def creators(connection: Conn, *ids: int) -> list[int]:
    known = book.accounts_of(connection, "payable", "creator", ids)
    connection.commit()
    return [known[each] for each in ids]


def fund(connection: Conn, amount: int = 1000, key: str = "deposit:1") -> None:
    chain, pool = book.account(connection, "chain"), book.account(connection, "reward_pool")
    book.post(connection, Entry("deposit", key, [(chain, -amount), (pool, amount)]))
    book.commit(connection)


def pay(connection: Conn, account: int, amount: int, key: str) -> book.Written:
    pool = book.account(connection, "reward_pool")
    written = book.post(connection, Entry("accrual", key, [(pool, -amount), (account, amount)]))
    book.commit(connection)
    return written


def snapshot(connection: Conn) -> list[Any]:
    connection.rollback()
    rows = connection.execute(
        "SELECT (SELECT array_agg((id, balance) ORDER BY id) FROM ledger.accounts)::text, count(*), max(hash)"
        " FROM ledger.entries"
    ).fetchall()
    connection.rollback()
    return rows


def test_accounts_are_opened_beside_those_there_are(journal: Conn) -> None:
    first = creators(journal, 1, 2)
    again = creators(journal, 2, 3)
    assert again[0] == first[1]
    assert len({*first, *again}) == 3


def test_an_entry_moves_balances_and_the_same_key_again_moves_nothing(journal: Conn) -> None:
    (account,) = creators(journal, 1)
    fund(journal)
    written = pay(journal, account, 400, "a")
    assert written.new
    again = pay(journal, account, 400, "a")
    assert (again.id, again.new) == (written.id, False)
    assert book.balance(journal, account) == 400
    assert book.balance(journal, book.account(journal, "reward_pool")) == 600


def test_a_balance_is_known_as_of_any_time(journal: Conn) -> None:
    (account,) = creators(journal, 1)
    fund(journal)
    pay(journal, account, 400, "a")
    between = journal.execute("SELECT clock_timestamp()").fetchone()
    journal.commit()
    assert between is not None
    pay(journal, account, 100, "b")
    assert book.balance(journal, account, between[0]) == 400
    assert book.balance(journal, account, datetime.now(UTC) + timedelta(hours=1)) == 500
    assert book.balance(journal, account, datetime(2000, 1, 1, tzinfo=UTC)) == 0


def test_an_entry_is_reversed_once_by_a_new_one(journal: Conn) -> None:
    (account,) = creators(journal, 1)
    fund(journal)
    written = pay(journal, account, 400, "a")
    first = book.reverse(journal, written.id, "a mistake")
    book.commit(journal)
    assert not book.reverse(journal, written.id, "a mistake").new
    assert book.balance(journal, account) == 0
    assert first.new
    with pytest.raises(Rejected) as refusal:
        book.reverse(journal, written.id, "another reason")
    assert refusal.value.code == "key-reused"
    with pytest.raises(Rejected) as refusal:
        book.reverse(journal, 999, "nothing there")
    assert refusal.value.code == "entry-unknown"


def entry(key: str, *lines: tuple[str, int]) -> tuple[str, list[tuple[str, int]]]:
    """An entry over named accounts, to be posted once their numbers are known."""
    return key, list(lines)


LIMIT = 2**63
BAD = {
    "key-reused": entry("a", ("reward_pool", -2), ("creator", 2)),
    "account-unknown": entry("b", ("reward_pool", -2), ("nobody", 2)),
    "balance-too-low": entry("b", ("creator", -401), ("reward_pool", 401)),
    "balance-too-low ": entry("b", ("reward_pool", -601), ("creator", 601)),
    "entry-too-short": entry("b", ("reward_pool", -1)),
    "posting-empty": entry("b", ("reward_pool", 0), ("creator", 0)),
    "amount-not-whole": entry("b", ("reward_pool", -1.5), ("creator", 1.5)),  # type: ignore[arg-type]
    "amount-too-large": entry("b", ("reward_pool", -LIMIT), ("creator", LIMIT)),
    "amount-too-large ": entry("b", ("chain", 1 - LIMIT), ("reward_pool", LIMIT - 1)),  # the balance would be too large
}


@pytest.mark.parametrize("code", BAD)
def test_bad_entries_are_refused_by_name_and_change_nothing(journal: Conn, code: str) -> None:
    key, lines = BAD[code]
    (account,) = creators(journal, 1)
    fund(journal)
    pay(journal, account, 400, "a")
    before = snapshot(journal)
    named = {"creator": account, "nobody": 10**9}
    named |= {kind: book.account(journal, kind) for kind in ("reward_pool", "chain")}
    with pytest.raises(Rejected) as refusal:
        book.post(journal, Entry("accrual", key, [(named[name], amount) for name, amount in lines]))
    assert refusal.value.code == code.strip()
    assert snapshot(journal) == before


def long_entry(pool: int, accounts: list[int], key: str) -> Entry:
    """One unit for each account, as the fold writes it: in an array, and long enough to be copied."""
    lines = [(pool, -len(accounts)), *((account, 1) for account in accounts)]
    return Entry("accrual", key, np.array(lines, np.int64))


def test_a_long_entry_is_like_any_other(journal: Conn) -> None:
    accounts, pool = creators(journal, *range(1, 2 * book.COPIED_LINES_MIN)), book.account(journal, "reward_pool")
    fund(journal, 1000)
    first = book.post(journal, long_entry(pool, accounts, "a"))
    again = book.post(journal, long_entry(pool, accounts, "a"))
    book.commit(journal)
    assert (first.new, again) == (True, book.Written(first.id, new=False))
    assert {book.balance(journal, account) for account in accounts} == {1}
    assert book.balance(journal, pool) == 1000 - len(accounts)
    assert all(check.ok for check in audit.run(journal, None, None, full=True))


@pytest.mark.parametrize(
    "code", ["account-unknown", "balance-too-low", "posting-empty", "amount-too-large", "key-reused"]
)
def test_a_bad_long_entry_is_refused_by_name_and_changes_nothing(journal: Conn, code: str) -> None:
    accounts, pool = creators(journal, *range(1, 2 * book.COPIED_LINES_MIN)), book.account(journal, "reward_pool")
    fund(journal, len(accounts))
    book.post(journal, Entry("accrual", "a", [(pool, -1), (accounts[0], 1)]))
    book.commit(journal)
    lines = np.array([(pool, 2 - len(accounts)), *((account, 1) for account in accounts[2:])], np.int64)
    if code == "account-unknown":
        lines[7, 0] = 10**9
    elif code == "balance-too-low":
        lines[7, 1] -= 2
    elif code == "posting-empty":
        lines[7, 1] = 0
    elif code == "amount-too-large":
        lines[7, 1] = -LIMIT
    before = snapshot(journal)
    with pytest.raises(Rejected) as refusal:
        book.post(journal, Entry("accrual", "a" if code == "key-reused" else "b", lines))
    assert refusal.value.code == code
    assert snapshot(journal) == before


def epoch_of(connection: Conn) -> int:
    row = connection.execute("SELECT epoch FROM ledger.fence").fetchone()
    assert row is not None
    return int(row[0])


def test_writers_of_the_same_accounts_in_any_order_never_block_each_other_for_good(
    journal: Conn, postgres_url: str
) -> None:
    accounts, pool = creators(journal, *range(1, 2 * book.COPIED_LINES_MIN)), book.account(journal, "reward_pool")
    rounds, writers, epoch = 6, 3, epoch_of(journal)
    fund(journal, rounds * writers * len(accounts))

    def write(name: int) -> None:
        with database.connect(postgres_url) as connection:
            book.hold_epoch(connection, epoch)
            for number in range(rounds):
                mine = random.Random(name * rounds + number).sample(accounts, len(accounts))
                book.post(connection, long_entry(pool, mine, f"{name}:{number}"))
                book.commit(connection)

    with ThreadPoolExecutor(writers) as executor:
        for done in [executor.submit(write, name) for name in range(writers)]:
            done.result(60)
    assert {book.balance(journal, account) for account in accounts} == {rounds * writers}


def test_unknown_accounts_are_refused_by_name(journal: Conn) -> None:
    for ask in (lambda: book.account(journal, "treasure"), lambda: book.balance(journal, 10**9)):
        with pytest.raises(Rejected) as refusal:
            ask()
        assert refusal.value.code == "account-unknown"


def test_an_entry_that_does_not_sum_to_zero_is_refused_at_commit(journal: Conn) -> None:
    (account,) = creators(journal, 1)
    fund(journal)
    before = snapshot(journal)
    book.post(journal, Entry("accrual", "b", [(book.account(journal, "reward_pool"), -5), (account, 4)]))
    with pytest.raises(Rejected, match="does not sum to zero"):
        book.commit(journal)
    assert snapshot(journal) == before


def test_zero_is_asked_of_each_asset(journal: Conn) -> None:
    fund(journal)
    pool, lamports = book.account(journal, "reward_pool"), book.account(journal, "platform", "SOL")
    book.post(journal, Entry("accrual", "b", [(pool, -5), (lamports, 5)]))
    with pytest.raises(Rejected, match="does not sum to zero"):
        book.commit(journal)


TAMPERING = [
    "UPDATE ledger.entries SET document = '{}'",
    "DELETE FROM ledger.entries",
    "TRUNCATE ledger.entries CASCADE",
    "UPDATE ledger.postings SET amount = amount * 2",
    "DELETE FROM ledger.postings",
    "TRUNCATE ledger.postings",
    "UPDATE ledger.accounts SET balance = balance + 1 WHERE kind = 'reward_pool'",
    "DELETE FROM ledger.accounts",
    "TRUNCATE ledger.accounts CASCADE",
    "INSERT INTO ledger.accounts (kind, party, owner, balance) VALUES ('payable', 'creator', 77, 5)",
    "INSERT INTO ledger.postings (entry_id, line, account_id, amount) SELECT 1, 3, id, 5 FROM ledger.accounts LIMIT 1",
]


@pytest.mark.parametrize("statement", TAMPERING)
def test_the_journal_is_append_only_for_everyone(journal: Conn, statement: str) -> None:
    fund(journal)
    before = snapshot(journal)
    with pytest.raises(psycopg.DatabaseError) as refusal:
        journal.execute(statement)  # type: ignore[arg-type]
    assert refusal.value.sqlstate in (book.CHANGED, book.UNBALANCED)
    assert snapshot(journal) == before


def insert_entry(connection: Conn, number: int, prev: bytes, hashed: bytes) -> None:
    connection.execute(
        "INSERT INTO ledger.entries (id, kind, key, content, lines, epoch, occurred_at, prev_hash, hash)"
        " VALUES (%s, 'x', 'x', sha256('x'), 2, 1, now(), %s, %s)",
        (number, prev, hashed),
    )


def test_an_entry_off_the_chain_or_with_a_false_hash_is_refused(journal: Conn) -> None:
    fund(journal)
    head = journal.execute("SELECT hash FROM ledger.chain_head").fetchone()
    assert head is not None
    for number, prev in ((2, bytes(32)), (3, bytes(head[0])), (1, bytes(head[0]))):
        with pytest.raises(Rejected, match="does not continue"), book.refusals():
            insert_entry(journal, number, prev, bytes(32))
        journal.rollback()
    pool, chain = book.account(journal, "reward_pool"), book.account(journal, "chain")
    insert_entry(journal, 2, bytes(head[0]), b"\1" * 32)
    journal.execute("INSERT INTO ledger.postings VALUES (2, 1, %s, -5), (2, 2, %s, 5)", (chain, pool))
    with pytest.raises(Rejected, match="the hash of entry 2 is not true"):
        book.commit(journal)


def test_an_entry_with_postings_missing_is_refused(journal: Conn) -> None:
    head = bytes(32)
    insert_entry(journal, 1, head, b"\1" * 32)
    with pytest.raises(Rejected, match="0 postings of 2"):
        book.commit(journal)


def test_only_the_newest_epoch_writes(journal: Conn, postgres_url: str) -> None:
    fund(journal)
    with database.connect(postgres_url) as younger:
        epoch = book.take_epoch(younger, "younger")
        before = snapshot(younger)
        with pytest.raises(Fenced):
            fund(journal, key="deposit:2")
        journal.rollback()
        assert snapshot(younger) == before
        fund(younger, key="deposit:2")
    book.hold_epoch(journal, epoch)
    fund(journal, key="deposit:3")


def test_without_an_epoch_nobody_writes(journal: Conn, postgres_url: str) -> None:
    with database.connect(postgres_url) as stranger, pytest.raises(Fenced):
        fund(stranger)


def test_a_new_epoch_waits_for_the_write_under_way(journal: Conn, postgres_url: str) -> None:
    chain, pool, before = book.account(journal, "chain"), book.account(journal, "reward_pool"), epoch_of(journal)
    book.post(journal, Entry("deposit", "slow", [(chain, -1), (pool, 1)]))
    taken: list[int] = []
    with database.connect(postgres_url) as younger:
        taking = threading.Thread(target=lambda: taken.append(book.take_epoch(younger, "younger")))
        taking.start()
        taking.join(0.3)
        assert taken == []
        book.commit(journal)
        taking.join(20)
    assert [epoch > before for epoch in taken] == [True]


def test_many_writers_of_one_account_keep_every_constraint(journal: Conn, postgres_url: str) -> None:
    """Four sessions under one epoch pay the same account and take from the same pool until it is empty."""
    writers, each, pool_pix, epoch = 4, 15, 500, epoch_of(journal)
    (account,) = creators(journal, 1)
    fund(journal, pool_pix)
    refused: list[str] = []

    def write(name: int) -> None:
        with database.connect(postgres_url) as connection:
            book.hold_epoch(connection, epoch)
            for number in range(each):
                try:
                    pay(connection, account, 10 + name, f"{name}:{number}")
                except Rejected as refusal:
                    connection.rollback()
                    refused.append(refusal.code)

    threads = [threading.Thread(target=write, args=(name,)) for name in range(writers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    held, left = book.balance(journal, account), book.balance(journal, book.account(journal, "reward_pool"))
    assert held + left == pool_pix
    assert 0 <= left < 10 + writers
    assert set(refused) == {"balance-too-low"}
    assert all(check.ok for check in audit.run(journal, None, None, full=True))


def test_the_hash_chain_is_verified_offline_and_names_the_entry(journal: Conn) -> None:
    """A tamperer who switches the database's triggers off is still found."""
    (account,) = creators(journal, 1)
    fund(journal)
    pay(journal, account, 400, "a")
    checks = {check.name: check for check in audit.run(journal, None, None, full=True)}
    assert all(check.ok for check in checks.values())
    journal.execute("SET session_replication_role = replica")
    journal.execute("UPDATE ledger.entries SET document = '{\"a\": 1}' WHERE id = 1")
    journal.execute("UPDATE ledger.accounts SET balance = 401 WHERE id = %s", (account,))
    journal.commit()
    found = {check.name: check for check in audit.run(journal, None, None, full=True)}
    assert not found["hash chain"].ok
    assert "entry 1 (deposit:1)" in found["hash chain"].detail
    assert not found["balances"].ok


def test_other_faults_of_the_database_are_not_called_refusals(journal: Conn) -> None:
    fund(journal)
    pool, chain = book.account(journal, "reward_pool"), book.account(journal, "chain")
    with pytest.raises(psycopg.errors.CheckViolation):
        book.post(journal, Entry("Not A Kind", "b", [(chain, -1), (pool, 1)]))
    journal.rollback()
    with pytest.raises(psycopg.errors.UndefinedTable), book.refusals():
        journal.execute("SELECT * FROM ledger.nothing")
