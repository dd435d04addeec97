"""Pictures have places, a time limit and a breaker of their own, and the encoder gets none that it would refuse."""

from __future__ import annotations

import asyncio
import io
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cluster import cache
from cluster.errors import Rejected, Temporary
from pipelines.relevance import Calibration
from serve import gates
from serve.encoding import PictureThreads, RemoteEncoding, _decoded
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


async def reached(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110  of what is looked at there is no event
            await asyncio.sleep(0.01)


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


async def test_who_waits_for_the_place_of_a_picture_is_sent_away_while_asking_again_is_of_use(store: Store) -> None:
    encoder = Encoder()
    search = replace(SEARCH, images_max=1, images_caller_max=1, image_timeout_s=10.0, gate_wait_s=0.05)
    made = RemoteEncoding(search, store, encoder.facts, encoder.text, encoder.image)
    first = asyncio.create_task(made.image(PICTURE))
    await asyncio.sleep(0.01)
    began = time.monotonic()
    with pytest.raises(Temporary, match="too many pictures at once") as refused:
        await made.image(PICTURE)
    assert time.monotonic() - began < 5
    assert refused.value.retry_after_s > 0
    assert encoder.begun == 1  # what would be thrown away is not begun
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)


async def test_pictures_of_strangers_leave_a_place_to_those_with_a_key(store: Store) -> None:
    encoder = Encoder()
    search = replace(SEARCH, images_max=4, image_timeout_s=60.0, gate_wait_s=0.05)
    made = RemoteEncoding(search, store, encoder.facts, encoder.text, encoder.image)

    async def asked(whose: str, weight: float) -> Vector:
        with gates.asked_by(whose, weight):
            return await made.image(PICTURE)

    strangers = [asyncio.create_task(asked(f"{number}", gates.STRANGER)) for number in range(20)]
    await reached(lambda: sum(task.done() for task in strangers) == 17)  # they were sent away
    assert encoder.begun == 3
    keyed = asyncio.create_task(asked("key 1", 8.0))
    await reached(lambda: encoder.begun == 4 or keyed.done())
    assert (encoder.begun, keyed.done()) == (4, False)
    for task in (*strangers, keyed):
        task.cancel()
    await asyncio.gather(*strangers, keyed, return_exceptions=True)


async def test_a_picture_that_takes_too_long_is_refused_with_what_to_do_about_it(store: Store) -> None:
    with pytest.raises(Temporary, match="send a smaller one") as refused:
        await encoding(store, Encoder()).image(PICTURE)
    assert refused.value.retry_after_s > 0


@pytest.mark.parametrize(
    ("kind", "mode"), [("WEBP", "RGB"), ("PNG", "P"), ("PNG", "RGBA"), ("JPEG", "RGB"), ("JPEG", "L")]
)
def test_no_more_of_a_picture_is_kept_than_a_model_may_see(kind: str, mode: str) -> None:
    """A model scales as floats what it is given; the colours stay where they were."""
    whole = Image.linear_gradient("L").resize((2400, 1600)).convert("RGB").convert(mode)
    data = io.BytesIO()
    whole.save(data, kind)
    made = _decoded(data.getvalue(), 12_000_000, 128)
    assert made.mode == "RGB"
    assert 128 <= min(made.size) < 256
    assert abs(made.width / made.height - 1.5) < 0.02
    near = whole.convert("RGB").resize(made.size, Image.Resampling.BOX)
    assert np.abs(np.asarray(made, np.int16) - np.asarray(near, np.int16)).mean() < 3


def test_a_small_picture_stays_as_it_is() -> None:
    data = io.BytesIO()
    Image.linear_gradient("L").resize((200, 150)).save(data, "PNG")
    assert _decoded(data.getvalue(), 12_000_000, 128).size == (200, 150)


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


async def test_an_encoder_holds_few_pictures_and_texts_wait_for_none_of_them() -> None:
    """Also where those who asked have gone while their pictures are looked at."""
    threads, may, begun = PictureThreads(2), threading.Event(), list[bytes]()

    def look(data: bytes, _model: str) -> Vector:
        begun.append(data)
        may.wait(30)
        return UNIT

    asked = [asyncio.create_task(threads.run(look, bytes([number]), "")) for number in range(40)]
    await reached(lambda: len(begun) == 2)
    for task in asked[:20]:
        task.cancel()
    await asyncio.gather(*asked[:20], return_exceptions=True)
    async with asyncio.timeout(5):
        await asyncio.to_thread(lambda: None)  # as a text is encoded
    assert begun == [b"\0", b"\1"]
    may.set()
    await asyncio.gather(*asked[20:])
    assert begun[2:] == [bytes([number]) for number in range(20, 40)]  # what nobody waited for was not begun


async def test_a_picture_of_too_many_pixels_does_not_reach_the_encoder(store: Store) -> None:
    encoder = Encoder()
    with pytest.raises(Rejected, match="8000 by 5000"):
        await encoding(store, encoder).image(bomb(8000, 5000))
    assert encoder.begun == 0
