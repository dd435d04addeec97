"""What every route works with, made once a replica and passed on. Holds connections; decides nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import redis.asyncio
from numpy.typing import NDArray

from cluster.resilience import Breaker
from cluster.settings import Settings
from cluster.storage import Storage
from cluster.tasks import Tasks
from ledger.recorder import Recorder
from ledger.settings import Economics
from pipelines.cutoff import Cutoff
from pipelines.relevance import Calibration
from serve.feed import Feed
from serve.gates import Gate, Gates
from serve.generation import Generation
from serve.limits import Limits
from serve.liveness import Liveness
from serve.metrics import Metrics
from serve.query import Remembered
from serve.readers import Readers
from serve.recall import Recall
from serve.repeats import Repeats
from serve.results import Results
from serve.same_secrets import SameSecrets
from serve.settings import SearchSettings
from serve.store import Store
from serve.threads import DatabaseThreads, Threads
from serve.warming import Warming

Vector = NDArray[np.float32]


@dataclass(frozen=True)
class Facts:
    """What a replica must know of the model that encodes queries."""

    name: str
    dimensions: int
    fingerprint: str
    calibration: Calibration
    cutoff: Cutoff = field(default_factory=Cutoff, compare=False)  # what is too far to be shown


class Encoding(Protocol):
    """The encoder, wherever it runs. A model is named as in the catalogue, "" is the encoder's own.

    Every call may raise `Temporary`.
    """

    async def answers(self) -> None:
        """Ask the encoder itself, whatever is known of it."""

    async def facts(self, model: str = "") -> Facts: ...

    def prepare(self, models: Iterable[str]) -> None: ...

    async def text(self, text: str, model: str = "") -> Vector: ...

    async def image(self, data: bytes, model: str = "") -> Vector: ...

    async def close(self) -> None: ...


@dataclass(frozen=True)
class Services:
    """One replica's settings and connections."""

    settings: Settings
    search: SearchSettings
    economics: Economics
    readers: Readers
    redis: redis.asyncio.Redis
    store: Store
    storage: Storage
    encoding: Encoding
    recorder: Recorder
    generation: Generation
    results: Results
    feed: Feed
    limits: Limits
    gate: Gate  # of searches
    gates: Gates  # of everything else
    recall: Recall
    warming: Warming
    metrics: Metrics
    remembered: Remembered
    repeats: Repeats  # what an Idempotency-Key stands for
    cursor_key: bytes  # that signs cursors
    patience: Breaker  # with searches at full recall
    threads: DatabaseThreads  # for rare calls that block
    objects: Threads  # for calls to the object store
    liveness: Liveness
    same_secrets: SameSecrets
    tasks: Tasks  # that belong to no part alone

    def failing(self) -> Mapping[str, str]:
        """The background tasks that failed and have not been well since, each with the reason."""
        owners = {"": self.tasks, "readers": self.readers.tasks, "warming": self.warming.tasks}
        owners["liveness"] = self.liveness.tasks
        return {
            f"{owner} {name}".strip(): reason
            for owner, tasks in owners.items()
            for name, reason in tasks.failing.items()
        }
