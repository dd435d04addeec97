"""The recall of real searches is known from making some of them again by comparing everything."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from psycopg import AsyncConnection

from cluster import database
from cluster.settings import Settings
from pipelines import index
from pipelines.index import Filters, Hit, Looked
from serve.encoding import QueryEncoder
from serve.readers import Readers, pool
from serve.recall import Recall
from serve.settings import SearchSettings
from tests.pipelines.corpus import clustered, load
from tests.serve.doors import near, opened
from tests.serve.scenes import Scenes, hang

SEARCH = SearchSettings(recall_interval_s=1e-6, recall_share_max=1.0)


async def test_recall_is_the_share_of_the_true_ten_that_were_found(postgres_url: str) -> None:
    corpus = clustered(300, 8, seed=4)
    with database.connect(postgres_url, autocommit=True) as connection:
        load(connection, corpus)
    readers = Readers(pool(postgres_url, SEARCH), [], SEARCH)
    await readers.start()
    recall = Recall(readers, SEARCH)
    assert math.isnan(recall.mean)
    async with await AsyncConnection.connect(postgres_url, autocommit=True) as connection:
        _, model, _ = await index.state(connection)
        assert model is not None
        true = await index.exact(connection, model, corpus.queries[0], 10, Filters(), 1000)
    for right in (10, 5):
        found = [*true[:right], *(Hit(10_000 + number, 0.0) for number in range(10 - right))]
        recall.follow(model, corpus.queries[0], Filters(), Looked(found, "index", 300))
        await recall.close()
    assert recall.mean == pytest.approx(0.75)
    recall.follow(model, corpus.queries[0], Filters(), Looked(true, "exact", 300))
    assert recall.looks == 2  # an exact search needs no look
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
        async with doors.services.readers.connection() as connection:
            true = await index.exact(connection, state.model, vector, 10, Filters(), 1000)
        doors.services.recall.follow(state.model, vector, Filters(), Looked(true, "index", 24))
        await doors.services.recall.close()
        text = (await doors.http.get("/metrics")).text
    assert "pixr_recall_at_10 1.0" in text
