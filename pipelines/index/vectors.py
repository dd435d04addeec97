"""Vector search: the moments nearest to a vector.

This module and `fulltext` hold all SQL that a search runs on media tables. The choice between the index and an exact
comparison is made here, because PostgreSQL's planner picks an index that is 24 times slower under a selective filter.
`estimate_fitting` estimates how many rows pass the filters. All of these are compared if that costs less than walking
the HNSW graph until enough of them are met (pgvector's iterative scan), or if the graph has returned too few. Only
public, ready videos are seen.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, LiteralString, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import orjson
from numpy.typing import NDArray
from psycopg import AsyncConnection
from psycopg.pq import TransactionStatus
from psycopg.rows import class_row
from psycopg.sql import SQL, Composed, Identifier
from psycopg.sql import Literal as Constant

from cluster import characters
from pipelines.catalog import reposts
from pipelines.catalog.videos import VISIBLE

Connection = AsyncConnection[Any]
EF_MAX = 1000  # largest hnsw.ef_search that pgvector takes
PAGE_BYTES, PAGE_USABLE_BYTES = 8192, 8160  # of PostgreSQL
SAMPLED_PER_VIDEO = 10  # rows read for each video sampled, since a page holds moments of one or two videos
MOMENTS_PER_VIDEO = 25.0  # assumed before PostgreSQL has statistics
# A tuple met in the graph costs as much as two in a sequential comparison (1 µs and 0.55 µs at 512 dimensions).
SCAN_COST = 2.0
Profile = Literal["hnsw", "ivfflat", "bit"]
LANGUAGES: tuple[LiteralString, ...] = (  # tried in every query, besides its own; see `sources/languages.py`
    "english", "german", "french", "spanish", "italian", "portuguese", "dutch", "russian", "simple",
)  # fmt: skip


def _of_any(function: LiteralString, text: LiteralString) -> LiteralString:
    """Return a tsquery that matches if the text matches in any of the languages.

    It can use an index but finds too much; `_of_its_own` then checks the matches in the right languages.
    """
    every: LiteralString = " || ".join(f"{function}('{each}', {text})" for each in LANGUAGES)
    return f"({every} || {function}(%(language)s::regconfig, {text}))"


def _of_its_own(function: LiteralString, text: LiteralString, video: LiteralString) -> LiteralString:
    """Return the condition that the words `t` of a video match in the query's language or in the video's own."""
    known: LiteralString = f"(SELECT oid::regconfig FROM pg_ts_config WHERE cfgname = {video}.language LIMIT 1)"
    own_language: LiteralString = f"coalesce({known}, 'simple'::regconfig)"
    return (
        f"(t.search @@ {function}(%(language)s::regconfig, {text})"
        f" OR {video}.language <> %(language)s::regconfig::text AND t.search @@ {function}({own_language}, {text}))"
    )


TAGGED: LiteralString = "v.tags @> %(tags)s::text[]"
# The excluded words are stemmed in the video's language too, so that "-Bäume" excludes "Baum".
EXCLUDED: LiteralString = (
    "NOT EXISTS (SELECT FROM media.texts t WHERE t.video_id = v.id"
    f" AND t.search @@ (SELECT {_of_any('media.asked', '%(without)s')})"
    f" AND {_of_its_own('media.asked', '%(without)s', 'v')})"
)
# Each phrase must be among the words of a video, or stand letter by letter in its title or a tag, as stop words do.
PHRASES: LiteralString = (
    "v.id IN (SELECT named.video_id FROM unnest(%(phrases)s::text[]) WITH ORDINALITY AS p (phrase, place)"
    f" CROSS JOIN LATERAL (SELECT {_of_any('media.phrase', 'p.phrase')} AS any_language OFFSET 0) q"
    " CROSS JOIN LATERAL ("
    "SELECT t.video_id FROM media.texts t JOIN media.videos o ON o.id = t.video_id"
    f" WHERE t.search @@ q.any_language AND {_of_its_own('media.phrase', 'p.phrase', 'o')}"
    " UNION ALL SELECT c.video_id FROM media.completions c WHERE c.inner_word IN (false, true)"
    f" AND c.start >= p.phrase AND c.start < p.phrase || '{chr(0x10FFFF)}'"
    " AND substr(c.start, length(p.phrase) + 1, 1) !~ '\\w') AS named"
    " GROUP BY named.video_id HAVING count(DISTINCT p.place) = cardinality(%(phrases)s::text[]))"
)
_SESSIONS: WeakKeyDictionary[Connection, dict[str, str]] = WeakKeyDictionary()  # the settings of each connection
STATE: LiteralString = """
    SELECT g.value, m.id, m.name, m.dimensions, m.fingerprint,
           pg_relation_size(to_regclass('media.embeddings_m' || m.id)),
           (SELECT coalesce(array_agg(name ORDER BY id), '{}') FROM media.models),
           (SELECT CASE WHEN o.opcname = 'bit_hamming_ops' THEN 'bit' ELSE a.amname END
            FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON a.oid = c.relam
            JOIN pg_opclass o ON o.oid = i.indclass[0]
            WHERE i.indrelid = to_regclass('media.embeddings_m' || m.id) AND i.indisvalid
              AND a.amname IN ('hnsw', 'ivfflat')
            ORDER BY o.opcname = 'bit_hamming_ops', a.amname LIMIT 1), g.grown
    FROM media.generation g LEFT JOIN media.models m ON """


@dataclass(frozen=True)
class SearchModel:
    """A row of `media.models`: the model whose vectors are compared."""

    id: int
    name: str
    dimensions: int
    fingerprint: str
    rows: int = 0  # estimated by the size of its table
    profile: Profile = "hnsw"  # of the index that is used

    @property
    def leaf(self) -> Identifier:
        """The partition of `media.embeddings` that holds the model's vectors."""
        return Identifier("media", f"embeddings_m{self.id}")


