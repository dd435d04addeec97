"""Full-text search: the videos whose title, tags and description match words, and the moments that represent them.

Words belong to a video and are stored once for it (`media.texts`, `media.impacts`, `media.completions`; a trigger
updates them, see `schema/0007_words.sql`). A token joined by signs ("node.js") counts as the words between the signs,
in a video as in a query (`schema/0016_parts.sql`). Ranking is BM25 over impacts that were computed when the words were
written: the best videos of each word are read in order, so a common word costs no more than a rare one. Videos with all
words come first.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, LiteralString, NamedTuple

import numpy as np
from numpy.typing import NDArray
from psycopg.sql import SQL, Composed

from pipelines.catalog.videos import VISIBLE
from pipelines.index.ranks import dense_ranks
from pipelines.index.vectors import Connection, Filters, SearchLimits, SearchModel, configure, distance, to_text

EXCLUDED = re.compile(r'(?:^|\s)-("[^"]*"|[^\s"]+)')  # as websearch_to_tsquery reads it: -word, -"two words"
PHRASE = re.compile(r'"([^"]*)"')
WORDS_MAX = 32  # words of a query that are searched for
SCORED_PER_HIT = 4  # videos of which every word is looked up, for each video that is returned
FITTING_MAX = 5000  # up to this many videos pass the filters, each is looked up; above it the words' lists are filtered
COMPLETION_CHARS_MAX = 64  # stored of a title or tag
COMPLETIONS_READ_MAX = 64  # of each kind: completions from the beginning of a title or tag, and from inside it
LAST = chr(0x10FFFF)  # sorts after every text with the same beginning

# A list of videos for each word, best first. `{source}` depends on the filters; lists are cut off for several words only.
MATCHING: LiteralString = """
    WITH asked AS MATERIALIZED (SELECT media.asked(%(language)s::regconfig, %(text)s) AS query),
    words AS MATERIALIZED (
        SELECT lexeme COLLATE "C" AS lexeme, count(*) OVER () AS words
        FROM unnest(media.words(%(language)s::regconfig, %(text)s)) ORDER BY positions[1] LIMIT %(words)s),
    lists AS MATERIALIZED (SELECT w.lexeme, w.words, l.video_id, l.impact FROM words w CROSS JOIN LATERAL ({source}) l),
    read AS MATERIALIZED (
        SELECT lexeme, count(*) AS read, min(impact) AS least, words > 1 AND count(*) >= {depth} AS cut
        FROM lists GROUP BY lexeme, words),
    frequent AS MATERIALIZED (
        SELECT value, share * (SELECT reltuples FROM pg_class WHERE oid = 'media.impacts'::regclass) AS videos
        FROM (SELECT unnest(most_common_vals::text::text[]) AS value, unnest(most_common_freqs) AS share FROM pg_stats
              WHERE schemaname = 'media' AND tablename = 'impacts' AND attname = 'lexeme') AS known),
    found AS (  -- in how many videos a word is: counted if its list was read to the end, else estimated
        SELECT lexeme, least, cut, greatest(read, CASE WHEN cut THEN
            (SELECT f.videos FROM frequent f WHERE f.value = read.lexeme) END)::float8 AS videos FROM read),
    heads AS MATERIALIZED (
        SELECT lexeme, least, cut, ln(1 + (total - videos + 0.5) / (videos + 0.5)) AS weight,
               count(*) FILTER (WHERE cut) OVER () AS cuts
        FROM (SELECT *, greatest((SELECT reltuples FROM pg_class WHERE oid = 'media.texts'::regclass)::float8,
                                 max(videos) OVER ()) AS total FROM found) AS counted),
    partial AS MATERIALIZED (
        SELECT l.video_id, sum(h.weight * l.impact) AS got, count(*) AS seen, count(*) FILTER (WHERE h.cut) AS seen_cut,
               sum(CASE WHEN h.cut THEN h.weight * h.least ELSE 0 END) AS bound, min(h.cuts) AS cuts, min(l.words) AS words
        FROM lists l JOIN heads h USING (lexeme) GROUP BY l.video_id),
    best AS MATERIALIZED (  -- by the highest score possible, since a list that was cut off may hide a video's words
        SELECT video_id, got, seen, words, seen_cut < cuts AS lacking FROM partial
        ORDER BY seen + cuts - seen_cut = words DESC, got - bound DESC, video_id DESC LIMIT %(scored)s),
    whole AS MATERIALIZED (
        SELECT b.video_id, sum(h.weight * i.impact) AS got, count(*) AS seen FROM best b CROSS JOIN heads h
        CROSS JOIN LATERAL (SELECT impact FROM media.impacts i
                            WHERE i.video_id = b.video_id AND i.lexeme = h.lexeme OFFSET 0) i
        WHERE b.lacking GROUP BY b.video_id),
    ranked AS MATERIALIZED (
        SELECT b.video_id, b.words, coalesce(w.got, b.got) AS score, coalesce(w.seen, b.seen) >= b.words AS complete
        FROM best b LEFT JOIN whole w USING (video_id) ORDER BY 4 DESC, 3 DESC, 1 DESC LIMIT %(limit)s)
    SELECT r.video_id, r.score + CASE WHEN r.complete THEN 1000 ELSE 0 END,
           r.words = 1 AND numnode((SELECT query FROM asked)) <= 1 OR EXISTS (  -- the whole query: its phrases, the
               -- parts of a joined token one after another, and either side of an "or"
               SELECT FROM media.texts t WHERE t.video_id = r.video_id AND t.segment_id IS NULL
               AND t.search @@ (SELECT query FROM asked) OFFSET 0)
    FROM ranked r ORDER BY 2 DESC, 1 DESC"""

BEST: LiteralString = """
    SELECT i.video_id, i.impact FROM media.impacts i WHERE i.lexeme = w.lexeme{among}
    ORDER BY i.impact DESC, i.video_id DESC LIMIT CASE WHEN w.words = 1 THEN %(limit)s ELSE {depth} END"""
EACH_FITTING: LiteralString = """
    SELECT f.id AS video_id, i.impact FROM fitting f CROSS JOIN LATERAL (
        SELECT impact FROM media.impacts i WHERE i.video_id = f.id AND i.lexeme = w.lexeme OFFSET 0) i"""

# Titles and tags in order, each found as the next one after the last, so the cost is a bounded number of steps.
COMPLETIONS: LiteralString = """
    WITH RECURSIVE typed AS (SELECT left(lower(%(typed)s), %(chars)s) COLLATE "C" AS start),
    kinds AS (SELECT false AS inner_word UNION ALL SELECT true),
    steps (inner_word, start, whole, step) AS (
        SELECT k.inner_word, first.start, first.whole, 1 FROM typed t CROSS JOIN kinds k CROSS JOIN LATERAL (
            SELECT c.start, c.whole FROM media.completions c
            WHERE c.inner_word = k.inner_word AND c.start >= t.start AND c.start < t.start || %(last)s
            ORDER BY c.start, c.whole LIMIT 1) AS first
        UNION ALL
        SELECT s.inner_word, next.start, next.whole, s.step + 1 FROM steps s CROSS JOIN typed t CROSS JOIN LATERAL (
            SELECT c.start, c.whole FROM media.completions c
            WHERE c.inner_word = s.inner_word AND (c.start, c.whole) > (s.start, s.whole) AND c.start < t.start || %(last)s
            ORDER BY c.start, c.whole LIMIT 1) AS next
        WHERE s.step < %(most)s)
    SELECT whole FROM steps GROUP BY whole ORDER BY bool_and(inner_word), length(whole), whole LIMIT %(limit)s"""


class Match(NamedTuple):
    """A video found by words."""

    video_id: int
    value: float  # BM25, and 1000 more if all words are there
    is_complete: bool  # the whole query matches, with phrases and "or" as they were written


class Named(NamedTuple):
    """A moment that represents a video found by words.

    `rank` counts from 1: first come the best moments of all videos, in the order of the videos, then their second-best
    ones. If all moments of a video came first, a single matching title would fill the list. `cosine` is None where
    there was no vector to compare with.
    """

    segment_id: int
    video_id: int
    rank: int
    is_complete: bool
    cosine: float | None


def excluded(text: str) -> list[str]:
    """Return the words that a query excludes (`-word`)."""
    return [match.group(1).strip('"') for match in EXCLUDED.finditer(text)]


def without_excluded(text: str) -> str:
    """Return a query without what it excludes."""
    return " ".join(EXCLUDED.sub(" ", text).split())


def phrases(text: str) -> list[str]:
    """Return the quoted phrases of a query; a video's words must contain each."""
    quoted = (" ".join(match.group(1).split()) for match in PHRASE.finditer(EXCLUDED.sub(" ", text)))
    return [phrase for phrase in quoted if phrase]


