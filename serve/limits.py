"""How much may be asked: a bucket of tokens for each key or address, and a gate for all searches of a replica together.

Buckets stand in Redis, shared by all replicas; a replica takes tokens from them a tenth of a second ahead, so that a
busy key costs a question now and then and not one a request. While Redis is away each replica keeps buckets of its own.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from cluster.errors import Rejected, Temporary
from serve.settings import SearchSettings
from serve.store import Store

BUCKETS_MAX = 50_000
AHEAD_S = 0.1
LEASE_S = 1.0  # tokens taken ahead and not used by then are gone
TAKE = """
local rate, burst, want = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local t = redis.call('TIME')
local now = tonumber(t[1]) + tonumber(t[2]) / 1000000
local kept = redis.call('HMGET', KEYS[1], 'tokens', 'at')
local tokens = math.min(burst, (tonumber(kept[1]) or burst) + (now - (tonumber(kept[2]) or now)) * rate)
local given = math.max(0, math.min(want, math.floor(tokens)))
redis.call('HSET', KEYS[1], 'tokens', tostring(tokens - given), 'at', string.format('%.6f', now))
redis.call('EXPIRE', KEYS[1], math.ceil(burst / rate) + 1)
return {given, math.ceil((1 - (tokens - given)) / rate * 1000)}"""


class Limited(Rejected):
    """Too much was asked; `retry_after_s` says when to come again."""

    def __init__(self, detail: str, retry_after_s: float = 1.0) -> None:
        super().__init__(detail, 429, "too-many-requests", "ask less often, or wait as Retry-After says")
        self.args = (detail, retry_after_s)
        self.retry_after_s = retry_after_s


@dataclass
class Bucket:
    """A replica's own part: tokens at hand until `until_s`, or none before `blocked_until_s`."""

    tokens: float
    at_s: float
    until_s: float = 0.0
    blocked_until_s: float = 0.0
    shared: bool = False


class Limits:
    """One replica's buckets. Used inside one event loop."""

    def __init__(self, store: Store, search: SearchSettings) -> None:
        self._store = store
        self._search = search
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()

    async def take(self, kind: str, identity: str) -> None:
        """One token of the bucket of a key, or of anybody else.

        Raises:
            Limited: it is empty.
        """
        search, key = self._search, kind == "key"
        rate = search.key_rate_per_s if key else search.address_rate_per_s
        burst = search.key_burst if key else search.address_burst
        name = hashlib.sha256(f"{kind} {identity}".encode()).hexdigest()[:24]
        bucket, now_s = self._bucket(name, float(burst)), time.monotonic()
        if now_s < bucket.blocked_until_s:
            raise _limited(bucket.blocked_until_s - now_s)
        if not (bucket.shared and bucket.tokens >= 1 and now_s < bucket.until_s):
            await self._refill(bucket, name, rate, burst)
        if bucket.tokens < 1:
            raise _limited(max(bucket.blocked_until_s - time.monotonic(), 1 / rate))
        bucket.tokens -= 1

    async def _refill(self, bucket: Bucket, name: str, rate: float, burst: int) -> None:
        wanted = max(1, min(burst, int(rate * AHEAD_S)))
        taken = await self._store.run(TAKE, f"bucket:{name}", rate, burst, wanted)
        now_s = time.monotonic()
        if taken is None:
            start = float(burst) if bucket.shared else bucket.tokens
            bucket.tokens = min(float(burst), start + (now_s - bucket.at_s) * rate)
            bucket.shared = False
        else:
            bucket.tokens, bucket.shared, bucket.until_s = float(taken[0]), True, now_s + LEASE_S
            if taken[0] < 1:
                bucket.blocked_until_s = now_s + float(taken[1]) / 1000
        bucket.at_s = now_s

    def _bucket(self, name: str, burst: float) -> Bucket:
        bucket = self._buckets.get(name)
        if bucket is None:
            bucket = self._buckets[name] = Bucket(burst, time.monotonic())
            if len(self._buckets) > BUCKETS_MAX:
                self._buckets.popitem(last=False)
        self._buckets.move_to_end(name)
        return bucket


def _limited(wait_s: float) -> Limited:
    return Limited("too many searches from here", max(0.001, wait_s))


class Gate:
    """So many searches at once, so many that wait; who comes after that is sent away at once, with Retry-After."""

    def __init__(self, search: SearchSettings) -> None:
        self._free = asyncio.Semaphore(search.searches_max)
        self._waiting_max = search.waiting_max
        self._waiting = 0

    @asynccontextmanager
    async def passed(self) -> AsyncIterator[None]:
        """Hold a place.

        Raises:
            Temporary: too many are waiting.
        """
        if self._free.locked() and self._waiting >= self._waiting_max:
            raise Temporary("too many searches at once", 1.0)
        self._waiting += 1
        try:
            await self._free.acquire()
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._free.release()
