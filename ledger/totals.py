"""Totals: what creators' UTC days come to, and which of them a review judges. Owns `ledger.total_runs`.

Each review keeps by how much it has changed them, as a run (see `runstore`); a day's total is what all runs have of it. Judged
are days as they become over, and once more where something of them, or of a day that they are measured by, comes late. Knows no
viewer and no hold.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from psycopg import Connection

from ledger import caps, runfiles, vouching
from ledger.groups import Flags
from ledger.money import Amounts
from ledger.runfiles import Columns, Keys, Run, Shape, rows_of
from ledger.runstore import Known
from ledger.settings import PPM, Economics
from ledger.velocity import BEFORE_DAYS

Ids = NDArray[np.int64]

VOUCHED = 2  # the place of that column
DAY_BITS = 17  # of a day since 1970, beside a creator's number
PIECE_KEYS = 200_000  # creators' days that are judged at once


def _by_total(columns: Columns) -> Columns:
    return runfiles.summed(columns, 5, runfiles.by_key(columns))


# Of each creator's day: what was earned, the vouched and doubtful parts of what it was worth, what of the latter may
# count at most (see `vouching`), and of how many sources there is a doubtful part. A run can take back.
TOTALS = Shape("totals", b"pixrtot2", ("<i8", "<i8", "<i8", "<i8", "<i8"), _by_total)


@dataclass(frozen=True)
class Totals:
    """Some days of creators, each once: what was earned (`net`), and the parts of what it was worth.

    `usual`: the mean of what is vouched for of the days before, as far as these are wholly known.
    """

    keys: Keys
    net: Amounts
    vouched: Amounts
    doubtful: Amounts
    beside: Amounts
    viewers: Ids  # sources of which there is a doubtful part
    usual: Amounts

    @classmethod
    def of(cls, runs: Sequence[Run], keys: Keys, whole_from: int) -> Totals:
        """What runs have of these days; nothing where they have none, or where not all is known any more."""
        sums = [np.maximum(caps.sums(runs, keys, column), 0) for column in range(1, 1 + len(TOTALS.columns))]
        return cls(*[keys, *sums, _usual(runs, keys, whole_from)])

    @property
    def days(self) -> Ids:
        return days_of(self.keys)

    @property
    def creators(self) -> Ids:
        return creators_of(self.keys)

    def earned(self, trusted: Ids, economics: Economics) -> Amounts:
        """What of `net` counts; `trusted` are creators whose audience a person has seen."""
        gross = self.vouched + self.doubtful
        believed = np.isin(self.creators, trusted)
        counts = vouching.counts(self.vouched, self.usual, self.beside, believed, economics)
        earned = self.net.copy()
        for row in np.flatnonzero(counts < gross):  # exactly, however large they are
            net, some, share = int(self.net[row]), int(counts[row]), economics.creator_share_ppm
            earned[row] = min(net, max(net * some // int(gross[row]), some * share // PPM))
        return earned


@dataclass(frozen=True)
class Judgement:
    """What there is to judge, and what the totals have changed by since the last time.

    `over` are the UTC days that are over since, to be judged whole; `again` the days of creators that are judged once more,
    since something of them, or of a day before, has come: late, or where days are judged as they go.
    """

    runs: Sequence[Run]  # of totals, with what has changed
    changed: Run
    over: range
    again: Keys
    whole_from: int  # the first UTC day of which the totals know all

    @property
    def through(self) -> int:
        """The last UTC day that is over."""
        return self.over.stop - 1

    def totals(self) -> Iterator[Totals]:
        """What is to be judged, piece by piece."""
        keys = self.again
        if self.over:
            keys = _united([keys, *(run.keys[_are_in(self.over, days_of(run.keys))] for run in self.runs)])
        for start in range(0, len(keys), PIECE_KEYS):
            yield Totals.of(self.runs, keys[start : start + PIECE_KEYS], self.whole_from)

    def before(self, keys: Keys, trusted: Ids, economics: Economics) -> Amounts:
        """What the best one of the days before each of these has earned, as far as it counts."""
        best = np.zeros(len(keys), np.int64)
        for earlier in range(1, BEFORE_DAYS + 1):
            totals = Totals.of(self.runs, keys - np.uint64(earlier), self.whole_from)
            best = np.maximum(best, totals.earned(trusted, economics))
        return best


class Reached(NamedTuple):
    """How far was judged: the last row of pairs that is in the totals (0: none), the last UTC day that was judged, the first of
    which all is known, and the rules."""

    judged_until: int
    through: int
    whole_from: int
    rules: str


def keys_of(creators: Ids, days: NDArray[np.uint16]) -> Keys:
    """A creator's day as a key: the next day of a creator is the next key."""
    return creators.astype(np.uint64) << np.uint64(DAY_BITS) | days.astype(np.uint64)


