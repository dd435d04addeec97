"""The encoder: maps frames and texts into one space of unit vectors.

Every model is loaded through open_clip: the bundled one by its name, a local folder, an architecture with a tag
("ViT-B-32/laion2b_s34b_b79k") or a hub name ("hf-hub:..."). How pixels are prepared (size, fit, mean, deviation) comes
from the model's own preprocessing. torch and open_clip are imported when a model is loaded. Knows nothing about videos,
segments or databases.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import socket
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from cluster.errors import Rejected, Temporary
from pipelines.models import towers
from pipelines.models.compounds import Compounds
from pipelines.models.relevance import Calibration

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

log = logging.getLogger(__name__)

MODELS = Path(__file__).resolve().parents[2] / "configs" / "models"
PROBE_TEXT = "a photo of a dog"
BF16_PARAMETERS_MIN = 20_000_000  # below this the conversions cost a CPU more than the arithmetic saves
AGREEMENT_MIN = 0.999  # least cosine of a bf16 vector with the exact one
HUB_TIMEOUT_S = 3.0
TROUBLES = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO, errno.EAGAIN, errno.EINTR, errno.ENOSPC, errno.ESTALE}
UNFIT = ("could not be loaded", "loading state_dict")  # in errors of open_clip and torch for weights of another model

FACTS = "facts.json"  # in a model's folder: its facts, and the digest of the weights that they are about
FACTS_ARE: Mapping[str, Callable[[Any], Any]] = {"dimensions": int, "image_size": int, "fit": str, "fingerprint": str}
WEIGHTS = "open_clip_*"  # the files that the facts follow from: weights and configuration

Fit = Literal["squash", "shortest", "longest"]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Source:
    """What open_clip needs to find a model."""

    identifier: str  # open_clip's own
    tag: str | None = None  # of the weights of a named architecture
    folder: Path | None = None  # of a local model


class Encoder:
    """A loaded model. It may be called from several threads; all vectors are float32 and of unit length."""

    def __init__(self, name: str, source: Source, *, device: str, batch_frames: int, compiled: bool) -> None:
        """Load the weights and prepare both towers; use `load`, which reports errors clearly.

        Args:
            name: Name that the model was asked for by.
            source: Where open_clip finds it.
            device: torch's name of the device.
            batch_frames: Frames a batch.
            compiled: Whether to compile the image tower, for batches of one shape.
        """
        import open_clip
        import torch

        self.name = name
        self.device = device
        self.batch_frames = batch_frames
        self._model, _ = open_clip.create_model_from_pretrained(source.identifier, pretrained=source.tag, device=device)
        self._model.eval().requires_grad_(False)
        self._tokenizer = open_clip.get_tokenizer(source.identifier)
        pixels = self._model.visual.preprocess_cfg
        size = pixels["size"]
        self.image_size: int = size if isinstance(size, int) else max(size)
        self.fit: Fit = pixels["resize_mode"]
        self._pixels = _Pixels.of(pixels, self.image_size, device)
        self.fingerprint: str = _fingerprint(self._model, pixels)
        self._calibration, self._compounds = Calibration.of(source.folder), Compounds.of(source.folder)
        towers.fold(self._model.visual)
        self._text_tower = towers.text(self._model, self._tokenizer, device, PROBE_TEXT)
        self.dimensions = int(self.texts([PROBE_TEXT]).shape[1])
        self._model.visual.to(memory_format=torch.channels_last)  # the layout that convolutions prefer
        self._image_tower = self._compiled() if compiled else self._model.encode_image
        self.bf16 = self._bf16_is_safe()

    def frames(self, frames: NDArray[np.uint8], *, pad: bool = True) -> Floats:
        """Encode frames.

        Batches have one padded shape, so that a frame's vector does not depend on its neighbours. If a batch does not
        fit into the device's memory, its size is halved from then on.

        Args:
            frames: uint8 (frames, height, width, 3), RGB.
            pad: Whether to pad the last batch to the full size.

        Returns:
            float32 (frames, dimensions), unit length.
        """
        import torch

        vectors, start = np.empty((len(frames), self.dimensions), np.float32), 0
        while start < len(frames):
            rows = self.batch_frames
            batch = frames[start : start + rows]
            try:
                vectors[start : start + len(batch)] = self._batch(batch, rows if pad else len(batch))
            except torch.OutOfMemoryError:
                if rows == 1:
                    raise
                self._halve(rows)
                continue
            start += len(batch)
        return vectors

    def images(self, images: Sequence[Image]) -> Floats:
        """Encode pictures of any size and mode.

        Args:
            images: The pictures.

        Returns:
            float32 (pictures, dimensions), unit length.
        """
        rows = [self.frames(np.asarray(image.convert("RGB"))[None], pad=False) for image in images]
        return np.concatenate(rows) if rows else np.empty((0, self.dimensions), np.float32)

    def texts(self, texts: Sequence[str]) -> Floats:
        """Encode texts in one batch, with the model's compounds joined.

        Args:
            texts: The texts.

        Returns:
            float32 (texts, dimensions), unit length.
        """
        import torch

        if not texts:
            return np.empty((0, self.dimensions), np.float32)
        with torch.inference_mode():
            ids = self._tokenizer([self._compounds.joined(text) for text in texts])
            vectors = self._text_tower(ids.to(self.device))
            return _unit(vectors)

    def facts(self) -> dict[str, Any]:
        """Return what a job must know before it loads the model: dimensions, image size, fit and fingerprint."""
        return {name: getattr(self, name) for name in FACTS_ARE}

    def relevance_ppm(self, cosines: NDArray[np.floating[Any]], *, asked_by_text: bool = True) -> NDArray[np.int64]:
        """Return how relevant answers are, by the model's calibration.

        Args:
            cosines: (answers,), of the answers with the query.
            asked_by_text: Whether the query is a text, and not a picture or a moment.

        Returns:
            int64 (answers,), 0 to 1,000,000, rising with the cosine.
        """
        return self._calibration.ppm(cosines, asked_by_text=asked_by_text)

    def _batch(self, frames: NDArray[np.uint8], rows: int) -> Floats:
        """Encode frames (n, height, width, 3) in a batch padded to `rows`; return (n, dimensions)."""
        import torch

        padded = np.zeros((rows, *frames.shape[1:]), np.uint8)
        padded[: len(frames)] = frames
        pixels = torch.from_numpy(padded).to(self.device)
        with torch.inference_mode(), torch.autocast(self._kind(), torch.bfloat16, enabled=self.bf16):
            return _unit(self._image_tower(self._pixels(pixels)))[: len(frames)]

    def _halve(self, rows: int) -> None:
        """Halve the batch size after a batch did not fit."""
        import torch

        self.batch_frames = min(self.batch_frames, rows // 2)
        torch.cuda.empty_cache()
        log.warning("%s: a batch of %s frames does not fit; from now on %s", self.name, rows, self.batch_frames)

    def _kind(self) -> str:
        """Return the device's kind, such as "cuda" of "cuda:1"."""
        return self.device.split(":")[0]

    def _compiled(self) -> Callable[[torch.Tensor], torch.Tensor]:
        """Return the image tower, to be compiled at its first call."""
        import torch

        tower: Callable[[torch.Tensor], torch.Tensor] = torch.compile(self._model.encode_image)
        return tower

    def _bf16_is_safe(self) -> bool:
        """Whether bf16 is faster on this device and safe: vectors nearly exact, and equal at any place of a batch."""
        self.bf16 = False
        if not self._bf16_pays():
            return False
        shape = (self.batch_frames, self.image_size, self.image_size, 3)
        probe = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        exact = self.frames(probe)
        self.bf16 = True
        fast, reversed_batch = self.frames(probe), self.frames(probe[::-1])
        return bool((exact * fast).sum(1).min() >= AGREEMENT_MIN and np.array_equal(fast, reversed_batch[::-1]))

    def _bf16_pays(self) -> bool:
        """Whether the device computes bf16 natively, and the model is large enough."""
        import torch

        if self._kind() == "cuda":
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
        parameters = sum(p.numel() for p in self._model.visual.parameters())
        return parameters >= BF16_PARAMETERS_MIN and bool(torch.cpu.get_capabilities().get("avx512_bf16", False))


