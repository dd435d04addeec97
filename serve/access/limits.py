"""How often a caller may ask: a bucket of tokens for each key and each address.

Buckets stand in Redis, shared by all replicas; a replica takes tokens from them a tenth of a second ahead (a lease), so
that a busy key costs a question now and then and not one a request. One question is in flight for a bucket: requests
that come side by side share its answer. Beside the shared bucket each replica counts what it lets through itself, so
that the limit of one replica holds also while Redis is away or after it has come back empty.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict
from dataclasses import dataclass

from cluster.errors import Rejected
from serve.replica.store import Store
from serve.settings import SearchSettings

BUCKETS_MAX = 50_000
AHEAD_S = 0.1
LEASE_S = 1.0  # tokens taken ahead and not used by then go back
ROUNDS_MAX = 64  # leases that one request waits for: each gives tokens to some of those that wait
# What a replica gives back is added first; then time is, up to the burst; then tokens are taken, as many as are whole.
TAKE = """
local rate, burst, want, back = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local t = redis.call('TIME')
local now = tonumber(t[1]) + tonumber(t[2]) / 1000000
local kept = redis.call('HMGET', KEYS[1], 'tokens', 'at')
local passed = math.max(0, now - (tonumber(kept[2]) or now))
local tokens = math.min(burst, (tonumber(kept[1]) or burst) + back + passed * rate)
local given = math.max(0, math.min(want, math.floor(tokens)))
redis.call('HSET', KEYS[1], 'tokens', tostring(tokens - given), 'at', string.format('%.6f', now))
redis.call('EXPIRE', KEYS[1], math.ceil(burst / rate) + 1)
return {given, math.ceil((1 - (tokens - given)) / rate * 1000), math.floor(tokens - given)}"""


@dataclass(frozen=True)
class Policy:
    """What a kind of bucket allows: `burst` tokens at once, and `rate_per_s` from then on."""

    name: str
    rate_per_s: float
    burst: int

    @property
    def window_s(self) -> float:
        """The time in which an empty bucket is full again."""
        return self.burst / self.rate_per_s


@dataclass(frozen=True)
class Standing:
    """A bucket after a token was taken or refused: about how many are left, and when one more is there."""

    policy: Policy
    remaining: int
    reset_s: float


class Limited(Rejected):
    """Too much was asked; `retry_after_s` says when to come again, `standing` how the bucket stands."""

    def __init__(self, detail: str, retry_after_s: float = 1.0, standing: Standing | None = None) -> None:
        super().__init__(detail, 429, "too-many-requests", "ask less often, or wait as Retry-After says")
        self.args = (detail, retry_after_s, standing)
        self.retry_after_s = retry_after_s
        self.standing = standing


class Bucket:
    """A replica's part of one bucket: what it may let through by its own count, and the tokens it has on lease."""

    def __init__(self, policy: Policy, now_s: float) -> None:
        self.policy = policy
        self.own = float(policy.burst)  # by this replica's own count, which holds with Redis and without
        self.own_at_s = now_s
        self.leased = 0.0
        self.until_s = 0.0
        self.blocked_until_s = 0.0
        self.left = policy.burst  # in Redis when it was last asked
        self.shared = True
        self.waiting = 0
        self.flight: asyncio.Task[None] | None = None

    def fill(self, now_s: float) -> None:
        self.own = min(float(self.policy.burst), self.own + (now_s - self.own_at_s) * self.policy.rate_per_s)
        self.own_at_s = now_s

    def take(self, *, leased: bool) -> None:
        self.own -= 1
        self.leased -= leased

    def put_back(self) -> None:
        """Return a token that was taken and is not owed."""
        self.own = min(float(self.policy.burst), self.own + 1)
        self.leased += self.shared

    def standing(self) -> Standing:
        has = min(self.own, self.left + self.leased) if self.shared else self.own
        return Standing(self.policy, max(0, int(has)), max(0.0, (self.policy.burst - has) / self.policy.rate_per_s))

    def refusal(self, wait_s: float) -> Limited:
        return Limited("too many requests from here", max(0.001, wait_s), self.standing())


