"""Which viewer has seen which segment in the last 24 hours: 64-bit keys, each with the second in which it was last seen.

They are kept in a store of runs (see `runstore`), one row of `ledger.seen_runs` a fold. A key is a hash of viewer and
segment. Among n pairs any two share a key with a chance of about n²/2⁶⁵; one appearance (1000 base units of PIX) is then
taken for a repeat. Knows neither money nor why a repeat does not count.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from concurrent.futures import Executor
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from psycopg import Connection

from ledger.accrual import runfiles, runstore
from ledger.accrual.groups import Flags, Places, changes
from ledger.accrual.runfiles import Columns, Keys, Run, Shape, rows_of
from ledger.accrual.runstore import Known, RunStore

Seconds = NDArray[np.uint32]  # since 1970, UTC

LATE_S = 2 * 86_400  # an heir may record a dead replica's searches up to this long after they were made
FORGOTTEN_MAX = 1_000  # rows that a fold deletes
SKEW_MAX_S = 86_400  # rows further in the future come from an older version, which believed any clock

__all__ = ["LATE_S", "Keys", "Run", "Seconds", "Seen", "keys_of"]


def keys_of(halves: Keys, searches: Places, segments: NDArray[np.int64]) -> Keys:
    """Mix viewer and segment into a 64-bit key, for each appearance.

    Args:
        halves: uint64, shape (searches, 2). The two words of the keyed hash of each search's viewer.
        searches: int64, shape (rows,). The search of each appearance.
        segments: int64, shape (rows,). The segment of each appearance.

    Returns:
        uint64, shape (rows,), evenly spread (the finalizer of splitmix64).
    """
    with np.errstate(over="ignore"):
        viewers = halves[:, 0] ^ (halves[:, 1] * np.uint64(0x9E3779B97F4A7C15))
        mixed = viewers[searches] ^ (segments.astype(np.uint64) * np.uint64(0xD1B54A32D192ED03))
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return np.asarray(mixed ^ (mixed >> np.uint64(31)), dtype=np.uint64)


def _latest(columns: Columns) -> Columns:
    """Return each key once, with its latest second."""
    starts = np.flatnonzero(runfiles.key_starts(columns))
    return columns[0][starts], np.maximum.reduceat(columns[1], starts) if len(starts) else columns[1]


KEYS = Shape("keys", b"pixrkey1", ("<u4",), _latest)


class Seen:
    """The keys that were seen, as of the last fold that committed.

    A fold calls `sift` to find the appearances that count, `remember` to write their keys, and `accept` after its commit.
    """

    def __init__(self, repeat_after_s: int, folder: Path | None = None, executor: Executor | None = None) -> None:
        """Start without keys; `load` reads those of earlier folds. For `folder` and `executor` see `RunStore`."""
        self._repeat_after_s = repeat_after_s
        self.store = RunStore(KEYS, folder, executor)
        self._oldest_id = 0  # rows with a smaller id are forgotten
        self._since_s = 0  # keys seen at this second or before are too old to matter

    def load(self, connection: Connection[Any], now_s: int) -> None:
        """Read the keys that earlier folds have kept.

        Seconds after `now_s` are read as `now_s` in rows without a mark: an older version wrote these rows, and trusted
        replicas' clocks that were ahead. In all other rows such seconds are kept. They mean that the database's clock
        was set back, and searches that were recorded before that are compared with them.
        """
        rows = connection.execute(
            "SELECT id, coalesce(mark, id), length(seconds) / 4 FROM ledger.seen_runs ORDER BY id"
        ).fetchall()
        self.store.load(np.array(rows, np.int64).reshape(-1, 3), partial(_read, connection, now_s))
        self._tidy()

    def sift(self, keys: Keys, seconds: Seconds, order: Places) -> tuple[Places, Run]:
        """Return the appearances that count: the first of each key, if no fold saw the key within `repeat_after_s`.

        Args:
            keys: uint64, shape (rows,). The key of each appearance (`keys_of`).
            seconds: uint32, shape (rows,). When each was shown, in seconds since 1970.
            order: int64, shape (rows that may count,). The rows to look at, by ascending key; rows of one key in the
                order in which they came.

        Returns:
            The rows that count (int64, by ascending key), and their keys and seconds as a run for `remember`.
        """
        ordered = keys[order]
        starts = changes(ordered)
        rows, unique = order[starts], ordered[starts]
        at = seconds[rows]
        last = newest(self.store.runs, unique)
        counts = (last == 0) | (at - last >= self._repeat_after_s)
        return rows[counts], Run(rows_of(), (unique[counts], at[counts]))

    def remember(self, connection: Connection[Any], run: Run, since_s: int) -> Run:
        """Write the run of `sift` in the caller's transaction, and delete rows that are too old.

        `since_s` is the time at which the oldest waiting batch was recorded (see `waiting.since_s`), in seconds since
        1970. Keys are deleted if no waiting batch can repeat them any more. Returns the run to hand to `accept` after
        the commit.
        """
        self._since_s = since_s - LATE_S - max(1, self._repeat_after_s)
        self._oldest_id = max(self._oldest_id, self._forget(connection, self._since_s))
        if not len(run):
            return run
        keys, seconds = run.columns
        mark = secrets.randbits(62)
        row = connection.execute(
            # A clock that went back has left seconds that are ahead: the row's others are not forgotten for them.
            "INSERT INTO ledger.seen_runs (keys, seconds, newest_at, mark) VALUES (%s, %s, least(%s, now()), %s) RETURNING id",
            (keys.astype("<u8").tobytes(), seconds.astype("<u4").tobytes(),
             datetime.fromtimestamp(int(seconds.max()), UTC), mark),
        ).fetchone()  # fmt: skip
        assert row is not None
        return Run(rows_of((row[0], mark)), run.columns)

    def _forget(self, connection: Connection[Any], since_s: int) -> int:
        """Delete the oldest rows, up to the first one that has a key seen after `since_s`; return the id of that row.

        Rows are only ever deleted from the old end, so that a file of runs can tell which of its rows are gone.
        """
        row = connection.execute(
            "SELECT coalesce((SELECT id FROM ledger.seen_runs WHERE newest_at > to_timestamp(%s)"
            "                 AND newest_at <= now() + make_interval(secs => %s) ORDER BY id LIMIT 1),"
            "                (SELECT max(id) + 1 FROM ledger.seen_runs), 0)",
            (since_s, SKEW_MAX_S),
        ).fetchone()
        assert row is not None
        connection.execute(
            "DELETE FROM ledger.seen_runs WHERE id IN"
            " (SELECT id FROM ledger.seen_runs WHERE id < %s ORDER BY id LIMIT %s)",
            (row[0], FORGOTTEN_MAX),
        )
        return int(row[0])

    def accept(self, kept: Run) -> None:
        """Add a run whose transaction has committed to the keys that `sift` compares with."""
        self.store.accept(kept)
        self._tidy()

    def _tidy(self) -> None:
        self.store.tidy(self._oldest_id, partial(_newer_than, self._since_s))


def newest(runs: list[Run], keys: Keys) -> NDArray[np.int64]:
    """Look up the latest second of each key over all runs.

    Args:
        runs: sorted runs of keys and seconds, in each of which a key occurs at most once.
        keys: uint64, shape (keys,), ascending.

    Returns:
        int64, shape (keys,), in seconds since 1970; 0 for a key that no run has.
    """
    last = np.zeros(len(keys), np.int64)
    for run in runs:
        if len(run):
            known, seconds = run.columns
            place = np.minimum(np.searchsorted(known, keys), len(run) - 1)
            present = np.flatnonzero(known[place] == keys)  # for the others no second is read from disk
            last[present] = np.maximum(last[present], seconds[place[present]])
    return last


def _read(connection: Connection[Any], now_s: int, rows: Known) -> Iterator[Columns]:
    """Yield what some rows of the table hold, merged by key.

    A single row is read piece by piece: an older version merged rows into single ones that may not fit into memory.
    """
    if len(rows) == 1:
        yield from _pieces(connection, now_s, rows[0])
        return
    several = connection.execute(
        "SELECT keys, seconds, mark FROM ledger.seen_runs WHERE id = ANY(%s) ORDER BY id", (rows[:, 0].tolist(),)
    )
    runs = [Run(rows_of(), _columns(keys, seconds, mark, now_s)) for keys, seconds, mark in several]
    yield from runfiles.merged(KEYS, runs)


def _pieces(connection: Connection[Any], now_s: int, row: NDArray[np.int64]) -> Iterator[Columns]:
    for start in range(0, int(row[2]), runstore.READ_ROWS):
        piece = connection.execute(
            "SELECT substring(keys FROM %s FOR %s), substring(seconds FROM %s FOR %s), mark FROM ledger.seen_runs"
            " WHERE id = %s",
            (8 * start + 1, 8 * runstore.READ_ROWS, 4 * start + 1, 4 * runstore.READ_ROWS, int(row[0])),
        ).fetchone()
        assert piece is not None
        keys, seconds, mark = piece
        yield _columns(keys, seconds, mark, now_s)


def _columns(keys: bytes, seconds: bytes, mark: int | None, now_s: int) -> Columns:
    at = np.frombuffer(seconds, "<u4")
    return np.frombuffer(keys, "<u8"), at if mark is not None else np.minimum(at, np.uint32(now_s))


def _newer_than(since_s: int, columns: Columns) -> Flags:
    return np.asarray(columns[1].astype(np.int64) > since_s)
