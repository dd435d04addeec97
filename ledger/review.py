"""Review: of each creator's day is paid what counts (see `vouching`); leaps wait until somebody has looked (see `velocity`).

A day is judged when it is over, and once more where something of it comes late: what does not count returns to
`reward_pool`. Where earnings mature too soon for that it is judged as it goes, and what has matured is held with the reason.
All else stays and is paid, so that nobody can ruin a creator by clicking. All anonymous viewers of one network are one
viewer here, however many cookies they have. Where a person has released such a hold, the creator's audience is believed
for a while, up to a bound. Viewers are keyed hashes.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray
from psycopg import Connection

from ledger import book, stops, velocity, vouching
from ledger.caps import DAY_S, Days
from ledger.groups import Flags, changes
from ledger.money import Amounts
from ledger.runs import merged_from
from ledger.seen import Keys
from ledger.settings import PPM, Economics

log = logging.getLogger(__name__)

NARROW_MAX = 2**31 - 1
FAN_IN = "fan-in: few viewers, or viewers of few creators, have earned more of a day than counts; what is above waits"
FAN_IN_BEGINS = "fan-in"  # also of an earlier release's
MATURITY_SLACK_S = 600  # by which earnings may mature later than their day says: the buckets that they are kept in
DAYS_KEPT = 4  # today, yesterday, and the two days that yesterday is measured by
JUDGED_AFTER_S = 2 * 3600  # a day's end: twice as long as replicas may bring what was shown on it (see `waiting`)
OVER_MATURITY_S = 2 * DAY_S  # what matures as late as that or later is judged when its day is over
NAMES = {"viewers": "<u8", "creators": "<i8", "days": "<u2", "gross": "<i8", "net": "<i8"}


@dataclass(frozen=True)
class Pairs:
    """What viewers have earned creators, by viewer, creator and day.

    `gross` is what the appearances paid, or would have but for bounds that other viewers had filled; `net` is what the creator
    has got of it.
    """

    viewers: Keys
    creators: NDArray[np.int64]
    days: Days
    gross: Amounts
    net: Amounts
    id: int = field(default=0, kw_only=True)  # of the row that keeps them


@dataclass(frozen=True)
class Totals:
    """Each day and creator once: what was earned (`net`), and the parts of what it was worth (see `vouching`)."""

    days: NDArray[np.int64]
    creators: NDArray[np.int64]
    net: Amounts
    vouched: Amounts
    doubtful: Amounts
    free: Amounts
    viewers: NDArray[np.int64]  # of whom there is a doubtful part

    @classmethod
    def of(cls, pairs: Pairs, economics: Economics) -> Totals:
        """`pairs` are sorted by day and viewer, each viewer, creator and day once."""
        parts = vouching.shares(pairs.days, pairs.viewers, pairs.creators, pairs.gross, economics)
        order = np.lexsort((pairs.creators, pairs.days))
        days, creators = pairs.days[order].astype(np.int64), pairs.creators[order]
        starts = np.flatnonzero(changes(days, creators))
        columns = (pairs.net, parts.vouched, parts.doubtful, parts.free, (parts.doubtful > 0).astype(np.int64))
        return cls(days[starts], creators[starts], *(np.add.reduceat(each[order], starts) for each in columns))

    def earned(self, trusted: Flags, economics: Economics) -> Amounts:
        """What of `net` counts."""
        gross = self.vouched + self.doubtful
        counts = vouching.counts(self.vouched, self.doubtful, self.free, trusted, economics)
        earned = self.net.copy()
        for row in np.flatnonzero(counts < gross):  # exactly, however large they are
            net, some, share = int(self.net[row]), int(counts[row]), economics.creator_share_ppm
            earned[row] = min(net, max(net * some // int(gross[row]), some * share // PPM))
        return earned


@dataclass(frozen=True)
class Suspicion:
    """A creator's day of which more was earned than counts."""

    day: date
    creator_id: int
    viewers: int
    doubtful_pix: int


