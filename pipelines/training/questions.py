"""The questions that a model is measured with: clips never trained with, texts and pictures, and what right answers show.

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

SEED = 41  # of clips that are used for nothing else
FORM = Form(width=480, height=270, fps=12, sound=False)
SAMPLE_INTERVAL_MS = 1000  # as in ingest, away from the cuts
AFTER_CUT_MS, BEFORE_CUT_MS = 400, 100
Vectors = NDArray[np.float32]
Meaning = list[set[int]]  # what an answer must show: one concept of each of these groups


@dataclass(frozen=True)
class Catalogue:
    """The shots that are searched."""

    vectors: Vectors  # (shots, dimensions)
    shown: NDArray[np.bool_]  # (shots, concepts)
    clip: NDArray[np.int64]  # (shots,), the number of the clip

    @classmethod
    def of(cls, model: encoder.Encoder, folder: Path, written: Sequence[Sample]) -> Catalogue:
        """Encode the shots of clips in a folder."""
        indices = {concept.name: concept.index for concept in world.artwork().concepts}
        shots = [(number, shot) for number, sample in enumerate(written) for shot in sample.shots]
        shown = np.zeros((len(shots), len(indices)), bool)
        for row, (_, shot) in zip(shown, shots, strict=True):
            row[[indices[name] for name in shot.concepts]] = True
        return cls(shot_vectors(model, folder, written), shown, np.array([number for number, _ in shots]))

    def right(self, first: NDArray[np.intp], meanings: Sequence[Meaning]) -> NDArray[np.bool_]:
        """Return which answers are right.

        Args:
            first: (questions, answers), shots by index.
            meanings: What a right answer to each question shows.

        Returns:
            bool (questions, answers).
        """
        groups = [[self.shown[:, list(group)].any(1) for group in meaning] for meaning in meanings]
        return np.stack([np.logical_and.reduce(each)[row] for each, row in zip(groups, first, strict=True)])


def shot_vectors(model: encoder.Encoder, folder: Path, written: Sequence[Sample]) -> Vectors:
    """Return the mean direction of the sampled frames of each shot, within its true bounds.

    Args:
        model: The model.
        folder: The folder of the clips.
        written: The clips.

    Returns:
        float32 (shots, dimensions), unit length.
    """
    vectors = []
    for sample in written:
        times, frames = frames_of(folder / sample.file, sample.form, model.image_size)
        for shot in sample.shots:
            sample_times = range(shot.start_ms + AFTER_CUT_MS, shot.end_ms - BEFORE_CUT_MS, SAMPLE_INTERVAL_MS)
            mean = model.frames(frames[[int(np.abs(times - time).argmin()) for time in sample_times]]).mean(0)
            vectors.append(mean / np.linalg.norm(mean))
    return np.stack(vectors)


def frames_of(path: Path, form: Form, side: int) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Decode a clip with FFmpeg.

    Args:
        path: The clip.
        form: Its frame rate.
        side: Pixels a side to scale to.

    Returns:
        Times in milliseconds, int64 (frames,), and frames, uint8 (frames, side, side, 3).
    """
    command = [film.ffmpeg(), "-v", "error", "-i", str(path), "-vf", f"scale={side}:{side}:flags=bilinear"]
    raw = subprocess.run([*command, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"], check=True, capture_output=True).stdout
    frames = np.frombuffer(raw, np.uint8).reshape(-1, side, side, 3)
    return np.arange(len(frames)) * 1000 // form.fps, frames


def questions(written: Sequence[Sample], seed: int) -> list[tuple[str, Meaning]]:
    """Return three texts for every shot, each with its meaning: the caption, and name and keyword of one concept."""
    rng, phrases = random.Random(f"texts {seed}"), Phrasebook(world.artwork().concepts)
    concepts = {concept.name: concept for concept in world.artwork().concepts}
    texts: list[tuple[str, Meaning]] = []
    for shot in (shot for sample in written for shot in sample.shots):
        texts.append((shot.caption, [{concepts[name].index} for name in shot.concepts]))
        concept = concepts[rng.choice(shot.concepts)]
        words = (concept.name, rng.choice(world_words.queries(concept) or (concept.name,)))
        texts += [(word, [set(phrases.meanings[word])]) for word in words]
    return texts


def pictured(model: encoder.Encoder, catalogue: Catalogue, seed: int) -> tuple[Vectors, list[Meaning]]:
    """Compare pictures with the shots: a painted picture for each shot, and each shot with those of other clips.

    Args:
        model: The model.
        catalogue: The shots.
        seed: Seed of the pictures.

    Returns:
        Cosines, float32 (2 * shots, shots), and what a right answer to each row shows.
    """
    rng, studio = random.Random(f"pictures {seed}"), Studio(world.artwork(), seed=seed, others=0.0, worn=False)
    concepts_meant = [rng.choice(np.flatnonzero(row).tolist()) for row in catalogue.shown]
    portraits = model.frames(np.stack([studio.portrait(index, model.image_size) for index in concepts_meant]))
    likeness = catalogue.vectors @ catalogue.vectors.T
    likeness[catalogue.clip[:, None] == catalogue.clip[None]] = -np.inf
    return (
        np.concatenate([portraits @ catalogue.vectors.T, likeness]),
        [*([{index}] for index in concepts_meant), *([set(np.flatnonzero(row).tolist())] for row in catalogue.shown)],
    )


def clips(folder: Path, count: int, seed: int) -> list[Sample]:
    """Return the clips in a folder; if it holds none, make `count` clips first."""
    if (folder / "truth.jsonl").is_file():
        return samples.read(folder)
    return samples.write(folder, count, seed, forms=(FORM,), seconds=(2.0, 3.5), concepts=(1, 3))
