"""Fits the cut of a model: which answers to a text are near enough to be shown (`pipelines.models.cutoff`).

Asks what `questions` has, what the catalogue does not show, and nonsense; then takes the line from what
a text could attain to the least cosine of its answers that hides the most of what is not there, of those that lose
hardly a good answer.
Writes the numbers into `calibration.json` and the reference beside it. On other clips it only measures:

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

PORTRAITS = 2  # painted of each concept; their mean direction is its reference
PORTRAIT_SEED = 3
LOSS_MAX = 0.0095  # of R@5, on the clips it is fitted to: on others it may be a little more, at most 0.01 is wanted
KNOWN_LOSS_MAX = 0.001  # of the texts of training that may count as unknown
FIRST = 5
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
    """Texts with what decides about their answers: the best cosine that should be shown, or the best there is."""

    best: Floats
    known: Floats
    attainable: Floats

    def lost(self, cutoff: Cutoff) -> NDArray[np.bool_]:
        """Which texts are left without that answer."""
        lost: NDArray[np.bool_] = (self.known < cutoff.known_min) | (
            self.best < np.maximum(cutoff.floor, cutoff.base + cutoff.slope * self.attainable)
        )
        return lost


def reference(model: encoder.Encoder) -> Reference:
    """All names and keywords of the world, and a portrait of each concept; in half precision, as they are kept."""
    artwork = world.artwork()
    phrases, studio = Phrasebook(artwork.concepts), Studio(artwork, seed=PORTRAIT_SEED, others=0.0, worn=False)
    total = sum(
        model.frames(np.stack([studio.portrait(each.index, model.image_size) for each in artwork.concepts]))
        for _ in range(PORTRAITS)
    )
    pictures = total / np.linalg.norm(total, axis=1, keepdims=True)
    texts = model.texts([*phrases.names, *phrases.words])
    return Reference(*(each.astype(np.float16).astype(np.float32) for each in (texts, pictures)))


def groups(
    model: encoder.Encoder, held: Reference, catalogue: Catalogue, written: Sequence[Sample], seed: int
) -> dict[str, LabelledTexts]:
    """What is asked: `found` (with a right answer among the first), `absent`, `outside` the world, and `nonsense`."""
    asked = questions.questions(written, seed)
    vectors = model.texts([text for text, _ in asked])
    cosines = vectors @ catalogue.vectors.T
    first = np.argsort(-cosines, axis=1)[:, :FIRST]
    right = catalogue.right(first, [meaning for _, meaning in asked])
    best = np.where(right, np.take_along_axis(cosines, first, 1), -np.inf).max(1)
    found = _asked(held, vectors, best)
    has = np.isfinite(best)
    others = {"absent": absent(catalogue), "outside": OUTSIDE, "nonsense": nonsense(random.Random(seed), NONSENSE)}
    made = {"found": LabelledTexts(found.best[has], found.known[has], found.attainable[has])}
    for name, texts in others.items():
        vectors = model.texts(list(texts))
        made[name] = _asked(held, vectors, (vectors @ catalogue.vectors.T).max(1))
    return made


def _asked(held: Reference, vectors: Vectors, best: NDArray[np.floating]) -> LabelledTexts:
    known, attainable = (vectors @ held.texts.T).max(1), (vectors @ held.pictures.T).max(1)
    return LabelledTexts(best.astype(np.float64), known.astype(np.float64), attainable.astype(np.float64))


def absent(catalogue: Catalogue) -> list[str]:
    """The names of the concepts that no shot shows."""
    return [each.name for each in world.artwork().concepts if not catalogue.shown[:, each.index].any()]


def nonsense(rng: random.Random, count: int) -> list[str]:
    """Strings that mean nothing: letters, runs of keys, two words of letters, syllables."""

    def letters(most: int) -> str:
        return "".join(rng.choice(string.ascii_lowercase) for _ in range(rng.randint(3, most)))

    def keys() -> str:
        row = rng.choice(ROWS)
        start = rng.randrange(len(row) - 3)
        return row[start : start + rng.randint(3, 9)]

    def syllables() -> str:
        return "".join(rng.choice("bcdfghjklmnprstvwz") + rng.choice("aeiou") for _ in range(rng.randint(2, 5)))

    kinds = (lambda: letters(12), keys, lambda: f"{letters(8)} {letters(8)}", syllables)
    return [kinds[number % len(kinds)]() for number in range(count)]


def fit(model: encoder.Encoder, held: Reference, asked: Mapping[str, LabelledTexts]) -> Cutoff:
    """The cut that hides the most of what is absent and of nonsense, of those that lose at most LOSS_MAX of what is found."""
    phrases, found = Phrasebook(world.artwork().concepts), asked["found"]
    texts = model.texts(phrases.texts(random.Random(1), KNOWN_TEXTS)[0])
    trained = float(np.quantile((texts @ held.texts.T).max(1), KNOWN_LOSS_MAX))
    known_min = round(min(trained, float(np.quantile(found.known, KNOWN_LOSS_MAX))), 4)
    lines = []
    for slope in SLOPES:
        for floor in FLOORS:
            level = Cutoff(known_min=known_min, floor=float(floor), base=-1.0)
            lost = found.lost(level)
            more = int(LOSS_MAX * len(lost)) - int(lost.sum())
            if more >= 0:
                margins = np.sort((found.best - slope * found.attainable)[~lost])
                line = replace(level, base=round(float(margins[more]), 4), slope=round(float(slope), 4))
                lines.append((_hidden(line, asked), line))
    return max(lines, key=lambda each: each[0])[1]


def _hidden(line: Cutoff, asked: Mapping[str, LabelledTexts]) -> float:
    """How good a cut is, once it loses little enough. Nonsense counts twice: no answer to it is even nearly right."""
    return float(asked["absent"].lost(line).mean() + 2 * asked["nonsense"].lost(line).mean())


def least_of_pictures(model: encoder.Encoder, catalogue: Catalogue, calibration: Calibration, seed: int) -> int:
    """The relevance, in ppm, below which answers to pictures and moments are hidden, at the same loss."""
    cosines, wanted = questions.pictured(model, catalogue, seed)
    first = np.argsort(-cosines, axis=1)[:, :FIRST]
    right = catalogue.right(first, wanted)
    best = np.where(right, np.take_along_axis(cosines, first, 1), -np.inf).max(1)
    ppm = calibration.ppm(best[right.any(1)].astype(np.float64), asked_by_text=False)
    return int(np.quantile(ppm, LOSS_MAX)) // 1000 * 1000


def report(cutoff: Cutoff, asked: Mapping[str, LabelledTexts]) -> None:
    """Print the share of each group that gets no answer, also for lines that lose more or less."""
    names = list(asked)
    print(" | ".join(["base", *(f"{name} ({len(asked[name].best)})" for name in names)]))
    for more in (-0.04, -0.02, -0.01, 0.0, 0.01, 0.02, 0.04, 0.06):
        moved = replace(cutoff, base=cutoff.base + more, floor=cutoff.floor + more)
        print(" | ".join([f"{moved.base:.4f}", *(f"{asked[name].lost(moved).mean():.3f}" for name in names)]))


def write(folder: Path, cutoff: Cutoff, held: Reference) -> None:
    """Add the numbers to the calibration, and the reference beside it."""
    fitted = json.loads((folder / FILE).read_text(encoding="utf-8"))
    fitted["cut"] = {name: getattr(cutoff, name) for name in ("known_min", "floor", "base", "slope", "pictures_ppm")}
    (folder / FILE).write_text(json.dumps(fitted, indent=1) + "\n", encoding="utf-8")
    kept = {name: vectors.astype(np.float16) for name, vectors in asdict(held).items()}
    np.savez_compressed(folder / REFERENCE, allow_pickle=False, **kept)


def fitted(model: encoder.Encoder, folder: Path, catalogue: Catalogue, written: Sequence[Sample], seed: int) -> None:
    """Fit the cut to a catalogue, say what it does, and write it."""
    held = reference(model)
    asked = groups(model, held, catalogue, written, seed)
    line = fit(model, held, asked)
    least = least_of_pictures(model, catalogue, Calibration.of(folder), seed)
    report(line, asked)
    write(folder, replace(line, pictures_ppm=least), held)


def main() -> None:
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
        fitted(model, options.model, catalogue, written, options.seed)


if __name__ == "__main__":
    main()
