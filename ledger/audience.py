"""The audience: what viewers have earned creators in the last days, and what of creators' days follows from it.

Pairs of viewer and creator are kept by every fold, as a store of runs (see `runstore`). What creators' days come to is
reckoned from them as they come: a review takes the pairs that are *fresh*, brings them together with what the same viewers
had earned before, and adds what that changes to the totals. So it costs what was shown since the last one, in bounded memory,
whatever the days hold. Only where a day has so many more creators that viewers are captive to more of them (see `vouching`),
all of that day is reckoned again: `captive_creators` times a day at most. Knows no hold and no money of accounts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import Executor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from psycopg import Connection

from ledger import book, caps, runfiles, totals, vouching
from ledger import pairs as rows
from ledger.caps import DAY_S
from ledger.groups import Flags, Places
from ledger.pairs import FRESH, PAIRS, Pairs
from ledger.runfiles import Columns, Run, Shape, rows_of
from ledger.runstore import Store
from ledger.settings import Economics
from ledger.totals import TOTALS, Judgement
from ledger.velocity import BEFORE_DAYS

Counts = Mapping[int, int]  # of creators, by the UTC day on which they earn

DAYS_KEPT = 4  # of pairs: today, yesterday, and two days of which something may come late
TOTALS_KEPT = DAYS_KEPT + BEFORE_DAYS  # and those by which these are measured
VIEWERS_MAX = 20_000  # of whom all pairs of a day are brought together at once


class Audience:
    """Who has earned whom how much, lately: `remember` tells, `accept` says that it is committed, `judge` asks."""

    def __init__(self, economics: Economics, folder: Path | None = None, executor: Executor | None = None) -> None:
        """`folder`, `executor`: see `Store`."""
        self._economics, self._rules = economics, vouching.rules(economics)
        self.judged_pairs, self.fresh = Store(PAIRS, folder, executor), Store(FRESH, folder, executor)
        self.totals = Store(TOTALS, folder, executor)
        self._judged_until = 0  # the last row of pairs that is in the totals
        self._through = 0  # the last day that was judged
        self._newest = 0  # the newest day of which there is something
        self._earning: Counts = {}  # by the totals
        self._oldest_id = self._oldest_total = 0  # rows before them are forgotten
        self._since = self._unjudged_since = 0  # the oldest day that a fold was of; and of those that were not judged

    @property
    def is_unjudged(self) -> bool:
        """Whether there is something that was not judged. Its day may not be over."""
        return bool(self.fresh.runs) or self._newest > self._through

    def load(self, connection: Connection[Any]) -> None:
        """Know what earlier folds have kept, and how far it was reviewed by the rules of now."""
        today = book.clock_s(connection) // DAY_S
        connection.execute("DELETE FROM ledger.total_runs WHERE rules <> %s", (self._rules,))
        self._judged_until, self._through = totals.judged(connection)
        if self._was_rewritten(connection):
            connection.execute("DELETE FROM ledger.total_runs")
            self._judged_until = self._through = 0
        rows.split_large(connection)
        kept = rows.known(connection)
        is_judged = kept[:, 0] <= self._judged_until
        self.judged_pairs.load(kept[is_judged], partial(rows.read, connection, today))
        self.fresh.load(kept[~is_judged], partial(rows.read, connection, today))
        self.totals.load(totals.known(connection), partial(totals.read, connection))
        self._earning = totals.earning(self.totals.runs)
        self._newest = min(rows.newest_day(connection), today + 1)

    def _was_rewritten(self, connection: Connection[Any]) -> bool:
        """Whether an older version has merged rows since: what was judged and what was not can no longer be told apart."""
        query = "SELECT FROM ledger.pair_runs WHERE mark IS NULL AND id > %s LIMIT 1"
        return connection.execute(query, (self._judged_until,)).fetchone() is not None

    def remember(self, connection: Connection[Any], pairs: Pairs, since: int) -> Run:
        """Keep who has earned whom, in the caller's transaction; the result becomes part of the present by `accept`.

        `since` is the UTC day of the oldest batch which waits for a fold: what is too old for it is forgotten, once it is in
        the totals. A fold's own pairs are kept as they come: nearly all are different, and merging sorts them beside the folds.
        """
        self._unjudged_since = min(self._unjudged_since, since) if self.fresh.runs else since
        self._since = since
        oldest = caps.forget(connection, "pair_runs", self._unjudged_since - DAYS_KEPT, until=self._judged_until)
        self._oldest_id = max(self._oldest_id, oldest)
        return rows.insert(connection, pairs) if len(pairs.viewers) else rows.none()

    def accept(self, kept: Run) -> None:
        """The transaction that kept this has committed."""
        if len(kept):
            self._newest = max(self._newest, int(kept.columns[4].max()))
        self.fresh.accept(kept)
        self.fresh.tidy(0, runfiles.everything)
        self.judged_pairs.tidy(self._oldest_id, partial(rows.young, self._unjudged_since - DAYS_KEPT))

    # ── Judging ────────────────────────────────────────────────────────────────────────────────────────────────────

    def judge(self, through: int) -> Judgement | None:
        """What there is to judge of days up to this one, by the database's clock; None where nothing has come since.

        What is fresh of later days changes totals, and is judged when they are over.
        """
        self._through = min(
            self._through, through
        )  # later ones, which other rules have judged, are once more when over
        if not self.fresh.runs and min(self._newest, through) <= self._through:
            return None
        self.fresh.sort()
        changes, earning = self._changed()
        changed = Run(rows_of(), changes)
        late = totals.late(changed.keys, self._through, through)
        return Judgement([*self.totals.runs, changed], changed, earning, range(self._through + 1, through + 1), late)

    def keep(self, connection: Connection[Any], judgement: Judgement) -> Run:
        """Keep by how much totals have changed, in the caller's transaction; `judged` says that it is committed."""
        oldest = caps.forget(connection, "total_runs", self._unjudged_since - TOTALS_KEPT)
        self._oldest_total = max(self._oldest_total, oldest)
        return totals.insert(connection, judgement, self._fresh_until(), self._rules)

    def judged(self, judgement: Judgement, kept: Run) -> None:
        """The transaction that kept this has committed: what was fresh is in the totals."""
        self._judged_until = self._fresh_until()
        self._earning, self._through = judgement.earning, judgement.through
        self.fresh.hand_over(self.judged_pairs)
        self.totals.accept(kept)
        self.totals.tidy(self._oldest_total, partial(totals.young, self._unjudged_since - TOTALS_KEPT))
        self._unjudged_since = self._since

    def _fresh_until(self) -> int:
        return self.fresh.runs[-1].last_id if self.fresh.runs else self._judged_until

    # ── Reckoning ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _changed(self) -> tuple[Columns, Counts]:
        """By how much all that is fresh changes the totals, and how many creators then earn on which day."""
        earning = self._earning_now()
        before = {**earning, **self._earning}
        gathered = _Gathered(TOTALS)
        for block in runfiles.merged(FRESH, self.fresh.runs):
            for part in self._changes(block, before):
                gathered.add(part)
        for day, count in self._earning.items():
            if vouching.few(count, self._economics) != vouching.few(earning[day], self._economics):
                for part in self._moved(day, before, earning):
                    gathered.add(part)
        return _moving(gathered.all()), earning

    def _earning_now(self) -> Counts:
        """How many creators earn on which day, with those of whom something is fresh."""
        found = np.zeros(0, np.uint64)
        for block in runfiles.merged(FRESH, self.fresh.runs):
            found = np.union1d(found, totals.keys_of(block[3], block[4]))
        new = totals.counted_days(found[~totals.are_known(self.totals.runs, found)])
        return {day: self._earning.get(day, 0) + new[day] for day in self._earning.keys() | new.keys()}

    def _changes(self, block: Columns, earning: Counts) -> Iterator[Columns]:
        """By how much these fresh pairs (of `FRESH`, with all of a viewer's day) change the totals."""
        starts = np.flatnonzero(runfiles.by_key(block))
        for first in range(0, len(starts), VIEWERS_MAX):
            begins = starts[first]
            ends = starts[first + VIEWERS_MAX] if first + VIEWERS_MAX < len(starts) else len(block[0])
            fresh = tuple(each[begins:ends] for each in block)
            touched = block[0][starts[first : first + VIEWERS_MAX]]
            before = runfiles.combined(PAIRS, runfiles.found(PAIRS, self.judged_pairs.runs, touched))
            after = runfiles.combined(PAIRS, runfiles.joined(PAIRS, [before, fresh]))
            parts = [_earned(fresh), self._parts(before, earning, -1), self._parts(after, earning, 1)]
            yield runfiles.combined(TOTALS, runfiles.joined(TOTALS, parts))

    def _moved(self, day: int, before: Counts, after: Counts) -> Iterator[Columns]:
        """By how much it changes the totals that so many more creators earn on a day: of all its pairs."""
        runs = [run for run in (*self.judged_pairs.runs, *self.fresh.runs) if _has_day(run, day)]
        for block in runfiles.merged(PAIRS, runs, partial(_of_day, day)):
            parts = [self._parts(block, before, -1), self._parts(block, after, 1)]
            yield runfiles.combined(TOTALS, runfiles.joined(TOTALS, parts))

    def _parts(self, pairs: Columns, earning: Counts, sign: int) -> Columns:
        """What pairs are worth to their creators' days, in parts; all of a viewer's day stands together."""
        parts = vouching.shares(runfiles.by_key(pairs), pairs[1], self._few_of(pairs[4], earning), self._economics)
        nothing, viewers = np.zeros(len(pairs[0]), np.int64), (parts.doubtful > 0).astype(np.int64)
        return (totals.keys_of(pairs[3], pairs[4]), nothing, sign * parts.vouched, sign * parts.doubtful,
                sign * parts.free, sign * viewers)  # fmt: skip

    def _few_of(self, days: NDArray[np.uint16], earning: Counts) -> Places:
        """To how many creators a viewer of each row's day may be captive."""
        known, place = np.unique(days, return_inverse=True)
        few = [vouching.few(earning.get(day, 0), self._economics) for day in known.tolist()]
        return np.array(few, np.int64)[place.reshape(-1)]


