"""Which catalogue is searched: its generation and the model whose vectors are compared, looked at once a second or so.

A takedown or a change of model is felt within `generation_interval_s`. While the database is away the last look stands
for `stale_max_s`, so that what is cached can still be shown; nothing can be taken down meanwhile, since that is a write.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass, replace

import psycopg

from cluster.errors import Temporary
from pipelines import index
from pipelines.index import Model
from serve.readers import Readers
from serve.settings import SearchSettings

log = logging.getLogger(__name__)

RETRY_S = 0.5  # after a look that failed: whoever comes before then is told what was known


@dataclass(frozen=True)
class State:
    """`stale` when the database could not be asked. `model` is None before the first ingest; `models` names them all."""

    generation: int
    model: Model | None
    models: tuple[str, ...] = ()
    stale: bool = False


class Generation:
    """One replica's view. Calls that come while a look is under way wait for that look."""

    def __init__(self, readers: Readers, search: SearchSettings) -> None:
        self._readers = readers
        self._search = search
        self._known: State | None = None
        self._looked_at = self._known_at = float("-inf")
        self._looking = asyncio.Lock()
        self._failed_at = float("-inf")

    async def now(self) -> State:
        """The state, at most `generation_interval_s` old.

        Raises:
            Temporary: the database has been away for too long.
        """
        if (known := self.fresh()) is not None:
            return known
        async with self._looking:
            if (known := self.fresh()) is not None:
                return known
            began = time.monotonic()
            if began - self._failed_at < RETRY_S:
                return self._last()
            try:
                generation, model, models = await self._readers.ask(index.state)
            except (Temporary, psycopg.OperationalError) as error:
                log.warning("the generation is not known: %s", error)
                self._failed_at = time.monotonic()
                return self._last()
            self._known = State(generation, model, models)
            self._looked_at = self._known_at = began
            return self._known

    def expire(self) -> None:
        """Look again before the next answer: this replica has just changed something."""
        self._looked_at = float("-inf")

    def fresh(self) -> State | None:
        """The state, if it is known well enough without asking."""
        return self._known if time.monotonic() - self._looked_at < self._search.generation_interval_s else None

    def _last(self) -> State:
        if self._known is None or time.monotonic() - self._known_at > self._search.stale_max_s:
            raise Temporary("the database does not answer")
        return replace(self._known, stale=True)
