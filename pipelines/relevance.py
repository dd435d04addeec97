"""From a cosine to a relevance in parts per million, calibrated per model.

A model's folder may carry `calibration.json`: points measured on held-out pairs, monotone. A model without one gets a
logistic curve around the similarities usual for models trained by contrast. Knows nothing about ranking or money.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

PPM = 1_000_000
CENTRE, WIDTH = (
    0.25,
    0.03,
)  # text-image cosines of CLIP models: about 0.15 for strangers, 0.3 for a good match
FILE = "calibration.json"


@dataclass(frozen=True)
class Calibration:
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
    def of(cls, folder: Path | None) -> Calibration:
        """The calibration of a model folder, or the general one."""
        if folder is None or not (folder / FILE).is_file():
            return general()
        points = json.loads((folder / FILE).read_text(encoding="utf-8"))
        return cls(tuple(points["cosines"]), tuple(points["relevance_ppm"]))

    def ppm(self, cosines: NDArray[np.floating[Any]]) -> NDArray[np.int64]:
        """Whole parts per million for each cosine."""
        values: NDArray[np.int64] = np.rint(np.interp(cosines, self.cosines, self.ppm_at)).astype(np.int64)
        return values


def general() -> Calibration:
    """For models nobody calibrated."""
    cosines = np.linspace(-1.0, 1.0, 201)
    values = np.rint(PPM / (1 + np.exp(-(cosines - CENTRE) / WIDTH))).astype(np.int64)
    return Calibration(tuple(float(c) for c in cosines), tuple(int(v) for v in values))
