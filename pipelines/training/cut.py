"""Fitting the cut of a model: which answers to a text are near enough to be shown (`pipelines.models.cutoff`).

It searches with the texts of `questions`, with names of concepts that no shot shows, and with nonsense. The cut is a
line from the cosine that a text could attain to the least cosine of its answers. Of the lines that hide at most
`LOSS_MAX` of the right answers, it takes the one that hides most answers to absent concepts and nonsense. It writes the
numbers into `calibration.json` and the reference beside it. With --measure it only measures:

    python -m pipelines.training.cut configs/models/pixr-emoji --folder CLIPS --seed 77 --measure
"""

from __future__ import annotations

import argparse
import json
import random
import string
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipelines.models import encoder
from pipelines.models.cutoff import REFERENCE, Cutoff, Reference
from pipelines.models.relevance import FILE, Calibration
from pipelines.samples import world
from pipelines.samples.samples import Sample
from pipelines.training import questions
from pipelines.training.pictures import Studio
from pipelines.training.questions import Catalogue, Vectors
from pipelines.training.words import Phrasebook

PORTRAITS = 2  # pictures of each concept, whose mean direction is its reference
PORTRAIT_SEED = 3
LOSS_MAX = 0.0095  # of R@5 on the clips it is fitted to, so that it stays below 0.01 on others
KNOWN_LOSS_MAX = 0.001  # share of the texts of training that may count as unknown
FIRST = 5  # answers to a question that are looked at
SLOPES, FLOORS = np.arange(0.0, 0.6, 0.02), np.arange(0.2, 0.26, 0.005).round(4)
KNOWN_TEXTS, NONSENSE = 4000, 200
ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
OUTSIDE = (
    "photosynthesis", "quantum physics", "president lincoln", "tax return", "my grandmother", "javascript tutorial",
    "stock market crash", "eiffel tower", "harry potter", "volkswagen", "yoga class", "knitting a sweater",
    "mortgage interest", "parliament debate", "constitutional law", "kubernetes deployment", "inflation statistics",
    "philosophy lecture", "supreme court", "calculus homework", "venture capital", "nineteenth century novel",
    "barcelona nightlife", "appendectomy", "insurance claim", "shareholder meeting", "gothic architecture",
    "grammar lesson", "jazz improvisation", "immigration policy",
)  # fmt: skip

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class LabelledTexts:
    """Texts with the figures that decide whether their answers are shown."""

    best: Floats  # (texts,), the cosine of the best right answer; of the best answer if none is right
    known: Floats  # (texts,), as `Reference.known`
    attainable: Floats  # (texts,), as `Reference.attainable`

    def lost(self, cutoff: Cutoff) -> NDArray[np.bool_]:
        """Return for which texts a cut hides the best answer.

        Args:
            cutoff: The cut.

        Returns:
            bool (texts,).
        """
        lost: NDArray[np.bool_] = (self.known < cutoff.known_min) | (
            self.best < np.maximum(cutoff.floor, cutoff.base + cutoff.slope * self.attainable)
        )
        return lost


def reference(model: encoder.Encoder) -> Reference:
    """Encode the names and keywords of all concepts that the samples show, and the mean of a few pictures of each concept.

    Vectors are rounded to half precision, as they are stored.
    """
    artwork = world.artwork()
    phrases, studio = Phrasebook(artwork.concepts), Studio(artwork, seed=PORTRAIT_SEED, others=0.0, worn=False)
    total = sum(
        model.frames(np.stack([studio.portrait(concept.index, model.image_size) for concept in artwork.concepts]))
        for _ in range(PORTRAITS)
    )
    pictures = total / np.linalg.norm(total, axis=1, keepdims=True)
    texts = model.texts([*phrases.names, *phrases.words])
    return Reference(*(vectors.astype(np.float16).astype(np.float32) for vectors in (texts, pictures)))


