"""Recall as it is on real queries: now and then a search that the index answered is made again by comparing everything.

Beside the traffic, one at a time and not more often than is allowed, on a replica where there is one; the mean of the
last looks is a metric. Alert on it: an index loses recall silently, as rows come and queries change.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Sequence

import numpy as np
import psycopg
from numpy.typing import NDArray

from cluster.errors import Temporary
from pipelines import index
from pipelines.index import Filters, Hit, Looked, Model
from serve.readers import Readers
from serve.settings import SearchSettings

log = logging.getLogger(__name__)

Vector = NDArray[np.float32]
AT = 10
KEPT = 100


class Recall:
    """One replica's looks. `follow` never waits and never fails."""

    def __init__(self, readers: Readers, search: SearchSettings) -> None:
        self._readers = readers
        self._search = search
        self._looks: deque[float] = deque(maxlen=KEPT)
        self._looked_at = float("-inf")
        self._took_s = 0.0
        self._task: asyncio.Task[None] | None = None

    @property
    def mean(self) -> float:
        """Of the last looks; not a number before the first one."""
        return sum(self._looks) / len(self._looks) if self._looks else float("nan")

    @property
    def looks(self) -> int:
        return len(self._looks)

    def follow(self, model: Model, vector: Vector, filters: Filters, looked: Looked) -> None:
        """Look again at what the index found, if it is time to."""
        every_s = self._search.recall_interval_s
        due = every_s > 0 and time.monotonic() - self._looked_at >= max(
            every_s, self._took_s / self._search.recall_share_max
        )
        if looked.mode == "index" and looked.hits and due and (self._task is None or self._task.done()):
            self._looked_at = time.monotonic()
            self._task = asyncio.create_task(self._look(model, vector, filters, looked))

    async def close(self) -> None:
        if self._task is not None:
            await asyncio.wait({self._task})

    async def _look(self, model: Model, vector: Vector, filters: Filters, looked: Looked) -> None:
        began = time.monotonic()
        try:
            async with self._readers.connection() as connection:
                true = await index.exact(connection, model, vector, AT, filters, self._search.recall_timeout_ms)
        except (Temporary, psycopg.Error) as error:
            log.warning("recall is not known: %s", type(error).__name__)
            return
        finally:
            self._took_s = time.monotonic() - began
        self._looks.append(share_of(looked.hits, true))


def share_of(hits: Sequence[Hit], true: Sequence[Hit]) -> float:
    """How many of the true nearest are among the first that were found, from 0 to 1."""
    found = {hit.segment_id for hit in hits[: len(true)]}
    return len(found & {hit.segment_id for hit in true}) / max(1, len(true))