def strict(filters: Filters, text: str, without: Sequence[str], language: str) -> Filters:
    """Add the phrases and the excluded words of a query to the filters, which hold for the vector list too.

    Args:
        filters: The filters of the request.
        text: The query as typed.
        without: Further words to exclude.
        language: PostgreSQL's name of the query's language.

    Returns:
        The filters; phrases and exclusions are in lower case.
    """
    quoted = tuple(phrases(text.lower()))
    words = tuple(dict.fromkeys(each.lower() for each in (*excluded(text), *without)))
    if not quoted and not words:
        return filters
    return replace(filters, phrases=quoted, without=words, language=language)


async def matching(
    connection: Connection,
    text: str,
    limit: int,
    filters: Filters | None = None,
    plan: SearchLimits | None = None,
    language: str = "english",
) -> list[Match]:
    """Find the videos that match a text best, those with all words before those with any.

    Filters apply before any list is cut off. For several words the best `plan.text_rows` videos of each are read, and the
    best of those are looked up for every word. For a single word, the best videos of that word are the result.

    Args:
        connection: Connection to the primary or a standby.
        text: The query as typed.
        limit: Videos at most.
        filters: Conditions on the videos.
        plan: Limits of the search.
        language: PostgreSQL's name of the query's language.

    Returns:
        The videos, best first.

    Raises:
        psycopg.errors.QueryCanceled: it took longer than the plan allows.
    """
    filters, plan = filters or Filters(), plan or SearchLimits()
    await configure(connection, {"statement_timeout": plan.timeout_ms})
    query, parameters = await _matching(connection, filters)
    query_parameters = {
        "text": without_excluded(text),
        "language": language,
        "words": WORDS_MAX,
        "depth": max(limit, plan.text_rows),
    }
    limits = {"limit": limit, "scored": SCORED_PER_HIT * limit, "fitting_max": FITTING_MAX}
    rows = await (await connection.execute(query, parameters | query_parameters | limits)).fetchall()
    if not rows and filters.phrases:
        rows = await (await connection.execute(_unranked(filters), parameters | query_parameters | limits)).fetchall()
    return [Match(*row) for row in rows]


