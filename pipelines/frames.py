"""The one place that decodes. A chunk is decoded once, at the size that is needed, in the order of presentation.

decord decodes what it decodes right: whole files, and longer ones from a copy of the chunk's packets, so that a chunk
costs what it contains and not what the file does. PyAV decodes what decord gets wrong (transport streams, edit lists,
open groups of pictures, rotated or damaged files; see `probe`). Either way a frame's time is the one that the packets
state. Runs inside the sandbox; the answer is measurements for every frame, and pictures of the candidates only.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import decord
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream
from numpy.typing import NDArray
from PIL import Image

from pipelines import shots
from pipelines.media import Bytes8, Floats, Times
from pipelines.probe import Undecodable, clock_of, open_container, picture_stream

BATCH_FRAMES = 64
WEBP_QUALITY = 78
WEBP_METHOD = 2  # 0 fast .. 6 small
SEEK_EARLIER_S = (0, 2, 10, 60)
COMPLAINT_BYTES_MAX = 300
DAMAGED_FRAMES_MAX = 1000  # errors in a row before the rest of a chunk is given up

Frame = tuple[int, Bytes8]  # time, pixels


@dataclass(frozen=True)
class Order:
    """Which frames of a file to decode, and what to make of them. All frames are named by index; see `media.Chunk`."""

    path: str
    scratch: str  # a path for a copy of the chunk, should one be needed
    decoder: str
    whole: bool  # the chunk is all there is
    width: int  # of a decoded frame, before it is turned
    height: int
    rotation: int
    frame_ms: tuple[int, ...]  # of the frames to decode
    pts_first: int  # of the first of them, in the stream's time base
    pts_last: int
    own_first: int  # index into frame_ms
    own_stop: int
    previous_ms: int  # time of the frame before the first owned one, -1 at the start of the file
    interval_ms: int
    model_side: int
    fit: str
    thumbnail_side: int
    key_frames_only: bool = False
    cuts: bool = True
    counted: bool = False  # frames are told by their order from the start of the file
    before: int = 0  # of them, those that come before the chunk


def warm() -> None:
    """Load what a first picture loads, once for all children that will be forked: a tenth of a second each."""
    picture = np.zeros((8, 8, 3), np.uint8)
    _webp(fitted(picture, 8, "squash"), 8)


def decode(**order: Any) -> tuple[Mapping[str, Any], Mapping[str, NDArray[Any]]]:
    """Measurements of the owned frames, and their candidates at the model's size.

    Raises:
        Undecodable: nothing could be decoded, or the decoder gives another number of frames than the index.
    """
    return _decode(Order(**order))


def _decode(order: Order) -> tuple[Mapping[str, Any], Mapping[str, NDArray[Any]]]:
    source = _with_decord(order) if order.decoder == "decord" else _with_av(order)
    collected = _Collected(order)
    small: list[NDArray[np.float32]] = []
    pending: list[Frame] = []
    for batch in _batches(source, BATCH_FRAMES):
        pending += batch
        small.append(shots.planes(np.stack([pixels for _, pixels in batch])))
        pending, small = collected.take(pending, small, last=False)
    collected.take(pending, small, last=True)
    return collected.answer()


def _batches(source: Iterator[Frame], size: int) -> Iterator[list[Frame]]:
    batch: list[Frame] = []
    for frame in source:
        batch.append(frame)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


class _Collected:
    """Takes frames as they come, with their small planes; keeps what is owned."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._own = (order.frame_ms[order.own_first], order.frame_ms[order.own_stop - 1])
        self._previous_ms = order.previous_ms
        self._times: list[int] = []
        self._features: list[Floats] = []
        self._candidate_ms: list[int] = []
        self._sharpness: list[float] = []
        self._pictures: list[Bytes8] = []
        self._thumbnails: list[bytes] = []
        self._decided = 0  # frames so far
        self._dropped = 0  # of them, those that nothing will look at again
        self._cut_at = -1  # number of the frame that a cut asks to sample

    def take(
        self, frames: list[Frame], small: list[NDArray[np.float32]], last: bool
    ) -> tuple[list[Frame], list[NDArray[np.float32]]]:
        """Decide on what has enough neighbours; give back what the next decisions will look at."""
        if not frames:
            return frames, small
        plane = np.concatenate(small)
        begin = self._decided - self._dropped
        stop = len(frames) if last else len(frames) - shots.AFTER
        if stop <= begin:
            return frames, [plane]
        measured = shots.measure(plane)
        peak = shots.peaks(measured[:, shots.CHANGE])
        for at in range(begin, stop):
            self._decide(self._dropped + at, frames[at], measured[at], bool(peak[at]))
        keep = max(0, stop - shots.BEFORE)
        self._decided, self._dropped = self._dropped + stop, self._dropped + keep
        return frames[keep:], [plane[keep:]]

    def _decide(self, number: int, frame: Frame, measured: Floats, peak: bool) -> None:
        time_ms, pixels = frame
        if peak and self._order.cuts:
            self._cut_at = number + shots.SETTLE
        if self._own[0] <= time_ms <= self._own[1]:
            grid = self._order.interval_ms
            on_grid = self._previous_ms < 0 or time_ms // grid != self._previous_ms // grid
            if on_grid or number == self._cut_at:
                self._keep(time_ms, _turned(pixels, self._order.rotation))
            self._times.append(time_ms)
            self._features.append(measured)
            self._previous_ms = time_ms

    def _keep(self, time_ms: int, pixels: Bytes8) -> None:
        self._candidate_ms.append(time_ms)
        self._sharpness.append(sharpness(pixels))
        self._pictures.append(fitted(pixels, self._order.model_side, self._order.fit))
        self._thumbnails.append(_webp(pixels, self._order.thumbnail_side))

    def answer(self) -> tuple[Mapping[str, Any], Mapping[str, NDArray[Any]]]:
        side = self._order.model_side
        return {"decoded": len(self._times)}, {
            "frame_ms": np.array(self._times, np.int32),
            "features": np.array(self._features, np.float32).reshape(-1, shots.FEATURES),
            "candidate_ms": np.array(self._candidate_ms, np.int32),
            "sharpness": np.array(self._sharpness, np.float32),
            "candidates": np.array(self._pictures, np.uint8).reshape(-1, side, side, 3),
            "thumbnail_sizes": np.array([len(data) for data in self._thumbnails], np.int32),
            "thumbnails": np.frombuffer(b"".join(self._thumbnails), np.uint8),
        }


