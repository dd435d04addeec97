"""Earnings that are not payable yet, in buckets that also tell on which UTC day they were earned.

A bucket is an instant, stored as `ledger.maturing.matures_at`. Rounded down to ten minutes it is the time from which
the earnings are payable. The seconds above that are a number of days: by how much the earnings are older than the
latest possible day of earnings that are payable at the same time. So a review can take back earnings of the judged day
alone, however late they were folded. Knows no fold, no review and no kind of account.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, LiteralString

import numpy as np
from psycopg import Connection

from ledger.accrual.waiting import Ids
from ledger.money import Amounts

MATURITY_BUCKET_S = 600
# The bucket of a day is computed once, not for each account.
RIPENS: LiteralString = """
    WITH bucket AS MATERIALIZED (
        SELECT ceil(extract(epoch FROM greatest(now() + make_interval(secs => %(later_s)s), %(earliest)s::timestamptz))
                    / %(bucket_s)s) * %(bucket_s)s AS at),
    place AS MATERIALIZED (
        SELECT to_timestamp(at + least(greatest(floor((at - %(maturity_s)s) / 86400) - %(day)s, 0), %(bucket_s)s - 1)) AS at
        FROM bucket)
    INSERT INTO ledger.maturing AS m (account_id, matures_at, amount_pix)
    SELECT t.account, place.at, t.amount
    FROM unnest(%(accounts)s::bigint[], %(amounts)s::bigint[]) AS t (account, amount), place
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
    """Add earnings to buckets.

    Args:
        connection: in the caller's transaction.
        accounts: int64, shape (rows,). Ids of accounts; each comes at most once for a day.
        days: int64, shape (rows,). UTC days since 1970 on which the moments were shown; `NO_DAY` for what is never
            taken back.
        amounts: int64, shape (rows,), base units of PIX.
        maturity_s: the setting of that name: the usual seconds from a fold until its earnings are payable. It is needed
            to encode the day, and delays nothing.
        later_s: seconds from now until these amounts are payable.
        earliest: an instant before which these amounts are not payable.
    """
    for day in np.unique(days).tolist():
        rows = days == day
        connection.execute(RIPENS, {
            "accounts": accounts[rows].tolist(), "amounts": amounts[rows].tolist(), "day": day, "maturity_s": maturity_s,
            "later_s": later_s, "earliest": earliest, "bucket_s": MATURITY_BUCKET_S,
        })  # fmt: skip
