"""Exchange: rows that can still change leave for a part of the archive in the transaction that deletes them.

They are written and read back first; then they are read once more, and have to be what was written. So the archive holds
the last word, and a kill between leaves a part that nobody names. Knows no table.
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
Named = tuple[str, datetime]  # what a row is found by, and when it came to its end


@dataclass(frozen=True)
class Table:
    """Where rows come from."""

    kind: str
    read: Callable[[Conn, Sequence[str]], list[str]]  # the text of each row that is named, in the order of their ends
    forget: LiteralString  # the function of the database that deletes them, given the part and their names


def of_one_day(rows: Sequence[Named]) -> list[Named]:
    """The first of these that are of one UTC day."""
    days = [at.astimezone(UTC).date() for _, at in rows]
    return [row for row, day in zip(rows, days, strict=True) if day == days[0]]


def archive(connection: Conn, shelf: Shelf, table: Table, rows: Sequence[Named]) -> bool:
    """Make a part of these rows, all of one day, and delete them; whether it was done: else they have changed meanwhile.

    Commits.

    Raises:
        Temporary, Rejected: the object store is away or refuses; or the database, what can still change.
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
        # First of all, so that only what is being written at this instant can come between: who folds writes here each round.
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
