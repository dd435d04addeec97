"""The whole ingest job beside a bare loop: the same decoding, detection and model, without Ray, database or S3.

Both run twice, over few and over many videos. What a video costs is the slope between the two, so that the start of a
job, which is paid once, is told apart from what grows with the catalogue.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from psycopg import Connection

from benchmarks import ingest_files
from benchmarks.run import Figure
from cluster import database, migrations, runtime, supervisor
from cluster import settings as settings_module
from cluster.settings import Settings
from cluster.storage import Storage
from pipelines import chunks, encoder, jobs, report, source, stages
from pipelines.media import Video
from pipelines.settings import IngestSettings, ModelSettings

FEW, MANY = 2, 6  # videos
SECONDS = (20, 30, 40, 60)
SHORT_FEW, SHORT_MANY = 10, 60  # videos of two seconds
JOB_TIMEOUT_S = 900
START_TIMEOUT_S = 180
READ_INTERVAL_S = 0.1
KEEPER, DRIVER = "pipelines.sandbox_child", "pipelines.ingest"
PROCESSES = 2  # of the bare loop: one a core


@dataclass(frozen=True)
class Cost:
    """What went through, and what it took."""

    videos: int
    frames: int
    wall_s: float
    cpu_s: float  # of everything that works: workers and their children; of the job also Ray itself
    useful_s: float  # of it, in decoding and embedding

    def __sub__(self, other: Cost) -> Cost:
        pairs = zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)
        return Cost(*(mine - theirs for mine, theirs in pairs))


def run(settings: Settings) -> Iterator[Figure]:
    """Long videos beside the bare loop, then many short ones."""
    base = ingest_files.base(settings, 1920, 1080)
    long = [
        ingest_files.lengthened(settings, base, SECONDS[number % len(SECONDS)], 2 * number) for number in range(MANY)
    ]
    short = [ingest_files.shortened(settings, number) for number in range(SHORT_FEW + SHORT_MANY)]
    bare, baseline = (_plain(name, long, settings) for name in ("ingest", "ingest_clip_video_encode"))
    with _stack(settings) as (stack, connection):
        _job(stack, connection, short[:1])  # fills caches of files and of pages
        whole, rest = _job(stack, connection, long[:FEW]), _job(stack, connection, long[FEW:])
        job = rest - whole
        few, many = _job(stack, connection, short[:SHORT_FEW]), _job(stack, connection, short[SHORT_FEW:])
    yield from _beside(bare, job, rest)
    mine, other = job.frames / job.cpu_s, baseline.frames / baseline.cpu_s
    name = "ingest job, the same videos: frames a CPU second"
    yield Figure(name, f"{mine:.0f}", f"{other:.0f} clip-video-encode's approach", mine / other)
    slope = many - few
    yield Figure(
        f"CPU a video of 2 s, {SHORT_MANY} videos",
        f"{many.cpu_s / many.videos:.2f} s ({slope.cpu_s / slope.videos:.2f} s each more)",
        f"{few.cpu_s / few.videos:.2f} s, {SHORT_FEW} videos",
        many.cpu_s / many.videos / (few.cpu_s / few.videos),
    )


def _beside(bare: Cost, job: Cost, rest: Cost) -> Iterator[Figure]:
    size = f"{job.videos} more videos of 20 to 60 s, 1080p"
    yield Figure(
        f"ingest job, {size}: frames a CPU second",
        f"{job.frames / job.cpu_s:.0f}",
        f"{bare.frames / bare.cpu_s:.0f} bare loop",
        job.frames / job.cpu_s / (bare.frames / bare.cpu_s),
    )
    yield Figure(
        f"ingest job, {size}: frames a second",
        f"{job.frames / job.wall_s:.0f}",
        f"{bare.frames / bare.wall_s:.0f} bare loop",
        job.frames / job.wall_s / (bare.frames / bare.wall_s),
    )
    yield Figure(
        f"ingest job, {size}: decode and embed as a share of all CPU seconds",
        f"{job.useful_s:.0f} of {job.cpu_s:.0f} s; with the start of the job {rest.useful_s:.0f} of {rest.cpu_s:.0f} s",
        "0.85 wanted",
        job.useful_s / job.cpu_s,
    )


@contextmanager
def _stack(settings: Settings) -> Iterator[tuple[Settings, Connection]]:
    """Ray, PostgreSQL and S3 of the benchmark's own, as the supervisor starts them."""
    with tempfile.TemporaryDirectory(prefix="pixr-") as folder:
        Path(folder).chmod(0o755)
        environment = {**os.environ, "PIXR_CONFIG": str(settings.path), "PIXR_DATA_DIR": folder}
        stack = settings_module.load(environ=environment)
        process = supervisor.start(stack, only=("postgres", "redis", "s3", "ray"))
        try:
            deadline = time.monotonic() + START_TIMEOUT_S
            while supervisor.read_status(stack)["phase"] != "up":
                assert process.poll() is None, supervisor.read_status(stack)
                assert time.monotonic() < deadline, supervisor.read_status(stack)
                time.sleep(0.2)
            for name in ("serve", "solana"):
                runtime.port(stack, name, 0)
            url = runtime.postgres_url(stack, "pixr")
            migrations.migrate(url)
            with database.connect(url, autocommit=True) as connection:
                yield stack, connection
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def _job(stack: Settings, connection: Connection, files: Sequence[Path]) -> Cost:
    """One job over these files, to its end."""
    with tempfile.TemporaryDirectory() as folder:
        for file in files:
            (Path(folder) / file.name).symlink_to(file)
        storage = Storage(runtime.endpoints(stack).s3)
        uri = source.upload(Path(folder), storage, stack.s3.bucket, None, lambda *_: None)
    meter = Meter(stack)
    job_id = str(jobs.create(stack, connection, uri)["id"])
    deadline = time.monotonic() + JOB_TIMEOUT_S
    while not (job := jobs.get(connection, job_id))["finished_at"] or meter.driver_lives():
        assert time.monotonic() < deadline, job
        meter.read()
        time.sleep(READ_INTERVAL_S)
    assert (job["status"], job["videos"]["ready"]) == ("succeeded", len(files)), job
    spent = report.of(stack, connection, job)
    useful_s = spent["decode_cpu_seconds"] + spent["embed_cpu_seconds"]
    return Cost(len(files), spent["frames"], job["seconds"], meter.read(), useful_s)


