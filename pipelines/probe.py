"""What a file is: container, codec, size, rotation, and the presentation time of every frame, from its packets.

Nothing is decoded but the first frame. Only the demuxers listed here are tried and only local files are opened, so a
playlist or a concat script that points elsewhere is refused whatever it is named. Runs inside the sandbox.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream
from numpy.typing import NDArray

DEMUXERS = ("mov", "mp4", "m4a", "3gp", "3g2", "mj2", "matroska", "webm", "mpegts", "avi", "mpeg")
OPEN_OPTIONS = {"protocol_whitelist": "file,pipe", "format_whitelist": ",".join(DEMUXERS), "fflags": "+genpts"}
SNIFF_BYTES = 4096
PROGRAM_STREAMS = {"mpegts", "mpeg"}  # joined, cut and broadcast: their clocks are not to be trusted
JUMP_MIN_S = 1  # backwards; less is a muxer's carelessness
FIRST_PACKETS_MAX = 600  # tried until a first frame comes out
REMUX_BITS_MAX = 60_000_000  # a second; above, chunks are not worth a copy
PLAYLISTS = (b"#EXTM3U", b"ffconcat", b"[playlist]", b"<MPD", b"<?xml", b"#EXTINF")
HOLE_FRAMES_MIN, HOLE_MIN_MS = 10, 500  # without a picture, longer than which a hole is spoken of
STEADY_FRAMES_MIN, STEADY_SHARE_MIN = 20, 0.95  # of steps between frames that keep the pace
RIGHT_ANGLES = (0, 90, 180, 270)


class Undecodable(Exception):
    """The file, not the machine, is at fault."""

    def __init__(self, code: str, reason: str, final: bool = False) -> None:
        super().__init__(code, reason, final)
        self.code, self.reason, self.final = code, reason, final


def probe(
    path: str, pixels_max: int, duration_max_s: int, share_min: float
) -> tuple[Mapping[str, Any], Mapping[str, NDArray[Any]]]:
    """Values and arrays of a `media.Video`.

    Raises:
        Undecodable: it is empty, damaged, no video, or larger than allowed.
    """
    if Path(path).stat().st_size == 0:
        raise Undecodable("empty", "the file is empty (0 bytes)", final=True)
    with open_container(path) as container:
        stream = picture_stream(container)
        _within_limits(container, stream, pixels_max, duration_max_s)
        rotation = first_frame_rotation(container, stream)
        container.seek(0)
    with open_container(path) as container:
        stream = picture_stream(container)
        index = _index(container, stream)
        values = _describe(container, stream, index, rotation)
    values["warning"] = _whole_enough(index, values, share_min)
    if index.facts.pts_known and values["duration_ms"] > duration_max_s * 1000:
        raise _too_long(duration_max_s)
    arrays: dict[str, NDArray[Any]] = {"frame_ms": index.frame_ms, "frame_pts": index.pts, "key_frames": index.keys}
    return values, arrays


def open_container(path: str) -> InputContainer:
    """Open a file with the demuxers and the protocol that are allowed, or say why not."""
    try:
        return av.open(path, mode="r", options=OPEN_OPTIONS, metadata_errors="replace")
    except (av.error.FFmpegError, ValueError, OSError) as error:
        raise _unopenable(path, error) from error


def picture_stream(container: InputContainer) -> VideoStream:
    """The video stream; cover art is none."""
    for stream in container.streams.video:
        if not stream.disposition & av.stream.Disposition.attached_pic:
            return stream
    if container.streams.audio:
        raise Undecodable("no-video", "the file has sound but no picture", final=True)
    raise Undecodable("no-video", "the file has no video stream", final=True)


@dataclass(frozen=True)
class Clock:
    """From a stream's own time stamps to milliseconds on a player's clock."""

    base: Fraction
    start: int  # the time stamp at which a player's clock shows 0

    def ms(self, pts: int) -> int:
        return int((pts - self.start) * 1000 * self.base.numerator // self.base.denominator)

    def all_ms(self, pts: NDArray[np.int64]) -> NDArray[np.int32]:
        return ((pts - self.start) * 1000 * self.base.numerator // self.base.denominator).astype(np.int32)


def clock_of(container: InputContainer, stream: VideoStream) -> Clock:
    """The clock starts with the container; sound that is primed earlier does not count."""
    base = stream.time_base or Fraction(1, 1000)
    return Clock(base, round(Fraction(max(container.start_time or 0, 0), av.time_base) / base))


def first_frame_rotation(container: InputContainer, stream: VideoStream) -> int:
    """Degrees clockwise that the first frame asks to be turned by; proof that there is a first frame."""
    stream.thread_type = "SLICE"
    stream.thread_count = 1
    tried = 0
    try:
        for packet in container.demux(stream):
            tried += 1
            for frame in _decoded(packet):
                return round(-frame.rotation / 90) * 90 % 360
            if tried >= FIRST_PACKETS_MAX:
                break
    except av.error.FFmpegError:
        pass
    raise Undecodable("damaged", "no frame of the file can be decoded", final=True)


def _decoded(packet: Any) -> list[av.VideoFrame]:
    try:
        return [frame for frame in packet.decode() if isinstance(frame, av.VideoFrame)]
    except av.error.FFmpegError:
        return []


class _Index:
    """The packets of the stream, in the order of presentation."""

    def __init__(self, rows: list[tuple[int, bool]], clock: Clock, facts: _Facts) -> None:
        rows.sort(key=lambda row: row[0])
        pts = np.array([pts for pts, _ in rows], np.int64)
        self.repeats = bool(np.any(np.diff(pts) == 0))
        self.counted = facts.guessed or facts.jumps or (facts.program_stream and self.repeats)
        self.pts = _rising(pts) if self.counted else pts
        self.frame_ms = clock.all_ms(self.pts)
        self.keys = np.flatnonzero([key for _, key in rows]).astype(np.int32)
        self.facts = facts
        # Matroska's length counts from 0, others' from the start.
        self.reach_s = float(facts.reach if facts.matroska else facts.reach - clock.start * clock.base)


def _rising(pts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Times that repeat are pushed back until none does: a frame's length further each."""
    steps = np.diff(pts)
    grid = np.arange(len(pts)) * (int(np.median(steps[steps > 0])) if np.any(steps > 0) else 1)
    rising: NDArray[np.int64] = np.maximum.accumulate(pts - grid) + grid
    return rising


