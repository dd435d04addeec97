"""What a model is asked when it is measured: clips of seeds that were never trained with, their catalogue, texts and pictures
with what a right answer shows.

Shared by `calibrate` and `cut`. Knows nothing of what is fitted to the answers.
"""

from __future__ import annotations

import random
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipelines.models import encoder
from pipelines.samples import film, samples, world, world_words
from pipelines.samples.film import Form
from pipelines.samples.samples import Sample
from pipelines.training.pictures import Studio
from pipelines.training.words import Phrasebook

SEED = 41  # of clips that nothing else looks at
FORM = Form(width=480, height=270, fps=12, sound=False)
SAMPLE_INTERVAL_MS = 1000  # as ingest samples, away from the cuts
AFTER_CUT_MS, BEFORE_CUT_MS = 400, 100
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


def clips(folder: Path, count: int, seed: int) -> list[Sample]:
    """Clips like those of any catalogue; those that are there are used again."""
    if (folder / "truth.jsonl").is_file():
        return samples.read(folder)
    return samples.write(folder, count, seed, forms=(FORM,), seconds=(2.0, 3.5), concepts=(1, 3))
