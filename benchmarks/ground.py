"""The services of a benchmark: only those that it needs, under their own supervisor, in the data folder of its settings.

`ray_and_redis` starts Ray, Redis and the door for a PostgreSQL that is already running.
"""

from __future__ import annotations

import dataclasses
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from cluster import ray_cluster, runtime
from cluster.embedded import supervisor
from cluster.errors import Temporary
from cluster.settings import Settings

START_TIMEOUT_S = 180.0


def end_all_on_sigterm() -> None:
    """Have SIGTERM end this program as an exception does, so that everything that it has started is stopped."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


@contextmanager
def services(settings: Settings, only: Sequence[str]) -> Iterator[None]:
    """Start these services, wait until they are healthy, and stop them at the end of the block.

    Raises:
        Temporary: they are not healthy within `START_TIMEOUT_S`.
    """
    process = supervisor.start(settings, only=only)
    try:
        deadline = time.monotonic() + START_TIMEOUT_S
        while (status := supervisor.read_status(settings))["phase"] != "up":
            if process.poll() is not None or time.monotonic() > deadline:
                raise Temporary(f"{', '.join(only)} do not start: {status}")
            time.sleep(0.2)
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


@contextmanager
def ray_and_redis(settings: Settings, postgres_url: str) -> Iterator[Settings]:
    """Start Ray, Redis and the door, join the cluster as a driver, and yield settings that name these and the PostgreSQL.

    S3 is not started: it has an address, where nothing answers.
    """
    with services(settings, ("redis", "ray", "door")):
        for name, preferred in (("serve", 8000), ("solana", 8899), ("s3", 9000)):
            runtime.port(settings, name, preferred)
        redis_url = runtime.endpoints(settings).redis_url
        made = settings.with_section(dataclasses.replace(settings.postgres, url=postgres_url))
        made = made.with_section(dataclasses.replace(made.redis, url=redis_url))
        ray_cluster.connect(settings)
        import ray

        try:
            yield made
        finally:
            ray.shutdown()