def _with_decord(order: Order) -> Iterator[Frame]:
    """decord, on the whole file or on a copy of the chunk's packets."""
    expected = list(order.frame_ms)
    path, skip = order.path, 0
    if not order.whole:
        pts = _copy_packets(order)
        path, skip = order.scratch, int(np.searchsorted(pts, order.pts_first))
        total = len(pts)
    else:
        total = len(expected)
    try:
        with _complaints() as complaint:
            reader = decord.VideoReader(path, ctx=decord.cpu(0), width=order.width, height=order.height, num_threads=1)
            if len(reader) != total:
                raise Undecodable("decoder-disagrees", f"decord sees {len(reader)} frames, the index {total}")
            for _ in range(skip):
                reader.next()
            for time_ms in expected:
                yield time_ms, reader.next().asnumpy()
        if complaint:  # it goes on after damage, with pictures that are wrong or out of step
            raise Undecodable("decoder-failed", f"decord: {complaint[0]}")
    except decord.DECORDError as error:
        raise Undecodable("decoder-failed", f"decord: {error}") from error
    except StopIteration as error:
        raise Undecodable("decoder-disagrees", "decord gives fewer frames than the index") from error
    finally:
        if not order.whole:
            Path(order.scratch).unlink(missing_ok=True)


@contextlib.contextmanager
def _complaints() -> Iterator[list[str]]:
    """The first line that decord's decoder writes to standard error in the meantime: its only word on damage."""
    found: list[str] = []
    kept, memory = os.dup(2), os.memfd_create("complaints")
    decord.logging.set_level(decord.logging.ERROR)
    os.dup2(memory, 2)
    try:
        yield found
    finally:
        os.dup2(kept, 2)
        if line := os.pread(memory, COMPLAINT_BYTES_MAX, 0).decode(errors="replace").partition("\n")[0]:
            found.append(line)
        os.close(kept)
        os.close(memory)


def _copy_packets(order: Order) -> NDArray[np.int64]:
    """Copy the packets that [pts_first, pts_last] need into a file of their own; their times, ascending."""
    copied: list[int] = []
    with open_container(order.path) as source, av.open(order.scratch, "w", format="matroska") as target:
        stream = picture_stream(source)
        copy = target.add_stream_from_template(stream, opaque=True)
        for packet in _from_key_frame(source, stream, order.pts_first):
            if not packet.size or packet.pts is None:
                continue
            if packet.dts is not None and packet.dts > order.pts_last:
                break
            copied.append(packet.pts)
            packet.stream = copy
            target.mux(packet)
    return np.sort(np.array(copied, np.int64))


