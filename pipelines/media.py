"""The nouns of ingest as frozen values: a probed Video, its Chunks, the Shots found in it, the Segments stored.

Times are whole milliseconds from the start of the file's presentation (where a player's clock shows 0). A stage returns
the next noun; it never fills in the last one. Knows no file, decoder, database or cluster.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

THUMBNAILS = "thumbnails"  # prefix of their keys in the bucket
PIPELINE_VERSION = 3  # raise it when the same video would give other segments

# Codes of failures that are not the video's fault: a dependency is away (or the sandbox cannot be started), or this
# machine cannot confine a decoder.
TEMPORARY, UNCONFINED = "temporary", "unconfined"
NO_FAULT = (TEMPORARY, UNCONFINED)

Bytes8 = NDArray[np.uint8]
Times = NDArray[np.int32]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Failure:
    """Why something could not be done."""

    code: str
    reason: str  # one line
    final: bool = False  # trying again cannot help


@dataclass(frozen=True)
class Video:
    """A probed file, as its index of packets and its first frame describe it."""

    container: str
    codec: str
    width: int  # as shown: rotated, with square pixels
    height: int
    fps: float
    duration_ms: int
    has_audio: bool
    rotation: int  # degrees clockwise to turn a decoded frame
    decoder: str  # "decord", or "av" where decord would not decode the file correctly
    frame_ms: Times  # (frames,), presentation times, ascending
    frame_pts: NDArray[np.int64]  # (frames,), the same in the stream's time base
    key_frames: NDArray[np.int32]  # (key frames,), indices into frame_ms
    warning: str = ""  # what of the file is missing or damaged
    counted: bool = False  # the file's clock is broken, so frames have times by their order, not by their packets
    mirrored: bool = False  # left to right, after rotation
    track: int = 0  # index of the video stream in the file

    def __post_init__(self) -> None:
        if not len(self.frame_ms) or len(self.frame_ms) != len(self.frame_pts):
            raise ValueError("a video has at least one frame, and a time for each")


@dataclass(frozen=True)
class Chunk:
    """A run of frames decoded at once: [first, stop) is decoded, [own_first, own_stop) is owned.

    The decoded run is wider than the owned one, so that every decision about an owned frame sees its neighbours; the
    result is then the same wherever the cuts between chunks fall. All four are indices into `Video.frame_ms`; in the
    mode "key-frames", into its key frames.
    """

    number: int  # from 0
    count: int  # chunks of the video
    first: int
    stop: int
    own_first: int
    own_stop: int

    def __post_init__(self) -> None:
        if not 0 <= self.first <= self.own_first < self.own_stop <= self.stop or not 0 <= self.number < self.count:
            raise ValueError(f"a chunk must own some of the frames it decodes: {self}")


@dataclass(frozen=True)
class Shot:
    """A run of frames between two cuts."""

    start_ms: int
    end_ms: int

    def __post_init__(self) -> None:
        if not 0 <= self.start_ms < self.end_ms:
            raise ValueError(f"a shot must last: {self.start_ms}..{self.end_ms} ms")


@dataclass(frozen=True)
class Segment:
    """A moment as it will be stored."""

    start_ms: int
    end_ms: int
    best_frame_ms: int  # of its sharpest candidate
    thumbnail: bytes  # WebP
    vector: Floats  # (dimensions,), unit length


def time_code(ms: int) -> str:
    """Return a time as `1:02:03.4`, or `2:03.4` below an hour."""
    seconds, remainder = divmod(ms, 1000)
    hours, minutes = seconds // 3600, seconds // 60 % 60
    head = f"{hours}:{minutes:02d}" if hours else f"{minutes}"
    return f"{head}:{seconds % 60:02d}.{remainder // 100}"
