"""Decoding a chunk once, in presentation order, into measurements of every frame and pictures of the candidates.

The frames come from `decoders`, which runs the decoder that the request names. A frame is released as soon as the next
one comes: only its small plane is kept, and its pixels if it is a candidate or may become one. Runs inside the sandbox.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipelines.decode import decoders, orientation
from pipelines.decode.decoders import DecodedFrame, DecodeRequest
from pipelines.media import Bytes8, Floats
from pipelines.moments import shots

MEASURED_AT_ONCE = 64  # frames
DOUBT = 0.01  # by which the change of a single frame may differ from the same one measured in a batch
WEBP_QUALITY = 78
WEBP_METHOD = 2  # 0 fast .. 6 small


def warm() -> None:
    """Load what handling the first picture needs; done before the fork, it saves each child a tenth of a second."""
    picture = np.zeros((8, 8, 3), np.uint8)
    _webp(fit_to_model(picture, 8, "squash"), 8)


def decode(**order: Any) -> tuple[Mapping[str, Any], Mapping[str, NDArray[Any]]]:
    """Decode a chunk.

    `order` holds the fields of a `DecodeRequest`. The values count the owned frames that the decoder returned
    (`decoded`), and those of them with lost parts filled in (`concealed`). The arrays are those of `stages.Decoded`:
    `frame_ms` (frames,), `features` (frames, FEATURES), `candidate_ms` and `sharpness` (candidates,), `candidates`
    (candidates, side, side, 3), and the thumbnails with their sizes.

    Raises:
        Undecodable: the file cannot be opened, or decord refuses it, reports damage, or sees another number of frames
            than the index.
    """
    return _decode(DecodeRequest(**order))


def _decode(order: DecodeRequest) -> tuple[Mapping[str, Any], Mapping[str, NDArray[Any]]]:
    """Decode a request: pass each frame to the sampler, and to the search for cuts."""
    samples = _FrameSampler(order)
    cuts = _Cuts(samples) if order.cuts else None
    own_first, own_last = order.frame_ms[order.own_first], order.frame_ms[order.own_stop - 1]
    concealed = 0
    for time_ms, picture in decoders.pictures(order):
        owned = own_first <= time_ms <= own_last
        if picture is None:
            concealed += owned
            continue
        if owned:
            samples.see(time_ms, picture)
        if cuts:
            cuts.see(time_ms, picture, owned)
    features = cuts.features() if cuts else np.zeros((0, shots.FEATURES), np.float32)
    decoded = len(samples.frame_ms) + concealed
    if order.decoder == "decord":  # it returns samples alone, and has found the frames of the index in the file
        decoded = order.own_stop - order.own_first
    return {"decoded": decoded, "concealed": concealed}, {
        "frame_ms": np.array(samples.frame_ms, np.int32),
        "features": features,
        **samples.arrays(),
    }


@dataclass(frozen=True)
class _KeptFrame:
    """A candidate: its sharpness, its picture (side, side, 3), and its thumbnail as WebP."""

    sharpness: float
    picture: Bytes8
    thumbnail: bytes


class _FrameSampler:
    """Sampler of candidates: it keeps the first frame of each interval, and the frames after possible cuts."""

    def __init__(self, order: DecodeRequest) -> None:
        self._order = order
        self._previous_ms = order.previous_ms
        self._kept: dict[int, _KeptFrame] = {}
        self.frame_ms: list[int] = []  # times of the owned frames

    def see(self, time_ms: int, picture: DecodedFrame) -> None:
        """Take the next owned frame."""
        if self._order.on_grid(time_ms, self._previous_ms):
            self.keep(time_ms, picture.pixels())
        self._previous_ms = time_ms
        self.frame_ms.append(time_ms)

    def keep(self, time_ms: int, pixels: Bytes8) -> None:
        """Make a frame, uint8 (height, width, 3), a candidate, if it is not one yet."""
        if time_ms in self._kept:
            return
        order, pixels = self._order, orientation.shown(pixels, self._order.rotation, self._order.mirrored)
        self._kept[time_ms] = _KeptFrame(
            sharpness(pixels), fit_to_model(pixels, order.model_side, order.fit), _webp(pixels, order.thumbnail_side)
        )

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the candidates in order of time, as arrays."""
        side, times = self._order.model_side, sorted(self._kept)
        candidates = [self._kept[time_ms] for time_ms in times]
        return {
            "candidate_ms": np.array(times, np.int32),
            "sharpness": np.array([sample.sharpness for sample in candidates], np.float32),
            "candidates": np.array([sample.picture for sample in candidates], np.uint8).reshape(-1, side, side, 3),
            "thumbnail_sizes": np.array([len(sample.thumbnail) for sample in candidates], np.int32),
            "thumbnails": np.frombuffer(b"".join(sample.thumbnail for sample in candidates), np.uint8),
        }


