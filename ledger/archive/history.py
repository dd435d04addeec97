"""The chain's history in the archive: transactions of the treasury that the ledger did not sign, for example deposits.

Transactions of the ledger's own attempts are archived with their payments (see `payments`). Unknown transactions stay
in the table until a person has explained them.
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

# Transactions with one `seen_at` were booked together and may share an entry: they go together. Those that were seen together
# with the slot up to which history was read stay, since history is read again from that slot on.
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
    """Return the transactions of the next part, each with the time at which it was seen, which is before `before`."""
    return exchange.of_one_day(connection.execute(DUE, {"before": before, "most": ROWS_MAX - 1}).fetchall())


def archive(connection: Conn, shelf: Shelf, transactions: Sequence[Named]) -> bool:
    """Write these transactions to the archive as one part and delete them; return False if they changed meanwhile."""
    return exchange.archive(connection, shelf, Table(CHAIN, _rows, "ledger.forget_transactions"), transactions)


def archived(connection: Conn, shelf: Shelf) -> Iterator[Row]:
    """Yield every archived transaction.

    Raises:
        Rejected: a part is missing or damaged.
    """
    for part in parts.listed(connection, CHAIN):
        yield from shelf.rows(part.written)


def _rows(connection: Conn, signatures: Sequence[str]) -> list[str]:
    return [str(row[0]) for row in connection.execute(ROWS, (list(signatures),))]
