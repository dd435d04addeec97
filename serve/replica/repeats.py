"""An Idempotency-Key stands for one search: sent again with another it is refused (as draft-ietf-httpapi-idempotency-key-header
asks). What a key stands for is kept for each viewer in Redis, and in this replica: for `idempotency_s`, for viewers that have
neither a key nor a cookie of ours for `idempotency_address_s`, so that what strangers make up does not fill Redis for a day.

Guaranteed: the same replica refuses while it remembers (the last keys), all replicas while Redis is there. While Redis is
away two replicas may answer two searches with one key; the ledger counts only the first of them.
"""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict

from cluster.errors import Rejected
from serve.replica.store import Store
from serve.settings import SearchSettings

PREFIX = "idempotency:"
KEPT_MAX = 20_000
FIRST = """local known = redis.call('GET', KEYS[1])
if known then return {known, redis.call('TTL', KEYS[1])} end
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
return {ARGV[1], tonumber(ARGV[2])}"""


class Repeats:
    """What the keys of one replica's callers stand for. Used inside one event loop."""

    def __init__(self, store: Store, search: SearchSettings) -> None:
        self._store, self._search = store, search
        self._kept: OrderedDict[str, tuple[str, float]] = OrderedDict()  # and until when, monotonic

    async def check(self, viewer: bytes, key: str, identity: str, *, is_named: bool) -> None:
        """Note that the key of a viewer, who is a keyed hash, stands for a search; named are those with a key or cookie.

        Raises:
            Rejected: 422, it stands for another one.
        """
        name = PREFIX + hashlib.blake2b(viewer + key.encode(), digest_size=16).hexdigest()
        known, until_s = self._kept.get(name, (identity, 0.0))
        if time.monotonic() >= until_s:
            lasts_s = self._search.idempotency_s if is_named else self._search.idempotency_address_s
            found = await self._store.run(FIRST, name, identity, lasts_s)
            known, left_s = (found[0].decode(), int(found[1])) if found else (identity, lasts_s)
            self._kept.pop(name, None)
            self._kept[name] = known, time.monotonic() + left_s
            if len(self._kept) > KEPT_MAX:
                self._kept.popitem(last=False)
        if known != identity:
            said = "this Idempotency-Key was sent with another search"
            raise Rejected(
                said, status=422, code="idempotency-key-reused", hint="send a key of its own with each search"
            )
