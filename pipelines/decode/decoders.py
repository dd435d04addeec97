"""The two decoders, PyAV and decord: the frames of a chunk in presentation order, each with the time from its packet.

PyAV decodes every file correctly and gives the planes as the codec made them, so frames that are only measured need not
become RGB. It is used to look for cuts, which takes every frame. decord skips the frames behind the last sample of a
group of pictures, and takes two thirds of the time. It is used if only samples are wanted, for files that it reads
correctly: no transport streams, edit lists, open groups of pictures, rotated or damaged files (see `probe`). Runs
inside the sandbox.
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

SEEK_EARLIER_S = (0, 2, 10, 60)  # tried in turn, until a key frame at or before the wanted one is found
COMPLAINT_BYTES_MAX = 300
STANDARD_ERROR = 2  # file descriptor
DAMAGED_FRAMES_MAX = 1000  # errors in a row before the rest of a chunk is given up
SETTLED_S = 2.0  # after damage, until the whole picture has been redrawn
PICKED_AT_ONCE = 8  # frames


@dataclass(frozen=True)
class DecodeRequest:
    """Which frames of a file to decode, and what to make of them. Frames are named by index, as in `media.Chunk`."""

    path: str
    scratch: str  # where a copy of the chunk's packets may be written; the sandbox removes it
    decoder: str  # "av" or "decord"
    whole: bool  # the chunk is the whole video
    width: int  # pixels of a decoded frame, before it is turned
    height: int
    rotation: int  # degrees clockwise
    mirrored: bool
    track: int  # index of the file's stream
    frame_ms: tuple[int, ...]  # presentation times of the frames to decode
    frame_pts: tuple[int, ...]  # the same, in the stream's time base
    own_first: int  # index into frame_ms
    own_stop: int
    previous_ms: int  # time of the frame before the first owned one, -1 at the start of the file
    interval_ms: int  # of the grid of candidates
    model_side: int  # pixels along each side of the model's input
    fit: str  # how a frame is brought to that square: "squash", "shortest" or "longest"
    thumbnail_side: int  # pixels along the shorter side
    key_frames_only: bool = False
    cuts: bool = True  # measure every frame
    counted: bool = False  # frames are identified by their order from the start of the file, not by their times
    before: int = 0  # frames before the chunk, if `counted`

    def on_grid(self, time_ms: int, previous_ms: int) -> bool:
        """Whether a frame is the first one in its interval of the candidate grid."""
        return previous_ms < 0 or time_ms // self.interval_ms != previous_ms // self.interval_ms


class DecodedFrame(Protocol):
    """A decoded frame, converted only as far as it is used."""

    def small(self) -> Floats:
        """Return the plane for `shots.measure`, float32 (3, cells)."""

    def pixels(self) -> Bytes8:
        """Return RGB at the requested size before rotation, uint8 (height, width, 3)."""


def pictures(order: DecodeRequest) -> Iterator[tuple[int, DecodedFrame | None]]:
    """Yield times in milliseconds and frames: every frame of the request from PyAV, only those on its grid from decord.

    None in place of a frame: players show a frame at that time, but the decoder has filled in lost parts of it.

    Raises:
        Undecodable: the file cannot be opened, or decord refuses it, reports damage, or sees another number of frames
            than the index.
    """
    return _with_decord(order) if order.decoder == "decord" else _with_av(order)


# ── PyAV ───────────────────────────────────────────────────────────────────────────────────────────────────────────


class _Native:
    """A frame as the codec made it."""

    def __init__(self, frame: av.VideoFrame, order: DecodeRequest, scaler: VideoReformatter) -> None:
        self._frame, self._order, self._scaler = frame, order, scaler

    def small(self) -> Floats:
        """Return the plane for `shots.measure`; frames that are not planar Y'CbCr are converted first."""
        cells = shots.grid(upright=self._order.height > self._order.width)
        frame, form = self._frame, self._frame.format
        if form.is_rgb or not form.is_planar or form.is_big_endian or len(frame.planes) < 3:
            rows, columns = (count * shots.POINTS for count in cells)
            frame = frame.reformat(columns, rows, "yuv444p", interpolation="AREA")
        depth = frame.format.components[0].bits
        luma, blue, red = (_samples(plane, depth) for plane in frame.planes[:3])
        return shots.plane(luma, blue, red, cells, depth=depth, full=frame.color_range == ColorRange.JPEG)

    def pixels(self) -> Bytes8:
        """Return RGB at the requested size, tone mapped if the frame is HDR or BT.2020."""
        if tonemap.is_wide(self._frame):
            return tonemap.pixels(self._frame, self._order.width, self._order.height, self._scaler)
        scaled = self._scaler.reformat(self._frame, self._order.width, self._order.height, "rgb24")
        return np.asarray(scaled.to_ndarray(), np.uint8)


def _samples(plane: Any, depth: int) -> shots.Plane:
    """Return a plane's samples without copying them."""
    return shots.Plane(np.frombuffer(plane, np.uint8 if depth <= 8 else "<u2").reshape(plane.height, -1), plane.width)


