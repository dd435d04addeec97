"""Probing a file: container, codec, size, orientation, the presentation time of every frame; and what it is refused for.

Only the first frame is decoded. `containers` opens files, `packets` reads their packets. Runs inside the sandbox.
"""

from __future__ import annotations

import itertools
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

from pipelines.decode import orientation, packets, tonemap
from pipelines.decode.containers import Undecodable, best_picture, container_name, open_container, picture
from pipelines.decode.orientation import Orientation
from pipelines.decode.packets import PacketIndex
from pipelines.decode.shown import FirstPictures

FIRST_PACKETS_MAX = 600  # tried until a first frame is decoded
REMUX_BITS_MAX = 60_000_000  # a second; above it, copying a chunk's packets costs more than decord saves
HOLE_FRAMES_MIN, HOLE_MIN_MS = 10, 500  # a longer time without a picture is reported as a hole
ENCRYPTION_KEY = "enc_key_id"  # metadata of an encrypted track in Matroska
INTERLACED_PACKETS_MAX = 40  # decoded to measure the distance of the pictures
STEADY_FRAMES_MIN, STEADY_SHARE_MIN = 20, 0.95  # steps between frames, and the share of them at the usual pace


def probe(
    path: str, pixels_max: int, duration_max_s: int, share_min: float
) -> tuple[Mapping[str, Any], Mapping[str, NDArray[Any]]]:
    """Probe a file.

    Args:
        path: Path of the file.
        pixels_max: Most pixels a frame may have.
        duration_max_s: Longest video that is accepted, in seconds.
        share_min: Least share of the declared frames or length that must be there.

    Returns:
        The fields of a `media.Video`, as values and arrays: `frame_ms` int32 (frames,), `frame_pts` int64 (frames,),
        `key_frames` int32 (key frames,).

    Raises:
        Undecodable: the file is empty, damaged, not a video, encrypted, or larger than allowed.
    """
    if Path(path).stat().st_size == 0:
        raise Undecodable("empty", "the file is empty (0 bytes)", final=True)
    with open_container(path) as container:
        stream = best_picture(container)
        _within_limits(container, stream, pixels_max, duration_max_s)
        track, first = stream.index, first_frame(container, stream)
    with open_container(path) as container:
        stream = picture(container, track)
        index = packets.index_of(container, stream, duration_max_s, first.shown)
        values = _describe(container, stream, index, first)
    values["warning"] = _whole_enough(index, values, share_min)
    _lasts(values["duration_ms"], duration_max_s)
    arrays: dict[str, NDArray[Any]] = {"frame_ms": index.frame_ms, "frame_pts": index.pts, "key_frames": index.keys}
    return values, arrays


@dataclass(frozen=True)
class FirstFrame:
    """What can only be learned by decoding a frame."""

    orientation: Orientation
    wide: bool  # HDR or BT.2020: must be tone mapped
    shown: FirstPictures


def first_frame(container: InputContainer, stream: VideoStream) -> FirstFrame:
    """Decode the first frame.

    Raises:
        Undecodable: the track is encrypted or empty, or no frame of its beginning can be decoded.
    """
    stream.thread_type = "SLICE"
    stream.thread_count = 1
    packets_read, is_encrypted = 0, ENCRYPTION_KEY in stream.metadata
    try:
        for packet in container.demux(stream):
            packets_read += bool(packet.size)
            is_encrypted |= packet.has_sidedata(packets.ENCRYPTED)
            for frame in [] if is_encrypted else _decoded(packet):
                shown = FirstPictures(frame.pts, _interlaced_pace(container, stream, frame))
                return FirstFrame(_orientation(frame), tonemap.is_wide(frame), shown)
            if is_encrypted or packets_read >= FIRST_PACKETS_MAX:
                break
    except av.error.FFmpegError:
        pass
    if is_encrypted:
        raise encrypted()
    if not packets_read:
        raise packets.no_data()
    raise Undecodable("damaged", "no frame of the file can be decoded", final=True)


def _interlaced_pace(container: InputContainer, stream: VideoStream, first: av.VideoFrame) -> int:
    """Return the least time between the first pictures if each field may be a packet of its own, else 0.

    The unit is the stream's time base. Only interlaced video in MPEG program and transport streams has such packets.
    """
    if not first.interlaced_frame or not packets.is_program_stream(container):
        return 0
    times = [] if first.pts is None else [first.pts]
    try:
        for packet in itertools.islice(container.demux(stream), INTERLACED_PACKETS_MAX):
            times += [frame.pts for frame in _decoded(packet) if frame.pts is not None]
    except av.error.FFmpegError:
        pass  # the packets read so far decide; `packets.index_of` reads all and reports the damage
    ordered = sorted(set(times))  # the least, because some pictures are shown for a field longer (telecine)
    return min((later - sooner for sooner, later in itertools.pairwise(ordered)), default=0)


def encrypted() -> Undecodable:
    """Return the error for an encrypted track."""
    return Undecodable("encrypted", "the picture is encrypted (DRM): only who has its key can decode it", final=True)


