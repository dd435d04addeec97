"""Review: of each creator's day is paid what counts (see `vouching`); leaps wait until somebody has looked (see `velocity`).

A day is judged when it is over, and once more, of those it concerns, where something of it comes late: what does not count
returns to `reward_pool`. Where earnings mature too soon for that it is judged as it goes, and what has matured is held with the
reason. All else stays and is paid, so that nobody can ruin a creator by clicking. All anonymous viewers of one network are one
viewer here, however many cookies they have. Where a person has released such a hold, the creator's audience is believed
for a while, up to a bound. Viewers are keyed hashes. A review costs what was shown since the last one (see `audience`), and
who has earned on the days that are over.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
from psycopg import Connection

from ledger import book, stops, velocity
from ledger.audience import DAYS_KEPT, Audience
from ledger.caps import DAY_S
from ledger.groups import Flags
from ledger.money import Amounts
from ledger.settings import Economics
from ledger.totals import Ids, Judgement, Totals, creators_of, days_of

log = logging.getLogger(__name__)

FAN_IN = "fan-in: few viewers, or viewers of few creators, have earned more of a day than counts; what is above waits"
FAN_IN_BEGINS = "fan-in"  # also of an earlier release's
MATURITY_SLACK_S = 600  # by which earnings may mature later than their day says: the buckets that they are kept in
JUDGED_AFTER_S = 2 * 3600  # a day's end: twice as long as replicas may bring what was shown on it (see `waiting`)
OVER_MATURITY_S = 2 * DAY_S  # what matures as late as that or later is judged when its day is over
# Days that are judged again begin from nothing: what was doubtful, or above proportion, may not be so any longer.
DOUBTFUL = "UPDATE ledger.suspicions s SET captive_pix = reversed_pix"
ABOVE = "UPDATE ledger.leaps s SET above_pix = 0"
ARE_DOUBTFUL, ARE_ABOVE = "s.captive_pix > s.reversed_pix", "s.above_pix > 0"
OF_DAYS = "s.day BETWEEN %(first)s AND %(last)s"
OF_CREATORS = "(s.day, s.creator_id) = (t.day, t.creator_id)"
LATE = """FROM (SELECT date '1970-01-01' + d, c FROM unnest(%(days)s::integer[], %(creators)s::bigint[]) AS u (d, c))
    AS t (day, creator_id)"""
# What a day has left doubtful, of many creators.
NOTE = """
    INSERT INTO ledger.suspicions AS s (day, creator_id, viewers, captive_pix)
    SELECT %s, t.* FROM unnest(%s::bigint[], %s::integer[], %s::bigint[]) AS t
    ON CONFLICT (day, creator_id) DO UPDATE SET viewers = excluded.viewers,
        captive_pix = greatest(s.captive_pix, excluded.captive_pix)"""
# The newest of a creator's buckets first, as far as each is needed.
TAKE = """
    WITH parts AS (
        SELECT b.creator_id, b.account_id, b.matures_at, least(b.amount_pix, b.most - b.before)::bigint AS part FROM (
            SELECT s.creator_id, m.account_id, m.matures_at, m.amount_pix, s.captive_pix - s.reversed_pix AS most,
                   sum(m.amount_pix) OVER (PARTITION BY m.account_id ORDER BY m.matures_at DESC) - m.amount_pix AS before
            FROM ledger.suspicions s
            JOIN ledger.accounts a ON (a.kind, a.party, a.owner, a.asset) = ('maturing', 'creator', s.creator_id, 'PIX')
            JOIN ledger.maturing m ON m.account_id = a.id
            WHERE s.day = %(day)s AND s.creator_id = ANY(%(creators)s) AND m.amount_pix > 0
              AND m.matures_at > %(first)s AND m.matures_at <= %(last)s) b
        WHERE b.before < b.most),
    lowered AS (
        UPDATE ledger.maturing m SET amount_pix = m.amount_pix - p.part FROM parts p
        WHERE (m.account_id, m.matures_at) = (p.account_id, p.matures_at))
    SELECT creator_id, account_id, sum(part)::bigint FROM parts GROUP BY creator_id, account_id ORDER BY account_id"""


@dataclass(frozen=True)
class Suspicions:
    """A day's creators who have earned more than counts; `mostly`: more of it is doubtful than not."""

    day: date
    creators: Ids
    viewers: Ids
    doubtful: Amounts
    mostly: Flags


def review(connection: Connection[Any], audience: Audience, economics: Economics) -> int:
    """Judge what is over: take back, or hold, what does not count; returns what was taken. One transaction."""
    judgement = audience.judge(_last_day(book.clock_s(connection), economics))
    if judgement is None:
        return 0
    trusted = np.array(sorted(stops.trusted(connection, FAN_IN_BEGINS, economics.fan_in_trust_s)), np.int64)
    _relieve(connection, judgement)
    taken = 0
    for totals in judgement.totals():
        earned = totals.earned(trusted, economics)
        taken += sum(_act(connection, found, economics) for found in suspicions(totals, earned))
        _withhold(connection, _leaps(judgement, totals, earned, trusted, economics), economics)
    with book.refusals():
        kept = audience.keep(connection, judgement)
    book.commit(connection)
    audience.judged(judgement, kept)
    return taken


