"""The audience: what viewers have earned creators in the last days, and what of creators' days follows from it.

Pairs of viewer and creator are kept by every fold, as a store of runs (see `runstore`). What creators' days come to is
reckoned from them as they come: a review takes the pairs that are *fresh*, brings them together with what the same viewers
had earned before, and adds what that changes to the totals. So it costs what was shown since the last one, in bounded memory,
whatever the days hold. Knows no hold and no money of accounts.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from concurrent.futures import Executor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from psycopg import Connection

from ledger import book, caps, runfiles, totals, vouching
from ledger import pairs as rows
from ledger.caps import DAY_S
from ledger.pairs import FRESH, PAIRS, Pairs
from ledger.runfiles import Columns, Run, rows_of
from ledger.runstore import Store
from ledger.settings import Economics
from ledger.shared_networks import SharedNetworks
from ledger.totals import TOTALS, Judgement
from ledger.velocity import BEFORE_DAYS

log = logging.getLogger(__name__)

DAYS_KEPT = 4  # of pairs: today, yesterday, and two days of which something may come late
TOTALS_KEPT = DAYS_KEPT + BEFORE_DAYS + vouching.USUAL_DAYS  # and those by which these are measured
VIEWERS_MAX = 20_000  # of whom all pairs of a day are brought together at once


class Audience:
    """Who has earned whom how much, lately: `remember` tells, `accept` says that it is committed, `judge` asks."""

    def __init__(
        self,
        economics: Economics,
        folder: Path | None = None,
        executor: Executor | None = None,
        networks: SharedNetworks | None = None,
    ) -> None:
        """`folder`, `executor`: see `Store`. What is fresh waits for no other store's files."""
        self._economics, self._networks = economics, networks or SharedNetworks(economics)
        # What totals follow from; those of other rules are to be reckoned again.
        self._rules = f"{economics.source_day_pix}, beside {economics.beside_pair_pix}, networks {self._networks.name}"
        self.judged_pairs, self.fresh = Store(PAIRS, folder, executor), Store(FRESH, folder)
        self.totals = Store(TOTALS, folder, executor)
        self._judged_until = 0  # the last row of pairs that is in the totals
        self._through = 0  # the last day that was judged when it was over
        self._whole_from = 0  # the first day of which all is in the totals
        self._newest = 0  # the newest day of which there is something
        self._anew_from = 0  # where all is counted anew, the first day that is: earlier ones are in the totals
        self._oldest_id = self._oldest_total = 0  # rows before them are forgotten
        self._since = self._unjudged_since = 0  # the oldest day that a fold was of; and of those that were not judged

    @property
    def is_unjudged(self) -> bool:
        """Whether there is something that was not judged. Its day may not be over."""
        return bool(self.fresh.runs) or self._newest > self._through

    def load(self, connection: Connection[Any]) -> None:
        """Know what earlier folds have kept, and how far it was reviewed by the rules of now."""
        today, reached = book.clock_s(connection) // DAY_S, totals.last(connection)
        oldest = today - DAYS_KEPT + 1
        if reached is not None:
            self._judged_until, self._through, self._whole_from, rules = reached
            if rules != self._rules or self._was_rewritten(connection):
                self._judged_until = 0
                begun = reached._replace(judged_until=0, rules=self._rules)
                totals.begin_anew(connection, begun, oldest)
                log.info("what the last days come to is reckoned anew, by the rules of now")
            self._anew_from = 0 if self._judged_until else totals.newest_day(connection) + 1
        rows.split_large(connection)
        kept = rows.known(connection)
        if reached is None and len(kept):
            self._whole_from = oldest
        is_judged = kept[:, 0] <= self._judged_until
        self.judged_pairs.load(kept[is_judged], partial(rows.read, connection, today))
        self.fresh.load(kept[~is_judged], partial(rows.read, connection, today))
        self.totals.load(totals.known(connection), partial(totals.read, connection))
        self._newest = min(rows.newest_day(connection), today + 1)

    def _was_rewritten(self, connection: Connection[Any]) -> bool:
        """Whether an older version has merged rows since: what was judged and what was not can no longer be told apart."""
        query = "SELECT FROM ledger.pair_runs WHERE mark IS NULL AND id > %s LIMIT 1"
        return connection.execute(query, (self._judged_until,)).fetchone() is not None

    @property
    def stores(self) -> tuple[Store, ...]:
        """What is remembered here."""
        return self.judged_pairs, self.fresh, self.totals

    def close(self) -> None:
        """End what is done beside folds."""
        self.fresh.close()

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

    def judge(self, closed: int, ahead: int) -> Judgement | None:
        """What there is to judge, by the database's clock; None where nothing has come since.

        `closed` is the last UTC day that is over. Days after it, up to `ahead`, are judged as they go; what is fresh of later
        ones changes totals, and is judged when they are over.
        """
        if not self.fresh.runs and min(self._newest, closed) <= self._through:
            return None
        self.fresh.sort()
        changed = Run(rows_of(), self._changed())
        days = totals.days_of(changed.keys)
        are_late = (days <= self._through) & (self._judged_until > 0)  # else all is counted anew, and nothing is late
        again = totals.measured_by(changed.keys[are_late | (days > closed)])
        again = again[totals.days_of(again) <= ahead]
        whole_from = max(self._whole_from, self._unjudged_since - TOTALS_KEPT + 1)
        over = range(self._through + 1, max(closed, self._through) + 1)
        return Judgement([*self.totals.runs, changed], changed, over, again, whole_from)

    def keep(self, connection: Connection[Any], judgement: Judgement) -> Run:
        """Keep by how much totals have changed, in the caller's transaction; `judged` says that it is committed."""
        oldest = caps.forget(connection, "total_runs", self._unjudged_since - TOTALS_KEPT)
        self._oldest_total = max(self._oldest_total, oldest)
        return totals.insert(connection, judgement, self._fresh_until(), self._rules)

    def judged(self, judgement: Judgement, kept: Run) -> None:
        """The transaction that kept this has committed: what was fresh is in the totals."""
        self._judged_until, self._anew_from = self._fresh_until(), 0
        self._through, self._whole_from = judgement.through, judgement.whole_from
        self.fresh.hand_over(self.judged_pairs)
        self.totals.accept(kept)
        self.totals.tidy(self._oldest_total, partial(totals.young, self._unjudged_since - TOTALS_KEPT))
        self._unjudged_since = self._since

    def _fresh_until(self) -> int:
        return self.fresh.runs[-1].last_id if self.fresh.runs else self._judged_until

    # ── Reckoning ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _changed(self) -> Columns:
        """By how much all that is fresh changes the totals; brought together as it comes, so that it stays small."""
        parts, waiting = [TOTALS.empty()], 0
        for block in runfiles.merged(FRESH, self.fresh.runs):
            for part in self._changes(_since(self._anew_from, block) if self._anew_from else block):
                parts.append(part)
                waiting += len(part[0])
                if waiting > runfiles.BLOCK_ROWS:
                    parts, waiting = [runfiles.combined(TOTALS, runfiles.joined(TOTALS, parts))], 0
        return _moving(runfiles.combined(TOTALS, runfiles.joined(TOTALS, parts)))

    def _changes(self, block: Columns) -> Iterator[Columns]:
        """By how much these fresh pairs (of `FRESH`, with all of a viewer's day) change the totals."""
        starts = np.flatnonzero(runfiles.by_key(block))
        for first in range(0, len(starts), VIEWERS_MAX):
            begins = starts[first]
            ends = starts[first + VIEWERS_MAX] if first + VIEWERS_MAX < len(starts) else len(block[0])
            fresh = tuple(each[begins:ends] for each in block)
            touched = block[0][starts[first : first + VIEWERS_MAX]]
            before = runfiles.combined(PAIRS, runfiles.found(PAIRS, self.judged_pairs.runs, touched))
            after = runfiles.combined(PAIRS, runfiles.joined(PAIRS, [before, fresh]))
            parts = [_earned(fresh), self._parts(before, -1), self._parts(after, 1)]
            yield runfiles.combined(TOTALS, runfiles.joined(TOTALS, parts))

    def _parts(self, pairs: Columns, sign: int) -> Columns:
        """What pairs are worth to their creators' days, in parts; all of a viewer's day stands together."""
        starts = runfiles.by_key(pairs)
        people = self._networks.people(pairs[0][starts], pairs[4][starts])
        parts = vouching.shares(starts, pairs[1], people, self._economics)
        nothing, viewers = np.zeros(len(pairs[0]), np.int64), (parts.doubtful > 0).astype(np.int64)
        return (totals.keys_of(pairs[3], pairs[4]), nothing, sign * parts.vouched, sign * parts.doubtful,
                sign * parts.beside, sign * viewers)  # fmt: skip


def _since(day: int, pairs: Columns) -> Columns:
    """Those of a day and later ones."""
    return tuple(each[pairs[4] >= day] for each in pairs)


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