@dataclass(frozen=True)
class Filters:
    """The conditions on the moments of an answer and on their videos; an empty field adds none."""

    creator_ids: tuple[int, ...] = ()
    video_ids: tuple[int, ...] = ()
    tags: tuple[str, ...] = ()  # all of them
    duration_min_ms: int | None = None
    duration_max_ms: int | None = None
    created_after: dt.datetime | None = None  # inclusive
    created_before: dt.datetime | None = None  # exclusive
    height_min: int | None = None  # pixels
    segment_ids: tuple[int, ...] | None = None  # the only moments to search; an empty tuple finds nothing
    phrases: tuple[str, ...] = ()  # all of them must be among the words of the video
    without: tuple[str, ...] = ()  # none of them may be
    language: str = "english"  # of `phrases` and `without`, tried besides the video's own

    def conditions(self, segment: str = "") -> tuple[str, dict[str, Any]]:
        """Return the filters as SQL, beginning with " AND " unless it is empty, and its parameters.

        The SQL refers to a row `v` of videos. If `segment` names a column of segment ids, `segment_ids` filters by it.
        """
        known = {
            "creator_ids": ("v.creator_id = ANY(%(creator_ids)s)", list(self.creator_ids)),
            "video_ids": ("v.id = ANY(%(video_ids)s)", list(self.video_ids)),
            "tags": (TAGGED, list(self.tags)),
            "duration_min_ms": ("v.duration_ms >= %(duration_min_ms)s", self.duration_min_ms),
            "duration_max_ms": ("v.duration_ms <= %(duration_max_ms)s", self.duration_max_ms),
            "created_after": ("v.created_at >= %(created_after)s", self.created_after),
            "created_before": ("v.created_at < %(created_before)s", self.created_before),
            "height_min": ("v.height >= %(height_min)s", self.height_min),
            "phrases": (PHRASES, list(self.phrases)),
            "without": (EXCLUDED, " or ".join('"' + text.replace('"', " ") + '"' for text in self.without)),
        }
        active = {name: pair for name, pair in known.items() if getattr(self, name) not in ((), None)}
        if (cleaned := [characters.cleaned(tag) for tag in self.tags]) != [*self.tags]:
            # Tags as an earlier release stored them, or as they are stored now.
            active["tags"] = (f"({TAGGED} OR v.tags @> %(cleaned_tags)s::text[])", [*self.tags])
        if segment and self.segment_ids is not None:
            active["segment_ids"] = (f"{segment} = ANY(%(segment_ids)s)", list(self.segment_ids))
        text = "".join(f" AND {condition}" for condition, _ in active.values())
        parameters = {name: value for name, (_, value) in active.items()}
        if self.phrases or self.without:
            parameters["language"] = self.language
        if self.tags:
            parameters["cleaned_tags"] = cleaned
        return text, parameters


