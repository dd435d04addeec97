"""A store of runs: what folds remember, row by row in PostgreSQL, and merged in files beside it so that memory stays small.

Each fold keeps its run as a row of a table that never changes and is forgotten when it is too old: what was kept is what is
known. Searched are a few files, which rows are merged into beside the folds (see `runfiles`), and the newest rows in memory:
however many there are, memory holds `MEMORY_ROWS_MAX` of a store, and `BEHIND` times as many while the disk is full or away:
then there is no room for more, until it is well again. Without a folder memory holds all of it. Knows no SQL.
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
from ledger import runfiles
from ledger.runfiles import Columns, Keep, Run, Shape
from ledger.runs import merged_from

log = logging.getLogger(__name__)

MEMORY_ROWS_MAX = 4_000_000  # in runs that are in no file yet, before one is made of them
MEMORY_RUNS_MAX = 8
BEHIND = 4  # times as many in memory as that, and a fold waits for the disk; where that takes none, nothing is folded
READ_ROWS, READ_RUNS_MAX = 4_000_000, 10_000  # at once, of rows of the database that are in no file
PAUSE_S = 60.0  # after a file could not be made

Known = NDArray[np.int64]  # of three columns: id, mark and length of each row of the database, by ascending id
Read = Callable[[Known], Iterator[Columns]]  # what these rows hold, by ascending key


class Store:
    """The runs of one kind; `accept` takes one that is committed, `tidy` keeps them few."""

    def __init__(self, shape: Shape, folder: Path | None = None, executor: Executor | None = None) -> None:
        """`executor`: in which files are made, shared with other stores and its owner's to end; else one of its own."""
        self.shape, self.folder = shape, folder
        self.runs: list[Run] = []
        self._own = ThreadPoolExecutor(1, shape.name) if folder is not None and executor is None else None
        self._executor = executor or self._own
        self._merging: tuple[list[Run], Future[Run]] | None = None
        self._again_at = 0.0  # when a file is made next, after the disk was full or away
        self._tidied: tuple[int, Keep] = 0, runfiles.everything  # what `tidy` was told last

    def close(self) -> None:
        """Wait for a file that is being made, and make no other one."""
        if self._own is not None:
            self._own.shutdown()

    def load(self, known: Known, read: Read) -> None:
        """Know what was kept: from files, as far as they are true of the rows that are known, and else from these.

        Raises:
            Temporary: no file can be made of the rows that are in none, and memory is not to hold so many.
        """
        runs = runfiles.listed(self.shape, self.folder, known[:, :2]) if self.folder is not None else []
        there = [run.rows[:, 0] for run in runs]
        missing = known[~np.isin(known[:, 0], np.concatenate(there))] if there else known
        between = np.searchsorted(np.array([ids[0] for ids in there], np.int64), missing[:, 0])
        if len(missing) and there:
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
        """Runs of these rows, which no file knows and none lies between: as many together as fit in memory."""
        start = 0
        while start < len(rows):
            fitting = int(np.searchsorted(np.cumsum(rows[start:, 2]), READ_ROWS, "right"))
            some = rows[start : start + min(max(fitting, 1), READ_RUNS_MAX)]
            yield self._kept(some, read)
            start += len(some)

    def _kept(self, some: Known, read: Read) -> Run:
        rows = some[:, :2]
        if self.folder is not None:
            try:
                return runfiles.write(self.shape, self.folder, rows, read(some))
            except OSError as error:  # memory holds them: what waits is folded all the same
                log.error("no file of runs can be made: %s", error, extra={"kind": self.shape.name})
        return Run(rows, runfiles.joined(self.shape, list(read(some))))

    def accept(self, run: Run) -> None:
        """The transaction that kept this has committed."""
        if len(run):
            self.runs.append(run)

    def has_room(self) -> bool:
        """Whether memory may hold another fold's run; where not, a file is made of what it holds, as soon as that can be."""
        if self._is_full():
            self.tidy(*self._tidied)
        return not self._is_full()

    def why_full(self) -> str:
        """What to tell a person who has to make room."""
        return f"the disk takes no file of what folds remember ({self.shape.name}): nothing is folded until it does"

    def _is_full(self) -> bool:
        return self.folder is not None and self.in_memory() > BEHIND * MEMORY_ROWS_MAX

    def sort(self) -> None:
        """Bring runs into order that are not; waits for a file that is being made of some."""
        self._take_over(wait=True)
        self.runs = [runfiles.ordered(self.shape, run) for run in self.runs]

    def hand_over(self, other: Store) -> None:
        """Give all runs to another store of the same columns, whose own are older."""
        self.sort()
        other.runs += [self._renamed(run, other) for run in self.runs]
        self.runs = []

    def _renamed(self, run: Run, other: Store) -> Run:
        if run.path is None or other.folder is None:
            return run
        path = other.folder / f"{run.path.name.removesuffix(self.shape.ending)}{other.shape.ending}"
        run.path.rename(path)
        return replace(run, path=path)

    # ── Files ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def tidy(self, oldest_id: int, keep: Keep) -> None:
        """Take over the file that was made, and have the next one made where there is much in memory, or many runs.

        Rows of the database before `oldest_id` are forgotten; of the others what `keep` does not name is of no use.
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
        gone = [run for run in self.runs if run.last_id < oldest_id]
        self.runs = [run for run in self.runs if run.last_id >= oldest_id]
        for run in gone:
            if run.path is not None:
                run.path.unlink(missing_ok=True)

    def in_memory(self) -> int:
        """Rows of runs that are in no file."""
        return sum(len(run) for run in self.runs if run.path is None)

    def _first_of_next(self) -> int | None:
        """From which run on the next file is made; None where there is no need."""
        sizes = [len(run) for run in self.runs]
        start = merged_from(sizes)
        memory = sum(run.path is None for run in self.runs)
        if start is None and (self.in_memory() > MEMORY_ROWS_MAX or memory > MEMORY_RUNS_MAX):
            start = merged_from(sizes, runs_max=1)
            start = min(len(sizes) - memory, len(sizes) - 1 if start is None else start)
        return start

    def _merged(self, runs: list[Run], oldest_id: int, keep: Keep) -> Run:
        assert self.folder is not None
        runfiles.require_whole(runs)
        rows = np.concatenate([run.rows for run in runs])
        in_order = [runfiles.ordered(self.shape, run) for run in runs]
        blocks = runfiles.merged(self.shape, in_order, keep)
        return runfiles.write(self.shape, self.folder, rows[rows[:, 0] >= oldest_id], blocks)

    def _take_over(self, *, wait: bool) -> None:
        if self._merging is None or not (wait or self._merging[1].done()):
            return
        (runs, made), self._merging = self._merging, None
        try:
            file = made.result()
        except OSError as error:  # memory holds them until the disk is well again
            log.error("no file of runs can be made: %s", error, extra={"kind": self.shape.name})
            self._again_at = time.monotonic() + PAUSE_S
            return
        at = next(place for place, run in enumerate(self.runs) if run is runs[0])
        self.runs[at : at + len(runs)] = [file]
        for run in runs:
            if run.path is not None:
                run.path.unlink(missing_ok=True)

    def _merge_in_memory(self, keep: Keep) -> None:
        start = merged_from([len(run) for run in self.runs])
        if start is not None:
            runs = [runfiles.ordered(self.shape, run) for run in self.runs[start:]]
            columns = runfiles.joined(self.shape, list(runfiles.merged(self.shape, runs, keep)))
            self.runs[start:] = [Run(np.concatenate([run.rows for run in runs]), columns)]
