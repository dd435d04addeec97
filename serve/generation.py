"""Which catalogue is searched: its generation and the model whose vectors are compared, looked at once a second or so.

A takedown or a change of model is felt within `generation_interval_s`. While the database is away the last look stands
for `stale_max_s`, so that what is cached can still be shown; nothing can be taken down meanwhile, since that is a write.

It never goes backwards: what a replica of the database answers that is behind what is known is asked of the primary,
and replicas that are behind are not read until they have caught up.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass, replace

import psycopg

from cluster.errors import Temporary
from cluster.tasks import Tasks
from pipelines import index
from pipelines.index import Model
from serve import deadlines
from serve.readers import Readers
from serve.settings import SearchSettings

log = logging.getLogger(__name__)

RETRY_S = 0.5  # after a look that failed: callers before then are told what was known


@dataclass(frozen=True)
class State:
    """`stale` when the database could not be asked. `model` is None before the first ingest; `models` names them all."""

    generation: int
    model: Model | None
    models: tuple[str, ...] = ()
    stale: bool = False


class Generation:
    """One replica's view. Calls that come while a look is under way wait for that look, as long as they have time."""

    def __init__(self, readers: Readers, search: SearchSettings) -> None:
        self._readers = readers
        self._search = search
        self._known: State | None = None
        self._looked_at = self._known_at = self._failed_at = float("-inf")
        self._changed_at = self._primary_at = float("-inf")
        self._look: asyncio.Task[None] | None = None
        self.tasks = Tasks("generation")

    async def now(self) -> State:
        """The state, at most `generation_interval_s` old; an older one, `stale`, where the look takes too long.

        Raises:
            Temporary: the database has been away for too long.
        """
        if (known := self.fresh()) is not None:
            return known
        if self._look is None or self._look.done():
            if time.monotonic() - self._failed_at < RETRY_S:
                return self._last()
            self._look = self.tasks.spawn("a look at the generation", self._looked())
        wait_s = self._search.deadline_s if self._known is None else self._search.connection_wait_s
        await asyncio.wait({self._look}, timeout=deadlines.left_s(wait_s))
        return self.fresh() or self._last()

    def expire(self) -> None:
        """Look again before the next answer, at the primary: this replica has just changed something."""
        self._looked_at = self._failed_at = float("-inf")
        self._changed_at = time.monotonic()
        self._look = None  # one that is under way may have been answered before the change

    def fresh(self) -> State | None:
        """The state, if it is known well enough without asking."""
        return self._known if time.monotonic() - self._looked_at < self._search.generation_interval_s else None

    async def close(self) -> None:
        await self.tasks.close()

    async def _looked(self) -> None:
        """Ask for the state, once for all who wait; belongs to none of their requests."""
        began = time.monotonic()
        try:
            with deadlines.unlimited():
                found, of_primary = await self._asked()
        except (Temporary, psycopg.OperationalError) as error:
            log.warning("the generation is not known: %s", error)
            self._failed_at = time.monotonic()
            return
        if began < self._known_at:
            return  # a later look has come back before this one
        if self._known is not None and found.generation < self._known.generation:
            log.warning(
                "the primary is at generation %d after %d: was it restored?", found.generation, self._known.generation
            )
        self._known, self._known_at = found, began
        self._primary_at = began if of_primary else self._primary_at
        if began >= self._changed_at:
            self._looked_at = began
        self._readers.at_least(found.generation)

    async def _asked(self) -> tuple[State, bool]:
        """What a database says, and whether it is the primary: that is asked after a change of this replica's own, and
        where another database is behind what is known."""
        if self._primary_at >= self._changed_at or self._changed_at == float("-inf"):
            state = State(*await self._readers.ask(index.state))
            if self._known is None or state.generation >= self._known.generation:
                return state, False
        return State(*await self._readers.primary(index.state)), True

    def _last(self) -> State:
        if self._known is None or time.monotonic() - self._known_at > self._search.stale_max_s:
            raise Temporary("the database does not answer")
        return replace(self._known, stale=True)
