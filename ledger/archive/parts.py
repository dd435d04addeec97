"""The parts of the archive as the database knows them: the table `ledger.archives`, and how far their rows are deleted.

A part is added only after its object has been read back. Its rows are deleted later, step by step, by SQL functions
that delete nothing else (see schema 0042). Knows no object store.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from psycopg import Connection

from ledger.archive.shelf import StoredPart
from ledger.journal import book

Conn = Connection[Any]

FOLDS, JOURNAL, PAYMENTS, CHAIN = "folds", "journal", "payments", "chain"
KINDS = (FOLDS, JOURNAL, PAYMENTS, CHAIN)


@dataclass(frozen=True)
class ArchivePart:
    """One part of the archive: rows with the numbers `first` to `last` of one kind and one UTC day."""

    id: int
    kind: str  # one of KINDS
    first: int
    last: int
    day: date
    written: StoredPart
    head: bytes | None  # of a part of the journal: the hash of its last entry


COLUMNS = "id, kind, first, last, day, name, rows, bytes, sha256, head"


def add(
    connection: Conn,
    kind: str,
    numbers: tuple[int, int],
    day: date,
    written: StoredPart,
    newest_at: datetime,
    head: bytes | None = None,
) -> int:
    """Write a part to the table, in the caller's transaction. Its object must have been read back before.

    Args:
        connection: in the caller's transaction.
        kind: one of KINDS.
        numbers: the first and last number of its rows.
        day: the UTC day of its rows.
        written: its object on the shelf.
        newest_at: the time of its newest row.
        head: the hash of its last entry, for a part of the journal; None for all others.

    Returns:
        The id of the part.

    Raises:
        Rejected: the part does not follow on the last one, or its rows are too young.
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
    """Return the last number that any part of a kind holds; 0 without parts."""
    row = connection.execute("SELECT ledger.archived(%s)", (kind,)).fetchone()
    assert row is not None
    return int(row[0])


def forgotten(connection: Conn, kind: str) -> int:
    """Return the number up to which archived rows of a kind have been deleted from the tables; 0 if none were."""
    row = connection.execute("SELECT upto FROM ledger.forgotten WHERE kind = %s", (kind,)).fetchone()
    return int(row[0]) if row else 0


def after(connection: Conn, kind: str, number: int) -> ArchivePart | None:
    """Return the part that holds the number after `number`, or else the next part after it; None if neither exists."""
    for condition in ("first <= %(next)s AND last >= %(next)s ORDER BY first DESC", "first > %(next)s ORDER BY first"):
        query = f"SELECT {COLUMNS} FROM ledger.archives WHERE kind = %(kind)s AND {condition} LIMIT 1"
        row = connection.execute(query, {"kind": kind, "next": number + 1}).fetchone()
        if row is not None:
            return _part(row)
    return None


def listed(connection: Conn, kind: str) -> list[ArchivePart]:
    """Return all parts of a kind, in their order."""
    rows = connection.execute(f"SELECT {COLUMNS} FROM ledger.archives WHERE kind = %s ORDER BY first", (kind,))
    return [_part(row) for row in rows]


def _part(row: tuple[Any, ...]) -> ArchivePart:
    number, kind, first, final, day, name, rows, size, sha256, head = row
    written = StoredPart(name, rows, size, bytes(sha256))
    return ArchivePart(number, kind, first, final, day, written, None if head is None else bytes(head))
