"""What the routes work with: the settings, connections, limits and counters of one replica.

Made once by `app` and passed on. Only the routes and `app` know all of it; what they call takes what it needs. Decides
nothing.
"""

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
    """Everything that one replica works with."""

    redis: redis.asyncio.Redis
    store: Store
    limits: Limits
    gates: Gates  # limit everything but searches
    warming: Warming
    metrics: Metrics
    threads: DatabaseThreads  # for calls that block, which are rare
    liveness: Liveness
    same_secrets: SameSecrets

    def failing(self) -> Mapping[str, str]:
        """Map each background task that failed and has not run well since to the reason."""
        owners = {"": self.tasks, "readers": self.readers.tasks, "warming": self.warming.tasks}
        owners["liveness"] = self.liveness.tasks
        return {
            f"{owner} {name}".strip(): reason
            for owner, tasks in owners.items()
            for name, reason in tasks.failing.items()
        }
