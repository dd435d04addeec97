"""Appearances: what was shown to which viewer (a keyed hash) and what it earns; and how batches of them enter the database.

A batch is inserted by compare-and-swap on the number of searches that its incarnation has recorded. So no search is recorded
twice, no matter who carries it: the replica itself (see `recorder`), or an *heir*, another process of the same machine that
adopts the spool of a dead replica. Knows no query, address or name.
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
ROTATION_DAYS = 30  # whole UTC days, so that a viewer has one hash within a day and its caps
# The period of 30 days (it begins on 2 April 2027) from which on viewers' hashes change on days of their own. Replicas of
# earlier releases change all at once: they must be replaced before that day.
ONE_BY_ONE_FROM = 697
ADOPTED_BATCH_SEARCHES = 1000
# Tell the database of an incarnation, its spool, its machine, and how many seconds ago it began; returns how many of its
# searches are recorded. The age matters where the database was away in between.
BEGUN = "SELECT ledger.begin_incarnation(%s, %s, %s, %s)"
HELD = "SELECT ledger.hold_incarnation(%s)"
RECORDED = """
    SELECT FROM ledger.record_batch(%(incarnation)s, %(seq)s, %(searches)s::integer, %(appearances)s::integer,
        %(format)s::smallint, %(payload)s, %(sha256)s, %(adopted)s) AS is_recorded WHERE is_recorded"""
CLOSED = "SELECT ledger.close_incarnation(%s, %s)"


@dataclass(frozen=True)
class Appearance:
    """One moment on the first page of a committed search."""

    viewer_hmac: bytes  # keyed hash of the viewer, 16 bytes
    segment_id: int
    creator_id: int
    best_frame_ms: int
    relevance_ppm: int
    amount_pix: int  # what it may earn in all, in base units of PIX

    def __post_init__(self) -> None:
        if len(self.viewer_hmac) != 16:
            raise ValueError(f"viewer_hmac has {len(self.viewer_hmac)} bytes, expected 16")
        if not 0 <= self.relevance_ppm <= 1_000_000:
            raise ValueError(f"relevance_ppm is {self.relevance_ppm}, expected 0 to 1,000,000")
        if not 0 <= self.amount_pix < 2**31:
            raise ValueError(f"amount_pix is {self.amount_pix}, expected 0 to 2^31 - 1")


class Hashes:
    """Keyed hashes of viewers, networks, Idempotency-Keys and requests; the first two change every 30 days.

    After the change of a viewer's hash, what they saw before is not recognised as a repeat. Each viewer's hash changes
    on a day of its own among the 30, so that this does not happen for all viewers at once.
    """

    def __init__(self, settings: Settings) -> None:
        self._secret = runtime.secret(settings, "appearances").encode()

    def viewer(self, kind: str, identity: str, at_s: float | None = None) -> bytes:
        """Hash a viewer to 16 bytes; `kind` is "key", "cookie" or "address", `at_s` a time since 1970 (default: now)."""
        offset = int.from_bytes(self._hash("rotation", kind, identity)[:4], "little") % ROTATION_DAYS
        return self._hash("viewer", _period(at_s, offset), kind, identity)

    def origin(self, prefix: str, at_s: float | None = None) -> bytes:
        """Hash the network (an address prefix) of an anonymous viewer to 16 bytes, which are never `NO_ORIGIN`."""
        return self._hash("origin", _period(at_s), prefix)

    def key(self, principal: str, idempotency_key: str) -> bytes:
        """Hash an Idempotency-Key of a principal to 16 bytes."""
        return self._hash("idempotency", principal, idempotency_key)

    def request(self, text: str) -> bytes:
        """Hash what a client asked for to 8 bytes, to recognise another request with the same Idempotency-Key."""
        return self._hash("request", text)[:8]

    def _hash(self, *parts: str) -> bytes:
        return hmac.digest(self._secret, "\0".join(parts).encode(), "sha256")[:16]


def _period(at_s: float | None, offset_days: int = 0) -> str:
    """Return the number of the 30-day period of a time, as text; with an offset periods begin that many days later."""
    day = int((time.time() if at_s is None else at_s) // DAY_S)
    together = min(day // ROTATION_DAYS, ONE_BY_ONE_FROM - 1)
    return str(max(together, (day - offset_days) // ROTATION_DAYS))


def search_record(
    appearances: Sequence[Appearance], key: bytes, request: bytes, at_ms: int, origin: bytes = spool.NO_ORIGIN
) -> bytes:
    """Encode one search as it stands in the spool.

    Args:
        appearances: the moments that were shown and may earn; all of one viewer.
        key: the hash of the Idempotency-Key, or `spool.NO_KEY`.
        request: the hash of what the client asked for.
        at_ms: when the search was made, in milliseconds since 1970.
        origin: the hash of an anonymous viewer's network, else `spool.NO_ORIGIN`.

    Returns:
        The record: a `spool.SEARCH`, then a `spool.SHOWN` for each appearance.
    """
    head = np.zeros(1, spool.SEARCH)
    viewer = appearances[0].viewer_hmac if appearances else spool.NO_KEY
    head[0] = (np.void(viewer), np.void(key), np.void(request), np.void(origin), at_ms, len(appearances))
    rows = [(a.segment_id, a.creator_id, a.best_frame_ms, a.relevance_ppm, a.amount_pix) for a in appearances]
    return head.tobytes() + np.array(rows, spool.SHOWN).tobytes()


def adopt(connection: Connection[Any], folder: Path) -> int:
    """Record the searches in the spools of dead replicas of this machine; return how many were recorded.

    A spool is removed only after its searches are committed, so the connection must not be in a transaction. One spool
    is locked at a time. A spool that cannot be read is logged and stays; the other spools are adopted nevertheless. If
    a spool is damaged, the searches before the damage are recorded, and the file is set aside.

    Raises:
        psycopg.OperationalError: the database does not answer, or a spool took too long; the others have been adopted.
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
    """Record one spool in a transaction that locks its incarnation; return how many searches were new.

    The lock waits for a batch that the dead replica has sent and the database is still writing.
    """
    records, incarnation = orphan.records(), orphan.incarnation
    with connection.transaction():
        age_s = orphan.age_s(records, time.time())
        connection.execute(BEGUN, (incarnation, orphan.path.name, socket.gethostname(), age_s))
        row = connection.execute(HELD, (incarnation,)).fetchone()
        assert row is not None
        first = at = int(row[0])
        while at < len(records):
            batch = spool.pack(records[at : at + ADOPTED_BATCH_SEARCHES], orphan.format)
            spool.unpack(batch.payload, batch.format)  # refuses a batch that the fold could not read
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
    """Return the parameters of `RECORDED`, the query that records a batch.

    Args:
        incarnation: the incarnation of the replica that made the batch.
        seq: the number of the batch's first search within the incarnation, from 0.
        batch: the searches.
        adopted: True if an heir records the batch, or if its replica does so long after it was made. Its searches may
            then be as old as the incarnation.

    Returns:
        The parameters by name.
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
