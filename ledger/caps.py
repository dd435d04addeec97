"""Bounds of a UTC day: how much a viewer, or the anonymous viewers of a network, may cause, and a segment or a creator
may earn, before it stops counting.

Sums are kept like what was seen: 64-bit keys, a mix of day and subject, each with what it came to, as a store of runs (see
`runstore`). Knows numbers and days, nothing of accounts.
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

from ledger import runfiles, runstore
from ledger.groups import Flags, Groups, Places, changes, order_of
from ledger.money import Amounts
from ledger.runfiles import Columns, Keys, Run, Shape, rows_of
from ledger.runstore import Known, Store

Days = NDArray[np.uint16]

DAY_S = 86_400
DAYS_KEPT = 3
FORGOTTEN_MAX = 1_000  # rows of a kind a fold
LAST_ID = 2**63 - 1
AHEAD_DAYS = 1  # of the database's: a day that has not come, but for clocks that are a little ahead


@dataclass(frozen=True)
class Tally:
    """One fold's rows by subject and day: `parts` are rows that share both, `groups` the parts of each key."""

    parts: Groups
    groups: Groups
    keys: Keys
    days: Days

    @classmethod
    def of(cls, parts: Groups, subjects: NDArray[Any], days: Days) -> Tally:
        """`subjects` and `days` of each part."""
        keys = keys_of(subjects, days)
        order = order_of(keys)
        groups = Groups.where(order, changes(keys[order]))
        return cls(parts, groups, keys[groups.firsts], days[groups.firsts])

    def sums(self, amounts: Amounts) -> Amounts:
        """What each key's rows come to."""
        return self.groups.sums(self.parts.sums(amounts))

    def rows(self, chosen: Places) -> tuple[Places, Places]:
        """The rows of the chosen keys, key by key in the order they came, and the place in `chosen` of each one's key."""
        parts, key_of_part = self.groups.rows(chosen)
        rows, part_of_row = self.parts.rows(parts)
        keys = key_of_part[part_of_row]
        if bool(((rows[1:] > rows[:-1]) | (keys[1:] != keys[:-1])).all()):
            return rows, keys  # each key's rows are of one part, or of parts that follow each other
        order = np.lexsort((rows, keys))
        return rows[order], keys[order]


def keys_of(subjects: NDArray[Any], days: Days) -> Keys:
    """A 64-bit key for each pair of subject (an id, or the two words of a viewer) and day."""
    if not len(days):
        return np.zeros(0, np.uint64)
    words = np.ascontiguousarray(subjects).view("<u8").reshape(len(days), -1)
    with np.errstate(over="ignore"):
        mixed = words[:, 0] * np.uint64(0x9E3779B97F4A7C15) ^ words[:, -1] ^ days.astype(np.uint64) << np.uint64(47)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return np.asarray(mixed ^ (mixed >> np.uint64(31)), dtype=np.uint64)


def shape_of(kind: str) -> Shape:
    """What each key has come to, and its day."""
    return Shape(
        kind, b"pixrday1", ("<i8", "<u2"), lambda columns: runfiles.summed(columns, 1, runfiles.by_key(columns))
    )