class Meter:
    """CPU seconds of Ray's processes since the meter was made, also of those that have ended.

    Read often: what a process took after its last reading is lost. Decoding children live shorter than that and are
    counted with the keeper that waits for them.
    """

    def __init__(self, stack: Settings) -> None:
        services: Any = supervisor.read_status(stack)["services"]
        self._head = psutil.Process(services["ray"]["pid"])
        self._latest: dict[int, float] = {}
        self._lines: dict[int, str] = {}
        self._before = 0.0
        self._before = self.read()

    def read(self) -> float:
        for process in [self._head, *self._head.children(recursive=True)]:
            try:
                line = self._lines.setdefault(process.pid, " ".join(process.cmdline()))
                times = process.cpu_times()
                keeper = KEEPER in line
                if keeper and KEEPER in self._lines.get(process.ppid(), ""):
                    continue  # a decoding child
            except psutil.NoSuchProcess:
                continue
            below = times.children_user + times.children_system if keeper else 0.0
            self._latest[process.pid] = times.user + times.system + below
        return sum(self._latest.values()) - self._before

    def driver_lives(self) -> bool:
        return any(DRIVER in _line(process) for process in self._head.children(recursive=True))


def _line(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""


def _plain(module: str, files: Sequence[Path], settings: Settings) -> Cost:
    """What more files cost in plain processes that do nothing else."""
    return _processes(module, files, settings) - _processes(module, files[:FEW], settings)


def _processes(module: str, files: Sequence[Path], settings: Settings) -> Cost:
    """Plain processes, one a core, each with its share of the files; they print frames and CPU seconds."""
    argv = (sys.executable, "-m", f"benchmarks.{module}")
    shares = [[str(file) for file in files[number::PROCESSES]] for number in range(PROCESSES)]
    began = time.monotonic()
    environment = {**os.environ, "PIXR_CONFIG": str(settings.path), "OMP_NUM_THREADS": "1"}
    running = [subprocess.Popen([*argv, *each], env=environment, stdout=subprocess.PIPE, text=True) for each in shares]
    answers = [process.communicate()[0].split() for process in running]
    wall_s = time.monotonic() - began
    assert not any(process.returncode for process in running)
    total, cpu_s = sum(int(frames) for frames, _ in answers), sum(float(cpu) for _, cpu in answers)
    return Cost(len(files), total, wall_s, cpu_s, cpu_s)


def bare_loop(files: Sequence[str]) -> tuple[int, float]:
    """Frames and CPU seconds of decoding, detecting and embedding these files, one after another."""
    settings = settings_module.load()
    ingest = settings.section(IngestSettings)
    model = encoder.load(settings.section(ModelSettings).name, threads=1, batch_frames=ingest.embed_batch_frames)
    from pipelines import frames  # decord first and torch second crashes

    total = 0
    for file in files:
        video = stages.probe(Path(file), ingest)
        assert isinstance(video, Video), video
        for chunk in chunks.plan(video, stages.chunk_ms(video, ingest)):
            values, arrays = frames.decode(**_order(video, chunks.order(video, chunk), file, model, ingest))
            model.frames(arrays["candidates"])
            total += values["decoded"]
    used = os.times()
    return total, used.user + used.system + used.children_user + used.children_system


def _order(
    video: Video, order: dict[str, Any], file: str, model: encoder.Encoder, ingest: IngestSettings
) -> dict[str, Any]:
    width, height = chunks.decode_size(video, max(model.image_size, ingest.thumbnail_side_px))
    sizes = {"width": width, "height": height, "model_side": model.image_size, "fit": model.fit}
    sizes |= {"thumbnail_side": ingest.thumbnail_side_px, "interval_ms": ingest.sample_interval_ms}
    return {**order, **sizes, "path": file, "scratch": f"{tempfile.gettempdir()}/pixr-bare-{os.getpid()}.mkv"}


if __name__ == "__main__":
    print(*bare_loop(sys.argv[1:]))
