"""Cutting a probed video into chunks at key frames, and the decode request of each. Pure arithmetic on the index.

Each frame is owned by one chunk. A chunk decodes a few frames more than it owns at both ends, so that every owned frame
has the neighbours that `shots.measure` looks at. Decoding starts at a key frame, never before it, so the first frames
behind that key frame are owned by the chunk before.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from pipelines.media import Chunk, Video
from pipelines.moments import shots

SHIFT = shots.BEFORE + shots.SETTLE  # frames at a chunk's start that the chunk before owns
TAIL_FRAMES_MIN = 4 * SHIFT
COUNTED_MS_MIN = 1_200_000
KEY_FRAMES_MAX = 1200  # of one chunk in the mode "key-frames"


def plan(video: Video, chunk_ms: int, mode: str = "frames") -> list[Chunk]:
    """Divide a video into chunks that together own every frame once.

    Chunks begin at key frames that are at least `chunk_ms` milliseconds apart. If `video.counted`, they begin at any
    frame and are longer. In the mode "key-frames" they are runs of key frames alone.
    """
    if mode == "key-frames":
        return _runs(len(video.key_frames))
    total = len(video.frame_ms)
    starts = _counted_starts(video, chunk_ms, total) if video.counted else _starts(video, chunk_ms, total)
    chunks = []
    for number, first in enumerate(starts):
        final = number + 1 == len(starts)
        own_first = first + SHIFT if number else 0
        own_stop = total if final else starts[number + 1] + SHIFT
        stop = total if final else min(total, own_stop + shots.AFTER)
        chunks.append(Chunk(number, len(starts), first, stop, own_first, own_stop))
    return chunks


def _runs(total: int) -> list[Chunk]:
    """Divide `total` key frames into chunks; without a search for cuts no frame needs neighbours."""
    edges = [*range(0, total, KEY_FRAMES_MAX), total]
    count = len(edges) - 1
    return [Chunk(number, count, *edge, *edge) for number, edge in enumerate(itertools.pairwise(edges))]


def _counted_starts(video: Video, chunk_ms: int, total: int) -> list[int]:
    """Return the first frames of chunks of a video whose frames are identified by their order alone (`Video.counted`).

    Such a chunk is decoded from the start of the file, so chunks are few and long.
    """
    length_ms = max(chunk_ms, COUNTED_MS_MIN)
    times_ms = np.arange(video.frame_ms[0], video.frame_ms[-1], length_ms)
    starts = np.unique(np.searchsorted(video.frame_ms, times_ms)).tolist()
    chosen = [0]
    for start in starts:
        if start - chosen[-1] >= TAIL_FRAMES_MIN and total - start >= TAIL_FRAMES_MIN:
            chosen.append(start)
    return chosen


def _starts(video: Video, chunk_ms: int, total: int) -> list[int]:
    """Return the key frames that chunks begin at: far enough from each other, and from the end of the video."""
    starts = [0]
    for key in video.key_frames.tolist():
        long_enough = video.frame_ms[key] - video.frame_ms[starts[-1]] >= chunk_ms
        if long_enough and key - starts[-1] >= TAIL_FRAMES_MIN and total - key >= TAIL_FRAMES_MIN:
            starts.append(key)
    return starts


def order(video: Video, chunk: Chunk, mode: str = "frames") -> dict[str, Any]:
    """Return the fields of a `decoders.DecodeRequest` that follow from the chunk and the mode."""
    key_frames_only = mode == "key-frames"
    frame_ms, frame_pts = video.frame_ms, video.frame_pts
    if key_frames_only:
        frame_ms, frame_pts = frame_ms[video.key_frames], frame_pts[video.key_frames]
    return {
        "whole": chunk.count == 1,
        "frame_ms": frame_ms[chunk.first : chunk.stop].tolist(),
        "frame_pts": frame_pts[chunk.first : chunk.stop].tolist(),
        "own_first": chunk.own_first - chunk.first,
        "own_stop": chunk.own_stop - chunk.first,
        "previous_ms": int(frame_ms[chunk.own_first - 1]) if chunk.own_first else -1,
        "decoder": video.decoder if mode == "interval" else "av",
        "rotation": video.rotation,
        "mirrored": video.mirrored,
        "track": video.track,
        "key_frames_only": key_frames_only,
        "cuts": mode == "frames",
        "counted": video.counted and not key_frames_only,
        "before": chunk.first if video.counted else 0,
    }


def decode_size(video: Video, side: int) -> tuple[int, int]:
    """Return the width and height to decode frames at, before rotation; both are even.

    The shorter side is scaled down to `side` pixels; a smaller video keeps its size.
    """
    width, height = (video.height, video.width) if video.rotation in (90, 270) else (video.width, video.height)
    scale = min(1.0, side / min(width, height))
    return max(2, round(width * scale / 2) * 2), max(2, round(height * scale / 2) * 2)


def thumbnails(sizes: np.ndarray[Any, Any], data: np.ndarray[Any, Any]) -> list[bytes]:
    """Split the joined thumbnails of a decode task.

    Args:
        sizes: int32 (candidates,), bytes of each thumbnail.
        data: uint8 (bytes,), the thumbnails one after another.

    Returns:
        The thumbnails, WebP each.
    """
    ends = np.cumsum(sizes)
    return [data[end - size : end].tobytes() for size, end in zip(sizes.tolist(), ends.tolist(), strict=True)]
