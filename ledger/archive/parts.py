"""The parts of the archive as the database knows them: the table `ledger.archives`, and up to where rows are gone.

A part is added only when its object has been read back; what it holds is deleted later, step by step, by functions of the
database that take nothing else (see schema 0042). Knows no object store.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from psycopg import Connection

from ledger.archive.shelf import Written
from ledger.journal import book

Conn = Connection[Any]

FOLDS, JOURNAL, PAYMENTS, CHAIN = "folds", "journal", "payments", "chain"
KINDS = (FOLDS, JOURNAL, PAYMENTS, CHAIN)


@dataclass(frozen=True)
class Part:
    """One part. `head`: of the journal, the hash of its last entry."""

    id: int
    kind: str
    first: int
    last: int
    day: date
    written: Written
    head: bytes | None


COLUMNS = "id, kind, first, last, day, name, rows, bytes, sha256, head"


def add(
    connection: Conn,
    kind: str,
    numbers: tuple[int, int],
    day: date,
    written: Written,
    newest_at: datetime,
    head: bytes | None = None,
) -> int:
    """Note a part that has been read back, in the caller's transaction; its id.

    Raises:
        Rejected: it does not follow on the last one, or is too young.
        Fenced: another writer has taken over.
    """
    with book.refusals():
        row = connection.execute(
            "INSERT INTO ledger.archives (kind, first, last, day, name, rows, bytes, sha256, head, newest_at)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s) RETURNING id",
            (kind, *numbers, day, written.name, written.rows, written.size, written.sha256, head, newest_at),
        ).fetchone()
    assert row is not None
    return int(row[0])


def last(connection: Conn, kind: str) -> int:
    """The last number that stands in a part; 0 where there is none."""
    row = connection.execute("SELECT ledger.archived(%s)", (kind,)).fetchone()
    assert row is not None
    return int(row[0])


def forgotten(connection: Conn, kind: str) -> int:
    """Up to which number rows of parts are gone."""
    row = connection.execute("SELECT upto FROM ledger.forgotten WHERE kind = %s", (kind,)).fetchone()
    return int(row[0]) if row else 0


def after(connection: Conn, kind: str, number: int) -> Part | None:
    """The part that holds the next number, or the first one behind it."""
    for condition in ("first <= %(next)s AND last >= %(next)s ORDER BY first DESC", "first > %(next)s ORDER BY first"):
        query = f"SELECT {COLUMNS} FROM ledger.archives WHERE kind = %(kind)s AND {condition} LIMIT 1"
        row = connection.execute(query, {"kind": kind, "next": number + 1}).fetchone()
        if row is not None:
            return _part(row)
    return None


def listed(connection: Conn, kind: str) -> list[Part]:
    """All parts of a kind, in their order."""
    rows = connection.execute(f"SELECT {COLUMNS} FROM ledger.archives WHERE kind = %s ORDER BY first", (kind,))
    return [_part(row) for row in rows]


def _part(row: tuple[Any, ...]) -> Part:
    number, kind, first, final, day, name, rows, size, sha256, head = row
    written = Written(name, rows, size, bytes(sha256))
    return Part(number, kind, first, final, day, written, None if head is None else bytes(head))
