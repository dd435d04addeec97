"""The cost of a short video in an ingest job: of many videos, and of few, where the job's own cost weighs more."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks import ingest_files
from benchmarks.ingest import job, stack
from benchmarks.run import Figure
from cluster.settings import Settings
from pipelines.settings import ModelSettings

FEW, MANY = 100, 1000  # videos of two seconds


def run(settings: Settings) -> Iterator[Figure]:
    """Measure CPU seconds per video with the bundled model."""
    files = [ingest_files.shortened(settings, number) for number in range(FEW + MANY)]
    with stack(settings) as (made, connection):
        model = made.section(ModelSettings).name
        few, many = (job(made, connection, part, model).whole.cpu_s for part in (files[:FEW], files[FEW:]))
    first, rest = few / FEW, many / MANY
    yield Figure(f"CPU a video of 2 s, {MANY} videos", f"{rest:.2f} s", f"{first:.2f} s, {FEW} videos", rest / first)
