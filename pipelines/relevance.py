"""From a cosine to a relevance in parts per million, calibrated per model.

Texts and pictures lie differently near the moments they ask for, so each has a curve of its own. A model's folder may
carry `calibration.json`: points measured on held-out questions, monotone. A model without one gets logistic curves
around the similarities usual for models trained by contrast. Knows nothing about ranking or money.
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

# Where an uncalibrated model is half sure, and over which width that changes. CLIP models give strangers a cosine of
# about 0.15 and a good match 0.3 between text and picture; about 0.5 and 0.9 between two pictures.
TEXTS_CENTRE, TEXTS_WIDTH = 0.25, 0.03
PICTURES_CENTRE, PICTURES_WIDTH = 0.75, 0.05
# From where on moments of two videos show the same pictures to an uncalibrated model: CLIP models give another coding of a
# picture 0.98 and more, and less to most other takes of one scene.
SAME = 0.98


@dataclass(frozen=True)
class Curve:
    """Points (cosine, ppm), ascending in both; straight lines between them, level outside."""

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
        """A curve as `calibration.json` holds it."""
        return cls(tuple(points["cosines"]), tuple(points["relevance_ppm"]))

    @classmethod
    def logistic(cls, centre: float, width: float) -> Curve:
        cosines = np.linspace(-1.0, 1.0, 201)
        values = np.rint(PPM / (1 + np.exp(-(cosines - centre) / width))).astype(np.int64)
        return cls(tuple(float(c) for c in cosines), tuple(int(v) for v in values))

    def ppm(self, cosines: NDArray[np.floating[Any]]) -> NDArray[np.int64]:
        """Whole parts per million for each cosine."""
        values: NDArray[np.int64] = np.rint(np.interp(cosines, *self._points)).astype(np.int64)
        return values

    @cached_property
    def _points(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return np.array(self.cosines), np.array(self.ppm_at, np.float64)


@dataclass(frozen=True)
class Calibration:
    """A model's two curves: for answers to a text, and for answers to a picture or another moment."""

    texts: Curve
    pictures: Curve
    same: float = SAME  # the cosine from which on moments of two videos show the same pictures

    def __post_init__(self) -> None:
        if not 0.5 < self.same <= 1:
            raise ValueError("the cosine of what is the same is above 0.5, and 1 at most")

    @classmethod
    def of(cls, folder: Path | None) -> Calibration:
        """The calibration of a model folder, or the general one."""
        if folder is None or not (folder / FILE).is_file():
            return general()
        curves = json.loads((folder / FILE).read_text(encoding="utf-8"))
        return cls(Curve.read(curves["texts"]), Curve.read(curves["pictures"]), curves.get("same", SAME))

    def ppm(self, cosines: NDArray[np.floating[Any]], *, asked_by_text: bool = True) -> NDArray[np.int64]:
        """Whole parts per million for each cosine between a question and an answer."""
        return (self.texts if asked_by_text else self.pictures).ppm(cosines)


def general() -> Calibration:
    """For models nobody calibrated."""
    return Calibration(
        Curve.logistic(TEXTS_CENTRE, TEXTS_WIDTH),
        Curve.logistic(PICTURES_CENTRE, PICTURES_WIDTH),
    )
