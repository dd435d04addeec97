"""An index is planned from figures, refused where it cannot be built, built beside the traffic; a model changes at once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import Connection

from cluster.database import database
from cluster.errors import Rejected
from pipelines.index import admin as index_admin
from tests.pipelines.corpus import clustered, load

ROWS, DIMENSIONS = 600, 16


@pytest.fixture
def connection(postgres_url: str) -> Iterator[Connection[Any]]:
    with database.connect(postgres_url, autocommit=True) as made:
        load(made, clustered(ROWS, DIMENSIONS, seed=2))
        yield made


@pytest.mark.parametrize(
    ("profile", "heap", "index", "build"),
    [("hnsw", 117e9, 137e9, 174e9), ("bit", 117e9, 37e9, 78e9), ("ivfflat", 117e9, 118e9, None)],
)
def test_sizes_are_those_that_were_measured(
    profile: index_admin.Profile, heap: float, index: float, build: float | None
) -> None:
    plan = index_admin.plan(profile, 100_000_000, 512, 10**9)
    assert plan.heap_bytes == pytest.approx(heap, rel=0.05)
    assert plan.index_bytes == pytest.approx(index, rel=0.05)
    assert build is None or plan.build_bytes == pytest.approx(build, rel=0.05)


def test_what_cannot_be_built_is_refused_with_the_figure() -> None:
    assert "MB to build" in str(index_admin.plan("hnsw", 10_000_000, 512, 2048).refused)
    assert "4,000 dimensions" in str(index_admin.plan("hnsw", 1000, 4001, 10**6).refused)
    assert index_admin.plan("hnsw", 1_000_000, 512, 2048).refused is None
    assert index_admin.plan("ivfflat", 100_000_000, 512, 2048).refused  # k-means over √n lists needs 20 GB and more
    assert index_admin.plan("ivfflat", 1_000_000, 512, 2048).lists == 1000


def test_a_build_that_is_refused_changes_nothing(connection: Connection[Any]) -> None:
    target, before = index_admin.model(connection, ""), index_admin.indexes(connection, 1)
    with pytest.raises(Rejected, match="MB"):
        index_admin.build(connection, target, "hnsw", 1)
    assert index_admin.indexes(connection, 1) == before


def test_building_again_is_safe_and_another_profile_takes_the_place_of_the_first(connection: Connection[Any]) -> None:
    target = index_admin.model(connection, "")
    for _ in range(2):
        assert index_admin.build(connection, target, "hnsw", 512) == "embeddings_m1_hnsw"
        assert [(each.method, each.valid) for each in index_admin.indexes(connection, 1)] == [("hnsw", True)]
    for _ in range(2):
        index_admin.build(connection, target, "ivfflat", 512)
        assert [(each.method, each.valid) for each in index_admin.indexes(connection, 1)] == [("ivfflat", True)]


def test_a_graph_is_built_better_the_more_rows_it_has_and_one_built_for_fewer_is_told(
    connection: Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert [index_admin.ef_construction(rows) for rows in (0, 100_000, 1_000_000, 10**9)] == [64, 64, 202, 400]
    target = index_admin.model(connection, "")
    (grown,) = index_admin.indexes(connection, 1)
    assert (grown.ef_construction, grown.advice(target.rows)) == (64, "")
    assert "ef_construction 64, 202" in grown.advice(1_000_000)
    monkeypatch.setattr(index_admin, "EF_CONSTRUCTION_ROWS", 60)  # as if the rows there are were many
    index_admin.build(connection, target, "hnsw", 512)
    (built,) = index_admin.indexes(connection, 1)
    assert (built.ef_construction, built.advice(target.rows)) == (202, "")


def test_a_build_lets_searches_and_writes_go_on(connection: Connection[Any], postgres_url: str) -> None:
    target, asked, done = index_admin.model(connection, ""), 0, threading.Event()

    def build() -> None:
        with database.connect(postgres_url, autocommit=True) as other:
            for _ in range(3):
                index_admin.build(other, target, "hnsw", 512)
        done.set()

    thread = threading.Thread(target=build)
    thread.start()
    while not done.is_set() or not asked:
        connection.execute("SET statement_timeout = 5000")
        connection.execute(
            "SELECT segment_id FROM media.embeddings_m1 ORDER BY embedding::halfvec(16) <#> %s::halfvec LIMIT 5",
            (str([1.0] * DIMENSIONS),),
        ).fetchall()
        connection.execute("UPDATE media.embeddings SET start_ms = start_ms WHERE segment_id = 1")
        asked += 1
    thread.join()
    assert [each.valid for each in index_admin.indexes(connection, 1)] == [True]


def test_an_index_that_an_interrupted_build_left_is_cleared_away(connection: Connection[Any]) -> None:
    target = index_admin.model(connection, "")
    connection.execute("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'media.embeddings_m1_hnsw'::regclass")
    index_admin.build(connection, target, "hnsw", 512)
    assert [(each.name, each.valid) for each in index_admin.indexes(connection, 1)] == [("embeddings_m1_hnsw", True)]


def test_a_model_that_does_not_cover_the_catalogue_is_not_switched_to(connection: Connection[Any]) -> None:
    connection.execute("SELECT media.register_model('next', 8, 'next')")
    with pytest.raises(Rejected, match="600 segments"):
        index_admin.switch(connection, "next")
    with pytest.raises(Rejected, match="no model"):
        index_admin.switch(connection, "unknown")
    assert index_admin.model(connection, "").name == "synthetic"


def test_a_switch_is_one_step_and_back_again_the_same(connection: Connection[Any]) -> None:
    number = connection.execute("SELECT media.register_model('next', 8, 'next')").fetchone()
    assert number is not None
    connection.execute(
        "INSERT INTO media.embeddings (model_id, segment_id, video_id, creator_id, start_ms, end_ms, embedding)"
        " SELECT %s, segment_id, video_id, creator_id, start_ms, end_ms,"
        " l2_normalize((embedding::halfvec(16)::vector::real[])[1:8]::vector::halfvec) FROM media.embeddings_m1",
        (number[0],),
    )

    def generation() -> int:
        row = connection.execute("SELECT value FROM media.generation").fetchone()
        assert row is not None
        return int(row[0])

    before = generation()
    for name, bumps in (("next", 1), ("next", 1), ("synthetic", 2)):
        assert index_admin.switch(connection, name).active
        active = connection.execute("SELECT name FROM media.models WHERE active").fetchall()
        assert active == [(name,)]
        assert generation() == before + bumps


def test_two_models_are_never_active_at_once(connection: Connection[Any]) -> None:
    connection.execute("SELECT media.register_model('next', 8, 'next')")
    with pytest.raises(psycopg.errors.UniqueViolation):
        connection.execute("UPDATE media.models SET active = true")
