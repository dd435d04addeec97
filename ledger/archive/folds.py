"""Folds in the archive: appearance batches with the outcome of each appearance, from which a fold's money follows.

A part holds whole folds of one UTC day: a line for each fold, then one for each batch that it took. Before a part is written
the money of every fold is computed again and compared with its entry. Damaged batches, and batches that no fold has taken,
stay in the tables.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
from psycopg import Connection

from cluster.errors import Rejected
from ledger.accrual.fold import Outcome
from ledger.appearances import spool
from ledger.archive import parts
from ledger.archive.journal import UNPROVEN
from ledger.archive.parts import FOLDS
from ledger.archive.shelf import Row, Shelf, bytes_of
from ledger.journal import book

Conn = Connection[Any]

PART_BYTES_MAX = 32 << 20  # estimated; the fold that reaches it is still taken whole
FOLDS_MAX = 10_000  # of a part
FORGOTTEN_MAX = 200  # folds that one call of `forget` deletes
BATCH_BYTES, APPEARANCE_BYTES = 8_192, spool.SHOWN.itemsize  # estimates of the bytes of a batch and an appearance
FETCHED_ROWS = 50

# The next folds of one day, as many as fit a part.
DUE = """
    SELECT min(id), max(id) FROM (
        SELECT id, sum(bytes) OVER (ORDER BY id) - bytes AS before FROM (
            SELECT id, batches::bigint * %(batch)s + appearances::bigint * %(appearance)s AS bytes FROM ledger.folds
            WHERE id > %(last)s AND id < coalesce(
                (SELECT id FROM ledger.folds WHERE id > %(last)s AND folded_at >= %(until)s ORDER BY id LIMIT 1),
                9223372036854775807)
            ORDER BY id LIMIT %(folds)s) f) counted
    WHERE before < %(most)s"""
ROWS = """
    SELECT f.id, f.entry_id, f.batches, f.appearances, f.funded, f.unfunded, f.amount_pix, f.folded_at,
           coalesce(-(SELECT sum(p.amount) FROM ledger.postings p JOIN ledger.accounts a ON a.id = p.account_id
                      WHERE p.entry_id = f.entry_id AND a.kind = 'reward_pool'), 0)::bigint
    FROM ledger.folds f WHERE f.id BETWEEN %s AND %s ORDER BY f.id"""
BATCHES = """
    SELECT o.fold_id, b.incarnation, b.seq, b.searches, b.appearances, b.format, b.payload, b.sha256, b.recorded_at, b.adopted,
           o.outcome
    FROM ledger.outcomes o JOIN ledger.appearance_batches b USING (incarnation, seq)
    WHERE o.fold_id = %s ORDER BY b.incarnation, b.seq"""


def due(connection: Conn, before: datetime) -> tuple[int, int] | None:
    """Return the first and last fold of the next part, all folded before `before`; None if no fold is due."""
    last = parts.last(connection, FOLDS)
    row = connection.execute(  # the next fold alone: folds that are too young cost nothing
        "SELECT least(%(before)s, (date_trunc('day', folded_at AT TIME ZONE 'utc') + interval '1 day') AT TIME ZONE 'utc'),"
        " folded_at < %(before)s FROM ledger.folds WHERE id > %(last)s ORDER BY id LIMIT 1",
        {"last": last, "before": before},
    ).fetchone()
    if row is None or not row[1]:
        return None
    numbers = connection.execute(
        DUE,
        {"last": last, "until": row[0], "folds": FOLDS_MAX, "most": PART_BYTES_MAX, "batch": BATCH_BYTES,
         "appearance": APPEARANCE_BYTES},
    ).fetchone()  # fmt: skip
    return (int(numbers[0]), int(numbers[1])) if numbers is not None and numbers[0] is not None else None


def archive(connection: Conn, shelf: Shelf, numbers: tuple[int, int]) -> None:
    """Write the folds from the first to the last of `numbers`, all of them due, as one part of the archive. Commits.

    Raises:
        Rejected: a fold's money is not what its appearances earn; no part is written until a person has explained it.
    """
    rows = connection.execute(ROWS, numbers).fetchall()
    with shelf.draft(FOLDS) as draft:
        for number, entry_id, batches, appearances, funded, unfunded, amount_pix, folded_at, booked in rows:
            draft.add({"fold": number, "entry_id": entry_id, "batches": batches, "appearances": appearances,
                       "funded": funded, "unfunded": unfunded, "amount_pix": amount_pix,
                       "folded_at": book.micros(folded_at)})  # fmt: skip
            earned = 0
            for batch in _batches(connection, number):
                draft.add(batch)
                earned += earned_by(batch)
            if not earned == amount_pix == booked:
                said = f"fold {number} booked {booked}, says {amount_pix}, its appearances earn {earned}"
                raise Rejected(said, code=UNPROVEN)
        connection.commit()
        day = rows[0][7].astimezone(UTC).date()
        written = shelf.keep(draft, day, *numbers)
    parts.add(connection, FOLDS, numbers, day, written, max(row[7] for row in rows))
    book.commit(connection)


def forget(connection: Conn, final: int) -> bool:
    """Delete the next archived folds, up to fold `final`, and commit after each; return whether any was deleted."""
    for number in range(FORGOTTEN_MAX):
        with book.refusals():
            row = connection.execute("SELECT ledger.forget_fold(%s)", (final,)).fetchone()
        book.commit(connection)
        if row is None or row[0] is None:
            return number > 0
    return True


def earned_by(batch: Row) -> int:
    """Return what the funded appearances of a batch earn in all, in base units of PIX.

    Raises:
        Rejected: the batch is damaged.
    """
    payload, outcome = _bytes(batch["payload"]), _bytes(batch["outcome"])
    if hashlib.sha256(payload).digest() != _bytes(batch["sha256"]):
        raise Rejected(f"batch {batch['incarnation']} {batch['seq']} is not what was recorded", code=UNPROVEN)
    _, shown = spool.unpack(payload, batch["format"])
    if not len(shown) == len(outcome) == batch["appearances"]:
        raise Rejected(f"batch {batch['incarnation']} {batch['seq']} has another number of appearances", code=UNPROVEN)
    funded = np.frombuffer(outcome, np.uint8) == Outcome.FUNDED
    return int(shown["amount_pix"][funded].astype(np.int64).sum())


def archived(connection: Conn, shelf: Shelf) -> Iterator[tuple[Row, Sequence[Row]]]:
    """Yield every archived fold in order, with the batches that it took.

    Raises:
        Rejected: a part is missing or damaged.
    """
    for part in parts.listed(connection, FOLDS):
        fold: Row | None = None
        batches: list[Row] = []
        for row in shelf.rows(part.written):
            if "fold" not in row:
                batches.append(row)
                continue
            if fold is not None:
                yield fold, batches
            fold, batches = row, []
        if fold is not None:
            yield fold, batches


def _batches(connection: Conn, fold: int) -> Iterator[Row]:
    with connection.cursor(name="batches", binary=True) as cursor:
        cursor.itersize = FETCHED_ROWS
        for row in cursor.execute(BATCHES, (fold,)):
            number, incarnation, seq, searches, appearances, form, payload, sha256, recorded_at, adopted, outcome = row
            yield {"of": number, "incarnation": str(incarnation), "seq": seq, "searches": searches,
                   "appearances": appearances, "format": form, "payload": bytes(payload), "sha256": bytes(sha256),
                   "recorded_at": book.micros(recorded_at), "adopted": adopted, "outcome": bytes(outcome)}  # fmt: skip


def _bytes(value: bytes | str) -> bytes:
    return bytes_of(value) if isinstance(value, str) else value