def _orientation(frame: av.VideoFrame) -> Orientation:
    """Return the orientation of a frame.

    If PyAV cannot read the side data, mirroring is ignored; it fails on kinds of side data that are newer than itself
    (EXIF, the views of spatial video).
    """
    try:
        matrix: Any = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:
        return Orientation(round(-frame.rotation / 90) % 4 * 90)
    return orientation.of_matrix(bytes(matrix)) if matrix else Orientation()


def _decoded(packet: Any) -> list[av.VideoFrame]:
    """Return the frames of a packet; none if it is damaged."""
    try:
        return [frame for frame in packet.decode() if isinstance(frame, av.VideoFrame)]
    except av.error.FFmpegError:
        return []


def _describe(container: InputContainer, stream: VideoStream, index: PacketIndex, first: FirstFrame) -> dict[str, Any]:
    """Return the values of a `media.Video`; decord is chosen only if nothing in the file is known to confuse it."""
    codec, facts, frame_orientation = stream.codec_context, index.facts, first.orientation
    shape = stream.sample_aspect_ratio or codec.sample_aspect_ratio or Fraction(1)
    width, height = max(1, round(codec.width * (shape if shape > 0 else 1))), codec.height
    if frame_orientation.rotation in (90, 270):
        width, height = height, width
    duration_ms = packets.duration_ms(container, stream, index)
    bits = Path(container.name).stat().st_size * 8000 / max(1, duration_ms)
    unsure = (
        facts.program_stream, facts.broken, facts.discarded, facts.open_gop, facts.changes, not facts.pts_known,
        index.counted, index.repeats, not frame_orientation.upright, shape != 1, len(index.pts) < stream.frames, facts.hidden,
        facts.headless, first.wide, len(container.streams.video) > 1, _holes(index.frame_ms) != "", bits > REMUX_BITS_MAX,
    )  # fmt: skip
    return {
        "container": container_name(container),
        "codec": codec.codec.canonical_name,
        "width": width,
        "height": height,
        "fps": packets.frame_rate(stream, index),
        "duration_ms": duration_ms,
        "has_audio": facts.has_sound,
        "rotation": frame_orientation.rotation,
        "mirrored": frame_orientation.mirrored,
        "track": stream.index,
        "decoder": "av" if any(unsure) else "decord",
        "counted": index.counted,
        # An AVI declares slots for frames, of which some may be empty.
        "declared": (0 if facts.avi else stream.frames, (container.duration or 0) / av.time_base),
    }


def _whole_enough(index: PacketIndex, values: dict[str, Any], share_min: float) -> str:
    """Return a warning for a file that has lost little (some frames, or a part of its length), or "".

    A file declares its number of frames (MP4, AVI) or its length; what it really holds is known from its packets.

    Raises:
        Undecodable: it lost more than `share_min` allows, or is encrypted.
    """
    frames, length_s = values.pop("declared")
    frames_found = len(index.pts) + index.facts.hidden + index.facts.headless
    if index.facts.encrypted > (1 - share_min) * len(index.pts):
        raise encrypted()
    if frames and not index.facts.discarded and frames_found < frames:
        if frames_found < share_min * frames:
            reason = f"the file is cut off or damaged: {frames_found} of {frames} frames are there"
            raise Undecodable("damaged", reason, final=True)
        return f"{frames - frames_found} of {frames} frames are missing"
    if index.reach_s < share_min * length_s - 1:
        reason = f"the file is cut off or damaged: {index.reach_s:.1f} of {length_s:.1f} s are there"
        raise Undecodable("damaged", reason, final=True)
    return "the file's last part is damaged" if index.facts.broken else _holes(index.frame_ms)


def _holes(frame_ms: NDArray[np.int32]) -> str:
    """Return a warning if frames come at a steady pace and then stop for a while: demuxers skip damage silently."""
    steps = np.diff(frame_ms)
    pace = float(np.median(steps)) if len(steps) else 0.0
    holes = steps[steps > max(HOLE_FRAMES_MIN * pace, HOLE_MIN_MS)]
    steady = len(steps) >= STEADY_FRAMES_MIN and float(np.mean(steps <= 2 * pace)) >= STEADY_SHARE_MIN
    return f"no picture for {holes.sum() / 1000:.1f} s in between" if steady and len(holes) else ""


def _within_limits(container: InputContainer, stream: VideoStream, pixels_max: int, duration_max_s: int) -> None:
    """Refuse a picture of unknown or excessive size, and a declared length far beyond the limit."""
    width, height = stream.codec_context.width, stream.codec_context.height
    if width <= 0 or height <= 0:
        reason = "nothing tells the size of the picture: its data are missing, encrypted or damaged"
        raise Undecodable("damaged", reason, final=True)
    if width * height > pixels_max:
        raise Undecodable("too-large", f"{width}x{height} are more than {pixels_max} pixels a frame", final=True)
    if (container.duration or 0) / av.time_base > duration_max_s * 2:
        raise packets.too_long(duration_max_s)


def _lasts(duration_ms: int, duration_max_s: int) -> None:
    """Refuse a video of no length, or longer than allowed."""
    if duration_ms < 1:
        raise Undecodable("damaged", "the file ends before it begins: by its clock, nothing of it is shown", final=True)
    if duration_ms > duration_max_s * 1000:
        raise packets.too_long(duration_max_s)
