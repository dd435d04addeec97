"""Anchors: heads of the journal's hash chain, kept in the object store, where who rewrites the database does not reach.

Each is an object whose name says it all: the number of the last entry, its hash, when, by the database's clock, and a digest
of these under a key that follows from the deployment's secret of batches. Another hash is another name, so none is ever
overwritten; a bucket with versions or a lock keeps them from being deleted. The audit compares: an entry that once was the head
must still be there, with the same hash, and so must everything before it.

Who may write to the bucket knows no such key: what they put there is counted as none of ours, and believed in nothing. Releases
before wrote no digest; theirs are told by when the store took them, which nobody who writes there later can choose.

What a declared restore has forgotten is no rewriting: heads from before it, of entries that the restored database did not
have, are told apart and counted.
"""

from __future__ import annotations

import hmac
import json
import logging
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from psycopg import Connection

from cluster.errors import PixrError, Rejected
from cluster.storage import Storage, StoredObject
from ledger.adoption import RESTORED

log = logging.getLogger(__name__)

Conn = Connection[Any]

FOLDER = "ledger/heads"
NAME = re.compile(r"(\d{20})-([0-9a-f]{64})-(\d{1,12})(?:-([0-9a-f]{32}))?\.json", re.ASCII)
AGAIN_S = 60.0  # after one that could not be kept
ENTRY_MAX, SECOND_MAX = 2**63 - 1, 253_402_300_799  # PostgreSQL's largest number, and the last second of the year 9999
CLOCKS_DIFFER_S = 60.0  # the store's from the database's
PURPOSE = b"heads of the journal"  # of the key that digests are made with: no other use of the secret gives the same
SHOWN_MAX = 200  # characters of a stranger's name


@dataclass(frozen=True)
class Anchor:
    """The journal's head at a second since 1970, by the database's clock."""

    entry_id: int
    hash: str
    at_s: int

    @property
    def text(self) -> str:
        """What the digest is of."""
        return f"{self.entry_id:020d}-{self.hash}-{self.at_s}"

    def name(self, secret: str) -> str:
        return f"{self.text}-{_digest(secret, self.text)}.json"

    @property
    def content(self) -> bytes:
        at = datetime.fromtimestamp(self.at_s, UTC).isoformat()
        return json.dumps({"entry_id": self.entry_id, "hash": self.hash, "at": at}, indent=1).encode() + b"\n"


@dataclass(frozen=True)
class Kept:
    """What lies in the folder.

    `older`: without a digest, from before the first one of ours that has one; any, where there is none.
    `others`: how many objects are none of ours, or kept under a secret of before; the name of the first.
    """

    ours: Sequence[Anchor] = ()
    older: Sequence[Anchor] = ()
    others: int = 0
    first_other: str = ""


class Anchoring:
    """Keeps the head every `interval_s` where it has moved; in a thread, so that folding never waits for the store."""

    def __init__(
        self,
        storage: Storage,
        bucket: str,
        secret: Callable[[], str],
        interval_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._storage, self._bucket, self._secret = storage, bucket, secret
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
            self._under_way = anchor, self._executor.submit(self._put, anchor)

    def close(self, timeout_s: float = 5.0) -> None:
        """Wait a little for the one that is under way."""
        if self._under_way is not None:
            try:
                self._under_way[1].exception(timeout_s)
            except TimeoutError:
                log.warning("the head of the journal was not kept in time")
        self._see()

    def _put(self, anchor: Anchor) -> None:
        put(
            self._storage, self._bucket, self._secret(), anchor
        )  # read each time: an order may have brought another one

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


def put(storage: Storage, bucket: str, secret: str, anchor: Anchor) -> None:
    storage.put_bytes(anchor.content, f"s3://{bucket}/{FOLDER}/{anchor.name(secret)}", "application/json")


def listing(storage: Storage, bucket: str, secret: str) -> Kept:
    """Every head that was kept, the oldest entry first, and what lies there beside them. `secret`: of batches."""
    ours, without, others = list[Anchor](), list[tuple[Anchor, StoredObject]](), list[str]()
    for each in _objects(storage, bucket):
        anchor, digest = _read(_name(each))
        if anchor is None or (digest and not hmac.compare_digest(digest, _digest(secret, anchor.text))):
            others.append(_name(each))
        elif digest:
            ours.append(anchor)
        else:
            without.append((anchor, each))
    began_s = min((each.at_s for each in ours), default=SECOND_MAX) + CLOCKS_DIFFER_S
    others += [_name(each) for _, each in without if each.changed_s > began_s]
    older = [anchor for anchor, each in without if each.changed_s <= began_s]
    return Kept(tuple(ours), tuple(older), len(others), ascii(min(others))[1:-1][:SHOWN_MAX] if others else "")


def has_any(storage: Storage, bucket: str) -> bool:
    """Whether anything lies in the folder; it takes no secret to say."""
    return next(_objects(storage, bucket), None) is not None


def _objects(storage: Storage, bucket: str) -> Iterator[StoredObject]:
    try:
        yield from storage.list(f"s3://{bucket}/{FOLDER}/")
    except Rejected as refusal:
        if refusal.code != "not-found":
            raise


def _name(found: StoredObject) -> str:
    return found.uri.partition(f"/{FOLDER}/")[2]  # whatever it holds: a bucket's name has no slash


def _read(name: str) -> tuple[Anchor | None, str]:
    """The head that a name says, and its digest, empty where it has none; no head where it cannot be one."""
    found = NAME.fullmatch(name)
    if found is None or not 0 < int(found[1]) <= ENTRY_MAX or int(found[3]) > SECOND_MAX:
        return None, ""
    return Anchor(int(found[1]), found[2], int(found[3])), found[4] or ""


def _digest(secret: str, text: str) -> str:
    return hmac.digest(hmac.digest(secret.encode(), PURPOSE, "sha256"), text.encode(), "sha256").hex()[:32]


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