@dataclass(frozen=True)
class SearchLimits:
    """Limits of one vector or text search."""

    exact_rows: int = 20_000  # up to here all rows are compared, whatever the graph would cost
    ef_search: int = 200
    scan_tuples: int = 100_000  # met in one walk of the graph at most
    text_rows: int = 1000  # videos read of each word
    timeout_ms: int = 2000  # of each statement
    reranked: int = 4  # of a bit index: rows compared by their vectors for each row that is returned
    probes: int = 0  # of IVFFlat's lists; 0 is twice the root of their number
    whole: bool = True  # compare all passing rows if the index returns too few

    def exact(self, fitting: int, rows: int, limit: int) -> bool:
        """Whether to compare all `fitting` rows, in place of finding `limit` of them in a graph of `rows` rows.

        They are compared if they are at most `exact_rows`, or if that costs less. In a graph of a million rows both
        cost the same if about 2 % of the rows fit.
        """
        met = limit * rows / max(1, fitting)  # rows of the graph until `limit` of them fit
        return fitting <= self.exact_rows or fitting <= SCAN_COST * met


class Hit(NamedTuple):
    """A candidate: a segment with the value that it is ranked by, a cosine or a full-text score; larger is better."""

    segment_id: int
    value: float


@dataclass(frozen=True)
class VectorHits:
    """The nearest moments, best first."""

    hits: list[Hit]
    mode: str  # how they were found: "exact", "index", or "index, exact"
    rows: int  # estimated number of rows that pass the filters


@dataclass(frozen=True)
class MomentDetails:
    """A moment with what an answer shows of it and of its video."""

    segment_id: int
    video_id: int
    creator_id: int
    title: str
    description: str
    tags: list[str] = field(default_factory=list)
    start_ms: int = 0
    end_ms: int = 0
    best_frame_ms: int = 0
    creator: str = ""
    video_public_id: str = ""
    creator_public_id: str = ""
    shown_since: dt.datetime | None = None  # when its video first had these pictures
    is_repost: bool = False  # its video is a repost that was not accepted (see `catalog/reposts.py`)


async def state(connection: Connection) -> tuple[int, SearchModel | None, tuple[str, ...], int]:
    """Return the state of the catalogue for searches.

    The number of the model's rows is estimated from the size of its table, which needs no statistics.

    Returns:
        The generation, which rises with every change that a search could see; the active model, None before the first
        ingest; the names of all registered models; and how many of the changes only added moments.
    """
    row = await (await connection.execute(STATE + "m.active")).fetchone()
    assert row is not None  # a migration has inserted it
    return int(row[0]), _model(row), tuple(row[6]), int(row[8])


async def named(connection: Connection, name: str) -> SearchModel | None:
    """Return a model by its name, or None."""
    row = await (await connection.execute(STATE + "m.name = %s", (name,))).fetchone()
    return _model(row) if row is not None else None


def _model(row: Sequence[Any]) -> SearchModel | None:
    """Return the model of a row of STATE, or None without one."""
    if row[1] is None:
        return None
    model_id, name, dimensions, fingerprint, size = row[1:6]
    rows = (size or 0) // bytes_per_row(dimensions)
    return SearchModel(model_id, name, dimensions, fingerprint, rows, row[7] or "hnsw")


async def nearest(
    connection: Connection,
    model: SearchModel,
    vector: NDArray[np.float32],
    limit: int,
    filters: Filters | None = None,
    plan: SearchLimits | None = None,
) -> VectorHits:
    """Find the moments whose vectors have the largest cosine with a vector.

    Args:
        connection: Connection to the primary or a standby.
        model: The model whose vectors to compare.
        vector: float32 (dimensions,), unit length.
        limit: Moments at most.
        filters: Conditions on the moments and their videos.
        plan: Limits of the search.

    Returns:
        The moments, best first, and how they were found.

    Raises:
        psycopg.errors.QueryCanceled: it took longer than the plan allows.
    """
    filters, plan = filters or Filters(), plan or SearchLimits()
    fitting = await estimate_fitting(connection, model, filters)
    if not plan.exact(fitting, model.rows, limit):
        by_index = await _walk(connection, model, vector, limit, filters, plan)
        if len(by_index) == limit or not plan.whole:
            return VectorHits(by_index, "index", fitting)
        return VectorHits(
            await exact(connection, model, vector, limit, filters, plan.timeout_ms), "index, exact", fitting
        )
    return VectorHits(await exact(connection, model, vector, limit, filters, plan.timeout_ms), "exact", fitting)


