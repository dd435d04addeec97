"""Candidates: the moments nearest to a vector. With `fulltext`, all SQL that search puts to media tables.

The service owns the plan, because the planner takes an index that loses 24 times under a selective filter. It asks how
many rows pass the filters and what comparing them all would cost beside walking the HNSW graph until enough of them
have been met (pgvector's iterative scan); when the graph gives fewer rows than were wanted, every one that passes is
compared after all. Only public videos that are ready are seen.
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
from pipelines import reposts

Connection = AsyncConnection[Any]
VISIBLE: LiteralString = "v.status = 'ready' AND v.visibility = 'public'"
EF_MAX = 1000  # pgvector's
PAGE_BYTES, PAGE_USABLE_BYTES = 8192, 8160
SAMPLED_PER_VIDEO = 10  # a page holds moments of one video or two
MOMENTS_PER_VIDEO = 25.0  # where PostgreSQL has not counted yet
# A tuple met in the graph costs as much as two that are compared one after another (1 µs beside 0.55 µs, measured at
# 512 dimensions).
SCAN_COST = 2.0
Profile = Literal["hnsw", "ivfflat", "bit"]
LANGUAGES: tuple[LiteralString, ...] = (  # asked for whatever a query's own is; see `languages`
    "english", "german", "french", "spanish", "italian", "portuguese", "dutch", "russian", "simple",
)  # fmt: skip


def _of_any(function: LiteralString, text: LiteralString) -> LiteralString:
    """A query that finds what any language finds: for an index, to be looked at more closely."""
    every: LiteralString = " || ".join(f"{function}('{each}', {text})" for each in LANGUAGES)
    return f"({every} || {function}(%(language)s::regconfig, {text}))"


def _of_its_own(function: LiteralString, text: LiteralString, video: LiteralString) -> LiteralString:
    """Whether the words `t` of a video are found in the query's language, or in the video's own."""
    own: LiteralString = f"coalesce((SELECT oid::regconfig FROM pg_ts_config WHERE cfgname = {video}.language LIMIT 1),"
    own += " 'simple'::regconfig)"
    return (
        f"(t.search @@ {function}(%(language)s::regconfig, {text})"
        f" OR {video}.language <> %(language)s::regconfig::text AND t.search @@ {function}({own}, {text}))"
    )


TAGGED: LiteralString = "v.tags @> %(tags)s::text[]"
# The words of a video in its own language: those of the query are read as that does, so that "-Bäume" excludes "Baum".
EXCLUDED: LiteralString = (
    "NOT EXISTS (SELECT FROM media.texts t WHERE t.video_id = v.id"
    f" AND t.search @@ (SELECT {_of_any('media.asked', '%(without)s')})"
    f" AND {_of_its_own('media.asked', '%(without)s', 'v')})"
)
# Each phrase for itself: in the words of a video, or letter by letter in its title or a tag, as stop words alone are.
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
_SESSIONS: WeakKeyDictionary[Connection, dict[str, str]] = WeakKeyDictionary()  # what each has been set to
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
class Model:
    """A row of media.models: whose vectors are compared."""

    id: int
    name: str
    dimensions: int
    fingerprint: str
    rows: int = 0
    profile: Profile = "hnsw"  # of the index that is searched

    @property
    def leaf(self) -> Identifier:
        return Identifier("media", f"embeddings_m{self.id}")


@dataclass(frozen=True)
class Filters:
    """What an answer is narrowed to; empty fields narrow nothing. Tags: all of them must be there.

    `segment_ids` are the only moments to look among; none at all leave nothing. `phrases` must stand in the words of the
    moment's video, all of them, and none of `without` may: both are read in `language` and in the video's own.
    """

    creator_ids: tuple[int, ...] = ()
    video_ids: tuple[int, ...] = ()
    tags: tuple[str, ...] = ()
    duration_min_ms: int | None = None
    duration_max_ms: int | None = None
    created_after: dt.datetime | None = None
    created_before: dt.datetime | None = None
    height_min: int | None = None
    segment_ids: tuple[int, ...] | None = None
    phrases: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    language: str = "english"

    def conditions(self, segment: str = "") -> tuple[str, dict[str, Any]]:
        """SQL over `v` (media.videos) and, where it is named, the column of a moment's id; with its parameters."""
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
            "without": (EXCLUDED, _quoted(self.without, " or ")),
        }
        asked = {name: pair for name, pair in known.items() if getattr(self, name) not in ((), None)}
        if (cleaned := [characters.cleaned(tag) for tag in self.tags]) != [*self.tags]:
            # As they were kept by an older release, or as they are kept now.
            asked["tags"] = (f"({TAGGED} OR v.tags @> %(cleaned_tags)s::text[])", [*self.tags])
        if segment and self.segment_ids is not None:
            asked["segment_ids"] = (f"{segment} = ANY(%(segment_ids)s)", list(self.segment_ids))
        text = "".join(f" AND {condition}" for condition, _ in asked.values())
        parameters = {name: value for name, (_, value) in asked.items()}
        if self.phrases or self.without:
            parameters["language"] = self.language
        if self.tags:
            parameters["cleaned_tags"] = cleaned
        return text, parameters


