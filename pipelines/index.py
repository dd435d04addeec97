"""Candidates: the moments nearest to a vector, and those whose words match. All SQL that search puts to media tables.

The service owns the plan, because the planner takes an index that loses 24 times under a selective filter: up to
`exact_rows` rows every vector is compared; above, HNSW scans on until it has enough (pgvector's iterative scan), and
when that gives fewer rows than exist, every vector is compared after all. Only public videos that are ready are seen.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, LiteralString

import numpy as np
from numpy.typing import NDArray
from psycopg import AsyncConnection
from psycopg.rows import class_row
from psycopg.sql import SQL, Composed, Identifier, Literal

Connection = AsyncConnection[Any]
VISIBLE: LiteralString = "v.status = 'ready' AND v.visibility = 'public'"
EXCLUDED = re.compile(r'(?:^|\s)-("[^"]*"|\S+)')  # as websearch_to_tsquery reads it: -word, -"two words"


@dataclass(frozen=True)
class Model:
    """A row of media.models: whose vectors are compared."""

    id: int
    name: str
    dimensions: int
    fingerprint: str

    @property
    def leaf(self) -> Identifier:
        return Identifier("media", f"embeddings_m{self.id}")


@dataclass(frozen=True)
class Filters:
    """What an answer is narrowed to; empty fields narrow nothing. Tags: all of them must be there."""

    creator_ids: tuple[int, ...] = ()
    video_ids: tuple[int, ...] = ()
    tags: tuple[str, ...] = ()
    duration_min_ms: int | None = None
    duration_max_ms: int | None = None
    created_after: dt.datetime | None = None
    created_before: dt.datetime | None = None
    height_min: int | None = None

    def conditions(self) -> tuple[str, dict[str, Any]]:
        """SQL over `v` (media.videos), with its parameters."""
        known = {
            "creator_ids": ("v.creator_id = ANY(%(creator_ids)s)", list(self.creator_ids)),
            "video_ids": ("v.id = ANY(%(video_ids)s)", list(self.video_ids)),
            "tags": ("v.tags @> %(tags)s::text[]", list(self.tags)),
            "duration_min_ms": ("v.duration_ms >= %(duration_min_ms)s", self.duration_min_ms),
            "duration_max_ms": ("v.duration_ms <= %(duration_max_ms)s", self.duration_max_ms),
            "created_after": ("v.created_at >= %(created_after)s", self.created_after),
            "created_before": ("v.created_at < %(created_before)s", self.created_before),
            "height_min": ("v.height >= %(height_min)s", self.height_min),
        }
        asked = {name: pair for name, pair in known.items() if getattr(self, name) not in ((), None)}
        text = "".join(f" AND {condition}" for condition, _ in asked.values())
        return text, {name: value for name, (_, value) in asked.items()}


@dataclass(frozen=True)
class Plan:
    """Limits of one look: `exact_rows` is where comparing everything ends, the rest is pgvector's."""

    exact_rows: int = 20_000
    ef_search: int = 200
    scan_tuples: int = 100_000
    text_rows: int = 2000
    timeout_ms: int = 2000


@dataclass(frozen=True)
class Hit:
    """A candidate: `value` is a cosine, or a rank of full text. Larger is better."""

    segment_id: int
    value: float


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


async def active_model(connection: Connection) -> Model | None:
    """The model whose vectors are searched; None before the first ingest."""
    async with connection.cursor(row_factory=class_row(Model)) as cursor:
        await cursor.execute("SELECT id, name, dimensions, fingerprint FROM media.models WHERE active")
        return await cursor.fetchone()


async def generation(connection: Connection) -> int:
    """Grows with every change that a search could see."""
    row = await (await connection.execute("SELECT value FROM media.generation")).fetchone()
    assert row is not None  # the migration puts it there
    return int(row[0])


async def nearest(
    connection: Connection,
    model: Model,
    vector: NDArray[np.float32],
    limit: int,
    filters: Filters | None = None,
    plan: Plan | None = None,
) -> list[Hit]:
    """The moments whose vectors have the largest cosine with a unit vector, best first.

    Raises:
        psycopg.errors.QueryCanceled: it took longer than the plan allows.
    """
    filters, plan = filters or Filters(), plan or Plan()
    async with connection.transaction():
        await connection.execute(SQL("SET LOCAL statement_timeout = {}").format(Literal(plan.timeout_ms)))
        rows = await _rows(connection, model, filters, plan.exact_rows + 1)
        if rows > plan.exact_rows:
            hits = await _by_index(connection, model, vector, limit, filters, plan)
            if len(hits) == limit:
                return hits
        return await _exact(connection, model, vector, limit, filters)


