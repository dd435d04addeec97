"""Calibrates relevance: how often an answer of this cosine is right, measured on clips of seeds never trained with.

Films clips as real H.264, pools the vectors of each shot as ingest does, asks for the shots by caption, name and
keyword, by picture and by each other, looks at the first answers as a viewer would, and fits the share of right ones as
a rising function of the cosine (pool adjacent violators). Writes `calibration.json` into the model's folder, where the
encoder finds it.

    python -m pipelines.training.calibrate configs/models/pixr-emoji
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipelines import encoder, film, samples, world, world_words
from pipelines.film import Form
from pipelines.relevance import FILE, PPM
from pipelines.samples import Sample
from pipelines.training.pictures import Studio
from pipelines.training.words import Phrasebook

SEED = 41  # of clips that nothing else looks at
CLIPS = 300
FORM = Form(width=480, height=270, fps=12, sound=False)
ANSWERS = 20
POINTS = 60
SAMPLE_INTERVAL_MS = 1000  # as ingest samples, away from the cuts
AFTER_CUT_MS, BEFORE_CUT_MS = 400, 100

Floats = NDArray[np.float64]
Vectors = NDArray[np.float32]
Meaning = list[set[int]]  # what an answer must show: one of each of these groups of concepts


@dataclass(frozen=True)
class Catalogue:
    """Shots to be found: their vectors, the concepts each shows [shots, concepts], and the clip each is of."""

    vectors: Vectors
    shown: NDArray[np.bool_]
    clip: NDArray[np.int64]

    @classmethod
    def of(cls, model: encoder.Encoder, folder: Path, written: Sequence[Sample]) -> Catalogue:
        indices = {concept.name: concept.index for concept in world.artwork().concepts}
        shots = [(number, shot) for number, sample in enumerate(written) for shot in sample.shots]
        shown = np.zeros((len(shots), len(indices)), bool)
        for row, (_, shot) in zip(shown, shots, strict=True):
            row[[indices[name] for name in shot.concepts]] = True
        return cls(shot_vectors(model, folder, written), shown, np.array([number for number, _ in shots]))

    def right(self, first: NDArray[np.intp], wanted: Sequence[Meaning]) -> NDArray[np.bool_]:
        """Which of the first answers to each question show what is meant."""
        groups = [[self.shown[:, list(group)].any(1) for group in meaning] for meaning in wanted]
        return np.stack([np.logical_and.reduce(each)[row] for each, row in zip(groups, first, strict=True)])


def shot_vectors(model: encoder.Encoder, folder: Path, written: Sequence[Sample]) -> Vectors:
    """For every shot of every clip, within its true bounds, the mean direction of its sampled frames."""
    vectors = []
    for sample in written:
        times, frames = frames_of(folder / sample.file, sample.form, model.image_size)
        for shot in sample.shots:
            wanted = range(shot.start_ms + AFTER_CUT_MS, shot.end_ms - BEFORE_CUT_MS, SAMPLE_INTERVAL_MS)
            mean = model.frames(frames[[int(np.abs(times - time).argmin()) for time in wanted]]).mean(0)
            vectors.append(mean / np.linalg.norm(mean))
    return np.stack(vectors)


def frames_of(path: Path, form: Form, side: int) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Every frame of a clip at the model's size, by FFmpeg, with its time."""
    command = [film.ffmpeg(), "-v", "error", "-i", str(path), "-vf", f"scale={side}:{side}:flags=bilinear"]
    raw = subprocess.run([*command, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"], check=True, capture_output=True).stdout
    frames = np.frombuffer(raw, np.uint8).reshape(-1, side, side, 3)
    return np.arange(len(frames)) * 1000 // form.fps, frames


def by_text(
    model: encoder.Encoder, catalogue: Catalogue, written: Sequence[Sample], seed: int
) -> tuple[Floats, Floats]:
    """Cosines of answers to captions, names and keywords, and whether each is right (1.0) or not."""
    asked = questions(written, seed)
    cosines = model.texts([text for text, _ in asked]) @ catalogue.vectors.T
    return _answers(catalogue, cosines, [meaning for _, meaning in asked])


def questions(written: Sequence[Sample], seed: int) -> list[tuple[str, Meaning]]:
    """For every shot its caption, the name of a concept in it, and a keyword of that; each with what it means."""
    rng, phrases = random.Random(f"texts {seed}"), Phrasebook(world.artwork().concepts)
    concepts = {concept.name: concept for concept in world.artwork().concepts}
    asked: list[tuple[str, Meaning]] = []
    for shot in (shot for sample in written for shot in sample.shots):
        asked.append((shot.caption, [{concepts[name].index} for name in shot.concepts]))
        concept = concepts[rng.choice(shot.concepts)]
        words = (concept.name, rng.choice(world_words.queries(concept) or (concept.name,)))
        asked += [(word, [set(phrases.meanings[word])]) for word in words]
    return asked


def by_picture(model: encoder.Encoder, catalogue: Catalogue, seed: int) -> tuple[Floats, Floats]:
    """The same of answers to newly painted pictures of single concepts, and to each shot among those of other clips."""
    return _answers(catalogue, *pictured(model, catalogue, seed))


def pictured(model: encoder.Encoder, catalogue: Catalogue, seed: int) -> tuple[Vectors, list[Meaning]]:
    """The cosines of each picture with each shot, and what an answer to the picture must show."""
    rng, studio = random.Random(f"pictures {seed}"), Studio(world.artwork(), seed=seed, others=0.0, worn=False)
    meant = [rng.choice(np.flatnonzero(row).tolist()) for row in catalogue.shown]
    portraits = model.frames(np.stack([studio.portrait(index, model.image_size) for index in meant]))
    likeness = catalogue.vectors @ catalogue.vectors.T
    likeness[catalogue.clip[:, None] == catalogue.clip[None]] = -np.inf
    return (
        np.concatenate([portraits @ catalogue.vectors.T, likeness]),
        [*([{index}] for index in meant), *([set(np.flatnonzero(row).tolist())] for row in catalogue.shown)],
    )


def _answers(catalogue: Catalogue, cosines: Vectors, wanted: Sequence[Meaning]) -> tuple[Floats, Floats]:
    first = np.argsort(-cosines, axis=1)[:, :ANSWERS]
    found = np.take_along_axis(cosines, first, 1)
    return found.ravel().astype(float), catalogue.right(first, wanted).ravel().astype(float)


def rising(cosines: Floats, right: Floats, points: int = POINTS) -> tuple[list[float], list[int]]:
    """The rising curve nearest to the shares of right answers, as a few points from -1 to 1."""
    order = np.argsort(cosines)
    blocks: list[list[float]] = []  # mean cosine, share right, weight
    for cosine, share in zip(np.array_split(cosines[order], points), np.array_split(right[order], points), strict=True):
        blocks.append([float(cosine.mean()), float(share.mean()), float(len(cosine))])
        while len(blocks) > 1 and blocks[-2][1] >= blocks[-1][1]:
            (a, p, n), (b, q, m) = blocks[-2:]
            blocks[-2:] = [[(a * n + b * m) / (n + m), (p * n + q * m) / (n + m), n + m]]
    xs = [-1.0, *(round(block[0], 4) for block in blocks), 1.0]
    ys = [0, *(round(block[1] * PPM) for block in blocks), round(max(block[1] for block in blocks) * PPM)]
    keep = [i for i in range(len(xs)) if i == 0 or xs[i] > xs[i - 1]]
    return [xs[i] for i in keep], [ys[i] for i in keep]


def write(folder: Path, curves: Mapping[str, tuple[Floats, Floats]]) -> None:
    """Fit and write each curve, and say what it was made from."""
    fitted = {}
    for name, (cosines, right) in curves.items():
        xs, ys = rising(cosines, right)
        fitted[name] = {"cosines": xs, "relevance_ppm": ys}
        print(f"{name}: {len(cosines)} answers, {right.mean():.3f} of them right, {len(xs)} points")
    (folder / FILE).write_text(json.dumps(fitted, indent=1) + "\n", encoding="utf-8")


def clips(folder: Path, count: int, seed: int) -> list[Sample]:
    """Clips like those of any catalogue; those that are there are used again."""
    if (folder / "truth.jsonl").is_file():
        return samples.read(folder)
    return samples.write(folder, count, seed, forms=(FORM,), seconds=(2.0, 3.5), concepts=(1, 3))


def main() -> None:
    from pipelines.training import cut  # which asks what is asked here

    parser = argparse.ArgumentParser(prog="python -m pipelines.training.calibrate", description=__doc__)
    parser.add_argument("model", type=Path, help="its folder")
    parser.add_argument("--clips", type=int, default=CLIPS)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--folder", type=Path, help="keep the clips here, and use those that are there")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch)
        written = clips(folder, options.clips, options.seed)
        model = encoder.load(str(options.model), threads=1)
        catalogue = Catalogue.of(model, folder, written)
    texts, pictures = by_text(model, catalogue, written, options.seed), by_picture(model, catalogue, options.seed)
    write(options.model, {"texts": texts, "pictures": pictures})
    cut.fitted(model, options.model, catalogue, written, options.seed)


if __name__ == "__main__":
    main()