async def exact(
    connection: Connection,
    model: SearchModel,
    vector: NDArray[np.float32],
    limit: int,
    filters: Filters,
    timeout_ms: int,
) -> list[Hit]:
    """Find the nearest moments by comparing every row that passes the filters.

    Args:
        connection: Connection to the primary or a standby.
        model: The model whose vectors to compare.
        vector: float32 (dimensions,), unit length.
        limit: Moments at most.
        filters: Conditions on the moments and their videos.
        timeout_ms: Limit of the statement in milliseconds.

    Returns:
        The moments with their cosines, best first.

    Raises:
        psycopg.errors.QueryCanceled: it took longer than `timeout_ms`.
    """
    await configure(connection, {"statement_timeout": timeout_ms, "enable_seqscan": "on"})
    return await _exact(connection, model, vector, limit, filters)


async def configure(connection: Connection, settings: Mapping[str, Any]) -> None:
    """Set the settings of a session, and reset those that an earlier call has set and `settings` does not name.

    Takes one round trip, or none if nothing changes. Nothing else may change these settings of the connection. What is
    set inside a transaction may end with it, so it is not remembered. `SET LOCAL` is not used, because the transaction
    around it takes two or three more messages for each statement, also in pipeline mode.
    """
    known = _SESSIONS.setdefault(connection, {})
    values = {name: str(value) for name, value in settings.items()}
    changed: dict[str, str | None] = {name: value for name, value in values.items() if known.get(name) != value}
    changed |= {name: None for name in known if name not in values}
    if not changed:
        return
    calls = SQL(", ").join(SQL("set_config({}, {}, false)").format(k, v) for k, v in changed.items())
    await connection.execute(SQL("SELECT ") + calls)
    if connection.info.transaction_status is TransactionStatus.IDLE:
        known.clear()
        known |= values


async def estimate_fitting(connection: Connection, model: SearchModel, filters: Filters) -> int:
    """Estimate how many rows pass the filters, from a count of the videos that pass: videos are far fewer than moments."""
    listed = model.rows if filters.segment_ids is None else len(filters.segment_ids)
    # Excluded words leave nearly everything, and counting what they leave would read every video's words.
    conditions, parameters = replace(filters, without=()).conditions()
    if not parameters:
        return min(model.rows, listed)
    query = SQL(
        "SELECT (SELECT reltuples FROM pg_class WHERE oid = 'media.videos'::regclass),"
        f" (SELECT count(*) FROM media.videos v WHERE {VISIBLE}{conditions})"
    )
    row = await (await connection.execute(query, parameters)).fetchone()
    assert row is not None  # a SELECT without FROM returns a row
    per_video = max(1.0, model.rows / row[0]) if row[0] > 0 else MOMENTS_PER_VIDEO
    return min(model.rows, listed, int(row[1] * per_video))


