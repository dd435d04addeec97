"""Maintenance of the vector indexes: planning their cost, building them beside the traffic, and switching the model.

Figures per row follow from pgvector's page layout and were measured on PostgreSQL 18 with pgvector 0.8.5 (512 and 1536
dimensions, m = 16): heap 1,171 B, HNSW 1,366 B and 1,739 B of build memory a row at 512 dimensions. Building a graph
that does not fit into memory takes days in place of hours, so such a build is refused; the refusal says how much memory
it needs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from psycopg import Connection, sql
from psycopg.rows import class_row

from cluster.errors import Rejected
from pipelines.catalog.catalog import bump_generation
from pipelines.index.vectors import PAGE_BYTES, PAGE_USABLE_BYTES, Profile, bytes_per_row

PROFILES: tuple[Profile, ...] = ("hnsw", "bit", "ivfflat")

M = 16  # neighbours of a row in a graph
# ef_construction grows with the rows, so that a search keeps its recall in about the same number of steps: at a million
# rows 200 reaches with half the steps what 64 reaches, and takes 1.5 times as long to build; 400 reaches little more
# than 200 and takes twice as long (benchmarks/LOG.md).
EF_CONSTRUCTION, EF_CONSTRUCTION_MAX = 64, 400
EF_CONSTRUCTION_ROWS = 100_000
BUILT_FOR_FEWER = 1.5  # factor by which ef_construction may be too small before a rebuild is advised
DIMENSIONS_MAX = {"hnsw": 4000, "bit": 64_000, "ivfflat": 4000}
LISTS_MAX = 32_768
HALVES = "(embedding::halfvec({})) halfvec_ip_ops"
SAMPLES_PER_LIST = 50
MEMORY_MARGIN = 1.1
MEMORY_MIN_MB = 64
MB = 1024 * 1024


@dataclass(frozen=True)
class IndexCost:
    """What an index of one profile would cost, in bytes."""

    profile: Profile
    rows: int
    dimensions: int
    heap_bytes: int
    index_bytes: int
    build_bytes: int
    lists: int | None  # of IVFFlat alone
    refused: str | None  # why it cannot be built

    @property
    def build_mb(self) -> int:
        """Memory to build with in MB, a margin included."""
        return max(MEMORY_MIN_MB, math.ceil(self.build_bytes * MEMORY_MARGIN / MB))


@dataclass(frozen=True)
class ModelCoverage:
    """A registered model, and how much of the catalogue it covers."""

    id: int
    name: str
    dimensions: int
    active: bool
    followed: bool  # gets a vector of every new moment, although searches do not use it
    fingerprint: str
    rows: int  # vectors
    missing: int  # segments without a vector


@dataclass(frozen=True)
class VectorIndex:
    """An index on a model's partition of the embeddings."""

    name: str
    method: str
    valid: bool
    bytes: int
    ef_construction: int | None  # of a graph (HNSW) alone

    def advice(self, rows: int) -> str:
        """Return what to do about the index if the model has this many rows; empty if it is fine."""
        if not self.valid:
            return "its build was interrupted: build it again"
        better = ef_construction(rows)
        if self.ef_construction is not None and self.ef_construction * BUILT_FOR_FEWER < better:
            return f"built for fewer rows (ef_construction {self.ef_construction}, {better} is better): build it again"
        return ""


@dataclass(frozen=True)
class Progress:
    """How far a build has come; `total` is 0 while it is not known."""

    phase: str
    done: int
    total: int


def plan(profile: Profile, rows: int, dimensions: int, memory_max_mb: int) -> IndexCost:
    """Compute what an index would cost.

    Args:
        profile: Kind of the index.
        rows: Vectors that it holds.
        dimensions: Of a vector.
        memory_max_mb: Memory that the build may use, in MB.

    Returns:
        The cost; `refused` says why the index cannot be built, if it cannot.
    """
    lists = max(1, min(LISTS_MAX, math.isqrt(rows))) if profile == "ivfflat" else None
    cost = IndexCost(
        profile=profile,
        rows=rows,
        dimensions=dimensions,
        heap_bytes=rows * bytes_per_row(dimensions),
        index_bytes=rows * _per_row(_index_tuple_bytes(profile, dimensions)),
        build_bytes=_build_bytes(profile, rows, dimensions, lists or 0),
        lists=lists,
        refused=None,
    )
    return IndexCost(**{**vars(cost), "refused": _refusal(cost, memory_max_mb)})


