"""From cosines to relevance in parts per million, calibrated per model.

Texts and pictures have different cosines with the moments they ask for, so each has a curve of its own. A model's
folder may hold `calibration.json`: points of monotone curves, measured on held-out queries. A model without it gets
logistic curves around the cosines that are usual for contrastively trained models. Knows nothing about ranking or
money.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

PPM = 1_000_000
FILE = "calibration.json"

# Centre and width of the default logistic curves. CLIP models give unrelated texts and pictures a cosine of about 0.15
# and good matches 0.3; two unrelated pictures about 0.5, and similar ones 0.9.
TEXTS_CENTRE, TEXTS_WIDTH = 0.25, 0.03
PICTURES_CENTRE, PICTURES_WIDTH = 0.75, 0.05
# From this cosine on two videos' moments show the same pictures, by a model that says nothing else. CLIP models give a
# picture and another coding of it 0.98 and more, and two takes of one scene mostly less.
SAME_COSINE = 0.98


@dataclass(frozen=True)
class Curve:
    """A piecewise linear curve from cosine to ppm, ascending in both, and constant outside its points."""

    cosines: tuple[float, ...]
    ppm_at: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.cosines) != len(self.ppm_at) or len(self.cosines) < 2:
            raise ValueError("a calibration has as many cosines as values, at least two")
        if any(b <= a for a, b in zip(self.cosines, self.cosines[1:], strict=False)):
            raise ValueError("the cosines of a calibration ascend")
        if any(b < a for a, b in zip(self.ppm_at, self.ppm_at[1:], strict=False)):
            raise ValueError("a calibration is monotone")
        if self.ppm_at[0] < 0 or self.ppm_at[-1] > PPM:
            raise ValueError("a calibration stays within 0..1,000,000")

    @classmethod
    def read(cls, points: Mapping[str, Sequence[Any]]) -> Curve:
        """Return a curve as `calibration.json` holds it."""
        return cls(tuple(points["cosines"]), tuple(points["relevance_ppm"]))

    @classmethod
    def logistic(cls, centre: float, width: float) -> Curve:
        """Return a logistic curve with this centre and width."""
        cosines = np.linspace(-1.0, 1.0, 201)
        values = np.rint(PPM / (1 + np.exp(-(cosines - centre) / width))).astype(np.int64)
        return cls(tuple(float(c) for c in cosines), tuple(int(v) for v in values))

    def ppm(self, cosines: NDArray[np.floating[Any]]) -> NDArray[np.int64]:
        """Return the relevance of cosines.

        Args:
            cosines: Any shape.

        Returns:
            int64 of the same shape, 0 to 1,000,000.
        """
        values: NDArray[np.int64] = np.rint(np.interp(cosines, *self._points)).astype(np.int64)
        return values

    @cached_property
    def _points(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The points as arrays, (points,) each."""
        return np.array(self.cosines), np.array(self.ppm_at, np.float64)


@dataclass(frozen=True)
class Calibration:
    """A model's two curves: for answers to a text, and for answers to a picture or another moment.

    `same_cosine` is the least cosine of two videos' moments that show the same pictures.
    """

    texts: Curve
    pictures: Curve
    same_cosine: float = SAME_COSINE

    def __post_init__(self) -> None:
        if not 0.5 < self.same_cosine <= 1:
            raise ValueError("the cosine of what is the same is above 0.5, and 1 at most")

    @classmethod
    def of(cls, folder: Path | None) -> Calibration:
        """Read the calibration of a model's folder, or return the default one."""
        if folder is None or not (folder / FILE).is_file():
            return general()
        curves = json.loads((folder / FILE).read_text(encoding="utf-8"))
        return cls(Curve.read(curves["texts"]), Curve.read(curves["pictures"]), curves.get("same", SAME_COSINE))

    def ppm(self, cosines: NDArray[np.floating[Any]], *, asked_by_text: bool = True) -> NDArray[np.int64]:
        """Return the relevance of answers.

        Args:
            cosines: Of the answers with the query, any shape.
            asked_by_text: Whether the query is a text, and not a picture or a moment.

        Returns:
            int64 of the same shape, 0 to 1,000,000.
        """
        return (self.texts if asked_by_text else self.pictures).ppm(cosines)


def general() -> Calibration:
    """Return the default calibration, for models without their own."""
    return Calibration(
        Curve.logistic(TEXTS_CENTRE, TEXTS_WIDTH),
        Curve.logistic(PICTURES_CENTRE, PICTURES_WIDTH),
    )