class Audience:
    """Who has earned whom how much, lately; kept like what was seen."""

    def __init__(self) -> None:
        self._runs: list[Pairs] = []
        self._since: int | None = None  # the oldest day that has come to something since it was judged last
        self._until = 0  # the newest one

    @property
    def is_unjudged(self) -> bool:
        """Is there a day that has come to something since it was judged? It may not be over."""
        return self._since is not None

    def load(self, connection: Connection[Any]) -> None:
        """Read what earlier folds have kept; what of it was judged is not known, so all is judged once more."""
        rows = connection.execute("SELECT id, viewers, creators, days, gross, net FROM ledger.pair_runs ORDER BY id")
        self._runs = [_kept(*row) for row in rows]
        today = book.clock_s(connection) // DAY_S
        for run in self._runs:
            self._since = self.since(max(int(run.days.min()), today - DAYS_KEPT + 1))
            self._until = max(self._until, min(int(run.days.max()), today + 1))

    def remember(self, connection: Connection[Any], pairs: Pairs, today: int, since: int | None = None) -> list[Pairs]:
        """Keep what was funded, in the caller's transaction; the result becomes the present by `accept`.

        `today` is the UTC day of the database's clock, `since` that of the oldest batch which waits for a fold: what is too
        old for it is forgotten, once it has been judged. A fold's
        own pairs are kept as they come: nearly all are different, and merging brings together what is not.
        """
        self._since = self.since(today if since is None else since)
        self._until = max(self._until, today)
        if not len(pairs.viewers):
            return self._runs
        self._since = self.since(int(pairs.days.min()))
        self._until = max(self._until, int(pairs.days.max()))
        runs = [*self._runs, pairs]
        start = merged_from([len(each.viewers) for each in runs])
        if start is not None:  # later days than tomorrow are of an older version, which believed any clock
            runs[start:] = [_between(summed(joined(runs[start:])), self._since - DAYS_KEPT + 1, today + 1)]
            connection.execute(
                "DELETE FROM ledger.pair_runs WHERE id = ANY(%s)", ([each.id for each in self._runs[start:]],)
            )
        return [*runs[:-1], self._insert(connection, runs[-1])] if len(runs[-1].viewers) else runs[:-1]

    def since(self, today: int) -> int:
        """The oldest day that has come to something and was not judged since; `today` where there is none."""
        return today if self._since is None else min(today, self._since)

    def judged(self, through: int) -> None:
        """Everything up to this day has been judged."""
        if self._since is not None:
            self._since = max(self._since, through + 1) if self._until > through else None

    def accept(self, runs: list[Pairs]) -> None:
        """The transaction that kept these has committed."""
        self._runs = runs

    def _insert(self, connection: Connection[Any], pairs: Pairs) -> Pairs:
        row = connection.execute(
            "INSERT INTO ledger.pair_runs (viewers, creators, days, gross, net) VALUES (%s, %s, %s, %s, %s) RETURNING id",
            [_narrow(getattr(pairs, name), kind).tobytes() for name, kind in NAMES.items()],
        ).fetchone()
        assert row is not None
        return replace(pairs, id=row[0])

    def totals(self, economics: Economics, through: int) -> Totals | None:
        """Creators' days up to one, and some before; None where nothing up to it has come to something since it was judged."""
        if not self._runs or self._since is None or self._since > through:
            return None
        pairs = _between(summed(joined(self._runs)), self._since - DAYS_KEPT + 1, through)
        return Totals.of(pairs, economics) if len(pairs.viewers) else None


def review(connection: Connection[Any], audience: Audience, economics: Economics) -> int:
    """Judge the days that are over: take back, or hold, what does not count; returns what was taken. One transaction."""
    through = _last_day(book.clock_s(connection), economics)
    totals, since = audience.totals(economics, through), audience.since(through)
    if totals is None:
        return 0
    trusted = stops.trusted(connection, FAN_IN_BEGINS, economics.fan_in_trust_s)
    earned = totals.earned(np.isin(totals.creators, list(trusted)), economics)
    found = suspicions(totals, earned, since)
    _relieve(connection, found, since, through)
    taken = sum(_act(connection, each, economics) for each in found)
    _withhold(connection, velocity.leaps(totals.days, totals.creators, earned, economics, through, since), economics)
    book.commit(connection)
    audience.judged(through)
    return taken


def suspicions(totals: Totals, earned: Amounts, since: int) -> list[Suspicion]:
    """Creators' days from `since` on that have earned more than counts."""
    return [
        Suspicion(_date(int(totals.days[i])), int(totals.creators[i]), int(totals.viewers[i]), int(totals.net[i] - earned[i]))
        for i in np.flatnonzero((earned < totals.net) & (totals.days >= since))
    ]  # fmt: skip


