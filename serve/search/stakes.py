"""Stakes in searches: which moments have at least so much invested in them. Reads the ledger's `segment_stakes`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from psycopg import AsyncConnection

from cluster.errors import Rejected
from serve.search.query import Query

if TYPE_CHECKING:
    from serve.search.context import SearchContext

STAKED = """SELECT segment_id FROM ledger.segment_stakes GROUP BY segment_id HAVING sum(pix_invested) >= %s
            ORDER BY segment_id LIMIT %s"""


async def resolved(services: SearchContext, query: Query) -> Query:
    """The same search among the moments that have the stake it asks for; each has its own place among kept answers.

    Raises:
        Rejected: too many moments have it for all of them to be compared.
    """
    if query.stake_min_pix is None:
        return query
    most = services.search.stake_segments_max
    asked = (query.stake_min_pix, most + 1)

    async def staked(connection: AsyncConnection[Any]) -> list[tuple[int]]:
        return await (await connection.execute(STAKED, asked)).fetchall()

    rows = await services.readers.ask(staked)
    if len(rows) > most:
        said = f"more than {most} moments have a stake of {query.stake_min_pix}"
        raise Rejected(said, status=422, code="bad-query", hint="ask for a larger stake")
    filters = replace(query.filters, segment_ids=tuple(int(row[0]) for row in rows))
    return replace(query, filters=filters, stake_min_pix=None)