class _Gathered:
    """Rows of a shape as they come, brought together now and then, so that they stay few."""

    def __init__(self, shape: Shape) -> None:
        self._shape = shape
        self._parts, self._waiting = [shape.empty()], 0

    def add(self, part: Columns) -> None:
        self._parts.append(part)
        self._waiting += len(part[0])
        if self._waiting > runfiles.BLOCK_ROWS:
            self._parts, self._waiting = [self.all()], 0

    def all(self) -> Columns:
        return runfiles.combined(self._shape, runfiles.joined(self._shape, self._parts))


def _earned(pairs: Columns) -> Columns:
    """What pairs have earned, for their creators' days."""
    nothing = np.zeros(len(pairs[0]), np.int64)
    return totals.keys_of(pairs[3], pairs[4]), pairs[2], nothing, nothing, nothing, nothing


def _moving(changes: Columns) -> Columns:
    """Those that change something."""
    some = np.zeros(len(changes[0]), np.bool_)
    for column in changes[1:]:
        some |= column != 0
    return tuple(each[some] for each in changes)


def _has_day(run: Run, day: int) -> bool:
    """Whether there is something of a day; piece by piece, for a run may be large."""
    days, piece = run.columns[4], runfiles.BLOCK_ROWS
    return any(bool((days[start : start + piece] == day).any()) for start in range(0, len(run), piece))


def _of_day(day: int, columns: Columns) -> Flags:
    return np.asarray(columns[4] == day)
