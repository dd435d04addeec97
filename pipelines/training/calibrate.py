"""Calibrating relevance: how often an answer with a given cosine is right, measured on clips never trained with.

It encodes clips as real H.264 and pools the vectors of each shot as ingest does. It searches for the shots with texts
(captions, names, keywords), with pictures and with other shots. To the first answers it fits the share of right ones as
a rising function of the cosine (pool adjacent violators). It writes `calibration.json` into the model's folder, where
the encoder finds it.

    python -m pipelines.training.calibrate configs/models/pixr-emoji
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipelines.models import encoder
from pipelines.models.relevance import FILE, PPM
from pipelines.samples.samples import Sample
from pipelines.training import cut
from pipelines.training.questions import SEED, Catalogue, Meaning, Vectors, clips, pictured, questions

CLIPS = 300
ANSWERS = 20  # to each question that are looked at
POINTS = 60  # of a curve

Floats = NDArray[np.float64]


def by_text(
    model: encoder.Encoder, catalogue: Catalogue, written: Sequence[Sample], seed: int
) -> tuple[Floats, Floats]:
    """Search for shots by captions, names and keywords.

    Args:
        model: The model.
        catalogue: The shots.
        written: The clips.
        seed: Seed of the questions.

    Returns:
        float64 (answers,) each: the cosine of each answer, and whether it is right (1.0) or wrong (0.0).
    """
    asked_texts = questions(written, seed)
    cosines = model.texts([text for text, _ in asked_texts]) @ catalogue.vectors.T
    return _answers(catalogue, cosines, [meaning for _, meaning in asked_texts])


def by_picture(model: encoder.Encoder, catalogue: Catalogue, seed: int) -> tuple[Floats, Floats]:
    """Search for shots with newly painted pictures of single concepts, and with each shot among those of other clips.

    Args:
        model: The model.
        catalogue: The shots.
        seed: Seed of the pictures.

    Returns:
        float64 (answers,) each: the cosine of each answer, and whether it is right (1.0) or wrong (0.0).
    """
    return _answers(catalogue, *pictured(model, catalogue, seed))


def _answers(catalogue: Catalogue, cosines: Vectors, meanings: Sequence[Meaning]) -> tuple[Floats, Floats]:
    """Take the `ANSWERS` nearest shots as the answers to each question, and return how near and how right they are.

    Args:
        catalogue: The shots.
        cosines: (questions, shots): how near each shot is to each question.
        meanings: What a right answer to each question shows.

    Returns:
        float64 (answers,) each: the cosine of each answer, and whether it is right (1.0) or wrong (0.0).
    """
    first = np.argsort(-cosines, axis=1)[:, :ANSWERS]  # (questions, ANSWERS)
    best = np.take_along_axis(cosines, first, 1)
    return best.ravel().astype(float), catalogue.right(first, meanings).ravel().astype(float)


def rising(cosines: Floats, right: Floats, points: int = POINTS) -> tuple[list[float], list[int]]:
    """Fit the rising curve nearest to the shares of right answers (isotonic regression).

    Args:
        cosines: float64 (answers,).
        right: float64 (answers,), 1.0 or 0.0.
        points: Groups of answers that it is fitted to.

    Returns:
        Cosines from -1 to 1, and the relevance in ppm at each.
    """
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
    """Fit each curve and write `calibration.json`; print what each was made from.

    Args:
        folder: The model's folder.
        curves: By name, float64 (answers,) each: cosines, and whether each answer is right.
    """
    fitted = {}
    for name, (cosines, right) in curves.items():
        xs, ys = rising(cosines, right)
        fitted[name] = {"cosines": xs, "relevance_ppm": ys}
        print(f"{name}: {len(cosines)} answers, {right.mean():.3f} of them right, {len(xs)} points")
    (folder / FILE).write_text(json.dumps(fitted, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    """Read the arguments, calibrate the model and fit its cut."""
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
    cut.fit_and_write(model, options.model, catalogue, written, options.seed)


if __name__ == "__main__":
    main()
