"""The audience: who has earned whom how much in a UTC day, and what of a creator's day comes from captive viewers.

Pairs of viewer and creator are kept by every fold, as a store of runs (see `runstore`). What creators' days come to is
reckoned from them as they come: a review takes the pairs that are *fresh*, brings them together with what the same viewers
had earned before, and adds what that changes to the totals. So it costs what was shown since the last one, in bounded memory,
whatever the days hold; and totals, like pairs, are rows of the database. Knows no hold and no money of accounts.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from psycopg import Connection

from ledger import book, caps, runfiles
from ledger import pairs as rows
from ledger.caps import DAY_S
from ledger.groups import Flags
from ledger.money import Amounts
from ledger.pairs import FRESH, PAIRS, Pairs
from ledger.runfiles import Columns, Keys, Run, Shape, rows_of
from ledger.runstore import Known, Store
from ledger.settings import PPM, Economics

Ids = NDArray[np.int64]

DAYS_KEPT = 4  # today, yesterday, and the two days that yesterday is measured by
DAY_BITS = 17  # of a day since 1970, beside a creator's number
VIEWERS_MAX = 20_000  # of whom all pairs of a day are brought together at once


def _by_total(columns: Columns) -> Columns:
    return runfiles.summed(columns, 3, runfiles.by_key(columns))


# Of each creator's day: what they earned, how much of it from captive viewers, and from how many.
TOTALS = Shape("totals", b"pixrtotl", ("<i8", "<i8", "<i8"), _by_total)


@dataclass(frozen=True)
class Totals:
    """Days of creators that have changed, each once: what they come to now, and the better one of the two days before."""

    days: Ids
    creators: Ids
    net: Amounts
    captive: Amounts  # of what was earned by captive viewers
    viewers: Ids  # how many those are
    before: Amounts
    changed: Run  # by what they have changed, which is what is kept
    ahead: Keys  # of days that have not begun by the database's clock: judged when they have


class Audience:
    """Who has earned whom how much, lately: `remember` tells, `accept` says that it is committed, `judge` asks."""

    def __init__(self, economics: Economics, folder: Path | None = None, executor: Executor | None = None) -> None:
        """`folder`, `executor`: see `Store`."""
        self._economics = economics
        self._rules = f"captive {economics.captive_share_ppm} of {economics.captive_min_pix}"
        self.judged_pairs, self.fresh = Store(PAIRS, folder, executor), Store(FRESH, folder, executor)
        self.totals = Store(TOTALS, folder, executor)
        self._judged_until = 0  # the last row of pairs that is in the totals
        self._ahead: Keys = np.zeros(0, np.uint64)
        self._oldest_id = self._oldest_total = 0  # rows before them are forgotten
        self._since = self._unjudged_since = 0  # the oldest day that a fold was of; and of those that were not judged

    def load(self, connection: Connection[Any]) -> None:
        """Know what earlier folds have kept, and how far it was reviewed by the rules of now."""
        today = book.clock_s(connection) // DAY_S
        connection.execute("DELETE FROM ledger.total_runs WHERE rules <> %s", (self._rules,))
        totals = connection.execute(
            "SELECT id, mark, length(keys) / 8, judged_until FROM ledger.total_runs ORDER BY id"
        ).fetchall()
        self._judged_until = max((row[3] for row in totals), default=0)
        if self._was_rewritten(connection):
            totals, self._judged_until = [], 0
            connection.execute("DELETE FROM ledger.total_runs")
        rows.split_large(connection)
        kept = connection.execute(
            "SELECT id, coalesce(mark, id), length(days) / 2 FROM ledger.pair_runs ORDER BY id"
        ).fetchall()
        known = np.array(kept, np.int64).reshape(-1, 3)
        is_judged = known[:, 0] <= self._judged_until
        self.judged_pairs.load(known[is_judged], partial(rows.read, connection, today))
        self.fresh.load(known[~is_judged], partial(rows.read, connection, today))
        self.totals.load(
            np.array([row[:3] for row in totals], np.int64).reshape(-1, 3), partial(_read_totals, connection)
        )

    def _was_rewritten(self, connection: Connection[Any]) -> bool:
        """Whether an older version has merged rows since: what was judged and what was not can no longer be told apart."""
        query = "SELECT FROM ledger.pair_runs WHERE mark IS NULL AND id > %s LIMIT 1"
        return connection.execute(query, (self._judged_until,)).fetchone() is not None

    def remember(self, connection: Connection[Any], pairs: Pairs, since: int) -> Run:
        """Keep what was funded, in the caller's transaction; the result becomes part of the present by `accept`.

        `since` is the UTC day of the oldest batch which waits for a fold: what is too old for it is forgotten, once it has
        been judged. A fold's own pairs are kept as they come: nearly all are different, and merging sorts them beside the
        folds.
        """
        self._unjudged_since = min(self._unjudged_since, since) if self.fresh.runs else since
        self._since = since
        oldest = caps.forget(connection, "pair_runs", self._unjudged_since - DAYS_KEPT, until=self._judged_until)
        self._oldest_id = max(self._oldest_id, oldest)
        return rows.insert(connection, pairs) if len(pairs.viewers) else rows.none()

    def accept(self, kept: Run) -> None:
        """The transaction that kept this has committed."""
        self.fresh.accept(kept)
        self.fresh.tidy(0, runfiles.everything)
        self.judged_pairs.tidy(self._oldest_id, partial(rows.young, self._unjudged_since - DAYS_KEPT))

    # ── Judging ────────────────────────────────────────────────────────────────────────────────────────────────────

    def judge(self, today: int) -> Totals | None:
        """What the days of creators come to that have changed since; None where nothing was earned.

        Those of days after `today`, by the database's clock, are left for then.
        """
        self.fresh.sort()
        if not self.fresh.runs:
            return None
        changed = Run(rows_of(), self._changed())
        runs = [*self.totals.runs, changed]
        asked = np.union1d(changed.keys, self._ahead)
        is_over = _days(asked) <= today
        keys = asked[is_over]
        net, captive, viewers = (caps.sums(runs, keys, column) for column in (1, 2, 3))
        one = np.uint64(1)
        before = np.maximum(caps.sums(runs, keys - one, 1), caps.sums(runs, keys - one - one, 1))
        creators = (keys >> np.uint64(DAY_BITS)).astype(np.int64)
        return Totals(_days(keys), creators, net, captive, viewers, before, changed, asked[~is_over])

    def _changed(self) -> Columns:
        """By how much all that is fresh changes the totals; brought together as it comes, so that it stays small."""
        parts, waiting = [TOTALS.empty()], 0
        for block in runfiles.merged(FRESH, self.fresh.runs):
            for part in self._changes(block):
                parts.append(part)
                waiting += len(part[0])
                if waiting > runfiles.BLOCK_ROWS:
                    parts, waiting = [runfiles.combined(TOTALS, runfiles.joined(TOTALS, parts))], 0
        return runfiles.combined(TOTALS, runfiles.joined(TOTALS, parts))

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
            parts = [_totals(fresh, fresh[2], 0, 0), *(
                _totals(captive, np.zeros(len(captive[0]), np.int64), sign, sign)
                for captive, sign in ((self._captive(before), -1), (self._captive(after), 1)))]  # fmt: skip
            yield runfiles.combined(TOTALS, runfiles.joined(TOTALS, parts))

    def _captive(self, pairs: Columns) -> Columns:
        """Pairs of viewers who earn nearly all for one creator; all of a viewer's day stands together."""
        keys, gross = pairs[:2]
        if not len(keys):
            return pairs
        starts = np.flatnonzero(runfiles.by_key(pairs))
        sizes = np.diff(np.append(starts, len(keys)))
        earned = np.repeat(np.add.reduceat(gross, starts), sizes)
        enough = earned >= self._economics.captive_min_pix
        made = enough & (gross * PPM >= earned * self._economics.captive_share_ppm)
        return tuple(each[made] for each in pairs)

    def keep(self, connection: Connection[Any], totals: Totals) -> Run:
        """Keep by how much totals have changed, in the caller's transaction; `judged` says that it is committed."""
        oldest = caps.forget(connection, "total_runs", self._unjudged_since - DAYS_KEPT)
        self._oldest_total = max(self._oldest_total, oldest)
        until, mark = self.fresh.runs[-1].last_id, secrets.randbits(62)
        columns = [each.astype(kind).tobytes() for each, kind in zip(totals.changed.columns, TOTALS.types, strict=True)]
        row = connection.execute(
            "INSERT INTO ledger.total_runs (keys, net, captive, viewers, judged_until, rules, mark, newest_day)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s, %s) RETURNING id",
            (*columns, until, self._rules, mark, int(_days(totals.changed.keys).max(initial=0))),
        ).fetchone()
        assert row is not None
        return Run(rows_of((row[0], mark)), totals.changed.columns)

    def judged(self, totals: Totals, kept: Run) -> None:
        """The transaction that kept this has committed: what was fresh has been judged."""
        self._judged_until, self._ahead = self.fresh.runs[-1].last_id, totals.ahead
        self.fresh.hand_over(self.judged_pairs)
        self.totals.accept(kept)
        self.totals.tidy(self._oldest_total, partial(_young_totals, self._unjudged_since - DAYS_KEPT))
        self._unjudged_since = self._since


def _totals(pairs: Columns, net: Amounts, captive: int, viewers: int) -> Columns:
    """What pairs add to their creators' days; `captive` and `viewers` are the sign with which they count as such."""
    keys = pairs[3].astype(np.uint64) << np.uint64(DAY_BITS) | pairs[4].astype(np.uint64)
    return keys, net, captive * pairs[2], np.full(len(keys), viewers, np.int64)


def _days(totals: Keys) -> Ids:
    return (totals & np.uint64((1 << DAY_BITS) - 1)).astype(np.int64)


def _young_totals(since: int, columns: Columns) -> Flags:
    return np.asarray(_days(columns[0]) > since)


def _read_totals(connection: Connection[Any], kept: Known) -> Iterator[Columns]:
    found = connection.execute(
        "SELECT keys, net, captive, viewers FROM ledger.total_runs WHERE id = ANY(%s) ORDER BY id",
        (kept[:, 0].tolist(),),
    )
    parts = [
        tuple(np.frombuffer(column, kind) for column, kind in zip(row, TOTALS.types, strict=True)) for row in found
    ]
    yield runfiles.combined(TOTALS, runfiles.joined(TOTALS, parts))