async def _rows(connection: Connection, model: Model, filters: Filters, most: int) -> int:
    """How many rows there are to compare, counted no further than `most`."""
    conditions, parameters = filters.conditions()
    if not parameters:
        row = await (
            await connection.execute(
                "SELECT reltuples::bigint FROM pg_class WHERE oid = %s::regclass", (f"media.embeddings_m{model.id}",)
            )
        ).fetchone()
        if row is not None and row[0] >= most:
            return int(row[0])
    query = SQL("SELECT count(*) FROM (SELECT FROM {leaf} e JOIN media.videos v ON v.id = e.video_id").format(
        leaf=model.leaf
    ) + SQL(f" WHERE {VISIBLE}{conditions} LIMIT %(most)s) AS counted")
    row = await (await connection.execute(query, parameters | {"most": most})).fetchone()
    return int(row[0]) if row else 0


def _distance(model: Model) -> Composed:
    """As the index has it: the same expression, or the index is not used. `<#>` is minus the inner product."""
    return SQL("(e.embedding::halfvec({d})) <#> %(vector)s::halfvec({d})").format(d=Literal(model.dimensions))


async def _by_index(
    connection: Connection, model: Model, vector: NDArray[np.float32], limit: int, filters: Filters, plan: Plan
) -> list[Hit]:
    """HNSW, going on until enough rows pass the filter; relaxed order is put right afterwards."""
    conditions, parameters = filters.conditions()
    for name, value in (
        ("hnsw.ef_search", max(plan.ef_search, min(limit, 1000))),
        ("hnsw.iterative_scan", "relaxed_order"),
        ("hnsw.max_scan_tuples", plan.scan_tuples),
        ("enable_seqscan", "off"),
    ):
        await connection.execute(SQL("SET LOCAL {} = {}").format(SQL(name), Literal(value)))
    query = SQL(
        "WITH near AS MATERIALIZED (SELECT e.segment_id, {distance} AS distance FROM {leaf} e"
        " JOIN media.videos v ON v.id = e.video_id WHERE "
    ).format(distance=_distance(model), leaf=model.leaf) + SQL(
        f"{VISIBLE}{conditions} ORDER BY 2 LIMIT %(limit)s)"
        " SELECT segment_id, -distance FROM near ORDER BY distance, segment_id"
    )
    return await _hits(connection, query, parameters | {"vector": _text(vector), "limit": limit})


async def _exact(
    connection: Connection, model: Model, vector: NDArray[np.float32], limit: int, filters: Filters
) -> list[Hit]:
    """Every row that passes the filter is compared; the materialised step keeps the planner off the index."""
    conditions, parameters = filters.conditions()
    query = SQL(
        "WITH measured AS MATERIALIZED (SELECT e.segment_id, {distance} AS distance FROM {leaf} e"
        " JOIN media.videos v ON v.id = e.video_id WHERE "
    ).format(distance=_distance(model), leaf=model.leaf) + SQL(
        f"{VISIBLE}{conditions})"
        " SELECT segment_id, -distance FROM measured ORDER BY distance, segment_id LIMIT %(limit)s"
    )
    return await _hits(connection, query, parameters | {"vector": _text(vector), "limit": limit})


async def cosines(
    connection: Connection, model: Model, vector: NDArray[np.float32], segment_ids: Sequence[int]
) -> dict[int, float]:
    """The cosine of certain moments (those that only full text has found)."""
    query = SQL("SELECT e.segment_id, -({distance}) FROM {leaf} e WHERE e.segment_id = ANY(%(ids)s)").format(
        distance=_distance(model), leaf=model.leaf
    )
    hits = await _hits(connection, query, {"vector": _text(vector), "ids": list(segment_ids)})
    return {hit.segment_id: hit.value for hit in hits}


