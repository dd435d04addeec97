"""Review: of each creator's UTC day only what counts is paid, and a day out of proportion waits for a person.

For every creator's day that it judges, a review takes `net`, what the creator was credited, and `earned`, the part of
it that counts by the formulas of `vouching` (see `Totals.earned`). The difference is *doubtful* and is divided as
follows (all amounts are base units of PIX; a *suspicion* is the row of `ledger.suspicions` that notes them):

    doubtful   = net - earned
    taken back = the part of `doubtful` that has not matured yet: it moves from the creator's account `maturing` to
                 `reward_pool`
    held       = doubtful - taken back: it is in `payable` already, and a partial hold withholds it until a person
                 decides
    given back = the difference, if a later judgement of the day finds less doubtful than was taken back: it comes
                 from `reward_pool`, as far as that suffices, and matures again

Everything else is paid, so that nobody can ruin a creator with fake clicks.

Example (`source_day_pix` 30,000; `beside_share_ppm` 100 %; creators get 90 %). One network earned a creator 100,000
gross, 90,000 net. 30,000 are vouched for, and 30,000 more count: 60,000 of 100,000, so `earned` is 54,000 and
36,000 are taken back. A day later a spool arrives late: ten other people earned the creator 100,000 on the same day,
all of it vouched for. Now 130,000 + min(70,000, 130,000) = 200,000 of 200,000 count: the 36,000 are given back.
(`tests/ledger/risk/test_abuse.py` runs this example.)

A day is judged `JUDGED_AFTER_S` after it has ended. It is judged again if pairs come late, of this day or of one that
it is compared with. If earnings mature within `OVER_MATURITY_S`, a day is also judged before it ends. Until it has
ended nothing of it is taken back, and what is doubtful is held. Earnings above proportion (see `velocity`) are held,
too, and never taken back. If a person releases a hold for doubtful earnings, the creator is *trusted* for
`fan_in_trust_s`: a greater share counts. Viewers are known only as keyed hashes.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
from psycopg import Connection

from ledger.accrual import velocity
from ledger.accrual.audience import DAYS_KEPT, Audience
from ledger.accrual.caps import DAY_S
from ledger.accrual.maturing import MATURITY_BUCKET_S, SHOWN_ON, ripen
from ledger.accrual.runfiles import Keys
from ledger.accrual.totals import Ids, Judgement, Totals, days_of, keys_of
from ledger.journal import book
from ledger.money import Amounts
from ledger.risk import stops
from ledger.settings import Economics

log = logging.getLogger(__name__)

FAN_IN = "fan-in: few networks or keys have earned more of a day than counts; what is above waits"
EPOCH = date(1970, 1, 1)
FAN_IN_BEGINS = "fan-in"  # how the reasons of all such holds begin, also those of earlier releases
JUDGED_AFTER_S = 2 * 3600  # after a day's end: twice as long as a replica may take to bring its searches
OVER_MATURITY_S = 2 * DAY_S  # with a maturity this long or longer a day is judged only after it has ended
# Note what is doubtful of a day (`captive_pix`), for many creators. `found_at` becomes now: a person who released what was
# found earlier has not seen this. Of a day of which not all pairs are kept any more the greatest finding stays.
NOTE = """
    INSERT INTO ledger.suspicions AS s (day, creator_id, viewers, captive_pix, matures_at)
    SELECT %(day)s, t.*, %(matures_at)s
    FROM unnest(%(creators)s::bigint[], %(viewers)s::integer[], %(doubtful)s::bigint[]) AS t
    ON CONFLICT (day, creator_id) DO UPDATE SET viewers = excluded.viewers, matures_at = excluded.matures_at,
        found_at = CASE WHEN %(is_known)s OR excluded.captive_pix > s.captive_pix THEN now() ELSE s.found_at END,
        captive_pix = greatest(CASE WHEN %(is_known)s THEN s.reversed_pix ELSE s.captive_pix END, excluded.captive_pix)"""
# Take what is doubtful and not yet taken back from each creator's maturing buckets of the day, the newest bucket first.
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


# Lower what counts as taken back by what is given back.
GIVEN_BACK = """
    UPDATE ledger.suspicions s SET reversed_pix = s.reversed_pix - t.amount,
        captive_pix = greatest(s.captive_pix - t.amount, s.reversed_pix - t.amount)
    FROM unnest(%(creators)s::bigint[], %(amounts)s::bigint[]) AS t (creator_id, amount)
    WHERE s.day = %(day)s AND s.creator_id = t.creator_id"""
LEAPS = """
    INSERT INTO ledger.leaps AS l (day, creator_id, above_pix, matures_at)
    SELECT date '1970-01-01' + t.day, t.creator_id, t.above, to_timestamp(t.day * 86400.0 + %(maturity_s)s)
    FROM unnest(%(days)s::integer[], %(creators)s::bigint[], %(above)s::bigint[]) AS t (day, creator_id, above)
    ON CONFLICT (day, creator_id) DO UPDATE SET above_pix = excluded.above_pix, matures_at = excluded.matures_at"""


# The connection that reviews also writes all accruals, so a review has seen all that are committed. Before the ledger has begun
# a first time, no review had seen any: what is there then is paid as it was.
REVIEWED = """
    UPDATE ledger.reviewed r SET entry_id = h.entry_id FROM ledger.chain_head h WHERE r.entry_id IS DISTINCT FROM h.entry_id"""
BEGUN = f"{REVIEWED} AND r.entry_id IS NULL"


@dataclass(frozen=True)
class Judged:
    """The creators of one UTC day that a review judges. The arrays have the shape (creators,)."""

    day: date
    creators: Ids
    viewers: Ids  # how many sources have a doubtful part
    doubtful: Amounts  # net - earned, in base units of PIX
    is_over: bool  # whether the day has ended
    is_known: bool  # whether all its pairs are still kept, so that an earlier finding may be lowered


def begin(connection: Connection[Any]) -> None:
    """Note, the first time, that from now on only what a review has seen is paid. Commits."""
    with book.refusals():
        connection.execute(BEGUN)
    book.commit(connection)


def review(connection: Connection[Any], audience: Audience, economics: Economics) -> int:
    """Judge the days that are due: take back or hold what does not count, and hold what is above proportion.

    Runs one transaction and commits it. Returns what was taken back, in base units of PIX.
    """
    now_s = book.clock_s(connection)
    closed = (now_s - JUDGED_AFTER_S) // DAY_S - 1  # the last UTC day to judge as ended, in days since 1970
    # Up to tomorrow: clocks that are a little ahead already date appearances of it.
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
            taken += _settle_day(connection, judged, economics)
        _hold_leaps(connection, judgement, totals, earned, trusted, economics)
    with book.refusals():
        kept = audience.keep(connection, judgement)
        connection.execute(REVIEWED)
    book.commit(connection)
    audience.judged(judgement, kept)
    return taken


def _note_seen(connection: Connection[Any]) -> None:
    """Note that everything earned so far has been reviewed, where there was nothing to judge. Commits."""
    with book.refusals():
        connection.execute(REVIEWED)
    book.commit(connection)


def _by_day(totals: Totals, earned: Amounts, closed: int, known_from: int) -> Iterator[Judged]:
    """Group totals by UTC day; `earned` has their shape, `closed` and `known_from` are in days since 1970."""
    days, creators, doubtful = totals.days, totals.creators, totals.net - earned
    for day in np.unique(days).tolist():
        rows = np.flatnonzero(days == day)
        yield Judged(_date(day), creators[rows], totals.viewers[rows], doubtful[rows], day <= closed, day >= known_from)


def _settle_day(connection: Connection[Any], judged: Judged, economics: Economics) -> int:
    """Write the suspicions of one day; give back, take back and hold the amounts that follow from them.

    Returns what was taken back, in base units of PIX.
    """
    taken_before = _taken_before(connection, judged)
    suspected = np.flatnonzero(judged.doubtful > 0)  # rows of `judged`
    if not len(suspected) and not taken_before:
        return 0
    book.hold_end(connection)  # before the buckets are locked, in the order of `mature` and of adoption: no deadlock
    creators = judged.creators[suspected].tolist()
    values = {"day": judged.day, "matures_at": _matures_at(judged.day, economics), "is_known": judged.is_known,
              "creators": creators, "viewers": np.maximum(judged.viewers[suspected], 1).tolist(),
              "doubtful": judged.doubtful[suspected].tolist()}  # fmt: skip
    with book.refusals():
        connection.execute(NOTE, values)
    if judged.is_known:
        _lift(connection, judged.day, taken_before.keys() - set(creators))
        _give_back(connection, judged, taken_before, economics)
    taken = _take_back(connection, judged.day, creators, economics.maturity_s) if judged.is_over else 0
    still_doubtful = connection.execute(
        "SELECT creator_id FROM ledger.suspicions WHERE day = %s AND captive_pix > reversed_pix AND creator_id = ANY(%s)",
        (judged.day, creators),
    )
    stops.hold_in_part(connection, [row[0] for row in still_doubtful], FAN_IN)
    return taken


def _taken_before(connection: Connection[Any], judged: Judged) -> dict[int, int]:
    """Return, for each judged creator with a suspicion of the day, what was taken back so far, in base units of PIX."""
    rows = connection.execute(
        "SELECT creator_id, reversed_pix FROM ledger.suspicions WHERE day = %s AND captive_pix > 0", (judged.day,)
    ).fetchall()
    reversed_pix = dict(rows)
    suspected = np.intersect1d(judged.creators, np.array(list(reversed_pix), np.int64))
    return {creator: reversed_pix[creator] for creator in suspected.tolist()}


def _lift(connection: Connection[Any], day: date, creators: Collection[int]) -> None:
    """For creators who have nothing doubtful on the day any more, lower the suspicion to what was taken back."""
    if creators:
        connection.execute(
            "UPDATE ledger.suspicions SET captive_pix = reversed_pix"
            " WHERE day = %s AND creator_id = ANY(%s) AND captive_pix > reversed_pix",
            (day, sorted(creators)),
        )


def _give_back(
    connection: Connection[Any], judged: Judged, taken_before: Mapping[int, int], economics: Economics
) -> None:
    """Give back, as far as the pool suffices, what was taken back and counts now.

    It matures with the day's last earnings.
    """
    doubtful = dict(zip(judged.creators.tolist(), judged.doubtful.tolist(), strict=True))
    pool = book.account(connection, "reward_pool")
    left, returned = book.balance(connection, pool), {}
    for creator, taken in sorted(taken_before.items()):
        amount = min(taken - doubtful[creator], left)
        if amount > 0:
            returned[creator], left = amount, left - amount
    if not returned:
        return
    accounts = book.accounts_of(connection, "maturing", "creator", list(returned))
    lines = [(pool, -sum(returned.values())), *((accounts[creator], amount) for creator, amount in returned.items())]
    owners, amounts = [accounts[creator] for creator in returned], list(returned.values())
    ripen(
        connection, np.array(owners, np.int64), np.full(len(owners), (judged.day - EPOCH).days), np.array(amounts, np.int64),
        economics.maturity_s, earliest=_matures_at(judged.day, economics) + timedelta(days=1),
    )  # fmt: skip
    connection.execute(GIVEN_BACK, {"day": judged.day, "creators": list(returned), "amounts": amounts})
    document = {"day": str(judged.day), "creators": len(returned)}
    book.post(connection, book.Entry("returned_fan_in", f"{_key(connection, judged.day)}:returned", lines, document))


def _matures_at(day: date, economics: Economics) -> datetime:
    """Return when the first earnings of a day mature; before that there is nothing of the day to withhold."""
    return datetime.combine(day, datetime.min.time(), UTC) + timedelta(seconds=economics.maturity_s)


def _key(connection: Connection[Any], day: date) -> str:
    """Return the key of an entry about a day; unique, since this transaction holds the end of the journal."""
    row = connection.execute("SELECT entry_id FROM ledger.chain_head").fetchone()
    assert row is not None
    return f"fan-in:{day}:after:{row[0]}"


def _take_back(connection: Connection[Any], day: date, creators: list[int], maturity_s: int) -> int:
    """Move what is doubtful of a day and not matured back to the pool, the newest earnings first; return the amount."""
    values = {"day": day, "creators": creators, "maturity_s": maturity_s, "bucket_s": MATURITY_BUCKET_S}
    rows = connection.execute(TAKE, values).fetchall()
    if not rows:
        return 0
    owners, accounts, amounts = (list(column) for column in zip(*rows, strict=True))
    connection.execute(
        "UPDATE ledger.suspicions s SET reversed_pix = s.reversed_pix + t.amount"
        " FROM unnest(%s::bigint[], %s::bigint[]) AS t (creator_id, amount)"
        " WHERE s.day = %s AND s.creator_id = t.creator_id",
        (owners, amounts, day),
    )
    taken = int(sum(amounts))
    lines = [(account, -amount) for account, amount in zip(accounts, amounts, strict=True)]
    lines.append((book.account(connection, "reward_pool"), taken))
    document = {"day": str(day), "creators": len(rows)}
    book.post(connection, book.Entry("reversal_fan_in", _key(connection, day), lines, document))
    log.warning("earnings that do not count are taken back", extra=document | {"pix": taken})
    return taken


def _hold_leaps(
    connection: Connection[Any],
    judgement: Judgement,
    totals: Totals,
    earned: Amounts,
    trusted: Ids,
    economics: Economics,
) -> None:
    """Hold what is above proportion on judged days; forget the leaps of days that are in proportion now.

    A day is compared only if the totals hold all `BEFORE_DAYS` days before it. `earned` has the shape of `totals`.
    """
    comparable = np.flatnonzero(totals.days >= judgement.whole_from + velocity.BEFORE_DAYS)  # rows of `totals`
    rows = comparable[velocity.candidates(earned[comparable], economics)]
    before = judgement.best_before(totals.keys[rows], trusted, economics)
    leaps = velocity.leaps(totals.days[rows], totals.creators[rows], earned[rows], before, economics)
    leaping = np.array([(leap.creator_id, leap.day) for leap in leaps], np.int64).reshape(-1, 2)
    leaping_keys = keys_of(leaping[:, 0], leaping[:, 1].astype(np.uint16))
    _forget_leaps(connection, np.setdiff1d(totals.keys[comparable], leaping_keys))
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
    """Clear the stored leaps of creators' days that are in proportion (most never had one)."""
    days = [_date(day) for day in np.unique(days_of(keys)).tolist()]
    rows = connection.execute(
        "SELECT (day - date '1970-01-01')::integer, creator_id FROM ledger.leaps WHERE day = ANY(%s) AND above_pix > 0",
        (days,),
    ).fetchall()
    if rows:
        noted = np.array(rows, np.int64)  # (leaps, 2): day and creator
        cleared = noted[np.isin(keys_of(noted[:, 1], noted[:, 0].astype(np.uint16)), keys)]
        connection.execute(
            "UPDATE ledger.leaps l SET above_pix = 0 FROM unnest(%s::integer[], %s::bigint[]) AS t (day, creator_id)"
            " WHERE (l.day, l.creator_id) = (date '1970-01-01' + t.day, t.creator_id)",
            (cleared[:, 0].tolist(), cleared[:, 1].tolist()),
        )


def _date(days: int) -> date:
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=days)).date()
