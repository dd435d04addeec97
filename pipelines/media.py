"""The nouns of ingest, as frozen values: a probed Video, its Chunks, the Shots found in it, the Segments kept.

Times are whole milliseconds from the start of the file's presentation (where a player's clock shows 0). A stage returns
the next noun; it never fills in the last one. Knows no file, decoder, database or cluster.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

THUMBNAILS = "thumbnails"
PIPELINE_VERSION = 3  # raise it when the same video would give other segments

# Codes of what is no fault of a video: a dependency is away (or the sandbox cannot be started), or this machine cannot
# confine a decoder.
TEMPORARY, UNCONFINED = "temporary", "unconfined"
NO_FAULT = (TEMPORARY, UNCONFINED)

Bytes8 = NDArray[np.uint8]
Times = NDArray[np.int32]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Failure:
    """Why something could not be done, in one line. `final` means that trying again cannot help."""

    code: str
    reason: str
    final: bool = False


@dataclass(frozen=True)
class Video:
    """What a file is, from its index alone. `frame_ms` is the presentation time of each frame, ascending."""

    container: str
    codec: str
    width: int  # as shown: rotated, with square pixels
    height: int
    fps: float
    duration_ms: int
    has_audio: bool
    rotation: int  # degrees clockwise to turn a decoded frame
    decoder: str  # "decord" or "av": who decodes this file right
    frame_ms: Times
    frame_pts: NDArray[np.int64]  # in the stream's own time base
    key_frames: NDArray[np.int32]  # indices into frame_ms
    warning: str = ""
    counted: bool = (
        False  # the file's clock is broken: times belong to frames by their order, not by what packets state
    )
    mirrored: bool = False  # left to right, after it was turned
    track: int = 0  # which of the file's streams is the picture

    def __post_init__(self) -> None:
        if not len(self.frame_ms) or len(self.frame_ms) != len(self.frame_pts):
            raise ValueError("a video has at least one frame, and a time for each")


@dataclass(frozen=True)
class Chunk:
    """A run of frames decoded at once: [first, stop) is decoded, [own_first, own_stop) is answered for.

    The decoded run is wider than the owned one, so that every decision about an owned frame sees its neighbours; the
    answer is then the same wherever the cuts between chunks fall.
    """

    number: int
    count: int
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
    """A moment as it will be stored; `best_frame_ms` is its sharpest frame, `vector` has length one."""

    start_ms: int
    end_ms: int
    best_frame_ms: int
    thumbnail: bytes
    vector: Floats
