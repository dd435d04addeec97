"""What a creator has earned, as the HTTP door shows it: amounts in base units, as strings, with what they mean.

The ledger counts; this adds the currency, and refuses creators that the catalogue does not know.
"""

from __future__ import annotations

import csv
import io
from typing import Any

from psycopg import Connection

from cluster.errors import Rejected
from ledger import earnings

CURRENCY = "PIX"
DECIMALS = 6
PAYOUTS_MAX = 1000
COLUMNS = ("at", "entry_id", "kind", "account", "amount", "currency", "signature")


def of(connection: Connection[Any], creator_id: int) -> dict[str, Any]:
    """The document of `GET /v1/creators/{id}/earnings`."""
    check_creator(connection, creator_id)
    return earnings.of(connection, creator_id).document() | {"currency": CURRENCY, "decimals": DECIMALS}


def statement_csv(connection: Connection[Any], creator_id: int) -> str:
    """Every movement of a creator's money, newest first: a header, then a line a posting (CRLF, RFC 4180)."""
    check_creator(connection, creator_id)
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    for line in earnings.statement(connection, creator_id):
        writer.writerow((line.at, line.entry_id, line.kind, line.account, line.amount, CURRENCY, line.signature or ""))
    return text.getvalue()


def payouts(connection: Connection[Any], creator_id: int, limit: int) -> list[dict[str, Any]]:
    """A creator's payouts, newest first, each with the signature of the transaction that paid it."""
    check_creator(connection, creator_id)
    rows = connection.execute(
        "SELECT p.id::text, p.period::text, p.amount_pix::text, p.wallet, b.state, p.batch_id, a.signature,"
        " p.on_chain_pix::text, p.planned_at, b.ended_at"
        " FROM ledger.payouts p JOIN ledger.batches b ON b.id = p.batch_id"
        " LEFT JOIN ledger.attempts a ON a.batch_id = b.id AND a.state IN ('live', 'landed')"
        " WHERE p.creator_id = %s ORDER BY p.id DESC LIMIT %s",
        (creator_id, min(limit, PAYOUTS_MAX)),
    ).fetchall()
    names = ("payout_id", "period", "amount", "wallet", "state", "batch_id", "signature", "on_chain")
    return [
        dict(zip(names, row[:8], strict=True))
        | {"planned_at": row[8].isoformat(), "ended_at": row[9].isoformat() if row[9] else None}
        for row in rows
    ]


def check_creator(connection: Connection[Any], creator_id: int) -> None:
    """Raises:
    Rejected: the catalogue knows no such creator.
    """
    known = connection.execute("SELECT FROM media.creators WHERE id = %s", (creator_id,)).fetchone()
    if known is None:
        raise Rejected(f"there is no creator {creator_id}", status=404, code="not-found")
