"""A replica is ready once the index is in memory and finds what it should; small catalogues need none of it."""

from __future__ import annotations

import dataclasses
import math
import time

import pytest

from cluster.database import database
from cluster.errors import Rejected, Temporary
from serve.replica.connections import Connections
from serve.replica.readers import Readers
from serve.replica.warming import Warming, require_recall
from serve.settings import SearchSettings
from tests.pipelines.corpus import clustered, load

INDEXED = SearchSettings(
    exact_rows_max=0, limit_default=10, limit_max=10, candidates_max=10, ef_search=100, connection_wait_s=0.5,
    warm_probes=50,
)  # fmt: skip


async def warmed(url: str, search: SearchSettings) -> Warming:
    readers = Readers(Connections(url, search), [], search)
    await readers.start()
    warming = Warming(readers, search)
    await warming.start()
    await warming.close()
    await readers.close()
    return warming


@pytest.fixture
def catalogue(postgres_url: str) -> str:
    with database.connect(postgres_url) as connection:
        load(connection, clustered(3000, 32, seed=7))
    return postgres_url


async def test_an_index_that_finds_the_nearest_is_ready_and_one_that_does_not_says_what_to_do(catalogue: str) -> None:
    good = await warmed(catalogue, INDEXED)
    assert good.recall >= 0.9
    await good.look()
    blind = await warmed(catalogue, dataclasses.replace(INDEXED, warm_recall_min=1.0, ef_search=1))
    assert 0 < blind.recall < 1
    with pytest.raises(Temporary, match="run `pixr index build`"):
        await blind.look()


async def test_searches_change_to_no_model_whose_index_finds_too_little(catalogue: str) -> None:
    await require_recall(catalogue, "synthetic", INDEXED)
    blind = dataclasses.replace(INDEXED, warm_recall_min=1.0, ef_search=1)
    with pytest.raises(Rejected, match="of the nearest") as caught:
        await require_recall(catalogue, "synthetic", blind)
    assert caught.value.code == "low-recall"


async def test_what_is_compared_whole_is_ready_at_once(catalogue: str) -> None:
    small = await warmed(catalogue, dataclasses.replace(INDEXED, exact_rows_max=10_000))
    await small.look()
    assert math.isnan(small.recall)  # nothing was looked at


async def test_without_a_database_a_replica_starts_and_says_that_it_is_not_ready() -> None:
    began = time.monotonic()
    cold = await warmed("postgresql://pixr@127.0.0.1:1/pixr", INDEXED)
    assert time.monotonic() - began < INDEXED.warm_wait_s / 2
    with pytest.raises(Temporary, match="not warm yet"):
        await cold.look()