def _with_av(order: Order) -> Iterator[Frame]:
    """PyAV, from the key frame before the chunk; ends where the picture data ends. Damaged pictures are left out."""
    wanted, at = order.frame_ms, 0
    with open_container(order.path) as container:
        stream = picture_stream(container)
        stream.thread_count = 1
        if order.key_frames_only:
            stream.codec_context.skip_frame = "NONKEY"
        clock = clock_of(container, stream)
        from_start = order.whole or order.counted
        packets = container.demux(stream) if from_start else _from_key_frame(container, stream, order.pts_first)
        for frame, sound in itertools.islice(_pictures(packets), order.before if order.counted else 0, None):
            if order.counted:
                time_ms: int | None = wanted[min(at, len(wanted) - 1)]
            else:
                time_ms = None if frame.pts is None else clock.ms(frame.pts)
                at = _position(wanted, at, -1 if time_ms is None else time_ms)
            if at == len(wanted):
                return
            if wanted[at] == time_ms:  # never a time twice, none that the index does not name
                at += 1
                if sound:
                    yield time_ms, _scaled(frame, order)


def _pictures(packets: Iterator[Any]) -> Iterator[tuple[av.VideoFrame, bool]]:
    """What the decoder gives, in the order of presentation, and whether it is sound.

    After damage no picture is, until a key frame: others are made of what was lost. Pictures shown before the last key
    frame and stored behind it are another matter: a chunk that begins there never had what they are made of.
    """
    errors, sound, key_pts = 0, True, 0
    while errors < DAMAGED_FRAMES_MAX:
        try:
            frames = next(packets).decode()
        except (StopIteration, av.error.EOFError):
            return
        except av.error.FFmpegError:
            errors, sound = errors + 1, False
            continue
        for frame in frames:
            if not isinstance(frame, av.VideoFrame):
                continue
            errors = 0
            pts = frame.pts or 0
            if frame.key_frame and not frame.is_corrupt:
                sound, key_pts = True, pts
            elif frame.is_corrupt and pts > key_pts:
                sound = False
            yield frame, sound and not frame.is_corrupt


def _from_key_frame(container: InputContainer, stream: VideoStream, pts: int) -> Iterator[Any]:
    """Packets from a key frame at or before `pts` on; streams without an index are entered earlier, if need be."""
    base = stream.time_base or Fraction(1, 1000)
    for earlier_s in SEEK_EARLIER_S:
        container.seek(int(pts - earlier_s / base), stream=stream, backward=True, any_frame=False)
        packets = container.demux(stream)
        for packet in packets:
            if packet.is_keyframe and packet.pts is not None:
                break
        else:
            continue
        if packet.pts <= pts:
            return itertools.chain([packet], packets)
    container.seek(container.start_time or 0)
    return container.demux(stream)


def _position(times: Times | tuple[int, ...], at: int, time_ms: int) -> int:
    """The first place from `at` on whose time is not before `time_ms`."""
    while at < len(times) and times[at] < time_ms:
        at += 1
    return at


def _scaled(frame: av.VideoFrame, order: Order) -> Bytes8:
    return np.asarray(frame.reformat(width=order.width, height=order.height, format="rgb24").to_ndarray(), np.uint8)


def _turned(pixels: Bytes8, rotation: int) -> Bytes8:
    return np.rot90(pixels, -(rotation // 90)) if rotation else pixels


def fitted(pixels: Bytes8, side: int, fit: str) -> Bytes8:
    """A picture as the model's own preprocessing would see it: [side, side, 3]."""
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
    """Variance of the Laplacian of the luma; blurred and flat pictures have little."""
    luma = pixels[..., 1].astype(np.int16)
    inner = 4 * luma[1:-1, 1:-1] - luma[:-2, 1:-1] - luma[2:, 1:-1] - luma[1:-1, :-2] - luma[1:-1, 2:]
    return float(inner.var(dtype=np.float64)) if inner.size else 0.0


def _webp(pixels: Bytes8, side: int) -> bytes:
    image = Image.fromarray(np.ascontiguousarray(pixels))
    scale = side / min(image.size)
    if scale < 1:
        image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BILINEAR)
    out = io.BytesIO()
    image.save(out, "WEBP", quality=WEBP_QUALITY, method=WEBP_METHOD)
    return out.getvalue()
