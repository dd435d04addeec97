"""Encoding of queries: the deployment that holds the model, and the replicas' way to it.

`QueryEncoder` answers in batches; its methods run in threads of its own. `RemoteEncoding` puts a bounded cache, a
time limit and a circuit breaker before it, so that a model that is away costs a search its vectors, never its answer.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import numpy as np

from cluster.errors import Rejected, Temporary
from cluster.resilience import Breaker
from pipelines import encoder
from pipelines.relevance import Calibration
from pipelines.settings import ModelSettings
from serve.services import Facts, Vector
from serve.settings import SearchSettings
from serve.store import Store

Result = TypeVar("Result")
CACHED_S = 3600


class QueryEncoder:
    """The model, loaded once a replica. A plain class: `app` makes a deployment of it."""

    def __init__(self, model: ModelSettings, image_pixels_max: int) -> None:
        self._encoder = encoder.load(model.name, device=model.device, threads=model.threads or 1)
        self._folder = encoder.locate(model.name).folder
        self._image_pixels_max = image_pixels_max

    def facts(self) -> Facts:
        calibration = Calibration.of(self._folder)
        return Facts(self._encoder.name, self._encoder.dimensions, self._encoder.fingerprint, calibration)

    def texts(self, texts: list[str]) -> list[Vector]:
        """One vector a text."""
        return list(self._encoder.texts(texts))

    def image(self, data: bytes) -> Vector:
        """The vector of an encoded picture.

        Raises:
            Rejected: it is no picture, or one of too many pixels.
        """
        from PIL import Image, UnidentifiedImageError

        try:
            with Image.open(io.BytesIO(data), formats=("JPEG", "PNG", "WEBP")) as picture:
                if picture.width * picture.height > self._image_pixels_max:
                    detail = f"the image has more than {self._image_pixels_max} pixels"
                    raise Rejected(detail, status=422, code="bad-image")
                vector: Vector = self._encoder.images([picture.convert("RGB")])[0]
        except (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError) as error:
            hint = "send a JPEG, PNG or WebP"
            raise Rejected("the image cannot be read", status=422, code="bad-image", hint=hint) from error
        return vector


class RemoteEncoding:
    """`Encoding` over calls that may fail or hang (the deployment's handle)."""

    def __init__(
        self,
        search: SearchSettings,
        store: Store,
        facts: Callable[[], Awaitable[Facts]],
        text: Callable[[str], Awaitable[Vector]],
        image: Callable[[bytes], Awaitable[Vector]],
    ) -> None:
        self._search = search
        self._store = store
        self._calls = (facts, text, image)
        self._facts: Facts | None = None
        self._known: OrderedDict[str, Vector] = OrderedDict()
        self._breaker = Breaker("the encoder", failures_max=3, reset_s=2.0)

    async def facts(self) -> Facts:
        """Of the model; asked once, since a new model means new replicas."""
        if self._facts is None:
            self._facts = await self._guarded(self._calls[0])
        return self._facts

    async def text(self, text: str) -> Vector:
        """A text's vector: from this replica's cache, from Redis, or from the encoder."""
        known = self._known.get(text)
        if known is not None:
            self._known.move_to_end(text)
            return known
        facts = await self.facts()
        name = f"text:{facts.fingerprint}:{hashlib.sha256(text.encode()).hexdigest()}"
        stored = await self._store.get(name)
        if stored is not None and len(stored) == facts.dimensions * 4:
            vector: Vector = np.frombuffer(stored, np.float32)
        else:
            vector = await self._guarded(lambda: self._calls[1](text))
            await self._store.put(name, vector.astype(np.float32).tobytes(), CACHED_S)
        self._known[text] = vector
        if len(self._known) > self._search.cache_entries_max:
            self._known.popitem(last=False)
        return vector

    async def image(self, data: bytes) -> Vector:
        return await self._guarded(lambda: self._calls[2](data))

    async def _guarded(self, call: Callable[[], Awaitable[Result]]) -> Result:
        """Call under the breaker and the time limit; whatever goes wrong on the way is `Temporary`."""
        if not self._breaker.allow():
            raise Temporary("the encoder is resting")
        try:
            result = await asyncio.wait_for(call(), self._search.encode_timeout_s)
        except Rejected:
            self._breaker.success()
            raise
        except Exception as error:
            cause = getattr(error, "cause", None)
            if isinstance(cause, Rejected):
                self._breaker.success()
                raise cause from error
            self._breaker.failure()
            raise Temporary(f"the encoder does not answer: {type(error).__name__}") from error
        self._breaker.success()
        return result


def of_handle(search: SearchSettings, store: Store, handle: Any) -> RemoteEncoding:
    """Over a Serve deployment's handle."""

    async def facts() -> Facts:
        answer: Facts = await handle.facts.remote()
        return answer

    async def text(asked: str) -> Vector:
        vector: Vector = await handle.text.remote(asked)
        return vector

    async def image(data: bytes) -> Vector:
        vector: Vector = await handle.image.remote(data)
        return vector

    return RemoteEncoding(search, store, facts, text, image)
