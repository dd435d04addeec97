"""Who has seen what in the last 24 hours: 64-bit keys, each with the second, as a store of runs (see `runstore`).

A key is a mix of viewer and segment; two pairs share one with a chance of about n²/2⁶⁵, and then one appearance of
1000 base units is not counted. Knows neither money nor why a repeat does not count.
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

from ledger import runfiles, runstore
from ledger.groups import Flags, Places, changes
from ledger.runfiles import Columns, Keys, Run, Shape, rows_of
from ledger.runstore import Known, Store

Seconds = NDArray[np.uint32]

LATE_S = 2 * 86_400  # so much older than when it was recorded can be what an heir records
FORGOTTEN_MAX = 1_000  # rows a fold
SKEW_MAX_S = 86_400  # so far ahead only an older version believed a clock

__all__ = ["LATE_S", "Keys", "Run", "Seconds", "Seen", "keys_of"]


def keys_of(halves: Keys, searches: Places, segments: NDArray[np.int64]) -> Keys:
    """A 64-bit key for each pair of a search's viewer (two words) and a segment shown in that search."""
    with np.errstate(over="ignore"):
        viewers = halves[:, 0] ^ (halves[:, 1] * np.uint64(0x9E3779B97F4A7C15))
        mixed = viewers[searches] ^ (segments.astype(np.uint64) * np.uint64(0xD1B54A32D192ED03))
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return np.asarray(mixed ^ (mixed >> np.uint64(31)), dtype=np.uint64)


def _latest(columns: Columns) -> Columns:
    """Each key once, with its newest second."""
    starts = np.flatnonzero(runfiles.by_key(columns))
    return columns[0][starts], np.maximum.reduceat(columns[1], starts) if len(starts) else columns[1]


KEYS = Shape("keys", b"pixrkey1", ("<u4",), _latest)


class Seen:
    """The runs of the present; `sift` asks, `remember` tells, `accept` says that what was told is committed."""

    def __init__(self, repeat_after_s: int, folder: Path | None = None, executor: Executor | None = None) -> None:
        """`folder`, `executor`: see `Store`."""
        self._repeat_after_s = repeat_after_s
        self.store = Store(KEYS, folder, executor)
        self._oldest_id = 0  # rows before it are forgotten
        self._since_s = 0  # keys of then or before are too old to matter

    def load(self, connection: Connection[Any], now_s: int) -> None:
        """Know what earlier folds have kept.

        What a version before rows had marks kept of a replica's clock ahead was seen by `now_s` at the latest. Else what is
        ahead stays so: the database's clock was set back, and searches that were recorded before that are compared with it.
        """
        rows = connection.execute(
            "SELECT id, coalesce(mark, id), length(seconds) / 4 FROM ledger.seen_runs ORDER BY id"
        ).fetchall()
        self.store.load(np.array(rows, np.int64).reshape(-1, 3), partial(_read, connection, now_s))
        self._tidy()

    def sift(self, keys: Keys, seconds: Seconds, order: Places) -> tuple[Places, Run]:
        """The rows that count, not seen within the time, here or earlier in the same list; and what they are kept as.

        `order` are the rows that are asked about, by ascending key, equal ones as they came.
        """
        ordered = keys[order]
        starts = changes(ordered)
        rows, unique = order[starts], ordered[starts]
        at = seconds[rows]
        last = newest(self.store.runs, unique)
        counts = (last == 0) | (at - last >= self._repeat_after_s)
        return rows[counts], Run(rows_of(), (unique[counts], at[counts]))

    def remember(self, connection: Connection[Any], run: Run, since_s: int) -> Run:
        """Keep what counted, in the caller's transaction; the result becomes part of the present by `accept`.

        `since_s`, in seconds since 1970: what is too old for what was recorded then is forgotten (see `waiting.since_s`).
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
        """Delete the oldest rows as far as all of them are too old; returns the id from which on rows stay.

        None between two that stay is deleted: so a file knows what it may hold and the table does not.
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
        """The transaction that kept this has committed."""
        self.store.accept(kept)
        self._tidy()

    def _tidy(self) -> None:
        self.store.tidy(self._oldest_id, partial(_young, self._since_s))


def newest(runs: list[Run], keys: Keys) -> NDArray[np.int64]:
    """The newest second of each of these keys, which ascend, in any of the runs; 0 where there is none."""
    last = np.zeros(len(keys), np.int64)
    for run in runs:
        if len(run):
            known, seconds = run.columns
            place = np.minimum(np.searchsorted(known, keys), len(run) - 1)
            found = np.flatnonzero(known[place] == keys)  # of the others no second is read from disk
            last[found] = np.maximum(last[found], seconds[place[found]])
    return last


def _read(connection: Connection[Any], now_s: int, rows: Known) -> Iterator[Columns]:
    """What rows hold, merged; a large one piece by piece: an older version has merged them until they were."""
    if len(rows) == 1:
        yield from _pieces(connection, now_s, rows[0])
        return
    found = connection.execute(
        "SELECT keys, seconds, mark FROM ledger.seen_runs WHERE id = ANY(%s) ORDER BY id", (rows[:, 0].tolist(),)
    )
    runs = [Run(rows_of(), _columns(keys, seconds, mark, now_s)) for keys, seconds, mark in found]
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


def _young(since_s: int, columns: Columns) -> Flags:
    return np.asarray(columns[1].astype(np.int64) > since_s)
