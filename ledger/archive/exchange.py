"""Exchange: archive rows that can still change, and delete them in the transaction that records their part of the archive.

First the rows are written to a part, and the part is read back. Then one transaction reads the rows once more. Only if
they are still what was written, it records the part and deletes the rows. So the archive holds their final state. A
process that is killed in between leaves an object that no row of the database names. Knows no table.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, LiteralString

import psycopg
from psycopg import Connection

from ledger.archive import parts
from ledger.archive.shelf import Shelf
from ledger.journal import book

Conn = Connection[Any]
Named = tuple[str, datetime]  # the name of a row (an id or a signature), and when it ended


@dataclass(frozen=True)
class Table:
    """A kind of rows: how to read them, and the function that deletes them."""

    kind: str
    read: Callable[[Conn, Sequence[str]], list[str]]  # returns the text of each named row, in the order of their ends
    forget: LiteralString  # the SQL function that deletes them, given the id of the part and their names


def of_one_day(rows: Sequence[Named]) -> list[Named]:
    """Return the rows that ended on the same UTC day as the first."""
    days = [at.astimezone(UTC).date() for _, at in rows]
    return [row for row, day in zip(rows, days, strict=True) if day == days[0]]


def archive(connection: Conn, shelf: Shelf, table: Table, rows: Sequence[Named]) -> bool:
    """Write some rows to the archive as one part, and delete them from their tables. Commits.

    Args:
        connection: outside of a transaction.
        shelf: where the archive lies.
        table: the kind of the rows.
        rows: their names, all of one UTC day.

    Returns:
        True if the rows are archived and deleted; False if they changed while they were written.

    Raises:
        Temporary: the object store does not answer.
        Rejected: the object store refuses, or the database refuses to delete these rows.
    """
    names = [name for name, _ in rows]
    texts = table.read(connection, names)
    first = parts.last(connection, table.kind) + 1
    connection.commit()
    numbers, day = (first, first + len(texts) - 1), rows[0][1].astimezone(UTC).date()
    with shelf.draft(table.kind) as draft:
        for text in texts:
            draft.add(text)
        written = shelf.keep(draft, day, *numbers)
    connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    try:
        # The lock comes first. Each round of the fold writes to this row, so only a round under way can make this fail.
        connection.execute("SELECT FROM ledger.fence FOR SHARE")
        if table.read(connection, names) != texts:
            return False
        number = parts.add(connection, table.kind, numbers, day, written, max(at for _, at in rows))
        with book.refusals():
            connection.execute(f"SELECT {table.forget}(%s, %s)", (number, names))
        book.commit(connection)
    except psycopg.errors.SerializationFailure:
        return False
    finally:
        if not connection.closed:
            connection.rollback()
            connection.isolation_level = None
    return True
