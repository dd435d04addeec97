"""Opening a file with the demuxers that are allowed, and finding the video track that players show.

Only the demuxers listed here are tried and only local files are opened, so a playlist or concat script that refers to
other files is refused whatever its name. Knows containers and tracks, not frames. Runs inside the sandbox.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import av
import av.logging
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

DEMUXERS = ("mov", "mp4", "m4a", "3gp", "3g2", "mj2", "matroska", "webm", "mpegts", "avi", "mpeg")
OPEN_OPTIONS = {"protocol_whitelist": "file,pipe", "format_whitelist": ",".join(DEMUXERS), "fflags": "+genpts"}
SNIFF_BYTES = 4096
PLAYLISTS = (b"#EXTM3U", b"ffconcat", b"[playlist]", b"<MPD", b"<?xml", b"#EXTINF")
BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"wide", b"skip")
FRAGMENT_BOXES = (b"styp", b"sidx", b"moof", b"emsg", b"prft")  # of a piece of a stream (DASH, HLS)
TRANSPORT_PACKETS = ((0, 188), (4, 192), (0, 204))  # offset of the first sync byte, and the distance between two
ASIDE = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.dependent  # covers and previews
PREVIEW_PACKETS_MAX = 4000  # packets read to see which of several tracks has more than one picture
CODEC_NAME = re.compile(r"Video: ([^\s,]+)(?: \([^()]*\))*? \((\S+) / 0x")
CODEC_ID = re.compile(r"Video: ([^\s,]+)")


class Undecodable(Exception):
    """Error for a file that cannot be decoded, with the fields of `media.Failure`."""

    def __init__(self, code: str, reason: str, final: bool = False) -> None:
        super().__init__(code, reason, final)
        self.code, self.reason, self.final = code, reason, final


def open_container(path: str) -> InputContainer:
    """Open a file with the allowed demuxers and protocols.

    Raises:
        Undecodable: the file cannot be opened; its reason says why.
    """
    try:
        return av.open(path, mode="r", options=OPEN_OPTIONS, metadata_errors="replace")
    except (av.error.FFmpegError, ValueError, OSError) as error:
        raise _unopenable(path, error) from error


def best_picture(container: InputContainer) -> VideoStream:
    """Return the video track that players show: the default one, else the largest; never a cover or a preview.

    Raises:
        Undecodable: the file has no such track, or its codec is unknown.
    """
    shown = [stream for stream in container.streams.video if not stream.disposition & ASIDE]
    if not shown:
        has_sound = bool(container.streams.audio)
        reason = "the file has sound but no picture" if has_sound else "the file has no video stream"
        raise Undecodable("no-video", reason, final=True)
    known = [stream for stream in shown if stream.codec_context is not None]
    if not known:
        reason = f"the codec of the picture ({_codec_name(container)}) is not known"
        raise Undecodable("unknown-codec", reason, final=True)
    return known[0] if len(known) == 1 else max(_moving(container.name, known), key=_rank)


def picture(container: InputContainer, track: int) -> VideoStream:
    """Return the track that `best_picture` found, after the file was opened again.

    Raises:
        Undecodable: the track is gone.
    """
    if track < len(container.streams) and isinstance(stream := container.streams[track], VideoStream):
        return stream
    raise Undecodable("damaged", "the track that was found is no longer there", final=True)


def _rank(stream: VideoStream) -> tuple[bool, int, int]:
    """Return the sort key of tracks: default first, then the larger, then the earlier."""
    area = stream.codec_context.width * stream.codec_context.height
    return bool(stream.disposition & Disposition.default), area, -stream.index


def _moving(path: str, streams: list[VideoStream]) -> list[VideoStream]:
    """Return the tracks with more than one picture, or all of them if none has."""
    counts = Counter({stream.index: stream.frames for stream in streams})
    if not all(counts.values()):
        counts = _counted(path, set(counts))
    return [stream for stream in streams if counts[stream.index] > 1] or streams


def _counted(path: str, stream_indices: set[int]) -> Counter[int]:
    """Count packets by stream until each of these streams has two, within the first `PREVIEW_PACKETS_MAX` packets."""
    counts: Counter[int] = Counter()
    with open_container(path) as container:
        try:
            for number, packet in enumerate(container.demux()):
                counts[packet.stream_index] += bool(packet.size)
                if number >= PREVIEW_PACKETS_MAX or all(counts[index] > 1 for index in stream_indices):
                    break
        except (av.error.FFmpegError, OSError):
            pass  # the packets read so far decide; `packets.index_of` reads all and reports the damage
    return counts


def _codec_name(container: InputContainer) -> str:
    """Return what the container calls the codec of its first video track: a four-letter code, or FFmpeg's name."""
    av.logging.set_level(av.logging.INFO)  # the level at which FFmpeg describes a file
    try:
        dump = str(container.dumps_format())  # type: ignore[attr-defined]  # PyAV's stubs lack it
    finally:
        av.logging.set_level(None)
    match = CODEC_NAME.search(dump)
    if match:
        return match[2] if match[1] in ("none", "unknown") else match[1]
    match = CODEC_ID.search(dump)
    return match[1] if match else "unknown"


def container_name(container: InputContainer) -> str:
    """Return the name of the container, also if its demuxer reads several kinds (MOV and MP4, Matroska and WebM)."""
    names = container.format.name.split(",")
    with open(container.name, "rb") as file:
        head = file.read(SNIFF_BYTES)
    if "webm" in names:
        return "webm" if b"webm" in head[:64] else "matroska"
    if "mp4" in names:
        return "mov" if head[8:12] == b"qt  " else "mp4"
    return str(names[0])


def _unopenable(path: str, error: Exception) -> Undecodable:
    """Return an error whose reason is read from the first bytes of the file.

    Raises:
        MemoryError: `error` is one, and the first bytes give no reason.
    """
    with Path(path).open("rb") as file:
        head = file.read(SNIFF_BYTES)
    if any(head.lstrip().startswith(mark) for mark in PLAYLISTS):
        return Undecodable("not-allowed", "the file is a playlist or script that points elsewhere", final=True)
    if head[4:8] in BOXES:
        reason = "the file's index (moov) is missing or broken: it was cut off or damaged"
        return Undecodable("damaged", reason, final=True)
    if head[4:8] in FRAGMENT_BOXES:
        reason = "the file is a piece of a stream without its header (moov): join it with the initial segment"
        return Undecodable("damaged", reason, final=True)
    if head[:4] == b"\x1aE\xdf\xa3" or (head[:4] == b"RIFF" and head[8:12] == b"AVI "):
        return Undecodable("damaged", "the file's header is damaged", final=True)
    if _is_transport(head):
        reason = "neither picture nor sound can be found in the transport stream: it holds none, or is damaged"
        return Undecodable("damaged", reason, final=True)
    if isinstance(error, MemoryError):
        raise error
    return Undecodable("not-a-video", "the file is in no video format that is accepted", final=True)


def _is_transport(head: bytes) -> bool:
    """Whether sync bytes stand at the distances of an MPEG transport stream; a single one could be the G of GIF."""
    return any(
        len(head) > first + step
        and all(head[at] == 0x47 for at in range(first, min(len(head), first + 3 * step), step))
        for first, step in TRANSPORT_PACKETS
    )
