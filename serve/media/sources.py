"""Where pictures and videos lie and who may see them, kept while the catalogue stands at the same generation.

A page shows twenty pictures, each of which would cost the primary a question that the search itself did not. A replica
asks for each once a generation, of any database that keeps up, and of the primary what such a one does not have. A
takedown is felt as in searches, within `generation_interval_s`; what is private is never kept and asked of the primary.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from psycopg import AsyncConnection

from pipelines.catalog import videos
from serve.replica.connections import Question
from serve.replica.generation import Generation
from serve.replica.readers import Readers

PRIVATE = "private"


@dataclass(frozen=True)
class Source:
    """An object that may be led to, by its S3 address."""

    uri: str
    visibility: str


class Sources:
    """One replica's. Used inside one event loop; every call may raise `Temporary` or `psycopg.Error`."""

    def __init__(self, readers: Readers, generation: Generation, kept_max: int) -> None:
        self._readers, self._generation, self._kept_max = readers, generation, kept_max
        self._kept: OrderedDict[tuple[str, int], Source] = OrderedDict()
        self._kept_at = 0

    async def picture(self, segment_id: int, *, private: bool) -> Source | None:
        """A moment's picture; None where there is none, or none that may be seen. `private`: with a grant."""

        async def look(connection: AsyncConnection[Any]) -> Source | None:
            found = await videos.picture(connection, segment_id)
            return Source(found.uri, found.visibility) if found is not None and found.uri is not None else None

        return await self._seen("picture", segment_id, look, private=private)

    async def video(self, video_id: int, *, private: bool) -> Source | None:
        """A ready video, as `picture`."""

        async def look(connection: AsyncConnection[Any]) -> Source | None:
            found = await videos.get(connection, video_id)
            is_ready = found is not None and found.status == "ready"
            return Source(found.playback_uri or found.source_uri, found.visibility) if found and is_ready else None

        return await self._seen("video", video_id, look, private=private)

    async def _seen(self, kind: str, number: int, look: Question[Source | None], *, private: bool) -> Source | None:
        if private:
            return await self._readers.primary(look)
        generation = (await self._generation.now()).generation
        if generation != self._kept_at:
            self._kept.clear()
            self._kept_at = generation
        found = self._kept.get((kind, number)) or await self._readers.ask(look) or await self._readers.primary(look)
        if found is None or found.visibility == PRIVATE:
            return None
        if generation == self._kept_at:  # it may have moved on while this was asked
            self._keep((kind, number), found)
        return found

    def _keep(self, name: tuple[str, int], found: Source) -> None:
        self._kept[name] = found
        self._kept.move_to_end(name)
        while len(self._kept) > self._kept_max:
            self._kept.popitem(last=False)
