"""Review: earnings that look made are held, and taken back while they are immature; leaps are held (see `velocity`).

A viewer is *captive* to a creator on a UTC day when nearly all that his looking has earned went to that one creator. One
captive viewer is an admirer. A creator most of whose day comes from many of them is most likely his own audience: what
captive viewers have earned him that day returns to `reward_pool` as far as it has not matured, and what has matured is
held with the reason. What others have earned him stays and is paid, so that nobody can ruin a creator by clicking. All
anonymous viewers of one network are one viewer here, however many cookies they have. Where a person has released such a
hold, the creator's audience is believed for a while. Viewers are keyed hashes.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
from psycopg import Connection

from ledger import book, stops, velocity
from ledger.audience import Audience, Totals
from ledger.caps import DAY_S
from ledger.settings import PPM, Economics

log = logging.getLogger(__name__)

FAN_IN = "fan-in: most of a day was earned by viewers of nobody else; what they have earned waits"
MATURITY_SLACK_S = 600  # by which earnings may mature later than their day says: the buckets that they are kept in


@dataclass(frozen=True)
class Suspicion:
    """A creator's day that looks made."""

    day: date
    creator_id: int
    viewers: int
    captive_pix: int


def review(connection: Connection[Any], audience: Audience, economics: Economics) -> int:
    """Hold who looks made, and take back what is immature of it; returns the amount. One transaction.

    Judged are the days that have changed since the last review, and nobody else's.
    """
    totals = audience.judge(book.clock_s(connection) // DAY_S)
    if totals is None:
        return 0
    taken = sum(_act(connection, each, economics) for each in suspicions(totals, economics))
    for leap in velocity.leaps(totals.days, totals.creators, totals.net, totals.before, economics):
        reason = f"velocity on {_date(leap.day)}: more than {economics.velocity_ratio} times the days before"
        stops.hold(connection, leap.creator_id, reason, once=True)
    with book.refusals():
        kept = audience.keep(connection, totals)
    book.commit(connection)
    audience.judged(totals, kept)
    return taken


def suspicions(totals: Totals, economics: Economics) -> list[Suspicion]:
    """Which creators' days look made."""
    if not economics.captive_share_ppm:
        return []
    whole, rest = totals.net // PPM, totals.net % PPM
    most = whole * economics.fan_in_share_ppm + rest * economics.fan_in_share_ppm // PPM
    made = (totals.viewers >= economics.captive_viewers_min) & (totals.captive > most)
    return [
        Suspicion(_date(int(totals.days[i])), int(totals.creators[i]), int(totals.viewers[i]), int(totals.captive[i]))
        for i in np.flatnonzero(made)
    ]


def _act(connection: Connection[Any], found: Suspicion, economics: Economics) -> int:
    if stops.is_trusted(connection, found.creator_id, FAN_IN, economics.fan_in_trust_s):
        return 0
    with book.refusals():
        row = connection.execute(
            "INSERT INTO ledger.suspicions AS s (day, creator_id, viewers, captive_pix) VALUES (%s, %s, %s, %s)"
            " ON CONFLICT (day, creator_id) DO UPDATE SET viewers = excluded.viewers,"
            "   captive_pix = greatest(s.captive_pix, excluded.captive_pix) RETURNING captive_pix - reversed_pix",
            (found.day, found.creator_id, found.viewers, found.captive_pix),
        ).fetchone()
    assert row is not None
    stops.hold(connection, found.creator_id, FAN_IN, partial=True)
    taken = _take_back(connection, found, int(row[0]), economics.maturity_s)
    if taken:
        log.warning(
            "earnings that look made are taken back",
            extra={"creator": found.creator_id, "viewers": found.viewers, "pix": taken},
        )
    return taken


def _take_back(connection: Connection[Any], found: Suspicion, most: int, maturity_s: int) -> int:
    """The day's immature earnings return to the pool, the newest first, up to `most`; those of other days are not touched."""
    first = datetime.combine(found.day, datetime.min.time(), UTC) + timedelta(seconds=maturity_s)
    buckets = connection.execute(
        "SELECT m.account_id, m.matures_at, m.amount_pix FROM ledger.maturing m JOIN ledger.accounts a"
        " ON a.id = m.account_id WHERE a.kind = 'maturing' AND a.party = 'creator' AND a.owner = %s"
        " AND m.amount_pix > 0 AND m.matures_at > %s AND m.matures_at <= %s ORDER BY m.matures_at DESC",
        (found.creator_id, first, first + timedelta(seconds=DAY_S + MATURITY_SLACK_S)),
    ).fetchall()
    taken = 0
    for account, matures_at, amount in buckets:
        part = min(amount, most - taken)
        connection.execute(
            "UPDATE ledger.maturing SET amount_pix = amount_pix - %s WHERE account_id = %s AND matures_at = %s",
            (part, account, matures_at),
        )
        taken += part
    if not taken:
        return 0
    row = connection.execute(
        "UPDATE ledger.suspicions SET reversed_pix = reversed_pix + %s WHERE day = %s AND creator_id = %s"
        " RETURNING reversed_pix",
        (taken, found.day, found.creator_id),
    ).fetchone()
    assert row is not None
    lines = [(buckets[0][0], -taken), (book.account(connection, "reward_pool"), taken)]
    document = {"day": str(found.day), "creator": found.creator_id, "viewers": found.viewers}
    key = f"fan-in:{found.day}:{found.creator_id}:{row[0]}"
    book.post(connection, book.Entry("reversal_fan_in", key, lines, document))
    return taken


def _date(days: int) -> date:
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=days)).date()
