"""How well moments are found: questions about freshly generated videos whose content is known.

The clips go through the product's own ingest and are searched over HTTP, by vectors alone. The same questions can also be
put to the model alone, with the true bounds of the shots, to see how much is lost on the way:

    python -m benchmarks.moments                    # the model alone
    python -m benchmarks.moments --whole --clips 60 # the whole product, a quick look
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image

from benchmarks.questions import HITS, Hit, Question, Search, judge, overlap
from benchmarks.run import Figure, append, row
from cluster import roles, runtime
from cluster.database import database
from cluster.settings import Settings, load
from pipelines.models import encoder
from pipelines.samples import samples
from pipelines.samples.film import Form
from pipelines.samples.samples import Sample
from pipelines.training.questions import shot_vectors

CLIPS = 500
SEED = 20_261_124  # training never uses a seed of this kind: samples are seeded by text
FORM = Form(width=480, height=270, fps=12, sound=False)


def clips(folder: Path, count: int, seed: int) -> list[Sample]:
    """Write clips of two or three shots with one to three concepts each into a folder; clips that are there are used again."""
    if (folder / "truth.jsonl").is_file():
        return samples.read(folder)
    return samples.write(folder, count, seed, forms=(FORM,), shots=(2, 3), seconds=(2.0, 3.5), concepts=(1, 3))


def run(settings: Settings) -> Iterable[Figure]:
    """Measure the whole product, in a data folder of its own."""
    with tempfile.TemporaryDirectory(prefix="pixr-") as scratch:
        videos = Path(scratch) / "videos"
        yield from whole(settings, videos, clips(videos, CLIPS, SEED), SEED)


def whole(settings: Settings, videos: Path, written: Sequence[Sample], seed: int) -> Iterator[Figure]:
    """Ingest the clips by a job, and put the questions to `/v1/search`."""
    seconds = sum(sample.duration_ms for sample in written) / 1000
    with _stack(settings) as environment:
        began = time.perf_counter()
        job = json.loads(_pixr(environment, "ingest", str(videos), "--json"))
        took_s = time.perf_counter() - began
        assert job["videos"]["ready"] == len(written), job
        name = f"{len(written)} clips through ingest to {job['segments']} moments"
        yield Figure(name, f"{took_s:.0f} s", f"{seconds:.0f} s of video", took_s / seconds)
        yield from judge(written, over_http(environment), seed)


@contextmanager
def _stack(settings: Settings) -> Iterator[dict[str, str]]:
    """Start a deployment in a temporary data folder, and yield its environment variables."""
    with tempfile.TemporaryDirectory(prefix="pixr-") as scratch:
        environment = {**os.environ, "PIXR_CONFIG": str(settings.path), "PIXR_DATA_DIR": f"{scratch}/data"}
        try:
            _pixr(environment, "up")
            yield environment
        finally:
            _pixr(environment, "down")


def _pixr(environment: dict[str, str], *arguments: str) -> str:
    argv = (sys.executable, "-m", "cluster.cli", *arguments)
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"pixr {' '.join(arguments)} ended with {done.returncode}: {done.stderr[-2000:]}")
    return done.stdout


def over_http(environment: dict[str, str]) -> Search:
    """Return a function that searches over HTTP, by vectors alone."""
    status = json.loads(_pixr(environment, "status", "--json"))
    client = httpx.Client(base_url=status["services"]["serve"]["url"], timeout=60)
    with database.connect(runtime.role_url(load(environ=environment), roles.OWNER)) as connection:
        rows = connection.execute(
            "SELECT v.id, v.source_uri, s.id, s.start_ms, s.end_ms FROM media.segments s"
            " JOIN media.videos v ON v.id = s.video_id"
        ).fetchall()
    files = {str(video_id): uri.rsplit("/", 1)[-1] for video_id, uri, *_ in rows}
    ids = {Hit(files[str(video_id)], start, end): str(segment) for video_id, _, segment, start, end in rows}

    def search(question: Question) -> list[Hit]:
        if question.text or question.picture is not None:
            answer = client.post("/v1/search", json=_body(question))
        else:
            own = max((hit for hit in ids if hit.file == question.file), key=lambda hit: overlap(hit, question.shot))
            answer = client.get(f"/v1/segments/{ids[own]}/similar", params={"limit": HITS, "intent": "typing"})
        found = answer.raise_for_status().json()
        assert not found["degraded"], found["degraded"]
        assert all(m["matched"] == ["vector"] for m in found["moments"]), "something other than vectors has answered"
        return [Hit(files[m["video_id"]], m["start_ms"], m["end_ms"], m["relevance_ppm"]) for m in found["moments"]]

    return search


def _body(question: Question) -> dict[str, Any]:
    body: dict[str, Any] = {"weights": {"vector": 1, "text": 0}, "limit": HITS, "intent": "typing"}
    return body | ({"image": _png(question.picture)} if question.picture is not None else {"text": question.text})


def _png(picture: Image.Image) -> str:
    kept = io.BytesIO()
    picture.save(kept, "PNG")
    return base64.b64encode(kept.getvalue()).decode()


def alone(model: encoder.Encoder, folder: Path, written: Sequence[Sample]) -> Search:
    """Return a function that searches among the model's vectors of the true shots, without ingest and without Serve."""
    table = shot_vectors(model, folder, written)
    hits = [Hit(sample.file, shot.start_ms, shot.end_ms) for sample in written for shot in sample.shots]
    places = {(hit.file, hit.start_ms): number for number, hit in enumerate(hits)}

    def search(question: Question) -> list[Hit]:
        own = None
        if question.picture is not None:
            vector = model.images([question.picture])[0]
        elif question.text:
            vector = model.texts([question.text])[0]
        else:
            own = places[question.file, question.shot.start_ms]
            vector = table[own]
        cosines = table @ vector
        first = [index for index in np.argsort(-cosines)[: HITS + 1] if index != own][:HITS]
        relevance = model.relevance_ppm(cosines[first], asked_by_text=bool(question.text))
        return [replace(hits[i], relevance_ppm=int(ppm)) for i, ppm in zip(first, relevance, strict=True)]

    return search


def main() -> None:
    """Run the benchmark with options that `pixr bench moments` does not have."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.moments", description=__doc__)
    parser.add_argument("--whole", action="store_true", help="through ingest and search, not the model alone")
    parser.add_argument("--model", default="pixr-emoji", help="of the model alone")
    parser.add_argument("--clips", type=int, default=CLIPS)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--folder", type=Path, help="keep the clips here, and use those that are there")
    parser.add_argument("--log", dest="write", action="store_true", help="append the rows to benchmarks/LOG.md")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch)
        written = clips(folder, options.clips, options.seed)
        if options.whole:
            figures: Iterable[Figure] = whole(load(), folder, written, options.seed)
        else:
            model = encoder.load(options.model, threads=1)
            figures = judge(written, alone(model, folder, written), options.seed)
        for figure in figures:
            line = row(figure, "python -m benchmarks.moments" + (" --whole" if options.whole else ""))
            print(line, flush=True)
            if options.write:
                append(line)


if __name__ == "__main__":
    main()
