"""A creator's earnings as the HTTP interface shows them: amounts in base units, as strings, with their currency.

The ledger computes the amounts; this module adds the currency, and refuses creators that the catalogue does not know.
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
from pipelines.catalog import creators

CURRENCY = "PIX"
DECIMALS = 6
MONEY = {"currency": CURRENCY, "decimals": DECIMALS}
COLUMNS = ("at", "entry_id", "kind", "account", "amount", "currency", "signature")


def of(connection: Connection[Any], creator_id: int) -> dict[str, Any]:
    """Return the document of `GET /v1/creators/{id}/earnings`.

    Raises:
        Rejected: 404, the creator does not exist.
    """
    public_id = check_creator(connection, creator_id)
    return earnings.of(connection, creator_id).document() | {"creator_public_id": public_id} | MONEY


async def counted(client: redis.asyncio.Redis, key_prefix: str, creator_id: int) -> int | None:
    """Return what a creator has earned according to the live counter in Redis, in base units, before reversals.

    Return None if they have not got a counter, or Redis is away.
    """
    try:
        amount = await client.hget(key_prefix + counters.EARNED, str(creator_id))
    except redis.RedisError:
        return None
    return int(amount) if amount is not None else None


def earned(connection: Connection[Any], creator_id: int) -> int:
    """Return what a creator has earned according to the journal, in base units, before reversals."""
    return counters.earned(connection, creator_id)


def statement_csv(
    connection: Connection[Any],
    shelf: Shelf,
    creator_id: int,
    before: Place = BEGIN,
    limit: int = statements.ROWS_MAX,
) -> tuple[str, Place | None]:
    """Return one part of a creator's statement, which lists all movements of their money, the newest first.

    Args:
        connection: A connection to the database.
        shelf: Where old entries are archived.
        creator_id: The creator's number.
        before: Where the part begins; the first one starts with a header.
        limit: Movements at most.

    Returns:
        The part as CSV (CRLF, RFC 4180), one line for each posting, and where the next part begins; None after the
            last.

    Raises:
        Rejected: 404, the creator does not exist (only for the first part).
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
    """Return a creator's payouts, the newest first, each with its transaction's signature, and their total number.

    Args:
        connection: A connection to the database.
        creator_id: The creator's number.
        before: Only payouts with a lower id; None: from the newest on.
        limit: Payouts at most.

    Returns:
        A document for each payout, and the number of all payouts.

    Raises:
        Rejected: 404, the creator does not exist.
    """
    public_id = check_creator(connection, creator_id)
    lines = listing.payouts(connection, creator_id=creator_id, before=before, limit=limit)
    documents = [line.document() | {"creator_public_id": public_id} for line in lines]
    return documents, listing.count(connection, creator_id)


def check_creator(connection: Connection[Any], creator_id: int) -> str:
    """Return the public id of a creator.

    Raises:
        Rejected: 404, the creator does not exist.
    """
    public_id = creators.public_id(connection, creator_id)
    if public_id is None:
        raise Rejected(f"there is no creator {creator_id}", status=404, code="not-found")
    return public_id
