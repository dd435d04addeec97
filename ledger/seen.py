"""Who has seen what in the last 24 hours: sorted arrays of 64-bit keys, kept in memory and, run by run, in PostgreSQL.

A key is a mix of viewer and segment; two pairs share one with a chance of about n²/2⁶⁵, and then one appearance of
1000 base units is not counted. Runs are merged as they grow, so a lookup searches a handful of arrays. What was kept
is what is loaded: a new fold knows what the last one knew.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray
from psycopg import Connection

Keys = NDArray[np.uint64]
Seconds = NDArray[np.uint32]
Flags = NDArray[np.bool_]

RUNS_MAX = 12


@dataclass(frozen=True)
class Run:
    """Keys in ascending order, each with the second it was last seen."""

    id: int
    keys: Keys
    seconds: Seconds


def keys_of(viewers: NDArray[np.void], segments: NDArray[np.int64]) -> Keys:
    """A 64-bit key for each pair of viewer (16 bytes) and segment."""
    halves = np.ascontiguousarray(viewers).view("<u8").reshape(-1, 2)
    with np.errstate(over="ignore"):
        mixed = halves[:, 0] ^ (halves[:, 1] * np.uint64(0x9E3779B97F4A7C15))
        mixed = mixed ^ (segments.astype(np.uint64) * np.uint64(0xD1B54A32D192ED03))
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return np.asarray(mixed ^ (mixed >> np.uint64(31)), dtype=np.uint64)


class Seen:
    """The runs of the present; `fresh` asks, `remember` tells."""

    def __init__(self, repeat_after_s: int) -> None:
        self._repeat_after_s = repeat_after_s
        self._runs: list[Run] = []

    def load(self, connection: Connection[Any]) -> None:
        """Read what earlier folds have kept."""
        rows = connection.execute("SELECT id, keys, seconds FROM ledger.seen_runs ORDER BY id").fetchall()
        self._runs = [Run(row[0], np.frombuffer(row[1], "<u8"), np.frombuffer(row[2], "<u4")) for row in rows]

    def fresh(self, keys: Keys, seconds: Seconds) -> Flags:
        """Which of these count: not seen within the time, here or earlier in the same list."""
        last = np.zeros(len(keys), np.int64)
        for run in self._runs:
            place = np.minimum(np.searchsorted(run.keys, keys), len(run.keys) - 1)
            hit = run.keys[place] == keys
            last = np.maximum(last, np.where(hit, run.seconds[place], 0))
        at = seconds.astype(np.int64)
        counts = (last == 0) | (at - last >= self._repeat_after_s)
        order = np.lexsort((np.arange(len(keys)), keys))
        first = np.ones(len(keys), np.bool_)
        first[order[1:]] = keys[order[1:]] != keys[order[:-1]]
        return np.asarray(counts & first, dtype=np.bool_)

    def remember(self, connection: Connection[Any], keys: Keys, seconds: Seconds) -> list[Run]:
        """Keep what counted, in the caller's transaction; the result becomes the present by `accept`."""
        if not len(keys):
            return self._runs
        order = np.argsort(keys, kind="stable")
        runs = [*self._runs, Run(0, keys[order], seconds[order])]
        if len(runs) > RUNS_MAX:
            runs = [self._merge(runs)]
            connection.execute("DELETE FROM ledger.seen_runs")
        return [*runs[:-1], self._insert(connection, runs[-1])]

    def accept(self, runs: list[Run]) -> None:
        """The transaction that kept these has committed."""
        self._runs = runs

    def _merge(self, runs: list[Run]) -> Run:
        """One run, each key with its newest second, without what is too old to matter."""
        keys = np.concatenate([run.keys for run in runs])
        seconds = np.concatenate([run.seconds for run in runs])
        newest = int(seconds.max())
        young = seconds.astype(np.int64) > newest - self._repeat_after_s
        keys, seconds = keys[young], seconds[young]
        order = np.lexsort((seconds, keys))
        keys, seconds = keys[order], seconds[order]
        last = np.append(keys[1:] != keys[:-1], True)
        return Run(0, keys[last], seconds[last])

    def _insert(self, connection: Connection[Any], run: Run) -> Run:
        newest = datetime.fromtimestamp(int(run.seconds.max()) if len(run.seconds) else 0, UTC)
        row = connection.execute(
            "INSERT INTO ledger.seen_runs (keys, seconds, newest_at) VALUES (%s, %s, %s) RETURNING id",
            (run.keys.astype("<u8").tobytes(), run.seconds.astype("<u4").tobytes(), newest),
        ).fetchone()
        assert row is not None
        return Run(row[0], run.keys, run.seconds)
