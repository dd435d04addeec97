"""Totals: the sums of each creator's UTC day, and which days a review has to judge. Owns `ledger.total_runs`.

A review stores the differences that it makes to the totals as one run (see `runstore`); the total of a day is its sum
over all runs. A day is judged when it has ended. It is judged again if pairs come late, of this day or of a day that it
is compared with. Knows neither viewers nor holds.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from psycopg import Connection

from ledger.accrual import caps, runfiles, vouching
from ledger.accrual.groups import Flags
from ledger.accrual.runfiles import Columns, Keys, Run, Shape, rows_of
from ledger.accrual.runstore import Known
from ledger.accrual.velocity import BEFORE_DAYS
from ledger.money import Amounts
from ledger.settings import PPM, Economics

Ids = NDArray[np.int64]

VOUCHED = 2  # index of that column in a run of totals
DAY_BITS = 17  # of a key hold the day since 1970, the others the creator's id
PIECE_KEYS = 200_000  # creators' days that are judged at once


def _by_total(columns: Columns) -> Columns:
    return runfiles.summed(columns, 5, runfiles.key_starts(columns))


# Beside the key of each creator's day: net, vouched, doubtful, beside (see `vouching`), and the number of sources with a
# doubtful part. A run of differences may hold negative numbers.
TOTALS = Shape("totals", b"pixrtot2", ("<i8", "<i8", "<i8", "<i8", "<i8"), _by_total)


@dataclass(frozen=True)
class Totals:
    """Some creators' UTC days, each once. Every array has the shape (days of creators,); amounts are base units of PIX.

    `vouched`, `doubtful`, `beside` and `usual` are V, gross - V, B and U of `vouching`.
    """

    keys: Keys
    net: Amounts  # what the creator was credited
    vouched: Amounts
    doubtful: Amounts
    beside: Amounts
    viewers: Ids  # how many sources have a doubtful part
    usual: Amounts

    @classmethod
    def of(cls, runs: Sequence[Run], keys: Keys, whole_from: int) -> Totals:
        """Sum the runs for some creators' days.

        Args:
            runs: runs of totals.
            keys: uint64, shape (days of creators,), ascending (see `keys_of`).
            whole_from: the first UTC day, in days since 1970, of which the runs hold everything. Days before it are left out
                of `usual`.

        Returns:
            The totals, in the order of `keys`; 0 for a day that no run has.
        """
        sums = [np.maximum(caps.sums(runs, keys, column), 0) for column in range(1, 1 + len(TOTALS.columns))]
        return cls(*[keys, *sums, _usual(runs, keys, whole_from)])

    @property
    def days(self) -> Ids:
        """The UTC day of each row, in days since 1970."""
        return days_of(self.keys)

    @property
    def creators(self) -> Ids:
        """The creator of each row."""
        return creators_of(self.keys)

    def earned(self, trusted: Ids, economics: Economics) -> Amounts:
        """Return the part of each day's `net` that counts.

        If `counts` of `vouching` is less than gross, the result is net * counts / gross. It is raised to the creator's
        share of `counts` if it is below that, but never above `net`. (It is below where caps refused appearances: they
        are part of gross and not of net.)

        Args:
            trusted: int64, shape (creators,). Creators whose audience a person has accepted.
            economics: the rules, with `creator_share_ppm`.

        Returns:
            int64, shape (days of creators,), base units of PIX: at most `net`, rounded down.
        """
        gross = self.vouched + self.doubtful
        is_trusted = np.isin(self.creators, trusted)
        counts = vouching.counts(self.vouched, self.usual, self.beside, is_trusted, economics)
        earned = self.net.copy()
        for row in np.flatnonzero(counts < gross):  # in Python's integers: a product may exceed 64 bits
            net, counting, share_ppm = int(self.net[row]), int(counts[row]), economics.creator_share_ppm
            earned[row] = min(net, max(net * counting // int(gross[row]), counting * share_ppm // PPM))
        return earned


@dataclass(frozen=True)
class Judgement:
    """Which creators' days a review has to judge, and the differences that it makes to the totals."""

    runs: Sequence[Run]  # the totals, with `changed`
    changed: Run  # the differences since the last review
    closed_days: range  # UTC days that have ended since: every creator's day is judged
    rejudged: Keys  # other creators' days to judge: pairs of them came late, or they are judged before they end
    whole_from: int  # the first UTC day of which the totals hold everything

    @property
    def through(self) -> int:
        """The last UTC day that has ended, in days since 1970."""
        return self.closed_days.stop - 1

    def totals(self) -> Iterator[Totals]:
        """Yield the totals of all creators' days to judge, in pieces of `PIECE_KEYS` at most."""
        keys = self.rejudged
        if self.closed_days:
            keys = _united([keys, *(run.keys[_are_in(self.closed_days, days_of(run.keys))] for run in self.runs)])
        for start in range(0, len(keys), PIECE_KEYS):
            yield Totals.of(self.runs, keys[start : start + PIECE_KEYS], self.whole_from)

    def best_before(self, keys: Keys, trusted: Ids, economics: Economics) -> Amounts:
        """Return, for each creator's day, the largest `Totals.earned` of any of the `BEFORE_DAYS` days before it.

        Args:
            keys: uint64, shape (days of creators,), ascending.
            trusted: int64, shape (creators,). Creators whose audience a person has accepted.
            economics: the rules.

        Returns:
            int64, shape (days of creators,), base units of PIX.
        """
        best = np.zeros(len(keys), np.int64)
        for earlier in range(1, BEFORE_DAYS + 1):
            totals = Totals.of(self.runs, keys - np.uint64(earlier), self.whole_from)
            best = np.maximum(best, totals.earned(trusted, economics))
        return best


