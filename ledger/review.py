"""Review: of each creator's day is paid what counts (see `vouching`); leaps wait until somebody has looked (see `velocity`).

A day is judged when it is over, and once more, of those it concerns, where something of it comes late: what does not count
returns to `reward_pool`, and comes back from there where it turns out to count. Where earnings mature too soon for that a day
is judged as it goes, too: then what does not count only waits, and what has matured is held with the reason. All else stays
and is paid, so that nobody can ruin a creator by clicking. All anonymous viewers of one network are one viewer here, however
many cookies they have. Where a person has released such a hold, the creator's audience is believed for a while, up to a bound.
Viewers are keyed hashes. A review costs what was shown since the last one (see `audience`), and who has earned on the days
that are over.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
from psycopg import Connection

from ledger import book, stops, velocity
from ledger.audience import DAYS_KEPT, Audience
from ledger.caps import DAY_S
from ledger.maturing import MATURITY_BUCKET_S, SHOWN_ON, ripen
from ledger.money import Amounts
from ledger.runfiles import Keys
from ledger.settings import Economics
from ledger.totals import Ids, Judgement, Totals, days_of, keys_of

log = logging.getLogger(__name__)

FAN_IN = "fan-in: few networks or keys have earned more of a day than counts; what is above waits"
EPOCH = date(1970, 1, 1)
FAN_IN_BEGINS = "fan-in"  # also of an earlier release's
JUDGED_AFTER_S = 2 * 3600  # a day's end: twice as long as replicas may bring what was shown on it (see `waiting`)
OVER_MATURITY_S = 2 * DAY_S  # what matures as late as that or later is judged when its day is over
# What a day has left doubtful, of many creators. What is found once more is found now: a person who has released what was found
# before has not seen it. Of a day of which not all is known any more the most that was found stays. What a clock that is a
# little ahead says is of tomorrow matures as of now.
NOTE = """
    INSERT INTO ledger.suspicions AS s (day, creator_id, viewers, captive_pix, matures_at)
    SELECT %(day)s, t.*, least(%(matures_at)s, now() + make_interval(secs => %(maturity_s)s))
    FROM unnest(%(creators)s::bigint[], %(viewers)s::integer[], %(doubtful)s::bigint[]) AS t
    ON CONFLICT (day, creator_id) DO UPDATE SET viewers = excluded.viewers, matures_at = excluded.matures_at,
        found_at = CASE WHEN %(is_known)s OR excluded.captive_pix > s.captive_pix THEN now() ELSE s.found_at END,
        captive_pix = greatest(CASE WHEN %(is_known)s THEN s.reversed_pix ELSE s.captive_pix END, excluded.captive_pix)"""
# The newest of a creator's buckets first, as far as each is needed.
TAKE = f"""
    WITH parts AS (
        SELECT b.creator_id, b.account_id, b.matures_at, least(b.amount_pix, b.most - b.before)::bigint AS part FROM (
            SELECT s.creator_id, m.account_id, m.matures_at, m.amount_pix, s.captive_pix - s.reversed_pix AS most,
                   sum(m.amount_pix) OVER (PARTITION BY m.account_id ORDER BY m.matures_at DESC) - m.amount_pix AS before
            FROM ledger.suspicions s
            JOIN ledger.accounts a ON (a.kind, a.party, a.owner, a.asset) = ('maturing', 'creator', s.creator_id, 'PIX')
            JOIN ledger.maturing m ON m.account_id = a.id
            WHERE s.day = %(day)s AND s.creator_id = ANY(%(creators)s) AND m.amount_pix > 0
              AND {SHOWN_ON} = %(day)s::date - date '1970-01-01') b
        WHERE b.before < b.most),
    lowered AS (
        UPDATE ledger.maturing m SET amount_pix = m.amount_pix - p.part FROM parts p
        WHERE (m.account_id, m.matures_at) = (p.account_id, p.matures_at))
    SELECT creator_id, account_id, sum(part)::bigint FROM parts GROUP BY creator_id, account_id ORDER BY account_id"""


# What returns to creators is taken back no longer.
UNTAKEN = """
    UPDATE ledger.suspicions s SET reversed_pix = s.reversed_pix - t.amount,
        captive_pix = greatest(s.captive_pix - t.amount, s.reversed_pix - t.amount)
    FROM unnest(%(creators)s::bigint[], %(amounts)s::bigint[]) AS t (creator_id, amount)
    WHERE s.day = %(day)s AND s.creator_id = t.creator_id"""
LEAPS = """
    INSERT INTO ledger.leaps AS l (day, creator_id, above_pix, matures_at)
    SELECT date '1970-01-01' + t.day, t.creator_id, t.above,
           least(to_timestamp(t.day * 86400.0), now()) + make_interval(secs => %(maturity_s)s)
    FROM unnest(%(days)s::integer[], %(creators)s::bigint[], %(above)s::bigint[]) AS t (day, creator_id, above)
    ON CONFLICT (day, creator_id) DO UPDATE SET above_pix = excluded.above_pix, matures_at = excluded.matures_at"""


# All accruals are of the connection that reviews: those that are committed were seen. Before it has begun a first time it had
# not seen any, and what is there is paid as it was.
REVIEWED = """
    UPDATE ledger.reviewed r SET entry_id = h.entry_id FROM ledger.chain_head h WHERE r.entry_id IS DISTINCT FROM h.entry_id"""
BEGUN = f"{REVIEWED} AND r.entry_id IS NULL"


@dataclass(frozen=True)
class Judged:
    """A day's creators who are judged; `doubtful` is what of their earnings does not count.

    `is_over`: the day is. `is_known`: and all of it is known, so that what was found before may be no longer so.
    """

    day: date
    creators: Ids
    viewers: Ids
    doubtful: Amounts
    is_over: bool
    is_known: bool


def begin(connection: Connection[Any]) -> None:
    """From now on nothing is paid that no review has seen. Commits."""
    with book.refusals():
        connection.execute(BEGUN)
    book.commit(connection)


def review(connection: Connection[Any], audience: Audience, economics: Economics) -> int:
    """Judge what is over: take back, or hold, what does not count; returns what was taken. One transaction."""
    now_s = book.clock_s(connection)
    closed = (now_s - JUDGED_AFTER_S) // DAY_S - 1
    # With what clocks that are a little ahead say is of tomorrow.
    ahead = closed if economics.maturity_s >= OVER_MATURITY_S else now_s // DAY_S + 1
    judgement = audience.judge(closed, ahead)
    if judgement is None:
        _note_seen(connection)
        return 0
    trusted = np.array(sorted(stops.trusted(connection, FAN_IN_BEGINS, economics.fan_in_trust_s)), np.int64)
    known_from, taken = now_s // DAY_S - DAYS_KEPT + 1, 0
    for totals in judgement.totals():
        earned = totals.earned(trusted, economics)
        for judged in _by_day(totals, earned, closed, known_from):
            taken += _act(connection, judged, economics)
        _withhold(connection, judgement, totals, earned, trusted, economics)
    with book.refusals():
        kept = audience.keep(connection, judgement)
        connection.execute(REVIEWED)
    book.commit(connection)
    audience.judged(judgement, kept)
    return taken


def _note_seen(connection: Connection[Any]) -> None:
    """Nothing has come that could be judged: all that was earned has been. Commits."""
    with book.refusals():
        connection.execute(REVIEWED)
    book.commit(connection)


def _by_day(totals: Totals, earned: Amounts, closed: int, known_from: int) -> Iterator[Judged]:
    days, creators, doubtful = totals.days, totals.creators, totals.net - earned
    for day in np.unique(days).tolist():
        rows = np.flatnonzero(days == day)
        yield Judged(_date(day), creators[rows], totals.viewers[rows], doubtful[rows], day <= closed, day >= known_from)


def _act(connection: Connection[Any], judged: Judged, economics: Economics) -> int:
    """Note one day's suspicions, take back what has not matured, hold who has something left, and give back what counts now."""
    before = _found_before(connection, judged)
    found = np.flatnonzero(judged.doubtful > 0)
    if not len(found) and not before:
        return 0
    book.hold_end(connection)  # before the buckets, as who matures and who adopts do
    creators = judged.creators[found].tolist()
    given = {"day": judged.day, "matures_at": _matures_at(judged.day, economics), "maturity_s": economics.maturity_s,
             "is_known": judged.is_known, "creators": creators, "viewers": np.maximum(judged.viewers[found], 1).tolist(),
             "doubtful": judged.doubtful[found].tolist()}  # fmt: skip
    with book.refusals():
        connection.execute(NOTE, given)
    if judged.is_known:
        _relieve(connection, judged.day, before.keys() - set(creators))
        _give_back(connection, judged, before, economics)
    taken = _take_back(connection, judged.day, creators, economics.maturity_s) if judged.is_over else 0
    left = connection.execute(
        "SELECT creator_id FROM ledger.suspicions WHERE day = %s AND captive_pix > reversed_pix AND creator_id = ANY(%s)",
        (judged.day, creators),
    )
    stops.hold_in_part(connection, [row[0] for row in left], FAN_IN)
    return taken


