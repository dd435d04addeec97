"""A store of runs: what folds have to remember, durable in PostgreSQL and searchable in files and memory.

Each fold writes its run as one row of a table. Such a row never changes and is deleted when it is too old; the table
alone is the truth. For searches, another thread merges older rows into a few sorted files (see `runfiles`). The newest
rows stay in memory, about `MEMORY_ROWS_MAX` of a store. While the disk is full or away, memory may hold up to `BEHIND`
times as many; then the store is full until a file can be made again. Without a folder all runs stay in memory. Knows no
SQL.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cluster.errors import Temporary
from ledger.accrual import runfiles
from ledger.accrual.runfiles import Columns, Keep, Run, Shape
from ledger.accrual.runs import merged_from

log = logging.getLogger(__name__)

MEMORY_ROWS_MAX = 4_000_000  # rows of runs in memory; beyond, a file is made of them
MEMORY_RUNS_MAX = 8
BEHIND = 4  # with this many times MEMORY_ROWS_MAX in memory a fold waits for the file; if none can be made, nothing is folded
READ_ROWS, READ_RUNS_MAX = 4_000_000, 10_000  # of a run that is made from rows of the table which no file contains
PAUSE_S = 60.0  # after a file could not be made

Known = NDArray[np.int64]  # (rows of the database, 3): id, mark and length of each, by ascending id
Read = Callable[[Known], Iterator[Columns]]  # yields what these rows hold, by ascending key


class RunStore:
    """The runs of one kind, oldest first: `accept` adds one that is committed, `tidy` merges them so that they stay few."""

    def __init__(self, shape: Shape, folder: Path | None = None, executor: Executor | None = None) -> None:
        """Start without runs; `load` reads those that are kept.

        Args:
            shape: the columns of the runs.
            folder: where files are made; None keeps all runs in memory.
            executor: the thread that makes files. It may be shared by several stores; its owner ends it. Without one, the
                store has a thread of its own.
        """
        self.shape, self.folder = shape, folder
        self.runs: list[Run] = []
        self._own_executor = ThreadPoolExecutor(1, shape.name) if folder is not None and executor is None else None
        self._executor = executor or self._own_executor
        self._merging: tuple[list[Run], Future[Run]] | None = None  # runs that a file is being made of
        self._again_at = 0.0  # monotonic time: no file is made before, since the last one failed
        self._tidied: tuple[int, Keep] = 0, runfiles.keep_all  # what `tidy` was told last

    def close(self) -> None:
        """Wait for a file that is being made, and make no other one."""
        if self._own_executor is not None:
            self._own_executor.shutdown()

    def load(self, known: Known, read: Read) -> None:
        """Open the files that match the table, and read the rows that are in no file.

        Args:
            known: int64, shape (rows of the database, 3). Id, mark and length of every row that the table holds.
            read: yields what some of these rows hold; called for rows that no file contains.

        Raises:
            Temporary: memory is full with rows that are in no file, since no file can be made of them.
        """
        runs = runfiles.listed(self.shape, self.folder, known[:, :2]) if self.folder is not None else []
        in_files = [run.rows[:, 0] for run in runs]
        missing = known[~np.isin(known[:, 0], np.concatenate(in_files))] if in_files else known
        between = np.searchsorted(np.array([ids[0] for ids in in_files], np.int64), missing[:, 0])
        if len(missing) and in_files:
            log.warning(
                "rows of runs are in no file and are read", extra={"kind": self.shape.name, "rows": len(missing)}
            )
        self.runs = runs
        for gap in np.split(missing, np.flatnonzero(np.diff(between)) + 1):
            for run in self._rebuilt(gap, read):
                self.runs.append(run)
                if self._is_full():
                    raise Temporary(self.why_full())
        self.runs.sort(key=lambda run: run.last_id)

    def _rebuilt(self, rows: Known, read: Read) -> Iterator[Run]:
        """Yield runs of rows that no file contains; each has as many consecutive rows as fit into memory."""
        start = 0
        while start < len(rows):
            fitting = int(np.searchsorted(np.cumsum(rows[start:, 2]), READ_ROWS, "right"))
            some = rows[start : start + min(max(fitting, 1), READ_RUNS_MAX)]
            yield self._run_of(some, read)
            start += len(some)

    def _run_of(self, some: Known, read: Read) -> Run:
        """Make a file of some rows; if that fails, keep them in memory."""
        rows = some[:, :2]
        if self.folder is not None:
            try:
                return runfiles.write(self.shape, self.folder, rows, read(some))
            except OSError as error:  # folding goes on all the same
                log.error("no file of runs can be made: %s", error, extra={"kind": self.shape.name})
        return Run(rows, runfiles.joined(self.shape, list(read(some))))

    def accept(self, run: Run) -> None:
        """Add a run whose transaction has committed. An empty run is ignored."""
        if len(run):
            self.runs.append(run)

    def has_room(self) -> bool:
        """Whether memory may hold another fold's run; if not, try to make a file of what it holds."""
        if self._is_full():
            self.tidy(*self._tidied)
        return not self._is_full()

    def why_full(self) -> str:
        """Return what to tell a person who has to make room."""
        return f"the disk takes no file of what folds remember ({self.shape.name}): nothing is folded until it does"

    def _is_full(self) -> bool:
        return self.folder is not None and self.in_memory() > BEHIND * MEMORY_ROWS_MAX

    def sort(self) -> None:
        """Sort the runs that are not sorted; if a file of runs is being made, wait for it first."""
        self._take_over(wait=True)
        self.runs = [runfiles.ordered(self.shape, run) for run in self.runs]

    def hand_over(self, other: RunStore) -> None:
        """Move all runs to the end of another store of the same columns; their files are renamed."""
        self.sort()
        other.runs += [self._renamed(run, other) for run in self.runs]
        self.runs = []

    def _renamed(self, run: Run, other: RunStore) -> Run:
        if run.path is None or other.folder is None:
            return run
        path = other.folder / f"{run.path.name.removesuffix(self.shape.ending)}{other.shape.ending}"
        run.path.rename(path)
        return replace(run, path=path)

    # ── Files ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def tidy(self, oldest_id: int, keep: Keep) -> None:
        """Replace runs by the file that was made of them, and start the next file if memory holds much or runs are many.

        Args:
            oldest_id: rows of the database with smaller ids are forgotten.
            keep: flags the rows of a run that are still needed; the others are left out when runs are merged.
        """
        if self._executor is None:
            self._merge_in_memory(keep)
            return
        self._tidied = oldest_id, keep
        self._take_over(wait=self._is_full())
        if self._merging is not None or time.monotonic() < self._again_at:
            return
        self._drop_forgotten(oldest_id)
        start = self._first_of_next()
        if start is not None:
            runs = self.runs[start:]
            self._merging = runs, self._executor.submit(self._merged, runs, oldest_id, keep)

    def _drop_forgotten(self, oldest_id: int) -> None:
        forgotten = [run for run in self.runs if run.last_id < oldest_id]
        self.runs = [run for run in self.runs if run.last_id >= oldest_id]
        for run in forgotten:
            if run.path is not None:
                run.path.unlink(missing_ok=True)

    def in_memory(self) -> int:
        """Return the number of rows in runs that have no file."""
        return sum(len(run) for run in self.runs if run.path is None)

    def _first_of_next(self) -> int | None:
        """Return the index of the first run of the next file; None if no file is needed."""
        sizes = [len(run) for run in self.runs]
        start = merged_from(sizes)
        memory_runs = sum(run.path is None for run in self.runs)
        if start is None and (self.in_memory() > MEMORY_ROWS_MAX or memory_runs > MEMORY_RUNS_MAX):
            start = merged_from(sizes, runs_max=1)
            start = min(len(sizes) - memory_runs, len(sizes) - 1 if start is None else start)
        return start

    def _merged(self, runs: list[Run], oldest_id: int, keep: Keep) -> Run:
        """Merge runs into a new file. Runs in the executor."""
        assert self.folder is not None
        runfiles.require_whole(runs)
        rows = np.concatenate([run.rows for run in runs])
        in_order = [runfiles.ordered(self.shape, run) for run in runs]
        blocks = runfiles.merged(self.shape, in_order, keep)
        return runfiles.write(self.shape, self.folder, rows[rows[:, 0] >= oldest_id], blocks)

    def _take_over(self, *, wait: bool) -> None:
        """Put a finished file of merged runs in their place, and delete their own files.

        If the file is not finished: with `wait`, wait for it; else do nothing.
        """
        if self._merging is None or not (wait or self._merging[1].done()):
            return
        (runs, made), self._merging = self._merging, None
        try:
            file = made.result()
        except OSError as error:  # memory holds them until the disk works again
            log.error("no file of runs can be made: %s", error, extra={"kind": self.shape.name})
            self._again_at = time.monotonic() + PAUSE_S
            return
        first = next(place for place, run in enumerate(self.runs) if run is runs[0])
        self.runs[first : first + len(runs)] = [file]
        for run in runs:
            if run.path is not None:
                run.path.unlink(missing_ok=True)

    def _merge_in_memory(self, keep: Keep) -> None:
        start = merged_from([len(run) for run in self.runs])
        if start is not None:
            runs = [runfiles.ordered(self.shape, run) for run in self.runs[start:]]
            columns = runfiles.joined(self.shape, list(runfiles.merged(self.shape, runs, keep)))
            self.runs[start:] = [Run(np.concatenate([run.rows for run in runs]), columns)]
