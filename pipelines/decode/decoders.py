"""The two decoders: the pictures of a chunk in the order of presentation, each with the time that its packet states.

PyAV reads every file right and gives the planes that the codec made, so that what is only measured need not become
RGB: where cuts are looked for, it decodes every frame. decord skips what comes behind the last sample of a group of
pictures: where samples alone are wanted, it takes two thirds of the time, in the files that it reads right (not
transport streams, edit lists, open groups of pictures, rotated or damaged files; see `probe`). Runs inside the sandbox.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Protocol

import av
import numpy as np
from av.container import InputContainer
from av.video.reformatter import ColorRange, VideoReformatter
from av.video.stream import VideoStream
from numpy.typing import NDArray

from pipelines.decode import tonemap
from pipelines.decode.containers import Undecodable, open_container, picture
from pipelines.decode.plain_decord import decord
from pipelines.media import Bytes8, Floats
from pipelines.moments import shots

SEEK_EARLIER_S = (0, 2, 10, 60)
COMPLAINT_BYTES_MAX = 300
STANDARD_ERROR = 2
DAMAGED_FRAMES_MAX = 1000  # errors in a row before the rest of a chunk is given up
SETTLED_S = 2.0  # after damage
PICKED_AT_ONCE = 8


@dataclass(frozen=True)
class DecodeRequest:
    """Which frames of a file to decode, and what to make of them. All frames are named by index; see `media.Chunk`."""

    path: str
    scratch: str  # an empty file for a copy of the chunk, should one be needed; the sandbox removes it
    decoder: str
    whole: bool  # the chunk is all there is
    width: int  # of a decoded frame, before it is turned
    height: int
    rotation: int
    mirrored: bool
    track: int  # of the file's streams
    frame_ms: tuple[int, ...]  # of the frames to decode
    frame_pts: tuple[int, ...]  # likewise, in the stream's time base
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

    def on_grid(self, time_ms: int, previous_ms: int) -> bool:
        """Whether a frame is the first of its interval."""
        return previous_ms < 0 or time_ms // self.interval_ms != previous_ms // self.interval_ms


class DecodedFrame(Protocol):
    """A decoded frame."""

    def small(self) -> Floats:
        """A plane for `shots.measure`."""

    def pixels(self) -> Bytes8:
        """RGB at the order's size, before it is turned."""


def pictures(order: DecodeRequest) -> Iterator[tuple[int, DecodedFrame | None]]:
    """Times and pictures: every frame of the order by PyAV, those on its grid alone by decord.

    None stands for a frame that is shown, but that a decoder has made up: it is made of what was lost.

    Raises:
        Undecodable: decord refuses the file, complains of it or sees other frames in it than the index.
    """
    return _with_decord(order) if order.decoder == "decord" else _with_av(order)


# ── PyAV ───────────────────────────────────────────────────────────────────────────────────────────────────────────


class _Native:
    """A frame as the codec left it."""

    def __init__(self, frame: av.VideoFrame, order: DecodeRequest, scaler: VideoReformatter) -> None:
        self._frame, self._order, self._scaler = frame, order, scaler

    def small(self) -> Floats:
        cells = shots.grid(upright=self._order.height > self._order.width)
        frame, form = self._frame, self._frame.format
        if form.is_rgb or not form.is_planar or form.is_big_endian or len(frame.planes) < 3:
            rows, columns = (count * shots.POINTS for count in cells)
            frame = frame.reformat(columns, rows, "yuv444p", interpolation="AREA")
        depth = frame.format.components[0].bits
        luma, blue, red = (_samples(plane, depth) for plane in frame.planes[:3])
        return shots.plane(luma, blue, red, cells, depth=depth, full=frame.color_range == ColorRange.JPEG)

    def pixels(self) -> Bytes8:
        if tonemap.is_wide(self._frame):
            return tonemap.pixels(self._frame, self._order.width, self._order.height, self._scaler)
        scaled = self._scaler.reformat(self._frame, self._order.width, self._order.height, "rgb24")
        return np.asarray(scaled.to_ndarray(), np.uint8)


def _samples(plane: Any, depth: int) -> shots.Plane:
    """A plane's samples, where they are."""
    return shots.Plane(np.frombuffer(plane, np.uint8 if depth <= 8 else "<u2").reshape(plane.height, -1), plane.width)


def _with_av(order: DecodeRequest) -> Iterator[tuple[int, DecodedFrame | None]]:
    """From the key frame before the chunk on; ends where the picture data ends."""
    wanted, at, scaler = order.frame_pts, 0, VideoReformatter()
    with open_container(order.path) as container:
        stream = picture(container, order.track)
        stream.thread_count = 1
        if order.key_frames_only:
            stream.codec_context.skip_frame = "NONKEY"
        from_start = order.whole or order.counted
        packets = container.demux(stream) if from_start else _from_key_frame(container, stream, wanted[0])
        for frame, sound in itertools.islice(_decoded(packets), order.before if order.counted else 0, None):
            if not order.counted and frame.pts is not None:
                at = _position(wanted, at, frame.pts)
            if at == len(wanted):
                return
            if order.counted or wanted[at] == frame.pts:  # never a time twice, none that the index does not name
                at += 1
                yield order.frame_ms[at - 1], _Native(frame, order, scaler) if sound else None