def _unranked(filters: Filters) -> SQL:
    """Return the statement for a query of stop words alone ("The Who"): videos with its phrases, shortest title first."""
    conditions, _ = _conditions(filters)
    return SQL(
        f"SELECT v.id, -length(v.title)::float8, true FROM media.videos v WHERE {VISIBLE}{conditions}"
        " AND numnode(media.asked(%(language)s::regconfig, %(text)s)) = 0 ORDER BY 2 DESC, 1 DESC LIMIT %(limit)s"
    )


async def _matching(connection: Connection, filters: Filters) -> tuple[SQL, dict[str, Any]]:
    """Return the statement for these filters, with their parameters.

    If few videos pass the filters, each of them is looked up; if many do, the best of those that pass are read for each word.
    """
    conditions, parameters = _conditions(filters)
    passing, depth, statement = f"{VISIBLE}{conditions}", "%(depth)s", MATCHING
    source = BEST.format(among="", depth=depth)
    if conditions and await _fitting(connection, passing, parameters) < FITTING_MAX:
        fitting = f"WITH fitting AS MATERIALIZED (SELECT v.id FROM media.videos v WHERE {passing}), "
        source, depth, statement = EACH_FITTING, "%(fitting_max)s", MATCHING.replace("WITH ", fitting, 1)
    elif conditions:
        among = f" AND EXISTS (SELECT FROM media.videos v WHERE v.id = i.video_id AND {passing} OFFSET 0)"
        source = BEST.format(among=among, depth=depth)
    return SQL(statement.format(source=source, depth=depth)), parameters


def _conditions(filters: Filters) -> tuple[str, dict[str, Any]]:
    """Return the filters as a condition on a row `v` of videos, including those on moments, with their parameters."""
    conditions, parameters = filters.conditions()
    if filters.segment_ids is not None:
        conditions += " AND v.id IN (SELECT video_id FROM media.segments WHERE id = ANY(%(segment_ids)s))"
        parameters["segment_ids"] = list(filters.segment_ids)
    return conditions, parameters


async def _fitting(connection: Connection, passing: str, parameters: dict[str, Any]) -> int:
    """Count the videos that pass the filters, up to `FITTING_MAX`."""
    query = SQL(f"SELECT count(*) FROM (SELECT FROM media.videos v WHERE {passing} LIMIT %(most)s) AS counted")
    row = await (await connection.execute(query, parameters | {"most": FITTING_MAX})).fetchone()
    return int(row[0]) if row else 0


