"""Rate limits: a token bucket for each key and each address, shared by all replicas through Redis.

A replica takes tokens from Redis a tenth of a second in advance (a lease), so that a busy key costs an occasional call
of Redis and not one per request. One call per bucket runs at a time; concurrent requests share its result. Each replica
also counts the requests that it lets through itself. So within one replica the limit holds even while Redis is away or
has lost its data.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from dataclasses import dataclass

from cachetools import LRUCache

from cluster.errors import Rejected
from serve.replica.store import Store
from serve.settings import SearchSettings

BUCKETS_MAX = 50_000
AHEAD_S = 0.1
LEASE_S = 1.0  # tokens taken ahead and not used by then go back
ROUNDS_MAX = 64  # leases that one request waits for: each has tokens for some of the waiting requests only
# Adds the tokens that a replica gives back and those of the time that has passed, up to the burst; then takes whole tokens.
# Returns how many were taken, in how many milliseconds the next one is there, and how many are left.
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
    """The limit of one kind of bucket: it holds up to `burst` tokens, and gains `rate_per_s` tokens a second."""

    name: str
    rate_per_s: float
    burst: int

    @property
    def window_s(self) -> float:
        """How many seconds it takes an empty bucket to be full again."""
        return self.burst / self.rate_per_s


@dataclass(frozen=True)
class Standing:
    """The state of a bucket after a token was taken or refused.

    `remaining` is the approximate number of tokens left; `reset_s` is the time until the bucket is full again, in
    seconds.
    """

    policy: Policy
    remaining: int
    reset_s: float


class Limited(Rejected):
    """The refusal of a request whose bucket is empty.

    `retry_after_s` is the time until the next token, in seconds; `standing` is the state of the bucket.
    """

    def __init__(self, detail: str, retry_after_s: float = 1.0, standing: Standing | None = None) -> None:
        super().__init__(detail, 429, "too-many-requests", "ask less often, or wait as Retry-After says")
        self.args = (detail, retry_after_s, standing)
        self.retry_after_s = retry_after_s
        self.standing = standing


class Bucket:
    """A replica's part of one bucket: its own count, and the tokens that it has leased from Redis. Times are monotonic."""

    def __init__(self, policy: Policy, now_s: float) -> None:
        self.policy = policy
        self.local = float(policy.burst)  # tokens by this replica's own count, which applies with and without Redis
        self.local_at_s = now_s
        self.leased = 0.0  # tokens taken from Redis and not used yet
        self.until_s = 0.0  # when the lease ends
        self.blocked_until_s = 0.0  # Redis has no token before
        self.left = policy.burst  # tokens in Redis at the last call
        self.shared = True  # whether Redis answered the last call
        self.waiting = 0  # requests that wait for the call
        self.flight: asyncio.Task[None] | None = None  # the call that is running

    def fill(self, now_s: float) -> None:
        """Add to this replica's own count the tokens that were gained since the last call."""
        self.local = min(float(self.policy.burst), self.local + (now_s - self.local_at_s) * self.policy.rate_per_s)
        self.local_at_s = now_s

    def take(self, *, leased: bool) -> None:
        """Take a token from this replica's own count and, if `leased`, from the tokens that were leased from Redis."""
        self.local -= 1
        self.leased -= leased

    def put_back(self) -> None:
        """Undo a `take` for a request that does not have to pay."""
        self.local = min(float(self.policy.burst), self.local + 1)
        self.leased += self.shared

    def standing(self) -> Standing:
        """Return the state of the bucket."""
        tokens = min(self.local, self.left + self.leased) if self.shared else self.local
        reset_s = max(0.0, (self.policy.burst - tokens) / self.policy.rate_per_s)
        return Standing(self.policy, max(0, int(tokens)), reset_s)

    def refusal(self, wait_s: float) -> Limited:
        """Return the refusal of a request that may be sent again after `wait_s` seconds."""
        return Limited("too many requests from here", max(0.001, wait_s), self.standing())


