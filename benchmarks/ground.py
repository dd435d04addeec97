"""Ray, Redis and the door for a benchmark, under a supervisor of its own, beside a PostgreSQL that is there already."""

from __future__ import annotations

import dataclasses
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

from cluster import ray_cluster, runtime
from cluster.embedded import supervisor
from cluster.errors import Temporary
from cluster.settings import Settings

START_TIMEOUT_S = 180.0


@contextmanager
def ray_and_redis(settings: Settings, postgres_url: str) -> Iterator[Settings]:
    """Settings with everything a search needs but S3; this process is the cluster's driver."""
    process = supervisor.start(settings, only=("redis", "ray", "door"))
    try:
        deadline = time.monotonic() + START_TIMEOUT_S
        while (status := supervisor.read_status(settings))["phase"] != "up":
            if process.poll() is not None or time.monotonic() > deadline:
                raise Temporary(f"Ray, Redis and the door do not start: {status}")
            time.sleep(0.2)
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
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        os.environ.pop("RAY_AUTH_MODE", None)