def _decoded(packets: Iterator[Any]) -> Iterator[tuple[av.VideoFrame, bool]]:
    """What the decoder gives, in the order of presentation, and whether it is sound.

    After damage no picture is, until a key frame or until SETTLED_S without further damage: others are made of what was
    lost. Pictures shown before the last key frame and stored behind it are another matter: a chunk that begins there
    never had what they are made of.
    """
    errors, damage, key_pts = 0, _Damage(), 0
    while errors < DAMAGED_FRAMES_MAX:
        try:
            frames = next(packets).decode()
        except (StopIteration, av.error.EOFError):
            return
        except av.error.FFmpegError:
            errors += 1
            damage.now()
            continue
        for frame in frames:
            if not isinstance(frame, av.VideoFrame):
                continue
            errors = 0
            if frame.key_frame and not frame.is_corrupt:
                damage.over()
                key_pts = frame.pts or 0
            elif frame.is_corrupt and (frame.pts or 0) > key_pts:
                damage.now()
            yield frame, not frame.is_corrupt and damage.settled(frame)


class _Damage:
    """Whether pictures may still be made of what was lost."""

    def __init__(self) -> None:
        self._lost = False
        self._since_s: float | None = None  # time of the first picture after the last damage

    def now(self) -> None:
        self._lost, self._since_s = True, None

    def over(self) -> None:
        self._lost = False

    def settled(self, frame: av.VideoFrame) -> bool:
        """The next picture may be used. Each that moves is drawn anew, little by little, also without a key frame."""
        if not self._lost or frame.time is None:
            return not self._lost
        if self._since_s is None:
            self._since_s = frame.time
        return bool(frame.time - self._since_s >= SETTLED_S)


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


def _position(times: Sequence[int], at: int, time: int) -> int:
    """The first place from `at` on whose time is not before `time`."""
    while at < len(times) and times[at] < time:
        at += 1
    return at


# ── decord ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class _Ready:
    """A picture that was converted while it was decoded."""

    rgb: Bytes8

    def small(self) -> Floats:
        raise NotImplementedError("decord gives samples; who looks for cuts decodes with PyAV")

    def pixels(self) -> Bytes8:
        return self.rgb


def _with_decord(order: DecodeRequest) -> Iterator[tuple[int, DecodedFrame]]:
    """On the whole file, or on a copy of the chunk's packets, so that a chunk costs what it contains."""
    path, skip, total = order.path, 0, len(order.frame_ms)
    if not order.whole:
        pts = _copy_packets(order)
        path, skip, total = order.scratch, int(np.searchsorted(pts, order.frame_pts[0])), len(pts)
    try:
        with _complaints() as complaint:
            reader = decord.VideoReader(path, ctx=decord.cpu(0), width=order.width, height=order.height, num_threads=1)
            if len(reader) != total:
                raise Undecodable("decoder-disagrees", f"decord sees {len(reader)} frames, the index {total}")
            picked = _on_grid(order)
            for first in range(0, len(picked), PICKED_AT_ONCE):
                some = picked[first : first + PICKED_AT_ONCE]
                found = reader.get_batch([skip + at for at in some]).asnumpy()
                yield from zip((order.frame_ms[at] for at in some), map(_Ready, found), strict=True)
        if complaint:  # it goes on after damage, with pictures that are wrong or out of step
            raise Undecodable("decoder-failed", f"decord: {complaint[0]}")
    except decord.DECORDError as error:
        raise Undecodable("decoder-failed", f"decord: {error}") from error


def _on_grid(order: DecodeRequest) -> Sequence[int]:
    """Owned frames that are the first of their interval; indices into `frame_ms`."""
    owned = range(order.own_first, order.own_stop)
    before = [order.previous_ms, *order.frame_ms[order.own_first : order.own_stop - 1]]
    return [at for at, previous in zip(owned, before, strict=True) if order.on_grid(order.frame_ms[at], previous)]


@contextlib.contextmanager
def _complaints() -> Iterator[list[str]]:
    """The first line that decord's decoder writes to standard error in the meantime: its only word on damage.

    It can be read back in the sandbox, where standard error is a piece of memory of the child's own.
    """
    found: list[str] = []
    decord.logging.set_level(decord.logging.ERROR)
    begin = os.lseek(STANDARD_ERROR, 0, os.SEEK_CUR)
    try:
        yield found
    finally:
        said = os.pread(STANDARD_ERROR, COMPLAINT_BYTES_MAX, begin).partition(b"\0")[0]  # zeros: nothing was written
        if line := said.decode(errors="replace").partition("\n")[0]:
            found.append(line)


def _copy_packets(order: DecodeRequest) -> NDArray[np.int64]:
    """Copy the packets that the ordered frames need into a file of their own; their times, ascending."""
    copied: list[int] = []
    with open_container(order.path) as source, av.open(order.scratch, "w", format="matroska") as target:
        stream = picture(source, order.track)
        copy = target.add_stream_from_template(stream, opaque=True)
        for packet in _from_key_frame(source, stream, order.frame_pts[0]):
            if not packet.size or packet.pts is None:
                continue
            if packet.dts is not None and packet.dts > order.frame_pts[-1]:
                break
            copied.append(packet.pts)
            packet.stream = copy
            target.mux(packet)
    return np.sort(np.array(copied, np.int64))
