"""Bounds of a UTC day: how much a viewer, or the anonymous viewers of a network, may cause, and a segment or a creator
may earn, before it stops counting.

Sums are kept like what was seen (see `seen`): sorted arrays of 64-bit keys, a mix of day and subject, in memory and,
run by run, in PostgreSQL. What was kept is what is loaded. Knows numbers and days, nothing of accounts.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from psycopg import Connection

from ledger.groups import Groups, Places, changes, order_of
from ledger.money import Amounts
from ledger.runs import merged_from
from ledger.seen import Keys

Days = NDArray[np.uint16]

DAY_S = 86_400
DAYS_KEPT = 3


@dataclass(frozen=True)
class Run:
    """Keys in ascending order, each with its day and what it came to."""

    id: int
    keys: Keys
    days: Days
    amounts: Amounts


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


class Caps:
    """The sums of one kind of subject; `excess` asks, `remember` tells."""

    def __init__(self, kind: str, most_pix: int) -> None:
        self.kind, self._most = kind, most_pix
        self._runs: list[Run] = []

    def load(self, connection: Connection[Any]) -> None:
        """Read what earlier folds have kept."""
        rows = connection.execute(
            "SELECT id, keys, days, amounts FROM ledger.day_runs WHERE kind = %s ORDER BY id", (self.kind,)
        )
        self._runs = [
            Run(row[0], np.frombuffer(row[1], "<u8"), np.frombuffer(row[2], "<u2"), np.frombuffer(row[3], "<i8"))
            for row in rows
        ]

    def excess(self, tally: Tally, amounts: Amounts) -> Places:
        """Rows beyond the bound, taken in their order on top of what the day has come to; a row of nothing may be one."""
        if not self._most:
            return np.zeros(0, np.int64)
        before = self._sums(tally.keys)
        over = np.flatnonzero(before + tally.sums(amounts) > self._most)
        rows, key = tally.rows(over)
        running = np.cumsum(amounts[rows])
        starts = changes(key)
        earlier = (running - amounts[rows])[starts][np.cumsum(starts) - 1]
        beyond: Places = rows[before[over][key] + running - earlier > self._most]
        return beyond

    def remember(self, connection: Connection[Any], tally: Tally, amounts: Amounts, since: int) -> list[Run]:
        """Keep what was funded, in the caller's transaction; the result becomes the present by `accept`.

        `since` is a UTC day: those that are over for good for what was recorded on it are forgotten (see `waiting.since_s`).
        """
        sums = tally.sums(amounts)
        some = sums > 0
        if not self._most or not some.any():
            return self._runs
        runs = [*self._runs, Run(0, tally.keys[some], tally.days[some], sums[some])]
        start = merged_from([len(each.keys) for each in runs])
        if start is not None:
            runs[start:] = [_merged(runs[start:], since)]
            connection.execute(
                "DELETE FROM ledger.day_runs WHERE id = ANY(%s)", ([each.id for each in self._runs[start:]],)
            )
        return [*runs[:-1], self._insert(connection, runs[-1])] if len(runs[-1].keys) else runs[:-1]

    def accept(self, runs: list[Run]) -> None:
        """The transaction that kept these has committed."""
        self._runs = runs

    def _sums(self, keys: Keys) -> Amounts:
        sums = np.zeros(len(keys), np.int64)
        for run in self._runs:
            place = np.minimum(np.searchsorted(run.keys, keys), len(run.keys) - 1)
            sums += np.where(run.keys[place] == keys, run.amounts[place], 0)
        return sums

    def _insert(self, connection: Connection[Any], run: Run) -> Run:
        row = connection.execute(
            "INSERT INTO ledger.day_runs (kind, keys, days, amounts) VALUES (%s, %s, %s, %s) RETURNING id",
            (self.kind, run.keys.astype("<u8").tobytes(), run.days.astype("<u2").tobytes(),
             run.amounts.astype("<i8").tobytes()),
        ).fetchone()  # fmt: skip
        assert row is not None
        return replace(run, id=row[0])


def _merged(runs: list[Run], since: int) -> Run:
    """One run, without days that are over for good; it may be empty."""
    keys, days, amounts = (np.concatenate([getattr(run, name) for run in runs]) for name in ("keys", "days", "amounts"))
    young = days.astype(np.int64) > since - DAYS_KEPT
    keys, days, amounts = keys[young], days[young], amounts[young]
    order = order_of(keys)  # quick, because runs are in order
    groups = Groups.where(order, changes(keys[order]))
    return Run(0, keys[groups.firsts], days[groups.firsts], groups.sums(amounts))