def ef_construction(rows: int) -> int:
    """Return pgvector's `ef_construction` for a graph of this many rows."""
    grown = round(EF_CONSTRUCTION * math.sqrt(rows / EF_CONSTRUCTION_ROWS))
    return max(EF_CONSTRUCTION, min(EF_CONSTRUCTION_MAX, grown))


def _index_tuple_bytes(profile: Profile, dimensions: int) -> int:
    # A graph element and its neighbours take 100 bytes and 12 a neighbour, besides the vector itself.
    """Return the bytes of one row's index tuple."""
    vector = dimensions // 8 if profile == "bit" else 2 * dimensions
    return vector + 24 if profile == "ivfflat" else vector + 100 + 12 * M


def _per_row(tuple_bytes: int) -> int:
    """Return the bytes of pages that a tuple takes, since tuples do not cross pages."""
    return math.ceil(PAGE_BYTES / max(1, PAGE_USABLE_BYTES // tuple_bytes))


def _build_bytes(profile: Profile, rows: int, dimensions: int, lists: int) -> int:
    """Return the memory that building takes."""
    if profile == "ivfflat":  # k-means keeps lower bounds of every sample to every list
        samples = min(rows, SAMPLES_PER_LIST * lists)
        return 4 * samples * lists + samples * 2 * dimensions + 4 * lists * dimensions
    vector = dimensions // 8 if profile == "bit" else 2 * dimensions
    return rows * (vector + 203 + 32 * M)


def _refusal(cost: IndexCost, memory_max_mb: int) -> str | None:
    """Return why an index of this cost cannot be built, or None."""
    if cost.dimensions > DIMENSIONS_MAX[cost.profile]:
        return f"{cost.profile} takes at most {DIMENSIONS_MAX[cost.profile]:,} dimensions"
    if cost.build_mb > memory_max_mb:
        return f"needs {cost.build_mb:,} MB to build, {memory_max_mb:,} MB are allowed"
    return None


# ── What there is ──────────────────────────────────────────────────────────────────────────────────────────────────


def models(connection: Connection[Any]) -> list[ModelCoverage]:
    """Return every model with its coverage."""
    with connection.cursor(row_factory=class_row(ModelCoverage)) as cursor:
        return cursor.execute(
            "SELECT m.id, m.name, m.dimensions, m.active, m.followed, m.fingerprint,"
            " (SELECT count(*) FROM media.embeddings e WHERE e.model_id = m.id) AS rows,"
            " (SELECT count(*) FROM media.segments s WHERE NOT EXISTS (SELECT FROM media.embeddings e"
            "  WHERE e.model_id = m.id AND e.segment_id = s.id)) AS missing FROM media.models m ORDER BY m.id"
        ).fetchall()


def model(connection: Connection[Any], name: str) -> ModelCoverage:
    """Return a model by name, or the active one for "".

    Raises:
        Rejected: the model does not exist, or no model is active.
    """
    known = models(connection)
    matching = [each for each in known if (each.name == name if name else each.active)]
    if not matching:
        hint = f"known: {', '.join(each.name for each in known)}" if known else "ingest something first"
        raise Rejected(f"there is no model {name!r}" if name else "no model is active", code="not-found", hint=hint)
    return matching[0]


def indexes(connection: Connection[Any], model_id: int) -> list[VectorIndex]:
    """Return the vector indexes of a model's partition."""
    with connection.cursor(row_factory=class_row(VectorIndex)) as cursor:
        return cursor.execute(
            "SELECT c.relname AS name, a.amname AS method, i.indisvalid AS valid, pg_relation_size(c.oid) AS bytes,"
            " CASE a.amname WHEN 'hnsw' THEN coalesce((SELECT option_value::int FROM pg_options_to_table(c.reloptions)"
            "  WHERE option_name = 'ef_construction'), %s) END AS ef_construction"
            " FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON a.oid = c.relam"
            " WHERE i.indrelid = to_regclass(%s) AND a.amname IN ('hnsw', 'ivfflat') ORDER BY c.relname",
            (EF_CONSTRUCTION, f"media.embeddings_m{model_id}"),
        ).fetchall()


def progress(connection: Connection[Any], model_id: int) -> Progress | None:
    """Return the progress of a build on a model's partition, or None while none is running."""
    row = connection.execute(
        "SELECT phase, greatest(blocks_done, tuples_done), greatest(blocks_total, tuples_total)"
        " FROM pg_stat_progress_create_index WHERE relid = to_regclass(%s)",
        (f"media.embeddings_m{model_id}",),
    ).fetchone()
    return Progress(*row) if row else None


# ── Changing it ────────────────────────────────────────────────────────────────────────────────────────────────────


def build(connection: Connection[Any], target: ModelCoverage, profile: Profile, memory_max_mb: int) -> str:
    """Build or rebuild an index without blocking searches or ingest.

    Any index of another profile is dropped once the new one is valid, because the planner would go on using it.

    Args:
        connection: Connection to the primary, in autocommit mode.
        target: The model.
        profile: Kind of the index.
        memory_max_mb: Memory that the build may use, in MB.

    Returns:
        The name of the index.

    Raises:
        Rejected: the build does not fit into the memory, or into pgvector's limits.
    """
    cost = plan(profile, target.rows, target.dimensions, memory_max_mb)
    if cost.refused:
        hint = "allow more with --memory-mb, or take another profile (`pixr index plan`)"
        raise Rejected(f"{profile} for {target.rows:,} rows {cost.refused}", code="build-refused", hint=hint)
    name = f"embeddings_m{target.id}_{profile}"
    existing = {index.name: index for index in indexes(connection, target.id)}
    connection.execute(sql.SQL("SET maintenance_work_mem = {}").format(sql.Literal(f"{cost.build_mb}MB")))
    for statement in _statements(name, existing, target, cost):
        connection.execute(statement)
    return name


def _statements(
    name: str, existing: dict[str, VectorIndex], target: ModelCoverage, cost: IndexCost
) -> Iterator[sql.Composed]:
    """Yield the statements that leave only the planned index: drop invalid ones, rebuild or create it, drop the others."""
    current = existing.get(name)
    # An interrupted build leaves an invalid index, under its own name or under REINDEX's temporary name.
    for index in existing.values():
        if not index.valid:
            yield _drop(index.name)
    if current is not None and current.valid and cost.profile != "ivfflat":
        yield sql.SQL("ALTER INDEX media.{} SET (ef_construction = {})").format(
            sql.Identifier(name), sql.Literal(ef_construction(cost.rows))
        )
        yield sql.SQL("REINDEX INDEX CONCURRENTLY media.{}").format(sql.Identifier(name))
    else:
        if current is not None and current.valid:  # REINDEX would keep the number of lists, which follows the rows
            yield _drop(name)
        yield _create(name, target, cost)
    for index in existing.values():
        if index.valid and index.name != name:
            yield _drop(index.name)


def _create(name: str, target: ModelCoverage, cost: IndexCost) -> sql.Composed:
    """Return the statement that creates an index."""
    options = f"lists = {cost.lists}" if cost.lists else f"m = {M}, ef_construction = {ef_construction(cost.rows)}"
    indexed = "(binary_quantize(embedding)::bit({})) bit_hamming_ops" if cost.profile == "bit" else HALVES
    return sql.SQL("CREATE INDEX CONCURRENTLY {} ON media.{} USING {} ({}) WITH ({})").format(
        sql.Identifier(name),
        sql.Identifier(f"embeddings_m{target.id}"),
        sql.SQL("ivfflat" if cost.profile == "ivfflat" else "hnsw"),
        sql.SQL(indexed).format(sql.Literal(target.dimensions)),
        sql.SQL(options),
    )


def _drop(name: str) -> sql.Composed:
    """Return the statement that drops an index."""
    return sql.SQL("DROP INDEX CONCURRENTLY IF EXISTS media.{}").format(sql.Identifier(name))


def switch(connection: Connection[Any], name: str, *, force: bool = False) -> ModelCoverage:
    """Make a model the one that searches use, in one transaction; switching to the active one changes nothing.

    Raises:
        Rejected: the model does not exist, or lacks vectors and `force` is false.
    """
    target = model(connection, name)
    if target.active:
        return target
    if target.missing and not force:
        detail = f"model {name!r} has no vector for {target.missing:,} segments"
        hint = f"`pixr index backfill {name}` embeds them, or use --force"
        raise Rejected(detail, status=409, code="not-covered", hint=hint)
    with connection.transaction():
        # The former model keeps getting vectors of new moments, so that one can switch back.
        connection.execute("UPDATE media.models SET active = false, followed = true WHERE active")
        connection.execute("UPDATE media.models SET active = true, followed = false WHERE id = %s", (target.id,))
        bump_generation(connection)
    return ModelCoverage(**{**vars(target), "active": True, "followed": False})


def follow(connection: Connection[Any], name: str, *, on: bool = True) -> None:
    """Start or stop giving a model a vector of every new moment; the active model gets them anyway.

    Raises:
        Rejected: the model does not exist.
    """
    target = model(connection, name)
    connection.execute("UPDATE media.models SET followed = %s WHERE id = %s AND NOT active", (on, target.id))
