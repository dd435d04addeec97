"""The feed: moments worth seeing without a query, by what is watched, new and invested in.

Owns `app.watch_events`, and `app.watched`, which a trigger keeps in step with it. A search for which nothing else can
be asked is answered from the feed, so a replica keeps the feed of the generation that it knows. An event records what
was watched, and the viewer as a keyed hash only; it does not tell who watched, or where.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, LiteralString

import psycopg
from psycopg import AsyncConnection, Connection

from cluster.errors import Temporary
from cluster.observability.seldom import Seldom
from cluster.tasks import Tasks
from ledger.creators.stakes import INVESTED
from pipelines.catalog.videos import (
    NEWEST_SEGMENTS,
    OF_CANDIDATES,
    SEGMENT_IS_VISIBLE,
    SEGMENT_LENGTH,
    VISIBLE,
)
from pipelines.index import vectors
from pipelines.index.vectors import MomentDetails
from serve.http import deadlines
from serve.replica.generation import State
from serve.replica.readers import Readers
from serve.search.cursors import Ranked
from serve.settings import SearchSettings

log = logging.getLogger(__name__)

SPARE = 4  # of each kind, this many times the moments that a feed can show are scored
COLD_HALF_LIVES = (
    14  # after which one viewer of a moment counts as a ten-thousandth of a viewer (2 to the power of -14)
)
CLOSE_WAIT_S = 1.0  # for a feed that is being fetched
AGAIN_S = 3600  # within which an event of one viewer, moment and kind counts once
# The newest videos by their first moment, the moments watched most and those with the largest stakes: each bounded before
# anything is scored. A viewer counts the less the longer ago they watched (`app.watched`, whose first rows are read by an
# index, however many events there are); what the viewer of this feed has seen comes last. Only moments that may be seen
# count toward those bounds, or hidden ones would crowd out the others.
SCORED: LiteralString = f"""
    WITH watched AS (
        SELECT segment_id, power(2, heat - app.half_lives(now())) AS viewers FROM app.watched
        WHERE heat > app.half_lives(now()) - %(cold)s AND {SEGMENT_IS_VISIBLE} ORDER BY heat DESC LIMIT %(most)s),
    newest AS (
        {NEWEST_SEGMENTS}),
    staked AS (
        {INVESTED}
        WHERE {SEGMENT_IS_VISIBLE} GROUP BY 1 ORDER BY 2 DESC LIMIT %(most)s),
    candidates AS (
        SELECT segment_id FROM watched UNION SELECT segment_id FROM newest UNION SELECT segment_id FROM staked)
    SELECT s.id, (%(watched)s * ln(1 + coalesce(w.viewers, 0)) + %(staked)s * ln(1 + coalesce(i.invested, 0))::float8
                  + %(fresh)s * power(0.5, extract(epoch FROM now() - v.created_at) / %(half_life_s)s))::float8
                 - CASE WHEN EXISTS (SELECT FROM app.watch_events e WHERE e.viewer = %(viewer)s AND e.segment_id = s.id)
                        THEN 1000 ELSE 0 END AS score
    FROM candidates c {OF_CANDIDATES}
    LEFT JOIN watched w ON w.segment_id = s.id LEFT JOIN staked i ON i.segment_id = s.id
    WHERE {VISIBLE} ORDER BY score DESC, s.id DESC LIMIT %(limit)s"""


@dataclass(frozen=True)
class Worth:
    """A moment of the feed, with what is shown of it and its score."""

    details: MomentDetails
    score: float


async def scored(
    connection: AsyncConnection[Any], search: SearchSettings, limit: int, viewer: bytes = b""
) -> list[Worth]:
    """Return the feed, best first; for a known viewer, moments that they have not seen come first.

    Args:
        connection: to the primary or a standby.
        search: the weights of what is watched, new and invested in, and the limits.
        limit: the most moments to return.
        viewer: the keyed hash of the viewer; empty if the feed is for all.

    Returns:
        The moments with their scores.
    """
    return await shown(connection, await ranked(connection, search, limit, viewer))


async def shown(connection: AsyncConnection[Any], ranks: Sequence[Ranked]) -> list[Worth]:
    """Look up what is shown of ranked moments, in their order; those that may not be seen any more are left out."""
    details = await vectors.moment_details(connection, [each.segment_id for each in ranks])
    return [Worth(details[each.segment_id], each.score) for each in ranks if each.segment_id in details]


async def ranked(
    connection: AsyncConnection[Any], search: SearchSettings, limit: int, viewer: bytes = b""
) -> list[Ranked]:
    """Return the moments of the feed, best first, without what is shown of them.

    Args:
        connection: to the primary or a standby.
        search: the weights of what is watched, new and invested in, and the limits.
        limit: the most moments to return.
        viewer: the keyed hash of the viewer; empty if the feed is for all.

    Returns:
        The moments with their scores; their relevance is 0.
    """
    rows = await (await connection.execute(SCORED, parameters(search, limit, viewer))).fetchall()
    return [Ranked(row[0], float(row[1]), 0, ()) for row in rows]


def parameters(search: SearchSettings, limit: int, viewer: bytes) -> dict[str, Any]:
    """Return the parameters of `SCORED`."""
    return {
        "cold": COLD_HALF_LIVES,
        "watched": search.feed_watched_weight,
        "fresh": search.feed_fresh_weight,
        "staked": search.feed_stake_weight,
        "half_life_s": search.feed_half_life_s,
        "most": search.feed_limit_max * SPARE,
        "viewer": viewer,
        "limit": limit,
    }


# Nobody watches more of a moment than its length, and a viewer's event of a kind counts once in `AGAIN_S`, so that nobody
# steers the feed, or fills the table, by sending an event again.
WATCHED: LiteralString = f"""
    WITH visible AS (
        {SEGMENT_LENGTH}),
    noted AS (
        INSERT INTO app.watch_events (viewer, segment_id, kind, watched_ms)
        SELECT %(viewer)s, id, %(kind)s, least(%(watched_ms)s, lasts_ms) FROM visible
        WHERE NOT EXISTS (SELECT FROM app.watch_events e WHERE e.viewer = %(viewer)s AND e.segment_id = visible.id
            AND e.kind = %(kind)s AND e.at > now() - make_interval(secs => %(again_s)s)))
    SELECT count(*) FROM visible"""


def watch(
    connection: Connection[Any], viewer: bytes, segment_id: int, kind: str, watched_ms: int, *, unlisted: bool = False
) -> bool:
    """Note that a viewer watched a moment, at most once an hour for each kind of event.

    Args:
        connection: to the primary; the caller commits.
        viewer: the keyed hash of the viewer.
        segment_id: the moment.
        kind: "play", "finish" or "like".
        watched_ms: how much was watched; more than the moment's length is taken for the whole moment.
        unlisted: whether the moment was named by its public id, so that its video may be unlisted.

    Returns:
        Whether there is such a moment that the viewer may see.
    """
    event: dict[str, Any] = {
        "viewer": viewer,
        "segment_id": segment_id,
        "kind": kind,
        "watched_ms": watched_ms,
        "again_s": AGAIN_S,
        "visibilities": ["public", "unlisted"] if unlisted else ["public"],
    }
    row = connection.execute(WATCHED, event).fetchone()
    return row is not None and row[0] == 1


class Feed:
    """The feed that one replica fetched last. It answers a search when no list can be asked."""

    def __init__(self, readers: Readers, search: SearchSettings) -> None:
        self._readers = readers
        self._search = search
        self._known: tuple[int, Sequence[Worth]] | None = None
        self._tried_at = float("-inf")
        self._task: asyncio.Task[None] | None = None
        self._seldom = Seldom(log)
        self.tasks = Tasks("feed")

    def of(self, state: State) -> Sequence[Worth]:
        """Return the feed of exactly this generation; empty when it is not known."""
        return self._known[1] if self._known is not None and self._known[0] == state.generation else ()

    def follow(self, state: State) -> None:
        """Begin to fetch the feed of a new generation, in the background, at most once in `feed_interval_s`."""
        is_due = time.monotonic() - self._tried_at >= self._search.feed_interval_s
        is_behind = self._known is None or self._known[0] != state.generation
        if is_behind and is_due and not state.stale:
            self._tried_at = time.monotonic()
            self._task = self.tasks.spawn("fetching", self._fetch(state))

    async def close(self) -> None:
        """Wait a moment for a feed that is being fetched, then stop fetching."""
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=CLOSE_WAIT_S)
        await self.tasks.close()

    async def _fetch(self, state: State) -> None:
        try:
            with deadlines.unlimited():
                feed = await self._readers.ask(
                    lambda connection: scored(connection, self._search, self._search.feed_limit_max)
                )
            self._known = (state.generation, feed)
        except (Temporary, psycopg.Error) as error:
            self._seldom.warning(f"no feed: {error}")
