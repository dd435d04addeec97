"""The cut: which answers are near enough to be shown, by a least cosine that depends on the text searched for.

One cosine for all texts would hide too much or too little. Even a text that the model never learned (`asdfghjkl`) is
near some picture. A text to which some picture can come very near (`attainable`) needs a higher cut than a text that
lies between many pictures. So a model's folder may hold `cutoff.npz`, vectors of texts and pictures from its training,
and in `calibration.json` the numbers fitted to them (`pipelines.training.cut`). A model without them is cut at a level
of relevance. The cut does not change relevance, which money is computed from.
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
PLAIN_PPM = 50_000  # if nothing was fitted: unrelated answers of CLIP models have half of this, good ones 800,000

Vector = NDArray[np.float32]


@dataclass(frozen=True)
class Reference:
    """Unit vectors of texts and pictures that a model was trained with."""

    texts: Vector = field(repr=False)  # (texts, dimensions)
    pictures: Vector = field(repr=False)  # (pictures, dimensions)

    def known(self, text: Vector) -> float:
        """Return how well the model knows a text.

        Args:
            text: float32 (dimensions,), unit length.

        Returns:
            The cosine with the nearest text of the training.
        """
        return float((self.texts @ text).max())

    def attainable(self, text: Vector) -> float:
        """Return how near a picture of just this text could come.

        Args:
            text: float32 (dimensions,), unit length.

        Returns:
            The cosine with the nearest picture of the training.
        """
        return float((self.pictures @ text).max())


@dataclass(frozen=True, eq=False)
class Cutoff:
    """The numbers by which a model's answers are cut.

    By default an answer needs a least relevance. With a `reference`, an answer to a text needs a least cosine instead,
    which is computed for that text (`least`).
    """

    texts_ppm: int = PLAIN_PPM  # least relevance of answers to a text, without a reference
    pictures_ppm: int = PLAIN_PPM  # least relevance of answers to a picture or a moment
    known_min: float = -1.0  # least `Reference.known` of a text; below it nothing is shown
    floor: float = -1.0  # least cosine of any answer to a text
    base: float = 0.0  # of the line base + slope * attainable, above the floor
    slope: float = 0.0
    reference: Reference | None = None

    def __post_init__(self) -> None:
        if not (0 <= self.texts_ppm <= PPM and 0 <= self.pictures_ppm <= PPM):
            raise ValueError("a cut by relevance stays within 0..1,000,000")
        if self.slope < 0:
            raise ValueError("a text that can be met better is not cut lower")

    @classmethod
    def of(cls, folder: Path | None) -> Cutoff:
        """Read the cut of a model's folder, or return the default one."""
        if folder is None or not (folder / FILE).is_file():
            return cls()
        fitted: dict[str, Any] = json.loads((folder / FILE).read_text(encoding="utf-8")).get("cut", {})
        if not fitted or not (folder / REFERENCE).is_file():
            return cls()
        with np.load(folder / REFERENCE) as file:
            reference = Reference(file["texts"].astype(np.float32), file["pictures"].astype(np.float32))
        return cls(reference=reference, **fitted)

    def least(self, text: Vector) -> float:
        """Return the least cosine at which an answer to a text is shown.

        Args:
            text: float32 (dimensions,), unit length.

        Returns:
            The cosine; infinite if the model does not know the text.
        """
        assert self.reference is not None
        if self.reference.known(text) < self.known_min:
            return math.inf
        return max(self.floor, self.base + self.slope * self.reference.attainable(text))

    def passes(
        self, calibration: Calibration, vector: Vector, cosines: NDArray[np.float64], *, asked_by_text: bool
    ) -> NDArray[np.bool_]:
        """Return which answers are shown.

        Args:
            calibration: The model's calibration.
            vector: float32 (dimensions,), the query.
            cosines: float64 (answers,), of the answers with the query.
            asked_by_text: Whether the query is a text, and not a picture or a moment.

        Returns:
            bool (answers,).
        """
        shown: NDArray[np.bool_]
        if asked_by_text and self.reference is not None:
            shown = cosines >= self.least(vector)
        else:
            least_ppm = self.texts_ppm if asked_by_text else self.pictures_ppm
            shown = calibration.ppm(cosines, asked_by_text=asked_by_text) >= least_ppm
        return shown
