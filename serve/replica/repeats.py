"""Idempotency keys of searches: a viewer's key stands for one search; another search with the same key is refused.

This follows draft-ietf-httpapi-idempotency-key-header. The search that a key stands for is remembered for each viewer,
in Redis and in this replica, for `idempotency_s`. For viewers with neither an API key nor a cookie of ours it is
remembered only for `idempotency_address_s`, so that keys that strangers make up do not fill Redis for a day. While
Redis answers, every replica refuses a second search with the key; otherwise only a replica that remembers the key does.
So while Redis is away two replicas may answer two searches with one key; the ledger counts only the first of them.
"""

from __future__ import annotations

import hashlib
import time

from cachetools import LRUCache

from cluster.errors import Rejected
from serve.replica.store import Store
from serve.settings import SearchSettings

PREFIX = "idempotency:"
KEPT_MAX = 20_000  # keys in this replica
# Return the search that a key stands for and for how many seconds; a key that is new stands for the search in ARGV[1].
FIRST = """local known = redis.call('GET', KEYS[1])
if known then return {known, redis.call('TTL', KEYS[1])} end
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
return {ARGV[1], tonumber(ARGV[2])}"""


class Repeats:
    """Which search each Idempotency-Key stands for, as one replica knows it. Used inside one event loop."""

    def __init__(self, store: Store, search: SearchSettings) -> None:
        self._store, self._search = store, search
        self._kept: LRUCache[str, tuple[str, float]] = LRUCache(KEPT_MAX)  # by name: a query's identity, until when

    async def check(self, viewer: bytes, key: str, identity: str, *, is_named: bool) -> None:
        """Check that a key stands for no other search; from now on it stands for this one.

        Args:
            viewer: the keyed hash of the viewer.
            key: the Idempotency-Key.
            identity: the identity of the query.
            is_named: whether the viewer is known by an API key or a cookie, and not by the address alone.

        Raises:
            Rejected: 422, the key stands for another search.
        """
        name = PREFIX + hashlib.blake2b(viewer + key.encode(), digest_size=16).hexdigest()
        known, until_s = self._kept.get(name, (identity, 0.0))
        if time.monotonic() >= until_s:
            lasts_s = self._search.idempotency_s if is_named else self._search.idempotency_address_s
            stored = await self._store.run(FIRST, name, identity, lasts_s)
            known, left_s = (stored[0].decode(), int(stored[1])) if stored else (identity, lasts_s)
            self._kept[name] = known, time.monotonic() + left_s
        if known != identity:
            detail = "this Idempotency-Key was sent with another search"
            raise Rejected(
                detail, status=422, code="idempotency-key-reused", hint="send a key of its own with each search"
            )
