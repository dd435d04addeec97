"""One pass over a file: decoding, measuring and sampling, beside FFmpeg that only decodes; and the memory that this takes.

Chunks are decoded by as many processes as there are cores, each in its sandbox, as in the job.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from benchmarks import ingest_files
from benchmarks.run import Figure
from cluster.settings import Settings
from pipelines import stages
from pipelines.decode import chunks
from pipelines.jobs.leases import Lease
from pipelines.media import Video
from pipelines.samples import film
from pipelines.settings import IngestSettings
from pipelines.stages import Decoded, Task

MODEL_SIDE = 64
LARGE_S = 600
REPEATS = 3  # of FFmpeg, every frame and key frames, in turns; medians
HOUR_S, MINUTE_S = 3600, 60
CORES_PROJECTED = 16


@dataclass(frozen=True)
class Pass:
    frames: int
    wall_s: float
    cpu_s: float
    memory_mb: float  # the largest decoding child


def run(settings: Settings) -> Iterator[Figure]:
    """Measure the time to decode 4K video, and the memory to decode an hour of video.

    The baselines are FFmpeg and decoding of key frames only for the time, and one minute of video for the memory.
    """
    large = ingest_files.lengthened(settings, ingest_files.base(settings, 3840, 2160), LARGE_S)
    cores = os.cpu_count() or 1
    rounds = []
    for _ in range(REPEATS):
        ffmpeg, whole = _ffmpeg(large), decode(large, IngestSettings(), cores)
        rounds.append((ffmpeg, whole, decode(large, IngestSettings(mode="key-frames"), cores)))
    name = f"4K H.264, {whole.frames} frames"
    by_ffmpeg = "ffmpeg -f null"
    yield _beside(f"{name}: decode, shots, samples, CPU", by_ffmpeg, [(b.cpu_s, a.cpu_s) for a, b, _ in rounds])
    wall = [(b.wall_s, a.wall_s) for a, b, _ in rounds]
    yield _beside(f"{name}: decode, shots, samples, wall on {cores} cores", by_ffmpeg, wall)
    yield _beside("4K H.264, every frame: CPU", "key frames alone", [(b.cpu_s, c.cpu_s) for _, b, c in rounds])
    yield _beside("4K H.264, every frame: wall", "key frames alone", [(b.wall_s, c.wall_s) for _, b, c in rounds])
    projected_s = statistics.median(whole.cpu_s for _, whole, _ in rounds) / CORES_PROJECTED
    name = f"10 minutes of this 4K on {CORES_PROJECTED} cores, projected from core-seconds"
    yield Figure(name, f"{projected_s:.0f} s", "180 s wanted", projected_s / 180)
    small = ingest_files.base(settings, 640, 360)
    minute, hour = (_memory_mb(ingest_files.lengthened(settings, small, length)) for length in (MINUTE_S, HOUR_S))
    yield Figure(
        "peak memory of a 60-minute video, child and parent",
        f"{hour:.0f} MB",
        f"{minute:.0f} MB 1 minute",
        hour / minute,
    )


def _beside(name: str, other: str, pairs: Sequence[tuple[float, float]]) -> Figure:
    """Make a figure of our median seconds, beside another program's, and of the median, least and largest ratio."""
    ours, theirs = (statistics.median(seconds) for seconds in zip(*pairs, strict=True))
    ratios = sorted(one / two for one, two in pairs)
    spread = f"{ratios[0]:.2f} to {ratios[-1]:.2f} of {len(ratios)}"
    return Figure(name, f"{ours:.1f} s ({spread})", f"{theirs:.1f} s {other}", statistics.median(ratios))


def decode(path: Path, ingest: IngestSettings, processes: int) -> Pass:
    """Probe a file and decode all its chunks."""
    began = time.monotonic()
    video = stages.probe(path, ingest)
    assert isinstance(video, Video), video
    tasks = _tasks(video, ingest)
    pool = ProcessPoolExecutor(min(processes, len(tasks)), get_context("spawn"))
    with pool:
        parts = list(pool.map(_decode, [path] * len(tasks), tasks, [ingest] * len(tasks)))
    cpu_s, memory = sum(part[1] for part in parts), max(part[2] for part in parts)
    return Pass(sum(part[0] for part in parts), time.monotonic() - began, cpu_s, memory)


def _tasks(video: Video, ingest: IngestSettings) -> list[Task]:
    width, height = chunks.decode_size(video, max(MODEL_SIDE, ingest.thumbnail_side_px))
    sizes: dict[str, Any] = {"width": width, "height": height, "model_side": MODEL_SIDE, "fit": "squash"}
    sizes |= {"thumbnail_side": ingest.thumbnail_side_px, "interval_ms": ingest.sample_interval_ms}
    plan = chunks.plan(video, stages.chunk_ms(video, ingest), ingest.mode)
    lease = Lease(1, 1, "", "", 0, 1)
    return [Task(lease, each, chunks.order(video, each, ingest.mode) | sizes, 0.0) for each in plan]


def _decode(path: Path, task: Task, ingest: IngestSettings) -> tuple[int, float, float]:
    part = stages.decode(path, task, ingest)
    assert isinstance(part, Decoded), part
    return len(part.frame_ms), part.decode_s, part.memory_mb


def _ffmpeg(path: Path) -> Pass:
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    threads = str(os.cpu_count() or 1)
    command = (film.ffmpeg(), "-v", "error", "-threads", threads, "-i", str(path), "-an", "-f", "null", "-")
    subprocess.run(command, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Pass(0, time.monotonic() - began, cpu_s, 0.0)


def _memory_mb(path: Path) -> float:
    """Decode a file in a new process; return the peak MB of that process and its largest decoding child together."""
    argv = (sys.executable, "-m", "benchmarks.ingest_decode", str(path))
    return float(subprocess.run(argv, check=True, capture_output=True, text=True).stdout)


def main(arguments: Sequence[str]) -> float:
    ingest, path = IngestSettings(), Path(arguments[0])
    video = stages.probe(path, ingest)
    assert isinstance(video, Video), video
    child_mb = 0.0
    for task in _tasks(video, ingest):
        child_mb = max(child_mb, _decode(path, task, ingest)[2])
    return child_mb + resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    print(main(sys.argv[1:]))
