"""Pairs of source and creator as folds keep them: one row of `ledger.pair_runs` a fold, and runs of these on disk.

A pair says what one source earned one creator on one UTC day. The source (the column `viewers`) is the first word of a keyed
hash: of an API key, or of the network of viewers without a key (see `fold`). Owns the table `ledger.pair_runs`. Knows
nothing of what counts, of totals or holds.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from psycopg import Connection

from ledger.accrual import runfiles, runstore
from ledger.accrual.caps import Days
from ledger.accrual.groups import Flags, changes
from ledger.accrual.runfiles import Columns, Keys, Run, Shape, rows_of
from ledger.accrual.runstore import Known
from ledger.money import Amounts

NARROW_MAX = 2**31 - 1  # what fits four bytes
ODD = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio, as in Fibonacci hashing: days of one source lie far apart
NAMES = {"viewers": "<u8", "creators": "<i8", "days": "<u2", "gross": "<i8", "net": "<i8"}  # columns of the table


def _by_pair(columns: Columns) -> Columns:
    """Combine the rows of one source, day and creator; sum their gross and net."""
    order = np.lexsort((columns[3], columns[0]))
    columns = tuple(each[order] for each in columns)
    return runfiles.summed(columns, 2, changes(columns[0], columns[3]))


# Columns: the key of a source's day, gross, net, the creator, the UTC day. Pairs that no review has judged lie in files of
# their own, which end in ".fresh".
PAIRS = Shape("pairs", b"pixrpair", ("<i8", "<i8", "<i8", "<u2"), _by_pair)
UNJUDGED = Shape("fresh", b"pixrpair", PAIRS.columns, _by_pair)


@dataclass(frozen=True)
class Pairs:
    """What sources have earned creators; rows are of one source, creator and UTC day each, and may repeat."""

    viewers: Keys  # (rows,) the source: the first word of a keyed hash
    creators: NDArray[np.int64]  # (rows,)
    days: Days  # (rows,) UTC days since 1970
    gross: Amounts  # (rows,) base units of PIX: what appearances paid, or would have but for caps filled by others
    net: Amounts  # (rows,) base units of PIX: what the creator was credited of it


def none() -> Run:
    """Return a run without pairs."""
    return Run(rows_of(), UNJUDGED.empty())


def insert(connection: Connection[Any], pairs: Pairs) -> Run:
    """Write the pairs of a fold as one row, in the order in which they came; return them as a run that is not sorted."""
    mark = secrets.randbits(62)
    row = connection.execute(
        "INSERT INTO ledger.pair_runs (viewers, creators, days, gross, net, mark, newest_day)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s) RETURNING id",
        (*(_narrow(getattr(pairs, name), kind).tobytes() for name, kind in NAMES.items()), mark,
         int(pairs.days.max())),
    ).fetchone()  # fmt: skip
    assert row is not None
    return Run(rows_of((row[0], mark)), columns_of(pairs), is_sorted=False)


def columns_of(pairs: Pairs) -> Columns:
    """Return pairs as the columns of a run (see `PAIRS`), in the order in which they came."""
    return keys_of(pairs.viewers, pairs.days), pairs.gross, pairs.net, pairs.creators, pairs.days


def newer_than(since: int, columns: Columns) -> Flags:
    """Flag the rows whose day comes after the UTC day `since`.

    Args:
        since: in days since 1970.
        columns: the columns of `PAIRS`, each of shape (rows,).

    Returns:
        bool, shape (rows,).
    """
    return np.asarray(columns[4].astype(np.int64) > since)


def keys_of(viewers: Keys, days: Days) -> Keys:
    """Mix source and day into a 64-bit key. Sources are hashes, so the keys are spread evenly.

    Args:
        viewers: uint64, shape (rows,). The sources.
        days: uint16, shape (rows,). UTC days since 1970.

    Returns:
        uint64, shape (rows,).
    """
    with np.errstate(over="ignore"):
        return np.asarray(viewers + days.astype(np.uint64) * ODD, np.uint64)


def _narrow(values: NDArray[Any], kind: str) -> NDArray[Any]:
    """Return values as numbers of the dtype `kind`; int64 becomes int32 if all values fit.

    They nearly always fit, which makes a row of the table a third smaller.
    """
    return values.astype("<i4" if kind == "<i8" and int(values.max()) <= NARROW_MAX else kind)


def _wide(*columns: bytes) -> list[NDArray[Any]]:
    """Decode the columns of one row of the table (`NAMES`); the length of a column tells the width of its numbers."""
    count = len(columns[0]) // 8
    return [np.frombuffer(column, f"{kind[:2]}{len(column) // count}").astype(kind)
            for column, kind in zip(columns, NAMES.values(), strict=True)]  # fmt: skip


def known(connection: Connection[Any]) -> Known:
    """Return id, mark and length of every row of the table, by ascending id."""
    rows = connection.execute("SELECT id, coalesce(mark, id), length(days) / 2 FROM ledger.pair_runs ORDER BY id")
    return np.array(rows.fetchall(), np.int64).reshape(-1, 3)


def newest_day(connection: Connection[Any]) -> int:
    """Return the latest UTC day of any pair, in days since 1970; 0 if the table is empty."""
    row = connection.execute("SELECT coalesce(max(newest_day), 0) FROM ledger.pair_runs").fetchone()
    assert row is not None  # of an aggregate
    return int(row[0])


def read(connection: Connection[Any], today: int, rows: Known) -> Iterator[Columns]:
    """Yield the columns of some rows of the table, merged by pair and day.

    Pairs of days after tomorrow are left out: an older version, which did not check replicas' clocks, wrote them.
    """
    several = connection.execute(
        "SELECT viewers, creators, days, gross, net FROM ledger.pair_runs WHERE id = ANY(%s) ORDER BY id",
        (rows[:, 0].tolist(),),
    )
    parts = []
    for row in several:
        viewers, creators, days, gross, net = _wide(*row)
        columns = keys_of(viewers, days), gross, net, creators, days
        parts.append(tuple(each[days <= today + 1] for each in columns))
    yield runfiles.combined(PAIRS, runfiles.joined(PAIRS, parts))


LARGE = """
    SELECT id, length(days) / 2, length(creators) / (length(days) / 2), length(gross) / (length(days) / 2),
           length(net) / (length(days) / 2), newest_day FROM ledger.pair_runs
    WHERE mark IS NULL AND length(days) / 2 > %s ORDER BY id"""
PIECE = """
    INSERT INTO ledger.pair_runs (viewers, creators, days, gross, net, mark, newest_day)
    SELECT substring(viewers FROM %(at)s * 8 + 1 FOR %(most)s * 8),
           substring(creators FROM %(at)s * %(creators)s + 1 FOR %(most)s * %(creators)s),
           substring(days FROM %(at)s * 2 + 1 FOR %(most)s * 2),
           substring(gross FROM %(at)s * %(gross)s + 1 FOR %(most)s * %(gross)s),
           substring(net FROM %(at)s * %(net)s + 1 FOR %(most)s * %(net)s), %(mark)s, newest_day
    FROM ledger.pair_runs WHERE id = %(id)s"""


def split_large(connection: Connection[Any]) -> None:
    """Split rows that an older version merged, so that each fits into memory when it is read."""
    most = runstore.READ_ROWS
    for number, count, creators, gross, net, _ in connection.execute(LARGE, (most,)).fetchall():
        for at in range(0, count, most):
            values = {"at": at, "most": most, "creators": creators, "gross": gross, "net": net, "id": number}
            connection.execute(PIECE, {**values, "mark": secrets.randbits(62)})
        connection.execute("DELETE FROM ledger.pair_runs WHERE id = %s", (number,))
