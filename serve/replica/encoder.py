"""The encoder as replicas see it: the facts of its model, and the calls that it answers.

`encoding` has the deployment that holds the model, and the implementation that calls it. Does not know where the encoder runs.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pipelines.models.cutoff import Cutoff
from pipelines.models.relevance import Calibration

Vector = NDArray[np.float32]  # (dimensions,), of unit length


@dataclass(frozen=True)
class EncoderInfo:
    """The facts that a replica must know of a model that encodes queries."""

    name: str
    dimensions: int
    fingerprint: str  # of the weights: embeddings of other weights are not compared
    calibration: Calibration  # of cosines to relevance
    cutoff: Cutoff = field(default_factory=Cutoff, compare=False)  # decides which moments are too far to be shown


class Encoding(Protocol):
    """The encoder, wherever it runs. Models are named as in the catalogue; "" is the encoder's own.

    Every call may raise `Temporary`: the encoder does not answer.
    """

    async def answers(self) -> None:
        """Check that the encoder answers now; earlier results do not count."""

    async def facts(self, model: str = "") -> EncoderInfo:
        """Return the facts of a model."""

    def prepare(self, models: Iterable[str]) -> None:
        """Have models loaded in the background, so that searches can switch to one of them."""

    async def text(self, text: str, model: str = "") -> Vector:
        """Encode a text.

        Args:
            text: the text.
            model: the model to encode with.

        Returns:
            The vector, (dimensions,), float32, of unit length.
        """

    async def image(self, data: bytes, model: str = "") -> Vector:
        """Encode a picture.

        Args:
            data: a JPEG, PNG or WebP file.
            model: the model to encode with.

        Returns:
            The vector, (dimensions,), float32, of unit length.
        """

    async def close(self) -> None:
        """End the background tasks."""