def _with_av(order: DecodeRequest) -> Iterator[tuple[int, DecodedFrame | None]]:
    """Decode with PyAV, from the key frame before the chunk; from the start if the file is one chunk or `counted`."""
    wanted_pts, position, scaler = order.frame_pts, 0, VideoReformatter()
    with open_container(order.path) as container:
        stream = picture(container, order.track)
        stream.thread_count = 1
        if order.key_frames_only:
            stream.codec_context.skip_frame = "NONKEY"
        from_start = order.whole or order.counted
        packets = container.demux(stream) if from_start else _from_key_frame(container, stream, wanted_pts[0])
        for frame, is_sound in itertools.islice(_decoded(packets), order.before if order.counted else 0, None):
            if not order.counted and frame.pts is not None:
                position = _position(wanted_pts, position, frame.pts)
            if position == len(wanted_pts):
                return
            if order.counted or wanted_pts[position] == frame.pts:  # each time once, and only times in the index
                position += 1
                yield order.frame_ms[position - 1], _Native(frame, order, scaler) if is_sound else None


def _decoded(packets: Iterator[Any]) -> Iterator[tuple[av.VideoFrame, bool]]:
    """Yield decoded frames in presentation order, and whether each is sound.

    After damage a frame counts as sound again from the next key frame on, or after SETTLED_S without further damage;
    until then it may be made of lost data. Corrupt frames shown before the last key frame and stored behind it (open
    GOP) do not count as damage, because a chunk that begins there never had the frames they refer to.
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
    """State of a decoder after damage: whether its frames may still be made of lost data."""

    def __init__(self) -> None:
        self._lost = False
        self._since_s: float | None = None  # time of the first picture after the last damage

    def now(self) -> None:
        """Note that data were lost."""
        self._lost, self._since_s = True, None

    def over(self) -> None:
        """Note that a key frame has redrawn the picture."""
        self._lost = False

    def settled(self, frame: av.VideoFrame) -> bool:
        """Whether a frame is sound: no damage since the last key frame, or none for SETTLED_S.

        Within SETTLED_S a moving picture is redrawn bit by bit even without a key frame.
        """
        if not self._lost or frame.time is None:
            return not self._lost
        if self._since_s is None:
            self._since_s = frame.time
        return bool(frame.time - self._since_s >= SETTLED_S)


def _from_key_frame(container: InputContainer, stream: VideoStream, pts: int) -> Iterator[Any]:
    """Return the packets from a key frame at or before `pts` on.

    If a seek ends behind `pts`, as in streams without an index, seek to earlier times, at last to the start.
    """
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


def _position(times: Sequence[int], start: int, time: int) -> int:
    """Return the first index from `start` on whose time is not before `time`."""
    while start < len(times) and times[start] < time:
        start += 1
    return start


# ── decord ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class _Ready:
    """A frame that decord has converted to RGB already."""

    rgb: Bytes8

    def small(self) -> Floats:
        """Always raise: this plane serves to find cuts, and requests that look for cuts are decoded with PyAV."""
        raise NotImplementedError("decord gives samples; who looks for cuts decodes with PyAV")

    def pixels(self) -> Bytes8:
        """Return the frame as it is."""
        return self.rgb


def _with_decord(order: DecodeRequest) -> Iterator[tuple[int, DecodedFrame]]:
    """Decode the frames on the grid.

    If the file has several chunks, decode from a copy of this chunk's packets, so that decord does not read the others.
    """
    path, skip, total = order.path, 0, len(order.frame_ms)
    if not order.whole:
        pts = _copy_packets(order)
        path, skip, total = order.scratch, int(np.searchsorted(pts, order.frame_pts[0])), len(pts)
    try:
        with _complaints() as complaints:
            reader = decord.VideoReader(path, ctx=decord.cpu(0), width=order.width, height=order.height, num_threads=1)
            if len(reader) != total:
                raise Undecodable("decoder-disagrees", f"decord sees {len(reader)} frames, the index {total}")
            chosen = _on_grid(order)
            for first in range(0, len(chosen), PICKED_AT_ONCE):
                batch = chosen[first : first + PICKED_AT_ONCE]
                images = reader.get_batch([skip + at for at in batch]).asnumpy()
                yield from zip((order.frame_ms[at] for at in batch), map(_Ready, images), strict=True)
        if complaints:  # after damage decord continues with frames that are wrong or out of order
            raise Undecodable("decoder-failed", f"decord: {complaints[0]}")
    except decord.DECORDError as error:
        raise Undecodable("decoder-failed", f"decord: {error}") from error


def _on_grid(order: DecodeRequest) -> Sequence[int]:
    """Return the owned frames that are the first of their interval, as indices into `frame_ms`."""
    owned = range(order.own_first, order.own_stop)
    previous_ms = [order.previous_ms, *order.frame_ms[order.own_first : order.own_stop - 1]]
    return [at for at, previous in zip(owned, previous_ms, strict=True) if order.on_grid(order.frame_ms[at], previous)]


@contextlib.contextmanager
def _complaints() -> Iterator[list[str]]:
    """Yield a list that gets, after the block, the first line that decord wrote to standard error in it, if any.

    decord reports damage nowhere else. In the sandbox standard error is a memory file, so it can be read back.
    """
    lines: list[str] = []
    decord.logging.set_level(decord.logging.ERROR)
    begin = os.lseek(STANDARD_ERROR, 0, os.SEEK_CUR)
    try:
        yield lines
    finally:
        written = os.pread(STANDARD_ERROR, COMPLAINT_BYTES_MAX, begin).partition(b"\0")[0]  # unwritten bytes are zeros
        if line := written.decode(errors="replace").partition("\n")[0]:
            lines.append(line)


def _copy_packets(order: DecodeRequest) -> NDArray[np.int64]:
    """Copy the packets that the requested frames need into a file; return their times, int64 (packets,), ascending."""
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
