"""Calibrates relevance: how often an answer of this cosine is right, measured on scenes never trained with.

Searches a held-out catalogue by plain captions, names and keywords, looks at the first answers as a viewer would, and
fits the share of right ones as a rising function of the cosine (pool adjacent violators). Writes `calibration.json`
into the model's folder, where the encoder finds it.

    python -m pipelines.training.calibrate configs/models/pixr-emoji
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipelines import encoder, world, world_words
from pipelines.relevance import FILE, PPM
from pipelines.training.pictures import Studio
from pipelines.training.words import Phrasebook

SEED = 1 << 41
PICTURES = 2_000
ANSWERS = 20
POINTS = 60

Floats = NDArray[np.float64]


def pairs(model: encoder.Encoder, seed: int = SEED, count: int = PICTURES) -> tuple[Floats, Floats]:
    """Cosines of answers, and whether each is right (1.0) or not."""
    lesson = Studio(world.artwork(), seed=seed, others=0.0, worn=True).lesson(count, model.image_size)
    table = model.frames(lesson.pixels)
    shown = np.zeros((count, len(world.artwork().concepts)), bool)
    for row, scene in zip(shown, lesson.scenes, strict=True):
        row[list(scene.concepts)] = True
    asked, wanted = _questions(random.Random(seed), lesson.scenes)
    cosines = model.texts(asked) @ table.T
    first = np.argsort(-cosines, axis=1)[:, :ANSWERS]
    right = np.stack(
        [
            [all(shown[i][list(group)].any() for group in groups) for i in row]
            for row, groups in zip(first, wanted, strict=True)
        ]
    )
    return np.take_along_axis(cosines, first, 1).ravel().astype(float), right.ravel().astype(float)


def _questions(rng: random.Random, scenes: list[world.Scene]) -> tuple[list[str], list[list[set[int]]]]:
    """Texts, and what an answer must show: one of each group of concepts."""
    concepts = world.artwork().concepts
    phrases = Phrasebook(concepts)
    asked, wanted = [], []
    for scene in scenes:
        kind = rng.choice(("caption", "name", "keyword"))
        if kind == "caption":
            asked.append(world_words.plain(scene, concepts))
            wanted.append([{index} for index in scene.concepts])
        else:
            index = rng.choice(scene.concepts)
            words = world_words.queries(concepts[index])
            word = rng.choice(words) if kind == "keyword" and words else concepts[index].name
            asked.append(word)
            wanted.append([set(phrases.meanings[word])])
    return asked, wanted


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


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m pipelines.training.calibrate", description=__doc__)
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    cosines, right = pairs(encoder.load(str(folder), threads=1))
    xs, ys = rising(cosines, right)
    (folder / FILE).write_text(json.dumps({"cosines": xs, "relevance_ppm": ys}, indent=1) + "\n", encoding="utf-8")
    print(f"{len(cosines)} answers, {right.mean():.3f} of them right; {len(xs)} points in {folder / FILE}")


if __name__ == "__main__":
    main()