def groups(
    model: encoder.Encoder, held: Reference, catalogue: Catalogue, written: Sequence[Sample], seed: int
) -> dict[str, LabelledTexts]:
    """Search for everything that the cut is fitted to.

    Args:
        model: The model.
        held: Its reference.
        catalogue: The shots.
        written: The clips.
        seed: Seed of the questions.

    Returns:
        The texts in four groups: `found` (with a right answer among the first), `absent` (concepts of the world that no
        shot shows), `outside` (things that are not in the world), and `nonsense`.
    """
    asked_texts = questions.questions(written, seed)
    vectors = model.texts([text for text, _ in asked_texts])
    cosines = vectors @ catalogue.vectors.T
    first = np.argsort(-cosines, axis=1)[:, :FIRST]
    right = catalogue.right(first, [meaning for _, meaning in asked_texts])
    best = np.where(right, np.take_along_axis(cosines, first, 1), -np.inf).max(1)
    found = _asked(held, vectors, best)
    has_answer = np.isfinite(best)
    other_texts = {"absent": absent(catalogue), "outside": OUTSIDE, "nonsense": nonsense(random.Random(seed), NONSENSE)}
    by_group = {"found": LabelledTexts(found.best[has_answer], found.known[has_answer], found.attainable[has_answer])}
    for name, texts in other_texts.items():
        vectors = model.texts(list(texts))
        by_group[name] = _asked(held, vectors, (vectors @ catalogue.vectors.T).max(1))
    return by_group


def _asked(held: Reference, vectors: Vectors, best: NDArray[np.floating]) -> LabelledTexts:
    """Return the figures of texts, from their vectors (texts, dimensions) and their best answers' cosines (texts,)."""
    known, attainable = (vectors @ held.texts.T).max(1), (vectors @ held.pictures.T).max(1)
    return LabelledTexts(best.astype(np.float64), known.astype(np.float64), attainable.astype(np.float64))


def absent(catalogue: Catalogue) -> list[str]:
    """Return the names of the concepts that no shot shows."""
    return [concept.name for concept in world.artwork().concepts if not catalogue.shown[:, concept.index].any()]


def nonsense(rng: random.Random, count: int) -> list[str]:
    """Return strings without meaning: letters, runs of keys, two words of letters, syllables."""

    def letters(letters_max: int) -> str:
        return "".join(rng.choice(string.ascii_lowercase) for _ in range(rng.randint(3, letters_max)))

    def keys() -> str:
        row = rng.choice(ROWS)
        start = rng.randrange(len(row) - 3)
        return row[start : start + rng.randint(3, 9)]

    def syllables() -> str:
        return "".join(rng.choice("bcdfghjklmnprstvwz") + rng.choice("aeiou") for _ in range(rng.randint(2, 5)))

    kinds = (lambda: letters(12), keys, lambda: f"{letters(8)} {letters(8)}", syllables)
    return [kinds[number % len(kinds)]() for number in range(count)]


def fit(model: encoder.Encoder, held: Reference, by_group: Mapping[str, LabelledTexts]) -> Cutoff:
    """Return the cut that hides most of `absent` and `nonsense`, among cuts that hide at most LOSS_MAX of `found`."""
    phrases, found = Phrasebook(world.artwork().concepts), by_group["found"]
    texts = model.texts(phrases.texts(random.Random(1), KNOWN_TEXTS)[0])
    trained = float(np.quantile((texts @ held.texts.T).max(1), KNOWN_LOSS_MAX))
    known_min = round(min(trained, float(np.quantile(found.known, KNOWN_LOSS_MAX))), 4)
    candidates = []
    for slope in SLOPES:
        for floor in FLOORS:
            level = Cutoff(known_min=known_min, floor=float(floor), base=-1.0)
            lost = found.lost(level)  # (texts,)
            spare = int(LOSS_MAX * len(lost)) - int(lost.sum())
            if spare >= 0:
                margins = np.sort((found.best - slope * found.attainable)[~lost])
                line = replace(level, base=round(float(margins[spare]), 4), slope=round(float(slope), 4))
                candidates.append((_hidden(line, by_group), line))
    return max(candidates, key=lambda scored: scored[0])[1]


