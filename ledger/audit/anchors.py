"""Anchors: heads of the journal's hash chain, kept in the object store, where who rewrites the database does not reach.

Each is an object whose name says it all: the number of the last entry, its hash, and when, by the database's clock. Another
hash is another name, so none is ever overwritten; a bucket with versions or a lock keeps them from being deleted. The audit
compares: an entry that once was the head must still be there, with the same hash, and so must everything before it.

What a declared restore has forgotten is no rewriting: heads from before it, of entries that the restored database did not
have, are told apart and counted.
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
AGAIN_S = 60.0  # after one that could not be kept


@dataclass(frozen=True)
class Anchor:
    """The journal's head at a second since 1970, by the database's clock."""

    entry_id: int
    hash: str
    at_s: int

    @property
    def name(self) -> str:
        return f"{self.entry_id:020d}-{self.hash}-{self.at_s}.json"

    @property
    def content(self) -> bytes:
        at = datetime.fromtimestamp(self.at_s, UTC).isoformat()
        return json.dumps({"entry_id": self.entry_id, "hash": self.hash, "at": at}, indent=1).encode() + b"\n"


class Anchoring:
    """Keeps the head every `interval_s` where it has moved; in a thread, so that folding never waits for the store."""

    def __init__(
        self, storage: Storage, bucket: str, interval_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._storage, self._bucket = storage, bucket
        self._interval_s, self._clock = interval_s, clock
        self._executor = ThreadPoolExecutor(1, "anchors")
        self._under_way: tuple[Anchor, Future[None]] | None = None
        self._kept: Anchor | None = None
        self._again_at = float("-inf")

    def look(self, connection: Conn) -> None:
        """See whether the last one is kept, and begin the next where it is time. Ends the transaction."""
        self._see()
        if not self._interval_s or self._under_way is not None or self._clock() < self._again_at:
            return
        anchor = head(connection)
        connection.commit()
        if anchor is None:  # the first entry is not kept waiting
            return
        self._again_at = self._clock() + self._interval_s
        if self._kept is None or anchor.entry_id != self._kept.entry_id:
            self._under_way = anchor, self._executor.submit(put, self._storage, self._bucket, anchor)

    def close(self, timeout_s: float = 5.0) -> None:
        """Wait a little for the one that is under way."""
        if self._under_way is not None:
            try:
                self._under_way[1].exception(timeout_s)
            except TimeoutError:
                log.warning("the head of the journal was not kept in time")
        self._see()

    def _see(self) -> None:
        if self._under_way is None or not self._under_way[1].done():
            return
        anchor, done = self._under_way
        self._under_way = None
        error = done.exception()
        if error is None:
            self._kept = anchor
            return
        known = isinstance(error, PixrError)  # else it is a mistake of ours: said whole, and no money waits for it
        log.log(logging.WARNING if known else logging.ERROR, "the head of the journal is not kept outside the database: %s",
                error, exc_info=None if known else error)  # fmt: skip
        self._again_at = min(self._again_at, self._clock() + AGAIN_S)


def head(connection: Conn) -> Anchor | None:
    """The journal's head now; None where nothing is written."""
    row = connection.execute(
        "SELECT entry_id, encode(hash, 'hex'), extract(epoch FROM clock_timestamp())::bigint FROM ledger.chain_head"
    ).fetchone()
    return Anchor(*row) if row is not None and row[0] else None


def put(storage: Storage, bucket: str, anchor: Anchor) -> None:
    storage.put_bytes(anchor.content, f"s3://{bucket}/{FOLDER}/{anchor.name}", "application/json")


def listing(storage: Storage, bucket: str) -> list[Anchor]:
    """Every head that was kept, the oldest entry first; what has another name is none."""
    try:
        names = [split(each.uri)[1].rpartition("/")[2] for each in storage.list(f"s3://{bucket}/{FOLDER}/")]
    except Rejected as refusal:
        if refusal.code == "not-found":
            return []
        raise
    found = [each for name in names if (each := NAME.fullmatch(name)) is not None]
    return [Anchor(int(each[1]), each[2], int(each[3])) for each in found]


def compare(connection: Conn, anchors: Iterable[Anchor]) -> tuple[list[str], int]:
    """What of these heads is not so any more, in words; and how many a declared restore has forgotten."""
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
    """When restores were declared, and the last entry that the journal had then."""
    return connection.execute(
        "SELECT extract(epoch FROM f.placed_at)::bigint,"
        " coalesce((SELECT max(e.id) FROM ledger.entries e WHERE e.recorded_at < f.placed_at), 0)"
        " FROM ledger.freezes f WHERE f.reason = %s",
        (RESTORED,),
    ).fetchall()
