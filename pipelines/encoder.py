"""The encoder: frames and texts into one space of unit vectors.

One code path loads every model through open_clip: the bundled one by its name, a local folder, an architecture with a
tag ("ViT-B-32/laion2b_s34b_b79k") or a hub name ("hf-hub:..."). What a model wants of its pixels (size, fit, mean,
deviation) comes from the model's own preprocessing. torch and open_clip are imported when a model is loaded, never
before. Knows nothing about videos, segments or databases.
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
from pipelines import towers
from pipelines.compounds import Compounds
from pipelines.relevance import Calibration

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

log = logging.getLogger(__name__)

MODELS = Path(__file__).resolve().parents[1] / "configs" / "models"
PROBE_TEXT = "a photo of a dog"
BF16_PARAMETERS_MIN = 20_000_000  # below this the conversions cost a CPU more than the arithmetic saves
AGREEMENT_MIN = 0.999
HUB_TIMEOUT_S = 3.0
TROUBLES = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO, errno.EAGAIN, errno.EINTR, errno.ENOSPC, errno.ESTALE}
UNFIT = (
    "could not be loaded",
    "loading state_dict",
)  # what open_clip and torch say of weights that are none of this model

FACTS = "facts.json"  # in a model's folder: what it is, and of which weights that was said
FACTS_ARE: Mapping[str, Callable[[Any], Any]] = {"dimensions": int, "image_size": int, "fit": str, "fingerprint": str}
WEIGHTS = "open_clip_*"  # with their configuration: what the facts follow from

Fit = Literal["squash", "shortest", "longest"]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Source:
    """Where open_clip finds a model: its own identifier, a tag for named architectures, a folder for local ones."""

    identifier: str
    tag: str | None = None
    folder: Path | None = None


class Encoder:
    """A loaded model. Safe to call from several threads; every answer is float32 and of length one."""

    def __init__(self, name: str, source: Source, *, device: str, batch_frames: int, compiled: bool) -> None:
        import open_clip

        self.name = name
        self.device = device
        self.batch_frames = batch_frames
        self._model, _ = open_clip.create_model_from_pretrained(source.identifier, pretrained=source.tag, device=device)
        self._model.eval().requires_grad_(False)
        self._tokenizer = open_clip.get_tokenizer(source.identifier)
        pixels = self._model.visual.preprocess_cfg
        self.image_size: int = _side(pixels["size"])
        self.fit: Fit = pixels["resize_mode"]
        self._pixels = _Pixels.of(pixels, self.image_size, device)
        self.fingerprint: str = _fingerprint(self._model, pixels)
        self._calibration, self._compounds = Calibration.of(source.folder), Compounds.of(source.folder)
        towers.fold(self._model.visual)
        self._text_tower = towers.text(self._model, self._tokenizer, device, PROBE_TEXT)
        self.dimensions = int(self.texts([PROBE_TEXT]).shape[1])
        self._channels_last()
        self._image_tower = self._compiled() if compiled else self._model.encode_image
        self.bf16 = self._bf16_is_safe()

    def frames(self, frames: NDArray[np.uint8], *, pad: bool = True) -> Floats:
        """Unit vectors of RGB frames [N, H, W, 3]. Batches have one padded shape, so that neighbours change nothing.

        A device whose memory does not hold a batch gets batches of half the size, from then on.
        """
        import torch

        out, start = np.empty((len(frames), self.dimensions), np.float32), 0
        while start < len(frames):
            rows = self.batch_frames
            batch = frames[start : start + rows]
            try:
                out[start : start + len(batch)] = self._batch(batch, rows if pad else len(batch))
            except torch.OutOfMemoryError:
                if rows == 1:
                    raise
                self._halve(rows)
                continue
            start += len(batch)
        return out

    def images(self, images: Sequence[Image]) -> Floats:
        """Unit vectors of pictures of any size and mode."""
        rows = [self.frames(np.asarray(image.convert("RGB"))[None], pad=False) for image in images]
        return np.concatenate(rows) if rows else np.empty((0, self.dimensions), np.float32)

    def texts(self, texts: Sequence[str]) -> Floats:
        """Unit vectors of texts, in one batch; a model's compounds are one word however they are written."""
        import torch

        if not texts:
            return np.empty((0, self.dimensions), np.float32)
        with torch.inference_mode():
            ids = self._tokenizer([self._compounds.joined(text) for text in texts])
            vectors = self._text_tower(ids.to(self.device))
            return _unit(vectors)

    def facts(self) -> dict[str, Any]:
        """What a job must know before it loads the model: its dimensions, its pixels' side and fit, its fingerprint."""
        return {name: getattr(self, name) for name in FACTS_ARE}

    def relevance_ppm(self, cosines: NDArray[np.floating[Any]], *, asked_by_text: bool = True) -> NDArray[np.int64]:
        """How relevant an answer of this similarity is, 0..1,000,000, monotone, as calibrated for this model."""
        return self._calibration.ppm(cosines, asked_by_text=asked_by_text)

    def _batch(self, frames: NDArray[np.uint8], rows: int) -> Floats:
        import torch

        padded = np.zeros((rows, *frames.shape[1:]), np.uint8)
        padded[: len(frames)] = frames
        pixels = torch.from_numpy(padded).to(self.device)
        with torch.inference_mode(), torch.autocast(self._kind(), torch.bfloat16, enabled=self.bf16):
            return _unit(self._image_tower(self._pixels(pixels)))[: len(frames)]

    def _halve(self, rows: int) -> None:
        import torch

        self.batch_frames = min(self.batch_frames, rows // 2)
        torch.cuda.empty_cache()
        log.warning("%s: a batch of %s frames does not fit; from now on %s", self.name, rows, self.batch_frames)

    def _kind(self) -> str:
        return self.device.split(":")[0]

    def _channels_last(self) -> None:
        import torch

        self._model.visual.to(memory_format=torch.channels_last)

    def _compiled(self) -> Callable[[torch.Tensor], torch.Tensor]:
        import torch

        tower: Callable[[torch.Tensor], torch.Tensor] = torch.compile(self._model.encode_image)
        return tower

    def _bf16_is_safe(self) -> bool:
        """Where bf16 pays: whether this model answers as before, and alike in any place of a batch."""
        self.bf16 = False
        if not self._bf16_pays():
            return False
        shape = (self.batch_frames, self.image_size, self.image_size, 3)
        probe = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        exact = self.frames(probe)
        self.bf16 = True
        fast, turned = self.frames(probe), self.frames(probe[::-1])
        return bool((exact * fast).sum(1).min() >= AGREEMENT_MIN and np.array_equal(fast, turned[::-1]))

    def _bf16_pays(self) -> bool:
        import torch

        if self._kind() == "cuda":
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
        parameters = sum(p.numel() for p in self._model.visual.parameters())
        return parameters >= BF16_PARAMETERS_MIN and bool(torch.cpu._is_avx512_bf16_supported())


def load(
    name: str, *, device: str = "auto", threads: int = 0, batch_frames: int = 32, compiled: bool = False
) -> Encoder:
    """A model by bundled name, folder, architecture/tag or hub name; `compiled` for batches of one shape only.

    Raises:
        Rejected: it is not there, or no model; the line says what to do.
        Temporary: the machine or the network could not load it just now.
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
    """Which open_clip identifier a name stands for."""
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
    """Where the hub cannot be reached, what was fetched before is used at once, without half a minute of retries."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or source.folder is not None or not _reachable(constants.ENDPOINT)
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _reachable(url: str) -> bool:
    if urllib.request.getproxies().get("https"):
        return True
    try:
        host = urllib.parse.urlsplit(url)
        socket.create_connection((host.hostname or "", host.port or 443), timeout=HUB_TIMEOUT_S).close()
    except OSError:
        return False
    return True


def _folder(name: str) -> Path | None:
    if not name:
        return None
    bundled, path = MODELS / name, Path(name.removeprefix("local-dir:")).expanduser()
    for folder in (bundled, path):
        if (folder / "open_clip_config.json").is_file():
            return folder.resolve()
    return None


def _named(name: str) -> Source:
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
    """Whether it is not there or not readable; else it is the machine's or the network's trouble, which may pass.

    open_clip reports what happened inside it as errors of its own, so their causes are looked at too.
    """
    from huggingface_hub import errors as hub
    from safetensors import SafetensorError

    chain = list(_causes(error))
    if any(isinstance(each, MemoryError) or getattr(each, "errno", None) in TROUBLES for each in chain):
        return False
    unfit = (FileNotFoundError, NotADirectoryError, PermissionError, ValueError, KeyError, SafetensorError)
    absent = (hub.OfflineModeIsEnabled, hub.EntryNotFoundError, hub.RepositoryNotFoundError, hub.RevisionNotFoundError)
    return any(isinstance(each, (*unfit, *absent)) or any(words in str(each) for words in UNFIT) for each in chain)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _missing(name: str, source: Source, error: Exception) -> Rejected:
    if source.folder is not None:
        reason = " ".join(str(error).split())[:200]
        return Rejected(f"model folder {source.folder} does not load: {reason}", code="model-broken", hint=_hint())
    return Rejected(f"model {name!r} is not on this machine and cannot be fetched", code="model-missing", hint=_hint())


def _hint() -> str:
    names = ", ".join(sorted(path.name for path in MODELS.iterdir() if path.is_dir())) if MODELS.is_dir() else ""
    return f"without a network name a bundled model ({names}) or a local open_clip folder"


@dataclass(frozen=True)
class _Pixels:
    """uint8 [N, H, W, 3] to what the model's own preprocessing would have made of it, on the device."""

    size: int
    fit: Fit
    mode: str
    fill: int
    scale: torch.Tensor
    shift: torch.Tensor

    @classmethod
    def of(cls, cfg: dict[str, Any], size: int, device: str) -> _Pixels:
        import torch

        mean = torch.tensor(cfg["mean"], device=device).view(1, 3, 1, 1)
        deviation = torch.tensor(cfg["std"], device=device).view(1, 3, 1, 1)
        mode = "bilinear" if cfg["interpolation"] == "bilinear" else "bicubic"
        fill = cfg.get("fill_color", 0)
        return cls(size, cfg["resize_mode"], mode, int(fill), 1 / (255 * deviation), -mean / deviation)

    def __call__(self, frames: torch.Tensor) -> torch.Tensor:
        pixels = frames.permute(0, 3, 1, 2).float()
        if tuple(pixels.shape[2:]) != (self.size, self.size):
            pixels = self._cut(self._resize(pixels))
        return pixels * self.scale + self.shift

    def _resize(self, pixels: torch.Tensor) -> torch.Tensor:
        import torch

        height, width = pixels.shape[2:]
        side = min(height, width) if self.fit == "shortest" else max(height, width)
        to = (self.size, self.size)
        if self.fit != "squash":
            to = (max(1, round(height * self.size / side)), max(1, round(width * self.size / side)))
        scaled = torch.nn.functional.interpolate(pixels, to, mode=self.mode, antialias=True)
        return scaled.round().clamp(0, 255)

    def _cut(self, pixels: torch.Tensor) -> torch.Tensor:
        """Centre crop of what is too long, centred padding of what is too short."""
        import torch

        height, width = pixels.shape[2:]
        top, left = round((height - self.size) / 2), round((width - self.size) / 2)
        if top >= 0 and left >= 0:
            return pixels[:, :, top : top + self.size, left : left + self.size]
        above, before = (self.size - height) // 2, (self.size - width) // 2
        edges = (before, self.size - width - before, above, self.size - height - above)
        return torch.nn.functional.pad(pixels, edges, value=float(self.fill))


def _unit(vectors: torch.Tensor) -> Floats:
    import torch

    unit: Floats = torch.nn.functional.normalize(vectors.float(), dim=-1).cpu().numpy()
    return unit


def _side(size: int | Sequence[int]) -> int:
    return size if isinstance(size, int) else max(size)


def digest(name: str) -> str:
    """Of the files of a model that has a folder here, without loading it; else empty.

    The same files make the same fingerprint; it is another one because a fingerprint needs the weights in memory.
    """
    folder = _folder(name)
    if folder is None:
        return ""
    return _digest(folder, folder.rglob("*"))


def calibration(name: str) -> Calibration:
    """The calibration of a model that has a folder here, without loading it; else the general one."""
    return Calibration.of(_folder(name))


def stated(name: str) -> dict[str, Any] | None:
    """`Encoder.facts` of a model as its folder says them, without loading it; None where it does not, or of other weights.

    Raises:
        Rejected: what it says cannot be read.
    """
    folder = _folder(name)
    if folder is None or not (folder / FACTS).is_file():
        return None
    try:
        facts = json.loads((folder / FACTS).read_bytes())
        of = facts.pop("weights")
        said = {name: kind(facts[name]) for name, kind in FACTS_ARE.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        detail = f"{folder / FACTS} does not say what the model is: {type(error).__name__}: {error}"
        raise Rejected(detail, code="model-broken", hint="delete it: the model is then loaded to be asked") from error
    return said if of == _digest(folder, folder.glob(WEIGHTS)) else None


def state(folder: Path) -> None:
    """Load a folder's model, and write down there what it is."""
    facts = load(str(folder)).facts() | {"weights": _digest(folder, folder.glob(WEIGHTS))}
    (folder / FACTS).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def _digest(folder: Path, files: Iterable[Path]) -> str:
    made = hashlib.blake2b(digest_size=16)
    for file in sorted(path for path in files if path.is_file()):
        with file.open("rb") as opened:
            made.update(f"{file.relative_to(folder)} {hashlib.file_digest(opened, 'sha256').hexdigest()}\n".encode())
    return made.hexdigest()


def _fingerprint(model: Any, pixels: dict[str, Any]) -> str:
    """Changes when the weights or the treatment of pixels change: vectors of two fingerprints do not mix."""
    digest = hashlib.blake2b(json.dumps(pixels, sort_keys=True, default=str).encode(), digest_size=16)
    for key, value in sorted(model.state_dict().items()):
        digest.update(key.encode())
        digest.update(value.detach().cpu().contiguous().flatten().numpy().tobytes())
    return digest.hexdigest()