class Reached(NamedTuple):
    """How far the reviews have come."""

    judged_until: int  # the id of the last row of `ledger.pair_runs` that the totals contain; 0: none
    through: int  # the newest UTC day that has been judged since it ended
    whole_from: int  # the first UTC day of which the totals hold everything
    rules: str  # the settings that the totals were computed with


def keys_of(creators: Ids, days: NDArray[np.uint16]) -> Keys:
    """Pack creator and day into one key, so that the next day of a creator is the next key.

    Args:
        creators: int64, shape (rows,), below 2^47.
        days: uint16, shape (rows,). UTC days since 1970.

    Returns:
        uint64, shape (rows,).
    """
    return creators.astype(np.uint64) << np.uint64(DAY_BITS) | days.astype(np.uint64)


def creators_of(keys: Keys) -> Ids:
    """Return the creators of keys.

    Args:
        keys: uint64, shape (rows,), made by `keys_of`.

    Returns:
        int64, shape (rows,).
    """
    return (keys >> np.uint64(DAY_BITS)).astype(np.int64)


def days_of(keys: Keys) -> Ids:
    """Return the days of keys.

    Args:
        keys: uint64, shape (rows,), made by `keys_of`.

    Returns:
        int64, shape (rows,): UTC days since 1970.
    """
    return (keys & np.uint64((1 << DAY_BITS) - 1)).astype(np.int64)


def with_dependents(keys: Keys) -> Keys:
    """Add the `BEFORE_DAYS` days after each creator's day, since they are compared with it.

    Args:
        keys: uint64, shape (rows,).

    Returns:
        uint64, ascending, each key once.
    """
    return _united([keys + np.uint64(later) for later in range(BEFORE_DAYS + 1)])


def _usual(runs: Sequence[Run], keys: Keys, whole_from: int) -> Amounts:
    """Return the mean of `vouched` over the `USUAL_DAYS` days before each of `keys`; days before `whole_from` are left out."""
    days, total = days_of(keys), np.zeros(len(keys), np.int64)
    for earlier in range(1, vouching.USUAL_DAYS + 1):
        total += np.where(days - earlier >= whole_from, caps.sums(runs, keys - np.uint64(earlier), VOUCHED), 0)
    return np.maximum(total, 0) // np.clip(days - whole_from, 1, vouching.USUAL_DAYS)