def _last_day(now_s: int, economics: Economics) -> int:
    """The last UTC day that is judged now."""
    if economics.maturity_s >= OVER_MATURITY_S:
        return (now_s - JUDGED_AFTER_S) // DAY_S - 1
    return now_s // DAY_S + 1  # with what clocks that are a little ahead say is of tomorrow


def _relieve(connection: Connection[Any], found: Sequence[Suspicion], since: int, through: int) -> None:
    """What was doubtful, or above proportion, of a day that is judged again, and is no longer, is held no more."""
    connection.execute(
        "UPDATE ledger.suspicions SET captive_pix = reversed_pix"
        " WHERE day BETWEEN %s AND %s AND captive_pix > reversed_pix AND (day, creator_id) NOT IN"
        " (SELECT * FROM unnest(%s::date[], %s::bigint[]))",
        (_date(since), _date(through), [each.day for each in found], [each.creator_id for each in found]),
    )
    connection.execute(
        "UPDATE ledger.leaps SET above_pix = 0 WHERE day BETWEEN %s AND %s", (_date(since), _date(through))
    )


def _act(connection: Connection[Any], found: Suspicion, economics: Economics) -> int:
    with book.refusals():
        row = connection.execute(
            "INSERT INTO ledger.suspicions AS s (day, creator_id, viewers, captive_pix) VALUES (%s, %s, %s, %s)"
            " ON CONFLICT (day, creator_id) DO UPDATE SET viewers = excluded.viewers,"
            "   captive_pix = greatest(s.reversed_pix, excluded.captive_pix) RETURNING captive_pix - reversed_pix",
            (found.day, found.creator_id, found.viewers, found.doubtful_pix),
        ).fetchone()
    assert row is not None
    stops.hold(connection, found.creator_id, FAN_IN, partial=True)
    taken = _take_back(connection, found, int(row[0]), economics.maturity_s)
    if taken:
        log.warning(
            "earnings that do not count are taken back",
            extra={"creator": found.creator_id, "viewers": found.viewers, "pix": taken},
        )
    return taken


def _withhold(connection: Connection[Any], leaps: Sequence[velocity.Leap], economics: Economics) -> None:
    """What is above proportion waits, until a person has looked at that day."""
    for leap in leaps:
        day = _date(leap.day)
        connection.execute(
            "INSERT INTO ledger.leaps AS l (day, creator_id, above_pix) VALUES (%s, %s, %s)"
            " ON CONFLICT (day, creator_id) DO UPDATE SET above_pix = excluded.above_pix",
            (day, leap.creator_id, leap.above_pix),
        )
        reason = f"velocity on {day}: more than {economics.velocity_ratio} times the days before; what is above waits"
        stops.hold(connection, leap.creator_id, reason, once=True, partial=True)


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


def joined(runs: list[Pairs]) -> Pairs:
    return Pairs(*(np.concatenate([getattr(run, name) for run in runs]) for name in NAMES))


def summed(pairs: Pairs) -> Pairs:
    """Each viewer, creator and day once."""
    order = np.lexsort((pairs.creators, pairs.viewers, pairs.days))
    viewers, creators, days = pairs.viewers[order], pairs.creators[order], pairs.days[order]
    same = (viewers[1:] == viewers[:-1]) & (creators[1:] == creators[:-1]) & (days[1:] == days[:-1])
    starts = np.flatnonzero(np.append(True, ~same))
    gross, net = (np.add.reduceat(each[order], starts) for each in (pairs.gross, pairs.net))
    return Pairs(viewers[starts], creators[starts], days[starts], gross, net)


def _narrow(values: NDArray[Any], kind: str) -> NDArray[Any]:
    """Signed numbers in four bytes where all fit, which is nearly always and writes a third less; else in eight."""
    return values.astype("<i4" if kind == "<i8" and int(values.max()) <= NARROW_MAX else kind)


def _kept(number: int, *columns: bytes) -> Pairs:
    """A run as it was written; how wide a column's numbers are follows from its length."""
    count = len(columns[0]) // 8
    arrays = (
        np.frombuffer(column, f"{kind[:2]}{len(column) // count}").astype(kind)
        for column, kind in zip(columns, NAMES.values(), strict=True)
    )
    return Pairs(*arrays, id=number)


def _between(pairs: Pairs, first: int, last: int) -> Pairs:
    """Those of these days."""
    days = pairs.days.astype(np.int64)
    some = (days >= first) & (days <= last)
    return Pairs(*(getattr(pairs, name)[some] for name in NAMES))


def _date(days: int) -> date:
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=days)).date()