def bytes_per_row(dimensions: int) -> int:
    """Return the heap bytes of a row: a tuple has 84 bytes besides its vector, and does not cross pages."""
    return math.ceil(PAGE_BYTES / max(1, PAGE_USABLE_BYTES // (2 * dimensions + 84)))


def distance(model: SearchModel) -> Composed:
    """Return the negative inner product, written exactly as in the index; else PostgreSQL ignores the index."""
    return SQL("(e.embedding::halfvec({d})) <#> %(vector)s::halfvec({d})").format(d=Constant(model.dimensions))


async def _walk(
    connection: Connection,
    model: SearchModel,
    vector: NDArray[np.float32],
    limit: int,
    filters: Filters,
    plan: SearchLimits,
) -> list[Hit]:
    """Find moments by the index.

    Without filters a single walk is tried first, and an iterative one only if hidden videos leave too few moments. An
    iterative walk keeps the rows that it rejects, which costs a sixth more (benchmarks/LOG.md).
    """
    if filters == Filters():
        met = await _by_index(connection, model, vector, limit, filters, plan, iterative=False)
        if len(met) == limit:
            return met
    return await _by_index(connection, model, vector, limit, filters, plan, iterative=True)


async def _by_index(
    connection: Connection,
    model: SearchModel,
    vector: NDArray[np.float32],
    limit: int,
    filters: Filters,
    plan: SearchLimits,
    *,
    iterative: bool,
) -> list[Hit]:
    """Find moments by the index; if `iterative`, the walk continues until enough rows pass the filters.

    Iterative scans return rows in relaxed order, so they are sorted afterwards. A bit index orders by differing signs;
    the best of those are compared by their vectors.
    """
    conditions, parameters = filters.conditions("e.segment_id")
    candidates = limit * plan.reranked if model.profile == "bit" else limit
    await configure(connection, _scan(model, plan, candidates, iterative=iterative or candidates > EF_MAX))
    order = _signs(model) if model.profile == "bit" else SQL("2")
    query = SQL(
        "WITH near AS MATERIALIZED (SELECT e.segment_id, {distance} AS distance FROM {leaf} e"
        " JOIN media.videos v ON v.id = e.video_id WHERE {passing} ORDER BY {order} LIMIT %(candidates)s)"
        " SELECT segment_id, -distance FROM near ORDER BY distance, segment_id LIMIT %(limit)s"
    ).format(distance=distance(model), leaf=model.leaf, passing=SQL(f"{VISIBLE}{conditions}"), order=order)
    return await hits(
        connection, query, parameters | {"vector": to_text(vector), "limit": limit, "candidates": candidates}
    )


def _scan(model: SearchModel, plan: SearchLimits, rows: int, *, iterative: bool) -> dict[str, Any]:
    """Return the session settings for a walk of the index that returns `rows` rows, or continues if `iterative`."""
    common = {"statement_timeout": plan.timeout_ms, "enable_seqscan": "off"}
    going = "relaxed_order" if iterative else "off"
    if model.profile == "ivfflat":
        lists = max(1, math.isqrt(model.rows))
        probes = plan.probes or 2 * math.isqrt(lists)
        return common | {"ivfflat.probes": max(1, probes), "ivfflat.iterative_scan": going}
    return common | {
        "hnsw.ef_search": max(plan.ef_search, min(rows, EF_MAX)),
        "hnsw.iterative_scan": going,
        "hnsw.max_scan_tuples": plan.scan_tuples,
    }


def _signs(model: SearchModel) -> Composed:
    """Return the number of differing signs, written exactly as in the bit index."""
    return SQL(
        "(binary_quantize(e.embedding)::bit({d})) <~> binary_quantize(%(vector)s::halfvec({d}))::bit({d})"
    ).format(d=Constant(model.dimensions))


async def _exact(
    connection: Connection, model: SearchModel, vector: NDArray[np.float32], limit: int, filters: Filters
) -> list[Hit]:
    """Compare every row that passes the filters; the materialised step keeps the planner off the index."""
    conditions, parameters = filters.conditions("e.segment_id")
    query = SQL(
        "WITH measured AS MATERIALIZED (SELECT e.segment_id, {distance} AS distance FROM {leaf} e"
        " JOIN media.videos v ON v.id = e.video_id WHERE "
    ).format(distance=distance(model), leaf=model.leaf) + SQL(
        f"{VISIBLE}{conditions})"
        " SELECT segment_id, -distance FROM measured ORDER BY distance, segment_id LIMIT %(limit)s"
    )
    return await hits(connection, query, parameters | {"vector": to_text(vector), "limit": limit})


async def cosines(
    connection: Connection, model: SearchModel, vector: NDArray[np.float32], segment_ids: Sequence[int]
) -> dict[int, float]:
    """Return the cosines of given moments with a vector.

    Args:
        connection: Connection to the primary or a standby.
        model: The model whose vectors to compare.
        vector: float32 (dimensions,), unit length.
        segment_ids: The moments, such as those that only full text has found.

    Returns:
        The cosine by segment id; moments without a vector are missing.
    """
    query = SQL("SELECT e.segment_id, -({distance}) FROM {leaf} e WHERE {by_key}").format(
        distance=distance(model), leaf=model.leaf, by_key=_by_key(model)
    )
    measured = await hits(connection, query, {"vector": to_text(vector), "ids": list(segment_ids)})
    return {hit.segment_id: hit.value for hit in measured}


async def alike(
    connection: Connection, model: SearchModel, segment_ids: Sequence[int], cosine_min: float
) -> list[tuple[int, int]]:
    """Return which of the given moments show the same pictures as one of another video, by their vectors.

    Args:
        connection: Connection to the primary or a standby.
        model: The model whose vectors to compare.
        segment_ids: The moments; those without a vector are like none.
        cosine_min: Least cosine of moments that show the same pictures.

    Returns:
        Pairs of segment ids, the smaller id first; the two are of different videos.
    """
    query = SQL(
        "WITH m AS MATERIALIZED (SELECT e.segment_id, e.video_id, e.embedding::halfvec({d}) AS embedding FROM {leaf} e"
        " WHERE {by_key})"
        " SELECT a.segment_id, b.segment_id FROM m a JOIN m b ON a.segment_id < b.segment_id"
        " AND a.video_id <> b.video_id WHERE -(a.embedding <#> b.embedding) >= %(least)s"
    ).format(d=Constant(model.dimensions), leaf=model.leaf, by_key=_by_key(model))
    cursor = await connection.execute(query, {"ids": list(segment_ids), "least": cosine_min})
    return [(int(one), int(other)) for one, other in await cursor.fetchall()]


async def vector_of(connection: Connection, model: SearchModel, segment_id: int) -> NDArray[np.float32] | None:
    """Return a moment's own vector, for "more like this".

    Args:
        connection: Connection to the primary or a standby.
        model: The model that made the vector.
        segment_id: The moment.

    Returns:
        float32 (dimensions,), or None if it has no vector or may not be seen.
    """
    query = SQL(
        "SELECT e.embedding::text FROM {leaf} e JOIN media.videos v ON v.id = e.video_id"
        f" WHERE {{by_key}} AND {VISIBLE}"
    ).format(leaf=model.leaf, by_key=_by_key(model))
    row = await (await connection.execute(query, {"ids": [segment_id]})).fetchone()
    return _vector(row[0]) if row else None


def _by_key(model: SearchModel) -> Composed:
    """Return the condition that a vector `e` belongs to one of the moments %(ids)s.

    It also names the model, the only one in its leaf, because the primary key begins with it.
    """
    return SQL("e.model_id = {model} AND e.segment_id = ANY(%(ids)s)").format(model=Constant(model.id))


async def sampled(connection: Connection, model: SearchModel, count: int) -> list[NDArray[np.float32]]:
    """Return vectors of moments from all over the catalogue, at most one per video, from a few pages of the table.

    Args:
        connection: Connection to the primary or a standby.
        model: The model that made the vectors.
        count: Vectors at most.

    Returns:
        float32 (dimensions,) each.
    """
    share = min(100.0, 100.0 * SAMPLED_PER_VIDEO * count / max(1, model.rows))
    query = SQL(
        "SELECT DISTINCT ON (video_id) embedding::text FROM {leaf} TABLESAMPLE SYSTEM (%s) REPEATABLE (1) LIMIT %s"
    ).format(leaf=model.leaf)
    rows = await (await connection.execute(query, (share, count))).fetchall()
    return [_vector(text) for (text,) in rows]


async def moment_details(connection: Connection, segment_ids: Sequence[int]) -> dict[int, MomentDetails]:
    """Map segment ids to what an answer shows of the moment; moments that may not be seen are left out."""
    async with connection.cursor(row_factory=class_row(MomentDetails)) as cursor:
        await cursor.execute(
            "SELECT s.id AS segment_id, s.video_id, s.creator_id, v.title, s.description, v.tags, s.start_ms, s.end_ms,"
            " s.best_frame_ms, c.name AS creator, v.public_id AS video_public_id,"
            " c.public_id AS creator_public_id, coalesce(s.shown_since, v.content_at, v.created_at) AS shown_since,"
            f" {reposts.IS_REPOST} AS is_repost FROM media.segments s JOIN media.videos v ON v.id = s.video_id"
            " JOIN media.creators c ON c.id = s.creator_id"
            f" WHERE s.id = ANY(%s) AND {VISIBLE}",
            (list(segment_ids),),
        )
        return {each.segment_id: each for each in await cursor.fetchall()}


async def redirected(connection: Connection, segment_id: int) -> int:
    """Return the id of the moment that replaced this one and overlaps most of it, or the same id if none did."""
    row = await (
        await connection.execute(
            "SELECT new_id FROM media.segment_lineage WHERE old_id = %s ORDER BY overlap DESC, new_id LIMIT 1",
            (segment_id,),
        )
    ).fetchone()
    return int(row[0]) if row else segment_id


async def hits(connection: Connection, query: SQL | Composed, parameters: dict[str, Any]) -> list[Hit]:
    """Run a query that returns segment ids with the values they are ranked by."""
    cursor = await connection.execute(query, parameters)
    return list(map(Hit._make, await cursor.fetchall()))


def _vector(text: str) -> NDArray[np.float32]:
    """Parse a vector in pgvector's text form, float32 (dimensions,)."""
    return np.array(text.strip("[]").split(","), np.float32)


def to_text(vector: NDArray[np.float32]) -> str:
    """Return a vector in pgvector's text form.

    Args:
        vector: (dimensions,), converted to float32.

    Returns:
        Such as "[0.1,0.2]".
    """
    return orjson.dumps(np.ascontiguousarray(vector, np.float32), option=orjson.OPT_SERIALIZE_NUMPY).decode()
