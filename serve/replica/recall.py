"""Recall on real queries: now and then a search that the index answered is made again by comparing every vector.

These checks run beside the traffic, one at a time and not more often than is allowed, on a standby where there is one. The
mean recall of the last checks is a metric to alert on: an index loses recall silently, as rows come and queries change. The
indexes of the catalogue's other models get the same query, so that the recall of each is known before searches switch to it.
No caller sees the results.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import psycopg
from numpy.typing import NDArray

from cluster.errors import PixrError
from cluster.tasks import Tasks
from pipelines.index import vectors
from pipelines.index.vectors import Filters, Hit, SearchLimits, SearchModel, VectorHits
from serve.http import deadlines
from serve.replica.readers import Readers
from serve.settings import SearchSettings

log = logging.getLogger(__name__)

Vector = NDArray[np.float32]
AT = 10  # moments that are compared of each search: recall@10
EXACT = "exact"  # the manner of questions that compare every vector
SLACK_S = 1.0  # for the server to end a comparison that takes too long
KEPT = 100  # checks of one model that the mean is taken of
CLOSE_WAIT_S = 1.0  # for the check that is under way


@dataclass(frozen=True)
class Shadow:
    """A query for the catalogue's other models, whose recall is checked too although no search uses them.

    It has the names of these models, the query's vector in each, and the limits.
    """

    names: Sequence[str]  # of the models
    vector: Callable[[SearchModel], Awaitable[Vector]]  # encodes the query in one of them
    plan: SearchLimits


class Recall:
    """The recall of one replica's searches, as its checks have found it. `follow` never waits and never fails."""

    def __init__(self, readers: Readers, search: SearchSettings) -> None:
        self._readers = readers
        self._search = search
        self._looks: defaultdict[str, deque[float]] = defaultdict(lambda: deque(maxlen=KEPT))
        self._looked_at = float("-inf")
        self._took_s = 0.0
        self._task: asyncio.Task[None] | None = None
        self.tasks = Tasks("recall")

    @property
    def means(self) -> Mapping[str, float]:
        """The mean recall, from 0 to 1, of the last checks of each model that was checked."""
        return {name: sum(looks) / len(looks) for name, looks in self._looks.items()}

    def looks(self, model: str) -> int:
        """Return the number of checks over which a model's mean is taken."""
        return len(self._looks[model])

    def follow(
        self, model: SearchModel, vector: Vector, filters: Filters, looked: VectorHits, shadow: Shadow | None = None
    ) -> None:
        """Begin a check of a search that the index has answered, if it is time for one.

        Args:
            model: the model that was searched.
            vector: the query, (dimensions,), of unit length.
            filters: what the search was narrowed to.
            looked: what the index found.
            shadow: the same query for the catalogue's other models; None if there are none.
        """
        every_s = self._search.recall_interval_s
        due = every_s > 0 and time.monotonic() - self._looked_at >= max(
            every_s, self._took_s / self._search.recall_share_max
        )
        if looked.mode == "index" and looked.hits and due and (self._task is None or self._task.done()):
            self._looked_at = time.monotonic()
            self._task = self.tasks.spawn("a look", self._look(model, vector, filters, looked, shadow))

    async def close(self) -> None:
        """Wait a moment for the check that is under way, then end."""
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=CLOSE_WAIT_S)
        await self.tasks.close()

    async def _look(
        self, model: SearchModel, vector: Vector, filters: Filters, looked: VectorHits, shadow: Shadow | None
    ) -> None:
        """Measure the recall of the model that was searched, then that of the other models."""
        began = time.monotonic()
        try:
            with deadlines.unlimited():
                await self._compare(model, vector, filters, looked)
                if shadow is not None:
                    for name in shadow.names:
                        await self._look_aside(name, filters, shadow)
        except (PixrError, psycopg.Error) as error:
            log.warning("recall is not known: %s", error)
        finally:
            self._took_s = time.monotonic() - began

    async def _compare(self, model: SearchModel, vector: Vector, filters: Filters, looked: VectorHits) -> None:
        """Compare the query with every vector, and note what share of the nearest moments the index found."""
        timeout_ms = self._search.recall_timeout_ms
        true = await self._readers.ask(
            lambda connection: vectors.exact(connection, model, vector, AT, filters, timeout_ms),
            manner=EXACT,
            limit_s=timeout_ms / 1000 + SLACK_S,
        )
        self._looks[model.name].append(share_of(looked.hits, true))

    async def _look_aside(self, name: str, filters: Filters, shadow: Shadow) -> None:
        """Check the recall of a model that searches do not use.

        Nothing is checked if the model was removed, or if no index was used for the query.
        """
        model = await self._readers.ask(lambda connection: vectors.named(connection, name))
        if model is None:
            return
        vector = await shadow.vector(model)
        looked = await self._readers.ask(
            lambda connection: vectors.nearest(connection, model, vector, AT, filters, shadow.plan), manner=EXACT
        )
        if looked.mode == "index":
            await self._compare(model, vector, filters, looked)


def share_of(hits: Sequence[Hit], true: Sequence[Hit]) -> float:
    """Return the recall, from 0 to 1: the share of `true` that is among the first `len(true)` of `hits`."""
    found = {hit.segment_id for hit in hits[: len(true)]}
    return len(found & {hit.segment_id for hit in true}) / max(1, len(true))