@dataclass(frozen=True)
class Plan:
    """Limits of one look: up to `exact_rows` everything is compared, whatever the graph would cost."""

    exact_rows: int = 20_000
    ef_search: int = 200
    scan_tuples: int = 100_000
    text_rows: int = 1000
    timeout_ms: int = 2000
    reranked: int = 4  # of a bit index: vectors that are compared exactly for each row that is wanted
    probes: int = 0  # of IVFFlat's lists; 0 is twice their root
    whole: bool = True  # compare everything that fits when the graph gives too little

    def exact(self, fitting: int, rows: int, limit: int) -> bool:
        """Whether to compare all rows that fit, of so many there are; about 2 % of a million is where they meet."""
        met = limit * rows / max(1, fitting)  # rows of the graph until `limit` of them fit
        return fitting <= self.exact_rows or fitting <= SCAN_COST * met


class Hit(NamedTuple):
    """A candidate: `value` is a cosine, or a rank of full text. Larger is better."""

    segment_id: int
    value: float


@dataclass(frozen=True)
class Looked:
    """The nearest, best first, how they were found ("exact", "index", or "index, exact") and of about how many rows."""

    hits: list[Hit]
    mode: str
    rows: int


@dataclass(frozen=True)
class Found:
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
    is_repost: bool = False  # of another creator's video, and not accepted (see `reposts`)


async def state(connection: Connection) -> tuple[int, Model | None, tuple[str, ...], int]:
    """The generation, which grows with every change that a search could see, the model whose vectors are searched,
    the names of all models that are registered, and how many of those changes only added moments.

    The size of the model's table tells its rows at once and without statistics; None before the first ingest.
    """
    row = await (await connection.execute(STATE + "m.active")).fetchone()
    assert row is not None  # the migration puts it there
    return int(row[0]), _model(row), tuple(row[6]), int(row[8])


async def named(connection: Connection, name: str) -> Model | None:
    """A model by its name."""
    row = await (await connection.execute(STATE + "m.name = %s", (name,))).fetchone()
    return _model(row) if row is not None else None


def _model(row: Sequence[Any]) -> Model | None:
    if row[1] is None:
        return None
    model_id, name, dimensions, fingerprint, size = row[1:6]
    rows = (size or 0) // bytes_per_row(dimensions)
    return Model(model_id, name, dimensions, fingerprint, rows, row[7] or "hnsw")


async def nearest(
    connection: Connection,
    model: Model,
    vector: NDArray[np.float32],
    limit: int,
    filters: Filters | None = None,
    plan: Plan | None = None,
) -> Looked:
    """The moments whose vectors have the largest cosine with a unit vector, best first.

    Raises:
        psycopg.errors.QueryCanceled: it took longer than the plan allows.
    """
    filters, plan = filters or Filters(), plan or Plan()
    fitting = await fit(connection, model, filters)
    if not plan.exact(fitting, model.rows, limit):
        met = await _walk(connection, model, vector, limit, filters, plan)
        if len(met) == limit or not plan.whole:
            return Looked(met, "index", fitting)
        return Looked(await exact(connection, model, vector, limit, filters, plan.timeout_ms), "index, exact", fitting)
    return Looked(await exact(connection, model, vector, limit, filters, plan.timeout_ms), "exact", fitting)


async def exact(
    connection: Connection, model: Model, vector: NDArray[np.float32], limit: int, filters: Filters, timeout_ms: int
) -> list[Hit]:
    """The nearest by comparing every row that passes, whatever it costs within the time."""
    await configure(connection, {"statement_timeout": timeout_ms, "enable_seqscan": "on"})
    return await _exact(connection, model, vector, limit, filters)


async def configure(connection: Connection, settings: Mapping[str, Any]) -> None:
    """The settings of a session, these and no others: what an earlier call set and this one does not name goes back to
    its default. One round trip, and none where all is so already.

    Nothing else may change these settings of a connection. What is set inside a transaction may end with it and is not
    remembered. Not `SET LOCAL`: the transaction around it takes two or three more messages for each statement, in the
    pipeline too, while connections that search go on searching and have their settings already.
    """
    known = _SESSIONS.setdefault(connection, {})
    wanted = {name: str(value) for name, value in settings.items()}
    changed: dict[str, str | None] = {name: value for name, value in wanted.items() if known.get(name) != value}
    changed |= {name: None for name in known if name not in wanted}
    if not changed:
        return
    calls = SQL(", ").join(SQL("set_config({}, {}, false)").format(k, v) for k, v in changed.items())
    await connection.execute(SQL("SELECT ") + calls)
    if connection.info.transaction_status is TransactionStatus.IDLE:
        known.clear()
        known |= wanted