class Caps:
    """The sums of one kind of subject; `excess` asks, `remember` tells, `accept` says that it is committed."""

    def __init__(self, kind: str, most_pix: int, folder: Path | None = None, executor: Executor | None = None) -> None:
        """`folder`, `executor`: see `Store`."""
        self.kind, self._most = kind, most_pix
        self.store = Store(shape_of(kind), folder, executor)
        self._oldest_id, self._since = 0, 0

    def load(self, connection: Connection[Any]) -> None:
        """Know what earlier folds have kept."""
        rows = connection.execute(
            "SELECT id, coalesce(mark, id), length(days) / 2 FROM ledger.day_runs WHERE kind = %s ORDER BY id",
            (self.kind,),
        ).fetchall()
        self.store.load(np.array(rows, np.int64).reshape(-1, 3), partial(_read, connection, self.store.shape))

    def excess(self, tally: Tally, amounts: Amounts, least: Amounts | int = 0) -> Places:
        """Rows beyond the bound, taken in their order on top of what the day has come to; a row of nothing may be one.

        `least`: what the bound of each key is at least.
        """
        if not self._most:
            return np.zeros(0, np.int64)
        most = np.broadcast_to(np.maximum(least, self._most), len(tally.keys))
        before = self._sums(tally.keys)
        over = np.flatnonzero(before + tally.sums(amounts) > most)
        rows, key = tally.rows(over)
        running = np.cumsum(amounts[rows])
        starts = changes(key)
        earlier = (running - amounts[rows])[starts][np.cumsum(starts) - 1]
        beyond: Places = rows[before[over][key] + running - earlier > most[over][key]]
        return beyond

    def remember(self, connection: Connection[Any], tally: Tally, amounts: Amounts, since: int) -> Run:
        """Keep what was funded, in the caller's transaction; the result becomes part of the present by `accept`.

        `since` is a UTC day: those that are over for good for what was recorded on it are forgotten (see `waiting.since_s`).
        """
        self._since = since - DAYS_KEPT
        self._oldest_id = max(self._oldest_id, forget(connection, "day_runs", self._since, kind=self.kind))
        come_to = tally.sums(amounts)
        some = come_to > 0
        run = Run(rows_of(), (tally.keys[some], come_to[some], tally.days[some]))
        return self._insert(connection, run) if self._most and len(run) else Run(rows_of(), self.store.shape.empty())

    def accept(self, kept: Run) -> None:
        """The transaction that kept this has committed."""
        self.store.accept(kept)
        self.store.tidy(self._oldest_id, partial(_young, self._since))

    def _sums(self, keys: Keys) -> Amounts:
        return sums(self.store.runs, keys, 1)

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
    """What a column comes to for each of these keys, which ascend, in all runs, each of which has a key once."""
    total = np.zeros(len(keys), np.int64)
    for run in runs:
        if len(run):
            place = np.minimum(np.searchsorted(run.keys, keys), len(run) - 1)
            found = np.flatnonzero(run.keys[place] == keys)  # of the others nothing more is read from disk
            total[found] += run.columns[column][place[found]]
    return total


def forget(
    connection: Connection[Any], table: str, since: int, *, kind: str | None = None, until: int = LAST_ID
) -> int:
    """Delete a table's oldest rows as far as all are of `since` or before; returns the id from which on rows stay.

    `since`: a UTC day, in days since 1970. Of one `kind`, where the table has several; no row after `until`. None between two
    that stay is deleted. One of a day that has not come, which a clock has left that ran ahead, may also hold what is of
    today: it stays as long as the next one, and keeps none that comes after it.
    """
    of = "true" if kind is None else "kind = %(kind)s"
    given = {"kind": kind, "since": since, "until": until, "last": LAST_ID, "ahead": AHEAD_DAYS}
    row = connection.execute(
        f"SELECT coalesce((SELECT id + 1 FROM ledger.{table} WHERE {of} AND newest_day <= %(since)s"
        f"   AND id < coalesce((SELECT id FROM ledger.{table} WHERE {of} AND (id > %(until)s OR newest_day > %(since)s"
        "                         AND newest_day <= floor(extract(epoch FROM now()) / 86400) + %(ahead)s)"
        "                      ORDER BY id LIMIT 1), %(last)s)"
        "   ORDER BY id DESC LIMIT 1), 0)",
        given,
    ).fetchone()
    assert row is not None
    connection.execute(
        f"DELETE FROM ledger.{table} WHERE id IN"
        f" (SELECT id FROM ledger.{table} WHERE {of} AND id < %(oldest)s ORDER BY id LIMIT %(most)s)",
        {**given, "oldest": row[0], "most": FORGOTTEN_MAX},
    )
    return int(row[0])


def _read(connection: Connection[Any], shape: Shape, rows: Known) -> Iterator[Columns]:
    """What rows hold, merged; a large one piece by piece: an older version has merged them until they were."""
    if len(rows) > 1:
        found = connection.execute(
            "SELECT keys, amounts, days FROM ledger.day_runs WHERE id = ANY(%s) ORDER BY id", (rows[:, 0].tolist(),)
        )
        yield from runfiles.merged(shape, [Run(rows_of(), _columns(shape, row)) for row in found])
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


def _young(since: int, columns: Columns) -> Flags:
    return np.asarray(columns[2].astype(np.int64) > since)
