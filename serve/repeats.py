"""An Idempotency-Key stands for one search: sent again with another it is refused (as draft-ietf-httpapi-idempotency-key-header
asks). What a key stands for is kept for each viewer in Redis, and in this replica.

Guaranteed: the same replica refuses while it remembers (the last keys), all replicas while Redis is there. While Redis is
away two replicas may answer two searches with one key; the ledger counts only the first of them.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict

from cluster.errors import Rejected
from serve.settings import SearchSettings
from serve.store import Store

PREFIX = "idempotency:"
KEPT_MAX = 20_000
FIRST = """local known = redis.call('GET', KEYS[1])
if known then return {known} end
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
return {ARGV[1]}"""


class Repeats:
    """What the keys of one replica's callers stand for. Used inside one event loop."""

    def __init__(self, store: Store, search: SearchSettings) -> None:
        self._store, self._search = store, search
        self._kept: OrderedDict[str, str] = OrderedDict()

    async def check(self, viewer: bytes, key: str, identity: str) -> None:
        """Note that the key of a viewer, who is a keyed hash, stands for a search.

        Raises:
            Rejected: 422, it stands for another one.
        """
        name = PREFIX + hashlib.blake2b(viewer + key.encode(), digest_size=16).hexdigest()
        known = self._kept.get(name)
        if known is None:
            found = await self._store.run(FIRST, name, identity, self._search.idempotency_s)
            known = found[0].decode() if found else identity
            self._kept[name] = known
            if len(self._kept) > KEPT_MAX:
                self._kept.popitem(last=False)
        if known != identity:
            said = "this Idempotency-Key was sent with another search"
            raise Rejected(
                said, status=422, code="idempotency-key-reused", hint="send a key of its own with each search"
            )
