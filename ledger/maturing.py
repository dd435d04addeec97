"""Maturing: earnings that are not payable yet, in buckets that say of which UTC day they are.

A bucket is ten minutes of the time from which on they are payable, which follows from when they were folded. What was shown
on an earlier day than that says stands as many seconds beside it as days: so what is taken back of a day is that day's,
however late it was folded. Knows no fold, no review and no account's kind.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, LiteralString

import numpy as np
from psycopg import Connection

from ledger.money import Amounts
from ledger.waiting import Ids

MATURITY_BUCKET_S = 600
# Reckoned once, not for each account.
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
    """Put what was shown on these UTC days into buckets, for so many seconds from now and until `earliest`.

    An account comes once a day.
    """
    for day in np.unique(days).tolist():
        rows = days == day
        connection.execute(RIPENS, {
            "accounts": accounts[rows].tolist(), "amounts": amounts[rows].tolist(), "day": day, "maturity_s": maturity_s,
            "later_s": later_s, "earliest": earliest, "bucket_s": MATURITY_BUCKET_S,
        })  # fmt: skip
