"""Pictures have places, a time limit and a breaker of their own, and the encoder gets none that it would refuse."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster import cache
from cluster.errors import Rejected, Temporary
from pipelines.relevance import Calibration
from serve.encoding import RemoteEncoding
from serve.services import Facts, Vector
from serve.settings import SearchSettings
from serve.store import Store
from tests.conftest import throwaway_settings
from tests.serve.doors import PICTURE
from tests.serve.test_dimensions import bomb

UNIT: Vector = np.array([1, 0, 0, 0], np.float32)
SEARCH = SearchSettings(images_max=2, image_timeout_s=0.2)


class Encoder:
    """A deployment's calls, of which that of a picture never ends; counts what is begun and what is cancelled."""

    def __init__(self, loading_s: float = 0.0) -> None:
        self.begun = self.cancelled = 0
        self.loaded: set[str] = set()
        self._loading_s = loading_s

    async def facts(self, model: str) -> Facts:
        if model not in self.loaded:
            await asyncio.sleep(self._loading_s)
            self.loaded.add(model)
        return Facts(model or "tiny", 4, "print", Calibration.of(Path("nowhere")))

    async def text(self, _text: str, _model: str) -> Vector:
        return UNIT

    async def image(self, _data: bytes, _model: str) -> Vector:
        self.begun += 1
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        raise AssertionError("never")


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    client = cache.async_client("redis://127.0.0.1:1/0")
    yield Store(throwaway_settings(tmp_path), client)
    await client.aclose()


def encoding(store: Store, encoder: Encoder) -> RemoteEncoding:
    return RemoteEncoding(SEARCH, store, encoder.facts, encoder.text, encoder.image)


async def test_the_first_search_with_another_model_waits_until_it_is_known(store: Store) -> None:
    made = encoding(store, Encoder(loading_s=0.1))
    assert (await made.facts("next")).name == "next"


async def test_a_model_that_takes_longer_to_load_than_a_search_waits_is_loaded_all_the_same(store: Store) -> None:
    encoder = Encoder(loading_s=0.3)
    encoder.loaded.add("")  # the deployment's own
    hasty = RemoteEncoding(replace(SEARCH, encode_timeout_s=0.1), store, encoder.facts, encoder.text, encoder.image)
    with pytest.raises(Temporary):
        await hasty.facts("next")
    async with asyncio.timeout(20):
        while True:
            with suppress(Temporary):
                assert (await hasty.facts("next")).name == "next"
                return
            await asyncio.sleep(0.05)


async def test_an_encoder_that_starts_anew_loads_the_other_model_before_anybody_searches(store: Store) -> None:
    encoder = Encoder()
    made = encoding(store, encoder)
    for _ in range(2):
        made.prepare(["next"])
        await asyncio.sleep(0.05)
        assert "next" in encoder.loaded
        encoder.loaded.clear()


async def test_pictures_that_take_too_long_keep_nobody_from_searching_by_words(store: Store) -> None:
    encoder = Encoder()
    made = encoding(store, encoder)
    for _ in range(5):
        with pytest.raises(Temporary):
            await made.image(PICTURE)
    assert np.array_equal(await made.text("a goat"), UNIT)
    assert encoder.begun == encoder.cancelled == 3  # then pictures rest


async def test_few_pictures_are_under_way_at_once_and_the_rest_is_sent_away(store: Store) -> None:
    encoder = Encoder()
    made = encoding(store, encoder)
    tasks = [asyncio.create_task(made.image(PICTURE)) for _ in range(20)]
    await asyncio.sleep(0.05)
    assert encoder.begun == 2
    refused = [task for task in tasks if task.done()]
    assert len(refused) == 20 - 2 - 4
    found: list[Any] = await asyncio.gather(*tasks, return_exceptions=True)
    assert {type(each) for each in found} == {Temporary}
    assert all(each.retry_after_s > 0 for each in found)


async def test_a_picture_of_too_many_pixels_does_not_reach_the_encoder(store: Store) -> None:
    encoder = Encoder()
    with pytest.raises(Rejected, match="8000 by 5000"):
        await encoding(store, encoder).image(bomb(8000, 5000))
    assert encoder.begun == 0
