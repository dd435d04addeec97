"""Pairs of viewer and creator as folds keep them: a row of `ledger.pair_runs` a fold, and runs of them on disk.

A viewer is a word of a keyed hash (see `fold`). Knows nothing of what counts, of totals or holds.
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

NARROW_MAX = 2**31 - 1
ODD = np.uint64(0x9E3779B97F4A7C15)
NAMES = {"viewers": "<u8", "creators": "<i8", "days": "<u2", "gross": "<i8", "net": "<i8"}


def _by_pair(columns: Columns) -> Columns:
    """Each viewer's day and creator once."""
    order = np.lexsort((columns[3], columns[0]))
    columns = tuple(each[order] for each in columns)
    return runfiles.summed(columns, 2, changes(columns[0], columns[3]))


# Of each viewer's day and creator: what the appearances were worth, what the creator has got of it, the creator and the day.
# Those that no review has seen stand apart.
PAIRS = Shape("pairs", b"pixrpair", ("<i8", "<i8", "<i8", "<u2"), _by_pair)
FRESH = Shape("fresh", b"pixrpair", PAIRS.columns, _by_pair)


@dataclass(frozen=True)
class Pairs:
    """What viewers have earned creators, by viewer, creator and day.

    `gross` is what the appearances paid, or would have but for bounds that other viewers had filled; `net` is what the creator
    has got of it.
    """

    viewers: Keys
    creators: NDArray[np.int64]
    days: Days
    gross: Amounts
    net: Amounts


def none() -> Run:
    return Run(rows_of(), FRESH.empty())


def insert(connection: Connection[Any], pairs: Pairs) -> Run:
    """Keep the pairs of a fold as they came."""
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
    """Pairs as a run has them, in the order in which they came."""
    return keys_of(pairs.viewers, pairs.days), pairs.gross, pairs.net, pairs.creators, pairs.days


def young(since: int, columns: Columns) -> Flags:
    """Those of days after `since`."""
    return np.asarray(columns[4].astype(np.int64) > since)


def keys_of(viewers: Keys, days: Days) -> Keys:
    """A 64-bit key for each viewer's day: hashes of viewers stay as evenly spread as they are."""
    with np.errstate(over="ignore"):
        return np.asarray(viewers + days.astype(np.uint64) * ODD, np.uint64)


def _narrow(values: NDArray[Any], kind: str) -> NDArray[Any]:
    """Signed numbers in four bytes where all fit, which is nearly always and writes a third less; else in eight."""
    return values.astype("<i4" if kind == "<i8" and int(values.max()) <= NARROW_MAX else kind)


def _wide(*columns: bytes) -> list[NDArray[Any]]:
    """Columns as they were written, by `NAMES`; how wide a column's numbers are follows from its length."""
    count = len(columns[0]) // 8
    return [np.frombuffer(column, f"{kind[:2]}{len(column) // count}").astype(kind)
            for column, kind in zip(columns, NAMES.values(), strict=True)]  # fmt: skip


def known(connection: Connection[Any]) -> Known:
    """The rows that there are."""
    found = connection.execute("SELECT id, coalesce(mark, id), length(days) / 2 FROM ledger.pair_runs ORDER BY id")
    return np.array(found.fetchall(), np.int64).reshape(-1, 3)


def newest_day(connection: Connection[Any]) -> int:
    """The newest UTC day that a row is of."""
    row = connection.execute("SELECT coalesce(max(newest_day), 0) FROM ledger.pair_runs").fetchone()
    assert row is not None  # of an aggregate
    return int(row[0])


def read(connection: Connection[Any], today: int, rows: Known) -> Iterator[Columns]:
    """What rows hold, merged; without days that are ahead, which only an older version believed."""
    found = connection.execute(
        "SELECT viewers, creators, days, gross, net FROM ledger.pair_runs WHERE id = ANY(%s) ORDER BY id",
        (rows[:, 0].tolist(),),
    )
    parts = []
    for row in found:
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
    """Rows that an older version has merged until they were large become many: memory holds what one of them does."""
    most = runstore.READ_ROWS
    for number, count, creators, gross, net, _ in connection.execute(LARGE, (most,)).fetchall():
        for at in range(0, count, most):
            given = {"at": at, "most": most, "creators": creators, "gross": gross, "net": net, "id": number}
            connection.execute(PIECE, {**given, "mark": secrets.randbits(62)})
        connection.execute("DELETE FROM ledger.pair_runs WHERE id = %s", (number,))
