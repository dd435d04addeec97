"""Who has seen what in the last 24 hours: sorted arrays of 64-bit keys, kept in memory and, run by run, in PostgreSQL.

A key is a mix of viewer and segment; two pairs share one with a chance of about n²/2⁶⁵, and then one appearance of
1000 base units is not counted. Runs are merged as they grow (see `runs`). What was kept is what is loaded: a new
fold knows what the last one knew.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray
from psycopg import Connection

from ledger.groups import Places, changes, order_of
from ledger.runs import merged_from

LATE_S = 2 * 86_400  # so much older than when it was recorded can be what an heir records

Keys = NDArray[np.uint64]
Seconds = NDArray[np.uint32]


@dataclass(frozen=True)
class Run:
    """Keys in ascending order, each with the second it was last seen."""

    id: int
    keys: Keys
    seconds: Seconds


def keys_of(halves: Keys, searches: Places, segments: NDArray[np.int64]) -> Keys:
    """A 64-bit key for each pair of a search's viewer (two words) and a segment shown in that search."""
    with np.errstate(over="ignore"):
        viewers = halves[:, 0] ^ (halves[:, 1] * np.uint64(0x9E3779B97F4A7C15))
        mixed = viewers[searches] ^ (segments.astype(np.uint64) * np.uint64(0xD1B54A32D192ED03))
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return np.asarray(mixed ^ (mixed >> np.uint64(31)), dtype=np.uint64)


class Seen:
    """The runs of the present; `fresh` asks, `remember` tells."""

    def __init__(self, repeat_after_s: int) -> None:
        self._repeat_after_s = repeat_after_s
        self._runs: list[Run] = []

    def load(self, connection: Connection[Any], now_s: int) -> None:
        """Read what earlier folds have kept. What an older version kept of a clock ahead was seen by `now_s` at the latest."""
        rows = connection.execute("SELECT id, keys, seconds FROM ledger.seen_runs ORDER BY id").fetchall()
        self._runs = [
            Run(row[0], np.frombuffer(row[1], "<u8"), _until(np.frombuffer(row[2], "<u4"), now_s)) for row in rows
        ]

    def sift(self, keys: Keys, seconds: Seconds, order: Places) -> tuple[Places, Run]:
        """The rows that count, not seen within the time, here or earlier in the same list; and what they are kept as.

        `order` are the rows that are asked about, by ascending key, equal ones as they came.
        """
        ordered = keys[order]
        starts = changes(ordered)
        rows, unique = order[starts], ordered[starts]
        at = seconds[rows]
        last = np.zeros(len(unique), np.int64)
        for run in self._runs:
            place = np.minimum(np.searchsorted(run.keys, unique), len(run.keys) - 1)
            last = np.maximum(last, np.where(run.keys[place] == unique, run.seconds[place], 0))
        counts = (last == 0) | (at - last >= self._repeat_after_s)
        return rows[counts], Run(0, unique[counts], at[counts])

    def remember(self, connection: Connection[Any], run: Run, since_s: int) -> list[Run]:
        """Keep what counted, in the caller's transaction; the result becomes the present by `accept`.

        `since_s`, in seconds since 1970: what is too old for what was recorded then is forgotten (see `waiting.since_s`).
        """
        if not len(run.keys):
            return self._runs
        runs = [*self._runs, run]
        start = merged_from([len(each.keys) for each in runs])
        if start is not None:
            runs[start:] = [self._merge(runs[start:], since_s)]
            connection.execute(
                "DELETE FROM ledger.seen_runs WHERE id = ANY(%s)", ([each.id for each in self._runs[start:]],)
            )
        return [*runs[:-1], self._insert(connection, runs[-1])] if len(runs[-1].keys) else runs[:-1]

    def accept(self, runs: list[Run]) -> None:
        """The transaction that kept these has committed."""
        self._runs = runs

    def _merge(self, runs: list[Run], since_s: int) -> Run:
        """One run, each key with its newest second, without what is too old to matter; it may be empty."""
        keys = np.concatenate([run.keys for run in runs])
        seconds = np.concatenate([run.seconds for run in runs])
        young = seconds.astype(np.int64) > since_s - LATE_S - max(1, self._repeat_after_s)
        keys, seconds = keys[young], seconds[young]
        order = order_of(keys)  # quick, because runs are in order
        keys, seconds = keys[order], seconds[order]
        starts = np.flatnonzero(changes(keys))
        return Run(0, keys[starts], np.maximum.reduceat(seconds, starts) if len(starts) else seconds)

    def _insert(self, connection: Connection[Any], run: Run) -> Run:
        newest = datetime.fromtimestamp(int(run.seconds.max()), UTC)
        row = connection.execute(
            "INSERT INTO ledger.seen_runs (keys, seconds, newest_at) VALUES (%s, %s, %s) RETURNING id",
            (run.keys.astype("<u8").tobytes(), run.seconds.astype("<u4").tobytes(), newest),
        ).fetchone()
        assert row is not None
        return Run(row[0], run.keys, run.seconds)


def _until(seconds: Seconds, now_s: int) -> Seconds:
    return seconds if int(seconds.max()) <= now_s else np.minimum(seconds, np.uint32(now_s))
