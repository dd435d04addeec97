"""Videos whose frames carry their own number, as eight bars of light: what a decoder returns can be read off exactly.

25 frames a second, 40 ms each, so that every container can state the times without rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines import stages
from pipelines.decode import chunks
from pipelines.jobs.leases import Lease
from pipelines.media import Failure, Video
from pipelines.settings import IngestSettings
from pipelines.stages import Decoded, Task
from tests.pipelines.conftest import ffmpeg

FRAME_MS = 40
FRAMES = 150
BITS = 8
BAR = 16  # pixels
SIZE = (BITS * BAR, 96)
SETTINGS = IngestSettings(decode_memory_max_mb=2048)

Seen = list[tuple[int, int]]  # time, and the number in the picture
X264 = ("-c:v", "libx264", "-preset", "veryfast", "-crf", "18", "-g", "25", "-bf", "2")


def source(size: tuple[int, int] = SIZE, frames: int = FRAMES, first: int = 0) -> list[str]:
    """Arguments for FFmpeg: frames that show the numbers from `first` on; the lowest bit stands left."""
    width, height = size
    bars = f"if(mod(floor((N+{first})/pow(2,floor(X*{BITS}/{width}))),2),220,40)"
    picture = (
        f"color=size={width}x{height}:rate=25:duration={frames / 25},geq=lum='{bars}':cb=128:cr=128,format=yuv420p"
    )
    return ["-f", "lavfi", "-i", picture]


def film(out: Path, *encoding: str, size: tuple[int, int] = SIZE, frames: int = FRAMES, first: int = 0) -> Path:
    return ffmpeg(out, *source(size, frames, first), *(encoding or X264))


def number(picture: NDArray[np.uint8]) -> int:
    """The number that a picture shows; -1 where a bar is neither light nor dark."""
    luma = picture.astype(float).mean(axis=2)
    height, width = luma.shape
    middle = luma[height // 3 : height - height // 3]
    bars = [
        float(middle[:, int((bit + 0.3) * width / BITS) : int((bit + 0.7) * width / BITS)].mean())
        for bit in range(BITS)
    ]
    if any(90 < bar < 165 for bar in bars):
        return -1
    return sum(1 << bit for bit, bar in enumerate(bars) if bar > 128)


def probed(path: Path) -> Video:
    video = stages.probe(path, SETTINGS)
    assert isinstance(video, Video), video
    return video


def tasks(video: Video, chunk_ms: int, *, mode: str = "frames", interval_ms: int = 1) -> list[Task]:
    """What `Plan` would ask of `Decode`: with an interval of 1 ms every frame is a candidate."""
    width, height = chunks.decode_size(video, 96)
    sizes = {"width": width, "height": height, "model_side": 64, "fit": "squash", "thumbnail_side": 32}
    sizes |= {"interval_ms": interval_ms}
    lease = Lease(1, 1, "", "", 0, 1)
    plan = chunks.plan(video, chunk_ms, mode)
    return [Task(lease, each, chunks.order(video, each, mode) | sizes, 0.0) for each in plan]


def decoded(path: Path, chunk_ms: int = 60_000, **options: Any) -> list[Decoded | Failure]:
    return [stages.decode(path, task, SETTINGS) for task in tasks(probed(path), chunk_ms, **options)]


def seen(parts: Sequence[Decoded | Failure], turn: int = 0) -> Seen:
    """All candidates' times and numbers; `turn` undoes a rotation by so many quarters."""
    rows: Seen = []
    for part in parts:
        assert isinstance(part, Decoded), part
        pictures = [np.rot90(picture, turn) for picture in part.candidates]
        rows += zip(part.candidate_ms.tolist(), map(number, pictures), strict=True)
    return rows
