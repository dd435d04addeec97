"""Bounds of a UTC day: how much a viewer may cause, and a segment or a creator may earn, before it stops counting.

Sums are kept like what was seen (see `seen`): sorted arrays of 64-bit keys, a mix of day and subject, in memory and,
run by run, in PostgreSQL. What was kept is what is loaded. Knows numbers and days, nothing of accounts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from psycopg import Connection

from ledger.money import Amounts
from ledger.seen import Flags, Keys

Days = NDArray[np.uint16]

DAY_S = 86_400
DAYS_KEPT = 3
RUNS_MAX = 12


@dataclass(frozen=True)
class Run:
    """Keys in ascending order, each with its day and what it came to."""

    keys: Keys
    days: Days
    amounts: Amounts


def keys_of(subjects: NDArray[Any], days: Days) -> Keys:
    """A 64-bit key for each pair of subject (an id, or 16 bytes of a viewer) and day."""
    words = np.ascontiguousarray(subjects).view("<u8").reshape(len(days), subjects.dtype.itemsize // 8)
    with np.errstate(over="ignore"):
        mixed = words[:, 0] * np.uint64(0x9E3779B97F4A7C15) ^ words[:, -1] ^ days.astype(np.uint64) << np.uint64(47)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return np.asarray(mixed ^ (mixed >> np.uint64(31)), dtype=np.uint64)


class Caps:
    """The sums of one kind of subject; `within` asks, `remember` tells."""

    def __init__(self, kind: str, most_pix: int) -> None:
        self.kind, self._most = kind, most_pix
        self._runs: list[Run] = []

    def load(self, connection: Connection[Any]) -> None:
        """Read what earlier folds have kept."""
        rows = connection.execute(
            "SELECT keys, days, amounts FROM ledger.day_runs WHERE kind = %s ORDER BY id", (self.kind,)
        )
        self._runs = [
            Run(np.frombuffer(row[0], "<u8"), np.frombuffer(row[1], "<u2"), np.frombuffer(row[2], "<i8"))
            for row in rows
        ]

    def within(self, keys: Keys, amounts: Amounts) -> Flags:
        """Which of these stay within the bound, taken in their order on top of what the day has come to."""
        if not self._most or not len(keys):
            return np.ones(len(keys), np.bool_)
        order = np.argsort(keys, kind="stable")
        ordered, running = keys[order], np.cumsum(amounts[order])
        first = np.append(True, ordered[1:] != ordered[:-1])
        before = (running - amounts[order])[first][np.cumsum(first) - 1]
        fits = np.empty(len(keys), np.bool_)
        fits[order] = self._sums(ordered) + running - before <= self._most
        return fits

    def remember(self, connection: Connection[Any], keys: Keys, days: Days, amounts: Amounts) -> list[Run]:
        """Keep what was funded, in the caller's transaction; the result becomes the present by `accept`."""
        if not self._most or not len(keys):
            return self._runs
        runs = [*self._runs, _summed(keys, days, amounts)]
        if len(runs) > RUNS_MAX:
            runs = [_merged(runs)]
            connection.execute("DELETE FROM ledger.day_runs WHERE kind = %s", (self.kind,))
        newest = runs[-1]
        connection.execute(
            "INSERT INTO ledger.day_runs (kind, keys, days, amounts) VALUES (%s, %s, %s, %s)",
            (self.kind, newest.keys.astype("<u8").tobytes(), newest.days.astype("<u2").tobytes(),
             newest.amounts.astype("<i8").tobytes()),
        )  # fmt: skip
        return runs

    def accept(self, runs: list[Run]) -> None:
        """The transaction that kept these has committed."""
        self._runs = runs

    def _sums(self, keys: Keys) -> Amounts:
        sums = np.zeros(len(keys), np.int64)
        for run in self._runs:
            place = np.minimum(np.searchsorted(run.keys, keys), len(run.keys) - 1)
            sums += np.where(run.keys[place] == keys, run.amounts[place], 0)
        return sums


def _summed(keys: Keys, days: Days, amounts: Amounts) -> Run:
    unique, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    sums = np.zeros(len(unique), np.int64)
    np.add.at(sums, inverse, amounts)
    return Run(unique, days[first], sums)


def _merged(runs: list[Run]) -> Run:
    """One run, without days that are over for good. Never empty: the newest day stays."""
    keys, days, amounts = (np.concatenate([getattr(run, name) for run in runs]) for name in ("keys", "days", "amounts"))
    young = days.astype(np.int64) > int(days.max()) - DAYS_KEPT
    return _summed(keys[young], days[young], amounts[young])
