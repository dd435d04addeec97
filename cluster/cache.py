"""Redis (or Valkey) clients. What is kept there can be lost at any time without losing anything but speed."""

from __future__ import annotations

import redis
import redis.asyncio

TIMEOUT_S = 0.5


def client(url: str) -> redis.Redis:
    """A client with short timeouts: a cache that hangs is worse than none."""
    return redis.Redis.from_url(url, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S)


def async_client(url: str) -> redis.asyncio.Redis:
    """The same for an event loop."""
    made: redis.asyncio.Redis = redis.asyncio.Redis.from_url(
        url, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S
    )
    return made
