"""What every route works with, made once a replica and passed on. Holds connections; decides nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import redis.asyncio

from serve.access.limits import Limits
from serve.http.gates import Gates
from serve.http.threads import DatabaseThreads
from serve.metrics import Metrics
from serve.replica.liveness import Liveness
from serve.replica.same_secrets import SameSecrets
from serve.replica.store import Store
from serve.replica.warming import Warming
from serve.search.context import SearchContext


@dataclass(frozen=True)
class Services(SearchContext):
    """One replica's settings and connections."""

    redis: redis.asyncio.Redis
    store: Store
    limits: Limits
    gates: Gates  # of everything else
    warming: Warming
    metrics: Metrics
    threads: DatabaseThreads  # for rare calls that block
    liveness: Liveness
    same_secrets: SameSecrets

    def failing(self) -> Mapping[str, str]:
        """The background tasks that failed and have not been well since, each with the reason."""
        owners = {"": self.tasks, "readers": self.readers.tasks, "warming": self.warming.tasks}
        owners["liveness"] = self.liveness.tasks
        return {
            f"{owner} {name}".strip(): reason
            for owner, tasks in owners.items()
            for name, reason in tasks.failing.items()
        }