async def fit(connection: Connection, model: Model, filters: Filters) -> int:
    """About how many rows pass the filters. Filters of videos, which are few beside their moments, are counted."""
    named = model.rows if filters.segment_ids is None else len(filters.segment_ids)
    # What excluded words leave is nearly everything, and to count it would be to look at every video's words.
    conditions, parameters = replace(filters, without=()).conditions()
    if not parameters:
        return min(model.rows, named)
    query = SQL(
        "SELECT (SELECT reltuples FROM pg_class WHERE oid = 'media.videos'::regclass),"
        f" (SELECT count(*) FROM media.videos v WHERE {VISIBLE}{conditions})"
    )
    row = await (await connection.execute(query, parameters)).fetchone()
    assert row is not None  # of a SELECT without FROM
    per_video = max(1.0, model.rows / row[0]) if row[0] > 0 else MOMENTS_PER_VIDEO
    return min(model.rows, named, int(row[1] * per_video))


def bytes_per_row(dimensions: int) -> int:
    """Of the heap: a tuple has 84 bytes beside its vector, and lies in a page whole."""
    return math.ceil(PAGE_BYTES / max(1, PAGE_USABLE_BYTES // (2 * dimensions + 84)))


def distance(model: Model) -> Composed:
    """As the index has it: the same expression, or the index is not used. `<#>` is minus the inner product."""
    return SQL("(e.embedding::halfvec({d})) <#> %(vector)s::halfvec({d})").format(d=Constant(model.dimensions))


async def _walk(
    connection: Connection, model: Model, vector: NDArray[np.float32], limit: int, filters: Filters, plan: Plan
) -> list[Hit]:
    """By the index: once where nothing is filtered, and on and on only when so much is hidden that too few are left.

    A walk that may go on keeps whatever it turns away, which costs a sixth more (benchmarks/LOG.md).
    """
    if filters == Filters():
        met = await _by_index(connection, model, vector, limit, filters, plan, on=False)
        if len(met) == limit:
            return met
    return await _by_index(connection, model, vector, limit, filters, plan, on=True)


async def _by_index(
    connection: Connection,
    model: Model,
    vector: NDArray[np.float32],
    limit: int,
    filters: Filters,
    plan: Plan,
    *,
    on: bool,
) -> list[Hit]:
    """By the index, going on until enough rows pass the filter; relaxed order is put right afterwards.

    A bit index orders by differing signs; the best of those are compared by their vectors.
    """
    conditions, parameters = filters.conditions("e.segment_id")
    some = limit * plan.reranked if model.profile == "bit" else limit
    await configure(connection, _scan(model, plan, some, on=on or some > EF_MAX))
    order = _signs(model) if model.profile == "bit" else SQL("2")
    query = SQL(
        "WITH near AS MATERIALIZED (SELECT e.segment_id, {distance} AS distance FROM {leaf} e"
        " JOIN media.videos v ON v.id = e.video_id WHERE {passing} ORDER BY {order} LIMIT %(some)s)"
        " SELECT segment_id, -distance FROM near ORDER BY distance, segment_id LIMIT %(limit)s"
    ).format(distance=distance(model), leaf=model.leaf, passing=SQL(f"{VISIBLE}{conditions}"), order=order)
    return await hits(connection, query, parameters | {"vector": to_text(vector), "limit": limit, "some": some})


def _scan(model: Model, plan: Plan, rows: int, *, on: bool) -> dict[str, Any]:
    """How the index is walked: once, for so many rows, or `on` until they have passed."""
    common = {"statement_timeout": plan.timeout_ms, "enable_seqscan": "off"}
    going = "relaxed_order" if on else "off"
    if model.profile == "ivfflat":
        lists = max(1, math.isqrt(model.rows))
        probes = plan.probes or 2 * math.isqrt(lists)
        return common | {"ivfflat.probes": max(1, probes), "ivfflat.iterative_scan": going}
    return common | {
        "hnsw.ef_search": max(plan.ef_search, min(rows, EF_MAX)),
        "hnsw.iterative_scan": going,
        "hnsw.max_scan_tuples": plan.scan_tuples,
    }


def _signs(model: Model) -> Composed:
    """How many signs differ, as the bit index has it."""
    return SQL(
        "(binary_quantize(e.embedding)::bit({d})) <~> binary_quantize(%(vector)s::halfvec({d}))::bit({d})"
    ).format(d=Constant(model.dimensions))


async def _exact(
    connection: Connection, model: Model, vector: NDArray[np.float32], limit: int, filters: Filters
) -> list[Hit]:
    """Every row that passes the filter is compared; the materialised step keeps the planner off the index."""
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
    connection: Connection, model: Model, vector: NDArray[np.float32], segment_ids: Sequence[int]
) -> dict[int, float]:
    """The cosine of certain moments (those that only full text has found)."""
    query = SQL("SELECT e.segment_id, -({distance}) FROM {leaf} e WHERE {named}").format(
        distance=distance(model), leaf=model.leaf, named=_named(model)
    )
    found = await hits(connection, query, {"vector": to_text(vector), "ids": list(segment_ids)})
    return {hit.segment_id: hit.value for hit in found}


async def alike(
    connection: Connection, model: Model, segment_ids: Sequence[int], cosine_min: float
) -> list[tuple[int, int]]:
    """Pairs of these moments, of two videos each, whose vectors have at least that cosine: they show the same pictures."""
    query = SQL(
        "WITH m AS MATERIALIZED (SELECT e.segment_id, e.video_id, e.embedding::halfvec({d}) AS embedding FROM {leaf} e"
        " WHERE {named})"
        " SELECT a.segment_id, b.segment_id FROM m a JOIN m b ON a.segment_id < b.segment_id"
        " AND a.video_id <> b.video_id WHERE -(a.embedding <#> b.embedding) >= %(least)s"
    ).format(d=Constant(model.dimensions), leaf=model.leaf, named=_named(model))
    cursor = await connection.execute(query, {"ids": list(segment_ids), "least": cosine_min})
    return [(int(one), int(other)) for one, other in await cursor.fetchall()]


async def vector_of(connection: Connection, model: Model, segment_id: int) -> NDArray[np.float32] | None:
    """A moment's own vector ("more like this"); None where there is none or it may not be seen."""
    query = SQL(
        "SELECT e.embedding::text FROM {leaf} e JOIN media.videos v ON v.id = e.video_id"
        f" WHERE {{named}} AND {VISIBLE}"
    ).format(leaf=model.leaf, named=_named(model))
    row = await (await connection.execute(query, {"ids": [segment_id]})).fetchone()
    return _vector(row[0]) if row else None


def _named(model: Model) -> Composed:
    """The vectors of certain moments. The model is named, though it is the only one in its leaf: its key begins so."""
    return SQL("e.model_id = {model} AND e.segment_id = ANY(%(ids)s)").format(model=Constant(model.id))


async def sampled(connection: Connection, model: Model, count: int) -> list[NDArray[np.float32]]:
    """The vectors of at most so many moments from all over the catalogue, one a video, from a few of its pages."""
    share = min(100.0, 100.0 * SAMPLED_PER_VIDEO * count / max(1, model.rows))
    query = SQL(
        "SELECT DISTINCT ON (video_id) embedding::text FROM {leaf} TABLESAMPLE SYSTEM (%s) REPEATABLE (1) LIMIT %s"
    ).format(leaf=model.leaf)
    rows = await (await connection.execute(query, (share, count))).fetchall()
    return [_vector(text) for (text,) in rows]


async def found(connection: Connection, segment_ids: Sequence[int]) -> dict[int, Found]:
    """What an answer shows of moments; those that may not be seen (any more) are left out."""
    async with connection.cursor(row_factory=class_row(Found)) as cursor:
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
    """Where an old id leads: the moment that took over most of it, or itself."""
    row = await (
        await connection.execute(
            "SELECT new_id FROM media.segment_lineage WHERE old_id = %s ORDER BY overlap DESC, new_id LIMIT 1",
            (segment_id,),
        )
    ).fetchone()
    return int(row[0]) if row else segment_id


async def hits(connection: Connection, query: SQL | Composed, parameters: dict[str, Any]) -> list[Hit]:
    """The rows of a query as candidates: an id, and what it ranks by."""
    cursor = await connection.execute(query, parameters)
    return list(map(Hit._make, await cursor.fetchall()))


def _quoted(texts: Sequence[str], between: str) -> str:
    """Phrases as `media.asked` reads them."""
    return between.join('"' + text.replace('"', " ") + '"' for text in texts)


def _vector(text: str) -> NDArray[np.float32]:
    return np.array(text.strip("[]").split(","), np.float32)


def to_text(vector: NDArray[np.float32]) -> str:
    return orjson.dumps(np.ascontiguousarray(vector, np.float32), option=orjson.OPT_SERIALIZE_NUMPY).decode()