class Limits:
    """One replica's buckets, at most `BUCKETS_MAX`. For use inside one event loop."""

    def __init__(self, store: Store, search: SearchSettings) -> None:
        self._store = store
        self._policies = policies(search)
        self._buckets: LRUCache[str, Bucket] = LRUCache(BUCKETS_MAX)

    async def take(self, kind: str, identity: str) -> Standing:
        """Take one token from a bucket and return the bucket's state.

        `kind` is a name in `policies`; `identity` is a principal's id or an address.

        Raises:
            Limited: the bucket is empty.
        """
        name = _name(kind, identity)
        bucket = self._bucket(name, self._policies[kind])
        for _ in range(ROUNDS_MAX):
            now_s = time.monotonic()
            bucket.fill(now_s)
            if bucket.local < 1:
                raise bucket.refusal((1 - bucket.local) / bucket.policy.rate_per_s)
            if bucket.leased >= 1 and now_s < bucket.until_s:
                bucket.take(leased=True)
                return bucket.standing()
            if now_s < bucket.blocked_until_s:
                raise bucket.refusal(bucket.blocked_until_s - now_s)
            await self._lease(bucket, name)
            if not bucket.shared and bucket.local >= 1:
                bucket.take(leased=False)
                return bucket.standing()
        raise bucket.refusal(AHEAD_S)

    def give_back(self, kind: str, identity: str) -> None:
        """Give back the token that a request has taken, if it is found later that the request does not have to pay."""
        bucket = self._buckets.get(_name(kind, identity))
        if bucket is not None:
            bucket.put_back()

    async def _lease(self, bucket: Bucket, name: str) -> None:
        """Lease tokens from Redis, or wait for a lease that is under way; it goes on if this caller is cancelled."""
        bucket.waiting += 1
        try:
            if bucket.flight is None:
                bucket.flight = asyncio.create_task(self._refill(bucket, name))
            await asyncio.shield(bucket.flight)
        finally:
            bucket.waiting -= 1

    async def _refill(self, bucket: Bucket, name: str) -> None:
        """Lease tokens for the waiting requests and the next `AHEAD_S`; give back what is left of the last lease."""
        try:
            await asyncio.sleep(0)  # so that all requests of this turn of the event loop are counted
            rate, burst = bucket.policy.rate_per_s, bucket.policy.burst
            wanted = max(1, min(burst, max(int(rate * AHEAD_S), bucket.waiting)))
            unused, bucket.leased = bucket.leased, 0.0
            reply = await self._store.run(TAKE, f"bucket:{name}", rate, burst, wanted, unused)
            now_s = time.monotonic()
            bucket.shared = reply is not None
            if reply is not None:
                taken, next_ms, left = reply
                bucket.leased += float(taken)  # added, since tokens may have been put back meanwhile
                bucket.until_s, bucket.left = now_s + LEASE_S, int(left)
                if taken < 1:
                    bucket.blocked_until_s = now_s + float(next_ms) / 1000
        finally:
            bucket.flight = None

    def _bucket(self, name: str, policy: Policy) -> Bucket:
        bucket = self._buckets.get(name)
        if bucket is None:
            bucket = self._buckets[name] = Bucket(policy, time.monotonic())
        return bucket


def policies(search: SearchSettings) -> dict[str, Policy]:
    """Return the limits of all kinds of buckets: of keys, and of addresses for requests without a valid key."""
    kinds = ("key", "address", "media", "probe", "wrong")
    return {
        kind: Policy(kind, getattr(search, f"{kind}_rate_per_s"), getattr(search, f"{kind}_burst")) for kind in kinds
    }


def _name(kind: str, identity: str) -> str:
    """Return a bucket's name in Redis: a hash, so that no identity appears there."""
    return hashlib.sha256(f"{kind} {identity}".encode()).hexdigest()[:24]


def headers(standing: Standing) -> dict[str, str]:
    """Return `RateLimit-Policy` and `RateLimit` as in draft-ietf-httpapi-ratelimit-headers, version 8 and later.

    The three fields of older drafts (`RateLimit-Limit`, `-Remaining`, `-Reset`) are not sent: they cannot name the
    bucket, and the draft has dropped them.
    """
    policy = standing.policy
    return {
        "RateLimit-Policy": f'"{policy.name}";q={policy.burst};w={max(1, round(policy.window_s))}',
        "RateLimit": f'"{policy.name}";r={standing.remaining};t={round(standing.reset_s)}',
    }