class _Facts:
    """What the packets tell beside their times, and the time stamp that each one gets."""

    def __init__(self, container: InputContainer, stream: VideoStream) -> None:
        names = container.format.name.split(",")
        self.program_stream = not PROGRAM_STREAMS.isdisjoint(names)
        self.matroska, self.avi = "matroska" in names, "avi" in names
        self.broken = False  # demuxing ended with an error
        self.discarded = False  # an edit list hides frames
        self.open_gop = False  # frames shown before a key frame, but stored behind it
        self.changes = False  # of codec parameters on the way
        self.jumps = False  # the clock starts again: files were joined
        self.guessed = False  # the container states the order of storage alone
        self.pts_known = True
        self.reach = Fraction(0)  # where the last packet of any stream ends, in seconds of the file's clock
        self._jump_min = JUMP_MIN_S / (stream.time_base or Fraction(1, 1000))
        self._last_key: int | None = None
        self._ended = self._shift = self._latest = 0

    def stamp(self, packet: Any) -> int:
        """When a packet's frame is shown, in the order of demuxing."""
        pts = self._unshifted(packet)
        if packet.dts is not None:
            if self.program_stream and packet.dts + self._shift < self._ended - self._jump_min:
                self.jumps, self._shift = True, self._ended - packet.dts
            self._ended = packet.dts + self._shift + (packet.duration or 0)
        pts += self._shift
        if packet.is_keyframe:
            self._last_key = pts
        elif self._last_key is not None and pts < self._last_key:
            self.open_gop = True
        self._latest = pts
        return pts

    def _unshifted(self, packet: Any) -> int:
        if self.avi and packet.dts is not None:
            self.guessed |= packet.pts != packet.dts
            return int(packet.dts)
        if packet.pts is not None:
            return int(packet.pts)
        self.pts_known = False
        return int(packet.dts) if packet.dts is not None else self._latest + 1 - self._shift


def _index(container: InputContainer, stream: VideoStream) -> _Index:
    rows: list[tuple[int, bool]] = []
    facts = _Facts(container, stream)
    try:
        for packet in container.demux():
            if packet.size and packet.dts is not None and packet.time_base:
                facts.reach = max(facts.reach, (packet.dts + (packet.duration or 0)) * packet.time_base)
            if not packet.size or packet.stream_index != stream.index:
                continue
            if packet.is_discard:
                facts.discarded = True
                continue
            facts.changes |= bool(rows) and packet.has_sidedata("new_extradata")
            rows.append((facts.stamp(packet), packet.is_keyframe))
    except (av.error.FFmpegError, OSError):
        facts.broken = True
    if not rows:
        raise Undecodable("damaged", "the file has a header but no picture data", final=True)
    return _Index(rows, clock_of(container, stream), facts)