class _Cuts:
    """The search for cuts: it measures all frames, and keeps as candidate the frame SETTLE frames after a possible cut.

    A possible cut is a peak of change, which is only certain REACH frames later. Until then the pixels of a frame are
    held if its change may turn out to be a peak.
    """

    def __init__(self, samples: _FrameSampler) -> None:
        self._samples = samples
        self._planes: list[Floats] = []  # (3, cells) each, of frames that a later measurement looks at
        self._owned: list[bool] = []  # for each of the same frames
        self._dropped = 0  # number of frames before these
        self._measured = 0  # number of frames measured so far, owned or not
        self._features: list[Floats] = []  # (frames, FEATURES) each
        self._changes: list[float] = []  # of the last frames
        self._held: dict[int, tuple[int, Bytes8]] = {}  # by frame number: time in milliseconds, and pixels

    def see(self, time_ms: int, picture: DecodedFrame, owned: bool) -> None:
        """Take the next frame."""
        plane = picture.small()
        self._changes.append(shots.change(self._planes[-1], plane) if self._planes else 0.0)
        del self._changes[: -shots.REACH - shots.SETTLE - 1]
        if owned and self._stands_out():
            self._held[self._dropped + len(self._planes)] = (time_ms, picture.pixels())
        self._planes.append(plane)
        self._owned.append(owned)
        if len(self._planes) + self._dropped - self._measured >= MEASURED_AT_ONCE + shots.AFTER:
            self._measure(shots.AFTER)

    def features(self) -> Floats:
        """Measure the remaining frames and return all measurements, (owned frames, FEATURES)."""
        self._measure(0)
        return np.concatenate([np.zeros((0, shots.FEATURES), np.float32), *self._features])

    def _stands_out(self) -> bool:
        """Whether the frame SETTLE frames ago may turn out to be a peak."""
        if len(self._changes) <= shots.SETTLE:
            return False
        change = self._changes[-1 - shots.SETTLE] + DOUBT
        return change > shots.PEAK_CHANGE_MIN and change >= max(self._changes)

    def _measure(self, after: int) -> None:
        """Measure all frames except the last `after`, which have too few neighbours yet."""
        begin, stop = self._measured - self._dropped, len(self._planes) - after
        if stop <= begin:
            return
        measured = shots.measure(np.stack(self._planes))  # (frames, 3, cells) → (frames, FEATURES)
        for number in np.flatnonzero(shots.peaks(measured[:, shots.CHANGE])[begin:stop]) + begin + self._dropped:
            if held := self._held.get(int(number) + shots.SETTLE):
                self._samples.keep(*held)
        self._features.append(measured[begin:stop][self._owned[begin:stop]])
        self._measured = self._dropped + stop
        self._held = {number: held for number, held in self._held.items() if number >= self._measured + shots.SETTLE}
        drop = max(0, stop - shots.BEFORE)
        del self._planes[:drop], self._owned[:drop]
        self._dropped += drop


def fit_to_model(pixels: Bytes8, side: int, fit: str) -> Bytes8:
    """Bring a picture to the model's input size as the model's own preprocessing would.

    Args:
        pixels: uint8 (height, width, 3).
        side: Pixels along each side of the result.
        fit: "squash" changes the aspect ratio, "shortest" crops the longer side, "longest" pads the shorter with black.

    Returns:
        uint8 (side, side, 3).
    """
    image = Image.fromarray(np.ascontiguousarray(pixels))
    width, height = image.size
    if fit == "squash":
        return np.asarray(image.resize((side, side), Image.Resampling.BICUBIC))
    edge = min(width, height) if fit == "shortest" else max(width, height)
    width, height = max(1, round(width * side / edge)), max(1, round(height * side / edge))
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = round((width - side) / 2), round((height - side) / 2)
    return np.asarray(image.crop((left, top, left + side, top + side)))


def sharpness(pixels: Bytes8) -> float:
    """Return the variance of the Laplacian of the green channel; blurred and flat pictures have little.

    Args:
        pixels: uint8 (height, width, 3).

    Returns:
        The variance; 0 for a picture below 3 by 3 pixels.
    """
    luma = pixels[..., 1].astype(np.int16)  # (height, width): green is most of the luma
    inner = 4 * luma[1:-1, 1:-1] - luma[:-2, 1:-1] - luma[2:, 1:-1] - luma[1:-1, :-2] - luma[1:-1, 2:]
    return float(inner.var(dtype=np.float64)) if inner.size else 0.0


def _webp(pixels: Bytes8, side: int) -> bytes:
    """Return a picture as WebP, scaled down to `side` pixels along the shorter side."""
    image = Image.fromarray(np.ascontiguousarray(pixels))
    scale = side / min(image.size)
    if scale < 1:
        image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BILINEAR)
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=WEBP_QUALITY, method=WEBP_METHOD)
    return buffer.getvalue()