def newer_than(since: int, columns: Columns) -> Flags:
    """Flag the rows whose day comes after the UTC day `since`.

    Args:
        since: in days since 1970.
        columns: the columns of `TOTALS`, each of shape (rows,).

    Returns:
        bool, shape (rows,).
    """
    return np.asarray(days_of(columns[0]) > since)


def _are_in(wanted: range, days: Ids) -> Flags:
    return np.asarray((days >= wanted.start) & (days < wanted.stop))


def _united(parts: Sequence[Keys]) -> Keys:
    return np.unique(np.concatenate(parts))


# ── Rows ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def insert(connection: Connection[Any], judgement: Judgement, judged_until: int, rules: str) -> Run:
    """Write the differences that a review makes to the totals, and how far it came, in the caller's transaction.

    Args:
        connection: in the transaction of the review.
        judgement: what was judged; `changed`, `through` and `whole_from` are written.
        judged_until: the id of the last row of `ledger.pair_runs` that the totals now contain.
        rules: the settings that the totals were computed with.

    Returns:
        The run to add to the totals once the transaction has committed.
    """
    mark, changed = secrets.randbits(62), judgement.changed
    columns = [each.astype(kind).tobytes() for each, kind in zip(changed.columns, TOTALS.types, strict=True)]
    newest = int(days_of(changed.keys).max()) if len(changed) else judgement.through
    row = connection.execute(
        "INSERT INTO ledger.total_runs (keys, net, vouched, doubtful, beside, viewers, judged_until, judged_through,"
        " whole_from, rules, mark, newest_day) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s) RETURNING id",
        (*columns, judged_until, judgement.through, judgement.whole_from, rules, mark, newest),
    ).fetchone()
    assert row is not None
    return Run(rows_of((row[0], mark)), changed.columns)


def last(connection: Connection[Any]) -> Reached | None:
    """Return how far the last review came; None if there was none."""
    row = connection.execute(
        "SELECT judged_until, judged_through, whole_from, rules FROM ledger.total_runs ORDER BY id DESC LIMIT 1"
    ).fetchone()
    return Reached(*row) if row else None


def restart(connection: Connection[Any], through: int, whole_from: int, rules: str) -> None:
    """Delete all totals, so that the next review computes them from the pairs that are kept.

    Args:
        connection: in the transaction of the caller.
        through: the newest UTC day that was judged after its end; the next review goes on with the day after it.
        whole_from: the first UTC day of which the new totals will hold everything.
        rules: the settings that they will be computed with.
    """
    connection.execute("DELETE FROM ledger.total_runs")
    nothing = Judgement(
        (), Run(rows_of(), TOTALS.empty()), range(through + 1, through + 1), TOTALS.empty()[0], whole_from
    )
    insert(connection, nothing, 0, rules)


def known(connection: Connection[Any]) -> Known:
    """Return id, mark and length of every row of the table that holds any total, by ascending id."""
    rows = connection.execute(
        "SELECT id, mark, length(keys) / 8 FROM ledger.total_runs WHERE length(keys) > 0 ORDER BY id"
    ).fetchall()
    return np.array(rows, np.int64).reshape(-1, 3)


def read(connection: Connection[Any], rows: Known) -> Iterator[Columns]:
    """Yield what some rows of the table hold, summed by creator's day."""
    several = connection.execute(
        "SELECT keys, net, vouched, doubtful, beside, viewers FROM ledger.total_runs WHERE id = ANY(%s) ORDER BY id",
        (rows[:, 0].tolist(),),
    )
    parts = [
        tuple(np.frombuffer(column, kind) for column, kind in zip(row, TOTALS.types, strict=True)) for row in several
    ]
    yield runfiles.combined(TOTALS, runfiles.joined(TOTALS, parts))
