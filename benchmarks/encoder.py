"""What the encoder costs on one core: loading after imports, a query's text, frames in batches of 32."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable

import numpy as np

from benchmarks.run import Figure
from cluster.settings import Settings
from pipelines.models import encoder
from pipelines.settings import ModelSettings

REPEATS = 30
BATCH_FRAMES = 32
QUERY = "a red apple and a rocket in a forest"


def run(settings: Settings) -> Iterable[Figure]:
    """Measure the configured model on one thread of the CPU."""
    import open_clip  # noqa: F401  # loading is measured after imports
    import torch
    import transformers  # noqa: F401

    name = settings.section(ModelSettings).name
    began = time.perf_counter()
    model = encoder.load(name, device="cpu", threads=1)
    load_s = time.perf_counter() - began
    frames = np.random.default_rng(1).integers(0, 256, (BATCH_FRAMES, model.image_size, model.image_size, 3), np.uint8)
    text_ms = _median_s(lambda: model.texts([QUERY])) * 1000
    second = BATCH_FRAMES / _median_s(lambda: model.frames(frames))
    compiled = encoder.load(name, device="cpu", threads=1, compiled=True)
    compiled.frames(frames)  # compiles
    faster = BATCH_FRAMES / _median_s(lambda: compiled.frames(frames))
    assert torch.get_num_threads() == 1
    yield Figure(f"{name}: loading, after imports", f"{load_s:.2f} s", "2 s wanted", load_s / 2)
    yield Figure(f"{name}: one query's text", f"{text_ms:.2f} ms", "3 ms wanted", text_ms / 3)
    yield Figure(f"{name}: frames on one core, batch 32", f"{second:.0f} /s", "300 /s wanted", second / 300)
    yield Figure(f"{name}: the same, compiled", f"{faster:.0f} /s", f"{second:.0f} /s not compiled", faster / second)


def _median_s(call: Callable[[], object]) -> float:
    times = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return statistics.median(times)
