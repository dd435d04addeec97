"""The recall of real searches is known from making some of them again by comparing everything."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from psycopg import AsyncConnection

from cluster.database import database
from cluster.settings import Settings
from pipelines.index import vectors
from pipelines.index.vectors import Filters, Hit, SearchLimits, SearchModel, VectorHits
from serve.replica.connections import Connections
from serve.replica.encoding import QueryEncoder
from serve.replica.readers import Readers
from serve.replica.recall import EXACT, Recall, Shadow, Vector
from serve.settings import SearchSettings
from tests.pipelines.corpus import clustered, load
from tests.serve.doors import near, opened
from tests.serve.scenes import Scenes, hang

SEARCH = SearchSettings(recall_interval_s=1e-6, recall_share_max=1.0)


async def test_recall_is_the_share_of_the_true_ten_that_were_found(postgres_url: str) -> None:
    corpus = clustered(300, 8, seed=4)
    with database.connect(postgres_url, autocommit=True) as connection:
        load(connection, corpus)
    readers = Readers(Connections(postgres_url, SEARCH), [], SEARCH)
    await readers.start()
    recall = Recall(readers, SEARCH)
    assert recall.means == {}
    async with await AsyncConnection.connect(postgres_url, autocommit=True) as connection:
        _, model, *_ = await vectors.state(connection)
        assert model is not None
        true = await vectors.exact(connection, model, corpus.queries[0], 10, Filters(), 1000)
    for right in (10, 5):
        found = [*true[:right], *(Hit(10_000 + number, 0.0) for number in range(10 - right))]
        recall.follow(model, corpus.queries[0], Filters(), VectorHits(found, "index", 300))
        await recall.close()
    assert recall.means == {model.name: pytest.approx(0.75)}
    recall.follow(model, corpus.queries[0], Filters(), VectorHits(true, "exact", 300))
    assert recall.looks(model.name) == 2  # an exact search needs no look
    await readers.close()


async def test_recall_is_a_metric_of_the_searches_that_were_made(
    settings: Settings, model: QueryEncoder, painted: Scenes
) -> None:
    with database.connect(settings.postgres.url) as connection:
        hang(connection, painted)
    made = dataclasses.replace(
        settings.section(SearchSettings), recall_interval_s=1e-6, exact_rows_max=0, candidates_max=5, limit_max=5,
        limit_default=5, encode_timeout_s=30.0,
    )  # fmt: skip
    async with opened(settings.with_section(made), near(model)) as doors:
        # Little is compared exactly in so small a catalogue, whatever the settings: look as if the index had answered.
        state = await doors.services.generation.now()
        assert state.model is not None
        vector = painted.vectors[0, 0].astype(np.float32)
        searched = state.model
        true = await doors.services.readers.ask(
            lambda connection: vectors.exact(connection, searched, vector, 10, Filters(), 1000), manner=EXACT
        )
        doors.services.recall.follow(state.model, vector, Filters(), VectorHits(true, "index", 24))
        await doors.services.recall.close()
        text = (await doors.http.get("/metrics")).text
    assert 'pixr_recall_at_10{model="pixr-emoji"} 1.0' in text


async def test_a_model_that_nobody_is_shown_is_looked_at_with_the_same_query(postgres_url: str) -> None:
    """The next model's index finds all; the vectors are its own, not those of the model that is searched."""
    corpus, other = clustered(300, 8, seed=4), clustered(300, 8, seed=5)
    with database.connect(postgres_url, autocommit=True) as connection:
        load(connection, corpus)
        connection.execute("SELECT media.register_model('next', 8, 'next')")
        connection.cursor().executemany(
            "INSERT INTO media.embeddings (model_id, segment_id, video_id, creator_id, start_ms, end_ms, embedding)"
            " SELECT 2, id, video_id, creator_id, start_ms, end_ms, %s::real[]::vector::halfvec FROM media.segments"
            " WHERE id = %s",
            [(vector.tolist(), number) for number, vector in enumerate(other.vectors, 1)],
        )
    readers = Readers(Connections(postgres_url, SEARCH), [], SEARCH)
    await readers.start()
    recall = Recall(readers, SEARCH)
    asked: list[str] = []

    async def vector(model: SearchModel) -> Vector:
        asked.append(model.name)
        return other.queries[0]

    async with await AsyncConnection.connect(postgres_url, autocommit=True) as connection:
        _, model, names, _ = await vectors.state(connection)
        assert model is not None
        true = await vectors.exact(connection, model, corpus.queries[0], 10, Filters(), 1000)
    shadow = Shadow(
        [name for name in names if name != model.name] + ["gone"], vector, SearchLimits(exact_rows=0, ef_search=300)
    )
    recall.follow(model, corpus.queries[0], Filters(), VectorHits(true, "index", 300), shadow)
    await recall.close()
    await readers.close()
    assert asked == ["next"]
    assert recall.means == {model.name: 1.0, "next": 1.0}
