"""The feed: moments worth seeing without a query, by what is watched, new and invested in. Owns `app.watch_events`
and `app.watched`, which a trigger keeps in step with it.

It is also the last thing that a search can be answered with, so a replica keeps the feed of the generation it knows.
Viewers are keyed hashes; an event says what was watched and nothing of who or where.
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
from pipelines.catalog.videos import VISIBLE
from pipelines.index import vectors
from pipelines.index.vectors import MomentDetails
from serve.http import deadlines
from serve.replica.generation import State
from serve.replica.readers import Readers
from serve.search.cursors import Ranked
from serve.settings import SearchSettings

log = logging.getLogger(__name__)

SPARE = 4  # times what a feed can show is scored of each kind
COLD_HALF_LIVES = 14  # a moment that one viewer watched so long ago counts as a ten-thousandth of one
CLOSE_WAIT_S = 1.0  # for what is being fetched
AGAIN_S = 3600
# The newest videos by their first moment, what is watched most and what most is invested in: each bounded before anything
# is scored. Those who watched count the less the longer ago it was (`app.watched`, whose first rows are read by an index,
# however many events there are); what this viewer has seen comes last.
# Only what may be seen counts toward those bounds, or what is hidden would crowd out all else; it is looked up row by row.
SEEN: LiteralString = f"""EXISTS (
            SELECT FROM media.segments s JOIN media.videos v ON v.id = s.video_id
            WHERE s.id = segment_id AND {VISIBLE} OFFSET 0)"""
SCORED: LiteralString = f"""
    WITH watched AS (
        SELECT segment_id, power(2, heat - app.half_lives(now())) AS viewers FROM app.watched
        WHERE heat > app.half_lives(now()) - %(cold)s AND {SEEN} ORDER BY heat DESC LIMIT %(most)s),
    newest AS (
        SELECT first.id AS segment_id FROM
            (SELECT v.id FROM media.videos v WHERE {VISIBLE} ORDER BY v.created_at DESC, v.id DESC LIMIT %(most)s) video
            CROSS JOIN LATERAL (SELECT id FROM media.segments WHERE video_id = video.id ORDER BY start_ms LIMIT 1) first),
    staked AS (
        SELECT segment_id, sum(pix_invested) / 1e6 AS invested FROM ledger.segment_stakes
        WHERE {SEEN} GROUP BY 1 ORDER BY 2 DESC LIMIT %(most)s),
    candidates AS (
        SELECT segment_id FROM watched UNION SELECT segment_id FROM newest UNION SELECT segment_id FROM staked)
    SELECT s.id, (%(watched)s * ln(1 + coalesce(w.viewers, 0)) + %(staked)s * ln(1 + coalesce(i.invested, 0))::float8
                  + %(fresh)s * power(0.5, extract(epoch FROM now() - v.created_at) / %(half_life_s)s))::float8
                 - CASE WHEN EXISTS (SELECT FROM app.watch_events e WHERE e.viewer = %(viewer)s AND e.segment_id = s.id)
                        THEN 1000 ELSE 0 END AS score
    FROM candidates c JOIN media.segments s ON s.id = c.segment_id JOIN media.videos v ON v.id = s.video_id
    LEFT JOIN watched w ON w.segment_id = s.id LEFT JOIN staked i ON i.segment_id = s.id
    WHERE {VISIBLE} ORDER BY score DESC, s.id DESC LIMIT %(limit)s"""


@dataclass(frozen=True)
class Worth:
    """A moment of the feed with its score."""

    found: MomentDetails
    score: float


async def scored(
    connection: AsyncConnection[Any], search: SearchSettings, limit: int, viewer: bytes = b""
) -> list[Worth]:
    """The feed, best first; for a viewer, what they have not seen before what they have."""
    return await shown(connection, await ranked(connection, search, limit, viewer))


async def shown(connection: AsyncConnection[Any], ranks: Sequence[Ranked]) -> list[Worth]:
    """What an answer shows of moments in their order; what may not be seen (any more) is left out."""
    found = await vectors.moment_details(connection, [each.segment_id for each in ranks])
    return [Worth(found[each.segment_id], each.score) for each in ranks if each.segment_id in found]


async def ranked(
    connection: AsyncConnection[Any], search: SearchSettings, limit: int, viewer: bytes = b""
) -> list[Ranked]:
    """The moments of the feed, best first."""
    rows = await (await connection.execute(SCORED, given(search, limit, viewer))).fetchall()
    return [Ranked(row[0], float(row[1]), 0, ()) for row in rows]


def given(search: SearchSettings, limit: int, viewer: bytes) -> dict[str, Any]:
    """The parameters of `SCORED`."""
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


# What is claimed to be watched is at most the moment's length, and a viewer's event of a kind counts once in a while, so
# that nobody steers the feed, or fills the table, by saying it again.
WATCHED: LiteralString = """
    WITH visible AS (
        SELECT s.id, s.end_ms - s.start_ms AS lasts_ms
        FROM media.segments s JOIN media.videos v ON v.id = s.video_id WHERE s.id = %(segment_id)s
            AND v.status = 'ready' AND v.visibility = ANY(%(visibilities)s)),
    noted AS (
        INSERT INTO app.watch_events (viewer, segment_id, kind, watched_ms)
        SELECT %(viewer)s, id, %(kind)s, least(%(watched_ms)s, lasts_ms) FROM visible
        WHERE NOT EXISTS (SELECT FROM app.watch_events e WHERE e.viewer = %(viewer)s AND e.segment_id = visible.id
            AND e.kind = %(kind)s AND e.at > now() - make_interval(secs => %(again_s)s)))
    SELECT count(*) FROM visible"""


def watch(
    connection: Connection[Any], viewer: bytes, segment_id: int, kind: str, watched_ms: int, *, unlisted: bool = False
) -> bool:
    """Note that a viewer watched a moment that they may see; False when there is none.

    Noted once an hour for each kind; `watched_ms` above the moment's length is the whole moment.
    `unlisted` when it was named by its public id.
    """
    given: dict[str, Any] = {
        "viewer": viewer,
        "segment_id": segment_id,
        "kind": kind,
        "watched_ms": watched_ms,
        "again_s": AGAIN_S,
    }
    given["visibilities"] = ["public", "unlisted"] if unlisted else ["public"]
    row = connection.execute(WATCHED, given).fetchone()
    return row is not None and row[0] == 1


class Feed:
    """One replica's last feed, for when nothing else can be asked."""

    def __init__(self, readers: Readers, search: SearchSettings) -> None:
        self._readers = readers
        self._search = search
        self._known: tuple[int, Sequence[Worth]] | None = None
        self._tried_at = float("-inf")
        self._task: asyncio.Task[None] | None = None
        self._seldom = Seldom(log)
        self.tasks = Tasks("feed")

    def of(self, state: State) -> Sequence[Worth]:
        """What was worth seeing at this very generation; empty when that is not known."""
        return self._known[1] if self._known is not None and self._known[0] == state.generation else ()

    def follow(self, state: State) -> None:
        """Fetch the feed of a generation beside the search that noticed it, not too often."""
        late = time.monotonic() - self._tried_at >= self._search.feed_interval_s
        behind = self._known is None or self._known[0] != state.generation
        if behind and late and not state.stale:
            self._tried_at = time.monotonic()
            self._task = self.tasks.spawn("fetching", self._fetch(state))

    async def close(self) -> None:
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=CLOSE_WAIT_S)
        await self.tasks.close()

    async def _fetch(self, state: State) -> None:
        try:
            with deadlines.unlimited():
                found = await self._readers.ask(
                    lambda connection: scored(connection, self._search, self._search.feed_limit_max)
                )
            self._known = (state.generation, found)
        except (Temporary, psycopg.Error) as error:
            self._seldom.warning(f"no feed: {error}")
