"""What every route works with, made once a replica and passed on. Holds connections; decides nothing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import redis.asyncio
from numpy.typing import NDArray
from psycopg_pool import AsyncConnectionPool

from cluster.resilience import Breaker
from cluster.settings import Settings
from cluster.storage import Storage
from ledger.appearances import Recorder
from ledger.settings import Economics
from pipelines.relevance import Calibration
from serve.feed import Feed
from serve.generation import Generation
from serve.limits import Gate, Limits
from serve.metrics import Metrics
from serve.query import Remembered
from serve.readers import Readers
from serve.recall import Recall
from serve.results import Results
from serve.settings import SearchSettings
from serve.store import Store
from serve.warming import Warming

Vector = NDArray[np.float32]


@dataclass(frozen=True)
class Facts:
    """What a replica must know of the model that encodes queries."""

    name: str
    dimensions: int
    fingerprint: str
    calibration: Calibration


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


@dataclass(frozen=True)
class Services:
    """One replica's settings and connections."""

    settings: Settings
    search: SearchSettings
    economics: Economics
    pool: AsyncConnectionPool
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
    gate: Gate
    recall: Recall
    warming: Warming
    metrics: Metrics
    remembered: Remembered
    cursor_key: bytes  # that signs cursors
    patience: Breaker  # with searches at full recall
