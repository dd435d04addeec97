"""The store that replicas share, in Redis: bytes by name, for a while, behind one breaker.

While Redis is away, searches are answered more slowly and pay as usual. Limits and Idempotency-Keys then hold in each
replica by itself (see `access.limits`, `repeats`).

Names begin with a prefix of the deployment, so that deployments can share a server. Each call runs in a task of its
own, which has a time limit and goes on if the caller is cancelled. Otherwise redis-py would close the connection in the
middle of a reply, and its pool would lose it for good if the caller were cancelled once more. Knows nothing of what is
stored.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

import redis.asyncio
from redis.exceptions import RedisError

from cluster import cache, runtime
from cluster.errors import Temporary
from cluster.observability.seldom import Seldom
from cluster.resilience import Breaker
from cluster.settings import Settings
from cluster.tasks import uncancelled

log = logging.getLogger(__name__)

Result = TypeVar("Result")
FORGET_PAGE = 500  # names that Redis looks at in one step of a walk
CALL_TIMEOUT_S = 2 * cache.TIMEOUT_S  # a connection may have to be made first
FORGET_TIMEOUT_S = 10.0  # of a walk through all names
CALLS_MAX = 64  # at the same time


class Store:
    """The connection of one replica to Redis; every name is stored under the deployment's own `prefix`.

    While Redis is away every call but `ping` returns None, at once while the breaker is open.
    """

    def __init__(self, settings: Settings, client: redis.asyncio.Redis, calls_max: int = CALLS_MAX) -> None:
        self.prefix = runtime.redis_prefix(settings)
        self._redis = client
        self._breaker = Breaker("Redis", failures_max=3, reset_s=1.0)
        self._seldom = Seldom(log)
        self._places_max, self._places = calls_max, asyncio.Semaphore(calls_max)

    async def ping(self) -> None:
        """Check that Redis answers.

        Raises:
            Temporary: Redis does not answer.
        """
        if not await self._guarded(self._redis.ping):
            raise Temporary("Redis does not answer")

    async def get(self, name: str) -> bytes | None:
        """Return the bytes of a name; None if there are none."""
        data = await self._guarded(lambda: self._redis.get(self.prefix + name))
        return data if isinstance(data, bytes) else None

    async def put(self, name: str, data: bytes, lasts_s: int) -> None:
        """Store bytes under a name for `lasts_s` seconds."""
        await self._guarded(lambda: self._redis.set(self.prefix + name, data, ex=lasts_s))

    async def put_all(self, named: Mapping[str, bytes], lasts_s: int) -> None:
        """Store bytes under several names for `lasts_s` seconds, in one round trip."""
        pipeline = self._redis.pipeline(transaction=False)
        for name, data in named.items():
            pipeline.set(self.prefix + name, data, ex=lasts_s)
        await self._guarded(pipeline.execute)

    async def run(self, script: str, name: str, *arguments: float | str) -> list[Any] | None:
        """Run a Lua script over one name (KEYS[1]), atomically, and return the list that it returns."""
        values = await self._guarded(lambda: self._redis.eval(script, 1, self.prefix + name, *map(str, arguments)))
        return values if isinstance(values, list) else None

    async def forget(self, start: str) -> None:
        """Remove every name that begins with `start`."""

        async def remove() -> None:
            async for name in self._redis.scan_iter(f"{self.prefix}{start}*", count=FORGET_PAGE):
                await self._redis.unlink(name)

        await self._guarded(remove, FORGET_TIMEOUT_S)

    async def _guarded(self, call: Callable[[], Awaitable[Result]], limit_s: float = CALL_TIMEOUT_S) -> Result | None:
        """Return the result of a call; None while Redis is away.

        A caller can be cancelled while it waits for a place, but not the call itself.
        """
        if not self._breaker.allow():
            return None
        try:
            async with asyncio.timeout(CALL_TIMEOUT_S):
                await self._places.acquire()
        except TimeoutError:
            self._seldom.warning(f"Redis: {self._places_max} calls are under way")
            return None
        return await uncancelled(self._called(call, limit_s))

    async def _called(self, call: Callable[[], Awaitable[Result]], limit_s: float) -> Result | None:
        try:
            async with asyncio.timeout(limit_s):
                result = await call()
        except (TimeoutError, RedisError, OSError) as error:
            self._breaker.failure()
            self._seldom.warning(f"Redis: {type(error).__name__}")
            return None
        finally:
            self._places.release()
        self._breaker.success()
        return result
