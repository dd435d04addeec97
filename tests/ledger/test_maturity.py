"""What has matured becomes payable to who earned it, once and to the unit; what has not waits."""

from __future__ import annotations

from typing import Any

from psycopg import Connection

from ledger import book, fold
from tests.ledger.test_book import fund
from tests.ledger.test_fold import assert_whole, earned

Conn = Connection[Any]


def earn(connection: Conn, party: str, owner: int, *buckets: tuple[int, int]) -> None:
    """Earnings that mature: each bucket is (seconds from now, amount)."""
    account = book.accounts_of(connection, "maturing", party, [owner])[owner]
    total = sum(amount for _, amount in buckets)
    lines = [(book.account(connection, "reward_pool"), -total), (account, total)]
    book.post(connection, book.Entry("accrual", f"earned:{party}:{owner}", lines))
    for in_s, amount in buckets:
        connection.execute(
            "INSERT INTO ledger.maturing VALUES (%s, now() + make_interval(secs => %s), %s)", (account, in_s, amount)
        )
    connection.commit()


def waiting(connection: Conn) -> list[int]:
    rows = connection.execute("SELECT amount_pix FROM ledger.maturing ORDER BY amount_pix").fetchall()
    connection.commit()
    return [amount for (amount,) in rows]


def test_each_owner_gets_what_has_matured_of_theirs_and_the_rest_waits(journal: Conn) -> None:
    fund(journal, 10_000)
    earn(journal, "creator", 1, (-3600, 100), (-60, 20), (3600, 3))
    earn(journal, "creator", 2, (-5, 400), (7200, 5))
    earn(journal, "creator", 3, (60, 6))
    earn(journal, "investor", 1, (-1800, 1000), (1800, 7))  # an owner of the same number, of another party
    assert fold.mature(journal) == 1520
    assert earned(journal) == {1: 120, 2: 400}
    assert earned(journal, "payable", "investor") == {1: 1000}
    assert earned(journal, "maturing") == {1: 3, 2: 5, 3: 6}
    assert earned(journal, "maturing", "investor") == {1: 7}
    assert waiting(journal) == [3, 5, 6, 7]
    assert fold.mature(journal) == 0
    assert_whole(journal)


def test_what_has_matured_later_is_added_to_what_was_payable(journal: Conn) -> None:
    fund(journal, 10_000)
    earn(journal, "creator", 1, (-60, 100), (3600, 30))
    assert fold.mature(journal) == 100
    journal.execute("UPDATE ledger.maturing SET matures_at = now()")  # the very moment is late enough
    assert fold.mature(journal) == 30
    assert (earned(journal), earned(journal, "maturing"), waiting(journal)) == ({1: 130}, {}, [])
    assert_whole(journal)


def test_a_bucket_of_nothing_goes_beside_one_that_is_paid(journal: Conn) -> None:
    fund(journal, 10_000)
    earn(journal, "creator", 1, (-60, 100))
    earn(journal, "creator", 2, (-60, 1), (-30, 50))
    journal.execute("UPDATE ledger.maturing SET amount_pix = 0 WHERE amount_pix = 1")
    journal.execute("UPDATE ledger.maturing SET amount_pix = 0 WHERE amount_pix = 100")
    journal.commit()
    assert fold.mature(journal) == 50
    assert (earned(journal), waiting(journal)) == ({2: 50}, [])


def test_it_is_one_entry_that_says_until_when(journal: Conn) -> None:
    fund(journal, 10_000)
    earn(journal, "creator", 1, (-7200, 1))
    earn(journal, "creator", 2, (-60, 2))
    newest = journal.execute("SELECT max(matures_at) FROM ledger.maturing").fetchone()
    assert newest is not None
    before = journal.execute("SELECT count(*) FROM ledger.entries").fetchone()
    fold.mature(journal)
    rows = journal.execute("SELECT document->>'until' FROM ledger.entries WHERE kind = 'maturity'").fetchall()
    assert rows == [(newest[0].isoformat(),)]
    assert journal.execute("SELECT count(*) - 1 FROM ledger.entries").fetchone() == before
