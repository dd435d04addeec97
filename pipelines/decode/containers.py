"""Opens a file with the demuxers that are allowed, finds the track that players show, or says why there is none.

Only the demuxers listed here are tried and only local files are opened, so a playlist or a concat script that points
elsewhere is refused whatever it is named. Knows containers and tracks, not frames. Runs inside the sandbox.
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
TRANSPORT_PACKETS = ((0, 188), (4, 192), (0, 204))  # offset of the first sync byte, and how far it is to the next
ASIDE = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.dependent  # beside a film, never one
PREVIEW_PACKETS_MAX = 4000  # read to see which of several tracks has more than one picture
CODEC_NAME = re.compile(r"Video: ([^\s,]+)(?: \([^()]*\))*? \((\S+) / 0x")
CODEC_ID = re.compile(r"Video: ([^\s,]+)")


class Undecodable(Exception):
    """The file, not the machine, is at fault."""

    def __init__(self, code: str, reason: str, final: bool = False) -> None:
        super().__init__(code, reason, final)
        self.code, self.reason, self.final = code, reason, final


def open_container(path: str) -> InputContainer:
    """Open a file with the demuxers and the protocol that are allowed, or say why not."""
    try:
        return av.open(path, mode="r", options=OPEN_OPTIONS, metadata_errors="replace")
    except (av.error.FFmpegError, ValueError, OSError) as error:
        raise _unopenable(path, error) from error


def best_picture(container: InputContainer) -> VideoStream:
    """The track that players show: the default one, else the largest; never a preview beside a film.

    Raises:
        Undecodable: there is no such track, or its codec is unknown.
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
    """The track that `best_picture` has found, in a file that is opened again.

    Raises:
        Undecodable: it is no longer there.
    """
    if track < len(container.streams) and isinstance(stream := container.streams[track], VideoStream):
        return stream
    raise Undecodable("damaged", "the track that was found is no longer there", final=True)


def _rank(stream: VideoStream) -> tuple[bool, int, int]:
    area = stream.codec_context.width * stream.codec_context.height
    return bool(stream.disposition & Disposition.default), area, -stream.index


def _moving(path: str, streams: list[VideoStream]) -> list[VideoStream]:
    """Those with more than one picture; all of them, where none has."""
    counts = Counter({stream.index: stream.frames for stream in streams})
    if not all(counts.values()):
        counts = _counted(path, set(counts))
    return [stream for stream in streams if counts[stream.index] > 1] or streams


def _counted(path: str, wanted: set[int]) -> Counter[int]:
    """How many packets each stream has among the first ones, read until all have two."""
    counts: Counter[int] = Counter()
    with open_container(path) as container:
        try:
            for read, packet in enumerate(container.demux()):
                counts[packet.stream_index] += bool(packet.size)
                if read >= PREVIEW_PACKETS_MAX or all(counts[index] > 1 for index in wanted):
                    break
        except (av.error.FFmpegError, OSError):
            pass  # what was read until then decides; the damage is found, and told, when all packets are read
    return counts


def _codec_name(container: InputContainer) -> str:
    """What the container calls the codec of its first picture track: a four-letter code, or FFmpeg's name for it."""
    av.logging.set_level(av.logging.INFO)  # at which FFmpeg describes a file
    try:
        dump = str(container.dumps_format())  # type: ignore[attr-defined]  # PyAV's stubs lack it
    finally:
        av.logging.set_level(None)
    found = CODEC_NAME.search(dump)
    if found:
        return found[2] if found[1] in ("none", "unknown") else found[1]
    found = CODEC_ID.search(dump)
    return found[1] if found else "unknown"


def container_name(container: InputContainer) -> str:
    """One name where a demuxer has several: MOV and MP4, Matroska and WebM share theirs."""
    names = container.format.name.split(",")
    with open(container.name, "rb") as file:
        head = file.read(SNIFF_BYTES)
    if "webm" in names:
        return "webm" if b"webm" in head[:64] else "matroska"
    if "mp4" in names:
        return "mov" if head[8:12] == b"qt  " else "mp4"
    return str(names[0])


def _unopenable(path: str, error: Exception) -> Undecodable:
    """The clearest reason that the first bytes allow."""
    with Path(path).open("rb") as file:
        head = file.read(SNIFF_BYTES)
    if any(head.lstrip().startswith(mark) for mark in PLAYLISTS):
        return Undecodable("not-allowed", "the file is a playlist or script that points elsewhere", final=True)
    if head[4:8] in BOXES:
        reason = "the file's index (moov) is missing or broken: it was cut off or damaged"
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
    """Whether sync bytes stand where those of an MPEG transport stream do; one alone is also the G of GIF."""
    return any(
        len(head) > first + step
        and all(head[at] == 0x47 for at in range(first, min(len(head), first + 3 * step), step))
        for first, step in TRANSPORT_PACKETS
    )