def _found_before(connection: Connection[Any], judged: Judged) -> dict[int, int]:
    """Of those who are judged the ones with a suspicion, and what was taken back for it."""
    rows = connection.execute(
        "SELECT creator_id, reversed_pix FROM ledger.suspicions WHERE day = %s AND captive_pix > 0", (judged.day,)
    ).fetchall()
    known = dict(rows)
    found = np.intersect1d(judged.creators, np.array(list(known), np.int64))
    return {creator: known[creator] for creator in found.tolist()}


def _relieve(connection: Connection[Any], day: date, creators: Collection[int]) -> None:
    """What was doubtful of these creators' day is so no longer, but for what was taken back."""
    if creators:
        connection.execute(
            "UPDATE ledger.suspicions SET captive_pix = reversed_pix"
            " WHERE day = %s AND creator_id = ANY(%s) AND captive_pix > reversed_pix",
            (day, sorted(creators)),
        )


def _give_back(connection: Connection[Any], judged: Judged, before: Mapping[int, int], economics: Economics) -> None:
    """What was taken back and counts now returns from the pool, as far as that goes, and matures as of its day."""
    doubtful = dict(zip(judged.creators.tolist(), judged.doubtful.tolist(), strict=True))
    pool = book.account(connection, "reward_pool")
    left, returned = book.balance(connection, pool), {}
    for creator, taken in sorted(before.items()):
        amount = min(taken - doubtful[creator], left)
        if amount > 0:
            returned[creator], left = amount, left - amount
    if not returned:
        return
    accounts = book.accounts_of(connection, "maturing", "creator", list(returned))
    lines = [(pool, -sum(returned.values())), *((accounts[creator], amount) for creator, amount in returned.items())]
    whose, amounts = [accounts[creator] for creator in returned], list(returned.values())
    ripen(
        connection, np.array(whose, np.int64), np.full(len(whose), (judged.day - EPOCH).days), np.array(amounts, np.int64),
        economics.maturity_s, earliest=_matures_at(judged.day, economics) + timedelta(days=1),
    )  # fmt: skip
    connection.execute(UNTAKEN, {"day": judged.day, "creators": list(returned), "amounts": amounts})
    document = {"day": str(judged.day), "creators": len(returned)}
    book.post(connection, book.Entry("returned_fan_in", f"{_key(connection, judged.day)}:returned", lines, document))


