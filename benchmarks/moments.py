"""How well moments are found: queries about freshly generated videos whose truth is known.

Asks for moments by plain caption, by keyword and by picture, and judges the answers against the truth. Judging knows
only a function from a query to hits, so that the same questions go to the whole product (`run`) and to the model alone
(`python -m benchmarks.moments`, with the true bounds of the shots).
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.run import Figure
from cluster.settings import Settings
from pipelines import encoder, film, samples, world, world_words
from pipelines.film import Form
from pipelines.samples import Sample, Shot
from pipelines.training.pictures import Studio

CLIPS = 500
SEED = 20_261_124  # training never uses a seed of this kind: samples are seeded by text
FORM = Form(width=480, height=270, fps=12, sound=False)
HITS = 5
OVERLAP_MIN = 0.5
PICTURES = 300


@dataclass(frozen=True)
class Hit:
    """An answer: a moment of a file."""

    file: str
    start_ms: int
    end_ms: int


@dataclass(frozen=True)
class Query:
    """A question with what answers it: a shot, and every concept a moment must show to be right as well."""

    text: str
    file: str
    shot: Shot
    concepts: frozenset[str]
    picture: Image.Image | None = None


Search = Callable[[Query], Sequence[Hit]]


def clips(folder: Path, count: int, seed: int) -> list[Sample]:
    """Clips of two or three shots, one to three concepts in each shot."""
    return samples.write(folder, count, seed, forms=(FORM,), shots=(2, 3), seconds=(2.0, 3.5), concepts=(1, 3))


def captions(written: Sequence[Sample], seed: int) -> list[Query]:
    """One plain caption a clip, of one of its shots."""
    rng = random.Random(f"captions {seed}")
    chosen = ((sample, rng.choice(sample.shots)) for sample in written)
    return [Query(shot.caption, sample.file, shot, frozenset(shot.concepts)) for sample, shot in chosen]


def keywords(written: Sequence[Sample], seed: int) -> list[Query]:
    """One keyword a clip. Right is every moment that shows a concept with this keyword."""
    rng = random.Random(f"keywords {seed}")
    concepts = {concept.name: concept for concept in world.artwork().concepts}
    queries = []
    for sample in written:
        shot = rng.choice(sample.shots)
        words = [word for name in shot.concepts for word in world_words.queries(concepts[name])]
        word = rng.choice(words) if words else shot.concepts[0]
        meant = frozenset(name for name, c in concepts.items() if word in world_words.queries(c) or word == name)
        queries.append(Query(word, sample.file, shot, meant))
    return queries


def pictures(written: Sequence[Sample], seed: int, count: int) -> list[Query]:
    """Pictures of single concepts that the clips show, painted anew."""
    rng = random.Random(f"pictures {seed}")
    concepts = {concept.name: concept for concept in world.artwork().concepts}
    seen = [(sample.file, shot, name) for sample in written for shot in sample.shots for name in shot.concepts]
    painter = Studio(world.artwork(), seed=seed, others=0.0, worn=False)
    queries = []
    for file, shot, name in rng.sample(seen, min(count, len(seen))):
        picture = Image.fromarray(painter.portrait(concepts[name].index, 270))
        queries.append(Query("", file, shot, frozenset([name]), picture))
    return queries


def shows(hit: Hit, truth: dict[str, Sample], query: Query, *, whole: bool) -> bool:
    """Whether what is mostly seen during a hit holds all (or any) of the concepts asked for."""
    best = max(truth[hit.file].shots, key=lambda shot: overlap(hit, shot))
    found = query.concepts & set(best.concepts)
    return found == query.concepts if whole else bool(found)


def overlap(hit: Hit, shot: Shot) -> float:
    """Intersection over union of a hit and a shot, in time."""
    common = min(hit.end_ms, shot.end_ms) - max(hit.start_ms, shot.start_ms)
    union = max(hit.end_ms, shot.end_ms) - min(hit.start_ms, shot.start_ms)
    return max(0, common) / union if union > 0 else 0.0


def judge(written: Sequence[Sample], search: Search, seed: int) -> list[Figure]:
    """Ask everything, and count."""
    truth = {sample.file: sample for sample in written}
    asked = captions(written, seed)
    answers = [search(query) for query in asked]
    own = [[hit.file == query.file for hit in hits] for query, hits in zip(asked, answers, strict=True)]
    right = [[shows(h, truth, q, whole=True) for h in hits] for q, hits in zip(asked, answers, strict=True)]
    firsts = [(q, hits[0]) for q, hits in zip(asked, answers, strict=True) if hits and hits[0].file == q.file]
    moment = np.mean([overlap(hit, query.shot) >= OVERLAP_MIN for query, hit in firsts]) if firsts else 0.0
    words = _any(keywords(written, seed), search, truth, HITS)
    alike = _any(pictures(written, seed, PICTURES), search, truth, 1)
    return [
        Figure("caption R@1, the very clip", _share(own, 1), "0.80", _of(own, 1)),
        Figure("caption R@5, the very clip", _share(own, HITS), "0.95", _of(own, HITS)),
        Figure("caption R@1, any moment that shows it all", _share(right, 1)),
        Figure("caption R@5, any moment that shows it all", _share(right, HITS)),
        Figure("right moment (IoU >= 0.5) of hits at rank 1", f"{moment:.3f}", "0.85", float(moment)),
        Figure("keyword R@5", _share(words, HITS), "0.70", _of(words, HITS)),
        Figure("picture to clip of the same concept R@1", _share(alike, 1), "0.85", _of(alike, 1)),
    ]


def _any(asked: Sequence[Query], search: Search, truth: dict[str, Sample], count: int) -> list[list[bool]]:
    return [[shows(hit, truth, query, whole=False) for hit in search(query)[:count]] for query in asked]


def _of(found: Sequence[Sequence[bool]], count: int) -> float:
    return float(np.mean([any(hits[:count]) for hits in found]))


def _share(found: Sequence[Sequence[bool]], count: int) -> str:
    return f"{_of(found, count):.3f}"


def frames_of(path: Path, side: int) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Every frame of a clip at the model's size, by FFmpeg, with its time."""
    command = [film.ffmpeg(), "-v", "error", "-i", str(path), "-vf", f"scale={side}:{side}:flags=bilinear"]
    raw = subprocess.run([*command, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"], check=True, capture_output=True).stdout
    frames = np.frombuffer(raw, np.uint8).reshape(-1, side, side, 3)
    return np.arange(len(frames)) * 1000 // FORM.fps, frames


def alone(model: encoder.Encoder, folder: Path, written: Sequence[Sample], interval_ms: int = 1000) -> Search:
    """Search over the model's vectors alone: the mean of a shot's sampled frames, bounds from the truth."""
    hits, vectors = [], []
    for sample in written:
        times, frames = frames_of(folder / sample.file, model.image_size)
        for shot in sample.shots:
            wanted = range(shot.start_ms + 400, shot.end_ms - 100, interval_ms)
            chosen = [int(np.abs(times - time).argmin()) for time in wanted]
            mean = model.frames(frames[chosen]).mean(0)
            vectors.append(mean / np.linalg.norm(mean))
            hits.append(Hit(sample.file, shot.start_ms, shot.end_ms))
    table = np.stack(vectors)

    def search(query: Query) -> list[Hit]:
        asked = model.images([query.picture]) if query.picture is not None else model.texts([query.text])
        return [hits[index] for index in np.argsort(-(table @ asked[0]))[:HITS]]

    return search


def run(settings: Settings) -> Iterable[Figure]:
    """Through the whole product, in a data folder of its own: its ingest, its search over HTTP, vectors alone."""
    with tempfile.TemporaryDirectory(prefix="pixr-") as scratch:
        Path(scratch).chmod(0o755)
        environment = {**os.environ, "PIXR_CONFIG": str(settings.path), "PIXR_DATA_DIR": f"{scratch}/data"}
        videos = Path(scratch) / "videos"
        written = clips(videos, CLIPS, SEED)
        try:
            _pixr(environment, "up")
            _pixr(environment, "ingest", str(videos), "--json")
            yield from judge(written, _over_http(environment), SEED)
        finally:
            _pixr(environment, "down")


def _pixr(environment: dict[str, str], *arguments: str) -> str:
    argv = (sys.executable, "-m", "cluster.cli", *arguments)
    return subprocess.run(argv, env=environment, capture_output=True, text=True, check=True).stdout


def _over_http(environment: dict[str, str]) -> Search:
    """The search a client sees, told to use vectors alone."""
    from cluster import database, runtime
    from cluster.settings import load

    status = json.loads(_pixr(environment, "status", "--json"))
    client = httpx.Client(base_url=status["services"]["serve"]["url"], timeout=60)
    with database.connect(runtime.endpoints(load(environ=environment)).postgres_url) as connection:
        rows = connection.execute("SELECT id, source_uri FROM media.videos").fetchall()
    files = {str(video_id): uri.rsplit("/", 1)[-1] for video_id, uri in rows}

    def search(query: Query) -> list[Hit]:
        body: dict[str, Any] = {"weights": {"vector": 1, "text": 0}, "limit": HITS, "intent": "benchmark"}
        body |= {"image": _png(query.picture)} if query.picture is not None else {"text": query.text}
        answer = client.post("/v1/search", json=body).raise_for_status().json()
        return [Hit(files[m["video_id"]], m["start_ms"], m["end_ms"]) for m in answer["moments"]]

    return search


def _png(picture: Image.Image) -> str:
    kept = io.BytesIO()
    picture.save(kept, "PNG")
    return base64.b64encode(kept.getvalue()).decode()


def main() -> None:
    """The model alone."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.moments", description=__doc__)
    parser.add_argument("--model", default="pixr-emoji")
    parser.add_argument("--clips", type=int, default=CLIPS)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--folder", type=Path, help="keep the clips here, and use those that are there")
    options = parser.parse_args()
    model = encoder.load(options.model, threads=1)
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch)
        written = (
            samples.read(folder) if (folder / "truth.jsonl").is_file() else clips(folder, options.clips, options.seed)
        )
        for figure in judge(written, alone(model, folder, written), options.seed):
            print(f"{figure.name}: {figure.value}" + (f" (wanted {figure.baseline})" if figure.baseline else ""))


if __name__ == "__main__":
    main()