async def moments(
    connection: Connection,
    matches: Sequence[Match],
    each: int,
    model: SearchModel | None = None,
    vector: NDArray[np.float32] | None = None,
    segment_ids: Sequence[int] | None = None,
    plan: SearchLimits | None = None,
) -> list[Named]:
    """Choose moments that represent videos: the nearest to a vector, or without a vector the first in time.

    A video whose moments have no vectors of the model yet is represented by its first ones.

    Args:
        connection: Connection to the primary or a standby.
        matches: The videos, best first.
        each: Moments of one video at most.
        model: The model of `vector`.
        vector: float32 (dimensions,), unit length; None takes the first moments.
        segment_ids: The only moments to choose from; None allows all.
        plan: Limits of the search.

    Returns:
        The moments: the best of each video, then the second of each.
    """
    await configure(connection, {"statement_timeout": (plan or SearchLimits()).timeout_ms})
    by_video: dict[int, list[tuple[int, float | None]]] = {}
    video_ids = [match.video_id for match in matches]
    if model is not None and vector is not None:
        await _collect(connection, by_video, _nearest(model), video_ids, each, segment_ids, {"vector": to_text(vector)})
    if missing := [video_id for video_id in video_ids if video_id not in by_video]:
        await _collect(connection, by_video, _first(), missing, each, segment_ids, {})
    return _in_turns(matches, by_video, each)


async def _collect(
    connection: Connection,
    by_video: dict[int, list[tuple[int, float | None]]],
    query: Composed,
    video_ids: Sequence[int],
    each: int,
    segment_ids: Sequence[int] | None,
    extra: dict[str, Any],
) -> None:
    """Add the moments that a query returns to `by_video`."""
    among = list(segment_ids) if segment_ids is not None else None
    parameters = {"videos": list(video_ids), "each": each, "among": among} | extra
    for video_id, segment_id, cosine in await (await connection.execute(query, parameters)).fetchall():
        by_video.setdefault(video_id, []).append((segment_id, cosine))


def _nearest(model: SearchModel) -> Composed:
    """Return the query for the moments of each video that are nearest to a vector.

    It sorts by the negated distance, so that PostgreSQL compares all moments of the video and uses no vector index.
    """
    return SQL(
        "SELECT w.video_id, m.segment_id, m.cosine FROM unnest(%(videos)s::bigint[]) AS w (video_id) CROSS JOIN LATERAL ("
        "SELECT e.segment_id, -({distance}) AS cosine FROM {leaf} e WHERE e.video_id = w.video_id"
        " AND (%(among)s::bigint[] IS NULL OR e.segment_id = ANY(%(among)s))"
        " ORDER BY 2 DESC, 1 LIMIT %(each)s) m"
    ).format(distance=distance(model), leaf=model.leaf)


def _first() -> Composed:
    """Return the query for the first moments of each video."""
    return SQL(
        "SELECT w.video_id, m.id, NULL::float8 FROM unnest(%(videos)s::bigint[]) AS w (video_id) CROSS JOIN LATERAL ("
        "SELECT s.id FROM media.segments s WHERE s.video_id = w.video_id"
        " AND (%(among)s::bigint[] IS NULL OR s.id = ANY(%(among)s)) ORDER BY s.start_ms, s.id LIMIT %(each)s) m"
    ).format()


def _in_turns(matches: Sequence[Match], by_video: dict[int, list[tuple[int, float | None]]], each: int) -> list[Named]:
    """Return the best moment of each video, then the second of each, and so on, up to `each` moments of a video.

    Videos whose matches have equal values share a rank.
    """
    ranks = dense_ranks(match.value for match in matches)
    named = []
    for turn in range(each):
        for match, rank_of_video in zip(matches, ranks, strict=True):
            of_video = by_video.get(match.video_id, [])
            if turn < len(of_video):
                segment_id, cosine = of_video[turn]
                rank = turn * ranks[-1] + rank_of_video
                named.append(Named(segment_id, match.video_id, rank, match.is_complete, cosine))
    return named


async def completions(connection: Connection, text: str, limit: int) -> list[str]:
    """Return titles and tags in which the typed text begins a word; those that begin with the text come first.

    Of each of these two kinds only the first `COMPLETIONS_READ_MAX` in alphabetical order are considered.
    """
    typed = " ".join(text.split())
    if not typed:
        return []
    parameters = {
        "typed": typed, "last": LAST, "chars": COMPLETION_CHARS_MAX, "most": COMPLETIONS_READ_MAX, "limit": limit
    }  # fmt: skip
    return [row[0] for row in await (await connection.execute(COMPLETIONS, parameters)).fetchall()]
