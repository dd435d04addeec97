"""Payments in the archive: transactions that have ended, each with its payouts, transfers, attempts and marker, and with what
the chain's history says of it.

A transaction goes when nothing of it can change any more: its marker is emptied, nobody asks about it, and what was signed
for it is as old as the rest. Its id and its signature stay (`ledger.past_batches`), and so do sums of what it has paid.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from psycopg import Connection

from ledger.archive import exchange, parts
from ledger.archive.exchange import Named, Table
from ledger.archive.parts import PAYMENTS
from ledger.archive.shelf import Row, Shelf
from ledger.journal import book

Conn = Connection[Any]

BATCHES_MAX = 20  # of a part: who folds waits while they are deleted
WINDOW = 1_000  # ended batches that are looked at, of which some may have to stay

BEGIN: Named = ("", book.EPOCH_OF_TIME)  # before all of them

WINDOWED = """
    SELECT id, ended_at, ledger.is_past(id) FROM (
        SELECT id, ended_at FROM ledger.batches WHERE ended_at < %(before)s AND (ended_at, id) > (%(at)s, %(id)s)
        ORDER BY ended_at, id LIMIT %(window)s) b ORDER BY ended_at, id"""
# Instants in UTC (see `Keeping`), so that a row is written alike wherever it is.
ROWS = """
    SELECT jsonb_build_object(
        'batch', to_jsonb(b),
        'payouts', (SELECT jsonb_agg(to_jsonb(p) ORDER BY p.id) FROM ledger.payouts p WHERE p.batch_id = b.id),
        'transfers', (SELECT jsonb_agg(to_jsonb(t) ORDER BY t.id) FROM ledger.transfers t
                      JOIN ledger.payouts p ON p.transfer_id = t.id WHERE p.batch_id = b.id),
        'attempts', (SELECT jsonb_agg(to_jsonb(a) ORDER BY a.n) FROM ledger.attempts a WHERE a.batch_id = b.id),
        'marker', (SELECT to_jsonb(m) FROM ledger.markers m WHERE m.batch_id = b.id),
        'resolutions', (SELECT jsonb_agg(to_jsonb(r) ORDER BY r.id) FROM ledger.resolutions r WHERE r.batch_id = b.id),
        'transactions', (SELECT jsonb_agg(to_jsonb(c) ORDER BY c.signature) FROM ledger.chain_transactions c
                         JOIN ledger.attempts a ON a.signature = c.signature WHERE a.batch_id = b.id))::text
    FROM ledger.batches b WHERE b.id = ANY (%s) ORDER BY b.ended_at, b.id"""


def due(connection: Conn, before: datetime) -> list[Named]:
    """The transactions of the next part, which ended before `before`; however many before them have to stay."""
    rows, behind, is_more = looked(connection, before, BEGIN)
    while not rows and is_more:
        rows, behind, is_more = looked(connection, before, behind)
    return rows


def looked(connection: Conn, before: datetime, behind: Named) -> tuple[list[Named], Named, bool]:
    """Those of the next part among some that come `behind` one; behind which to go on, and whether there are more."""
    given = {"before": before, "window": WINDOW, "at": behind[1], "id": behind[0]}
    rows = connection.execute(WINDOWED, given).fetchall()
    past = [(number, ended_at) for number, ended_at, is_past in rows if is_past][:BATCHES_MAX]
    if past:
        return exchange.of_one_day(past), behind, True
    return [], (str(rows[-1][0]), rows[-1][1]) if rows else behind, len(rows) == WINDOW


def archive(connection: Conn, shelf: Shelf, batches: Sequence[Named]) -> bool:
    """Make a part of these transactions and delete them; see `exchange.archive`."""
    return exchange.archive(connection, shelf, Table(PAYMENTS, _rows, "ledger.forget_payments"), batches)


def archived(connection: Conn, shelf: Shelf) -> Iterator[Row]:
    """Every transaction that stands in a part.

    Raises:
        Rejected: a part is gone or damaged.
    """
    for part in parts.listed(connection, PAYMENTS):
        yield from shelf.rows(part.written)


def _rows(connection: Conn, ids: Sequence[str]) -> list[str]:
    return [str(row[0]) for row in connection.execute(ROWS, (list(ids),))]
