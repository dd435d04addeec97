"""The approach of clip-video-encode, in few lines: decode at full size, keep every n-th frame, preprocess, embed.

A baseline for `benchmarks.ingest`: no shots, thumbnails, sandbox, resume or database. Prints frames, seconds and CPU
seconds, once the model is loaded.

    python -m benchmarks.ingest_clip_video_encode FILE…
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from itertools import islice

import av
import open_clip
import torch
from PIL import Image

from cluster import settings as settings_module
from pipelines.models import encoder
from pipelines.settings import IngestSettings, ModelSettings

BATCH = 32


def sampled(path: str, interval_ms: int) -> Iterator[tuple[int, Image.Image | None]]:
    """Yield the number of every frame, and for one frame per interval also the frame as a picture of full size."""
    with av.open(path) as container:
        stream = container.streams.video[0]
        stream.thread_count = 1
        every = max(1, round(float(stream.average_rate or 25) * interval_ms / 1000))
        for number, frame in enumerate(container.decode(stream)):
            pixels = frame.to_ndarray(format="rgb24")  # as a reader that knows nothing of sampling gives it
            yield number, Image.fromarray(pixels) if number % every == 0 else None


def main(files: Sequence[str]) -> tuple[int, float, float]:
    settings = settings_module.load()
    torch.set_num_threads(1)
    where = encoder.locate(settings.section(ModelSettings).name)
    model, _, preprocess = open_clip.create_model_and_transforms(where.identifier, pretrained=where.tag)
    model.eval()
    frames, began, before = 0, time.monotonic(), time.process_time()
    for file in files:
        seen = list(sampled(file, settings.section(IngestSettings).sample_interval_ms))
        frames += len(seen)
        kept = iter(picture for _, picture in seen if picture is not None)
        while batch := list(islice(kept, BATCH)):
            with torch.inference_mode():
                model.encode_image(torch.stack([preprocess(each) for each in batch]), normalize=True)
    return frames, time.monotonic() - began, time.process_time() - before


if __name__ == "__main__":
    print(*main(sys.argv[1:]))
