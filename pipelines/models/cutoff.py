"""Which answers are near enough to be shown: a least cosine for each text, from what the model is known to know.

One cosine for all texts hides too much or too little: a text that the model never learned (`asdfghjkl`) lands near
something all the same, and a text whose own picture would be very near (`attainable`) needs more than one that stands
between many. So a model's folder may carry `cutoff.npz`, vectors of texts it was trained with and of pictures it was
trained with, and `calibration.json` the numbers that were fitted to them (`pipelines.training.cut`). A model without
them is cut at a level of relevance. Knows nothing about money: relevance is not changed by it.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.models.relevance import FILE, PPM, Calibration

REFERENCE = "cutoff.npz"
PLAIN_PPM = 50_000  # where nothing was fitted: strangers of CLIP models lie at half of this, good answers at 800,000

Vector = NDArray[np.float32]


@dataclass(frozen=True)
class Reference:
    """Unit vectors of texts [n, dimensions] and pictures [m, dimensions] that a model was trained with."""

    texts: Vector = field(repr=False)
    pictures: Vector = field(repr=False)

    def known(self, text: Vector) -> float:
        """The cosine of a text with the nearest one that the model was trained with."""
        return float((self.texts @ text).max())

    def attainable(self, text: Vector) -> float:
        """The cosine of a text with the nearest picture: what a moment that shows just this could reach."""
        return float((self.pictures @ text).max())


@dataclass(frozen=True, eq=False)
class Cutoff:
    """A model's cut. `pictures_ppm`: of answers to a picture or moment, the least relevance; `texts_ppm` of those to a
    text, where there is no reference."""

    texts_ppm: int = PLAIN_PPM
    pictures_ppm: int = PLAIN_PPM
    known_min: float = -1.0
    floor: float = -1.0
    base: float = 0.0
    slope: float = 0.0
    reference: Reference | None = None

    def __post_init__(self) -> None:
        if not (0 <= self.texts_ppm <= PPM and 0 <= self.pictures_ppm <= PPM):
            raise ValueError("a cut by relevance stays within 0..1,000,000")
        if self.slope < 0:
            raise ValueError("a text that can be met better is not cut lower")

    @classmethod
    def of(cls, folder: Path | None) -> Cutoff:
        """The cut of a model folder, or the general one."""
        if folder is None or not (folder / FILE).is_file():
            return cls()
        fitted: dict[str, Any] = json.loads((folder / FILE).read_text(encoding="utf-8")).get("cut", {})
        if not fitted or not (folder / REFERENCE).is_file():
            return cls()
        with np.load(folder / REFERENCE) as held:
            reference = Reference(held["texts"].astype(np.float32), held["pictures"].astype(np.float32))
        return cls(reference=reference, **fitted)

    def least(self, text: Vector) -> float:
        """The least cosine at which an answer to a text is shown; infinite where the model does not know the text."""
        assert self.reference is not None
        if self.reference.known(text) < self.known_min:
            return math.inf
        return max(self.floor, self.base + self.slope * self.reference.attainable(text))

    def passes(
        self, calibration: Calibration, vector: Vector, cosines: NDArray[np.float64], *, asked_by_text: bool
    ) -> NDArray[np.bool_]:
        """Which answers of these cosines to this vector are shown."""
        shown: NDArray[np.bool_]
        if asked_by_text and self.reference is not None:
            shown = cosines >= self.least(vector)
        else:
            least_ppm = self.texts_ppm if asked_by_text else self.pictures_ppm
            shown = calibration.ppm(cosines, asked_by_text=asked_by_text) >= least_ppm
        return shown
