"""Who has seen what in the last 24 hours: sorted arrays of 64-bit keys, run by run in PostgreSQL and merged on disk.

A key is a mix of viewer and segment; two pairs share one with a chance of about n²/2⁶⁵, and then one appearance of
1000 base units is not counted. Each fold keeps its run as a row that never changes and is forgotten when it is too old: what
was kept is what is known. Searched are a few files, which rows are merged into beside the folds (see `keyfiles`), and the
newest rows in memory: however many keys there are, memory holds `MEMORY_KEYS_MAX` of them. Without a folder all of it does.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from psycopg import Connection

from ledger import keyfiles
from ledger.groups import Places, changes
from ledger.keyfiles import Keys, Rows, Run, Seconds, rows_of
from ledger.runs import merged_from

log = logging.getLogger(__name__)

LATE_S = 2 * 86_400  # so much older than when it was recorded can be what an heir records
MEMORY_KEYS_MAX = 4_000_000  # in rows that are in no file yet, before one is made of them
MEMORY_RUNS_MAX = 8
BEHIND = 4  # times as many keys in memory as that, and a fold waits for the disk
READ_KEYS, READ_ROWS_MAX = 4_000_000, 10_000  # at once, of rows that are in no file
FORGOTTEN_MAX = 1_000  # rows a fold
PAUSE_S = 60.0  # after a file could not be made
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


class Seen:
    """The runs of the present; `sift` asks, `remember` tells, `accept` says that what was told is committed."""

    def __init__(self, repeat_after_s: int, folder: Path | None = None) -> None:
        self._repeat_after_s, self._folder = repeat_after_s, folder
        self._runs: list[Run] = []
        self._oldest_id = 0  # rows before it are forgotten
        self._since_s = 0  # keys of then or before are too old to matter
        self._executor = ThreadPoolExecutor(1, "keys") if folder is not None else None
        self._merging: tuple[list[Run], Future[Run]] | None = None
        self._again_at = 0.0  # when a file is made next, after the disk was full or away

    def close(self) -> None:
        """Wait for a file that is being made, and make no other one."""
        if self._executor is not None:
            self._executor.shutdown()

    def load(self, connection: Connection[Any], now_s: int) -> None:
        """Know what earlier folds have kept: from files, as far as they are true, and else from the rows.

        What an older version kept of a clock ahead was seen by `now_s` at the latest.
        """
        rows = connection.execute(
            "SELECT id, coalesce(mark, id), length(seconds) / 4 FROM ledger.seen_runs ORDER BY id"
        ).fetchall()
        known = np.array(rows, np.int64).reshape(-1, 3)
        runs = keyfiles.listed(self._folder, known[:, :2]) if self._folder is not None else []
        there = [run.rows[:, 0] for run in runs]
        missing = known[~np.isin(known[:, 0], np.concatenate(there))] if there else known
        between = np.searchsorted(np.array([ids[0] for ids in there], np.int64), missing[:, 0])
        if len(missing) and there:
            log.warning("rows of what was seen are in no file and are read", extra={"rows": len(missing)})
        for gap in np.split(missing, np.flatnonzero(np.diff(between)) + 1):
            runs += self._rebuilt(connection, gap, now_s)
        self._runs = sorted(runs, key=lambda run: run.last_id)
        self._tidy()

    def _rebuilt(self, connection: Connection[Any], rows: NDArray[np.int64], now_s: int) -> Iterator[Run]:
        """Runs of these rows, which no file knows and none lies between: as many together as fit in memory."""
        start = 0
        while start < len(rows):
            fitting = int(np.searchsorted(np.cumsum(rows[start:, 2]), READ_KEYS, "right"))
            end = start + min(max(fitting, 1), READ_ROWS_MAX)
            some = rows[start:end]
            blocks = self._row(connection, some[0], now_s) if end - start == 1 else self._small(connection, some, now_s)
            yield self._kept(some[:, :2], blocks)
            start = end

    def _kept(self, rows: Rows, blocks: Iterator[tuple[Keys, Seconds]]) -> Run:
        if self._folder is not None:
            return keyfiles.write(self._folder, rows, blocks)
        parts = list(blocks)
        return Run(rows, np.concatenate([keys for keys, _ in parts]), np.concatenate([seconds for _, seconds in parts]))

    def _small(
        self, connection: Connection[Any], rows: NDArray[np.int64], now_s: int
    ) -> Iterator[tuple[Keys, Seconds]]:
        """What several rows come to, merged."""
        found = connection.execute(
            "SELECT keys, seconds FROM ledger.seen_runs WHERE id = ANY(%s) ORDER BY id", (rows[:, 0].tolist(),)
        )
        none = rows_of()
        runs = [Run(none, np.frombuffer(row[0], "<u8"), _until(np.frombuffer(row[1], "<u4"), now_s)) for row in found]
        return keyfiles.merged(runs, 0)

    def _row(self, connection: Connection[Any], row: NDArray[np.int64], now_s: int) -> Iterator[tuple[Keys, Seconds]]:
        """One row, piece by piece: an older version has merged them until they were large."""
        for start in range(0, int(row[2]), READ_KEYS):
            piece = connection.execute(
                "SELECT substring(keys FROM %s FOR %s), substring(seconds FROM %s FOR %s) FROM ledger.seen_runs"
                " WHERE id = %s",
                (8 * start + 1, 8 * READ_KEYS, 4 * start + 1, 4 * READ_KEYS, int(row[0])),
            ).fetchone()
            assert piece is not None
            yield np.frombuffer(piece[0], "<u8"), _until(np.frombuffer(piece[1], "<u4"), now_s)

    def sift(self, keys: Keys, seconds: Seconds, order: Places) -> tuple[Places, Run]:
        """The rows that count, not seen within the time, here or earlier in the same list; and what they are kept as.

        `order` are the rows that are asked about, by ascending key, equal ones as they came.
        """
        ordered = keys[order]
        starts = changes(ordered)
        rows, unique = order[starts], ordered[starts]
        at = seconds[rows]
        last = keyfiles.newest(self._runs, unique)
        counts = (last == 0) | (at - last >= self._repeat_after_s)
        return rows[counts], Run(rows_of(), unique[counts], at[counts])

    def remember(self, connection: Connection[Any], run: Run, since_s: int) -> Run:
        """Keep what counted, in the caller's transaction; the result becomes part of the present by `accept`.

        `since_s`, in seconds since 1970: what is too old for what was recorded then is forgotten (see `waiting.since_s`).
        """
        self._since_s = since_s - LATE_S - max(1, self._repeat_after_s)
        self._oldest_id = max(self._oldest_id, self._forget(connection, self._since_s))
        if not len(run.keys):
            return run
        newest = datetime.fromtimestamp(int(run.seconds.max()), UTC)
        mark = secrets.randbits(62)
        row = connection.execute(
            "INSERT INTO ledger.seen_runs (keys, seconds, newest_at, mark) VALUES (%s, %s, %s, %s) RETURNING id",
            (run.keys.astype("<u8").tobytes(), run.seconds.astype("<u4").tobytes(), newest, mark),
        ).fetchone()
        assert row is not None
        return Run(rows_of((row[0], mark)), run.keys, run.seconds)

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
        if len(kept.keys):
            self._runs.append(kept)
        self._tidy()

    # ── Files ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def _tidy(self) -> None:
        """Take over the file that was made, and have the next one made where there is much in memory, or many runs."""
        if self._executor is None:
            self._merge_in_memory()
            return
        self._take_over(wait=self._in_memory() > BEHIND * MEMORY_KEYS_MAX)
        if self._merging is not None or time.monotonic() < self._again_at:
            return
        self._drop_forgotten()
        start = self._first_of_next()
        if start is not None:
            runs = self._runs[start:]
            self._merging = runs, self._executor.submit(self._merged, runs, self._since_s, self._oldest_id)

    def _drop_forgotten(self) -> None:
        gone = [run for run in self._runs if run.last_id < self._oldest_id]
        self._runs = [run for run in self._runs if run.last_id >= self._oldest_id]
        for run in gone:
            if run.path is not None:
                run.path.unlink(missing_ok=True)

    def _in_memory(self) -> int:
        return sum(len(run.keys) for run in self._runs if run.path is None)

    def _first_of_next(self) -> int | None:
        """From which run on the next file is made; None where there is no need."""
        sizes = [len(run.keys) for run in self._runs]
        start = merged_from(sizes)
        memory = sum(run.path is None for run in self._runs)
        if start is None and (self._in_memory() > MEMORY_KEYS_MAX or memory > MEMORY_RUNS_MAX):
            start = merged_from(sizes, runs_max=1)
            start = min(len(sizes) - memory, len(sizes) - 1 if start is None else start)
        return start

    def _merged(self, runs: list[Run], since_s: int, oldest_id: int) -> Run:
        assert self._folder is not None
        rows = np.concatenate([run.rows for run in runs])
        return keyfiles.write(self._folder, rows[rows[:, 0] >= oldest_id], keyfiles.merged(runs, since_s))

    def _take_over(self, *, wait: bool) -> None:
        if self._merging is None or not (wait or self._merging[1].done()):
            return
        (runs, made), self._merging = self._merging, None
        try:
            file = made.result()
        except OSError as error:  # memory holds them until the disk is well again
            log.error("no file of what was seen can be made: %s", error)
            self._again_at = time.monotonic() + PAUSE_S
            return
        at = next(place for place, run in enumerate(self._runs) if run is runs[0])
        self._runs[at : at + len(runs)] = [file]
        for run in runs:
            if run.path is not None:
                run.path.unlink(missing_ok=True)

    def _merge_in_memory(self) -> None:
        start = merged_from([len(run.keys) for run in self._runs])
        if start is not None:
            runs = self._runs[start:]
            parts = list(keyfiles.merged(runs, self._since_s))
            keys, seconds = (np.concatenate([part[n] for part in parts]) for n in (0, 1))
            self._runs[start:] = [Run(np.concatenate([run.rows for run in runs]), keys, seconds)]


def _until(seconds: Seconds, now_s: int) -> Seconds:
    return np.minimum(seconds, np.uint32(now_s))
