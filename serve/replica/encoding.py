"""Encoding of queries: `QueryEncoder` holds the model, `RemoteEncoding` is how replicas call it.

`QueryEncoder` is deployed by `app`, which gathers its calls into batches and runs them in threads. `RemoteEncoding`
adds a bounded cache, a time limit and a circuit breaker: while the encoder is away, searches are answered without
vectors.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from math import inf
from typing import Any, TypeVar

import numpy as np
from cachetools import LRUCache

from cluster.errors import Rejected, Temporary
from cluster.resilience import Breaker
from cluster.tasks import Tasks
from pipelines.models import encoder
from pipelines.models.cutoff import Cutoff
from pipelines.models.relevance import Calibration
from pipelines.settings import ModelSettings
from serve.http import deadlines, gates
from serve.replica import dimensions, memory
from serve.replica.encoder import EncoderInfo, Vector
from serve.replica.store import Store
from serve.settings import SearchSettings

log = logging.getLogger(__name__)

Result = TypeVar("Result")
CACHED_S = 3600  # of a text's vector in Redis
OTHERS_MAX = 1  # models in memory beside the deployment's own: the one that searches are about to switch to
PREPARE_TIMEOUT_S = 300.0
PREPARE_AGAIN_S = 30.0  # after a model could not be loaded
HINT = "ask again, or send a smaller one: a search sees no more than some hundred pixels each way"
LATE_RETRY_S = 2.0  # after which a caller may send a picture again
OVERSIZE = 2  # a picture is scaled down to about this many times the side that a model sees; the model scales the rest


@dataclass(frozen=True)
class Loaded:
    """A model that is loaded, with its facts."""

    encoder: encoder.Encoder
    facts: EncoderInfo


class QueryEncoder:
    """The models of one replica of the encoder: the deployment's own, and one that searches are about to switch to.

    Models are named as in the catalogue; "" is the deployment's own. Methods block, and may be called from several
    threads.
    """

    def __init__(self, model: ModelSettings, image_pixels_max: int, image_jpeg_pixels_max: int = 0) -> None:
        self._settings = model
        self._pixels_max = image_pixels_max, image_jpeg_pixels_max
        self._loading = threading.Lock()
        self._own = self._load(model.name)
        self._others: LRUCache[str, Loaded] = LRUCache(OTHERS_MAX)

    def facts(self, model: str = "") -> EncoderInfo:
        """Return the facts of a model; load it first if need be.

        Raises:
            Rejected: this deployment does not have the model.
        """
        return self._of(model).facts

    def texts(self, texts: list[str], model: str = "") -> list[Vector]:
        """Encode texts as one batch.

        Args:
            texts: the texts.
            model: the model to encode with.

        Returns:
            One vector a text, (dimensions,), float32, of unit length.
        """
        return list(self._of(model).encoder.texts(texts))

    def _of(self, model: str) -> Loaded:
        if model in ("", self._own.facts.name):
            return self._own
        with self._loading:
            if model not in self._others:
                self._others[model] = self._load(model)
            return self._others[model]

    def _load(self, name: str) -> Loaded:
        made = encoder.load(name, device=self._settings.device, threads=self._settings.threads or 1)
        folder = encoder.locate(name).folder
        facts = EncoderInfo(made.name, made.dimensions, made.fingerprint, Calibration.of(folder), Cutoff.of(folder))
        return Loaded(made, facts)

    def image(self, data: bytes, model: str = "") -> Vector:
        """Decode and encode a picture.

        Args:
            data: a JPEG, PNG or WebP file.
            model: the model to encode with.

        Returns:
            The vector, (dimensions,), float32, of unit length.

        Raises:
            Rejected: the data is not a picture, or would take too much to decode.
        """
        dimensions.checked(data, *self._pixels_max)
        try:
            loaded = self._of(model).encoder
            pixels = _decoded(data, self._pixels_max[0], loaded.image_size * OVERSIZE)
            vector: Vector = loaded.images([pixels])[0]
            del pixels
        finally:
            memory.trim()
        return vector


class PictureThreads:
    """Threads in which an encoder decodes and encodes pictures, few at once, so that a text never waits for one.

    A picture is not begun if its caller has gone while it waited. One that has begun keeps its thread to its end even then, so
    that no more pictures than threads are in memory decoded.
    """

    def __init__(self, most: int) -> None:
        self._threads = ThreadPoolExecutor(most, "picture")

    async def run(self, look: Callable[[bytes, str], Vector], data: bytes, model: str) -> Vector:
        """Encode a picture in one of the threads.

        Args:
            look: encodes a file with a model.
            data: the file.
            model: the model's name.

        Returns:
            float32, shape (dimensions,): the vector of `look`.
        """
        return await asyncio.get_running_loop().run_in_executor(self._threads, look, data, model)


def _decoded(data: bytes, pixels_max: int, side_px: int) -> Any:
    """Decode a picture to RGB, scaled down as early as possible until its shorter side is about `side_px`.

    A JPEG is decoded at a lower scale. Any other picture is decoded at its full size and then averaged down, which
    costs less than to let the model copy each pixel and scale it as floats.

    Raises:
        Rejected: the picture cannot be read.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=("JPEG", "PNG", "WEBP")) as picture:
            scale = 1
            while _is_large(picture.size, scale, pixels_max, side_px):
                scale *= 2
            if scale > 1:
                picture.draft("RGB", (picture.width // scale, picture.height // scale))
            if picture.width * picture.height > pixels_max:  # a size that the header did not have, or no such scale
                raise dimensions.unreadable()
            picture.load()
            whole = picture if picture.mode == "RGB" else picture.convert("RGB")
            smaller = min(whole.size) // side_px
            return whole.reduce(smaller) if smaller > 1 else whole.copy()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise dimensions.unreadable() from error


def _is_large(size: tuple[int, int], scale: int, pixels_max: int, side_px: int) -> bool:
    """Return whether a picture is too large to decode once it is scaled down by `scale`.

    It is too large if it has more than `pixels_max` pixels, or if its shorter side is at least 2 * `side_px`. `size` is
    (width, height) before scaling.
    """
    return size[0] * size[1] > pixels_max * scale**2 or min(size) >= side_px * scale * 2


class RemoteEncoding:
    """The encoder as a remote service whose calls may fail or hang; it implements `Encoding`."""

    def __init__(
        self,
        search: SearchSettings,
        store: Store,
        facts: Callable[[str], Awaitable[EncoderInfo]],
        text: Callable[[str, str], Awaitable[Vector]],
        image: Callable[[bytes, str], Awaitable[Vector]],
    ) -> None:
        """Keep the functions that call the encoder; none is called yet.

        Args:
            search: the time limits, the size of the cache, and the limits of pictures.
            store: where vectors of texts are shared with other replicas.
            facts: returns the facts of a model (name).
            text: encodes (text, model) to a vector, (dimensions,), float32.
            image: encodes (file, model) to a vector, (dimensions,), float32.
        """
        self._search = search
        self._store = store
        self._calls = (facts, text, image)
        self._facts: dict[str, EncoderInfo] = {}
        self._failed_at: dict[str, float] = {}
        self._preparing: dict[str, asyncio.Task[None]] = {}
        self.tasks = Tasks("encoding")
        self._known: LRUCache[tuple[str, str], Vector] = LRUCache(search.cache_entries_max)
        self._breaker = Breaker("the encoder", failures_max=3, reset_s=2.0)
        # Pictures have a breaker of their own: slow ones must not stop searches by text.
        self._image_breaker = Breaker("pictures", failures_max=3, reset_s=2.0)
        self._images = gates.pictures(search)

    async def answers(self) -> None:
        """Check that the encoder answers now.

        The call bypasses the breakers and the cache, which has the encoder's facts even while it is away.
        """
        await self._calls[0]("")

    async def facts(self, model: str = "") -> EncoderInfo:
        """Return the facts of a model; have it loaded if need be, and wait as long as a search waits for the encoder.

        Raises:
            Temporary: the model is not loaded by then.
        """
        if model not in self._facts:
            own = self._facts.get("")
            if own is None:
                own = self._facts[""] = await self._guarded(lambda: self._calls[0](""))
                self._facts[own.name] = own
            if model not in self._facts:
                await self._until_prepared(model)
        return self._facts[model]

    def prepare(self, models: Iterable[str]) -> None:
        """Have models loaded in the background, so that searches can switch to one of them.

        Models that are loaded already are asked for again each time: an encoder that has been restarted since has only its
        own model in memory.
        """
        for model in models:
            if model not in self._preparing and time.monotonic() - self._failed_at.get(model, -inf) > PREPARE_AGAIN_S:
                self._preparing[model] = self.tasks.spawn(f"preparing {model}", self._prepare(model))

    async def _prepare(self, model: str) -> None:
        try:
            self._facts[model] = await asyncio.wait_for(self._calls[0](model), PREPARE_TIMEOUT_S)
        except Exception as error:  # noqa: BLE001  after any failure the model is not usable, and is tried again later
            self._failed_at[model] = time.monotonic()
            log.warning("model %s is not loaded: %s", model, error)
        finally:
            del self._preparing[model]

    async def _until_prepared(self, model: str) -> None:
        self.prepare([model])
        if model in self._preparing:
            await asyncio.wait([self._preparing[model]], timeout=deadlines.left_s(self._search.encode_timeout_s))
        if model not in self._facts:
            raise Temporary(f"model {model} is not loaded yet")

    async def text(self, text: str, model: str = "") -> Vector:
        """Return the vector of a text: from this replica's cache, from Redis, or from the encoder.

        Args:
            text: the text.
            model: the model to encode with.

        Returns:
            The vector, (dimensions,), float32, of unit length.

        Raises:
            Temporary: the encoder does not answer in time.
        """
        facts = await self.facts(model)
        known = self._known.get((facts.fingerprint, text))
        if known is not None:
            return known
        name = f"text:{facts.fingerprint}:{hashlib.sha256(text.encode()).hexdigest()}"
        stored = await self._store.get(name)
        if stored is not None and len(stored) == facts.dimensions * 4:
            vector: Vector = np.frombuffer(stored, np.float32)
        else:
            vector = await self._guarded(lambda: self._calls[1](text, model))
            await self._store.put(name, vector.astype(np.float32).tobytes(), CACHED_S)
        self._known[facts.fingerprint, text] = vector
        return vector

    async def image(self, data: bytes, model: str = "") -> Vector:
        """Have the encoder encode a picture; only a few pictures are sent to it at once.

        Pictures wait at a gate of their own, as requests of the search's caller (`gates.on_behalf_of`). A picture that
        the encoder would refuse is refused before it waits.

        Args:
            data: a JPEG, PNG or WebP file.
            model: the model to encode with.

        Returns:
            The vector, (dimensions,), float32, of unit length.

        Raises:
            Rejected: the data is not a picture, or would take too much to decode.
            Temporary: no place was free within `gate_wait_s`, or the encoder does not answer.
        """
        search = self._search
        dimensions.checked(data, search.image_pixels_max, search.image_jpeg_pixels_max)
        async with self._images.passed(*gates.current_caller()):
            call, breaker = partial(self._calls[2], data, model), self._image_breaker
            try:
                return await self._guarded(call, breaker, search.image_timeout_s)
            except Temporary as error:
                if not isinstance(error.__cause__, TimeoutError):
                    raise
                raise Temporary(f"the picture was not looked at in time; {HINT}", LATE_RETRY_S) from error

    async def close(self) -> None:
        """End the background tasks."""
        await self.tasks.close()

    async def _guarded(
        self, call: Callable[[], Awaitable[Result]], breaker: Breaker | None = None, timeout_s: float = 0.0
    ) -> Result:
        """Call under a breaker and a time limit; a call that is late is cancelled, so that the encoder does not begin it.

        Raises:
            Rejected: the encoder refuses what it is given.
            Temporary: anything else goes wrong.
        """
        breaker = breaker or self._breaker
        if not breaker.allow():
            raise Temporary("the encoder is resting")
        try:
            result = await asyncio.wait_for(call(), deadlines.left_s(timeout_s or self._search.encode_timeout_s))
        except Rejected:
            breaker.success()
            raise
        except Exception as error:
            cause = getattr(error, "cause", None)
            if isinstance(cause, Rejected):
                breaker.success()
                raise cause from error
            breaker.failure()
            raise Temporary(f"the encoder does not answer: {type(error).__name__}") from error
        breaker.success()
        return result


def of_handle(search: SearchSettings, store: Store, handle: Any) -> RemoteEncoding:
    """Return an encoding that calls the encoder through the handle of its Serve deployment."""

    async def facts(model: str) -> EncoderInfo:
        answer: EncoderInfo = await handle.described.remote(model)
        return answer

    async def text(asked: str, model: str) -> Vector:
        vector: Vector = await handle.text.remote((model, asked))
        return vector

    async def image(data: bytes, model: str) -> Vector:
        vector: Vector = await handle.picture.remote(data, model)
        return vector

    return RemoteEncoding(search, store, facts, text, image)
