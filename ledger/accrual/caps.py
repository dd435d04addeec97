"""Caps: upper bounds of what one subject may earn, or cause others to earn, in a UTC day; more than that earns nothing.

A subject is a viewer, the anonymous viewers of a network together, a segment or a creator. The day's sums are kept by
64-bit key, a hash of day and subject, in a store of runs (see `runstore`), one row of `ledger.day_runs` a fold. Knows
numbers and days, nothing of accounts.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from psycopg import Connection

from ledger.accrual import runfiles, runstore
from ledger.accrual.groups import Flags, Groups, Places, changes, order_of
from ledger.accrual.runfiles import Columns, Keys, Run, Shape, rows_of
from ledger.accrual.runstore import Known, RunStore
from ledger.money import Amounts

Days = NDArray[np.uint16]  # UTC days since 1970

DAY_S = 86_400
DAYS_KEPT = 3
FORGOTTEN_MAX = 1_000  # rows of one kind that a fold deletes
LAST_ID = 2**63 - 1
AHEAD_DAYS = 1  # of the database's: a day that has not come, but for clocks that are a little ahead


@dataclass(frozen=True)
class Tally:
    """The rows of one fold, grouped by subject and day.

    Grouping takes two steps: rows become parts, and parts with the same key become groups.
    """

    parts: Groups  # rows that share subject and day; several parts may share a key
    groups: Groups  # the parts of each key
    keys: Keys  # (keys,)
    days: Days  # (keys,)

    @classmethod
    def of(cls, parts: Groups, subjects: NDArray[Any], days: Days) -> Tally:
        """Group parts by their subject and day.

        Args:
            parts: the rows of each part.
            subjects: the subject of each part. int64, shape (parts,), for ids; or uint64, shape (parts, 2), for the two
                words of a keyed hash.
            days: uint16, shape (parts,). The UTC day of each part, in days since 1970.

        Returns:
            The tally; its keys ascend.
        """
        keys = keys_of(subjects, days)
        order = order_of(keys)
        groups = Groups.where(order, changes(keys[order]))
        return cls(parts, groups, keys[groups.firsts], days[groups.firsts])

    def sums(self, amounts: Amounts) -> Amounts:
        """Sum amounts by key.

        Args:
            amounts: int64, shape (rows,), base units of PIX.

        Returns:
            int64, shape (keys,), base units of PIX.
        """
        return self.groups.sums(self.parts.sums(amounts))

    def rows(self, chosen: Places) -> tuple[Places, Places]:
        """List the rows of some keys, key by key, each key's rows in ascending order.

        Args:
            chosen: int64, shape (chosen,). Indices of keys.

        Returns:
            Two int64 arrays of shape (rows of the chosen keys,): the rows, and for each the place in `chosen` of its key.
        """
        parts, key_of_part = self.groups.rows(chosen)
        rows, part_of_row = self.parts.rows(parts)
        keys = key_of_part[part_of_row]
        if bool(((rows[1:] > rows[:-1]) | (keys[1:] != keys[:-1])).all()):
            return rows, keys  # each key's rows are of one part, or of parts that follow each other
        order = np.lexsort((rows, keys))
        return rows[order], keys[order]


def keys_of(subjects: NDArray[Any], days: Days) -> Keys:
    """Mix subject and day into a 64-bit key.

    Args:
        subjects: int64, shape (rows,), for ids; or uint64, shape (rows, 2), for the two words of a keyed hash.
        days: uint16, shape (rows,). UTC days since 1970.

    Returns:
        uint64, shape (rows,), evenly spread. Two different pairs of subject and day share a key with a chance of 2^-64.
    """
    if not len(days):
        return np.zeros(0, np.uint64)
    words = np.ascontiguousarray(subjects).view("<u8").reshape(len(days), -1)
    with np.errstate(over="ignore"):
        mixed = words[:, 0] * np.uint64(0x9E3779B97F4A7C15) ^ words[:, -1] ^ days.astype(np.uint64) << np.uint64(47)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return np.asarray(mixed ^ (mixed >> np.uint64(31)), dtype=np.uint64)


def shape_of(kind: str) -> Shape:
    """Return the shape of the runs of this kind of subject: key, its sum (base units of PIX) and its UTC day."""
    return Shape(
        kind, b"pixrday1", ("<i8", "<u2"), lambda columns: runfiles.summed(columns, 1, runfiles.key_starts(columns))
    )


class Caps:
    """The sums of the last days by subject, for one kind of subject, and the bound of a day's sum.

    A fold calls `excess` to find what is above the bound, `remember` to write its own sums, and `accept` after its
    commit.
    """

    def __init__(self, kind: str, max_pix: int, folder: Path | None = None, executor: Executor | None = None) -> None:
        """Start without sums; `load` reads those of earlier folds.

        Args:
            kind: the kind of subject: "viewer", "origin", "segment" or "creator".
            max_pix: the bound, in base units of PIX a subject and day; 0 means no bound.
            folder: where files of runs lie; None keeps all of them in memory (see `RunStore`).
            executor: the thread that makes files, shared with other stores (see `RunStore`).
        """
        self.kind, self._max_pix = kind, max_pix
        self.store = RunStore(shape_of(kind), folder, executor)
        self._oldest_id, self._since = 0, 0

    def load(self, connection: Connection[Any]) -> None:
        """Read the sums that earlier folds have kept."""
        rows = connection.execute(
            "SELECT id, coalesce(mark, id), length(days) / 2 FROM ledger.day_runs WHERE kind = %s ORDER BY id",
            (self.kind,),
        ).fetchall()
        self.store.load(np.array(rows, np.int64).reshape(-1, 3), partial(_read, connection, self.store.shape))

    def excess(self, tally: Tally, amounts: Amounts, least: Amounts | int = 0) -> Places:
        """Return the rows that would exceed the bound if all rows were added in order to the day's earlier sums.

        Args:
            tally: the rows by subject and day.
            amounts: int64, shape (rows,), base units of PIX. What each row would earn.
            least: int64, shape (keys,), or one number, base units of PIX. A lower limit of each key's bound: where it
                is above `max_pix`, it is the bound.

        Returns:
            int64, shape (rows in excess,): indices of rows, in no particular order. A row of amount 0 may be among
            them.
        """
        if not self._max_pix:
            return np.zeros(0, np.int64)
        most = np.broadcast_to(np.maximum(least, self._max_pix), len(tally.keys))  # (keys,)
        before = sums(self.store.runs, tally.keys, 1)  # (keys,)
        exceeded = np.flatnonzero(before + tally.sums(amounts) > most)  # keys, (exceeded,)
        rows, key = tally.rows(exceeded)
        running = np.cumsum(amounts[rows])
        starts = changes(key)
        earlier = (running - amounts[rows])[starts][np.cumsum(starts) - 1]  # of the keys before a row's own
        in_excess: Places = rows[before[exceeded][key] + running - earlier > most[exceeded][key]]
        return in_excess

    def remember(self, connection: Connection[Any], tally: Tally, amounts: Amounts, since: int) -> Run:
        """Write a fold's sums in the caller's transaction, and delete rows that are too old.

        Args:
            connection: in the transaction of the fold.
            tally: the rows by subject and day.
            amounts: int64, shape (rows,), base units of PIX. What each row uses of the bound; 0 where it earned nothing.
            since: the UTC day, in days since 1970, of the oldest batch that waits for a fold (see `waiting.since_s`). Sums
                of days that no such batch can add to any more are forgotten.

        Returns:
            The run to hand to `accept` once the transaction has committed; it may be empty.
        """
        self._since = since - DAYS_KEPT
        self._oldest_id = max(self._oldest_id, forget(connection, "day_runs", self._since, kind=self.kind))
        key_sums = tally.sums(amounts)
        some = key_sums > 0
        run = Run(rows_of(), (tally.keys[some], key_sums[some], tally.days[some]))
        return self._insert(connection, run) if self._max_pix and len(run) else Run(rows_of(), self.store.shape.empty())

    def accept(self, kept: Run) -> None:
        """Add a run whose transaction has committed to the sums that `excess` compares with."""
        self.store.accept(kept)
        self.store.tidy(self._oldest_id, partial(_newer_than, self._since))

    def _insert(self, connection: Connection[Any], run: Run) -> Run:
        keys, amounts, days = run.columns
        mark = secrets.randbits(62)
        row = connection.execute(
            "INSERT INTO ledger.day_runs (kind, keys, days, amounts, mark, newest_day) VALUES (%s, %s, %s, %s, %s, %s)"
            " RETURNING id",
            (self.kind, keys.astype("<u8").tobytes(), days.astype("<u2").tobytes(), amounts.astype("<i8").tobytes(),
             mark, int(days.max())),
        ).fetchone()  # fmt: skip
        assert row is not None
        return Run(rows_of((row[0], mark)), run.columns)


def sums(runs: Sequence[Run], keys: Keys, column: int) -> Amounts:
    """Sum one column over all runs, key by key.

    Args:
        runs: sorted runs, in each of which a key occurs at most once.
        keys: uint64, shape (keys,), ascending.
        column: which column of the runs to sum; the keys are column 0.

    Returns:
        int64, shape (keys,): the sums, 0 for a key that no run has.
    """
    total = np.zeros(len(keys), np.int64)
    for run in runs:
        if len(run):
            place = np.minimum(np.searchsorted(run.keys, keys), len(run) - 1)
            present = np.flatnonzero(run.keys[place] == keys)  # for the others nothing more is read from disk
            total[present] += run.columns[column][place[present]]
    return total


def forget(
    connection: Connection[Any], table: str, since: int, *, kind: str | None = None, until: int = LAST_ID
) -> int:
    """Delete the oldest rows of a table of runs, up to the first row that is still needed; at most `FORGOTTEN_MAX`.

    Rows are only ever deleted from the old end, so that a file of runs can tell which of its rows are gone.

    Args:
        connection: in the transaction of the fold.
        table: a table of the schema `ledger` with `id` and `newest_day`: "day_runs", "pair_runs" or "total_runs".
        since: a UTC day, in days since 1970. A row is needed if its newest day is later than this.
        kind: the kind of rows, if the table holds several.
        until: rows with a greater id are needed, too.

    Returns:
        The id below which no row is needed; if there were more than `FORGOTTEN_MAX` such rows, later calls delete the
        rest. A row of a future day, written while a clock ran ahead, may also hold sums of today: it is needed as long
        as the row after it, and does not make later rows needed.
    """
    of_kind = "true" if kind is None else "kind = %(kind)s"
    values = {"kind": kind, "since": since, "until": until, "last": LAST_ID, "ahead": AHEAD_DAYS}
    row = connection.execute(
        f"SELECT coalesce((SELECT id + 1 FROM ledger.{table} WHERE {of_kind} AND newest_day <= %(since)s"
        f"   AND id < coalesce((SELECT id FROM ledger.{table} WHERE {of_kind} AND (id > %(until)s OR newest_day > %(since)s"
        "                         AND newest_day <= floor(extract(epoch FROM now()) / 86400) + %(ahead)s)"
        "                      ORDER BY id LIMIT 1), %(last)s)"
        "   ORDER BY id DESC LIMIT 1), 0)",
        values,
    ).fetchone()
    assert row is not None
    connection.execute(
        f"DELETE FROM ledger.{table} WHERE id IN"
        f" (SELECT id FROM ledger.{table} WHERE {of_kind} AND id < %(oldest)s ORDER BY id LIMIT %(most)s)",
        {**values, "oldest": row[0], "most": FORGOTTEN_MAX},
    )
    return int(row[0])


def _read(connection: Connection[Any], shape: Shape, rows: Known) -> Iterator[Columns]:
    """Yield what some rows of the table hold, merged by key.

    A single row is read piece by piece: an older version merged rows into single ones that may not fit into memory.
    """
    if len(rows) > 1:
        several = connection.execute(
            "SELECT keys, amounts, days FROM ledger.day_runs WHERE id = ANY(%s) ORDER BY id", (rows[:, 0].tolist(),)
        )
        yield from runfiles.merged(shape, [Run(rows_of(), _columns(shape, row)) for row in several])
        return
    most = runstore.READ_ROWS
    for start in range(0, int(rows[0, 2]), most):
        piece = connection.execute(
            "SELECT substring(keys FROM %s FOR %s), substring(amounts FROM %s FOR %s), substring(days FROM %s FOR %s)"
            " FROM ledger.day_runs WHERE id = %s",
            (8 * start + 1, 8 * most, 8 * start + 1, 8 * most, 2 * start + 1, 2 * most, int(rows[0, 0])),
        ).fetchone()
        assert piece is not None
        yield _columns(shape, piece)


def _columns(shape: Shape, row: tuple[Any, ...]) -> Columns:
    return tuple(np.frombuffer(column, kind) for column, kind in zip(row, shape.types, strict=True))


def _newer_than(since: int, columns: Columns) -> Flags:
    return np.asarray(columns[2].astype(np.int64) > since)
