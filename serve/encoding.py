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
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from math import inf
from typing import Any, TypeVar

import numpy as np

from cluster.errors import Rejected, Temporary
from cluster.resilience import Breaker
from cluster.tasks import Tasks
from pipelines import encoder
from pipelines.cutoff import Cutoff
from pipelines.relevance import Calibration
from pipelines.settings import ModelSettings
from serve import deadlines, dimensions, gates, memory
from serve.services import Facts, Vector
from serve.settings import SearchSettings
from serve.store import Store

log = logging.getLogger(__name__)

Result = TypeVar("Result")
CACHED_S = 3600
OTHERS_MAX = 1  # models beside the deployment's own: the one that is changed to
PREPARE_TIMEOUT_S = 300.0
PREPARE_AGAIN_S = 30.0
HINT = "ask again, or send a smaller one: a search sees no more than some hundred pixels each way"
LATE_RETRY_S = 2.0
OVERSIZE = 2  # times the side that a model sees: so large a picture stays, and the model's own scaling does the rest


@dataclass(frozen=True)
class Loaded:
    """A model in memory."""

    encoder: encoder.Encoder
    facts: Facts


class QueryEncoder:
    """The model, loaded once a replica, and the one that searches are about to change to. `app` makes a deployment of it.

    A model is named as the catalogue names it; "" is the deployment's own.
    """

    def __init__(self, model: ModelSettings, image_pixels_max: int, image_jpeg_pixels_max: int = 0) -> None:
        self._settings = model
        self._pixels_max = image_pixels_max, image_jpeg_pixels_max
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
        folder = encoder.locate(name).folder
        facts = Facts(made.name, made.dimensions, made.fingerprint, Calibration.of(folder), Cutoff.of(folder))
        return Loaded(made, facts)

    def image(self, data: bytes, model: str = "") -> Vector:
        """The vector of an encoded picture.

        Raises:
            Rejected: it is no picture, or one that takes too much to decode.
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
    """Threads of their own in which an encoder looks at pictures, few at once: a text never waits for one of them.

    A picture whose caller goes away while it waits is not begun. One that has been begun keeps its thread to its end, also
    where nobody waits for it any more, so that no more than these are in memory decoded.
    """

    def __init__(self, most: int) -> None:
        self._threads = ThreadPoolExecutor(most, "picture")

    async def run(self, look: Callable[[bytes, str], Vector], data: bytes, model: str) -> Vector:
        return await asyncio.get_running_loop().run_in_executor(self._threads, look, data, model)


def _decoded(data: bytes, pixels_max: int, side_px: int) -> Any:
    """A picture as RGB, made smaller as early as can be: no more of it is seen than its shorter side at `side_px`.

    A JPEG is decoded at a lower scale; all others are averaged down before the model, which copies and scales each pixel
    that it is given as a float, touches them.

    Raises:
        Rejected: it cannot be read.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=("JPEG", "PNG", "WEBP")) as picture:
            scale = 1
            while _is_large(picture.size, scale, pixels_max, side_px):
                scale *= 2
            if scale > 1:
                picture.draft("RGB", (picture.width // scale, picture.height // scale))
            if picture.width * picture.height > pixels_max:  # another size than the header's, or no such scale
                raise dimensions.unreadable()
            picture.load()
            whole = picture if picture.mode == "RGB" else picture.convert("RGB")
            smaller = min(whole.size) // side_px
            return whole.reduce(smaller) if smaller > 1 else whole.copy()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise dimensions.unreadable() from error


def _is_large(size: tuple[int, int], scale: int, pixels_max: int, side_px: int) -> bool:
    """Is a picture, at a scale, more than may be decoded, or at least twice what is seen of it?"""
    return size[0] * size[1] > pixels_max * scale**2 or min(size) >= side_px * scale * 2


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
        self._failed_at: dict[str, float] = {}
        self._preparing: dict[str, asyncio.Task[None]] = {}
        self.tasks = Tasks("encoding")
        self._known: OrderedDict[tuple[str, str], Vector] = OrderedDict()
        self._breaker = Breaker("the encoder", failures_max=3, reset_s=2.0)
        # Pictures have their own: those that take too long must not keep anybody from searching by words.
        self._image_breaker = Breaker("pictures", failures_max=3, reset_s=2.0)
        self._images = gates.pictures(search)

    async def answers(self) -> None:
        """Ask the encoder itself: what is known of it stays known while it is away. Counts for no breaker."""
        await self._calls[0]("")

    async def facts(self, model: str = "") -> Facts:
        """Of a model. One that is not prepared yet is waited for as long as a search waits for the encoder.

        Raises:
            Temporary: it is not loaded by then.
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
        """Have models loaded beside the traffic, so that a change to one of them finds it there.

        Those that are loaded are asked for again each time: an encoder that has started since has its own model alone.
        """
        for model in models:
            if model not in self._preparing and time.monotonic() - self._failed_at.get(model, -inf) > PREPARE_AGAIN_S:
                self._preparing[model] = self.tasks.spawn(f"preparing {model}", self._prepare(model))

    async def _prepare(self, model: str) -> None:
        try:
            self._facts[model] = await asyncio.wait_for(self._calls[0](model), PREPARE_TIMEOUT_S)
        except Exception as error:  # noqa: BLE001  whatever it is, the model cannot be used and is tried again later
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
        """A picture's vector, from the encoder, which gets none that it would refuse, and few at once: whose the picture is
        (`gates.asked_by`) says who comes first.

        Raises:
            Rejected: it is no picture, or one that takes too much to decode.
            Temporary: no place was free within `gate_wait_s`, or the encoder does not answer.
        """
        search = self._search
        dimensions.checked(data, search.image_pixels_max, search.image_jpeg_pixels_max)
        async with self._images.passed(*gates.asker()):
            call, breaker = partial(self._calls[2], data, model), self._image_breaker
            try:
                return await self._guarded(call, breaker, search.image_timeout_s)
            except Temporary as error:
                if not isinstance(error.__cause__, TimeoutError):
                    raise
                raise Temporary(f"the picture was not looked at in time; {HINT}", LATE_RETRY_S) from error

    async def close(self) -> None:
        await self.tasks.close()

    async def _guarded(
        self, call: Callable[[], Awaitable[Result]], breaker: Breaker | None = None, timeout_s: float = 0.0
    ) -> Result:
        """Call under a breaker and the time limit; whatever goes wrong on the way is `Temporary`.

        A call that is late is cancelled, so that the encoder does not begin what nobody waits for.
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
    """Over a Serve deployment's handle."""

    async def facts(model: str) -> Facts:
        answer: Facts = await handle.described.remote(model)
        return answer

    async def text(asked: str, model: str) -> Vector:
        vector: Vector = await handle.text.remote((model, asked))
        return vector

    async def image(data: bytes, model: str) -> Vector:
        vector: Vector = await handle.picture.remote(data, model)
        return vector

    return RemoteEncoding(search, store, facts, text, image)
