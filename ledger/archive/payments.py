"""Payments in the archive: ended batches, each with its payouts, transfers, attempts and marker, and the chain's record of it.

A batch is archived when nothing of it can change any more: its marker is reclaimed, no resolution of it is open, and all its
attempts are old enough. Its id and signature stay in `ledger.past_batches`, and what each creator was paid in
`ledger.paid_before`.
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

BATCHES_MAX = 20  # of a part: the fold waits while they are deleted
WINDOW = 1_000  # ended batches that one call of `looked` examines; some of them may have to stay

BEGIN: Named = ("", book.EPOCH_OF_TIME)  # sorts before every batch

WINDOWED = """
    SELECT id, ended_at, ledger.is_past(id) FROM (
        SELECT id, ended_at FROM ledger.batches WHERE ended_at < %(before)s AND (ended_at, id) > (%(at)s, %(id)s)
        ORDER BY ended_at, id LIMIT %(window)s) b ORDER BY ended_at, id"""
# Times are in UTC (see `Keeping`), so that the same row has the same text on every machine.
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
    """Return the batches of the next part, all ended before `before`; older ones that cannot be archived yet are skipped."""
    rows, behind, is_more = looked(connection, before, BEGIN)
    while not rows and is_more:
        rows, behind, is_more = looked(connection, before, behind)
    return rows


def looked(connection: Conn, before: datetime, behind: Named) -> tuple[list[Named], Named, bool]:
    """Examine the next `WINDOW` batches that ended before `before` and come after the batch `behind`.

    Returns three values: the batches that make the next part (none if all of the examined ones must stay in the
    tables); the batch after which to go on, which is `behind` itself if there is a next part; and whether there may be
    more.
    """
    window = {"before": before, "window": WINDOW, "at": behind[1], "id": behind[0]}
    rows = connection.execute(WINDOWED, window).fetchall()
    past = [(number, ended_at) for number, ended_at, is_past in rows if is_past][:BATCHES_MAX]
    if past:
        return exchange.of_one_day(past), behind, True
    return [], (str(rows[-1][0]), rows[-1][1]) if rows else behind, len(rows) == WINDOW


def archive(connection: Conn, shelf: Shelf, batches: Sequence[Named]) -> bool:
    """Write these batches to the archive as one part and delete them; return False if they changed meanwhile."""
    return exchange.archive(connection, shelf, Table(PAYMENTS, _rows, "ledger.forget_payments"), batches)


def archived(connection: Conn, shelf: Shelf) -> Iterator[Row]:
    """Yield every archived batch.

    Raises:
        Rejected: a part is missing or damaged.
    """
    for part in parts.listed(connection, PAYMENTS):
        yield from shelf.rows(part.written)


def _rows(connection: Conn, ids: Sequence[str]) -> list[str]:
    return [str(row[0]) for row in connection.execute(ROWS, (list(ids),))]
