"""The S3 addresses of pictures and videos and who may see them, cached for one generation of the catalogue.

A page shows twenty pictures; without a cache, each would cost the primary a query. A replica asks for each picture once
per generation. It asks a standby that keeps up, and the primary if the standby does not have the row yet. A takedown
takes effect within `generation_interval_s`, as in searches. Private videos are never cached; the primary is asked each
time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cachetools import LRUCache
from psycopg import AsyncConnection

from pipelines.catalog import videos
from serve.replica.connections import Question
from serve.replica.generation import Generation
from serve.replica.readers import Readers

PRIVATE = "private"


@dataclass(frozen=True)
class Source:
    """An object that a link may lead to: its S3 address and its video's visibility."""

    uri: str
    visibility: str


class Sources:
    """One replica's cache of the objects that links lead to. For use inside one event loop.

    Every call may raise `Temporary` or `psycopg.Error`.
    """

    def __init__(self, readers: Readers, generation: Generation, entries_max: int) -> None:
        self._readers, self._generation = readers, generation
        self._cache: LRUCache[tuple[str, int], Source] = LRUCache(entries_max)
        self._generation_cached = 0

    async def picture(self, segment_id: int, *, private: bool) -> Source | None:
        """Return a moment's picture; None if none may be seen. `private` also gives access to private videos."""

        async def read(connection: AsyncConnection[Any]) -> Source | None:
            picture = await videos.picture(connection, segment_id)
            return Source(picture.uri, picture.visibility) if picture is not None and picture.uri is not None else None

        return await self._get("picture", segment_id, read, private=private)

    async def video(self, video_id: int, *, private: bool) -> Source | None:
        """Return a ready video; None if none may be seen. `private` also gives access to private videos."""

        async def read(connection: AsyncConnection[Any]) -> Source | None:
            video = await videos.get(connection, video_id)
            if video is None or video.status != "ready":
                return None
            return Source(video.playback_uri or video.source_uri, video.visibility)

        return await self._get("video", video_id, read, private=private)

    async def _get(self, kind: str, number: int, read: Question[Source | None], *, private: bool) -> Source | None:
        """Return a source from the cache, or else read it; None if it is private and `private` does not give access."""
        if private:
            return await self._readers.primary(read)
        generation = (await self._generation.now()).generation
        if generation != self._generation_cached:
            self._cache.clear()
            self._generation_cached = generation
        source = self._cache.get((kind, number)) or await self._readers.ask(read) or await self._readers.primary(read)
        if source is None or source.visibility == PRIVATE:
            return None
        if generation == self._generation_cached:  # the generation may have risen while the database was asked
            self._cache[kind, number] = source
        return source
