"""Appearances: what was shown, to whom (as keyed hashes), and what it earns; and how they enter the database once.

A batch is inserted by compare-and-swap on the number of searches that the incarnation has recorded, so nothing is
recorded twice, whoever carries it: the replica (see `recorder`), or an heir that adopts its spool. Knows no query,
address or name.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import socket
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import psycopg
from psycopg import Connection
from psycopg.pq import TransactionStatus

from cluster import runtime
from cluster.errors import Rejected
from cluster.settings import Settings
from ledger.appearances import spool

log = logging.getLogger(__name__)

DAY_S = 86_400
ROTATION_DAYS = 30  # whole UTC days, so that a day's bounds see one hash
# The period (from 2 April 2027) since which viewers' hashes do not all change at one instant. Replicas of an earlier release
# name viewers as before: until then all must have been replaced.
ONE_BY_ONE_FROM = 697
ADOPTED_BATCH_SEARCHES = 1000
# An incarnation began so many seconds before the database hears of it first, which may be long: it was away. The answer is
# how many searches it has recorded.
BEGUN = "SELECT ledger.begin_incarnation(%s, %s, %s, %s)"
HELD = "SELECT ledger.hold_incarnation(%s)"
RECORDED = """
    SELECT FROM ledger.record_batch(%(incarnation)s, %(seq)s, %(searches)s::integer, %(appearances)s::integer,
        %(format)s::smallint, %(payload)s, %(sha256)s, %(adopted)s) AS is_recorded WHERE is_recorded"""
CLOSED = "SELECT ledger.close_incarnation(%s, %s)"


@dataclass(frozen=True)
class Appearance:
    """One moment on the first page of a committed search."""

    viewer_hmac: bytes
    segment_id: int
    creator_id: int
    best_frame_ms: int
    relevance_ppm: int
    amount_pix: int

    def __post_init__(self) -> None:
        if len(self.viewer_hmac) != 16:
            raise ValueError(f"viewer_hmac has {len(self.viewer_hmac)} bytes, expected 16")
        if not 0 <= self.relevance_ppm <= 1_000_000:
            raise ValueError(f"relevance_ppm is {self.relevance_ppm}, expected 0 to 1,000,000")
        if not 0 <= self.amount_pix < 2**31:
            raise ValueError(f"amount_pix is {self.amount_pix}, expected 0 to 2^31 - 1")


class Hashes:
    """Keyed hashes that stand for viewers, their networks and keys; those of people change every 30 days.

    Across a change a viewer's repeats are not recognised. So each viewer has a day of the 30 for it, or all of them could
    earn once more for everything on the same day.
    """

    def __init__(self, settings: Settings) -> None:
        self._secret = runtime.secret(settings, "appearances").encode()

    def viewer(self, kind: str, identity: str, at_s: float | None = None) -> bytes:
        """Sixteen bytes for a viewer; `kind` is "key", "cookie" or "address"."""
        offset = int.from_bytes(self._hash("rotation", kind, identity)[:4], "little") % ROTATION_DAYS
        return self._hash("viewer", _period(at_s, offset), kind, identity)

    def origin(self, prefix: str, at_s: float | None = None) -> bytes:
        """Sixteen bytes for the address prefix that an anonymous viewer comes from, never `NO_ORIGIN`."""
        return self._hash("origin", _period(at_s), prefix)

    def key(self, principal: str, idempotency_key: str) -> bytes:
        return self._hash("idempotency", principal, idempotency_key)

    def request(self, text: str) -> bytes:
        return self._hash("request", text)[:8]

    def _hash(self, *parts: str) -> bytes:
        return hmac.digest(self._secret, "\0".join(parts).encode(), "sha256")[:16]


def _period(at_s: float | None, offset_days: int = 0) -> str:
    """The 30 days that an instant is in, as a name; they begin so many days later for one who has an offset."""
    day = int((time.time() if at_s is None else at_s) // DAY_S)
    together = min(day // ROTATION_DAYS, ONE_BY_ONE_FROM - 1)
    return str(max(together, (day - offset_days) // ROTATION_DAYS))


def search_record(
    appearances: Sequence[Appearance], key: bytes, request: bytes, at_ms: int, origin: bytes = spool.NO_ORIGIN
) -> bytes:
    """One search as it stands in the spool."""
    head = np.zeros(1, spool.SEARCH)
    viewer = appearances[0].viewer_hmac if appearances else spool.NO_KEY
    head[0] = (np.void(viewer), np.void(key), np.void(request), np.void(origin), at_ms, len(appearances))
    rows = [(a.segment_id, a.creator_id, a.best_frame_ms, a.relevance_ppm, a.amount_pix) for a in appearances]
    return head.tobytes() + np.array(rows, spool.SHOWN).tobytes()


def adopt(connection: Connection[Any], folder: Path) -> int:
    """Record what dead replicas of this machine had in their spools; returns how many searches that were.

    A spool is removed only when what it held is committed: the connection must not be in a transaction. One spool is
    locked at a time. One that cannot be read stays where it is and is logged, so that the others are adopted; of one
    that is damaged what comes before the damage is recorded, and it is set aside.

    Raises:
        psycopg.OperationalError: the database is away, or one of them took too long; the others have been adopted.
    """
    assert connection.info.transaction_status == TransactionStatus.IDLE, "a spool would be removed before the commit"
    adopted, late = 0, None
    with closing(spool.orphans(folder)) as orphans:
        for orphan in orphans:
            try:
                adopted += _adopt_one(connection, orphan)
                if orphan.is_damaged:
                    log.error("a spool is damaged and set aside", extra={"spool": orphan.set_aside().name})
                else:
                    orphan.remove()
            except psycopg.OperationalError as error:
                if connection.closed:
                    raise
                late = late or error
            except (ValueError, OSError, Rejected, psycopg.DatabaseError) as error:
                log.error("a spool cannot be adopted and stays: %s", error, extra={"spool": orphan.path.name})
    if late is not None:
        raise late
    return adopted


def _adopt_one(connection: Connection[Any], orphan: spool.Orphan) -> int:
    """In one transaction that holds the incarnation: what the dead have sent and the database still writes is waited for."""
    records, incarnation = orphan.records(), orphan.incarnation
    with connection.transaction():
        age_s = orphan.age_s(records, time.time())
        connection.execute(BEGUN, (incarnation, orphan.path.name, socket.gethostname(), age_s))
        row = connection.execute(HELD, (incarnation,)).fetchone()
        assert row is not None
        first = at = int(row[0])
        while at < len(records):
            batch = spool.pack(records[at : at + ADOPTED_BATCH_SEARCHES], orphan.format)
            spool.unpack(batch.payload, batch.format)  # what the fold could not read must not reach it
            done = connection.execute(RECORDED, parameters(incarnation, at, batch, adopted=True))
            assert done.rowcount == 1, "an incarnation that we hold was recorded for by another"
            at += batch.searches
        connection.execute(CLOSED, (incarnation, None))
    if at > first:
        log.info("adopted the spool of a dead replica", extra={"searches": at - first})
    return at - first


def parameters(
    incarnation: UUID, seq: int, batch: spool.AppearanceBatch, *, adopted: bool = False
) -> dict[str, object]:
    """Of `RECORDED`, for a batch whose first search is number `seq` of its incarnation.

    `adopted`: an heir records it, or its replica long after it was made, so that it may be as old as the incarnation.
    """
    return {
        "incarnation": incarnation,
        "seq": seq,
        "searches": batch.searches,
        "appearances": batch.appearances,
        "format": batch.format,
        "payload": batch.payload,
        "sha256": hashlib.sha256(batch.payload).digest(),
        "adopted": adopted,
    }