def _matures_at(day: date, economics: Economics) -> datetime:
    """When the first of what a day has earned is payable: before that there is nothing to withhold."""
    return datetime.combine(day, datetime.min.time(), UTC) + timedelta(seconds=economics.maturity_s)


def _key(connection: Connection[Any], day: date) -> str:
    """Of an entry that this transaction, which holds the end of the journal, writes next."""
    row = connection.execute("SELECT entry_id FROM ledger.chain_head").fetchone()
    assert row is not None
    return f"fan-in:{day}:after:{row[0]}"


def _take_back(connection: Connection[Any], day: date, creators: list[int], maturity_s: int) -> int:
    """The day's immature earnings return to the pool, the newest first."""
    given = {"day": day, "creators": creators, "maturity_s": maturity_s, "bucket_s": MATURITY_BUCKET_S}
    rows = connection.execute(TAKE, given).fetchall()
    if not rows:
        return 0
    whose, accounts, amounts = (list(column) for column in zip(*rows, strict=True))
    connection.execute(
        "UPDATE ledger.suspicions s SET reversed_pix = s.reversed_pix + t.amount"
        " FROM unnest(%s::bigint[], %s::bigint[]) AS t (creator_id, amount)"
        " WHERE s.day = %s AND s.creator_id = t.creator_id",
        (whose, amounts, day),
    )
    taken = int(sum(amounts))
    lines = [(account, -amount) for account, amount in zip(accounts, amounts, strict=True)]
    lines.append((book.account(connection, "reward_pool"), taken))
    document = {"day": str(day), "creators": len(rows)}
    book.post(connection, book.Entry("reversal_fan_in", _key(connection, day), lines, document))
    log.warning("earnings that do not count are taken back", extra=document | {"pix": taken})
    return taken


