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
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray
from psycopg import Connection

from ledger import book, stops, velocity
from ledger.caps import DAY_S, Days
from ledger.money import Amounts
from ledger.runs import merged_from
from ledger.seen import Keys
from ledger.settings import PPM, Economics

log = logging.getLogger(__name__)

NARROW_MAX = 2**31 - 1
FAN_IN = "fan-in: most of a day was earned by viewers of nobody else; what they have earned waits"
MATURITY_SLACK_S = 600  # by which earnings may mature later than their day says: the buckets that they are kept in
DAYS_KEPT = 4  # today, yesterday, and the two days that yesterday is measured by
NAMES = {"viewers": "<u8", "creators": "<i8", "days": "<u2", "gross": "<i8", "net": "<i8"}


@dataclass(frozen=True)
class Pairs:
    """What viewers have earned creators, by viewer, creator and day."""

    viewers: Keys
    creators: NDArray[np.int64]
    days: Days
    gross: Amounts
    net: Amounts
    id: int = field(default=0, kw_only=True)  # of the row that keeps them


@dataclass(frozen=True)
class Totals:
    """Each day and creator once: what he earned, how much of it from captive viewers, and from how many."""

    days: NDArray[np.int64]
    creators: NDArray[np.int64]
    net: Amounts
    captive: Amounts
    viewers: NDArray[np.int64]


@dataclass(frozen=True)
class Suspicion:
    """A creator's day that looks made."""

    day: date
    creator_id: int
    viewers: int
    captive_pix: int


class Audience:
    """Who has earned whom how much, lately; kept like what was seen."""

    def __init__(self) -> None:
        self._runs: list[Pairs] = []
        self._since: int | None = None  # the oldest day that has come to something since it was judged last

    def load(self, connection: Connection[Any]) -> None:
        """Read what earlier folds have kept."""
        rows = connection.execute("SELECT id, viewers, creators, days, gross, net FROM ledger.pair_runs ORDER BY id")
        self._runs = [_kept(*row) for row in rows]

    def remember(self, connection: Connection[Any], pairs: Pairs, today: int, since: int | None = None) -> list[Pairs]:
        """Keep what was funded, in the caller's transaction; the result becomes the present by `accept`.

        `today` is the UTC day of the database's clock, `since` that of the oldest batch which waits for a fold: what is too
        old for it is forgotten, once it has been judged. A fold's
        own pairs are kept as they come: nearly all are different, and merging brings together what is not.
        """
        self._since = self.since(today if since is None else since)
        if not len(pairs.viewers):
            return self._runs
        runs = [*self._runs, pairs]
        start = merged_from([len(each.viewers) for each in runs])
        if start is not None:
            runs[start:] = [_young(summed(joined(runs[start:])), today, self._since)]
            connection.execute(
                "DELETE FROM ledger.pair_runs WHERE id = ANY(%s)", ([each.id for each in self._runs[start:]],)
            )
        return [*runs[:-1], self._insert(connection, runs[-1])] if len(runs[-1].viewers) else runs[:-1]

    def since(self, today: int) -> int:
        """The oldest day that has come to something and was not judged since; `today` where there is none."""
        return today if self._since is None else min(today, self._since)

    def judged(self) -> None:
        """All that was folded has been judged."""
        self._since = None

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

    def totals(self, economics: Economics, today: int) -> Totals | None:
        """Creators' days up to `today`, with what captive viewers make of them; None where nothing was earned lately."""
        if not self._runs:
            return None
        pairs = _young(summed(joined(self._runs)), today, self.since(today))
        if not len(pairs.viewers):
            return None
        captive = _captive(pairs, economics)
        keys = np.stack([pairs.days.astype(np.int64), pairs.creators])
        unique, place = np.unique(keys, axis=1, return_inverse=True)
        place = place.reshape(-1)
        net, theirs, viewers = (np.zeros(unique.shape[1], np.int64) for _ in range(3))
        np.add.at(net, place, pairs.net)
        np.add.at(theirs, place[captive], pairs.net[captive])
        np.add.at(viewers, place[captive], 1)
        return Totals(unique[0], unique[1], net, theirs, viewers)


def review(connection: Connection[Any], audience: Audience, economics: Economics) -> int:
    """Hold who looks made, and take back what is immature of it; returns the amount. One transaction."""
    today = book.clock_s(connection) // DAY_S
    totals = audience.totals(economics, today)
    if totals is None:
        return 0
    taken = sum(_act(connection, each, economics) for each in suspicions(totals, economics))
    for leap in velocity.leaps(totals.days, totals.creators, totals.net, economics, today, audience.since(today)):
        reason = f"velocity on {_date(leap.day)}: more than {economics.velocity_ratio} times the days before"
        stops.hold(connection, leap.creator_id, reason, once=True)
    book.commit(connection)
    audience.judged()
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


def _young(pairs: Pairs, today: int, since: int) -> Pairs:
    days = pairs.days.astype(np.int64)
    young = (days > since - DAYS_KEPT) & (
        days <= today + 1
    )  # later ones are of an older version, which believed any clock
    return Pairs(*(getattr(pairs, name)[young] for name in NAMES))


def _captive(pairs: Pairs, economics: Economics) -> NDArray[np.bool_]:
    """Rows of viewers who earn nearly all for one creator; `pairs` is sorted by day and viewer."""
    other = (pairs.viewers[1:] != pairs.viewers[:-1]) | (pairs.days[1:] != pairs.days[:-1])
    starts = np.flatnonzero(np.append(True, other))
    totals = np.repeat(np.add.reduceat(pairs.gross, starts), np.diff(np.append(starts, len(pairs.gross))))
    enough = totals >= economics.captive_min_pix
    return np.asarray(enough & (pairs.gross * PPM >= totals * economics.captive_share_ppm), np.bool_)


def _date(days: int) -> date:
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=days)).date()
