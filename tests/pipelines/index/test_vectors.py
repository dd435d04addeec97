"""Candidates from PostgreSQL: every plan finds what comparing everything finds, and filters lose nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
import psycopg
import pytest
from numpy.typing import NDArray
from psycopg import AsyncConnection

from cluster.database import database
from cluster.settings import Settings
from pipelines.index import admin as index_admin
from pipelines.index import fulltext, vectors
from pipelines.index.vectors import Filters, SearchLimits, SearchModel
from tests.conftest import fresh_database
from tests.pipelines.corpus import DIMENSIONS, ROWS, Catalogue, Corpus, clustered, load

EXACT, INDEXED = SearchLimits(exact_rows=10**9), SearchLimits(exact_rows=0, ef_search=100)


@pytest.fixture
async def model(reading: AsyncConnection[Any]) -> SearchModel:
    _, found, *_ = await vectors.state(reading)
    assert found is not None
    return found


def best(corpus: Corpus, vector: NDArray[np.float32], rows: NDArray[np.bool_], limit: int) -> list[int]:
    """By comparing everything here, in the precision that the database keeps."""
    ids = np.flatnonzero(rows)
    cosines = corpus.vectors[ids].astype(np.float16).astype(np.float32) @ vector.astype(np.float16).astype(np.float32)
    return [int(corpus.ids[ids[place]]) for place in np.argsort(-cosines, kind="stable")[:limit]]


def recall(hits: list[vectors.Hit], wanted: list[int]) -> float:
    return len({hit.segment_id for hit in hits} & set(wanted)) / len(wanted)


@pytest.mark.parametrize(("plan", "least"), [(EXACT, 0.99), (INDEXED, 0.95)])
async def test_the_nearest_are_found(
    reading: AsyncConnection[Any], model: SearchModel, corpus: Catalogue, plan: SearchLimits, least: float
) -> None:
    everything = np.ones(ROWS, bool)
    found = []
    for vector in corpus.corpus.queries[:20]:
        hits = (await vectors.nearest(reading, model, vector, 10, None, plan)).hits
        assert [hit.value for hit in hits] == sorted((hit.value for hit in hits), reverse=True)
        found.append(recall(hits, best(corpus.corpus, vector, everything, 10)))
    assert np.mean(found) >= least


@pytest.mark.parametrize("plan", [EXACT, INDEXED])
@pytest.mark.parametrize("share", [0.5, 0.05, 0.01, 0.001])
async def test_a_filter_loses_no_row_whatever_its_selectivity(
    reading: AsyncConnection[Any], model: SearchModel, corpus: Catalogue, plan: SearchLimits, share: float
) -> None:
    made = corpus.corpus
    tag, fits = made.tagged(share)
    for vector in made.queries[:5]:
        wanted = best(made, vector, fits, 10)
        hits = (await vectors.nearest(reading, model, vector, 10, Filters(tags=(tag,)), plan)).hits
        assert len(hits) == len(wanted) == min(10, fits.sum())
        assert {hit.segment_id for hit in hits} <= set(made.ids[fits])


@pytest.mark.parametrize(
    ("fitting", "rows", "exact"),
    [
        (15_000, 1_000_000, True),
        (200_000, 1_000_000, False),
        (1_000_000, 1_000_000, False),
        (30_000, 100_000_000, True),
        (10_000_000, 100_000_000, False),
        (20_000, 20_000, True),
        (0, 1_000_000, True),
    ],
)
def test_what_few_rows_pass_is_compared_whole(fitting: int, rows: int, exact: bool) -> None:
    assert SearchLimits().exact(fitting, rows, 200) is exact


async def test_how_many_rows_pass_is_known_within_a_factor_of_two(
    reading: AsyncConnection[Any], model: SearchModel, corpus: Catalogue
) -> None:
    for share in (1.0, 0.5, 0.1, 0.01):
        filters = Filters(tags=(f"share{share}",)) if share < 1 else Filters()
        fitting = await vectors.estimate_fitting(reading, model, filters)
        assert ROWS * share / 2 <= fitting <= max(ROWS * share * 2, 10)


async def test_an_index_that_gives_too_little_is_not_believed(
    reading: AsyncConnection[Any], model: SearchModel, corpus: Catalogue
) -> None:
    plan = SearchLimits(exact_rows=0, ef_search=10, scan_tuples=1)
    tag, fits = corpus.corpus.tagged(0.1)
    looked = await vectors.nearest(reading, model, corpus.corpus.queries[0], 100, Filters(tags=(tag,)), plan)
    assert len(looked.hits) == 100 <= fits.sum()
    assert looked.mode in ("exact", "index, exact")


async def test_every_filter_means_what_it_says(reading: AsyncConnection[Any], model: SearchModel) -> None:
    async def count(condition: str) -> int:
        row = await (
            await reading.execute(
                "SELECT count(*) FROM media.segments s JOIN media.videos v ON v.id = s.video_id"
                f" WHERE v.status = 'ready' AND v.visibility = 'public' AND {condition}"  # type: ignore[arg-type]
            )
        ).fetchone()
        assert row is not None
        return int(row[0])

    row = await (await reading.execute("SELECT created_at FROM media.videos ORDER BY id OFFSET 20 LIMIT 1")).fetchone()
    assert row is not None
    at, vector = row[0], np.eye(DIMENSIONS, dtype=np.float32)[0]
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
        hits = (await vectors.nearest(reading, model, vector, 5000, filters, EXACT)).hits
        assert len(hits) == await count(condition) > 0, filters


async def test_a_statement_that_takes_too_long_is_ended(
    reading: AsyncConnection[Any], model: SearchModel, corpus: Catalogue
) -> None:
    vector, plan = corpus.corpus.queries[0], SearchLimits(timeout_ms=50)
    with database.connect(corpus.url) as other:
        other.execute("LOCK TABLE media.embeddings_m1, media.impacts IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(psycopg.errors.QueryCanceled):
            await vectors.nearest(reading, model, vector, 1, None, plan)
        with pytest.raises(psycopg.errors.QueryCanceled):
            await fulltext.matching(reading, "common", 1, None, plan)
        other.rollback()
    assert (await vectors.nearest(reading, model, vector, 1)).hits


async def test_an_old_id_leads_to_the_moment_that_took_over_most_of_it(postgres_url: str) -> None:
    async with await AsyncConnection.connect(postgres_url) as connection:
        await connection.execute(
            "INSERT INTO media.segment_lineage (old_id, new_id, overlap) VALUES (1, 5, 0.3), (1, 6, 0.7)"
        )
        assert await vectors.redirected(connection, 1) == 6
        assert await vectors.redirected(connection, 2) == 2


@pytest.fixture
def rebuilt(ground: Settings, _template: str, request: pytest.FixtureRequest) -> Iterator[Catalogue]:
    """The same catalogue with an index of another profile."""
    with fresh_database(ground, _template) as url:
        made = clustered(ROWS, DIMENSIONS, seed=1)
        with database.connect(url, autocommit=True) as connection:
            load(connection, made)
            index_admin.build(connection, index_admin.model(connection, "synthetic"), request.param, 512)
        yield Catalogue(url, made)


@pytest.mark.parametrize("rebuilt", ["hnsw", "bit", "ivfflat"], indirect=True)
async def test_every_profile_finds_the_nearest_and_all_that_fits(
    rebuilt: Catalogue, request: pytest.FixtureRequest
) -> None:
    profile = request.node.callspec.params["rebuilt"]
    made, plan = rebuilt.corpus, replace(INDEXED, reranked=40)  # so few signs tell little
    async with await AsyncConnection.connect(rebuilt.url, autocommit=True) as connection:
        _, model, *_ = await vectors.state(connection)
        assert model is not None
        assert model.profile == profile
        found = []
        for vector in made.queries[:20]:
            looked = await vectors.nearest(connection, model, vector, 20, None, plan)
            assert looked.mode == "index"
            assert [hit.value for hit in looked.hits] == sorted((hit.value for hit in looked.hits), reverse=True)
            found.append(recall(looked.hits[:10], best(made, vector, np.ones(ROWS, bool), 10)))
        assert np.mean(found) >= {"hnsw": 0.95, "ivfflat": 0.9, "bit": 0.75}[profile]
        for share in (0.5, 0.05, 0.01):
            tag, fits = made.tagged(share)
            hits = (await vectors.nearest(connection, model, made.queries[0], 10, Filters(tags=(tag,)), plan)).hits
            assert len(hits) == min(10, fits.sum())
            assert {hit.segment_id for hit in hits} <= set(made.ids[fits])
        await connection.execute("UPDATE media.videos SET visibility = 'unlisted' WHERE id % 10 <> 0")
        looked = await vectors.nearest(connection, model, made.queries[0], 20, None, replace(plan, whole=False))
        assert (len(looked.hits), looked.mode) == (20, "index")  # by going on: one walk meets too few that are seen
        await vectors.configure(connection, {"enable_seqscan": "off"})
        walked = await (await connection.execute(EXPLAINED[profile], {"vector": text(made.queries[0])})).fetchall()
        assert f"embeddings_m1_{profile}" in str(walked)


async def test_a_session_is_set_once_and_what_a_transaction_takes_back_is_set_again(postgres_url: str) -> None:
    async def shown() -> str:
        row = await (await connection.execute("SHOW statement_timeout")).fetchone()
        assert row is not None
        return str(row[0])

    async with await AsyncConnection.connect(postgres_url, autocommit=True) as connection:
        with suppress(ZeroDivisionError):
            async with connection.transaction():
                await vectors.configure(connection, {"statement_timeout": 4000})
                raise ZeroDivisionError
        assert await shown() == "0"
        for wanted in (4000, 4000, 3000, 4000):
            await vectors.configure(connection, {"statement_timeout": wanted})
            assert await shown() == f"{wanted // 1000}s"
        await connection.execute("SET statement_timeout = 0")  # behind its back
        await vectors.configure(connection, {"statement_timeout": 4000})
        assert await shown() == "0"  # nothing was said to the server


SQL_NEAR = "EXPLAIN SELECT segment_id FROM media.embeddings_m1 ORDER BY"
HALVES = f"{SQL_NEAR} (embedding::halfvec({DIMENSIONS})) <#> %(vector)s::halfvec({DIMENSIONS}) LIMIT 5"
EXPLAINED = {
    "hnsw": HALVES,
    "ivfflat": HALVES,
    "bit": f"{SQL_NEAR} (binary_quantize(embedding)::bit({DIMENSIONS}))"
    f" <~> binary_quantize(%(vector)s::halfvec({DIMENSIONS}))::bit({DIMENSIONS}) LIMIT 5",
}


def text(vector: NDArray[np.float32]) -> str:
    return "[" + ",".join(map(str, vector)) + "]"


class Told(Exception):
    """What a question would have asked."""


class Listening:
    """A connection that is asked nothing."""

    async def execute(self, query: Any, parameters: Any = None) -> Any:
        raise Told(query, parameters)


@pytest.mark.parametrize("lookup", ["cosines", "alike", "vector_of"])
async def test_vectors_of_some_moments_are_looked_up_by_their_whole_key(
    reading: AsyncConnection[Any], model: SearchModel, corpus: Catalogue, lookup: str
) -> None:
    """Else all of them are read where PostgreSQL does not skip in an index (before 18)."""
    ids = [int(each) for each in corpus.corpus.ids[:20]]
    questions = {
        "cosines": lambda asked: vectors.cosines(asked, model, corpus.corpus.queries[0], ids),
        "alike": lambda asked: vectors.alike(asked, model, ids, 0.98),
        "vector_of": lambda asked: vectors.vector_of(asked, model, ids[0]),
    }
    with pytest.raises(Told) as told:
        await questions[lookup](Listening())
    query, parameters = told.value.args
    rows = await (await reading.execute(psycopg.sql.SQL("EXPLAIN ") + query, parameters)).fetchall()
    plan = "\n".join(row[0] for row in rows)
    assert re.search(r"Index Cond: .*model_id = .*segment_id = ANY", plan), plan


async def test_moments_of_one_video_are_no_copies_of_each_other(
    reading: AsyncConnection[Any], model: SearchModel, corpus: Catalogue
) -> None:
    rows = await (await reading.execute("SELECT segment_id, video_id FROM media.embeddings LIMIT 200")).fetchall()
    video = dict(rows)
    pairs = await vectors.alike(reading, model, sorted(video), -1.0)
    wanted = {(one, other) for one in video for other in video if one < other and video[one] != video[other]}
    assert set(pairs) == wanted