def _withhold(
    connection: Connection[Any],
    judgement: Judgement,
    totals: Totals,
    earned: Amounts,
    trusted: Ids,
    economics: Economics,
) -> None:
    """What is above proportion waits, until a person has looked at that day; and what is so no longer, does not."""
    whole = np.flatnonzero(totals.days >= judgement.whole_from + velocity.BEFORE_DAYS)
    rows = whole[velocity.fast(earned[whole], economics)]
    before = judgement.before(totals.keys[rows], trusted, economics)
    leaps = velocity.leaps(totals.days[rows], totals.creators[rows], earned[rows], before, economics)
    leaping = np.array([(leap.creator_id, leap.day) for leap in leaps], np.int64).reshape(-1, 2)
    again = keys_of(leaping[:, 0], leaping[:, 1].astype(np.uint16))
    _forget_leaps(connection, np.setdiff1d(totals.keys[whole], again))
    if not leaps:
        return
    connection.execute(LEAPS, {
        "days": [leap.day for leap in leaps], "creators": [leap.creator_id for leap in leaps],
        "above": [leap.above_pix for leap in leaps], "maturity_s": economics.maturity_s,
    })  # fmt: skip
    stops.hold_days(
        connection,
        [(leap.creator_id, f"velocity on {_date(leap.day)}",
          f": more than {economics.velocity_ratio} times the days before; what is above waits") for leap in leaps],
    )  # fmt: skip


def _forget_leaps(connection: Connection[Any], keys: Keys) -> None:
    """These days of creators are in proportion; most have always been."""
    days = [_date(day) for day in np.unique(days_of(keys)).tolist()]
    rows = connection.execute(
        "SELECT (day - date '1970-01-01')::integer, creator_id FROM ledger.leaps WHERE day = ANY(%s) AND above_pix > 0",
        (days,),
    ).fetchall()
    if rows:
        found = np.array(rows, np.int64)
        over = found[np.isin(keys_of(found[:, 1], found[:, 0].astype(np.uint16)), keys)]
        connection.execute(
            "UPDATE ledger.leaps l SET above_pix = 0 FROM unnest(%s::integer[], %s::bigint[]) AS t (day, creator_id)"
            " WHERE (l.day, l.creator_id) = (date '1970-01-01' + t.day, t.creator_id)",
            (over[:, 0].tolist(), over[:, 1].tolist()),
        )


def _date(days: int) -> date:
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=days)).date()
