"""Earnings that are not payable yet, in buckets that tell on which UTC day they were earned.

A bucket is an instant in `ledger.maturing`. Rounded down to ten minutes it says from when on the earnings are payable: some
time after they were folded. The seconds above that say how many days older the earnings are than others that are payable at
the same time: 0 if they were shown on the latest possible day. So a review takes back only earnings of the judged day,
however late they were folded. Knows no fold, no review and no kind of account.
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
        days: int64, shape (rows,). UTC days since 1970 on which the moments were shown; `NO_DAY` for what is never taken back.
        amounts: int64, shape (rows,), base units of PIX.
        maturity_s: seconds after which earnings are payable, by the settings.
        later_s: seconds from now until these are payable.
        earliest: an instant before which these are not payable.
    """
    for day in np.unique(days).tolist():
        rows = days == day
        connection.execute(RIPENS, {
            "accounts": accounts[rows].tolist(), "amounts": amounts[rows].tolist(), "day": day, "maturity_s": maturity_s,
            "later_s": later_s, "earliest": earliest, "bucket_s": MATURITY_BUCKET_S,
        })  # fmt: skip