class Limits:
    """One replica's buckets. Used inside one event loop."""

    def __init__(self, store: Store, search: SearchSettings) -> None:
        self._store = store
        self._policies = policies(search)
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()

    async def take(self, kind: str, identity: str) -> Standing:
        """Take one token of a bucket; `kind` is a name of `policies`.

        Raises:
            Limited: it is empty.
        """
        name = _name(kind, identity)
        bucket = self._bucket(name, self._policies[kind])
        for _ in range(ROUNDS_MAX):
            now_s = time.monotonic()
            bucket.fill(now_s)
            if bucket.own < 1:
                raise bucket.refusal((1 - bucket.own) / bucket.policy.rate_per_s)
            if bucket.leased >= 1 and now_s < bucket.until_s:
                bucket.take(leased=True)
                return bucket.standing()
            if now_s < bucket.blocked_until_s:
                raise bucket.refusal(bucket.blocked_until_s - now_s)
            await self._lease(bucket, name)
            if not bucket.shared and bucket.own >= 1:
                bucket.take(leased=False)
                return bucket.standing()
        raise bucket.refusal(AHEAD_S)

    def give_back(self, kind: str, identity: str) -> None:
        """Return a token that was taken before it was known who pays."""
        bucket = self._buckets.get(_name(kind, identity))
        if bucket is not None:
            bucket.put_back()

    async def _lease(self, bucket: Bucket, name: str) -> None:
        """Wait for the question in flight, or ask; a caller that goes away ends it for nobody else."""
        bucket.waiting += 1
        try:
            if bucket.flight is None:
                bucket.flight = asyncio.create_task(self._refill(bucket, name))
            await asyncio.shield(bucket.flight)
        finally:
            bucket.waiting -= 1

    async def _refill(self, bucket: Bucket, name: str) -> None:
        try:
            await asyncio.sleep(0)  # those that come in the same turn of the loop are counted in
            rate, burst = bucket.policy.rate_per_s, bucket.policy.burst
            wanted = max(1, min(burst, max(int(rate * AHEAD_S), bucket.waiting)))
            back, bucket.leased = bucket.leased, 0.0
            taken = await self._store.run(TAKE, f"bucket:{name}", rate, burst, wanted, back)
            now_s = time.monotonic()
            bucket.shared = taken is not None
            if taken is not None:
                bucket.leased += float(taken[0])  # beside what was put back meanwhile
                bucket.until_s, bucket.left = now_s + LEASE_S, int(taken[2])
                if taken[0] < 1:
                    bucket.blocked_until_s = now_s + float(taken[1]) / 1000
        finally:
            bucket.flight = None

    def _bucket(self, name: str, policy: Policy) -> Bucket:
        bucket = self._buckets.get(name)
        if bucket is None:
            bucket = self._buckets[name] = Bucket(policy, time.monotonic())
            if len(self._buckets) > BUCKETS_MAX:
                self._buckets.popitem(last=False)
        self._buckets.move_to_end(name)
        return bucket


def policies(search: SearchSettings) -> dict[str, Policy]:
    """Every kind of bucket: of a key, and of an address for what is asked without one."""
    kinds = ("key", "address", "media", "probe", "wrong")
    return {
        kind: Policy(kind, getattr(search, f"{kind}_rate_per_s"), getattr(search, f"{kind}_burst")) for kind in kinds
    }


def _name(kind: str, identity: str) -> str:
    return hashlib.sha256(f"{kind} {identity}".encode()).hexdigest()[:24]


def headers(standing: Standing) -> dict[str, str]:
    """`RateLimit-Policy` and `RateLimit`, as draft-ietf-httpapi-ratelimit-headers has them since its version 8.

    The three fields of older drafts (`RateLimit-Limit`, `-Remaining`, `-Reset`) are not sent: they cannot name the
    bucket, and the draft has dropped them.
    """
    policy = standing.policy
    return {
        "RateLimit-Policy": f'"{policy.name}";q={policy.burst};w={max(1, round(policy.window_s))}',
        "RateLimit": f'"{policy.name}";r={standing.remaining};t={round(standing.reset_s)}',
    }