def load(
    name: str, *, device: str = "auto", threads: int = 0, batch_frames: int = 32, compiled: bool = False
) -> Encoder:
    """Load a model.

    Args:
        name: A bundled name, a folder, architecture/tag, or a hub name.
        device: torch's name of the device; "auto" takes CUDA if there is a GPU.
        threads: torch's threads; 0 leaves them as they are.
        batch_frames: Frames a batch.
        compiled: Whether to compile the image tower, which pays for many batches of one shape.

    Returns:
        The encoder.

    Raises:
        Rejected: the model does not exist or is broken; the message says what to do.
        Temporary: the machine or the network failed.
    """
    import torch
    from safetensors import SafetensorError

    if threads > 0:
        torch.set_num_threads(threads)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    source = locate(name)
    try:
        with _hub_unless_away(source):
            return Encoder(name, source, device=device, batch_frames=batch_frames, compiled=compiled)
    except (OSError, RuntimeError, MemoryError, ValueError, KeyError, SafetensorError) as error:
        if _is_the_models(error):
            raise _missing(name, source, error) from error
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise Temporary(f"model {name!r} cannot be loaded at present: {reason}") from error


def locate(name: str) -> Source:
    """Return where open_clip finds the model of a name.

    Raises:
        Rejected: no model has this name.
    """
    folder = _folder(name)
    if folder is not None:
        return Source(f"local-dir:{folder}", folder=folder)
    if name.startswith("hf-hub:"):
        return Source(name)
    if name.startswith(("local-dir:", "/", ".", "~")) or not name:
        raise Rejected(f"no model folder {name!r}", code="model-missing", hint=_hint())
    return _named(name)


