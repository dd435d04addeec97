"""The state of the catalogue that is searched: its generation, and the model whose vectors are compared.

The state is asked for about once a second: a takedown or a change of model takes effect within `generation_interval_s`.
While the database is away the last state holds for `stale_max_s`, so that kept answers can still be shown; nothing can
be taken down meanwhile, since that is a write.

Each video that is ingested changes the catalogue, but kept answers need not be dropped each time. A change that only
adds moments takes effect at once, unless another such change did within `growth_interval_s`: then it waits until that
time is over. The generation never goes backwards: if a standby answers an older one, the primary is asked, and standbys
that are behind are not read until they have caught up.
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

RETRY_S = 0.5  # after a look that failed; until then callers get the last state that was known


@dataclass(frozen=True)
class State:
    """The state of the catalogue, as one replica knows it."""

    generation: int  # that kept answers belong to
    model: SearchModel | None  # whose vectors are compared; None before the first ingest
    models: tuple[str, ...] = ()  # the names of all models
    changed: int = 0  # how many changes of the catalogue did more than add moments
    stale: bool = False  # the database could not be asked, and this is the last state that was known

    @classmethod
    def of(cls, generation: int, model: SearchModel | None, models: tuple[str, ...], grown: int) -> State:
        """Build the state from a row of `vectors.state`.

        Args:
            generation: the number of the catalogue's changes.
            model: the model that is searched.
            models: the names of all models.
            grown: how many of the changes only added moments.

        Returns:
            The state, not stale.
        """
        return cls(generation, model, models, generation - grown)


class Generation:
    """The state as one replica knows it. Callers who come while it is being read wait for the same reading."""

    def __init__(self, readers: Readers, search: SearchSettings) -> None:
        self._readers = readers
        self._search = search
        self._known: State | None = None
        self._looked_at = self._known_at = self._failed_at = float("-inf")
        self._changed_at = self._primary_at = self._grown_at = float("-inf")
        self._seen = 0  # the catalogue's own generation
        self._looking: asyncio.Task[None] | None = None
        self._seldom = Seldom(log)
        self.tasks = Tasks("generation")

    async def now(self) -> State:
        """Return the state, at most `generation_interval_s` old; an older one, `stale`, if the database takes too long.

        Raises:
            Temporary: the database has been away for longer than `stale_max_s`.
        """
        if (known := self.fresh()) is not None:
            return known
        if self._looking is None or self._looking.done():
            if time.monotonic() - self._failed_at < RETRY_S:
                return self._last()
            self._looking = self.tasks.spawn("a look at the generation", self._look())
        wait_s = self._search.deadline_s if self._known is None else self._search.connection_wait_s
        await asyncio.wait({self._looking}, timeout=deadlines.left_s(wait_s))
        return self.fresh() or self._last()

    def expire(self) -> None:
        """Make the next call of `now` ask the primary, because this replica has just changed the catalogue."""
        self._looked_at = self._failed_at = float("-inf")
        self._changed_at = time.monotonic()
        self._looking = None  # a look that is under way may have been answered before the change

    def fresh(self) -> State | None:
        """Return the state if it was read within the last `generation_interval_s`; else None."""
        return self._known if time.monotonic() - self._looked_at < self._search.generation_interval_s else None

    async def close(self) -> None:
        """End a reading that is under way."""
        await self.tasks.close()

    async def _look(self) -> None:
        """Read the state, once for all callers who wait; none of their deadlines applies to it."""
        began = time.monotonic()
        try:
            with deadlines.unlimited():
                state, of_primary = await self._ask()
        except (Temporary, psycopg.OperationalError) as error:
            self._seldom.warning(f"the generation is not known: {error}")
            self._failed_at = time.monotonic()
            return
        if began < self._known_at:
            return  # a look that began later has come back before this one
        if state.generation < self._seen:
            log.warning("the primary is at generation %d after %d: was it restored?", state.generation, self._seen)
        self._readers.at_least(state.generation)
        self._seen = state.generation
        self._known, self._known_at = self._growth_delayed(state), began
        self._primary_at = began if of_primary else self._primary_at
        if began >= self._changed_at:
            self._looked_at = began

    def _growth_delayed(self, state: State) -> State:
        """Return a state that was just read; while growth is held back, return it with the generation known before.

        Growth means that only moments were added since. It takes effect at most once in `growth_interval_s`.
        """
        now_s, known = time.monotonic(), self._known
        is_growth = known is not None and state.generation > known.generation and state.changed == known.changed
        if known is not None and is_growth and now_s - self._grown_at < self._search.growth_interval_s:
            return replace(state, generation=known.generation)
        if is_growth:
            self._grown_at = now_s
        return state

    async def _ask(self) -> tuple[State, bool]:
        """Return the state in the database, and whether the primary was asked for it.

        The primary is asked after a change of this replica's own, and where a standby is behind what is known.
        """
        if self._primary_at >= self._changed_at or self._changed_at == float("-inf"):
            state = State.of(*await self._readers.ask(vectors.state))
            if state.generation >= self._seen:
                return state, False
        return State.of(*await self._readers.primary(vectors.state)), True

    def _last(self) -> State:
        """Return the last known state, marked as stale.

        Raises:
            Temporary: it is older than `stale_max_s`, or none was ever read.
        """
        if self._known is None or time.monotonic() - self._known_at > self._search.stale_max_s:
            raise Temporary("the database does not answer")
        return replace(self._known, stale=True)
