"""What a creator has earned, as the HTTP door shows it: amounts in base units, as strings, with what they mean.

The ledger counts; this adds the currency, and refuses creators that the catalogue does not know.
"""

from __future__ import annotations

import csv
import io
from typing import Any

import redis
import redis.asyncio
from psycopg import Connection

from cluster.errors import Rejected
from ledger.archive.shelf import Shelf
from ledger.creators import counters, earnings, statements
from ledger.creators.statements import BEGIN, Place
from ledger.payouts import listing

CURRENCY = "PIX"
DECIMALS = 6
MONEY = {"currency": CURRENCY, "decimals": DECIMALS}
COLUMNS = ("at", "entry_id", "kind", "account", "amount", "currency", "signature")


def of(connection: Connection[Any], creator_id: int) -> dict[str, Any]:
    """The document of `GET /v1/creators/{id}/earnings`."""
    public_id = check_creator(connection, creator_id)
    return earnings.of(connection, creator_id).document() | {"creator_public_id": public_id} | MONEY


async def counted(client: redis.asyncio.Redis, mark: str, creator_id: int) -> int | None:
    """The live counter of a creator; None where there is none, or Redis is away."""
    try:
        found = await client.hget(mark + counters.EARNED, str(creator_id))
    except redis.RedisError:
        return None
    return int(found) if found is not None else None


def earned(connection: Connection[Any], creator_id: int) -> int:
    """The same from the journal."""
    return counters.earned(connection, creator_id)


def statement_csv(
    connection: Connection[Any],
    shelf: Shelf,
    creator_id: int,
    before: Place = BEGIN,
    limit: int = statements.ROWS_MAX,
) -> tuple[str, Place | None]:
    """A part of every movement of a creator's money, newest first, and where the next one begins; None after the last.

    The first part begins with a header; then each posting is a line (CRLF, RFC 4180). `shelf`: where old ones lie.
    """
    text = io.StringIO()
    writer = csv.writer(text)
    if before == BEGIN:
        check_creator(connection, creator_id)
        writer.writerow(COLUMNS)
    page = statements.page(connection, creator_id, shelf, before=before, limit=limit)
    for line in page.lines:
        writer.writerow((line.at, line.entry_id, line.kind, line.account, line.amount, CURRENCY, line.signature or ""))
    return text.getvalue(), page.following


def payouts(
    connection: Connection[Any], creator_id: int, before: int | None, limit: int
) -> tuple[list[dict[str, Any]], int]:
    """A creator's payouts before one of them, newest first, each with the signature of its transaction; and how many."""
    whose = {"creator_public_id": check_creator(connection, creator_id)}
    found = listing.payouts(connection, creator_id=creator_id, before=before, limit=limit)
    return [line.document() | whose for line in found], listing.count(connection, creator_id)


def check_creator(connection: Connection[Any], creator_id: int) -> str:
    """The public id of a creator.

    Raises:
        Rejected: the catalogue knows no such creator.
    """
    row = connection.execute("SELECT public_id FROM media.creators WHERE id = %s", (creator_id,)).fetchone()
    if row is None:
        raise Rejected(f"there is no creator {creator_id}", status=404, code="not-found")
    return str(row[0])
