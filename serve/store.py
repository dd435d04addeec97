"""What replicas share for a while, in Redis: bytes by name, behind one breaker. Losing it costs speed and nothing else.

Names begin with the deployment's own mark, so that deployments can share a server. Knows nothing of what is kept.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Awaitable, Mapping
from typing import Any, TypeVar

import redis.asyncio
from redis.exceptions import RedisError

from cluster import runtime
from cluster.resilience import Breaker
from cluster.settings import Settings

log = logging.getLogger(__name__)

Result = TypeVar("Result")
FORGET_PAGE = 500


class Store:
    """One replica's way to Redis, under names that begin with `prefix`, which is the deployment's own.

    Every call answers None when Redis is away, at once while the breaker is open.
    """

    def __init__(self, settings: Settings, client: redis.asyncio.Redis) -> None:
        mark = hashlib.sha256(runtime.secret(settings, "cursor_key").encode()).hexdigest()[:12]
        self.prefix = f"pixr:{mark}:"
        self._redis = client
        self._breaker = Breaker("Redis", failures_max=3, reset_s=1.0)

    async def get(self, name: str) -> bytes | None:
        found = await self._guarded(self._redis.get(self.prefix + name))
        return found if isinstance(found, bytes) else None

    async def put(self, name: str, data: bytes, lasts_s: int) -> None:
        await self._guarded(self._redis.set(self.prefix + name, data, ex=lasts_s))

    async def put_all(self, named: Mapping[str, bytes], lasts_s: int) -> None:
        """Several at once, in one round trip."""
        together = self._redis.pipeline(transaction=False)
        for name, data in named.items():
            together.set(self.prefix + name, data, ex=lasts_s)
        await self._guarded(together.execute())

    async def run(self, script: str, name: str, *arguments: float) -> list[Any] | None:
        """A script over one name, atomically."""
        found = await self._guarded(self._redis.eval(script, 1, self.prefix + name, *map(str, arguments)))
        return found if isinstance(found, list) else None

    async def forget(self, start: str) -> None:
        """Remove every name that begins so."""

        async def remove() -> None:
            async for name in self._redis.scan_iter(f"{self.prefix}{start}*", count=FORGET_PAGE):
                await self._redis.unlink(name)

        await self._guarded(remove())

    async def _guarded(self, call: Awaitable[Result]) -> Result | None:
        if not self._breaker.allow():
            _drop(call)
            return None
        try:
            result = await call
        except (TimeoutError, RedisError, OSError) as error:
            self._breaker.failure()
            log.warning("Redis: %s", type(error).__name__)
            return None
        self._breaker.success()
        return result


def _drop(call: Awaitable[Any]) -> None:
    """A coroutine that is never awaited complains; this one is not wanted."""
    close = getattr(call, "close", None)
    if close is not None:
        close()
