"""Services of a benchmark's own, under a supervisor of its own: some of them, in the data folder of the settings.

`ray_and_redis` are Ray, Redis and the door beside a PostgreSQL that is there already.
"""

from __future__ import annotations

import dataclasses
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from cluster import ray_cluster, runtime, supervisor
from cluster.errors import Temporary
from cluster.settings import Settings

START_TIMEOUT_S = 180.0


def end_all_on_sigterm() -> None:
    """Have SIGTERM end this program as an exception does, so that all that was begun is ended."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


@contextmanager
def services(settings: Settings, only: Sequence[str]) -> Iterator[None]:
    """These services, well, for as long as the block runs.

    Raises:
        Temporary: they are not well within `START_TIMEOUT_S`.
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
    """Settings with everything a search needs but S3; this process is the cluster's driver."""
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
