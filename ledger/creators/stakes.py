"""Stakes: how much investors have put into segments. Reads `ledger.segment_stakes`.

Searches and the feed ask for it. Knows segments only by id, and nothing of who invested.
"""

from __future__ import annotations

from typing import Any, LiteralString

from psycopg import AsyncConnection

# The whole PIX invested in each segment, as (segment_id, invested); to be completed with WHERE and GROUP BY 1.
INVESTED: LiteralString = "SELECT segment_id, sum(pix_invested) / 1e6 AS invested FROM ledger.segment_stakes"
SEGMENTS: LiteralString = """SELECT segment_id FROM ledger.segment_stakes GROUP BY segment_id
            HAVING sum(pix_invested) >= %s ORDER BY segment_id LIMIT %s"""


async def segments(connection: AsyncConnection[Any], least_pix: int, limit: int) -> list[int]:
    """Return the ids, ascending, of segments in which at least `least_pix` base units are invested; at most `limit`."""
    rows = await (await connection.execute(SEGMENTS, (least_pix, limit))).fetchall()
    return [int(row[0]) for row in rows]
