"""Candidates from PostgreSQL: every plan finds what comparing everything finds, and filters lose nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import numpy as np
import psycopg
import pytest
from numpy.typing import NDArray
from psycopg import AsyncConnection

from cluster import database
from cluster.settings import Settings
from pipelines import index
from pipelines.index import Filters, Model, Plan
from tests.conftest import fresh_database
from tests.pipelines.corpus import Corpus, clustered, load

ROWS, DIMENSIONS = 3000, 32
EXACT, INDEXED = Plan(exact_rows=10**9), Plan(exact_rows=0)


@pytest.fixture(scope="module")
def corpus(ground: Settings, _template: str) -> Iterator[tuple[str, Corpus]]:
    """A database with clustered vectors and their index, and what is in it. Tests here change nothing."""
    made = clustered(ROWS, DIMENSIONS, seed=1)
    with fresh_database(ground, _template) as url:
        with database.connect(url, autocommit=True) as connection:
            load(connection, made)
        yield url, made


@pytest.fixture
async def connection(corpus: tuple[str, Corpus]) -> AsyncIterator[AsyncConnection[Any]]:
    async with await AsyncConnection.connect(corpus[0]) as made:
        yield made


@pytest.fixture
async def model(connection: AsyncConnection[Any]) -> Model:
    found = await index.active_model(connection)
    assert found is not None
    return found


def best(corpus: Corpus, vector: NDArray[np.float32], rows: NDArray[np.bool_], limit: int) -> list[int]:
    """By comparing everything here, in the precision that the database keeps."""
    ids = np.flatnonzero(rows)
    cosines = corpus.vectors[ids].astype(np.float16).astype(np.float32) @ vector.astype(np.float16).astype(np.float32)
    return [int(corpus.ids[ids[place]]) for place in np.argsort(-cosines, kind="stable")[:limit]]


def recall(hits: list[index.Hit], wanted: list[int]) -> float:
    return len({hit.segment_id for hit in hits} & set(wanted)) / len(wanted)


@pytest.mark.parametrize(("plan", "least"), [(EXACT, 0.99), (INDEXED, 0.95)])
async def test_the_nearest_are_found(
    connection: AsyncConnection[Any], model: Model, corpus: tuple[str, Corpus], plan: Plan, least: float
) -> None:
    everything = np.ones(ROWS, bool)
    found = []
    for vector in corpus[1].queries[:20]:
        hits = await index.nearest(connection, model, vector, 10, None, plan)
        assert [hit.value for hit in hits] == sorted((hit.value for hit in hits), reverse=True)
        found.append(recall(hits, best(corpus[1], vector, everything, 10)))
    assert np.mean(found) >= least


@pytest.mark.parametrize("plan", [EXACT, INDEXED])
@pytest.mark.parametrize("share", [0.5, 0.05, 0.01, 0.001])
async def test_a_filter_loses_no_row_whatever_its_selectivity(
    connection: AsyncConnection[Any], model: Model, corpus: tuple[str, Corpus], plan: Plan, share: float
) -> None:
    made = corpus[1]
    tag, fits = made.tagged(share)
    for vector in made.queries[:5]:
        wanted = best(made, vector, fits, 10)
        hits = await index.nearest(connection, model, vector, 10, Filters(tags=(tag,)), plan)
        assert len(hits) == len(wanted) == min(10, fits.sum())
        assert {hit.segment_id for hit in hits} <= set(made.ids[fits])


async def test_every_filter_means_what_it_says(connection: AsyncConnection[Any], model: Model) -> None:
    async def count(condition: str) -> int:
        row = await (
            await connection.execute(
                "SELECT count(*) FROM media.segments s JOIN media.videos v ON v.id = s.video_id"
                f" WHERE v.status = 'ready' AND v.visibility = 'public' AND {condition}"  # type: ignore[arg-type]
            )
        ).fetchone()
        assert row is not None
        return int(row[0])

    row = await (
        await connection.execute("SELECT created_at FROM media.videos ORDER BY id OFFSET 20 LIMIT 1")
    ).fetchone()
    assert row is not None
    at = row[0]
    for filters, condition in (
        (Filters(creator_ids=(1, 2)), "v.creator_id IN (1, 2)"),
        (Filters(video_ids=(3, 4, 5)), "v.id IN (3, 4, 5)"),
        (Filters(tags=("all",)), "true"),
        (Filters(duration_min_ms=40_000), "v.duration_ms >= 40000"),
        (Filters(duration_max_ms=40_000), "v.duration_ms <= 40000"),
        (Filters(height_min=1000), "v.height >= 1000"),
        (Filters(created_after=at), f"v.created_at >= '{at.isoformat()}'"),
        (Filters(created_before=at, creator_ids=(1,)), f"v.created_at < '{at.isoformat()}' AND v.creator_id = 1"),
    ):
        hits = await index.nearest(connection, model, np.eye(DIMENSIONS, dtype=np.float32)[0], 5000, filters, EXACT)
        assert len(hits) == await count(condition) > 0, filters


async def test_words_are_matched_all_first_then_any(
    connection: AsyncConnection[Any], corpus: tuple[str, Corpus]
) -> None:
    first = await index.matching(connection, "video number7 common", 10)
    whole = {hit.segment_id for hit in first[: corpus[1].per_video]}
    assert whole == set(corpus[1].ids[corpus[1].videos == 7])
    assert len(first) == 10


async def test_a_word_with_a_minus_is_left_out_also_where_any_word_will_do(
    connection: AsyncConnection[Any], corpus: tuple[str, Corpus]
) -> None:
    for words in ("number7 -common", "number7 number8 -rare"):
        hits = await index.matching(connection, words, 2000)
        row = await (
            await connection.execute(
                "SELECT count(*) FROM media.segments WHERE id = ANY(%s) AND search @@ to_tsquery('english', %s)",
                ([hit.segment_id for hit in hits], words.rpartition("-")[2]),
            )
        ).fetchone()
        assert row == (0,)
    assert await index.matching(connection, "number7 -common", 10) == []


@pytest.mark.parametrize("text", ["'; DROP TABLE media.segments; --", "a & | ! ( <->", '"', "the", "\\", ":*", "%s"])
async def test_no_text_breaks_full_text(connection: AsyncConnection[Any], text: str) -> None:
    assert await index.matching(connection, text, 10) == []


async def test_matches_are_cut_off_before_they_are_ranked(connection: AsyncConnection[Any]) -> None:
    assert len(await index.matching(connection, "common", 200, None, Plan(text_rows=50))) == 50


async def test_a_statement_that_takes_too_long_is_ended(
    connection: AsyncConnection[Any], model: Model, corpus: tuple[str, Corpus]
) -> None:
    vector, plan = corpus[1].queries[0], Plan(timeout_ms=50)
    with database.connect(corpus[0]) as other:
        other.execute("LOCK TABLE media.embeddings_m1, media.segments IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(psycopg.errors.QueryCanceled):
            await index.nearest(connection, model, vector, 1, None, plan)
        with pytest.raises(psycopg.errors.QueryCanceled):
            await index.matching(connection, "common", 1, None, plan)
        other.rollback()
    assert await index.nearest(connection, model, vector, 1)


async def test_an_old_id_leads_to_the_moment_that_took_over_most_of_it(postgres_url: str) -> None:
    async with await AsyncConnection.connect(postgres_url) as connection:
        await connection.execute(
            "INSERT INTO media.segment_lineage (old_id, new_id, overlap) VALUES (1, 5, 0.3), (1, 6, 0.7)"
        )
        assert await index.redirected(connection, 1) == 6
        assert await index.redirected(connection, 2) == 2
