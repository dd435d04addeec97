"""The chain's history in the archive: transactions of others that touched the treasury, deposits above all.

Those of our own attempts go with them (see `payments`); unknown ones stay until somebody has explained them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from psycopg import Connection

from ledger.archive import exchange, parts
from ledger.archive.exchange import Named, Table
from ledger.archive.parts import CHAIN
from ledger.archive.shelf import Row, Shelf

Conn = Connection[Any]

ROWS_MAX = 5_000  # of a part

# Whole pieces, as they were booked: transactions of one piece may share an entry. What is of the slot up to which history was
# read stays with its piece, for history is read again from there.
DUE = """
    SELECT signature, seen_at FROM ledger.chain_transactions
    WHERE kind NOT IN ('unknown', 'attempt') AND seen_at < coalesce(
        (SELECT min(seen_at) FROM ledger.chain_transactions WHERE slot >= (SELECT min(slot) FROM ledger.chain_cursors)),
        'infinity') AND seen_at <= coalesce(
        (SELECT seen_at FROM ledger.chain_transactions WHERE kind NOT IN ('unknown', 'attempt') AND seen_at < %(before)s
         ORDER BY seen_at, signature OFFSET %(most)s LIMIT 1), %(before)s) AND seen_at < %(before)s
    ORDER BY seen_at, signature"""
ROWS = (
    "SELECT to_jsonb(c)::text FROM ledger.chain_transactions c WHERE signature = ANY (%s) ORDER BY seen_at, signature"
)


def due(connection: Conn, before: datetime) -> list[Named]:
    """The transactions of the next part, which were seen before `before`."""
    return exchange.of_one_day(connection.execute(DUE, {"before": before, "most": ROWS_MAX - 1}).fetchall())


def archive(connection: Conn, shelf: Shelf, transactions: Sequence[Named]) -> bool:
    """Make a part of these transactions and delete them; see `exchange.archive`."""
    return exchange.archive(connection, shelf, Table(CHAIN, _rows, "ledger.forget_transactions"), transactions)


def archived(connection: Conn, shelf: Shelf) -> Iterator[Row]:
    """Every transaction that stands in a part.

    Raises:
        Rejected: a part is gone or damaged.
    """
    for part in parts.listed(connection, CHAIN):
        yield from shelf.rows(part.written)


def _rows(connection: Conn, signatures: Sequence[str]) -> list[str]:
    return [str(row[0]) for row in connection.execute(ROWS, (list(signatures),))]