def creators_of(keys: Keys) -> Ids:
    return (keys >> np.uint64(DAY_BITS)).astype(np.int64)


def days_of(keys: Keys) -> Ids:
    return (keys & np.uint64((1 << DAY_BITS) - 1)).astype(np.int64)


def measured_by(keys: Keys) -> Keys:
    """These days of creators, and those that are measured by them."""
    return _united([keys + np.uint64(later) for later in range(BEFORE_DAYS + 1)])


def _usual(runs: Sequence[Run], keys: Keys, whole_from: int) -> Amounts:
    """The mean of what is vouched for of the days before each of these, but for days of which not all is known."""
    days, total = days_of(keys), np.zeros(len(keys), np.int64)
    for earlier in range(1, vouching.USUAL_DAYS + 1):
        total += np.where(days - earlier >= whole_from, caps.sums(runs, keys - np.uint64(earlier), VOUCHED), 0)
    return np.maximum(total, 0) // np.clip(days - whole_from, 1, vouching.USUAL_DAYS)


def young(since: int, columns: Columns) -> Flags:
    """Those of days after `since`."""
    return np.asarray(days_of(columns[0]) > since)


def _are_in(days: range, those: Ids) -> Flags:
    return np.asarray((those >= days.start) & (those < days.stop))


def _united(parts: Sequence[Keys]) -> Keys:
    return np.unique(np.concatenate(parts))


# ── Rows ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def insert(connection: Connection[Any], judgement: Judgement, judged_until: int, rules: str) -> Run:
    """Keep by how much totals have changed, and how far was judged, in the caller's transaction."""
    reached = Reached(judged_until, judgement.through, judgement.whole_from, rules)
    return _insert(connection, judgement.changed.columns, reached)


def _insert(connection: Connection[Any], columns: Columns, reached: Reached) -> Run:
    mark = secrets.randbits(62)
    content = [each.astype(kind).tobytes() for each, kind in zip(columns, TOTALS.types, strict=True)]
    newest = int(days_of(columns[0]).max()) if len(columns[0]) else reached.through
    row = connection.execute(
        "INSERT INTO ledger.total_runs (keys, net, vouched, doubtful, beside, viewers, judged_until, judged_through,"
        " whole_from, rules, mark, newest_day) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s) RETURNING id",
        (*content, *reached, mark, newest),
    ).fetchone()
    assert row is not None
    return Run(rows_of((row[0], mark)), columns)


def last(connection: Connection[Any]) -> Reached | None:
    """How far was judged when something was kept last; None where nothing was."""
    row = connection.execute(
        "SELECT judged_until, judged_through, whole_from, rules FROM ledger.total_runs ORDER BY id DESC LIMIT 1"
    ).fetchone()
    return Reached(*row) if row else None


def begin_anew(connection: Connection[Any], reached: Reached, since: int) -> None:
    """Forget the totals of days from `since` on, but not how far was judged: what they are reckoned from is counted again.

    Earlier days stay as they were reckoned, for what they were reckoned from is gone; later days are measured by them.
    """
    before = known(connection)
    for columns in chain.from_iterable(read(connection, before[row : row + 1]) for row in range(len(before))):
        early = days_of(columns[0]) < since
        if early.any():
            _insert(connection, tuple(each[early] for each in columns), reached)
    last_id = _insert(connection, TOTALS.empty(), reached).last_id
    connection.execute(
        "DELETE FROM ledger.total_runs WHERE id = ANY(%s) OR (keys = '' AND id < %s)", (before[:, 0].tolist(), last_id)
    )


def newest_day(connection: Connection[Any]) -> int:
    """The newest UTC day of which there is a total; 0 where there is none."""
    row = connection.execute("SELECT coalesce(max(newest_day), 0) FROM ledger.total_runs WHERE keys <> ''").fetchone()
    assert row is not None
    return int(row[0])


def known(connection: Connection[Any]) -> Known:
    """The rows that hold something."""
    rows = connection.execute(
        "SELECT id, mark, length(keys) / 8 FROM ledger.total_runs WHERE length(keys) > 0 ORDER BY id"
    ).fetchall()
    return np.array(rows, np.int64).reshape(-1, 3)


def read(connection: Connection[Any], kept: Known) -> Iterator[Columns]:
    """What rows hold, merged."""
    found = connection.execute(
        "SELECT keys, net, vouched, doubtful, beside, viewers FROM ledger.total_runs WHERE id = ANY(%s) ORDER BY id",
        (kept[:, 0].tolist(),),
    )
    parts = [
        tuple(np.frombuffer(column, kind) for column, kind in zip(row, TOTALS.types, strict=True)) for row in found
    ]
    yield runfiles.combined(TOTALS, runfiles.joined(TOTALS, parts))