def _hidden(line: Cutoff, by_group: Mapping[str, LabelledTexts]) -> float:
    """Score a cut by what it hides; nonsense counts twice, since any answer to it is wrong."""
    return float(by_group["absent"].lost(line).mean() + 2 * by_group["nonsense"].lost(line).mean())


def least_of_pictures(model: encoder.Encoder, catalogue: Catalogue, calibration: Calibration, seed: int) -> int:
    """Return the least relevance of answers to pictures and moments that hides at most LOSS_MAX of the right ones.

    Args:
        model: The model.
        catalogue: The shots.
        calibration: The model's calibration.
        seed: Seed of the pictures.

    Returns:
        The relevance in ppm, a multiple of 1000.
    """
    cosines, meanings = questions.pictured(model, catalogue, seed)
    first = np.argsort(-cosines, axis=1)[:, :FIRST]
    right = catalogue.right(first, meanings)
    best = np.where(right, np.take_along_axis(cosines, first, 1), -np.inf).max(1)
    ppm = calibration.ppm(best[right.any(1)].astype(np.float64), asked_by_text=False)
    return int(np.quantile(ppm, LOSS_MAX)) // 1000 * 1000


def report(cutoff: Cutoff, by_group: Mapping[str, LabelledTexts]) -> None:
    """Print the share of each group that gets no answer, also for cuts that lose more or less."""
    names = list(by_group)
    print(" | ".join(["base", *(f"{name} ({len(by_group[name].best)})" for name in names)]))
    for shift in (-0.04, -0.02, -0.01, 0.0, 0.01, 0.02, 0.04, 0.06):
        moved = replace(cutoff, base=cutoff.base + shift, floor=cutoff.floor + shift)
        print(" | ".join([f"{moved.base:.4f}", *(f"{by_group[name].lost(moved).mean():.3f}" for name in names)]))


def write(folder: Path, cutoff: Cutoff, held: Reference) -> None:
    """Add the cut to the calibration, and write the reference beside it."""
    fitted = json.loads((folder / FILE).read_text(encoding="utf-8"))
    fitted["cut"] = {name: getattr(cutoff, name) for name in ("known_min", "floor", "base", "slope", "pictures_ppm")}
    (folder / FILE).write_text(json.dumps(fitted, indent=1) + "\n", encoding="utf-8")
    halves = {name: vectors.astype(np.float16) for name, vectors in asdict(held).items()}
    np.savez_compressed(folder / REFERENCE, allow_pickle=False, **halves)


def fit_and_write(
    model: encoder.Encoder, folder: Path, catalogue: Catalogue, written: Sequence[Sample], seed: int
) -> None:
    """Fit the cut to a catalogue, print what it does, and write it.

    Args:
        model: The model.
        folder: Its folder.
        catalogue: The shots.
        written: The clips.
        seed: Seed of the questions.
    """
    held = reference(model)
    by_group = groups(model, held, catalogue, written, seed)
    line = fit(model, held, by_group)
    least = least_of_pictures(model, catalogue, Calibration.of(folder), seed)
    report(line, by_group)
    write(folder, replace(line, pictures_ppm=least), held)


def main() -> None:
    """Read the arguments, and fit or measure the cut."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.training.cut", description=__doc__)
    parser.add_argument("model", type=Path, help="its folder")
    parser.add_argument("--folder", type=Path, required=True, help="the clips; they are filmed if they are not there")
    parser.add_argument("--clips", type=int, default=160)
    parser.add_argument("--seed", type=int, default=questions.SEED)
    parser.add_argument("--measure", action="store_true", help="fit nothing: what the cut does on these clips")
    options = parser.parse_args()
    written = questions.clips(options.folder, options.clips, options.seed)
    model = encoder.load(str(options.model), threads=1)
    catalogue = Catalogue.of(model, options.folder, written)
    if options.measure:
        cutoff = Cutoff.of(options.model)
        assert cutoff.reference is not None, "the model has no fitted cut"
        report(cutoff, groups(model, cutoff.reference, catalogue, written, options.seed))
    else:
        fit_and_write(model, options.model, catalogue, written, options.seed)


if __name__ == "__main__":
    main()