def suspicions(totals: Totals, earned: Amounts) -> Iterator[Suspicions]:
    """Day by day, those who have earned more than counts."""
    days, creators, more = totals.days, totals.creators, earned < totals.net
    for day in np.unique(days[more]):
        rows = np.flatnonzero(more & (days == day))
        doubtful = totals.net[rows] - earned[rows]
        yield Suspicions(_date(int(day)), creators[rows], totals.viewers[rows], doubtful, doubtful > earned[rows])


def _leaps(
    judgement: Judgement, totals: Totals, earned: Amounts, trusted: Ids, economics: Economics
) -> list[velocity.Leap]:
    rows = velocity.fast(earned, economics)
    before = judgement.before(totals.keys[rows], trusted, economics)
    return velocity.leaps(totals.days[rows], totals.creators[rows], earned[rows], before, economics)


def _last_day(now_s: int, economics: Economics) -> int:
    """The last UTC day that is judged now."""
    if economics.maturity_s >= OVER_MATURITY_S:
        return (now_s - JUDGED_AFTER_S) // DAY_S - 1
    return now_s // DAY_S + 1  # with what clocks that are a little ahead say is of tomorrow


def _relieve(connection: Connection[Any], judgement: Judgement) -> None:
    """What is judged again begins from nothing.

    Of older days, of which something has come late, not all is known any more: they keep what was found.
    """
    known = judgement.through - DAYS_KEPT + 2
    late = judgement.late[days_of(judgement.late) >= known]
    of_days = {"first": _date(max(judgement.over.start, known)), "last": _date(judgement.through)}
    of_late = {"days": days_of(late).tolist(), "creators": creators_of(late).tolist()}
    for setting, asked in ((DOUBTFUL, ARE_DOUBTFUL), (ABOVE, ARE_ABOVE)):
        if judgement.over:
            connection.execute(f"{setting} WHERE {OF_DAYS} AND {asked}", of_days)
        if len(late):
            connection.execute(f"{setting} {LATE} WHERE {OF_CREATORS} AND {asked}", of_late)


def _act(connection: Connection[Any], found: Suspicions, economics: Economics) -> int:
    """Note one day's suspicions, take back what has not matured and hold who has something left, or a day mostly doubtful."""
    with book.refusals():
        connection.execute(
            NOTE, (found.day, *(each.tolist() for each in (found.creators, found.viewers, found.doubtful)))
        )
    taken = _take_back(connection, found, economics.maturity_s)
    left = connection.execute(
        "SELECT creator_id FROM ledger.suspicions WHERE day = %s AND captive_pix > reversed_pix AND creator_id = ANY(%s)",
        (found.day, found.creators.tolist()),
    )
    stops.hold_in_part(connection, {*found.creators[found.mostly].tolist(), *(row[0] for row in left)}, FAN_IN)
    return taken


def _take_back(connection: Connection[Any], found: Suspicions, maturity_s: int) -> int:
    """The day's immature earnings return to the pool, the newest first; those of other days are not touched."""
    first = datetime.combine(found.day, datetime.min.time(), UTC) + timedelta(seconds=maturity_s)
    last = first + timedelta(seconds=DAY_S + MATURITY_SLACK_S)
    values = {"day": found.day, "creators": found.creators.tolist(), "first": first, "last": last}
    rows = connection.execute(TAKE, values).fetchall()
    if not rows:
        return 0
    creators, accounts, amounts = (list(column) for column in zip(*rows, strict=True))
    connection.execute(
        "UPDATE ledger.suspicions s SET reversed_pix = s.reversed_pix + t.amount"
        " FROM unnest(%s::bigint[], %s::bigint[]) AS t (creator_id, amount)"
        " WHERE s.day = %s AND s.creator_id = t.creator_id",
        (creators, amounts, found.day),
    )
    taken = int(sum(amounts))
    lines = [(account, -amount) for account, amount in zip(accounts, amounts, strict=True)]
    lines.append((book.account(connection, "reward_pool"), taken))
    last_entry = connection.execute("SELECT entry_id FROM ledger.chain_head").fetchone()
    assert last_entry is not None
    document = {"day": str(found.day), "creators": len(rows)}
    book.post(connection, book.Entry("reversal_fan_in", f"fan-in:{found.day}:after:{last_entry[0]}", lines, document))
    log.warning("earnings that do not count are taken back", extra=document | {"pix": taken})
    return taken


def _withhold(connection: Connection[Any], leaps: Sequence[velocity.Leap], economics: Economics) -> None:
    """What is above proportion waits, until a person has looked at that day."""
    for leap in leaps:
        day = _date(leap.day)
        connection.execute(
            "INSERT INTO ledger.leaps AS l (day, creator_id, above_pix) VALUES (%s, %s, %s)"
            " ON CONFLICT (day, creator_id) DO UPDATE SET above_pix = greatest(l.above_pix, excluded.above_pix)",
            (day, leap.creator_id, leap.above_pix),
        )
        reason = f"velocity on {day}: more than {economics.velocity_ratio} times the days before; what is above waits"
        stops.hold(connection, leap.creator_id, reason, once=True, partial=True)


def _date(days: int) -> date:
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=days)).date()
