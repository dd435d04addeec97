"""Clients for Redis (or Valkey).

Pixr keeps only caches and counters there: losing everything in it costs speed, never data. Knows no key.
"""

from __future__ import annotations

import redis
import redis.asyncio

TIMEOUT_S = 0.5


def client(url: str) -> redis.Redis:
    """Return a client with short timeouts: waiting for a cache that hangs is worse than having none."""
    return redis.Redis.from_url(url, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S)


def async_client(url: str) -> redis.asyncio.Redis:
    """Return a client with the same short timeouts for use inside an event loop."""
    connection: redis.asyncio.Redis = redis.asyncio.Redis.from_url(
        url, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S
    )
    return connection