async def vector_of(connection: Connection, model: Model, segment_id: int) -> NDArray[np.float32] | None:
    """A moment's own vector ("more like this"); None where there is none or it may not be seen."""
    query = SQL(
        "SELECT e.embedding::text FROM {leaf} e JOIN media.videos v ON v.id = e.video_id"
        f" WHERE e.segment_id = %s AND {VISIBLE}"
    ).format(leaf=model.leaf)
    row = await (await connection.execute(query, (segment_id,))).fetchone()
    return np.array(row[0].strip("[]").split(","), np.float32) if row else None


async def matching(
    connection: Connection,
    text: str,
    limit: int,
    filters: Filters | None = None,
    plan: Plan | None = None,
    language: str = "english",
) -> list[Hit]:
    """The moments whose title, tags and description match: all words first, then any of them.

    Ranking is linear in the matches, so they are cut off before it.
    """
    filters, plan = filters or Filters(), plan or Plan()
    async with connection.transaction():
        await connection.execute(SQL("SET LOCAL statement_timeout = {}").format(Literal(plan.timeout_ms)))
        found = await _matching(connection, text, limit, filters, plan, language, any_word=False)
        if len(found) < limit:
            seen = {hit.segment_id for hit in found}
            more = await _matching(connection, text, limit, filters, plan, language, any_word=True)
            lowest = min((hit.value for hit in found), default=1.0)
            found += [Hit(hit.segment_id, min(hit.value, lowest) / 2) for hit in more if hit.segment_id not in seen]
        return found[:limit]


async def _matching(
    connection: Connection, text: str, limit: int, filters: Filters, plan: Plan, language: str, *, any_word: bool
) -> list[Hit]:
    """`querytree` leaves a query without its negations: where any word will do, those still exclude."""
    conditions, parameters = filters.conditions()
    words = "websearch_to_tsquery(%(language)s::regconfig, %(text)s)"
    wanted = f"replace(querytree({words}), ' & ', ' | ')::tsquery" if any_word else words
    query = SQL(
        f"WITH asked AS MATERIALIZED (SELECT {wanted} AS words,"
        " websearch_to_tsquery(%(language)s::regconfig, %(excluded)s) AS excluded"
        f" WHERE querytree({words}) NOT IN ('', 'T')),"
        " hits AS MATERIALIZED (SELECT s.id, s.search, asked.words FROM asked, media.segments s"
        " JOIN media.videos v ON v.id = s.video_id"
        f" WHERE s.search @@ asked.words AND NOT s.search @@ asked.excluded AND {VISIBLE}{conditions}"
        " LIMIT %(rows)s)"
        " SELECT id, ts_rank_cd(search, words, 1) FROM hits ORDER BY 2 DESC, 1 LIMIT %(limit)s"
    )
    excluded = " or ".join(match.group(1) for match in EXCLUDED.finditer(text))
    asked = {"text": text, "language": language, "excluded": excluded, "rows": plan.text_rows, "limit": limit}
    return await _hits(connection, query, parameters | asked)


async def found(connection: Connection, segment_ids: Sequence[int]) -> dict[int, Found]:
    """What an answer shows of moments; those that may not be seen (any more) are left out."""
    async with connection.cursor(row_factory=class_row(Found)) as cursor:
        await cursor.execute(
            "SELECT s.id AS segment_id, s.video_id, s.creator_id, v.title, s.description, v.tags, s.start_ms, s.end_ms,"
            " s.best_frame_ms FROM media.segments s JOIN media.videos v ON v.id = s.video_id"
            f" WHERE s.id = ANY(%s) AND {VISIBLE}",
            (list(segment_ids),),
        )
        return {each.segment_id: each async for each in cursor}


async def redirected(connection: Connection, segment_id: int) -> int:
    """Where an old id leads: the moment that took over most of it, or itself."""
    row = await (
        await connection.execute(
            "SELECT new_id FROM media.segment_lineage WHERE old_id = %s ORDER BY overlap DESC, new_id LIMIT 1",
            (segment_id,),
        )
    ).fetchone()
    return int(row[0]) if row else segment_id


async def _hits(connection: Connection, query: SQL | Composed, parameters: dict[str, Any]) -> list[Hit]:
    cursor = await connection.execute(query, parameters)
    return [Hit(int(row[0]), float(row[1])) async for row in cursor]


def _text(vector: NDArray[np.float32]) -> str:
    return "[" + ",".join(f"{value:.6g}" for value in vector) + "]"
