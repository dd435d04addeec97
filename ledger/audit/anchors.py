"""Anchors: heads of the journal's hash chain, kept in the object store, out of reach of a person who rewrites the database.

An anchor is an object whose name holds everything: the number of the last entry, its hash, and the time by the
database's clock. Another hash has another name, so no anchor is ever overwritten; a bucket with versions or a lock
protects them from deletion. The audit compares the anchors with the journal: an entry that was once the head must still
be there with the same hash. By the hash chain this also holds for every entry before it.

A declared restore loses entries without rewriting any. Anchors that are older than the restore and name an entry that
the restored database did not have are counted separately, and not as errors.
"""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from psycopg import Connection

from cluster.errors import PixrError, Rejected
from cluster.storage import Storage, split
from ledger.payouts.adoption import RESTORED

log = logging.getLogger(__name__)

Conn = Connection[Any]

FOLDER = "ledger/heads"
NAME = re.compile(r"(\d{20})-([0-9a-f]{64})-(\d{1,12})\.json")
AGAIN_S = 60.0  # after an anchor could not be written


@dataclass(frozen=True)
class Anchor:
    """The journal's head at one time."""

    entry_id: int  # of the last entry
    hash: str  # of it, 64 hex digits
    at_s: int  # seconds since 1970, by the database's clock

    @property
    def name(self) -> str:
        """The last part of the object's key."""
        return f"{self.entry_id:020d}-{self.hash}-{self.at_s}.json"

    @property
    def content(self) -> bytes:
        """The object's content: the facts of its name, as JSON for people to read."""
        at = datetime.fromtimestamp(self.at_s, UTC).isoformat()
        return json.dumps({"entry_id": self.entry_id, "hash": self.hash, "at": at}, indent=1).encode() + b"\n"


class Anchoring:
    """A writer of anchors: one every `interval_s` if the head has changed.

    It writes in a thread of its own, so that folding never waits for the object store.
    """

    def __init__(
        self, storage: Storage, bucket: str, interval_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Start the thread; nothing is written before the first call of `look`.

        Args:
            storage: a client of the object store.
            bucket: where anchors are written.
            interval_s: seconds between two anchors; 0 writes none.
            clock: seconds of a monotonic clock.
        """
        self._storage, self._bucket = storage, bucket
        self._interval_s, self._clock = interval_s, clock
        self._executor = ThreadPoolExecutor(1, "anchors")
        self._under_way: tuple[Anchor, Future[None]] | None = None
        self._kept: Anchor | None = None
        self._again_at = float("-inf")

    def look(self, connection: Conn) -> None:
        """Start to write the next anchor, if it is due and the last one is finished. Ends the caller's transaction."""
        self._finish_last()
        if not self._interval_s or self._under_way is not None or self._clock() < self._again_at:
            return
        anchor = head(connection)
        connection.commit()
        if anchor is None:  # no entry yet: look again at the next call, not after an interval
            return
        self._again_at = self._clock() + self._interval_s
        if self._kept is None or anchor.entry_id != self._kept.entry_id:
            self._under_way = anchor, self._executor.submit(put, self._storage, self._bucket, anchor)

    def close(self, timeout_s: float = 5.0) -> None:
        """Wait up to `timeout_s` for the anchor that is being written."""
        if self._under_way is not None:
            try:
                self._under_way[1].exception(timeout_s)
            except TimeoutError:
                log.warning("the head of the journal was not kept in time")
        self._finish_last()

    def _finish_last(self) -> None:
        """If the last anchor is finished, remember it; if it failed, log why."""
        if self._under_way is None or not self._under_way[1].done():
            return
        anchor, done = self._under_way
        self._under_way = None
        error = done.exception()
        if error is None:
            self._kept = anchor
            return
        known = isinstance(error, PixrError)  # any other error is a bug: logged with its traceback, and folding goes on
        log.log(logging.WARNING if known else logging.ERROR, "the head of the journal is not kept outside the database: %s",
                error, exc_info=None if known else error)  # fmt: skip
        self._again_at = min(self._again_at, self._clock() + AGAIN_S)


def head(connection: Conn) -> Anchor | None:
    """Return the journal's head now; None if it has no entry."""
    row = connection.execute(
        "SELECT entry_id, encode(hash, 'hex'), extract(epoch FROM clock_timestamp())::bigint FROM ledger.chain_head"
    ).fetchone()
    return Anchor(*row) if row is not None and row[0] else None


def put(storage: Storage, bucket: str, anchor: Anchor) -> None:
    """Write an anchor to the object store."""
    storage.put_bytes(anchor.content, f"s3://{bucket}/{FOLDER}/{anchor.name}", "application/json")


def listing(storage: Storage, bucket: str) -> list[Anchor]:
    """List all anchors, the oldest entry first; objects with other names are left out."""
    try:
        names = [split(each.uri)[1].rpartition("/")[2] for each in storage.list(f"s3://{bucket}/{FOLDER}/")]
    except Rejected as refusal:
        if refusal.code == "not-found":
            return []
        raise
    matches = [match for name in names if (match := NAME.fullmatch(name)) is not None]
    return [Anchor(int(match[1]), match[2], int(match[3])) for match in matches]


def compare(connection: Conn, anchors: Iterable[Anchor]) -> tuple[list[str], int]:
    """Compare anchors with the journal.

    Returns:
        A sentence for each anchor that the journal contradicts, and the number of anchors whose entry a restore has lost.
    """
    kept = list(anchors)
    known = dict(connection.execute(
        "SELECT e.id, encode(e.hash, 'hex') FROM ledger.entries e WHERE e.id = ANY(%s)", ([each.entry_id for each in kept],)
    ).fetchall())  # fmt: skip
    restores = _restores(connection)
    wrong, forgotten = [], 0
    for each in kept:
        if known.get(each.entry_id) == each.hash:
            continue
        if any(at_s >= each.at_s and each.entry_id > last for at_s, last in restores):
            forgotten += 1
            continue
        now = f"has hash {known[each.entry_id][:16]}" if each.entry_id in known else "is not in the journal"
        at = f"{datetime.fromtimestamp(each.at_s, UTC):%Y-%m-%d %H:%M:%S}"
        wrong.append(f"entry {each.entry_id}, the head with hash {each.hash[:16]} at {at}, {now}")
    return wrong, forgotten


def _restores(connection: Conn) -> Sequence[tuple[int, int]]:
    """Return when each restore was declared (seconds since 1970), and the last entry that the journal had then."""
    return connection.execute(
        "SELECT extract(epoch FROM f.placed_at)::bigint,"
        " coalesce((SELECT max(e.id) FROM ledger.entries e WHERE e.recorded_at < f.placed_at), 0)"
        " FROM ledger.freezes f WHERE f.reason = %s",
        (RESTORED,),
    ).fetchall()