@contextmanager
def _hub_unless_away(source: Source) -> Iterator[None]:
    """Keep huggingface_hub offline during the block if the hub is out of reach or not needed.

    Otherwise it would spend half a minute on retries before it uses what was downloaded before.
    """
    from huggingface_hub import constants

    was_offline = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = was_offline or source.folder is not None or not _reachable(constants.ENDPOINT)
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = was_offline


def _reachable(url: str) -> bool:
    """Whether a connection to the hub can be made, or a proxy is configured."""
    if urllib.request.getproxies().get("https"):
        return True
    try:
        host = urllib.parse.urlsplit(url)
        socket.create_connection((host.hostname or "", host.port or 443), timeout=HUB_TIMEOUT_S).close()
    except OSError:
        return False
    return True


def _folder(name: str) -> Path | None:
    """Return the folder of a bundled or local model, or None."""
    if not name:
        return None
    bundled, path = MODELS / name, Path(name.removeprefix("local-dir:")).expanduser()
    for folder in (bundled, path):
        if (folder / "open_clip_config.json").is_file():
            return folder.resolve()
    return None


def _named(name: str) -> Source:
    """Return the source of an architecture with a tag, or of a name on the hub."""
    import open_clip

    architecture, _, tag = name.partition("/")
    if architecture not in open_clip.list_models():
        if tag:
            return Source(f"hf-hub:{name}")
        raise Rejected(f"no model is called {name!r}", code="model-missing", hint=_hint())
    tags = open_clip.list_pretrained_tags_by_model(architecture)
    if not tag and len(tags) == 1:
        tag = tags[0]
    if tag not in tags:
        known = ", ".join(f"{architecture}/{known}" for known in tags) or "none"
        raise Rejected(f"{name!r} names no weights", code="model-missing", hint=f"name one: {known[:300]}")
    return Source(architecture, tag)


def _is_the_models(error: BaseException) -> bool:
    """Whether an error means that the model is missing or unreadable, and not that the machine or network failed.

    open_clip wraps errors in its own, so their causes are examined too.
    """
    from huggingface_hub import errors as hub
    from safetensors import SafetensorError

    chain = list(_causes(error))
    if any(isinstance(cause, MemoryError) or getattr(cause, "errno", None) in TROUBLES for cause in chain):
        return False
    unfit = (FileNotFoundError, NotADirectoryError, PermissionError, ValueError, KeyError, SafetensorError)
    absent = (hub.OfflineModeIsEnabled, hub.EntryNotFoundError, hub.RepositoryNotFoundError, hub.RevisionNotFoundError)
    return any(isinstance(cause, (*unfit, *absent)) or any(words in str(cause) for words in UNFIT) for cause in chain)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and all its causes."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _missing(name: str, source: Source, error: Exception) -> Rejected:
    """Return the refusal of a model that is missing or broken."""
    if source.folder is not None:
        reason = " ".join(str(error).split())[:200]
        return Rejected(f"model folder {source.folder} does not load: {reason}", code="model-broken", hint=_hint())
    return Rejected(f"model {name!r} is not on this machine and cannot be fetched", code="model-missing", hint=_hint())


def _hint() -> str:
    """Return the advice that names the bundled models."""
    names = ", ".join(sorted(path.name for path in MODELS.iterdir() if path.is_dir())) if MODELS.is_dir() else ""
    return f"without a network name a bundled model ({names}) or a local open_clip folder"


