"""Which catalogue is searched: its generation and the model whose vectors are compared, looked at once a second or so.

A takedown or a change of model is felt within `generation_interval_s`. While the database is away the last look stands
for `stale_max_s`, so that what is cached can still be shown; nothing can be taken down meanwhile, since that is a write.

Videos that are ingested one after another each change the catalogue, and answers that are kept need not go with each
of them: what only adds moments is taken in at once after a quiet time and then every `growth_interval_s`.

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
from cluster.observability.seldom import Seldom
from cluster.tasks import Tasks
from pipelines.index import vectors
from pipelines.index.vectors import SearchModel
from serve.http import deadlines
from serve.replica.readers import Readers
from serve.settings import SearchSettings

log = logging.getLogger(__name__)

RETRY_S = 0.5  # after a look that failed: callers before then are told what was known


@dataclass(frozen=True)
class State:
    """`stale` when the database could not be asked. `model` is None before the first ingest; `models` names them all.

    `generation` is what kept answers go by: at least as old as `changed`, the changes that hide or rearrange something.
    """

    generation: int
    model: SearchModel | None
    models: tuple[str, ...] = ()
    changed: int = 0
    stale: bool = False

    @classmethod
    def of(cls, generation: int, model: SearchModel | None, models: tuple[str, ...], grown: int) -> State:
        """What `index.state` tells."""
        return cls(generation, model, models, generation - grown)


class Generation:
    """One replica's view. Calls that come while a look is under way wait for that look, as long as they have time."""

    def __init__(self, readers: Readers, search: SearchSettings) -> None:
        self._readers = readers
        self._search = search
        self._known: State | None = None
        self._looked_at = self._known_at = self._failed_at = float("-inf")
        self._changed_at = self._primary_at = self._grown_at = float("-inf")
        self._seen = 0  # the catalogue's own generation
        self._look: asyncio.Task[None] | None = None
        self._seldom = Seldom(log)
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
            self._seldom.warning(f"the generation is not known: {error}")
            self._failed_at = time.monotonic()
            return
        if began < self._known_at:
            return  # a later look has come back before this one
        if found.generation < self._seen:
            log.warning("the primary is at generation %d after %d: was it restored?", found.generation, self._seen)
        self._readers.at_least(found.generation)
        self._seen = found.generation
        self._known, self._known_at = self._taken_in(found), began
        self._primary_at = began if of_primary else self._primary_at
        if began >= self._changed_at:
            self._looked_at = began

    def _taken_in(self, found: State) -> State:
        """What was found, at the generation before where moments were only added since, a short while ago."""
        now_s, known = time.monotonic(), self._known
        is_growth = known is not None and found.generation > known.generation and found.changed == known.changed
        if known is not None and is_growth and now_s - self._grown_at < self._search.growth_interval_s:
            return replace(found, generation=known.generation)
        if is_growth:
            self._grown_at = now_s
        return found

    async def _asked(self) -> tuple[State, bool]:
        """What a database says, and whether it is the primary: that is asked after a change of this replica's own, and
        where another database is behind what is known."""
        if self._primary_at >= self._changed_at or self._changed_at == float("-inf"):
            state = State.of(*await self._readers.ask(vectors.state))
            if state.generation >= self._seen:
                return state, False
        return State.of(*await self._readers.primary(vectors.state)), True

    def _last(self) -> State:
        if self._known is None or time.monotonic() - self._known_at > self._search.stale_max_s:
            raise Temporary("the database does not answer")
        return replace(self._known, stale=True)
