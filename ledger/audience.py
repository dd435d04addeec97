"""The audience: what viewers have earned creators in the last days, by viewer, creator and day. Owns `ledger.pair_runs`.

Kept like what was seen: a run of arrays a fold, in memory and in PostgreSQL, merged as they grow (see `runs`) and forgotten
once their days were judged and measure no other day. Knows which days came to something since they were judged; judges none
itself (see `review`). Viewers are keyed hashes.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from psycopg import Connection

from ledger import book, vouching
from ledger.caps import DAY_S, Days
from ledger.groups import Flags, changes
from ledger.money import Amounts
from ledger.runs import merged_from
from ledger.seen import Keys
from ledger.settings import PPM, Economics

NARROW_MAX = 2**31 - 1
DAYS_KEPT = 4  # today, yesterday, and the two days that yesterday is measured by
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