def _describe(container: InputContainer, stream: VideoStream, index: _Index, rotation: int) -> dict[str, Any]:
    codec = stream.codec_context
    shape = stream.sample_aspect_ratio or codec.sample_aspect_ratio or Fraction(1)
    width, height = max(1, round(codec.width * (shape if shape > 0 else 1))), codec.height
    if rotation in (90, 270):
        width, height = height, width
    rate = float(stream.average_rate or stream.guessed_rate or 0) or 25.0
    last_ms = int(index.frame_ms[-1]) + max(1, round(1000 / rate))
    bits = Path(container.name).stat().st_size * 8000 / max(1, last_ms)
    facts = index.facts
    unsure = (
        facts.program_stream, facts.broken, facts.discarded, facts.open_gop, facts.changes, not facts.pts_known,
        index.counted, index.repeats, rotation != 0, shape != 1, len(index.pts) < stream.frames,
        _holes(index.frame_ms) != "", bits > REMUX_BITS_MAX,
    )  # fmt: skip
    return {
        "container": _container_name(container),
        "codec": codec.codec.canonical_name,
        "width": width,
        "height": height,
        "fps": rate,
        "duration_ms": last_ms,
        "has_audio": bool(container.streams.audio),
        "rotation": rotation,
        "decoder": "av" if any(unsure) else "decord",
        "counted": index.counted,
        # An AVI declares slots, and some of them are left empty.
        "declared": (0 if facts.avi else stream.frames, (container.duration or 0) / av.time_base),
    }


def _container_name(container: InputContainer) -> str:
    """One name where a demuxer has several: MOV and MP4, Matroska and WebM share theirs."""
    names = container.format.name.split(",")
    with open(container.name, "rb") as file:
        head = file.read(SNIFF_BYTES)
    if "webm" in names:
        return "webm" if b"webm" in head[:64] else "matroska"
    if "mp4" in names:
        return "mov" if head[8:12] == b"qt  " else "mp4"
    return names[0]


def _whole_enough(index: _Index, values: dict[str, Any], share_min: float) -> str:
    """A file that lost little is kept, with a warning; one that lost more is damaged.

    What a file declares is its number of frames (MP4, AVI) or its length; what is there is what the packets say.
    """
    frames, length_s = values.pop("declared")
    found = len(index.pts)
    if frames and not index.facts.discarded and found < frames:
        if found < share_min * frames:
            reason = f"the file is cut off or damaged: {found} of {frames} frames are there"
            raise Undecodable("damaged", reason, final=True)
        return f"{frames - found} of {frames} frames are missing"
    if index.reach_s < share_min * length_s - 1:
        reason = f"the file is cut off or damaged: {index.reach_s:.1f} of {length_s:.1f} s are there"
        raise Undecodable("damaged", reason, final=True)
    return "the file's last part is damaged" if index.facts.broken else _holes(index.frame_ms)


def _holes(frame_ms: NDArray[np.int32]) -> str:
    """Where frames come at a steady pace, and then none for a while: a demuxer skips damage without a word."""
    steps = np.diff(frame_ms)
    pace = float(np.median(steps)) if len(steps) else 0.0
    holes = steps[steps > max(HOLE_FRAMES_MIN * pace, HOLE_MIN_MS)]
    steady = len(steps) >= STEADY_FRAMES_MIN and float(np.mean(steps <= 2 * pace)) >= STEADY_SHARE_MIN
    return f"no picture for {holes.sum() / 1000:.1f} s in between" if steady and len(holes) else ""


def _within_limits(container: InputContainer, stream: VideoStream, pixels_max: int, duration_max_s: int) -> None:
    width, height = stream.codec_context.width, stream.codec_context.height
    if width <= 0 or height <= 0:
        raise Undecodable("damaged", "the picture has no size", final=True)
    if width * height > pixels_max:
        raise Undecodable("too-large", f"{width}x{height} are more than {pixels_max} pixels a frame", final=True)
    if (container.duration or 0) / av.time_base > duration_max_s * 2:
        raise _too_long(duration_max_s)


def _too_long(duration_max_s: int) -> Undecodable:
    return Undecodable("too-long", f"the file is longer than {duration_max_s} s", final=True)


def _unopenable(path: str, error: Exception) -> Undecodable:
    """The clearest reason that the first bytes allow."""
    with Path(path).open("rb") as file:
        head = file.read(SNIFF_BYTES)
    if any(head.lstrip().startswith(mark) for mark in PLAYLISTS):
        return Undecodable("not-allowed", "the file is a playlist or script that points elsewhere", final=True)
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"wide", b"skip"):
        reason = "the file's index (moov) is missing or broken: it was cut off or damaged"
        return Undecodable("damaged", reason, final=True)
    if head[:4] in (b"\x1aE\xdf\xa3", b"RIFF") or head[:1] == b"\x47":
        return Undecodable("damaged", "the file's header is damaged", final=True)
    if isinstance(error, MemoryError):
        raise error
    return Undecodable("not-a-video", "the file is in no video format that is accepted", final=True)
