"""The whole ingest job beside a bare loop: the same decoding, detection and model, without Ray, database or S3.

Rates leave out the start: the bare loop's time begins when its model is loaded; the job's begins with its first decoder
at work (whether its model is loaded by then or not) and ends when its last frames are stored. The CPU time of a job is
what its cluster uses beyond what it uses when idle.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from psycopg import Connection

from benchmarks import ground, ingest_files, ingest_meter
from benchmarks.ingest_meter import Meter
from benchmarks.run import Figure
from cluster import runtime
from cluster import settings as settings_module
from cluster.database import database
from cluster.settings import Settings
from cluster.storage import Storage
from pipelines import stages
from pipelines.decode import chunks
from pipelines.jobs import jobs, report
from pipelines.media import Video
from pipelines.models import encoder
from pipelines.sandbox import child as sandbox_child
from pipelines.settings import IngestSettings, ModelSettings
from pipelines.sources import lists, source
from pipelines.sources.local_files import Extent

LONG = 60  # videos of SECONDS
OTHER = 12  # of them for the approach of others
REPEATS = 3  # of job and bare loop, in turns; medians
SECONDS = (20, 20, 20, 60)
JOB_TIMEOUT_S = 2400
IDLE_S = 20
POLL_S = 1.0
PROCESSES = 2  # of the bare loop: one a core


@dataclass(frozen=True)
class Cost:
    """How many frames were processed, and the time that this took."""

    frames: int
    wall_s: float
    cpu_s: float
    useful_s: float  # of it, in decoding and embedding

    def __sub__(self, other: Cost) -> Cost:
        return Cost(
            self.frames - other.frames,
            self.wall_s - other.wall_s,
            self.cpu_s - other.cpu_s,
            self.useful_s - other.useful_s,
        )

    @property
    def rate(self) -> float:
        """Frames per second of wall time."""
        return self.frames / self.wall_s

    @property
    def yielded(self) -> float:
        """Frames per second of CPU time."""
        return self.frames / self.cpu_s


@dataclass(frozen=True)
class Job:
    """What one job cost: `whole` from start to end, `steady` from its first decoder at work to its last new frame."""

    whole: Cost
    steady: Cost


def run(settings: Settings) -> Iterator[Figure]:
    """Measure with the bundled model."""
    name = settings.section(ModelSettings).name
    yield from beside(settings, name, name)


def beside(settings: Settings, model: str, said: str) -> Iterator[Figure]:
    """Measure a job and the bare loop in turns, then clip-video-encode's approach on some of the videos.

    `said` names the model in the figures.
    """
    base = ingest_files.base(settings, 1920, 1080)
    long = [
        ingest_files.lengthened(settings, base, SECONDS[number % len(SECONDS)], 2 * number) for number in range(LONG)
    ]
    size = f"{LONG} videos of 20 to 60 s, 1080p, {said}"
    with stack(settings) as (made, connection):
        job(made, connection, long[:2], model)  # fills caches of files and of pages
        pairs = [(bare(long, made, model), job(made, connection, long, model)) for _ in range(REPEATS)]
        yield from _steady(size, pairs)
        other = plain("ingest_clip_video_encode", long[:OTHER], made, model)
        samples = plain("ingest", long[:OTHER], made, model, mode="interval")
    mine = statistics.median(done.steady.yielded for _, done in pairs)
    approach = f"{other.yielded:.0f} clip-video-encode's approach"
    yield Figure(f"ingest job, {size}: frames a CPU second", f"{mine:.0f}", approach, mine / other.yielded)
    name = f"samples alone, as that approach takes them (mode interval, bare loop), {said}: frames a CPU second"
    yield Figure(name, f"{samples.yielded:.0f}", approach, samples.yielded / other.yielded)


def _steady(size: str, pairs: Sequence[tuple[Cost, Job]]) -> Iterator[Figure]:
    for what, of in (("second", "rate"), ("CPU second", "yielded")):
        mine = [getattr(done.steady, of) for _, done in pairs]
        other = [getattr(loop, of) for loop, _ in pairs]
        ratios = sorted(one / two for one, two in zip(mine, other, strict=True))
        yield Figure(
            f"ingest job, {size}: frames a {what}, steady",
            f"{statistics.median(mine):.0f} ({ratios[0]:.2f} to {ratios[-1]:.2f} of the bare loop)",
            f"{statistics.median(other):.0f} bare loop",
            statistics.median(ratios),
        )
    middle = sorted((done for _, done in pairs), key=lambda done: done.whole.useful_s / done.whole.cpu_s)
    done = middle[len(middle) // 2]
    yield Figure(
        f"ingest job, {size}: decode and embed as a share of all CPU seconds",
        f"{done.whole.useful_s:.0f} of {done.whole.cpu_s:.0f} s; steady {done.steady.useful_s / done.steady.cpu_s:.2f}",
        "0.85 wanted",
        done.whole.useful_s / done.whole.cpu_s,
    )


@contextmanager
def stack(settings: Settings) -> Iterator[tuple[Settings, Connection]]:
    """Start Ray, PostgreSQL and S3 for this benchmark alone, as the supervisor does. Models use one thread."""
    with tempfile.TemporaryDirectory(prefix="pixr-") as folder:
        environment = {**os.environ, "PIXR_CONFIG": str(settings.path), "PIXR_DATA_DIR": folder}
        made = settings_module.load(environ={**environment, "PIXR_MODEL_THREADS": "1"})
        with ground.services(made, ("postgres", "redis", "s3", "ray", "schema")):
            for name in ("serve", "solana"):
                runtime.port(made, name, 0)
            with database.connect(runtime.postgres_url(made, "pixr"), autocommit=True) as connection:
                yield made, connection


def job(made: Settings, connection: Connection, files: Sequence[Path], model: str) -> Job:
    """Run one job over these files to its end, in an empty catalogue."""
    connection.execute("TRUNCATE media.embeddings, media.segments, media.videos, media.jobs CASCADE")
    connection.execute("DELETE FROM media.models WHERE name <> %s", (model,))  # or a back-fill for it would follow
    connection.execute("UPDATE media.models SET active = true")
    with tempfile.TemporaryDirectory() as folder:
        for file in files:
            (Path(folder) / file.name).symlink_to(file)
        storage = Storage(runtime.endpoints(made).s3)
        uri = source.upload(Path(folder), storage, made.s3.bucket, None, lambda *_: None, Extent(follow_links=True)).uri
        lists.remember(connection, uri)
    idle = ingest_meter.idle(made, IDLE_S)
    with Meter(made) as meter:
        began = time.monotonic()
        job_id = str(jobs.create(made, connection, uri, jobs.Options(model=model))["id"])
        cost = start = end = Cost(0, 0.0, 0.0, 0.0)
        while not (state := jobs.get(connection, job_id))["finished_at"] or meter.driver_lives():
            assert time.monotonic() - began < JOB_TIMEOUT_S, state
            time.sleep(POLL_S)
            cost = _cost(made, connection, state, meter, began, idle)
            if not meter.decoding:
                start = cost
            elif cost.frames > end.frames:
                end = cost
    assert (state["status"], state["videos"]["ready"]) == ("succeeded", len(files)), state
    return Job(cost, end - start)


def _cost(
    made: Settings, connection: Connection, state: dict[str, Any], meter: Meter, began: float, idle: float
) -> Cost:
    spent, used, wall_s = report.of(made, connection, state), meter.used(), time.monotonic() - began
    useful_s = spent["decode_cpu_seconds"] + spent["embed_cpu_seconds"]
    return Cost(spent["frames"], wall_s, used.job_s + used.standing_s - idle * wall_s, useful_s)


def bare(files: Sequence[Path], made: Settings, model: str) -> Cost:
    return plain("ingest", files, made, model)


def plain(module: str, files: Sequence[Path], made: Settings, model: str, mode: str = "frames") -> Cost:
    """Run a module in plain processes side by side, one per core; each prints its frames, seconds and CPU seconds.

    A process that has the machine to itself is faster than one that works beside others, and the result must not profit
    from that. So all shares of the files are of about equal size, and the time is that of the slowest process.
    """
    argv = (sys.executable, "-m", f"benchmarks.{module}")
    environment = {**os.environ, "PIXR_CONFIG": str(made.path), "PIXR_MODEL_NAME": model, "OMP_NUM_THREADS": "1"}
    environment["PIXR_INGEST_MODE"] = mode
    running = [
        subprocess.Popen([*argv, *map(str, share)], env=environment, stdout=subprocess.PIPE, text=True)
        for share in _shares(files)
    ]
    answers = [[float(word) for word in process.communicate()[0].split()] for process in running]
    assert not any(process.returncode for process in running)
    frames, seconds, cpu_s = zip(*answers, strict=True)
    return Cost(int(sum(frames)), max(seconds), sum(cpu_s), sum(cpu_s))


def _shares(files: Sequence[Path]) -> list[list[Path]]:
    """Divide whole files into shares of about equal size: the largest first, each to the smallest share so far."""
    shares: list[list[Path]] = [[] for _ in range(PROCESSES)]
    sizes = [0] * PROCESSES
    for file in sorted(files, key=lambda file: (-file.stat().st_size, file.name)):
        least = sizes.index(min(sizes))
        shares[least].append(file)
        sizes[least] += file.stat().st_size
    return shares


def bare_loop(files: Sequence[str]) -> tuple[int, float, float]:
    """Decode, detect and embed these files one after another; return the frames, seconds and CPU seconds."""
    settings = settings_module.load()
    ingest = settings.section(IngestSettings)
    model = encoder.load(settings.section(ModelSettings).name, threads=1, batch_frames=ingest.embed_batch_frames)
    from pipelines.decode import frames  # decord first and torch second crashes

    total, began, before = 0, time.monotonic(), time.process_time()
    with heard():
        for file in files:
            video = stages.probe(Path(file), ingest)
            assert isinstance(video, Video), video
            for chunk in chunks.plan(video, stages.chunk_ms(video, ingest), ingest.mode):
                order = chunks.order(video, chunk, ingest.mode)
                values, arrays = frames.decode(**_order(video, order, file, model, ingest))
                model.frames(arrays["candidates"])
                total += values["decoded"]
    children = os.times()
    below = children.children_user + children.children_system
    return total, time.monotonic() - began, time.process_time() - before + below


@contextmanager
def heard() -> Iterator[None]:
    """Redirect standard error for the block, as the sandbox does to read what decoders complain about."""
    before = os.dup(sandbox_child.STANDARD_ERROR)
    try:
        sandbox_child.keep_complaints()
        yield
    finally:
        os.dup2(before, sandbox_child.STANDARD_ERROR)
        os.close(before)


def _order(
    video: Video, order: dict[str, Any], file: str, model: encoder.Encoder, ingest: IngestSettings
) -> dict[str, Any]:
    width, height = chunks.decode_size(video, max(model.image_size, ingest.thumbnail_side_px))
    sizes = {"width": width, "height": height, "model_side": model.image_size, "fit": model.fit}
    sizes |= {"thumbnail_side": ingest.thumbnail_side_px, "interval_ms": ingest.sample_interval_ms}
    return {**order, **sizes, "path": file, "scratch": f"{tempfile.gettempdir()}/pixr-bare-{os.getpid()}.mkv"}


if __name__ == "__main__":
    print(*bare_loop(sys.argv[1:]))
