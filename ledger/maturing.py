"""Maturing: earnings that are not payable yet, in buckets that say of which UTC day they are.

A bucket is ten minutes of the time from which on they are payable, which follows from when they were folded. What was shown
on an earlier day than that says stands as many seconds beside it as days: so what is taken back of a day is that day's,
however late it was folded. Knows no fold, no review and no account's kind.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, LiteralString

from psycopg import Connection

from ledger.money import Amounts
from ledger.waiting import Ids

MATURITY_BUCKET_S = 600
RIPENS: LiteralString = """
    INSERT INTO ledger.maturing AS m (account_id, matures_at, amount_pix)
    SELECT t.account, to_timestamp(b.at + least(greatest(floor((b.at - %(maturity_s)s) / 86400) - t.day, 0), %(bucket_s)s - 1)),
           sum(t.amount)::bigint
    FROM unnest(%(accounts)s::bigint[], %(days)s::integer[], %(amounts)s::bigint[]) AS t (account, day, amount),
         (SELECT ceil(extract(epoch FROM greatest(now() + make_interval(secs => %(later_s)s), %(earliest)s::timestamptz))
                      / %(bucket_s)s) * %(bucket_s)s) AS b (at)
    GROUP BY 1, 2
    ON CONFLICT (account_id, matures_at) DO UPDATE SET amount_pix = m.amount_pix + excluded.amount_pix"""
# The UTC day, in days since 1970, on which what is in a bucket was shown.
SHOWN_ON: LiteralString = """
    floor((extract(epoch FROM m.matures_at)::bigint - extract(epoch FROM m.matures_at)::bigint %% %(bucket_s)s - %(maturity_s)s)
          / 86400.0) - extract(epoch FROM m.matures_at)::bigint %% %(bucket_s)s"""
NO_DAY = 2**31 - 1  # of what is never taken back


def ripen(
    connection: Connection[Any],
    accounts: Ids,
    days: Ids,
    amounts: Amounts,
    maturity_s: int,
    later_s: int = 0,
    earliest: datetime | None = None,
) -> None:
    """Put what was shown on these UTC days into buckets, for so many seconds from now and until `earliest`."""
    connection.execute(RIPENS, {
        "accounts": accounts.tolist(), "days": days.tolist(), "amounts": amounts.tolist(), "maturity_s": maturity_s,
        "later_s": later_s, "earliest": earliest, "bucket_s": MATURITY_BUCKET_S,
    })  # fmt: skip
