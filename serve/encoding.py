"""Encoding of queries: the deployment that holds the model, and the replicas' way to it.

`QueryEncoder` answers in batches; its methods run in threads of its own. `RemoteEncoding` puts a bounded cache, a
time limit and a circuit breaker before it, so that a model that is away costs a search its vectors, never its answer.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
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

log = logging.getLogger(__name__)

Result = TypeVar("Result")
CACHED_S = 3600
OTHERS_MAX = 1  # models beside the deployment's own: the one that is changed to
PREPARE_TIMEOUT_S = 300.0
PREPARE_AGAIN_S = 30.0


@dataclass(frozen=True)
class Loaded:
    """A model in memory."""

    encoder: encoder.Encoder
    facts: Facts


class QueryEncoder:
    """The model, loaded once a replica, and the one that searches are about to change to. `app` makes a deployment of it.

    A model is named as the catalogue names it; "" is the deployment's own.
    """

    def __init__(self, model: ModelSettings, image_pixels_max: int) -> None:
        self._settings = model
        self._image_pixels_max = image_pixels_max
        self._loading = threading.Lock()
        self._own = self._load(model.name)
        self._others: OrderedDict[str, Loaded] = OrderedDict()

    def facts(self, model: str = "") -> Facts:
        """Of a model, which is loaded if it is not yet.

        Raises:
            Rejected: there is no such model here.
        """
        return self._of(model).facts

    def texts(self, texts: list[str], model: str = "") -> list[Vector]:
        """One vector a text."""
        return list(self._of(model).encoder.texts(texts))

    def _of(self, model: str) -> Loaded:
        if model in ("", self._own.facts.name):
            return self._own
        with self._loading:
            if model not in self._others:
                self._others[model] = self._load(model)
                if len(self._others) > OTHERS_MAX:
                    self._others.popitem(last=False)
            self._others.move_to_end(model)
            return self._others[model]

    def _load(self, name: str) -> Loaded:
        made = encoder.load(name, device=self._settings.device, threads=self._settings.threads or 1)
        calibration = Calibration.of(encoder.locate(name).folder)
        return Loaded(made, Facts(made.name, made.dimensions, made.fingerprint, calibration))

    def image(self, data: bytes, model: str = "") -> Vector:
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
                vector: Vector = self._of(model).encoder.images([picture.convert("RGB")])[0]
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
        facts: Callable[[str], Awaitable[Facts]],
        text: Callable[[str, str], Awaitable[Vector]],
        image: Callable[[bytes, str], Awaitable[Vector]],
    ) -> None:
        self._search = search
        self._store = store
        self._calls = (facts, text, image)
        self._facts: dict[str, Facts] = {}
        self._tried_at: dict[str, float] = {}
        self._preparing: set[asyncio.Task[None]] = set()
        self._known: OrderedDict[tuple[str, str], Vector] = OrderedDict()
        self._breaker = Breaker("the encoder", failures_max=3, reset_s=2.0)

    async def answers(self) -> None:
        """Ask the encoder itself: what is known of it stays known while it is away. Counts for no breaker."""
        await self._calls[0]("")

    async def facts(self, model: str = "") -> Facts:
        """Of a model. The deployment's own is asked for at once, another one is `Temporary` until it is prepared."""
        if model not in self._facts:
            own = self._facts.get("")
            if own is None:
                own = self._facts[""] = await self._guarded(lambda: self._calls[0](""))
                self._facts[own.name] = own
            if model not in self._facts:
                self.prepare([model])
                raise Temporary(f"model {model} is not loaded yet")
        return self._facts[model]

    def prepare(self, models: Iterable[str]) -> None:
        """Have models loaded beside the traffic, so that a change to one of them finds it there."""
        for model in models:
            late = time.monotonic() - self._tried_at.get(model, float("-inf")) > PREPARE_AGAIN_S
            if model not in self._facts and late:
                self._tried_at[model] = time.monotonic()
                task = asyncio.create_task(self._prepare(model))
                self._preparing.add(task)
                task.add_done_callback(self._preparing.discard)

    async def _prepare(self, model: str) -> None:
        try:
            self._facts[model] = await asyncio.wait_for(self._calls[0](model), PREPARE_TIMEOUT_S)
        except Exception as error:  # noqa: BLE001  whatever it is, the model cannot be used and is tried again later
            log.warning("model %s is not loaded: %s", model, error)

    async def text(self, text: str, model: str = "") -> Vector:
        """A text's vector: from this replica's cache, from Redis, or from the encoder."""
        facts = await self.facts(model)
        known = self._known.get((facts.fingerprint, text))
        if known is not None:
            self._known.move_to_end((facts.fingerprint, text))
            return known
        name = f"text:{facts.fingerprint}:{hashlib.sha256(text.encode()).hexdigest()}"
        stored = await self._store.get(name)
        if stored is not None and len(stored) == facts.dimensions * 4:
            vector: Vector = np.frombuffer(stored, np.float32)
        else:
            vector = await self._guarded(lambda: self._calls[1](text, model))
            await self._store.put(name, vector.astype(np.float32).tobytes(), CACHED_S)
        self._known[facts.fingerprint, text] = vector
        if len(self._known) > self._search.cache_entries_max:
            self._known.popitem(last=False)
        return vector

    async def image(self, data: bytes, model: str = "") -> Vector:
        return await self._guarded(lambda: self._calls[2](data, model))

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

    async def facts(model: str) -> Facts:
        answer: Facts = await handle.described.remote(model)
        return answer

    async def text(asked: str, model: str) -> Vector:
        vector: Vector = await handle.text.remote((model, asked))
        return vector

    async def image(data: bytes, model: str) -> Vector:
        vector: Vector = await handle.image.remote(data, model)
        return vector

    return RemoteEncoding(search, store, facts, text, image)
