"""The audience: what each source has earned each creator in the last days, and the resulting totals of creators' days.

Every fold writes its pairs of source and creator (see `pairs`). A pair is *unjudged* until a review adds it to the
totals. For each day of a source that has unjudged pairs, the review computes the source's parts (see `vouching`) twice:
without and with these pairs. It adds the differences to the creators' totals. So the cost of a review depends on what
was shown since the last one, not on how much the days hold, and its memory is bounded. Knows neither holds nor
accounts.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from psycopg import Connection

from ledger.accrual import caps, runfiles, totals, vouching
from ledger.accrual import pairs as rows
from ledger.accrual.caps import DAY_S
from ledger.accrual.pairs import PAIRS, UNJUDGED, Pairs
from ledger.accrual.runfiles import Columns, Run, rows_of
from ledger.accrual.runstore import RunStore
from ledger.accrual.shared_networks import SharedNetworks
from ledger.accrual.totals import TOTALS, Judgement
from ledger.accrual.velocity import BEFORE_DAYS
from ledger.journal import book
from ledger.settings import Economics

DAYS_KEPT = 4  # days of pairs: today, yesterday, and two days of which pairs may come late
TOTALS_KEPT = DAYS_KEPT + BEFORE_DAYS + vouching.USUAL_DAYS  # those days, and the days they are compared with
VIEWERS_MAX = 20_000  # sources' days whose pairs are in memory at once


class Audience:
    """The pairs of the last days and the totals that reviews have computed from them.

    A fold calls `remember` to write its pairs, and `accept` after its commit. A review calls `judge` to learn which days to
    judge, `keep` to write the differences of the totals, and `judged` after its commit.
    """

    def __init__(
        self,
        economics: Economics,
        folder: Path | None = None,
        executor: Executor | None = None,
        networks: SharedNetworks | None = None,
    ) -> None:
        """Start without pairs; `load` reads those of earlier folds.

        Args:
            economics: the rules.
            folder: where files of runs lie; None keeps all of them in memory (see `RunStore`).
            executor: the thread that makes files, shared with other stores (see `RunStore`). Unjudged pairs have a
                thread of their own, since a review waits for them.
            networks: the networks that many people share; without it every source counts as one person.
        """
        self._economics, self._networks = economics, networks or SharedNetworks(economics)
        # The settings that totals follow from: with others all totals are computed again.
        self._rules = f"{economics.source_day_pix}, beside {economics.beside_pair_pix}, networks {self._networks.name}"
        self.judged_pairs, self.unjudged_pairs = RunStore(PAIRS, folder, executor), RunStore(UNJUDGED, folder)
        self.totals = RunStore(TOTALS, folder, executor)
        # Days are UTC days since 1970.
        self._judged_until = 0  # id of the last row of pairs that the totals contain
        self._through = 0  # the last day that was judged after it had ended
        self._whole_from = 0  # the first day of which the totals hold everything
        self._newest = 0  # the latest day of any pair
        self._oldest_id = self._oldest_total = 0  # rows of pairs and of totals with smaller ids are forgotten
        self._since = 0  # the day of the oldest batch that waited at the last fold
        self._unjudged_since = 0  # the earliest such day of all folds whose pairs are unjudged

    @property
    def is_unjudged(self) -> bool:
        """Whether a review has work: some pairs are not judged yet, or were judged before their day had ended."""
        return bool(self.unjudged_pairs.runs) or self._newest > self._through

    def load(self, connection: Connection[Any]) -> None:
        """Read the pairs that earlier folds have kept and the totals of earlier reviews.

        If the rules have changed since then, delete the totals; the next review computes them again from the pairs.
        """
        today, reached = book.clock_s(connection) // DAY_S, totals.last(connection)
        oldest = today - DAYS_KEPT + 1
        if reached is not None:
            self._judged_until, self._through, self._whole_from, rules = reached
            if rules != self._rules or self._was_rewritten(connection):
                self._judged_until, self._whole_from = 0, max(self._whole_from, oldest)
                totals.restart(connection, self._through, self._whole_from, self._rules)
        rows.split_large(connection)
        kept = rows.known(connection)
        if reached is None and len(kept):
            self._whole_from = oldest
        is_judged = kept[:, 0] <= self._judged_until
        self.judged_pairs.load(kept[is_judged], partial(rows.read, connection, today))
        self.unjudged_pairs.load(kept[~is_judged], partial(rows.read, connection, today))
        self.totals.load(totals.known(connection), partial(totals.read, connection))
        self._newest = min(rows.newest_day(connection), today + 1)

    def _was_rewritten(self, connection: Connection[Any]) -> bool:
        """Whether an older version has merged judged and unjudged rows into one row since the last review."""
        query = "SELECT FROM ledger.pair_runs WHERE mark IS NULL AND id > %s LIMIT 1"
        return connection.execute(query, (self._judged_until,)).fetchone() is not None

    @property
    def stores(self) -> tuple[RunStore, ...]:
        """The stores of the judged pairs, the unjudged pairs and the totals."""
        return self.judged_pairs, self.unjudged_pairs, self.totals

    def close(self) -> None:
        """Wait for a file of unjudged pairs that is being made."""
        self.unjudged_pairs.close()

    def remember(self, connection: Connection[Any], pairs: Pairs, since: int) -> Run:
        """Write a fold's pairs in the caller's transaction, and delete judged rows that are too old.

        The pairs are written in the order in which they come: nearly all are different, and they are sorted when runs are
        merged, in another thread.

        Args:
            connection: in the transaction of the fold.
            pairs: what the fold's sources have earned creators.
            since: the UTC day, in days since 1970, of the oldest batch that waits for a fold (see `waiting.since_s`).

        Returns:
            The run to hand to `accept` once the transaction has committed; it may be empty.
        """
        self._unjudged_since = min(self._unjudged_since, since) if self.unjudged_pairs.runs else since
        self._since = since
        oldest = caps.forget(connection, "pair_runs", self._unjudged_since - DAYS_KEPT, until=self._judged_until)
        self._oldest_id = max(self._oldest_id, oldest)
        return rows.insert(connection, pairs) if len(pairs.viewers) else rows.none()

    def accept(self, kept: Run) -> None:
        """Add a run from `remember` to the unjudged pairs. Call this after the commit of its transaction."""
        if len(kept):
            self._newest = max(self._newest, int(kept.columns[4].max()))
        self.unjudged_pairs.accept(kept)
        self.unjudged_pairs.tidy(0, runfiles.keep_all)
        self.judged_pairs.tidy(self._oldest_id, partial(rows.newer_than, self._unjudged_since - DAYS_KEPT))

    # ── Judging ────────────────────────────────────────────────────────────────────────────────────────────────────

    def judge(self, closed: int, ahead: int) -> Judgement | None:
        """Determine which creators' days to judge, and by how much the unjudged pairs change the totals.

        Args:
            closed: the last UTC day that has ended, in days since 1970, by the database's clock.
            ahead: the last UTC day, in days since 1970, that is judged before it has ended. Pairs of later days change
                the totals, too; these days are judged after their end.

        Returns:
            The judgement; None if no pairs came and no day ended since the last one.
        """
        if not self.unjudged_pairs.runs and min(self._newest, closed) <= self._through:
            return None
        self.unjudged_pairs.sort()
        changed = Run(rows_of(), self._differences())
        days = totals.days_of(changed.keys)
        # Where totals are computed again from the beginning (nothing was judged), no pair counts as late.
        are_late = (days <= self._through) & (self._judged_until > 0)
        rejudged = totals.with_dependents(changed.keys[are_late | (days > closed)])
        rejudged = rejudged[totals.days_of(rejudged) <= ahead]
        whole_from = max(self._whole_from, self._unjudged_since - TOTALS_KEPT + 1)
        closed_days = range(self._through + 1, max(closed, self._through) + 1)
        return Judgement([*self.totals.runs, changed], changed, closed_days, rejudged, whole_from)

    def keep(self, connection: Connection[Any], judgement: Judgement) -> Run:
        """Write the differences of the totals in the caller's transaction, and delete rows that are too old.

        Returns the run to hand to `judged` once the transaction has committed.
        """
        oldest = caps.forget(connection, "total_runs", self._unjudged_since - TOTALS_KEPT)
        self._oldest_total = max(self._oldest_total, oldest)
        return totals.insert(connection, judgement, self._unjudged_until(), self._rules)

    def judged(self, judgement: Judgement, kept: Run) -> None:
        """Add a run from `keep` to the totals, and count all pairs as judged. Call this after the commit of its transaction."""
        self._judged_until = self._unjudged_until()
        self._through, self._whole_from = judgement.through, judgement.whole_from
        self.unjudged_pairs.hand_over(self.judged_pairs)
        self.totals.accept(kept)
        self.totals.tidy(self._oldest_total, partial(totals.newer_than, self._unjudged_since - TOTALS_KEPT))
        self._unjudged_since = self._since

    def _unjudged_until(self) -> int:
        """Return the id of the newest row of pairs that would be part of a judgement made now."""
        return self.unjudged_pairs.runs[-1].last_id if self.unjudged_pairs.runs else self._judged_until

    # ── Differences of the totals ──────────────────────────────────────────────────────────────────────────────────

    def _differences(self) -> Columns:
        """Return the differences (columns of `TOTALS`) that all unjudged pairs make to the totals.

        They are summed block by block to save memory.
        """
        parts, uncombined = [TOTALS.empty()], 0
        for block in runfiles.merged(UNJUDGED, self.unjudged_pairs.runs):
            for part in self._block_differences(block):
                parts.append(part)
                uncombined += len(part[0])
                if uncombined > runfiles.BLOCK_ROWS:
                    parts, uncombined = [runfiles.combined(TOTALS, runfiles.joined(TOTALS, parts))], 0
        return _without_zeros(runfiles.combined(TOTALS, runfiles.joined(TOTALS, parts)))

    def _block_differences(self, block: Columns) -> Iterator[Columns]:
        """Yield the differences to the totals that one block of unjudged pairs makes.

        The block must hold all unjudged pairs of each source and day in it.
        """
        starts = np.flatnonzero(runfiles.key_starts(block))  # (sources' days,)
        for first in range(0, len(starts), VIEWERS_MAX):
            begins = starts[first]
            ends = starts[first + VIEWERS_MAX] if first + VIEWERS_MAX < len(starts) else len(block[0])
            unjudged = tuple(column[begins:ends] for column in block)
            sources = block[0][starts[first : first + VIEWERS_MAX]]
            before = runfiles.combined(PAIRS, runfiles.rows_with(PAIRS, self.judged_pairs.runs, sources))
            after = runfiles.combined(PAIRS, runfiles.joined(PAIRS, [before, unjudged]))
            parts = [_net(unjudged), self._parts(before, -1), self._parts(after, 1)]
            yield runfiles.combined(TOTALS, runfiles.joined(TOTALS, parts))

    def _parts(self, pairs: Columns, sign: int) -> Columns:
        """Compute the parts of pairs (see `vouching`), times `sign`, as columns of `TOTALS` with a net amount of 0.

        In `pairs`, all rows of one source and day must be adjacent.
        """
        starts = runfiles.key_starts(pairs)
        people = self._networks.people(pairs[0][starts], pairs[4][starts])
        parts = vouching.shares(starts, pairs[1], people, self._economics)
        zeros, viewers = np.zeros(len(pairs[0]), np.int64), (parts.doubtful > 0).astype(np.int64)
        return (totals.keys_of(pairs[3], pairs[4]), zeros, sign * parts.vouched, sign * parts.doubtful,
                sign * parts.beside, sign * viewers)  # fmt: skip


def _net(pairs: Columns) -> Columns:
    """Return the net amounts of pairs as columns of `TOTALS`; all other numbers are 0."""
    zeros = np.zeros(len(pairs[0]), np.int64)
    return totals.keys_of(pairs[3], pairs[4]), pairs[2], zeros, zeros, zeros, zeros


def _without_zeros(differences: Columns) -> Columns:
    """Return the rows in which any number is not 0."""
    some = np.zeros(len(differences[0]), np.bool_)
    for column in differences[1:]:
        some |= column != 0
    return tuple(column[some] for column in differences)