@dataclass(frozen=True)
class _Pixels:
    """The model's own preprocessing, on the device: from uint8 (n, height, width, 3) to float (n, 3, size, size)."""

    size: int  # pixels along each side
    fit: Fit
    mode: str  # of interpolation
    fill: int  # value of padded pixels
    scale: torch.Tensor  # (1, 3, 1, 1)
    shift: torch.Tensor  # (1, 3, 1, 1)

    @classmethod
    def of(cls, cfg: dict[str, Any], size: int, device: str) -> _Pixels:
        """Return the preprocessing that open_clip's configuration describes."""
        import torch

        mean = torch.tensor(cfg["mean"], device=device).view(1, 3, 1, 1)
        deviation = torch.tensor(cfg["std"], device=device).view(1, 3, 1, 1)
        mode = "bilinear" if cfg["interpolation"] == "bilinear" else "bicubic"
        fill = cfg.get("fill_color", 0)
        return cls(size, cfg["resize_mode"], mode, int(fill), 1 / (255 * deviation), -mean / deviation)

    def __call__(self, frames: torch.Tensor) -> torch.Tensor:
        pixels = frames.permute(0, 3, 1, 2).float()  # (n, 3, height, width)
        if tuple(pixels.shape[2:]) != (self.size, self.size):
            pixels = self._cut(self._resize(pixels))
        return pixels * self.scale + self.shift

    def _resize(self, pixels: torch.Tensor) -> torch.Tensor:
        """Scale pixels (n, 3, height, width) to the model's size, by its fit."""
        import torch

        height, width = pixels.shape[2:]
        side = min(height, width) if self.fit == "shortest" else max(height, width)
        to = (self.size, self.size)
        if self.fit != "squash":
            to = (max(1, round(height * self.size / side)), max(1, round(width * self.size / side)))
        scaled = torch.nn.functional.interpolate(pixels, to, mode=self.mode, antialias=True)
        return scaled.round().clamp(0, 255)

    def _cut(self, pixels: torch.Tensor) -> torch.Tensor:
        """Bring pixels (n, 3, height, width) to the model's size: crop them to the centre, or pad them around it."""
        import torch

        height, width = pixels.shape[2:]
        top, left = round((height - self.size) / 2), round((width - self.size) / 2)
        if top >= 0 and left >= 0:
            return pixels[:, :, top : top + self.size, left : left + self.size]
        above, before_left = (self.size - height) // 2, (self.size - width) // 2
        edges = (before_left, self.size - width - before_left, above, self.size - height - above)
        return torch.nn.functional.pad(pixels, edges, value=float(self.fill))


def _unit(vectors: torch.Tensor) -> Floats:
    """Return vectors (n, dimensions) of unit length in numpy."""
    import torch

    unit: Floats = torch.nn.functional.normalize(vectors.float(), dim=-1).cpu().numpy()
    return unit


def digest(name: str) -> str:
    """Return a digest of the files of a model in a local folder, without loading it; empty for other models.

    The same files give the same fingerprint, but the fingerprint itself needs the weights in memory.
    """
    folder = _folder(name)
    if folder is None:
        return ""
    return _digest(folder, folder.rglob("*"))


def stated(name: str) -> dict[str, Any] | None:
    """Return the facts of a model as its folder states them, without loading it.

    Returns:
        What `Encoder.facts` would return; None if the folder states nothing, or something about other weights.

    Raises:
        Rejected: the statement cannot be read.
    """
    folder = _folder(name)
    if folder is None or not (folder / FACTS).is_file():
        return None
    try:
        facts = json.loads((folder / FACTS).read_bytes())
        weights = facts.pop("weights")
        typed = {fact: kind(facts[fact]) for fact, kind in FACTS_ARE.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        detail = f"{folder / FACTS} does not say what the model is: {type(error).__name__}: {error}"
        raise Rejected(detail, code="model-broken", hint="delete it: the model is then loaded to be asked") from error
    return typed if weights == _digest(folder, folder.glob(WEIGHTS)) else None


def state(folder: Path) -> None:
    """Load the model in a folder, and write its facts there for `stated`."""
    facts = load(str(folder)).facts() | {"weights": _digest(folder, folder.glob(WEIGHTS))}
    (folder / FACTS).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def _digest(folder: Path, files: Iterable[Path]) -> str:
    """Return a digest of some files of a folder, by their paths and contents."""
    combined = hashlib.blake2b(digest_size=16)
    for file in sorted(path for path in files if path.is_file()):
        with file.open("rb") as opened:
            combined.update(
                f"{file.relative_to(folder)} {hashlib.file_digest(opened, 'sha256').hexdigest()}\n".encode()
            )
    return combined.hexdigest()


def _fingerprint(model: Any, pixels: dict[str, Any]) -> str:
    """Return a digest of the weights and the preprocessing; vectors of different fingerprints must not be compared."""
    digest = hashlib.blake2b(json.dumps(pixels, sort_keys=True, default=str).encode(), digest_size=16)
    for key, value in sorted(model.state_dict().items()):
        digest.update(key.encode())
        digest.update(value.detach().cpu().contiguous().flatten().numpy().tobytes())
    return digest.hexdigest()
